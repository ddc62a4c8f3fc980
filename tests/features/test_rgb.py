"""Encoders of raw RGB: weights of every file form, what is frozen, and where a feature lies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from boresight.core.errors import UserError
from boresight.features.rgb import IMAGENET_MEAN, IMAGENET_STD, NormalisedRgb, SqueezePyramid, read_weights


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """Random weights with torchvision's names, the classifier of the whole network included."""
    torch.manual_seed(3)
    mine = SqueezePyramid(None, 4).features.state_dict()
    named = {f"features.{k}": torch.randn_like(v) * 0.1 for k, v in mine.items()}
    return named | {"classifier.1.weight": torch.zeros(1000, 512, 1, 1)}


def written(weights, path):
    if path.suffix == ".npz":
        np.savez(path, **{k: v.numpy() for k, v in weights.items()})
    elif path.suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path)
    return str(path)


# --- weights ---------------------------------------------------------------------------------------------------------


def test_the_names_are_those_of_torchvision():
    from torchvision.models import squeezenet1_0

    with torch.device("meta"):  # its shapes alone: to draw its weights takes a second
        peer = squeezenet1_0()
    theirs = {k: v.shape for k, v in peer.state_dict().items() if k.startswith("features.")}
    mine = {f"features.{k}": v.shape for k, v in SqueezePyramid(None, 4).features.state_dict().items()}
    assert mine == theirs


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth"])
def test_every_form_of_file_is_read(weights, tmp_path, suffix):
    pyramid = SqueezePyramid(written(weights, tmp_path / f"w{suffix}"), 4)
    for name, value in pyramid.features.state_dict().items():
        assert torch.equal(value, weights[f"features.{name}"]), name


def test_half_precision_is_read_as_float(weights, tmp_path):
    file = tmp_path / "w.npz"
    np.savez(file, **{k: v.half().numpy() for k, v in weights.items()})
    assert all(v.dtype == torch.float32 for v in read_weights(str(file)).values())
    SqueezePyramid(str(file), 4)


def test_a_missing_weight_is_named(weights, tmp_path):
    other = dict(weights)
    other["features.3.squeezed.weight"] = other.pop("features.3.squeeze.weight")
    file = written(other, tmp_path / "w.npz")
    with pytest.raises(UserError) as caught:
        SqueezePyramid(file, 4)
    want = "weight `features.3.squeeze.weight` is missing: did you mean `features.3.squeezed.weight`?"
    assert str(caught.value) == f"{file}: {want}"


