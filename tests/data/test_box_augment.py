"""Views: pixels, boxes and the map to the source move together, whatever the window, the zoom and the orientation."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from boresight.core.errors import UserError
from boresight.core.types import Points, Scene
from boresight.data.box_augment import BoxAugment, Placement, recoloured, viewed

ORIENTATIONS = list(product((False, True), repeat=3))


def marked(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (40, 56)) -> Scene:
    """A dark image with a white patch in every box."""
    image = torch.zeros(3, *size, dtype=torch.uint8)
    for x1, y1, x2, y2 in boxes:
        image[:, y1:y2, x1:x2] = 255
    table = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Scene(image, "s", 3, boxes=table, labels=torch.arange(len(boxes)))


def mapped(view: Scene, xy: Tensor) -> Tensor:
    """Points ``[N, 2]`` of a view in the pixel frame of its source."""
    assert view.view is not None
    matrix = view.view.to_source.double()
    return xy.double() @ matrix[:, :2].T + matrix[:, 2]


def corners(boxes: Tensor) -> Tensor:
    return boxes.reshape(-1, 2)


@pytest.mark.parametrize("turn", ORIENTATIONS)
@pytest.mark.parametrize("window", [(0, 0, 56, 40), (8, 3, 30, 30), (-7, -5, 64, 52), (9, -4, 22, 48)])
def test_the_patch_and_its_box_move_alike_to_the_pixel(
    turn: tuple[bool, bool, bool], window: tuple[int, int, int, int]
) -> None:
    scene = marked((12, 6, 25, 13))
    left, top, width, height = window
    view = viewed(scene, Placement(left, top, width, height, (height, width), *turn))
    assert view.size == ((width, height) if turn[2] else (height, width))
    x1, y1, x2, y2 = (int(v) for v in view.boxes[0])
    white = view.image[0] == 255
    assert white[y1:y2, x1:x2].all()
    assert int(white.sum()) == (x2 - x1) * (y2 - y1)
    assert view.boxes[0].tolist() == [x1, y1, x2, y2]


@pytest.mark.parametrize("turn", ORIENTATIONS)
@pytest.mark.parametrize("side", [20, 33, 47])
@pytest.mark.parametrize("left", [-3, 4])
def test_with_a_zoom_they_move_alike_to_half_a_pixel(turn: tuple[bool, bool, bool], side: int, left: int) -> None:
    scene = marked((9, 7, 16, 14))
    view = viewed(scene, Placement(left, 2, side, side, (32, 32), *turn))
    fill = float(scene.image.double().mean())
    light = ((view.image[0].double() - fill) / (255 - fill)).clamp(min=0)
    for axis, (low, high) in enumerate(((0, 2), (1, 3))):
        # a profile across the patch: its weight is the side of the box, its centre that of the box
        profile = light.amax(dim=axis)
        at = torch.arange(32) + 0.5
        assert abs(float(profile.sum()) - float(view.boxes[0, high] - view.boxes[0, low])) < 0.5
        centre = float((profile * at).sum() / profile.sum())
        assert abs(centre - float(view.boxes[0, low] + view.boxes[0, high]) / 2) < 0.5


@given(
    st.tuples(st.integers(-20, 40), st.integers(-20, 30), st.integers(5, 70), st.integers(5, 70)),
    st.tuples(st.integers(4, 90), st.integers(4, 90)),
    st.sampled_from(ORIENTATIONS),
)
def test_the_map_takes_boxes_and_corners_of_the_view_to_the_source(
    window: tuple[int, int, int, int], size: tuple[int, int], turn: tuple[bool, bool, bool]
) -> None:
    left, top, width, height = window
    rng = np.random.default_rng(sum(window) + sum(size))
    low = torch.from_numpy(rng.uniform((0, 0), (40, 30), size=(5, 2)))
    boxes = torch.cat((low, low + torch.from_numpy(rng.uniform(1, 10, size=(5, 2)))), dim=1).float()
    image = torch.zeros(3, 40, 56, dtype=torch.uint8)
    scene = Scene(image, "s", boxes=boxes, labels=torch.arange(5))
    view = viewed(scene, Placement(left, top, width, height, size, *turn))
    assert view.view is not None
    assert view.view.source is scene
    high, wide = view.size
    found = mapped(view, torch.tensor([[0.0, 0.0], [wide, high]]))
    expected = torch.tensor([[left, top], [left + width, top + height]]).double()
    torch.testing.assert_close(found.sort(dim=0).values, expected, atol=1e-4, rtol=0)
    for box, label in zip(view.boxes, view.labels.tolist(), strict=True):
        back = mapped(view, corners(box[None])).sort(dim=0).values.reshape(4)
        source = boxes[label].double()
        clipped = torch.cat((source[:2].clamp(min=torch.tensor([left, top])), source[2:].clamp(max=expected[1])))
        torch.testing.assert_close(back, clipped, atol=2e-4, rtol=0)


def test_each_pixel_comes_from_where_the_map_says() -> None:
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (3, 21, 21), dtype=np.uint8))
    scene = Scene(image, "s", boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    for turn in ORIENTATIONS:
        view = viewed(scene, Placement(2, 5, 14, 11, (11, 14), *turn))
        y, x = torch.meshgrid(*(torch.arange(n) + 0.5 for n in view.size), indexing="ij")
        at = mapped(view, torch.stack((x, y), dim=-1).reshape(-1, 2)).floor().long()
        assert torch.equal(image[:, at[:, 1], at[:, 0]].reshape(view.image.shape), view.image)


def test_a_view_of_a_view_is_one_of_the_source() -> None:
    scene = marked((12, 6, 25, 13), (30, 20, 44, 33))
    first = viewed(scene, Placement(4, 2, 45, 36, (72, 90), mirror_x=True, transpose=True))
    second = viewed(first, Placement(-3, -5, 85, 110, (64, 60), mirror_y=True, transpose=True))
    assert second.view is not None
    assert second.view.source is scene
    for box, label in zip(second.boxes, second.labels.tolist(), strict=True):
        centre = mapped(second, ((box[:2] + box[2:]) / 2)[None])[0]
        torch.testing.assert_close(centre, (scene.boxes[label, :2] + scene.boxes[label, 2:]).double() / 2)
    assert len(second.boxes) == 2


def test_what_is_left_of_a_box_decides() -> None:
    """Windows that leave 10, 3 and 2 of 10 columns, and none."""
    for left, kept, ignored in ((0, 1, False), (7, 1, False), (8, 1, True), (10, 0, None)):
        view = viewed(marked((0, 0, 10, 10)), Placement(left, 0, 20, 20, (20, 20)), min_visible=0.25)
        assert len(view.boxes) == len(view.labels) == len(view.ignore) == kept
        if kept:
            assert view.boxes[0].tolist() == [0, 0, 10 - left, 10]
            assert bool(view.ignore[0]) is ignored


def test_exactly_the_least_share_still_counts() -> None:
    place = Placement(5, 0, 20, 20, (31, 31))
    assert viewed(marked((0, 0, 10, 10)), place, min_visible=0.5).ignore.tolist() == [False]
    assert viewed(marked((5, 0, 10, 10)), place, min_visible=1.0).ignore.tolist() == [False]


def test_ignored_boxes_and_exhaustive_classes_stay() -> None:
    scene = marked((0, 0, 10, 10), (20, 10, 30, 20), (40, 30, 50, 38))
    flags = torch.tensor([False, True, False])
    full = Scene(
        scene.image, "s", boxes=scene.boxes, labels=scene.labels, ignore=flags, exhaustive=torch.tensor([True, False])
    )
    view = viewed(full, Placement(5, 0, 30, 30, (30, 30), mirror_x=True))
    assert view.labels.tolist() == [0, 1]
    assert view.ignore.tolist() == [False, True]
    assert view.exhaustive.tolist() == [True, False]
    assert (view.name, view.image_id) == ("s", 0)
    assert flags.tolist() == [False, True, False]


def test_beyond_the_border_lies_the_mean_colour() -> None:
    image = torch.stack([torch.full((10, 10), v, dtype=torch.uint8) for v in (10, 20, 30)])
    image[:, :5] += 100
    scene = Scene(image, "s")
    for dtype in (torch.uint8, torch.float32):
        view = viewed(Scene(image.to(dtype), "s"), Placement(-10, 0, 20, 10, (10, 20)))
        assert view.image.dtype == dtype
        assert view.image[:, :, :10].flatten(1).unique(dim=1).flatten().tolist() == [60, 70, 80]
        assert torch.equal(view.image[:, :, 10:], image.to(dtype))
    assert viewed(scene, Placement(20, 20, 4, 4, (4, 4))).image[:, 0, 0].tolist() == [60, 70, 80]


def test_unknown_truth_stays_unknown_and_points_are_refused() -> None:
    view = viewed(Scene(torch.zeros(3, 10, 10), "s"), Placement(0, 0, 5, 5, (5, 5)))
    assert view.boxes is None
    assert view.view is not None
    with pytest.raises(ValueError, match="has points"):
        viewed(Scene(torch.zeros(3, 10, 10), "s", points=Points.of([])), Placement(0, 0, 5, 5, (5, 5)))


def test_the_same_generator_gives_the_same_view_and_the_scene_is_left_alone() -> None:
    scene = marked((12, 6, 25, 13), (30, 20, 44, 33))
    before = (scene.image.clone(), scene.boxes.clone())
    augment = BoxAugment(crop=32, scale=(0.5, 2.0), gain=0.2, shift=10, colour=0.1)
    first, second, other = (augment(scene, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.image, second.image)
    assert torch.equal(first.boxes, second.boxes)
    assert not torch.equal(first.image, other.image)
    assert torch.equal(scene.image, before[0])
    assert torch.equal(scene.boxes, before[1])


def test_a_whole_image_keeps_its_size_and_all_its_boxes() -> None:
    scene = marked((12, 6, 25, 13), (30, 20, 44, 33))
    seen = set()
    for seed in range(40):
        view = BoxAugment()(scene, np.random.default_rng(seed))
        assert view.size == scene.size
        assert view.ignore.tolist() == [False, False]
        seen.add(tuple(view.boxes[0].tolist()))
    assert len(seen) == 4
    square = marked((12, 6, 25, 13), size=(40, 40))
    views = [BoxAugment()(square, np.random.default_rng(seed)) for seed in range(80)]
    assert len({tuple(view.boxes[0].tolist()) for view in views}) == 8
    still = BoxAugment(flip=False)(scene, np.random.default_rng(0))
    assert torch.equal(still.image, scene.image)
    assert torch.equal(still.boxes, scene.boxes)


def test_crops_hold_a_box_as_often_as_asked() -> None:
    scene = marked((150, 110, 158, 119), size=(200, 300))
    for share, low, high in ((1.0, 1.0, 1.0), (0.0, 0.0, 0.2), (0.75, 0.6, 0.9)):
        augment = BoxAugment(crop=32, positive_share=share)
        views = [augment(scene, np.random.default_rng(seed)) for seed in range(200)]
        assert low <= np.mean([len(view.boxes) > 0 and not view.ignore[0] for view in views]) <= high
        assert {view.size for view in views} == {(32, 32)}
    whole = [v.boxes[0, 2:] - v.boxes[0, :2] for v in views if len(v.boxes) and not v.ignore[0]]
    assert np.mean([sorted(side.tolist()) == [8, 9] for side in whole]) > 0.9


def test_a_crop_is_never_placed_for_an_ignored_box() -> None:
    scene = marked((150, 110, 158, 119), size=(200, 300))
    crowd = Scene(scene.image, "s", boxes=scene.boxes, labels=scene.labels, ignore=torch.tensor([True]))
    views = [BoxAugment(crop=32, positive_share=1.0)(crowd, np.random.default_rng(seed)) for seed in range(100)]
    assert np.mean([len(view.boxes) > 0 for view in views]) < 0.2


def test_zooms_show_windows_of_the_sizes_asked_for() -> None:
    scene = marked((50, 40, 60, 50), size=(200, 200))
    augment = BoxAugment(crop=40, scale=(0.5, 2.0))
    zooms = [augment.placement(scene, np.random.default_rng(seed)).width / 40 for seed in range(300)]
    assert 0.5 <= min(zooms) < 0.6
    assert 1.7 < max(zooms) <= 2.0
    assert abs(np.median(zooms) - 1.0) < 0.15


def test_windows_stay_in_the_image_where_it_is_large_enough() -> None:
    scene = marked((0, 0, 9, 9), (47, 31, 56, 40))
    for seed in range(100):
        rng = np.random.default_rng(seed)
        small = BoxAugment(crop=24, positive_share=1.0).placement(scene, rng)
        assert 0 <= small.left <= 56 - 24
        assert 0 <= small.top <= 40 - 24
        large = BoxAugment(crop=100, positive_share=1.0).placement(scene, rng)
        assert (large.left, large.top) == (-22, -30)


def test_colour_by_hand() -> None:
    image = torch.tensor([10.0, 20, 60]).reshape(3, 1, 1).expand(3, 2, 2)
    out = recoloured(Scene(image, "s"), gain=2.0, shift=5.0, channels=(1.0, 0.5, 2.0))  # the mean is 30
    assert out.image[:, 0, 0].tolist() == [0, 7.5, 190]  # (-5 clamped, 15 / 2, 95 * 2)
    assert recoloured(Scene(image.byte(), "s"), 2.0, 5.0, (1.0, 0.5, 2.0)).image[:, 0, 0].tolist() == [0, 8, 190]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("crop", -1),
        ("positive_share", 1.5),
        ("scale", (2.0, 1.0)),
        ("scale", (0.0, 1.0)),
        ("gain", -1),
        ("min_visible", 2),
    ],
)
def test_values_that_make_no_sense_are_refused(key: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"augment\.{key}: "):
        BoxAugment(**{key: value})  # type: ignore[arg-type]


def test_small_images_stay_whole_and_large_ones_are_cropped():
    augment, rng = BoxAugment(crop=16, scale=(0.5, 1.0), whole=56), np.random.default_rng(0)
    small, large = marked((4, 4, 20, 20), size=(40, 56)), marked((4, 4, 20, 20), size=(40, 57))
    assert {augment(small, rng).size for _ in range(8)} == {(40, 56)}  # not square: never transposed
    assert {augment(large, rng).size for _ in range(8)} == {(16, 16)}
    with pytest.raises(UserError, match=r"augment\.whole: -1"):
        BoxAugment(whole=-1)
