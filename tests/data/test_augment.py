"""Views: the image and its points move together, and nothing else happens to either."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.core.types import Points, Scene
from boresight.data.augment import PointAugment, brightened, flipped, pasted, resized_crop, transposed

LEVEL = 40.0


def blob_scene(*spots, size=(40, 48), sigma=1.3, level=LEVEL, **more):
    """A flat frame with a Gaussian of light at each (x, y), pixel frame."""
    y, x = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    light = sum((torch.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * sigma**2)) for a, b in spots), torch.zeros(size))
    return Scene((level + 100 * light)[None], "blob", points=Points.of(list(spots), **more), level=level, spread=10.0)


def centroid(scene):
    """The centre of light, pixel frame."""
    light = (scene.image[0] - scene.level).double()
    y, x = torch.meshgrid(*(torch.arange(n) + 0.5 for n in light.shape), indexing="ij")
    return torch.stack(((light * x).sum(), (light * y).sum())) / light.sum()


def off_by(scene):
    """Pixels between the light and the one point that says where it is."""
    assert len(scene.points) == 1
    return float((centroid(scene) - scene.points.xy[0]).norm())


def noisy(seed=0, size=(40, 48), spots=((20.3, 15.6),)):
    scene = blob_scene(*spots, size=size)
    return replace(scene, image=scene.image + torch.randn(1, *size, generator=torch.Generator().manual_seed(seed)))


SPOT = st.tuples(st.floats(12, 36), st.floats(12, 28))
SEED = st.integers(0, 10_000)


# ---------------------------------------------------------------- by hand


def test_a_flip_mirrors_at_the_width_not_one_pixel_short_of_it():
    """A pixel's centre at x = .5 in a frame 4 wide goes to 3.5; as a key point torchvision would say 2.5."""
    scene = Scene(torch.arange(4.0).view(1, 1, 4), "row", points=Points.of([(0.5, 0.5), (3.0, 0.25)]))
    have = flipped(scene, horizontal=True)
    assert have.image.tolist() == [[[3, 2, 1, 0]]]
    assert have.points.xy.tolist() == [[3.5, 0.5], [1.0, 0.25]]
    assert flipped(scene, vertical=True).points.xy.tolist() == [[0.5, 0.5], [3.0, 0.75]]


@pytest.mark.parametrize("at", [(0.0, 0.0), (4.0, 3.0), (0.0, 3.0), (2.0, 0.0)])
def test_a_point_on_the_border_survives_every_orientation(at):
    scene = Scene(torch.zeros(1, 3, 4), "frame", points=Points.of([at]))
    for horizontal, vertical in ((True, False), (False, True), (True, True)):
        have = flipped(scene, horizontal=horizontal, vertical=vertical)
        want = [4 - at[0] if horizontal else at[0], 3 - at[1] if vertical else at[1]]
        assert have.points.xy.tolist() == [want]
        assert transposed(have).points.xy.tolist() == [want[::-1]]


def test_transposing_swaps_rows_and_columns():
    scene = Scene(torch.arange(6.0).view(1, 2, 3), "frame", points=Points.of([(2.5, 0.5)]))
    have = transposed(scene)
    assert have.image.tolist() == [[[0, 3], [1, 4], [2, 5]]]
    assert have.points.xy.tolist() == [[0.5, 2.5]]


def test_a_crop_moves_the_origin_and_fills_with_the_level():
    scene = Scene(torch.ones(1, 2, 2), "frame", points=Points.of([(0.5, 1.5)]), level=7.0)
    have = resized_crop(scene, -1, -1, 3, 3, (3, 3))
    assert have.image.tolist() == [[[7, 7, 7], [7, 1, 1], [7, 1, 1]]]
    assert have.points.xy.tolist() == [[1.5, 2.5]]


def test_doubling_the_size_doubles_coordinates():
    have = resized_crop(blob_scene((20.25, 15.5)), 8, 10, 16, 16, (32, 32))
    assert have.points.xy.tolist() == [[20.5, 15.0]]


def test_points_that_leave_the_view_are_dropped_with_all_they_carry():
    points = Points.of(
        [(2.0, 2.0), (10.0, 10.0), (20.0, 10.0), (20.1, 10.0), (10.0, 30.0)],
        labels=torch.arange(5),
        ignore=torch.tensor([False, True, False, False, False]),
        snr=torch.arange(5.0),
        mask=torch.zeros(40, 40, dtype=torch.int32),
    )
    have = resized_crop(Scene(torch.zeros(1, 40, 40), "frame", points=points), 5, 5, 15, 15, (15, 15)).points
    assert have.xy.tolist() == [[5.0, 5.0], [15.0, 5.0]]  # x = 20 lies on the border, which belongs to the view
    assert have.labels.tolist() == [1, 2]
    assert have.ignore.tolist() == [True, False]
    assert have.snr.tolist() == [1.0, 2.0]
    assert have.mask is None