def test_weights_of_another_network(weights, tmp_path):
    other = weights | {"features.0.weight": torch.zeros(64, 3, 3, 3)}  # squeezenet1_1
    file = written(other, tmp_path / "w.safetensors")
    with pytest.raises(UserError) as caught:
        SqueezePyramid(file, 4)
    shapes = "has shape [64, 3, 3, 3], squeezenet1_0 has [96, 3, 7, 7]: weights of another network"
    assert str(caught.value) == f"{file}: weight `features.0.weight` {shapes}"


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("name", ["w.npz", "w.safetensors", "w.pth"])
@pytest.mark.parametrize("content", [b"", b"no weights at all, whatever the name says", b"PK\x03\x04"], ids=len)
def test_a_file_that_is_none(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_weights(str(tmp_path / name))
    assert str(caught.value).startswith(f"encoder.weights={tmp_path / name}: ")
    assert "\n" not in str(caught.value)


def test_an_archive_of_a_kind_that_nobody_reads(tmp_path):
    """A zip that wants a version of the future; one that is spread over disks."""
    np.savez(tmp_path / "w.npz", a=np.zeros(3))
    whole = (tmp_path / "w.npz").read_bytes()
    at = whole.rindex(b"PK\x01\x02")
    (tmp_path / "w.npz").write_bytes(whole[: at + 6] + b"\xd8\x00" + whole[at + 8 :])
    end = whole.rindex(b"PK\x05\x06")
    (tmp_path / "w.pt").write_bytes(whole[:end] + b"PK\x06\x07" + b"\x01" * 16 + whole[end:])
    for name in ("w.npz", "w.pt"):
        with pytest.raises(UserError, match=f"encoder.weights=.*{name}: "):
            read_weights(str(tmp_path / name))


def test_an_encrypted_archive(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.zeros(3))
    whole = bytearray((tmp_path / "w.npz").read_bytes())
    whole[whole.rindex(b"PK\x01\x02") + 8] |= 1  # the flag, in the entry and in the directory
    whole[whole.index(b"PK\x03\x04") + 6] |= 1
    (tmp_path / "w.npz").write_bytes(whole)
    with pytest.raises(UserError, match=r"encoder.weights=.*w.npz: cannot be read .*encrypted"):
        read_weights(str(tmp_path / "w.npz"))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        SqueezePyramid(str(tmp_path / "w.npz"), 4)


def test_a_file_that_holds_something_else(tmp_path):
    torch.save([1, 2], tmp_path / "w.pth")
    np.savez(tmp_path / "words.npz", a=np.array(["word"]))
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    for name in ("w.pth", "words.npz", "one.npz"):
        with pytest.raises(UserError) as caught:
            SqueezePyramid(str(tmp_path / name), 4)
        assert str(caught.value).startswith(f"encoder.weights={tmp_path / name}: ")


def test_nothing_in_a_file_is_run(tmp_path):
    torch.save({"features.0.weight": Trap(tmp_path / "sprung")}, tmp_path / "w.pth")
    np.savez(tmp_path / "w.npz", a=np.array([Trap(tmp_path / "sprung")], dtype=object))
    for name in ("w.pth", "w.npz"):
        with pytest.raises(UserError, match=r"weights only|cannot be read"):
            read_weights(str(tmp_path / name))
    assert not (tmp_path / "sprung").exists()


def test_the_weights_of_imagenet(real_data):
    """Part by part they answer as torchvision's network does; the paddings alone are ours."""
    from torchvision.models import squeezenet1_0

    file = real_data / "weights" / "squeezenet1_0-imagenet.npz"
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    pyramid, peer = SqueezePyramid(str(file), 8).eval(), squeezenet1_0().eval()
    held = {k: v for k, v in read_weights(str(file)).items() if k.startswith("features.")}
    peer.load_state_dict(held, strict=False)
    image = torch.randn(1, 3, 41, 41, generator=torch.Generator().manual_seed(0))
    # theirs is centred on the pixels 3, 5, .., ours on 0, 2, ..: a pixel on, our third (which no padding reaches) is
    # their second
    theirs, ours = peer.features[0](image), pyramid.features["0"](image[..., 1:, 1:])
    assert torch.allclose(ours[..., 2:19, 2:19], theirs[..., 1:18, 1:18], atol=1e-4)
    for name, fire in list(pyramid.features.items())[1:]:
        x = torch.randn(1, fire.squeeze.in_channels, 6, 6, generator=torch.Generator().manual_seed(1))
        assert torch.allclose(fire(x), peer.features[int(name)](x), atol=1e-4), name
    assert all(v.isfinite().all() for v in pyramid(torch.rand(1, 3, 64, 64) * 255).values())


# --- the pyramid -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("finest", "levels"), [(2, {2, 3, 4}), (3, {3, 4}), (4, {4})])
def test_levels_and_sizes(finest, levels):
    pyramid = SqueezePyramid(None, 6, finest=finest).eval()
    assert pyramid.channels == dict.fromkeys(levels, 6)
    with torch.no_grad():
        found = pyramid(torch.rand(2, 3, 64, 96))
    assert {k: tuple(v.shape) for k, v in found.items()} == {k: (2, 6, 64 >> k, 96 >> k) for k in levels}


def test_a_shrunk_image_is_the_mean_of_blocks():
    """The body sees block means, also of a last block that is cut, and levels count from the raw pixels."""

    class Seen(nn.Module):
        def __init__(self):
            super().__init__()
            self.channels = {0: 3, 1: 3}

        def forward(self, image):
            return {0: image, 1: image[..., ::2, ::2]}

    whole = NormalisedRgb(Seen(), (10.0, 20.0, 30.0), (2.0, 2.0, 2.0), bgr=True, shrink=4)
    assert whole.channels == {2: 3, 3: 3}
    image = torch.rand(1, 3, 8, 10) * 255
    found = whole(image)
    assert set(found) == {2, 3}
    assert found[2].shape == (1, 3, 2, 3)
    wanted = (image.flip(1)[..., 4:8, 8:10].mean((2, 3)) - torch.tensor([[10.0, 20.0, 30.0]])) / 2
    assert torch.allclose(found[2][..., 1, 2], wanted, atol=1e-4)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_backbone_gets_no_gradient(frozen):
    pyramid = SqueezePyramid(None, 4, frozen=frozen)
    torch.stack([v.square().mean() for v in pyramid(torch.rand(1, 3, 32, 32) * 100).values()]).sum().backward()
    above = dict(pyramid.top_down.named_parameters())
    assert above
    assert all(p.grad is not None for p in above.values())
    body = list(pyramid.features.parameters())
    assert all((p.grad is None) == frozen for p in body)
    assert all(p.requires_grad != frozen for p in body)


def alike(pyramid: SqueezePyramid) -> SqueezePyramid:
    """Every convolution averages over its window and its channels: what remains is where things lie."""
    with torch.no_grad():
        for part in pyramid.features.modules():
            if isinstance(part, nn.Conv2d):
                part.weight.fill_(1 / part.weight[0].numel())
                part.bias.zero_()
    return pyramid


@pytest.mark.parametrize("level", [2, 3, 4])
def test_a_feature_lies_where_its_pixels_are(level, monkeypatch):
    """A bright spot in the middle of a cell is brightest in that cell, and its blur lies around it.

    With the paddings of torchvision it is brightest one cell off at stride 8; with all paddings alike it lies on the
    border between two cells.
    """
    pyramid = alike(SqueezePyramid(None, 4, finest=2))
    seen: dict[int, torch.Tensor] = {}
    monkeypatch.setattr(pyramid.top_down, "forward", lambda features: seen.update(features) or features)
    stride = 2**level
    for x, y in [(68, 52), (44, 60), (51, 76), (84, 50)]:
        cell = (y // stride, x // stride)
        top, left = (c * stride + stride // 2 - 1 for c in cell)
        image = torch.zeros(1, 3, 128, 128)
        image[..., top : top + 2, left : left + 2] = 255.0
        with torch.no_grad():
            pyramid(image)
        heat = seen[level].sum(1)[0].double()
        assert float(heat[cell]) >= float(heat.max()) * (1 - 1e-6), (x, y)
        row, column = (heat.sum(1 - k) @ torch.arange(len(heat), dtype=torch.float64) / heat.sum() for k in (0, 1))
        assert abs(float(row) - cell[0]) < 0.25
        assert abs(float(column) - cell[1]) < 0.25


@pytest.mark.parametrize("size", [(33, 50), (47, 31), (1, 1), (2, 3)])
def test_a_map_covers_an_image_of_any_size(size):
    with torch.no_grad():
        found = SqueezePyramid(None, 4, finest=2).eval()(torch.rand(1, 3, *size))
    assert {k: tuple(v.shape[-2:]) for k, v in found.items()} == {
        k: tuple(-(-n // 2**k) for n in size) for k in (2, 3, 4)
    }


# --- normalisation ---------------------------------------------------------------------------------------------------


class Itself(nn.Module):
    """What it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = {0: 3}

    def forward(self, image):
        return {0: image}


def test_pixels_are_normalised_channel_by_channel():
    image = torch.tensor([100.0, 150.0, 200.0]).reshape(1, 3, 1, 1)
    plain = NormalisedRgb(Itself(), (100.0, 50.0, 0.0), (1.0, 2.0, 4.0))(image)[0]
    assert plain.flatten().tolist() == [0.0, 50.0, 50.0]
    turned = NormalisedRgb(Itself(), (100.0, 50.0, 0.0), (1.0, 2.0, 4.0), bgr=True)(image)[0]
    assert turned.flatten().tolist() == [100.0, 50.0, 25.0]
    assert image.flatten().tolist() == [100.0, 150.0, 200.0]


def test_the_defaults_are_those_of_imagenet():
    made = NormalisedRgb(Itself())
    assert made.channels == {0: 3}
    mean = torch.tensor(IMAGENET_MEAN).reshape(1, 3, 1, 1)
    assert torch.allclose(made(mean)[0], torch.zeros(1, 3, 1, 1))
    assert torch.allclose(made(mean + torch.tensor(IMAGENET_STD).reshape(3, 1, 1))[0], torch.ones(1, 3, 1, 1))
    assert pytest.approx([v / 255 for v in IMAGENET_MEAN], abs=1e-6) == [0.485, 0.456, 0.406]
    assert pytest.approx([v / 255 for v in IMAGENET_STD], abs=1e-6) == [0.229, 0.224, 0.225]
    assert made.state_dict() == {}  # the numbers belong to the code, not to the weights
