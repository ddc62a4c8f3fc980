"""The six kinds of error and what repairing them is worth: cases on paper, then a plain loop as the oracle."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.diagnose.tide import BKG, BOTH, CLS, DUPE, KINDS, LOC, MISS, NONE, error_kinds
from boresight.diagnose.tide_gain import FALSE_NEGATIVES, FALSE_POSITIVES, NOTHING, Repair, repaired_ap
from boresight.evaluate.box_set import BoxSet

Box = tuple[float, float, float, float]
Truth = tuple[int, int, Box] | tuple[int, int, Box, bool]  # image, class, box, crowd
Found = tuple[int, int, float, Box]  # image, class, score, box

A: Box = (0, 0, 10, 10)
B: Box = (20, 20, 30, 30)
FAR: Box = (60, 60, 70, 70)
NEAR_A: Box = (0, 0, 10, 4)  # IoU .4 with A
BARELY_A: Box = (0, 0, 10, 1)  # IoU .1 with A


def box_set(truth: Sequence[Truth], found: Sequence[Found], images: int = 1) -> BoxSet:
    return BoxSet.of_arrays(
        np.arange(images) + 1,
        ([t[2] for t in truth], [t[0] for t in truth], [t[1] for t in truth]),
        ([f[3] for f in found], [f[0] for f in found], [f[1] for f in found]),
        [f[2] for f in found],
        crowd=[len(t) > 3 and t[3] for t in truth],
    )


def kinds(truth: Sequence[Truth], found: Sequence[Found]) -> list[str]:
    errors = error_kinds(box_set(truth, found))
    named = ["-" if kind == NONE else KINDS[kind] for kind in errors.kind]
    return ["hit" if hit else name for name, hit in zip(named, errors.hit, strict=True)]


def gains(truth: Sequence[Truth], found: Sequence[Found], classes: int = 1) -> dict[str, float]:
    """AP, and what each kind gains alone; kinds that gain nothing are left out."""
    boxes = box_set(truth, found)
    repairs = [NOTHING, *(Repair.of(k) for k in range(6)), FALSE_POSITIVES, FALSE_NEGATIVES]
    ap = np.nanmean(repaired_ap(boxes, error_kinds(boxes), classes, repairs, np.ones((1, 1))), axis=1)[:, 0]
    named = dict(zip((*KINDS, "FalsePos", "FalseNeg"), ap[1:] - ap[0], strict=True))
    return {"AP": ap[0]} | {k: v for k, v in named.items() if v}


def close(**values: float) -> dict[str, float]:
    return pytest.approx(values, abs=1e-12)


# --- one kind at a time ----------------------------------------------------------------------------------------------


def test_nothing_is_wrong():
    assert kinds([(0, 0, A)], [(0, 0, 0.9, A)]) == ["hit"]
    assert gains([(0, 0, A)], [(0, 0, 0.9, A)]) == close(AP=1)


def test_loc():
    # The only detection would be a hit if it fitted better. Taking it away, or the truth, gives nothing.
    assert kinds([(0, 0, A)], [(0, 0, 0.9, NEAR_A)]) == ["Loc"]
    assert gains([(0, 0, A)], [(0, 0, 0.9, NEAR_A)]) == close(AP=0, Loc=1)


def test_loc_on_a_truth_that_is_taken_only_vanishes():
    # hit, Loc, hit: precision 1 up to recall 1/2 (51 of 101 points), then 2/3.
    truth, found = [(0, 0, A), (0, 0, B)], [(0, 0, 0.9, A), (0, 0, 0.8, NEAR_A), (0, 0, 0.7, B)]
    assert kinds(truth, found) == ["hit", "Loc", "hit"]
    ap = (51 + 50 * 2 / 3) / 101
    assert gains(truth, found) == close(AP=ap, Loc=1 - ap, FalsePos=1 - ap)


def test_cls_is_a_hit_of_the_class_of_the_truth():
    # A detection of class 1 on an object of class 0 is found before the object of class 1. Class 0 has AP 0 and class 1
    # has 1/2; repaired, both have 1. Without it as a false alarm class 1 alone gains its half, a quarter in the mean.
    truth, found = [(0, 0, A), (0, 1, B)], [(0, 1, 0.9, A), (0, 1, 0.8, B)]
    assert kinds(truth, found) == ["Cls", "hit"]
    # Class 0 has nothing left to find and no false alarm when what is unfound is forgiven: AP 1.
    assert gains(truth, found, 2) == close(AP=0.25, Cls=0.75, FalsePos=0.25, FalseNeg=0.5)


def test_dupe():
    truth, found = [(0, 0, A), (0, 0, B)], [(0, 0, 0.9, A), (0, 0, 0.8, A), (0, 0, 0.7, B)]
    assert kinds(truth, found) == ["hit", "Dupe", "hit"]
    ap = (51 + 50 * 2 / 3) / 101
    assert gains(truth, found) == close(AP=ap, Dupe=1 - ap, FalsePos=1 - ap)


@pytest.mark.parametrize("stray", [FAR, (9, 9, 20, 20)], ids=["far", "IoU 1/220"])
def test_bkg(stray: Box):
    truth, found = [(0, 0, A)], [(0, 0, 0.9, stray), (0, 0, 0.8, A)]
    assert kinds(truth, found) == ["Bkg", "hit"]
    assert gains(truth, found) == close(AP=0.5, Bkg=0.5, FalsePos=0.5)


def test_both():
    truth, found = [(0, 0, A), (0, 1, B)], [(0, 1, 0.9, NEAR_A), (0, 1, 0.8, B), (0, 0, 0.7, A)]
    assert kinds(truth, found) == ["Both", "hit", "hit"]
    assert gains(truth, found, 2) == close(AP=0.75, Both=0.25, FalsePos=0.25)


def test_miss():
    truth, found = [(0, 0, A), (0, 0, B)], [(0, 0, 0.9, A)]
    assert error_kinds(box_set(truth, found)).missed.tolist() == [False, True]
    assert gains(truth, found) == close(AP=51 / 101, Miss=50 / 101, FalseNeg=50 / 101)


# --- which of several ------------------------------------------------------------------------------------------------


def test_the_ends_of_the_intervals():
    truth = [(0, 0, A), (0, 1, B)]
    # Same class: .1 is a Loc, .5 of a truth that is taken a Dupe. Another class: .1 is background, .5 is a Cls.
    found = [(0, 0, 0.9, A), (0, 0, 0.8, BARELY_A), (0, 0, 0.7, (0, 0, 10, 5))]
    assert kinds(truth, found) == ["hit", "Loc", "Dupe"]
    assert kinds(truth, [(0, 1, 0.9, BARELY_A), (0, 1, 0.8, (0, 0, 10, 5))]) == ["Bkg", "Cls"]


def test_a_loc_comes_before_a_cls_and_a_cls_before_a_dupe():
    # On (0, 0, 10, 4): .4 with A of its own class and 1 with the other's.
    assert kinds([(0, 0, A), (0, 1, NEAR_A)], [(0, 0, 0.9, NEAR_A)]) == ["Loc"]
    assert kinds([(0, 0, A), (0, 1, A)], [(0, 0, 0.9, A), (0, 0, 0.8, A)]) == ["hit", "Cls"]


def test_of_all_that_name_a_truth_the_best_scored_would_find_it_whatever_its_kind():
    truth = [(0, 0, A), (0, 1, B)]
    found = [(0, 0, 0.5, NEAR_A), (0, 1, 0.9, A), (0, 0, 0.8, NEAR_A), (0, 1, 0.7, B)]
    errors = error_kinds(box_set(truth, found))
    assert errors.kind.tolist() == [LOC, CLS, LOC, NONE]
    assert errors.finds.tolist() == [-1, 0, -1, 1]
    assert errors.unfound.tolist() == [True, False]
    assert errors.missed.tolist() == [False, False]
    # Repairing Loc takes two false alarms from class 0, whose truth stays unfound: nothing. Repairing Cls makes the
    # first of class 0 a hit (the two Loc come after it) and takes a false alarm from class 1.
    assert gains(truth, found, 2) == close(AP=0.25, Cls=0.75, FalsePos=0.25)


def test_a_crowd_excuses_and_is_no_truth():
    truth = [(0, 0, (0, 0, 50, 50), True), (0, 0, (60, 60, 70, 70))]
    found = [(0, 0, 0.9, A), (0, 1, 0.8, A), (0, 0, 0.7, (45, 45, 65, 65)), (0, 0, 0.6, FAR)]
    # In the crowd; of another class in it; a sixteenth in it and IoU 1/19 with the truth; a hit.
    assert kinds(truth, found) == ["-", "Bkg", "Bkg", "hit"]
    assert gains(truth, found, 2) == close(AP=0.5, Bkg=0.5, FalsePos=0.5)
    assert error_kinds(box_set(truth, found)).unfound.tolist() == [False, False]


def test_an_excused_detection_is_an_error_only_if_it_would_find_a_truth():
    crowd: Truth = (0, 0, (0, 0, 50, 50), True)
    truth, found = [crowd, (0, 0, A)], [(0, 0, 0.9, NEAR_A), (0, 0, 0.8, NEAR_A)]
    errors = error_kinds(box_set(truth, found))
    assert errors.kind.tolist() == [LOC, NONE]
    assert errors.false.tolist() == [False, False]
    assert gains(truth, found) == close(AP=0, Loc=1, FalseNeg=1)


def test_what_is_not_there_is_no_error():
    assert gains([(0, 0, A)], []) == close(AP=0, Miss=1, FalseNeg=1)
    boxes = box_set([], [(0, 0, 0.9, A)])
    assert error_kinds(boxes).kind.tolist() == [BKG]
    assert np.isnan(repaired_ap(boxes, error_kinds(boxes), 2, [NOTHING, Repair.of(BKG)], np.ones((3, 1)))).all()
    for boxes in (box_set([], []), box_set([], [], images=0)):
        errors = error_kinds(boxes)
        assert repaired_ap(boxes, errors, 3, [NOTHING], np.ones((2, boxes.images))).shape == (1, 3, 2)


def test_boxes_without_area_overlap_nothing():
    point: Box = (5, 5, 5, 5)
    truth, found = [(0, 0, point), (0, 0, A)], [(0, 0, 0.9, point), (0, 0, 0.8, A)]
    assert kinds(truth, found) == ["Bkg", "hit"]
    assert error_kinds(box_set(truth, found)).missed.tolist() == [True, False]


def test_images_do_not_mix():
    boxes = box_set([(0, 0, A), (1, 0, A)], [(1, 0, 0.9, A), (1, 0, 0.8, A), (0, 1, 0.7, A), (2, 0, 0.6, A)], 3)
    errors = error_kinds(boxes)  # detections are put image after image
    assert errors.kind.tolist() == [CLS, NONE, DUPE, BKG]
    assert errors.finds.tolist() == [0, 1, -1, -1]


@pytest.mark.parametrize(("iou", "background"), [(0.5, 0.5), (0.5, 0.0), (0.5, float("nan")), (1.1, 0.1), (0.0, -1.0)])
def test_impossible_thresholds_are_refused(iou: float, background: float):
    with pytest.raises(ValueError, match="must lie in"):
        error_kinds(box_set([(0, 0, A)], []), iou=iou, background=background)


def test_other_thresholds():
    boxes = box_set([(0, 0, A)], [(0, 0, 0.9, (0, 0, 10, 6)), (0, 0, 0.8, NEAR_A)])
    assert error_kinds(boxes, iou=0.75, background=0.45).kind.tolist() == [LOC, BKG]
    assert error_kinds(boxes, iou=0.3).kind.tolist() == [NONE, DUPE]


# --- a plain loop as the oracle --------------------------------------------------------------------------------------


def plain_iou(a: Box, b: Box) -> float:
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h)


class Plain:
    """The same by loops over objects: one detection after the other, one truth after the other."""

    def __init__(self, truth: Sequence[Truth], found: Sequence[Found]) -> None:
        self.truth = truth
        self.found = sorted(found, key=lambda f: (-f[2], f[0]))  # stable
        self.crowd = [len(t) > 3 and t[3] for t in truth]
        self.took: dict[int, int] = {}
        for d, f in enumerate(self.found):
            able = [(plain_iou(f[3], self.truth[t][2]), t) for t in self.countable(f) if t not in self.took.values()]
            able = [(v, t) for v, t in able if self.truth[t][1] == f[1] and v >= 0.5]
            if able:
                self.took[d] = max(able)[1]
        self.free = [t for t in range(len(truth)) if not self.crowd[t] and t not in self.took.values()]
        self.kind = [self.name(d) for d in range(len(self.found))]
        self.finds = dict(self.took)
        for d in range(len(self.found)):
            if (t := self.kind[d][1]) in self.free and t not in self.finds.values():
                self.finds[d] = t

    def countable(self, f: Found) -> list[int]:
        return [t for t, other in enumerate(self.truth) if other[0] == f[0] and not self.crowd[t]]

    def excused(self, f: Found) -> bool:
        def inside(t: Truth) -> float:
            w, h = min(f[3][2], t[2][2]) - max(f[3][0], t[2][0]), min(f[3][3], t[2][3]) - max(f[3][1], t[2][1])
            return w * h / ((f[3][2] - f[3][0]) * (f[3][3] - f[3][1])) if w > 0 and h > 0 else 0.0

        crowds = [t for t, c in zip(self.truth, self.crowd, strict=True) if c and t[:2] == f[:2]]
        return any(inside(t) >= 0.5 for t in crowds)

    def name(self, d: int) -> tuple[str, int]:
        f = self.found[d]
        if d in self.took:
            return "hit", -1
        ious = {t: plain_iou(f[3], self.truth[t][2]) for t in self.countable(f)}
        own = max(((v, t) for t, v in ious.items() if self.truth[t][1] == f[1]), default=(0.0, -1))
        other = max(((v, t) for t, v in ious.items() if self.truth[t][1] != f[1]), default=(0.0, -1))
        if 0.1 <= own[0] < 0.5:
            return "Loc", own[1]
        if other[0] >= 0.5:
            return "Cls", other[1]
        if own[0] >= 0.5:
            return "Dupe", -1
        return ("Bkg" if max(own[0], other[0]) <= 0.1 else "Both"), -1

    def ap(self, label: int, fixed: Collection[str], found: Collection[str], forgiven: str = "") -> float:
        """AP of a class when the kinds in ``fixed`` vanish, of which those in ``found`` find what they would find."""
        curve, hits, false = [], 0, 0
        mine = [t for t in range(len(self.truth)) if self.truth[t][1] == label and not self.crowd[t]]
        left = len(mine) - len(
            [t for t in mine if t in self.free and (forgiven == "all" or t not in self.finds.values()) and forgiven]
        )
        for d, f in enumerate(self.found):
            kind, t = self.kind[d][0], self.finds.get(d, -1)
            if t >= 0 and (kind == "hit" or kind in found):
                hits += self.truth[t][1] == label
            elif kind != "hit" and f[1] == label and kind not in fixed and not self.excused(f):
                false += 1
            curve.append((hits, false))
        if not mine:
            return float("nan")
        if not left:
            return float(false == 0)
        at = [max([tp / (tp + fp) for tp, fp in curve if tp and tp / left >= r], default=0.0) for r in RECALLS]
        return sum(at) / 101


RECALLS = np.linspace(0, 1, 101)
coordinate = st.integers(0, 5).map(lambda x: x * 3.0)
side = st.sampled_from([3.0, 5.0, 6.0, 10.0, 12.0])
a_box = st.builds(lambda x, y, w, h: (x, y, x + w, y + h), coordinate, coordinate, side, side)
some_truth = st.tuples(st.integers(0, 1), st.integers(0, 2), a_box, st.sampled_from([False, False, False, True]))
some_found = st.tuples(st.integers(0, 1), st.integers(0, 2), st.sampled_from([0.2, 0.4, 0.6, 0.8]), a_box)
a_case = st.tuples(st.lists(some_truth, max_size=7), st.lists(some_found, max_size=10))


@given(a_case)
@settings(max_examples=400)
def test_kinds_and_gains_equal_a_plain_loop(case):
    truth, found = sorted(case[0], key=lambda t: t[0]), sorted(case[1], key=lambda f: f[0])
    boxes, plain = box_set(truth, found, 2), Plain(truth, found)
    errors = error_kinds(boxes)
    for place, d in enumerate(np.argsort(boxes.rank)):
        assert errors.finds[d] == plain.finds.get(place, -1)
        kind = "hit" if errors.hit[d] else KINDS[errors.kind[d]] if errors.kind[d] >= 0 else ""
        assert kind in (plain.kind[place][0], "")
        assert (kind == "") == (plain.excused(plain.found[place]) and place not in plain.finds)
    assert [t for t in range(len(truth)) if errors.missed[t]] == [
        t for t in plain.free if t not in plain.finds.values()
    ]
    sets = [s for n in (0, 1, 2, 5, 6) for s in combinations(range(6), n)]
    repairs = [Repair.of(*s) for s in sets]
    ap = repaired_ap(boxes, errors, 3, [*repairs, FALSE_POSITIVES, FALSE_NEGATIVES], np.ones((1, 2)))[..., 0]
    for label in range(3):
        for row, s in zip(ap[: len(sets), label], sets, strict=True):
            names = {KINDS[k] for k in s}
            expected = plain.ap(label, names, names & {"Cls", "Loc"}, "missed" if MISS in s else "")
            assert row == pytest.approx(expected, abs=1e-12, nan_ok=True)
        assert ap[-2, label] == pytest.approx(plain.ap(label, KINDS, ()), abs=1e-12, nan_ok=True)
        assert ap[-1, label] == pytest.approx(plain.ap(label, (), (), "all"), abs=1e-12, nan_ok=True)


@given(a_case)
@settings(max_examples=200)
def test_repairing_never_costs_and_all_repairs_leave_nothing(case):
    boxes = box_set(*case, 2)
    order = [BKG, MISS, CLS, DUPE, LOC, BOTH]
    repairs = [Repair.of(*order[:n]) for n in range(7)]
    ap = repaired_ap(boxes, error_kinds(boxes), 3, repairs, np.ones((1, 2)))[..., 0]
    ap = ap[:, np.isfinite(ap[0])]
    assert (np.diff(ap, axis=0) >= -1e-12).all()
    np.testing.assert_allclose(ap[-1], 1, atol=1e-12)


@given(a_case, st.lists(st.integers(0, 3), min_size=2, max_size=2), st.randoms(use_true_random=False))
@settings(max_examples=150)
def test_a_weight_is_as_many_copies_of_the_image(case, weights, random):
    truth, found = case
    scores = random.sample(range(1, 100), len(found))
    found = [(i, c, s / 100, b) for (i, c, _, b), s in zip(found, scores, strict=True)]  # ties go by image
    boxes = box_set(truth, found, 2)
    repairs = [NOTHING, *(Repair.of(k) for k in range(6)), Repair.of(CLS, MISS), FALSE_POSITIVES, FALSE_NEGATIVES]
    rows = np.array([weights, [1, 1]])
    got = repaired_ap(boxes, error_kinds(boxes), 3, repairs, rows)[..., 0]
    copies = [(image, n) for image, w in enumerate(weights) for n in range(w)]
    again = box_set(
        [(k, *t[1:]) for k, (image, _) in enumerate(copies) for t in truth if t[0] == image],
        [(k, *f[1:]) for k, (image, _) in enumerate(copies) for f in found if f[0] == image],
        len(copies),
    )
    expected = repaired_ap(again, error_kinds(again), 3, repairs, np.ones((1, len(copies))))[..., 0]
    np.testing.assert_allclose(got, expected, atol=1e-12)
