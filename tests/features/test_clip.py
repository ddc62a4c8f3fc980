"""The frozen encoder: open_clip's own numbers, any size, windows, layers, the fingerprint, nothing written back."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from boresight.core.errors import UserError
from boresight.features.clip import Preprocess
from boresight.features.dense import DenseFeatures

GENERATOR = torch.Generator().manual_seed(5)
IMAGES = torch.randint(0, 256, (3, 3, 448, 448), generator=GENERATOR, dtype=torch.uint8)


def state(clip):
    return {k: v.clone() for k, v in clip.model.state_dict().items()}


@pytest.mark.parametrize(("kind", "side"), [("tok", 224), ("avg", 96), ("late", 96), ("resnet", 64)])
def test_pooled_is_what_open_clip_itself_gives(tiny_clip, kind, side):
    clip = tiny_clip(kind)
    image = IMAGES[..., :side, :side]
    with torch.no_grad():
        expected = clip.model.encode_image(clip.preprocess(image, (side, side)), normalize=True)
    method = "maskclip" if kind == "resnet" else "naclip"
    assert torch.allclose(clip.encode(image, method=method).pooled, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["tok", "avg"])
@torch.no_grad()
def test_raw_layers_are_what_open_clip_itself_gives(tiny_clip, kind):
    clip = tiny_clip(kind)
    side = clip.preprocess.size if kind == "tok" else 96
    image = IMAGES[..., :side, :side]
    blocks = clip.depth
    theirs = clip.model.visual.forward_intermediates(
        clip.preprocess(image, (side, side)), indices=[blocks - 3, blocks - 1], intermediates_only=True
    )["image_intermediates"]
    ours = clip.encode(image, layers=(1, 3)).layers
    assert ours.shape[1] == clip.channels((1, 3)) == 64
    assert torch.allclose(ours, torch.cat(theirs[::-1], dim=1), atol=1e-5)


def test_layers_that_are_not_there(tiny_clip):
    for bad in ((0,), (1, 4), (-1,)):
        with pytest.raises(UserError, match=r"this encoder has layers 1 \(the last\) to 3"):
            tiny_clip("tok").encode(IMAGES[:1], layers=bad)


def test_positions_are_not_written_back(tiny_clip):
    clip = tiny_clip("tok")
    before, image = state(clip), IMAGES.clone()
    first = clip.encode(IMAGES[..., :224, :224]).aligned
    large = clip.encode(IMAGES, method="surgery", layers=(1,))
    assert large.aligned.shape[-2:] == (14, 14)
    assert all(torch.equal(before[k], v) for k, v in state(clip).items())
    assert clip.measured_fingerprint() == clip.fingerprint
    assert torch.equal(clip.encode(IMAGES[..., :224, :224]).aligned, first)
    assert torch.equal(IMAGES, image)
    assert not any(p.requires_grad for p in clip.model.parameters())
    assert not clip.model.training


def test_positions_interpolate_between_the_cells(tiny_clip):
    """A table that is linear in the column stays linear when it is read more finely."""
    from boresight.features.clip_tower import interpolated_positions

    ramp = torch.arange(4.0).repeat(3)[:, None]  # 3 x 4 cells whose position is their column
    table = torch.cat((torch.tensor([[9.0]]), ramp))
    fine = interpolated_positions(table, (3, 4), (3, 8))
    assert fine[0].item() == 9
    expected = ((torch.arange(8) + 0.5) / 2 - 0.5).clamp(0, 3)
    assert torch.allclose(fine[1:].reshape(3, 8), expected.expand(3, 8))
    assert interpolated_positions(table, (3, 4), (3, 4)) is table


@pytest.mark.parametrize(
    ("shape", "size", "grid"),
    [
        ((64, 96), None, (2, 3)),
        ((65, 96), None, (3, 3)),
        ((64, 96), 128, (4, 6)),
        ((50, 200), 64, (2, 8)),
        ((5, 5), None, (1, 1)),
    ],
)
def test_sizes_round_up_to_cells(tiny_clip, shape, size, grid):
    found = tiny_clip("tok").encode(IMAGES[:1, :, : shape[0], : shape[1]], size=size)
    assert found.grid == grid
    assert found.aligned.isfinite().all()


def test_pixels_are_normalised_as_the_preprocessing_says():
    pre = Preprocess(mean=(0.5, 0.0, 0.2), std=(0.25, 1.0, 0.1))
    found = pre(torch.full((1, 3, 4, 4), 255, dtype=torch.uint8), (4, 4))
    assert torch.allclose(found[0, :, 0, 0], torch.tensor([2.0, 1.0, 8.0]))
    stretched = pre(torch.full((1, 3, 4, 4), 255, dtype=torch.uint8), (8, 6))  # a constant stays constant
    assert torch.allclose(stretched[0, :, 3, 3], torch.tensor([2.0, 1.0, 8.0]), atol=1e-4)


def test_bytes_and_floats_are_the_same_image(tiny_clip):
    clip = tiny_clip("avg")
    assert torch.equal(clip.encode(IMAGES[:1]).aligned, clip.encode(IMAGES[:1].float()).aligned)


def test_images_of_a_wrong_shape_are_refused(tiny_clip):
    for shape in ((3, 8, 8), (1, 1, 8, 8), (1, 3, 0, 8)):
        with pytest.raises(ValueError, match=r"must be \[B, 3, H, W\]"):
            tiny_clip("tok").encode(torch.zeros(shape))


# --- windows ---------------------------------------------------------------------------------------------------------


def test_one_window_is_the_plain_pass(tiny_clip):
    clip = tiny_clip("tok")
    plain = clip.encode(IMAGES[:2, :, :224, :224], layers=(1,))
    for window in (224, 448, 1000):
        tiled = clip.encode(IMAGES[:2, :, :224, :224], layers=(1,), window=window)
        assert all(torch.equal(a, b) for a, b in zip(plain.tensors().values(), tiled.tensors().values(), strict=True))


def test_windows_by_hand(tiny_clip):
    """Two windows of 4 cells over 6, overlapping in 2: weights 1 2 2 1 and 1 2 2 1."""
    clip = tiny_clip("avg")
    image = IMAGES[:2, :, :128, :192]
    left, right = (clip.encode(image[..., s : s + 128], layers=(2,)) for s in (0, 64))
    clip.calls = 0
    found = clip.encode(image, window=128, overlap=0.5, layers=(2,))
    assert clip.calls == 4
    for name in ("aligned", "layers"):
        a, b, f = (getattr(x, name) for x in (left, right, found))
        assert torch.allclose(f[..., :2], a[..., :2], atol=1e-5)
        assert torch.allclose(f[..., 4:], b[..., 2:], atol=1e-5)
        assert torch.allclose(f[..., 2], (2 * a[..., 2] + b[..., 0]) / 3, atol=1e-5)
        assert torch.allclose(f[..., 3], (a[..., 3] + 2 * b[..., 1]) / 3, atol=1e-5)
    mean = torch.nn.functional.normalize((left.pooled + right.pooled) / 2, dim=-1)
    assert torch.allclose(found.pooled, mean, atol=1e-6)


@pytest.mark.parametrize("method", ["naclip", "surgery", "segearth"])
def test_windows_do_not_see_the_other_images_of_the_batch(tiny_clip, method):
    clip = tiny_clip("tok")
    several = clip.encode(IMAGES, window=128, overlap=0.3, method=method)
    for i in range(3):
        alone = clip.encode(IMAGES[i : i + 1], window=128, overlap=0.3, method=method)
        assert torch.allclose(alone.aligned, several[i].aligned, atol=1e-5)
        assert torch.allclose(alone.pooled, several[i].pooled, atol=1e-5)


def test_impossible_windows(tiny_clip):
    clip = tiny_clip("tok")
    for more, word in (
        ({"window": 0}, "window=0"),
        ({"window": 64, "overlap": 1.0}, "overlap=1.0"),
        ({"size": 0}, "size=0"),
    ):
        with pytest.raises(UserError, match=word):
            clip.encode(IMAGES[:1], **more)


# --- identity --------------------------------------------------------------------------------------------------------


def test_the_fingerprint_changes_with_one_bit(tiny_clip):
    clip = tiny_clip("tok")
    assert tiny_clip("tok").fingerprint == clip.fingerprint
    assert tiny_clip("tok", seed=1).fingerprint != clip.fingerprint
    bits = clip.model.visual.conv1.weight.data.view(torch.int32)
    bits[0, 0, 0, 0] ^= 1
    assert clip.measured_fingerprint() != clip.fingerprint
    bits[0, 0, 0, 0] ^= 1
    assert clip.measured_fingerprint() == clip.fingerprint


def test_the_fingerprint_sees_buffers_activation_and_preprocessing(tiny_clip):
    resnet = tiny_clip("resnet")
    resnet.model.visual.bn1.running_mean[0] += 1
    assert resnet.measured_fingerprint() != resnet.fingerprint
    clip = tiny_clip("tok")
    clip.activation = "quickgelu"
    assert clip.measured_fingerprint() != clip.fingerprint
    clip = tiny_clip("tok")
    clip.preprocess = Preprocess(size=clip.preprocess.size, mean=(0.5, 0.5, 0.5))
    assert clip.measured_fingerprint() != clip.fingerprint


def test_it_is_no_part_of_the_module_that_holds_it(tiny_clip):
    class Detector(nn.Module):
        def __init__(self, clip):
            super().__init__()
            self.clip, self.head = clip, nn.Linear(2, 2)

    clip = tiny_clip("tok")
    detector = Detector(clip)
    assert len(list(detector.parameters())) == len(detector.state_dict()) == 2
    assert copy.deepcopy(detector).clip is clip


def test_calls_are_counted(tiny_clip):
    clip = tiny_clip("tok")
    clip.encode(IMAGES)
    assert clip.calls == 3
    clip.encode(IMAGES[:2, :, :64, :64], window=32, overlap=0)
    assert clip.calls == 3 + 2 * 4


# --- ResNet, and what is refused -------------------------------------------------------------------------------------


@torch.no_grad()
def test_resnet_maskclip_and_vanilla(tiny_clip):
    clip = tiny_clip("resnet")
    visual, pool = clip.model.visual, clip.model.visual.attnpool
    x = clip.preprocess(IMAGES[:2, :, :64, :64], (64, 64))
    last = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(x)))))
    values = pool.c_proj(pool.v_proj(last.permute(0, 2, 3, 1)))
    expected = torch.nn.functional.normalize(values, dim=-1).permute(0, 3, 1, 2)
    found = clip.encode(IMAGES[:2, :, :64, :64], method="maskclip", layers=(1, 3))
    assert torch.allclose(found.aligned, expected, atol=1e-5)
    assert found.layers.shape == (2, clip.channels((1, 3)), 2, 2)
    assert torch.equal(found.layers[:, :256], last)
    large = clip.encode(IMAGES, method="vanilla", size=128)
    assert large.aligned.shape == (3, 24, 4, 4)
    assert torch.allclose(large.aligned.norm(dim=1), torch.ones(()), atol=1e-5)
    assert all(
        clip.encode(IMAGES[:1], method="vanilla", layers=(k,)).layers.shape[1] == clip.channels((k,))
        for k in range(1, 6)
    )


def test_a_resnet_says_which_methods_work(tiny_clip):
    with pytest.raises(UserError, match=r"method=naclip needs a vision transformer.*maskclip.*vanilla"):
        tiny_clip("resnet").encode(IMAGES[:1])
    with pytest.raises(UserError, match="average=2"):
        tiny_clip("resnet").encode(IMAGES[:1], method="maskclip", average=2)


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"attentional_pool": True, "attn_pooler_heads": 2}, "pools by attention"),
        ({"qk_norm": True}, "custom attention"),
    ],
)
def test_towers_that_cannot_be_read(tiny_clip, more, word):
    with pytest.raises(UserError, match=word):
        tiny_clip("tok", **more)


def test_another_kind_of_tower():
    from boresight.features.clip_tower import tower_of

    with pytest.raises(UserError, match=r"type Linear \(timm\)"):
        tower_of(nn.Linear(2, 2))


# --- DenseFeatures ---------------------------------------------------------------------------------------------------


def test_dense_features_as_named_tensors_and_one_by_one(tiny_clip):
    found = tiny_clip("tok").encode(IMAGES, layers=(1,))
    back = DenseFeatures.from_tensors(found.tensors())
    assert all(torch.equal(a, b) for a, b in zip(found.tensors().values(), back.tensors().values(), strict=True))
    assert len(found) == 3
    assert torch.equal(found[-1].aligned, found.aligned[2:])
    assert torch.equal(DenseFeatures.join([found[0], found[1:]]).layers, found.layers)
    assert found.to("cpu").grid == (14, 14)
    with pytest.raises(IndexError):
        found[3]
    with pytest.raises(ValueError, match="different grids"):
        DenseFeatures.join([found[0], tiny_clip("tok").encode(IMAGES[:1, :, :64, :64], layers=(1,))])
    with pytest.raises(ValueError, match="aligned"):
        DenseFeatures(found.aligned, found.layers, found.pooled[:1])