def test_brightness_by_hand():
    """Level 40, spread 10: contrast doubled, then half a spread up. The frame's own level and spread stay as known."""
    have = brightened(
        Scene(torch.full((1, 1, 1), 43.0), "x", level=40.0, spread=10.0), 2.0, 0.5, 0.0, np.random.default_rng()
    )
    assert have.image.tolist() == [[[51.0]]]
    assert (have.level, have.spread) == (40.0, 10.0)


def test_noise_is_as_strong_as_asked():
    scene = Scene(torch.zeros(1, 200, 200), "x", spread=10.0)
    have = brightened(scene, 1.0, 0.0, 0.3, np.random.default_rng(0)).image
    assert float(have.std()) == pytest.approx(3.0, rel=0.02)
    assert float(have.mean()) == pytest.approx(0.0, abs=0.05)


# ---------------------------------------------------------------- equivariance


@given(SPOT, st.booleans(), st.booleans(), st.booleans())
def test_light_follows_its_point_through_flips_and_transposes(spot, horizontal, vertical, swap):
    have = flipped(blob_scene(spot), horizontal=horizontal, vertical=vertical)
    have = transposed(have) if swap else have
    assert off_by(have) < 0.05
    assert have.image.is_contiguous()
    assert type(have.image) is torch.Tensor
    assert type(have.points.xy) is torch.Tensor


@given(SPOT, st.integers(-6, 3), st.integers(-6, 3), st.integers(36, 60), st.integers(44, 60))
def test_light_follows_its_point_through_crops(spot, top, left, height, width):
    have = resized_crop(blob_scene(spot), top, left, height, width, (height, width))
    assert have.size == (height, width)
    assert off_by(have) < 0.05


@settings(max_examples=40)
@given(SPOT, st.integers(-4, 3), st.integers(-4, 3), st.integers(44, 52), st.integers(24, 96), st.integers(24, 96))
def test_light_follows_its_point_through_resizing(spot, top, left, side, height, width):
    have = resized_crop(blob_scene(spot, sigma=2.0), top, left, side, side, (height, width))
    assert have.size == (height, width)
    assert off_by(have) < 0.3


@settings(max_examples=40)
@given(SPOT, SEED, st.sampled_from([(1.0, 1.0), (0.7, 1.4), (2.0, 2.0)]))
def test_light_follows_its_point_through_a_random_view(spot, seed, scale):
    """Where the light lies wholly in the view, that is."""
    have = PointAugment(crop=32, positive_share=1.0, scale=scale)(blob_scene(spot), np.random.default_rng(seed))
    assert have.size == (32, 32)
    (x, y), margin = have.points.xy[0].tolist(), 4 * 1.3 / scale[0]
    if min(x, y, 32 - x, 32 - y) > margin:
        assert off_by(have) < 0.3


def test_four_quarter_turns_are_none():
    scene = noisy()
    turned = scene
    for _ in range(4):
        turned = flipped(transposed(turned), horizontal=True)
    assert torch.equal(turned.image, scene.image)
    assert torch.allclose(turned.points.xy, scene.points.xy, atol=1e-5)


# ---------------------------------------------------------------- random views


def everything(**more):
    return PointAugment(
        **{"crop": 24, "scale": (0.8, 1.3), "gain": 0.2, "shift": 0.3, "noise": 0.2, "paste": 0.5, **more}
    )


@settings(max_examples=25)
@given(SEED)
def test_a_view_is_a_function_of_its_generator(seed):
    scene, donor = noisy(1), noisy(2, spots=((24.0, 20.0),))
    one, two = (everything()(scene, np.random.default_rng(seed), donor) for _ in range(2))
    assert torch.equal(one.image, two.image)
    assert torch.equal(one.points.xy, two.points.xy)
    three = everything()(scene, np.random.default_rng(seed + 1), donor)
    assert not torch.equal(one.image, three.image)


@settings(max_examples=60)
@given(SEED, st.floats(0, 48, width=32), st.floats(0, 40, width=32), st.sampled_from([1, 5, 16, 40, 64]))
def test_a_positive_view_always_holds_a_target(seed, x, y, crop):
    scene = Scene(torch.zeros(1, 40, 48), "frame", points=Points.of([(x, y)]))
    view = PointAugment(crop=crop, positive_share=1.0, scale=(0.8, 1.2))
    assert len(view(scene, np.random.default_rng(seed)).points) == 1


def test_the_share_of_positive_views_is_what_was_asked():
    """A window of 16 in 200 x 200 holds a lone target by luck in under 1 % of the views."""
    scene = Scene(torch.zeros(1, 200, 200), "frame", points=Points.of([(100.0, 100.0)]))
    random = np.random.default_rng(0)
    hit = [len(PointAugment(crop=16, positive_share=0.6)(scene, random).points) for _ in range(500)]
    assert np.mean(hit) == pytest.approx(0.6, abs=0.07)


