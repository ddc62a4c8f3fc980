"""The store of frozen features, and features read in the frame of a view."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from boresight.core.types import Scene, View
from boresight.features.cache import FeatureCache
from boresight.features.frozen import (
    FrozenFeatures,
    MemoryStore,
)
from boresight.features.resample import OnGrid, places_of

GENERATOR = torch.Generator().manual_seed(7)
IMAGES = torch.randint(0, 256, (5, 3, 96, 128), generator=GENERATOR, dtype=torch.uint8)
SCENES = [Scene(image, f"{i}.png", i) for i, image in enumerate(IMAGES)]
MIRROR = torch.tensor([[-1.0, 0.0, 128.0], [0.0, 1.0, 0.0]])


def stores(tmp_path):
    return (
        MemoryStore(100),
        MemoryStore(100, half=True),
        FeatureCache(tmp_path / "a"),
        FeatureCache(tmp_path / "b", storage="fp16"),
    )


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.tensors().values(), b.tensors().values(), strict=True))


# --- through the store -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", range(4))
def test_the_second_pass_does_not_run_clip(tmp_path, tiny_clip, which):
    clip, store = tiny_clip("tok"), stores(tmp_path)[which]
    frozen = FrozenFeatures(clip, store, layers=(1,), batch=4)
    first = frozen(SCENES)
    assert clip.calls == 5
    assert (store.counters.hits, store.counters.misses) == (0, 5)
    second = frozen(SCENES)
    assert clip.calls == 5
    assert (store.counters.hits, store.counters.misses) == (5, 5)
    plain = clip.encode(IMAGES, layers=(1,))
    for i, (a, b) in enumerate(zip(first, second, strict=True)):
        assert same(a, b)  # what was just computed and what was kept are the same, to the last bit
        assert a.aligned.dtype == torch.float32
        assert torch.allclose(a.aligned[0], plain.aligned[i], atol=1e-3 if which % 2 else 1e-5)


def test_equal_sizes_go_together_and_sizes_may_be_mixed(tiny_clip, monkeypatch):
    clip = tiny_clip("tok")
    frozen = FrozenFeatures(clip, MemoryStore(100), batch=2)
    sizes, real = [], clip.encode
    monkeypatch.setattr(clip, "encode", lambda image, **more: sizes.append(tuple(image.shape)) or real(image, **more))
    scenes = [SCENES[0], Scene(IMAGES[1, :, :64], "x"), SCENES[2], SCENES[3], SCENES[0]]
    found = frozen(scenes)
    assert sorted(sizes) == [(1, 3, 64, 128), (1, 3, 96, 128), (2, 3, 96, 128)]
    assert [f.grid for f in found] == [(3, 4), (2, 4), (3, 4), (3, 4), (3, 4)]
    assert same(found[0], found[4])
    assert torch.allclose(found[2].aligned, real(IMAGES[2:3]).aligned, atol=1e-5)
    assert frozen([]) == []


def test_a_view_gets_the_features_of_its_source(tiny_clip):
    clip = tiny_clip("tok")
    frozen = FrozenFeatures(clip, MemoryStore(100))
    view = Scene(IMAGES[0].flip(-1), "0.png", view=View(SCENES[0], MIRROR))
    crop = Scene(IMAGES[0, :, 10:50, 20:60].clone(), "0.png", view=View(SCENES[0], torch.eye(2, 3)))
    found = frozen([view, SCENES[0], crop])
    assert clip.calls == 1
    assert same(found[0], found[1])
    assert same(found[0], found[2])


def test_the_key_knows_settings_image_and_encoder(tiny_clip):
    clip, store = tiny_clip("tok"), MemoryStore(100)
    base = {"method": "naclip", "average": 1, "size": None, "window": None, "overlap": 0.5, "layers": (1,)}
    changes = ({"method": "gem"}, {"average": 2}, {"size": 64}, {"window": 64}, {"overlap": 0.25}, {"layers": (2,)}, {})
    keys = {FrozenFeatures(clip, store, **{**base, **c}).key(IMAGES[0]) for c in changes}
    keys.add(FrozenFeatures(tiny_clip("tok", seed=1), store, **base).key(IMAGES[0]))
    keys.add(FrozenFeatures(clip, store, **base).key(IMAGES[1]))
    assert len(keys) == len(changes) + 2
    assert FrozenFeatures(clip, store, **{**base, "layers": [1]}).key(IMAGES[0].clone()) in keys


def test_the_store_is_told_what_the_key_stands_for(tmp_path, tiny_clip):
    clip = tiny_clip("tok")
    frozen = FrozenFeatures(clip, FeatureCache(tmp_path), layers=(1,))
    about = json.loads((tmp_path / "items" / frozen.recipe / "recipe.json").read_text())
    assert about["weights"] == clip.fingerprint
    assert about["encoder"] == clip.name
    assert about["layers"] == [1]


def test_changing_one_weight_of_the_encoder_finds_nothing(tmp_path, tiny_clip):
    store = FeatureCache(tmp_path)
    FrozenFeatures(tiny_clip("tok"), store)(SCENES)
    changed = tiny_clip("tok")
    with torch.no_grad():
        next(changed.model.parameters()).view(-1)[0] += 1e-3
    changed.fingerprint = changed.measured_fingerprint()
    before = store.counters.copy()
    FrozenFeatures(changed, store)(SCENES)
    done = store.counters.since(before)
    assert (done.hits, done.misses) == (0, 5)


def test_a_damaged_item_runs_clip_once_more(tmp_path, tiny_clip):
    clip = tiny_clip("tok")
    frozen = FrozenFeatures(clip, FeatureCache(tmp_path))
    first = frozen(SCENES)
    next(tmp_path.glob("items/*/*/*.safetensors")).write_bytes(b"x")
    assert all(torch.allclose(a.aligned, b.aligned, atol=1e-5) for a, b in zip(first, frozen(SCENES), strict=True))
    assert clip.calls == 6


def test_a_training_in_half_precision_stores_no_other_features(tiny_clip):
    clip = tiny_clip("tok")
    plain = FrozenFeatures(clip, MemoryStore(100), layers=(1,))(SCENES[:2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = FrozenFeatures(clip, MemoryStore(100), layers=(1,))(SCENES[:2])
    assert all(same(a, b) for a, b in zip(plain, cast, strict=True))


def test_an_item_that_does_not_stay_is_still_right(tiny_clip):
    clip = tiny_clip("tok")
    frozen = FrozenFeatures(clip, MemoryStore(0))
    assert same(frozen(SCENES[:2])[1], frozen(SCENES[:2])[1])
    assert clip.calls == 4


def test_a_copied_detector_shares_the_store(tiny_clip):
    frozen = FrozenFeatures(tiny_clip("tok"), MemoryStore(1))
    assert copy.deepcopy(frozen) is frozen


# --- resampling ------------------------------------------------------------------------------------------------------


def resampled_batch(features, sizes, to_sources, rows, columns, stride):
    return OnGrid.of(features, places_of(sizes, to_sources, rows, columns, stride, torch.device("cpu"))).read()


def resampled(features, size, to_source, rows, columns, stride):
    return resampled_batch([features], [size], [to_source], rows, columns, stride)[0]


def test_the_same_grid_reads_itself():
    features = torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(resampled(features, (96, 128), None, 6, 8, 16.0), features, atol=1e-5)


def test_bilinear_by_hand():
    """Two cells of 8 px with values 0 and 10 (centres at 4 and 12), read every 4 px (centres at 2, 6, 10, 14)."""
    features = torch.tensor([[[0.0, 10.0]]])
    found = resampled(features, (8, 16), None, 1, 4, 4.0)
    assert torch.allclose(found, torch.tensor([[[0.0, 2.5, 7.5, 10.0]]]), atol=1e-5)


def test_a_crop_and_a_zoom_by_hand():
    """A view of the right half, drawn twice as large: its pixel x lies at 8 + x / 2 of the source."""
    features = torch.tensor([[[0.0, 10.0]]])
    zoom = torch.tensor([[0.5, 0.0, 8.0], [0.0, 0.5, 0.0]])
    found = resampled(features, (8, 16), zoom, 1, 2, 8.0)  # centres at 4 and 12: 10 and 14 in the source
    assert torch.allclose(found, torch.tensor([[[7.5, 10.0]]]), atol=1e-5)


@given(st.integers(0, 1000), st.sampled_from([(6, 8, 16.0), (12, 16, 8.0), (24, 32, 4.0), (3, 4, 32.0)]))
def test_a_mirrored_view_reads_mirrored_features(seed, grid):
    features = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(seed))
    straight = resampled(features, (96, 128), None, *grid)
    mirrored = resampled(features, (96, 128), MIRROR, *grid)
    assert torch.allclose(mirrored, straight.flip(-1), atol=1e-5)


def test_beyond_the_source_its_border_goes_on():
    shift = torch.tensor([[1.0, 0.0, 1000.0], [0.0, 1.0, 0.0]])
    assert torch.allclose(
        resampled(torch.tensor([[[0.0, 10.0]]]), (8, 16), shift, 1, 2, 8.0), torch.full((1, 1, 2), 10.0)
    )


def test_a_batch_is_one_by_one_also_for_maps_of_different_sizes():
    g = torch.Generator().manual_seed(1)
    equal = [torch.randn(3, 4, 5, generator=g) for _ in range(2)]
    for features in (equal, [equal[0], torch.randn(3, 7, 2, generator=g)]):
        sizes, views = [(64, 80), (50, 90)], [None, MIRROR]
        found = resampled_batch(features, sizes, views, 6, 8, 8.0)
        alone = [resampled(f, s, v, 6, 8, 8.0) for f, s, v in zip(features, sizes, views, strict=True)]
        assert torch.allclose(found, torch.stack(alone), atol=1e-6)
    with pytest.raises(ValueError, match="one size and one map"):
        resampled_batch(equal, [(1, 1)], [None, None], 2, 2, 1.0)
    with pytest.raises(ValueError, match="one map a source is needed: 2 maps, 1 sources"):
        resampled_batch(equal, [(1, 1)], [None], 2, 2, 1.0)


@pytest.mark.parametrize("sizes", [((4, 5), (4, 5)), ((4, 5), (7, 2))])
def test_a_layer_of_one_cell_may_come_before_the_reading(sizes):
    """Values and gradients of the layer are those of applying it to every cell of the grid."""
    g = torch.Generator().manual_seed(2)
    features = [torch.randn(6, *size, generator=g) for size in sizes]
    places = places_of([(64, 80), (50, 90)], [None, MIRROR], 12, 16, 4.0, torch.device("cpu"))
    read = []
    for before in (True, False):
        torch.manual_seed(0)
        layer = torch.nn.Conv2d(6, 3, 1)
        grid = OnGrid.of(features, places)
        found = grid.read(layer) if before else layer(grid.read())
        (found * torch.linspace(-1, 1, found.numel()).view_as(found)).sum().backward()
        read.append((found, layer.weight.grad, layer.bias.grad))
    for one, other in zip(*read, strict=True):
        assert torch.allclose(one, other, atol=1e-4)
    assert read[0][0].shape == (2, 3, 12, 16)
