"""Boxes on paper: pixels of a 100 x 100 image unless said; ``by`` is the row of whoever suppressed a box."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import nms

from boresight.core.emission import Decoding, Emission
from boresight.decode.replay import candidates, replay, select

APART = [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]]


def emitted(boxes, scores, size=(100, 100), level=None):
    """``boxes`` of the cells (or of the classes' cells), ``scores`` a row a class."""
    boxes, scores = torch.tensor(boxes, dtype=torch.float32), torch.tensor(scores, dtype=torch.float32)
    boxes = boxes.reshape(-1, scores.shape[1], 4)
    return Emission(boxes, scores, size, level=None if level is None else torch.tensor(level))


def rows(selected):
    return selected.slot.tolist(), selected.kept.tolist(), selected.by.tolist()


# ---------------------------------------------------------------- suppression


def test_a_suppressed_box_suppresses_nobody():
    """Neighbours overlap by 60 / 140 = 0.43, the outer two by 20 / 180."""
    e = emitted([[0, 0, 10, 10], [0, 4, 10, 14], [0, 8, 10, 18]], [[0.9, 0.8, 0.7]])
    assert rows(select(e, Decoding(nms=0.4))) == ([0, 1, 2], [True, False, True], [0, 0, 2])
    assert rows(select(e, Decoding(nms=0.45))) == ([0, 1, 2], [True] * 3, [0, 1, 2])


def test_the_best_that_overlaps_is_the_one_that_suppressed():
    """The third overlaps both others by 70 / 130 = 0.54; they overlap by 40 / 160."""
    e = emitted([[0, 6, 10, 16], [0, 3, 10, 13], [0, 0, 10, 10]], [[0.8, 0.7, 0.9]])
    assert rows(select(e, Decoding(nms=0.5))) == ([2, 0, 1], [True, True, False], [0, 1, 0])


def test_who_suppressed_is_told_for_more_boxes_than_are_compared_at_once(monkeypatch):
    monkeypatch.setattr("boresight.decode.replay.ROWS", 2)
    e = emitted([[0, 0, 10, 10], [50, 0, 60, 10]] + [[0, 0, 10, 9], [50, 0, 60, 9]] * 3, [[0.9, 0.8] + [0.5] * 6])
    assert select(e, Decoding()).by.tolist() == [0, 1, 0, 1, 0, 1, 0, 1]


def test_overlap_of_exactly_the_threshold_stays():
    """50 / 100."""
    e = emitted([[0, 0, 10, 10], [0, 0, 10, 5]], [[0.9, 0.8]])
    assert select(e, Decoding(nms=0.5)).kept.tolist() == [True, True]
    assert select(e, Decoding(nms=0.49)).kept.tolist() == [True, False]


def test_without_suppression_all_stay():
    e = emitted([[0, 0, 10, 10]] * 3, [[0.9, 0.8, 0.7]])
    assert rows(select(e, Decoding(nms=None))) == ([0, 1, 2], [True] * 3, [0, 1, 2])


def test_classes_compete_or_do_not():
    e = emitted([[0, 0, 10, 10], [0, 0, 10, 9]], [[0.9, 0.0], [0.0, 0.8]])
    assert rows(select(e, Decoding())) == ([0, 3], [True, True], [0, 1])
    assert rows(select(e, Decoding(by_class=False))) == ([0, 3], [True, False], [0, 0])


def test_levels_compete_or_do_not():
    e = emitted([[0, 0, 10, 10], [0, 0, 10, 9], [0, 1, 10, 10]], [[0.9, 0.8, 0.7]], level=[0, 1, 1])
    assert rows(select(e, Decoding(nms=0.7))) == ([0, 1, 2], [True, False, False], [0, 0, 0])
    assert rows(select(e, Decoding(nms=0.7, by_level=True))) == ([0, 1, 2], [True, True, False], [0, 1, 1])


def test_classes_and_levels_together():
    """Slots 0 and 1: class 0 on levels 0 and 1; slots 2 and 3: class 1 there."""
    e = emitted([[0, 0, 10, 10], [0, 0, 10, 9]], [[0.9, 0.8], [0.7, 0.6]], level=[0, 1])
    assert select(e, Decoding()).kept.tolist() == [True, False, True, False]
    assert select(e, Decoding(by_class=False, by_level=True)).kept.tolist() == [True, True, False, False]
    assert select(e, Decoding(by_level=True)).kept.tolist() == [True] * 4


def test_a_box_of_another_class_far_outside_is_no_rival():
    """Moved by (100 + 1, 100 + 1), as classes are told apart, the second would lie on the first."""
    e = emitted([[90, 90, 100, 100], [-11, -11, -1, -1]], [[0.9, 0.0], [0.0, 0.8]])
    assert select(e, Decoding(cut="never")).kept.tolist() == [True, True]


def test_many_classes_cost_no_digits():
    """IoU 0.5006 in the last of 2,000 classes: moved by 200,000 px, float32 has steps of 1/64 px and would see 0.5."""
    boxes = [[0, 0, 1, 1], [0, 0, 1, 0.5006], [90, 90, 100, 100]]
    scores = torch.zeros(2000, 3)
    scores[1999] = torch.tensor([0.9, 0.8, 0.7])
    e = emitted(boxes, scores.tolist())
    assert select(e, Decoding(nms=0.5005)).kept.tolist() == [True, False, True]
    assert select(e, Decoding(nms=0.5007)).kept.tolist() == [True, True, True]


@pytest.mark.parametrize("seed", range(5))
def test_it_agrees_with_torchvision_class_by_class(seed):
    draw = torch.Generator().manual_seed(seed)
    corner, side = torch.rand(200, 2, generator=draw) * 60, torch.rand(200, 2, generator=draw) * 40
    scores = torch.rand(2, 200, generator=draw)
    e = Emission(torch.cat((corner, corner + side), 1)[None], scores, (100, 100))
    found = replay(e, Decoding(top_k=0, before_nms=0))
    want = sorted(int(i) + 200 * c for c in range(2) for i in nms(e.boxes[0], scores[c], 0.5))
    assert 50 < len(found) < 350
    assert sorted(found.cell.tolist()) == want
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


# ---------------------------------------------------------------- what comes so far


def test_a_threshold_is_reached_and_nothing_scores_nothing():
    e = emitted(APART, [[0.5, 0.25, 0.0, 0.75]])
    assert candidates(e, Decoding(threshold=0.5)).tolist() == [3, 0]
    assert candidates(e, Decoding()).tolist() == [3, 0, 1]


def test_of_equal_scores_the_lower_slot_comes_first():
    e = emitted(APART, [[0.5, 0.6, 0.5, 0.6], [0.6, 0.5, 0.6, 0.5]])
    assert candidates(e, Decoding()).tolist() == [1, 3, 4, 6, 0, 2, 5, 7]
    assert select(e, Decoding()).slot.tolist() == [1, 3, 4, 6, 0, 2, 5, 7]


def test_many_equal_scores_stay_in_order():
    e = Emission(torch.zeros(1, 5000, 4), torch.full((1, 5000), 0.5), (100, 100))
    assert candidates(e, Decoding(before_nms=0)).tolist() == list(range(5000))


@pytest.mark.parametrize(
    ("per", "want"),
    [
        ("image", [0, 4, 1]),
        ("level", [0, 4, 1, 2, 6, 7]),  # three each, of cells 0, 1 and of cells 2, 3
        ("class", [0, 4, 1, 5, 2, 6]),  # three each, of slots 0..3 and 4..7
    ],
)
def test_limits_before_suppression(per, want):
    scores = [[0.99, 0.97, 0.95, 0.1], [0.98, 0.96, 0.94, 0.93]]
    e = emitted(APART, scores, level=[0, 0, 1, 1])
    assert candidates(e, Decoding(before_nms=3, per=per)).tolist() == want
    assert len(candidates(e, Decoding(before_nms=0, per=per))) == 8


def test_without_levels_there_is_one():
    e = emitted(APART, [[0.9, 0.8, 0.7, 0.6]])
    assert candidates(e, Decoding(before_nms=2, per="level")).tolist() == [0, 1]


def test_a_cell_that_speaks_once_speaks_for_its_best_class():
    e = emitted(APART, [[0.9, 0.2, 0.5, 0.0], [0.8, 0.3, 0.5, 0.0]])
    assert candidates(e, Decoding(single=True)).tolist() == [0, 2, 5]  # of equal classes the first
    assert candidates(e, Decoding()).tolist() == [0, 4, 2, 6, 5, 1]
    assert candidates(e, Decoding(single=True, threshold=0.25)).tolist() == [0, 2, 5]


# ---------------------------------------------------------------- the image's edge, small boxes, the last limit


def test_boxes_are_cut_before_or_after_they_compete_or_never():
    """Cut to 10 x 10 the two are one; uncut they overlap by a quarter."""
    e = emitted([[0, 0, 10, 10], [0, 0, 10, 40]], [[0.9, 0.8]], size=(10, 10))
    before, after, never = (replay(e, Decoding(cut=c)) for c in ("before", "after", "never"))
    assert before.boxes.tolist() == [[0, 0, 10, 10]]
    assert after.boxes.tolist() == [[0, 0, 10, 10]] * 2
    assert never.boxes.tolist() == [[0, 0, 10, 10], [0, 0, 10, 40]]


def test_small_boxes_are_dropped_before_they_suppress():
    e = emitted([[0, 0, 10, 4], [0, 0, 10, 5], [5, 0, 8, 20]], [[0.9, 0.8, 0.7]])
    assert rows(select(e, Decoding())) == ([0, 1, 2], [True, False, True], [0, 0, 2])
    assert rows(select(e, Decoding(least=4.0))) == ([1], [True], [0])
    assert rows(select(e, Decoding(least=3.0))) == ([0, 1], [True, False], [0, 0])


def test_what_lies_outside_has_no_area_and_stays_only_if_nothing_is_too_small():
    e = emitted([[0, 0, 10, 10], [120, 0, 130, 10], [8, 0, 6, 10]], [[0.9, 0.8, 0.7]])
    assert replay(e, Decoding()).cell.tolist() == [0]
    assert replay(e, Decoding(least=None)).cell.tolist() == [0, 1, 2]
    assert replay(e, Decoding(least=None)).boxes[1].tolist() == [100, 0, 100, 10]
    assert replay(e, Decoding(cut="after")).cell.tolist() == [0, 1]


def test_at_most_so_many_of_the_image_or_of_each_class():
    e = emitted(APART, [[0.9, 0.8, 0.7, 0.6], [0.5, 0.4, 0.3, 0.2]])
    assert replay(e, Decoding(top_k=3)).cell.tolist() == [0, 1, 2]
    assert replay(e, Decoding(top_k=3, limit="class")).cell.tolist() == [0, 1, 2, 4, 5, 6]
    assert len(replay(e, Decoding(top_k=0))) == 8
    assert rows(select(e, Decoding(top_k=2)))[2] == list(range(8))  # beyond the limit, suppressed by nobody


def test_the_limit_counts_what_is_kept():
    e = emitted([APART[0], APART[0], APART[1], APART[2]], [[0.9, 0.8, 0.7, 0.6]])
    assert replay(e, Decoding(top_k=2)).cell.tolist() == [0, 2]


# ---------------------------------------------------------------- what is returned, and what is refused


def test_a_detection_has_the_box_of_its_class_and_names_its_slot():
    e = emitted([APART, [[5, 5, 15, 15]] * 4], [[0.0, 0.0, 0.9, 0.0], [0.0, 0.8, 0.0, 0.0]])
    found = replay(e, Decoding())
    assert found.boxes.tolist() == [[40, 0, 50, 10], [5, 5, 15, 15]]
    assert found.labels.tolist() == [0, 1]
    assert found.cell.tolist() == [2, 5]
    assert found.scores.tolist() == pytest.approx([0.9, 0.8])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["boxes", "scores"])
