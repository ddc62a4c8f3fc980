"""The box matcher: cases on paper, a plain loop as the oracle, then what is counted from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.core.types import Detections, Scene
from boresight.evaluate import box_match
from boresight.evaluate.box_match import best_truth, box_table, match_boxes, overlaps
from boresight.evaluate.box_set import BoxSet
from boresight.evaluate.box_threshold import best_f_threshold, per_image_counts, widest_best

Box = tuple[float, float, float, float]


def scene(
    boxes: Sequence[Box],
    labels: Sequence[int] | None = None,
    *,
    crowd: Sequence[bool] | None = None,
    exhaustive: Sequence[bool] | None = None,
    image_id: int = 1,
) -> Scene:
    return Scene(
        torch.zeros(1, 100, 100),
        f"image-{image_id}",
        image_id=image_id,
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels or [0] * len(boxes), dtype=torch.long),
        ignore=None if crowd is None else torch.tensor(crowd, dtype=torch.bool),
        exhaustive=None if exhaustive is None else torch.tensor(exhaustive),
    )


def detections(boxes: Sequence[Box], scores: Sequence[float], labels: Sequence[int] | None = None) -> Detections:
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float32),
        torch.tensor(labels or [0] * len(boxes), dtype=torch.long),
        torch.arange(len(boxes)) + 50,
    )


def matched(truth: Scene, found: Detections, iou: float = 0.5) -> list[int]:
    return match_boxes(BoxSet.of([truth], [found]), iou).truth_of_found.tolist()


A: Box = (0, 0, 10, 10)
B: Box = (20, 20, 30, 30)


def test_the_better_scored_detection_chooses_first_and_takes_its_best_truth():
    # Truths (0..10) and (4..14) wide. The detection (3..13) has IoU 7/13 and 9/11: it takes the second. The other one,
    # (4..14), is the second exactly, finds it taken, and falls back on the first: 6/14 < .5, so nothing.
    truth = scene([(0, 0, 10, 10), (4, 0, 14, 10)])
    found = detections([(3, 0, 13, 10), (4, 0, 14, 10)], [0.9, 0.8])
    assert matched(truth, found) == [1, -1]
    # At 0.4 the fall-back is enough.
    assert matched(truth, found, 0.4) == [1, 0]
    # With the scores swapped each gets its own.
    assert matched(truth, detections([(3, 0, 13, 10), (4, 0, 14, 10)], [0.8, 0.9])) == [0, 1]


def test_of_equal_overlaps_the_later_truth_is_taken():
    assert matched(scene([A, A]), detections([A], [0.9])) == [1]


def test_of_equal_scores_the_earlier_detection_chooses():
    assert matched(scene([A]), detections([A, A], [0.5, 0.5])) == [0, -1]


def test_the_threshold_is_inclusive():
    # (0..10) and (0..5) share 50 of 100: IoU 0.5 exactly.
    assert matched(scene([A]), detections([(0, 0, 10, 5)], [0.9])) == [0]
    assert matched(scene([A]), detections([(0, 0, 10, 4.99)], [0.9])) == [-1]
    assert matched(scene([A]), detections([A], [0.9]), 1.0) == [0]


def test_a_displaced_detection_falls_back_through_a_chain():
    # Each detection is displaced from its favourite by a better-scored one that comes later in the list.
    truth = scene([(0, 0, 10, 10), (2, 0, 12, 10), (4, 0, 14, 10)])
    found = detections([(4, 0, 14, 10), (4, 0, 14, 10), (4, 0, 14, 10)], [0.1, 0.2, 0.3])
    # IoU with the truths: 6/14 = .43, 8/12 = .67, 1.
    assert matched(truth, found, 0.4) == [0, 1, 2]


def test_kinds_of_detections():
    truth = scene([A, B, (60, 60, 90, 90)], [0, 1, 0], crowd=[False, False, True])
    found = detections(
        [A, A, B, (62, 62, 66, 66), (62, 62, 66, 66), (40, 40, 50, 50), (0, 0, 10, 30)],
        [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3],
        [0, 0, 0, 0, 1, 0, 0],
    )
    rows, missed = box_table([truth], [found])
    # The fourth lies in the crowd of its class; the fifth in a crowd of another, which excuses nothing.
    kinds = ["hit", "duplicate", "wrong_class", "ignored", "false_alarm", "false_alarm", "false_alarm"]
    assert [r.kind for r in rows] == kinds
    assert [r.object for r in rows] == [0, 0, 1, -1, -1, -1, -1]
    assert [r.iou for r in rows] == pytest.approx([1, 1, 1, 0, 0, 0, 1 / 3])
    assert [r.cell for r in rows] == list(range(50, 57))
    assert rows[2].label == 0
    assert rows[2].box == B
    assert [(m.object, m.label, m.box) for m in missed] == [(1, 1, B)]


def test_a_detection_takes_a_truth_before_a_crowd_and_a_crowd_takes_many():
    truth = scene([(0, 0, 100, 100), A], crowd=[True, False])
    rows, missed = box_table([truth], [detections([A, A, (0, 0, 11, 11)], [0.9, 0.8, 0.7])])
    assert [r.kind for r in rows] == ["hit", "ignored", "ignored"]
    assert not missed


def test_classes_that_are_not_exhaustive_excuse():
    truth = scene([A], [0], exhaustive=[False, False, True])
    found = detections([A, B, B, B], [0.9, 0.8, 0.7, 0.6], [0, 0, 1, 2])
    rows, _ = box_table([truth], [found])
    assert [r.kind for r in rows] == ["hit", "ignored", "ignored", "false_alarm"]


def test_images_do_not_mix():
    match = match_boxes(
        BoxSet.of([scene([A]), scene([B], image_id=2)], [detections([B], [0.9]), detections([B], [0.5])])
    )
    assert match.truth_of_found.tolist() == [-1, 1]
    assert match.found_of_truth.tolist() == [-1, 1]


def test_empty_in_empty_out():
    assert box_table([], []) == ([], [])
    assert box_table([scene([])], [detections([], [])]) == ([], [])
    _, missed = box_table([scene([A])], [detections([], [])])
    assert len(missed) == 1


def test_nothing_given_is_changed():
    truth, found = scene([A, B], crowd=[False, True]), detections([B, A], [0.2, 0.7])
    before = [t.clone() for t in (truth.boxes, truth.ignore, found.boxes, found.scores)]
    box_table([truth], [found])
    assert all(
        torch.equal(a, b) for a, b in zip(before, (truth.boxes, truth.ignore, found.boxes, found.scores), strict=True)
    )


@pytest.mark.parametrize("iou", [0.0, 1.1, float("nan")])
def test_an_impossible_iou_is_refused(iou: float):
    with pytest.raises(ValueError, match="iou must lie in"):
        match_boxes(BoxSet.of([scene([A])], [detections([A], [0.9])]), iou)


def test_unknown_truth_is_refused():
    unknown = Scene(torch.zeros(1, 4, 4), "blank")
    with pytest.raises(ValueError, match="`blank` has no boxes"):
        BoxSet.of([unknown], [detections([], [])])
    with pytest.raises(ValueError, match="1 images and found 0"):
        BoxSet.of([scene([A])], [])
    with pytest.raises(ValueError, match="scores holds values that are not finite"):
        BoxSet.of([scene([A])], [detections([A], [float("nan")])])


# --- a plain loop as the oracle --------------------------------------------------------------------------------------


def plain_iou(a: np.ndarray, b: np.ndarray, crowd: bool) -> float:
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    area = (a[2] - a[0]) * (a[3] - a[1])
    return w * h / (area if crowd else area + (b[2] - b[0]) * (b[3] - b[1]) - w * h)


def plain_pairs(boxes: BoxSet) -> Iterator[tuple[int, int, np.ndarray, np.ndarray, bool]]:
    for d, (image, a) in enumerate(zip(boxes.found_image, boxes.found_box, strict=True)):
        for t in np.flatnonzero(boxes.truth_image == image):
            yield d, int(t), a, boxes.truth_box[t], bool(boxes.crowd[t])


def plain_match(boxes: BoxSet, iou: float) -> tuple[list[int], list[bool]]:
    took, excused = [-1] * len(boxes.scores), [False] * len(boxes.scores)
    for d in np.argsort(boxes.rank):
        best = -1.0
        for t in range(len(boxes.crowd)):
            mine = boxes.truth_image[t] == boxes.found_image[d] and boxes.truth_label[t] == boxes.found_label[d]
            if not mine or boxes.crowd[t] or t in took:
                continue
            value = plain_iou(boxes.found_box[d], boxes.truth_box[t], False)
            if value >= iou and value >= best:
                best, took[d] = value, t
        if took[d] < 0:
            excused[d] = bool(boxes.open[d]) or any(
                boxes.crowd[t]
                and boxes.truth_image[t] == boxes.found_image[d]
                and boxes.truth_label[t] == boxes.found_label[d]
                and plain_iou(boxes.found_box[d], boxes.truth_box[t], True) >= iou
                for t in range(len(boxes.crowd))
            )
    return took, excused


# Few distinct whole coordinates and scores make ties and exact thresholds common.
coordinate = st.integers(0, 6).map(lambda x: x * 4.0)
box = st.tuples(coordinate, coordinate, st.integers(1, 4), st.integers(1, 4)).map(
    lambda b: (b[0], b[1], b[0] + 4.0 * b[2], b[1] + 4.0 * b[3])
)
truths = st.lists(st.tuples(box, st.integers(0, 1), st.booleans()), max_size=6)
founds = st.lists(st.tuples(box, st.integers(0, 1), st.sampled_from([0.25, 0.5, 0.75])), max_size=10)


@settings(max_examples=150)
@given(st.lists(st.tuples(truths, founds), max_size=3), st.sampled_from([0.3, 0.5, 0.75]))
def test_the_rounds_equal_a_plain_loop(images: list, iou: float):
    truth = [
        scene(
            [t[0] for t in ts], [t[1] for t in ts], crowd=[t[2] for t in ts], exhaustive=[True, k != 1], image_id=9 - k
        )
        for k, (ts, _) in enumerate(images)
    ]
    found = [detections([d[0] for d in ds], [d[2] for d in ds], [d[1] for d in ds]) for _, ds in images]
    boxes = BoxSet.of(truth, found)
    match = match_boxes(boxes, iou)
    took, excused = plain_match(boxes, iou)
    assert match.truth_of_found.tolist() == took
    assert match.ignored.tolist() == excused
    pairs = overlaps(boxes)
    every = [(d, t, plain_iou(a, b, c)) for d, t, a, b, c in plain_pairs(boxes)]
    assert list(zip(pairs.found, pairs.truth, pairs.iou, strict=True)) == [pair for pair in every if pair[2] > 0]
    best, highest = best_truth(pairs, len(boxes.scores))
    for d in range(len(boxes.scores)):
        expected = max(((value, t) for owner, t, value in every if owner == d and value > 0), default=(0.0, -1))
        assert (highest[d], best[d]) == expected


def test_pairs_come_out_the_same_some_at_a_time(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 60, (6, 20, 2))
    found = [detections([(x, y, x + 20, y + 20) for x, y in c], rng.random(20).tolist()) for c in corner]
    truth = [scene([(x, y, x + 20, y + 25) for x, y in c[:k]], image_id=k) for k, c in enumerate(corner)]
    boxes = BoxSet.of(truth, found)
    whole = overlaps(boxes)
    monkeypatch.setattr(box_match, "PAIRS_AT_ONCE", 7)
    parts = overlaps(boxes)
    assert len(whole.iou) > 50
    assert all(np.array_equal(getattr(whole, n), getattr(parts, n)) for n in ("found", "truth", "iou"))


# --- what is counted -------------------------------------------------------------------------------------------------


def test_the_best_of_each_class_and_image():
    found = [detections([A] * 5, [0.1, 0.5, 0.3, 0.4, 0.2], [0, 0, 0, 1, 1]), detections([A, B], [0.05, 0.06])]
    kept = BoxSet.of([scene([A]), scene([], image_id=2)], found).best(1)
    assert kept.scores.tolist() == pytest.approx([0.5, 0.4, 0.06])
    assert kept.rank.tolist() == [0, 1, 2]


def test_ties_go_by_image_id_as_in_pycocotools():
    truth = [scene([], image_id=7), scene([], image_id=3)]
    assert BoxSet.of(truth, [detections([A], [0.5]), detections([A, B], [0.5, 0.9])]).rank.tolist() == [2, 1, 0]


def test_counts_of_each_image():
    truth = [scene([A, B]), scene([], image_id=2), scene([A, B], crowd=[False, True], image_id=3)]
    found = [detections([A, A, B], [0.9, 0.8, 0.2]), detections([A], [0.9]), detections([B], [0.9])]
    assert per_image_counts(truth, found, 0.3).tolist() == [[1, 1, 1], [0, 1, 0], [0, 0, 1]]
    assert per_image_counts(truth, found, 0.1).tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_the_best_f_threshold():
    # Down to .6: 1 hit of 2 truths, F1 2/3. Down to .5: a false alarm, 2/4. Down to .2: 2 hits, 1 false, 4/5.
    truth, found = [scene([A, B])], [detections([A, (50, 50, 60, 60), B], [0.6, 0.5, 0.2])]
    assert best_f_threshold(truth, found) == pytest.approx(0.1)  # the middle of 0.2 and 0
    # Without the last hit the first score alone is best: between .5 and .6.
    assert best_f_threshold([scene([A])], found) == pytest.approx(0.55)
    assert best_f_threshold([scene([A])], [detections([], [])]) == 0.5
    assert best_f_threshold([scene([B])], [detections([A], [0.9])]) == 0.5


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12, unique=True), st.data())
def test_the_widest_stretch_keeps_the_best_figure(scores: list[int], data: st.DataObject):
    falling = np.array(sorted(scores, reverse=True)) / 40
    figure = np.array([data.draw(st.sampled_from([0.2, 0.6, 0.8])) for _ in scores])
    chosen = widest_best(falling, figure)
    assert figure[(falling >= chosen).sum() - 1] == figure.max()
