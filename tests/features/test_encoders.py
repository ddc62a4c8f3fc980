"""Frozen image encoders by name: backbones, CLIP towers, and what cannot be loaded."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from boresight.core.errors import UserError
from boresight.features.clip_load import load_clip
from boresight.features.encoder import LIBRARIES, FeatureMaps
from boresight.features.encoders import load_encoder
from boresight.features.frozen_backbones import ClipEncoder, SqueezeEncoder, TimmEncoder
from boresight.features.rgb import SqueezePyramid

REAL = Path(os.environ.get("BORESIGHT_DATA", "../shared/data")) / "weights" / "squeezenet1_0-imagenet.npz"


def images(*sizes: tuple[int, int], seed: int = 0) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 256, (3, *size), generator=random, dtype=torch.uint8) for size in sizes]


@pytest.fixture(scope="module")
def squeeze_file(tmp_path_factory) -> str:
    from safetensors.torch import save_file

    torch.manual_seed(0)
    net = SqueezePyramid(None, 8)
    for weight in (p for p in net.features.parameters() if p.ndim > 1):  # else what is deep hardly sees the image
        torch.nn.init.kaiming_normal_(weight)
    file = tmp_path_factory.mktemp("weights") / "squeeze.safetensors"
    save_file({f"features.{k}": v for k, v in net.features.state_dict().items()}, file)
    return str(file)


@pytest.fixture(scope="module")
def every(squeeze_file):
    """One encoder of each kind."""
    torch.manual_seed(0)
    return {
        "squeezenet": SqueezeEncoder(squeeze_file, (2, 3, 4)),
        "timm": TimmEncoder("resnet18", levels=(2, 4), random=True),
        "clip": ClipEncoder(load_clip("boresight-aerial"), (1, 3)),
    }


KINDS = ("squeezenet", "timm", "clip")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(64, 96), (50, 61), (33, 40)])
def test_maps_have_the_channels_that_were_promised_and_cover_the_image(every, kind, size):
    encoder = every[kind]
    before = encoder.calls
    one, two = encoder.encode(images(size, size))
    assert encoder.calls == before + 2
    for maps in (one, two):
        assert tuple(level.shape[0] for level in maps.levels) == encoder.channels
        assert (maps.extents >= torch.tensor(size) - 1e-4).all()
        for level, stride, extent in zip(maps.levels, encoder.strides, maps.extents, strict=True):
            assert level.dtype == torch.float32
            assert (extent < torch.tensor(size) + 2 * max(encoder.strides)).all()
            assert abs(float(extent[0]) / level.shape[1] - stride) < stride / 2
    for a, b in zip(one.levels, two.levels, strict=True):
        assert float((a - b).abs().max()) > 1e-2 * float(a.abs().max())


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_does_not_depend_on_its_neighbours(every, kind):
    encoder = every[kind]
    several = images((48, 64), (64, 40), (48, 64))
    encoder.batch = 3
    together = encoder.encode(several)
    encoder.batch = 1
    alone = [encoder.encode([image])[0] for image in several]
    for a, b in zip(together, alone, strict=True):
        for x, y in zip(a.levels, b.levels, strict=True):
            assert_close(x, y, atol=1e-5 * float(x.abs().max()), rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_frozen_shared_and_known_by_its_weights(every, kind):
    encoder = every[kind]
    assert copy.deepcopy(encoder) is encoder
    assert not encoder.module.training
    assert not any(p.requires_grad for p in encoder.module.parameters())
    assert encoder.to("cpu") is encoder
    assert encoder.device.type == "cpu"
    before = encoder.identity()
    made = encoder.fingerprint
    weight = next(encoder.module.parameters())
    with torch.no_grad():
        kept = weight.clone()
        weight.view(-1)[0] += 1e-3
        assert encoder.identity() != before
        weight.copy_(kept)
    assert encoder.identity() == before
    assert encoder.fingerprint == made


@pytest.mark.parametrize("kind", KINDS)
def test_a_library_upgrade_makes_features_new_but_leaves_the_encoder_the_same(every, kind, monkeypatch):
    encoder = every[kind]
    before, made = encoder.identity(), encoder.fingerprint
    version = next(k for k in encoder.about if k in LIBRARIES)
    monkeypatch.setitem(encoder.about, version, "99.0")
    assert encoder.fingerprint != made
    assert encoder.identity() == before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [torch.zeros(1, 8, 8), torch.zeros(3, 0, 8), torch.zeros(8, 8)])
def test_what_is_no_rgb_image_is_refused(every, kind, bad):
    with pytest.raises(ValueError, match="image 1 must be"):
        every[kind].encode([*images((32, 32)), bad])


def test_features_that_are_not_finite_are_named(every):
    encoder = every["squeezenet"]
    weight = encoder.module["0"].bias
    with torch.no_grad():
        kept = weight.clone()
        weight[0] = float("nan")
    try:
        with pytest.raises(ValueError, match="the features of image 0 are not finite"):
            encoder.encode(images((32, 32)))
    finally:
        with torch.no_grad():
            weight.copy_(kept)


def test_every_setting_is_another_recipe(squeeze_file):
    clip = load_clip("boresight-aerial")
    torch.manual_seed(0)
    made = [
        SqueezeEncoder(squeeze_file, (3,)),
        SqueezeEncoder(squeeze_file, (3, 4)),
        SqueezeEncoder(squeeze_file, (3,), size=40),
        ClipEncoder(clip, (1,)),
        ClipEncoder(clip, (2,)),
        ClipEncoder(clip, (1,), size=64),
        ClipEncoder(clip, (1,), window=64),
    ]
    assert len({e.fingerprint for e in made}) == len(made)
    assert SqueezeEncoder(squeeze_file, [3]).fingerprint == made[0].fingerprint
    assert SqueezeEncoder(squeeze_file, (3,), batch=4).fingerprint == made[0].fingerprint


def test_the_stages_are_those_of_the_trainable_pyramid(squeeze_file):
    """The frozen encoder reads the same backbone as the trainable one."""
    encoder = SqueezeEncoder(squeeze_file, (2, 4))
    (image,) = images((40, 56))
    net = SqueezePyramid(squeeze_file, 8).eval()
    mean = torch.tensor([104.0, 117.0, 123.0])[:, None, None]
    with torch.no_grad():
        want = net.stages((image.float().flip(0) - mean)[None])
    (have,) = encoder.encode([image])
    assert torch.equal(have.levels[0], want[2][0])
    assert torch.equal(have.levels[1], want[4][0])


def test_a_smaller_size_reads_a_smaller_image_and_says_what_it_covers(squeeze_file):
    (maps,) = SqueezeEncoder(squeeze_file, (3,), size=64).encode(images((96, 128)))
    assert tuple(maps.levels[0].shape[1:]) == (6, 8)
    assert_close(maps.extents, torch.tensor([[96.0, 128.0]]))
    (odd,) = SqueezeEncoder(squeeze_file, (3,), size=50).encode(images((96, 130)))
    assert odd.extents[0, 0] >= 96 - 1e-3
    assert odd.extents[0, 1] >= 130 - 1e-3


@pytest.mark.skipif(not REAL.is_file(), reason=f"{REAL} is not here")
def test_the_real_weights_load_and_see_something():
    encoder = load_encoder("squeezenet", str(REAL), levels=(4,))
    one, two = encoder.encode(images((64, 64), (64, 64)))
    assert encoder.channels == (512,)
    assert float((one.levels[0] - two.levels[0]).abs().max()) > 0.1


@pytest.mark.parametrize("name", ["boresight-aerial", "clip:boresight-aerial"])
def test_the_shipped_encoder_has_two_names(name):
    encoder = load_encoder(name, layers=(1,))
    assert encoder.channels == (128,)
    assert encoder.strides == (8.0,)


@pytest.mark.parametrize(
    ("name", "more", "words"),
    [
        ("squeezenet", {}, "its features would be random; give features.weights=FILE"),
        ("sqeezenet", {}, "no encoder: did you mean `squeezenet`?"),
        ("zebra", {}, "no encoder; give boresight-aerial, squeezenet, sam:NAME, timm:NAME, clip:NAME"),
        ("squeezenet", {"weights": "nowhere.npz"}, "nowhere.npz: no such file"),
        ("timm:no_such_model", {"weights": __file__}, "no_such_model"),
        ("timm:resnet18", {"weights": "nowhere.safetensors"}, "no such file"),
        ("boresight-aerial", {"layers": ()}, "features.layers: empty"),
        ("sam:nowhere/at/all", {"weights": "x"}, "a SAM is named by its folder or hub id alone"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(name, more, words):
    with pytest.raises(UserError) as error:
        load_encoder(name, **more)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_levels_that_are_not_there_are_named(squeeze_file):
    with pytest.raises(UserError, match="squeezenet has 2, 3 and 4"):
        SqueezeEncoder(squeeze_file, (5,))
    with pytest.raises(UserError, match="not 9"):
        TimmEncoder("resnet18", levels=(3, 9), random=True)


def test_maps_check_themselves():
    with pytest.raises(ValueError, match="FeatureMaps need"):
        FeatureMaps((torch.zeros(3, 4, 5),), torch.zeros(2, 2))
    maps = FeatureMaps((torch.zeros(3, 4, 5), torch.ones(2, 2, 2)), torch.ones(2, 2))
    back = FeatureMaps.from_tensors(maps.tensors())
    assert all(torch.equal(a, b) for a, b in zip(maps.levels, back.levels, strict=True))
