"""Detections that come some images at a time are judged as all at once are, to the digits."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from boresight.data.box_tables import Images
from boresight.diagnose.drawn_images import DrawnImages
from boresight.diagnose.of_files import diagnose_boxes
from boresight.diagnose.of_tables import Parts, diagnose_parts
from boresight.evaluate.box_set import BoxSet

CLASSES = ("car", "ship", "plane")


def made(seed: int, images: int, *, loose: float = 0.05, decimals: int = 2, each: int = 12) -> Images:
    """Objects, some of them crowds, and detections near them, of other classes, doubled, and astray."""
    rng = np.random.default_rng(seed)
    n, m = images * 4, images * each
    image, size = np.sort(rng.integers(images, size=n)), np.exp(rng.normal(3.5, 0.8, (n, 2)))
    label, corner = rng.integers(len(CLASSES), size=n), rng.uniform(0, 200, (n, 2))
    near = rng.integers(n, size=m)
    side = size[near] * np.exp(rng.normal(0, loose, (m, 2)))
    place = np.where(rng.random((m, 1)) < 0.2, rng.uniform(0, 200, (m, 2)), corner[near])
    place = place + size[near] * rng.normal(0, loose, (m, 2))
    order = np.argsort(image[near], kind="stable")
    said = np.where(rng.random(m) < 0.15, rng.integers(len(CLASSES), size=m), label[near])
    return Images(
        image_ids=np.arange(images) * 3 + 5,
        truth_box=np.hstack((corner, corner + size)),
        truth_image=image,
        truth_label=label,
        crowd=rng.random(n) < 0.1,
        found_box=np.hstack((place, place + side))[order],
        found_image=image[near][order],
        found_label=said[order],
        score=rng.beta(3, 2, m).round(decimals)[order],
    )


def cut(whole: Images, at: list[int]) -> list[Images]:
    """The same images in parts."""
    parts = []
    for low, high in zip([0, *at], [*at, len(whole.image_ids)], strict=True):
        t, d = ((v >= low) & (v < high) for v in (whole.truth_image, whole.found_image))
        truth = (whole.truth_box[t], whole.truth_image[t] - low, whole.truth_label[t], whole.crowd[t])
        found = (whole.found_box[d], whole.found_image[d] - low, whole.found_label[d], whole.score[d])
        parts.append(Images(whole.image_ids[low:high], *truth, *found))
    return parts


def at_once(whole: Images) -> BoxSet:
    truth = (whole.truth_box, whole.truth_image, whole.truth_label)
    found = (whole.found_box, whole.found_image, whole.found_label)
    return BoxSet.of_arrays(whole.image_ids, truth, found, whole.score, crowd=whole.crowd)


def assert_alike(have: Any, want: Any, place: str = "") -> None:
    """Equal, numbers to 1e-9."""
    if isinstance(want, dict):
        assert have.keys() == want.keys(), place
        for key in want:
            assert_alike(have[key], want[key], f"{place}.{key}")
    elif isinstance(want, (list, tuple)):
        assert len(have) == len(want), place
        for i, (a, b) in enumerate(zip(have, want, strict=True)):
            assert_alike(a, b, f"{place}[{i}]")
    elif isinstance(want, float):
        assert have == pytest.approx(want, rel=0, abs=1e-9), place
    else:
        assert have == want, place


@pytest.mark.parametrize(
    ("seed", "more", "threshold"),
    [
        (0, {}, None),
        (1, {"decimals": 1}, 0.5),
        (2, {"loose": 0.35}, 0.3),
        (3, {"each": 400}, 0.4),
        (4, {"each": 1}, 0.9),
    ],
    ids=["plain", "ties", "loose", "more than 100 a class", "few"],
)
def test_parts_are_diagnosed_as_the_whole(seed: int, more: dict[str, Any], threshold: float | None) -> None:
    whole = made(seed, 12 if "each" in more else 40, **more)
    want = diagnose_boxes(at_once(whole), CLASSES, threshold=threshold, replicates=60)
    for cuts in ([], [5], [1, 2, 9, 11]):
        have, _ = diagnose_parts(cut(whole, cuts), CLASSES, threshold=threshold, replicates=60)
        assert_alike(have.to_dict(), want.to_dict())


def test_more_classes_than_a_byte_tells() -> None:
    few = made(6, 30)
    whole = replace(few, truth_label=few.truth_label * 150, found_label=few.found_label * 150)
    classes = [f"class {k}" for k in range(301)]
    want = diagnose_boxes(at_once(whole), classes, replicates=20)
    have, coco = diagnose_parts(cut(whole, [7]), classes, replicates=20)
    assert_alike(have.to_dict(), want.to_dict())
    assert coco.ap == pytest.approx(diagnose_parts([few], CLASSES, replicates=20)[1].ap, abs=1e-12)


def test_loose_boxes_are_seen_in_parts() -> None:
    have, _ = diagnose_parts(cut(made(2, 60, loose=0.2), [20]), CLASSES, replicates=60)
    assert have.figures["loose_boxes"]


def test_images_without_anything_count_as_images() -> None:
    whole = made(5, 10)
    empty = Images(
        np.array([1000, 1001]),
        *(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.bool_)),
        *(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)),
    )
    have, coco = diagnose_parts([*cut(whole, [4]), empty], CLASSES, replicates=20)
    assert have.figures["images"] == coco.images == 12
    bare, none = diagnose_parts([empty], CLASSES, replicates=20)
    assert bare.verdict.word == "too few to tell"
    assert (none.ap, none.truths) == (None, 0)


# --- images that are drawn while they come --------------------------------------------------------------------------


def drawn(parts: list[Images], most: int, seed: int = 0) -> Images:
    some = DrawnImages(most, seed)
    for part in parts:
        some.add(part)
    return some.images()


def assert_equal(have: Images, want: Images) -> None:
    for column in fields(Images):
        a, b = getattr(have, column.name), getattr(want, column.name)
        np.testing.assert_array_equal(a, b, err_msg=column.name)
        assert a.dtype == b.dtype, column.name


def test_few_stay_all_and_as_they_came():
    whole = made(0, 40)
    assert_equal(drawn(cut(whole, [3, 4, 30]), 10_000), whole)


def test_parts_make_no_difference():
    whole = made(1, 400)
    want = drawn([whole], 500)
    assert 0 < len(want.image_ids) < 100
    assert_equal(drawn(cut(whole, [1, 2, 100, 250, 399]), 500), want)


def test_images_stay_whole():
    whole = made(2, 200)
    few = drawn([whole], 600)
    assert len(few.truth_box) + len(few.found_box) <= 600
    for place, image in enumerate(few.image_ids):
        was = int(np.flatnonzero(whole.image_ids == image)[0])
        for side in ("truth", "found"):
            have = getattr(few, f"{side}_box")[getattr(few, f"{side}_image") == place]
            want = getattr(whole, f"{side}_box")[getattr(whole, f"{side}_image") == was]
            np.testing.assert_array_equal(have, want)


def test_early_and_late_images_have_the_same_chance():
    parts = cut(made(3, 400), [40 * k for k in range(1, 10)])
    early = late = 0
    for seed in range(40):
        ids = drawn(parts, 800, seed).image_ids
        early, late = early + int((ids < 605).sum()), late + int((ids >= 605).sum())
    assert early + late > 1000
    assert abs(early - late) < 4 * (early + late) ** 0.5


def test_none_at_all():
    none = drawn([], 10)
    assert (len(none.image_ids), none.truth_box.shape, none.found_box.shape) == (0, (0, 4), (0, 4))


def test_an_image_larger_than_all_that_may_stay_ends_the_search():
    assert len(drawn([made(4, 1, each=50)], 10).image_ids) == 0


def test_tables_say_that_boxes_lie_off_the_same_way():
    whole = made(5, 400, loose=0.02, each=4)
    moved = replace(whole, found_box=whole.found_box + np.array([6.0, 0.0, 6.0, 0.0]))
    parts = cut(moved, [100, 300])
    told, _ = diagnose_parts(parts, CLASSES)
    assert [f.id for f in told.findings] == ["boxes-misplaced"]
    assert told.figures["misplaced"]["images"] == 400
    collected = Parts(CLASSES, drawn=DrawnImages(1200))
    for part in parts:
        collected.add(part)
    collected.coco.figures()
    some = collected.diagnosis(threshold=None, replicates=200, seed=0)
    assert [f.id for f in some.findings] == ["boxes-misplaced"]
    assert 50 < some.figures["misplaced"]["images"] < 150
    assert some.figures["misplaced"]["x"]["value"] == pytest.approx(told.figures["misplaced"]["x"]["value"], abs=1.0)
    assert some.figures["images"] == 400