def test_what_is_not_finite_is_refused(name, value):
    e = emitted(APART, [[0.9, 0.8, 0.7, 0.6]])
    getattr(e, name).flatten()[3] = value
    with pytest.raises(ValueError, match=rf"Emission.{name} holds values that are not finite"):
        replay(e, Decoding())


@pytest.mark.parametrize(
    "decoding", [Decoding(), Decoding(per="level", by_level=True, single=True), Decoding(nms=None)]
)
@pytest.mark.parametrize("cells", [0, 4])
def test_empty_in_empty_out(cells, decoding):
    e = Emission(torch.zeros(1, cells, 4), torch.zeros(2, cells), (100, 100), level=torch.zeros(cells).long())
    selected = select(e, decoding)
    assert [len(v) for v in (selected.slot, selected.boxes, selected.kept, selected.by)] == [0] * 4
    assert selected.found().boxes.shape == (0, 4)


def test_the_emission_stays_as_it_is():
    e = emitted([[-5, 0, 120, 10], [0, 0, 120, 9]], [[0.9, 0.8]])
    before = e.boxes.clone(), e.scores.clone()
    for cut in ("before", "after", "never"):
        replay(e, Decoding(cut=cut, single=True))
    assert torch.equal(e.boxes, before[0])
    assert torch.equal(e.scores, before[1])


def test_half_precision_is_compared_in_full():
    e = emitted([[0, 0, 300, 300], [0, 0, 300, 299]], [[0.9, 0.8]], size=(400, 400))
    half = Emission(e.boxes.half(), e.scores.half(), e.size)
    assert rows(select(half, Decoding())) == ([0, 1], [True, False], [0, 0])
    assert replay(half, Decoding()).boxes.dtype == torch.float32