def test_all_eight_orientations_occur():
    scene = Scene(torch.arange(9.0).view(1, 3, 3), "frame", points=Points.of([]))
    random = np.random.default_rng(0)
    seen = {tuple(PointAugment(crop=3)(scene, random).image.flatten().tolist()) for _ in range(200)}
    assert len(seen) == 8


def test_a_frame_smaller_than_the_view_is_held_whole():
    scene = blob_scene((5.0, 6.0), size=(10, 12))
    have = PointAugment(crop=32, flip=False)(scene, np.random.default_rng(0))
    assert have.size == (32, 32)
    assert float((have.image - LEVEL).sum()) == pytest.approx(float((scene.image - LEVEL).sum()), rel=1e-4)
    assert off_by(have) < 0.05


def test_whole_frames_keep_their_shape():
    views = [PointAugment(crop=0)(noisy(), np.random.default_rng(s)) for s in range(8)]
    assert {v.size for v in views} == {(40, 48)}


@pytest.mark.parametrize("points", [None, Points.of([])])
def test_a_frame_without_targets_or_truth_stays_so(points):
    scene = Scene(torch.zeros(1, 40, 48), "frame", points=points)
    have = everything(paste=0.0)(scene, np.random.default_rng(0), noisy())
    assert (have.points is None) if points is None else len(have.points) == 0
    unknown = replace(scene, points=None)
    assert everything(paste=1.0)(unknown, np.random.default_rng(0), noisy()).points is None


@given(SEED)
def test_neither_scene_nor_donor_is_written_to(seed):
    scene, donor = noisy(1), noisy(2)
    before = [t.clone() for s in (scene, donor) for t in (s.image, s.points.xy, s.points.labels)]
    everything(paste=1.0)(scene, np.random.default_rng(seed), donor)
    after = [t for s in (scene, donor) for t in (s.image, s.points.xy, s.points.labels)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


# ---------------------------------------------------------------- pasting


@given(st.floats(8, 32, width=32), st.floats(8, 30, width=32), st.floats(8, 39, width=32), st.floats(8, 31, width=32))
def test_a_pasted_target_is_light_at_the_place_it_says(x, y, to_x, to_y):
    donor, empty = blob_scene((x, y)), blob_scene()
    have = pasted(empty, donor, (to_x, to_y))
    assert len(have.points) == 1
    place = have.points.xy[0]
    assert (place.floor() == torch.tensor([to_x, to_y]).floor()).all()  # in the pixel that was asked for
    assert torch.allclose(place.frac(), donor.points.xy[0].frac(), atol=1e-5)  # at the phase that it had
    assert off_by(have) < 0.1
    assert float(have.image.max()) == pytest.approx(float(donor.image.max()), rel=0.02)


def test_pasting_adds_one_truth_and_drops_what_no_longer_fits():
    mask = torch.zeros(40, 48, dtype=torch.int32)
    scene = blob_scene((10.0, 10.0), labels=torch.tensor([2]), snr=torch.tensor([5.0]), mask=mask)
    donor = blob_scene((20.0, 20.0), labels=torch.tensor([1]), ignore=torch.tensor([True]))
    have = pasted(scene, donor, (35.0, 30.0)).points
    assert have.xy.tolist() == [[10.0, 10.0], [35.0, 30.0]]
    assert have.labels.tolist() == [2, 1]
    assert have.ignore.tolist() == [False, True]
    assert have.mask is None
    assert have.snr is None


def test_a_pasted_target_is_as_bright_in_spreads_as_it_was():
    donor, scene = blob_scene((20.5, 20.5)), replace(blob_scene(), spread=30.0)
    assert float(pasted(scene, donor, (20.0, 20.0), strength=0.5).image.max() - LEVEL) == pytest.approx(150.0, rel=0.01)


@pytest.mark.parametrize(
    ("donor", "at"),
    [
        (blob_scene(), (20.0, 20.0)),  # nothing to give
        (replace(blob_scene(), points=None), (20.0, 20.0)),
        (blob_scene((3.0, 20.0)), (20.0, 20.0)),  # the donor's target is cut by its border
        (blob_scene((20.0, 20.0), (26.0, 20.0)), (30.0, 25.0)),  # two targets would come along
        (blob_scene((20.0, 20.0)), (4.0, 20.0)),  # the place is cut by the border
        (blob_scene((20.0, 20.0)), (20.0, 36.0)),
        (blob_scene((20.0, 20.0)), (15.0, 15.0)),  # on another target
    ],
)
def test_a_paste_that_cannot_be_right_does_not_happen(donor, at):
    scene = blob_scene((10.0, 10.0))
    assert pasted(scene, donor, at) is scene
