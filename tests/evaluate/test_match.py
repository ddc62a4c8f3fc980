"""The matcher: cases on paper, brute force as the oracle, then properties."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from boresight.core.types import Detections, Points
from boresight.evaluate.bootstrap import (
    divide,
    image_weights,
    paired_difference,
    paired_f1_difference,
    paired_ratio_difference,
    percentile_interval,
    ratio_interval,
    wilson,
    wilson_upper,
)
from boresight.evaluate.gather import PointSet
from boresight.evaluate.match import match_points
from boresight.evaluate.steps import count_steps

# Whole coordinates make equal distances and tolerance edges common, which is where matchers go wrong.
coordinate = st.integers(0, 12).map(float)
positions = st.lists(st.tuples(coordinate, coordinate), max_size=5)


def test_optimal_pairs_where_greedy_loses_one():
    # On a line: truths at 0, 4, 20 and detections at 2.5, 6.5, 21, 40, tolerance 3.
    # Greedy by distance gives truth 4 the detection at 2.5 (1.5 away) and leaves truth 0 (2.5 away) without; optimal
    # gives 2.5 to truth 0 and 6.5 to truth 4: three pairs.
    match = match_points([(0, 0), (4, 0), (20, 0)], [(2.5, 0), (6.5, 0), (21, 0), (40, 0)], 3.0)
    assert match.found_of_truth.tolist() == [0, 1, 2]
    assert match.truth_of_found.tolist() == [0, 1, 2, -1]
    assert match.distance.tolist() == [2.5, 2.5, 1.0, np.inf]
    assert match.false_alarm.tolist() == [False, False, False, True]
    assert not match.duplicate.any()
    assert not match.missed.any()


def test_least_distance_among_equally_many_pairs():
    # Both assignments have two pairs; 1 + 1 beats 2.9 + 0.9 although a greedy start with 0.9 looks better.
    match = match_points([(0, 0), (1.9, 0)], [(1.0, 0), (2.9, 0)], 3.0)
    assert match.found_of_truth.tolist() == [0, 1]
    assert match.distance.sum() == pytest.approx(2.0)


@pytest.mark.parametrize(("x", "hits"), [(3.0, True), (np.nextafter(3.0, 4), False), (-3.0, True)])
def test_tolerance_is_inclusive(x: float, hits: bool):
    assert match_points([(0, 0)], [(x, 0)], 3.0).hit.tolist() == [hits]


def test_tolerance_is_a_circle():
    # 5 = |(3, 4)| is inside 5 px; (4, 4) would be inside a square.
    assert match_points([(0, 0), (100, 0)], [(3, 4), (104, 4)], 5.0).hit.tolist() == [True, False]


def test_zero_tolerance_matches_the_same_place_alone():
    assert match_points([(1, 1), (2, 2)], [(1, 1), (2, 2.001)], 0.0).hit.tolist() == [True, False]


@pytest.mark.parametrize("tolerance", [-1.0, np.nan, np.inf])
def test_bad_tolerance_is_named(tolerance: float):
    with pytest.raises(ValueError, match=f"tolerance.*{tolerance}"):
        match_points([(0, 0)], [(0, 0)], tolerance)


def test_dont_care_excuses_but_never_takes():
    # Detection 0 hits the truth at 0; 1 is its duplicate; 2 lies on the don't-care at 10; 3 on nothing; 4 is near both
    # the truth at 0 and the don't-care at 5, and loses: excused, no duplicate.
    match = match_points(
        [(0, 0), (10, 0), (5, 0)],
        [(0.5, 0), (-1, 0), (10, 1), (30, 0), (2.5, 0)],
        3.0,
        dont_care=[False, True, True],
    )
    assert match.found_of_truth.tolist() == [0, -1, -1]
    assert match.hit.tolist() == [True, False, False, False, False]
    assert match.duplicate.tolist() == [False, True, False, False, False]
    assert match.ignored.tolist() == [False, False, True, False, True]
    assert match.false_alarm.tolist() == [False, True, False, True, False]
    assert not match.missed.any()


def test_a_counting_truth_comes_before_a_dont_care_one():
    match = match_points([(0, 0), (1, 0)], [(1, 0)], 3.0, dont_care=[False, True])
    assert match.hit.tolist() == [True]
    assert match.ignored.tolist() == [False]


@pytest.mark.parametrize("x", [(-2.0, 2.0), (2.0, -2.0)])
def test_of_equally_near_detections_the_excused_one_is_left_over(x: tuple[float, float]):
    # Truth at 0, don't-care at 4: the detection at 2 is excused, the one at -2 would be a false alarm.
    match = match_points([(0, 0), (4, 0)], [(v, 0) for v in x], 3.0, dont_care=[False, True])
    assert match.false_alarm.sum() == 0
    assert match.ignored.sum() == 1


def test_labels_keep_apart():
    match = match_points([(0, 0), (0, 0)], [(0, 0), (1, 0)], 3.0, truth_labels=[0, 1], found_labels=[1, 2])
    assert match.found_of_truth.tolist() == [-1, 0]
    assert match.false_alarm.tolist() == [False, True]
    assert match.duplicate.tolist() == [False, False]


def test_dont_care_of_another_label_excuses_nothing():
    match = match_points([(0, 0)], [(0, 0)], 3.0, truth_labels=[0], found_labels=[1], dont_care=[True])
    assert match.false_alarm.tolist() == [True]


@pytest.mark.parametrize(("truths", "founds"), [(0, 0), (0, 2), (2, 0)])
def test_empty_sides(truths: int, founds: int):
    match = match_points(np.zeros((truths, 2)), np.zeros((founds, 2)), 3.0)
    assert match.missed.sum() == truths
    assert match.false_alarm.sum() == founds


def brute_force(truth: list, found: list, tolerance: float) -> tuple[int, float]:
    """Most pairs and their least total distance, by trying every assignment."""
    best = (0, 0.0)
    slots = [*range(len(found)), *[-1] * len(truth)]
    for choice in set(itertools.permutations(slots, len(truth))):
        gaps = [np.hypot(*np.subtract(truth[i], found[j])) for i, j in enumerate(choice) if j >= 0]
        gaps = [g for g in gaps if g <= tolerance]
        best = min(best, (-len(gaps), float(sum(gaps))))
    return -best[0], best[1]


@settings(max_examples=60, deadline=None)
@given(truth=positions.filter(lambda p: len(p) <= 4), found=positions.filter(lambda p: len(p) <= 4))
def test_equals_brute_force(truth: list, found: list):
    match = match_points(truth, found, 5.0)
    pairs, total = brute_force(truth, found, 5.0)
    assert match.hit.sum() == pairs
    assert match.distance[match.hit].sum() == pytest.approx(total)
    for i, j in enumerate(match.found_of_truth):
        assert j < 0 or match.truth_of_found[j] == i


@settings(max_examples=60, deadline=None)
@given(truth=positions, found=positions, data=st.data())
def test_order_changes_nothing(truth: list, found: list, data: st.DataObject):
    straight = match_points(truth, found, 3.0)
    mixed = match_points(data.draw(st.permutations(truth)), data.draw(st.permutations(found)), 3.0)
    assert straight.hit.sum() == mixed.hit.sum()
    assert straight.distance[straight.hit].sum() == pytest.approx(mixed.distance[mixed.hit].sum())


@settings(max_examples=40, deadline=None)
@given(images=st.lists(st.tuples(positions, positions), max_size=4))
def test_a_set_is_the_sum_of_its_images(images: list):
    truth = [Points.of(t) for t, _ in images]
    found = [Detections.at(torch.tensor(f).reshape(-1, 2), torch.full((len(f),), 0.5)) for _, f in images]
    whole = PointSet.of(truth, found).match(3.0)
    assert whole.hit.sum() == sum(match_points(t, f, 3.0).hit.sum() for t, f in images)


scored = st.lists(st.tuples(coordinate, coordinate, st.integers(1, 6), st.integers(0, 1)), max_size=8)
truths = st.lists(st.tuples(coordinate, coordinate, st.booleans(), st.integers(0, 1)), max_size=4)


def as_set(images: list) -> PointSet:
    truth, found = [], []
    for t, f in images:
        truth.append(
            Points(
                torch.tensor([p[:2] for p in t]).reshape(-1, 2),
                torch.tensor([p[3] for p in t], dtype=torch.long),
                torch.tensor([p[2] for p in t], dtype=torch.bool),
            )
        )
        found.append(
            Detections.at(
                torch.tensor([p[:2] for p in f]).reshape(-1, 2),
                torch.tensor([p[2] / 10 for p in f]),
                torch.tensor([p[3] for p in f], dtype=torch.long),
            )
        )
    return PointSet.of(truth, found)


@settings(max_examples=200, deadline=None)
@given(images=st.lists(st.tuples(truths, scored), max_size=3))
def test_counts_at_every_score_equal_matching_from_scratch(images: list):
    points = as_set(images)
    hits, false = count_steps(points, 4.0)
    assert hits.min(initial=0) == false.min(initial=0) == 0
    for threshold in [*np.unique(points.scores), 0.0, 1.0]:
        match = points.above(threshold).match(4.0)
        keep = points.scores >= threshold
        assert hits[keep].sum() == match.hit.sum()
        assert false[keep].sum() == match.false_alarm.sum()


def test_a_newcomer_displaces_an_excused_detection():
    # Truths at 0 and 4, don't-care at 9 (tolerance 3). Alone, the detections at 2 (score .9) and 6.5 (.8) hit both.
    # The one at 4 (.7) then takes truth 4 from 6.5, which the don't-care excuses: no false alarm enters.
    points = as_set(
        [([(0, 0, False, 0), (4, 0, False, 0), (9, 0, True, 0)], [(2, 0, 9, 0), (6.5, 0, 8, 0), (4, 0, 7, 0)])]
    )
    hits, false = count_steps(points, 3.0)
    assert hits.tolist() == [1, 1, 0]
    assert false.tolist() == [0, 0, 0]


def test_a_float32_score_passes_its_own_decimal():
    found = Detections.at(torch.zeros(1, 2), torch.tensor([0.9]))
    assert len(PointSet.of([Points.of([])], [found]).above(0.9).scores) == 1


def test_the_door_names_what_is_wrong():
    found = Detections.at(torch.tensor([[float("nan"), 0.0]]), torch.tensor([0.5]))
    with pytest.raises(ValueError, match="found_xy holds values that are not finite"):
        PointSet.of([Points.of([])], [found])
    with pytest.raises(ValueError, match="truth holds 2 images and found 1"):
        PointSet.of([Points.of([]), Points.of([])], [found])


def test_wilson_on_one_side_is_the_upper_end_of_the_two_sided_one():
    hits = np.arange(31)
    assert wilson_upper(hits, 30, 0.9) == pytest.approx([wilson(k, 30, 0.8)[1] for k in hits])
    assert wilson_upper([3, 4], 0).tolist() == [1.0, 1.0]


def test_wilson_on_paper_and_at_the_ends():
    # 253 of 263 targets, 96.2 %, is [93.1, 97.9] %.
    assert wilson(253, 263) == pytest.approx((0.9314, 0.9792), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0
    with pytest.raises(ValueError, match=r"0\.\.trials, got 3 of 2"):
        wilson(3, 2)


@given(k=st.integers(0, 50), more=st.integers(1, 50))
def test_wilson_equals_scipy(k: int, more: int):
    want = stats.binomtest(k, k + more).proportion_ci(method="wilson")
    assert wilson(k, k + more) == pytest.approx((want.low, want.high), abs=1e-12)


def test_paired_difference_equals_scipy_and_knows_its_limits():
    a, b = [0.80, 0.82, 0.81], [0.85, 0.86, 0.88]
    result = paired_difference(a, b)
    want = stats.ttest_rel(b, a).confidence_interval()
    assert (result.low, result.high) == pytest.approx((want.low, want.high))
    assert result.estimate == pytest.approx(0.16 / 3)
    assert result.clear
    alone = paired_difference([0.5], [0.7])
    assert (alone.low, alone.high, alone.clear) == (None, None, False)
    assert not paired_difference([0.5, 0.7], [0.7, 0.5]).clear
    with pytest.raises(ValueError, match="same seeds"):
        paired_difference([0.5], [])
    with pytest.raises(ValueError, match="finite"):
        paired_difference([0.5], [float("nan")])


def test_ratio_interval_of_equal_images_has_no_width_and_none_without_truth():
    weights = image_weights(6, 50)
    assert weights.sum(axis=1).tolist() == [6.0] * 50
    assert ratio_interval([1] * 6, [2] * 6, weights) == (0.5, 0.5)
    assert ratio_interval([0] * 6, [0] * 6, weights) is None
    assert percentile_interval(np.array([np.nan, 1.0, 3.0]), 0.5) == (1.5, 2.5)
    assert np.isnan(divide(1, 0))


def test_bootstrap_interval_has_the_width_of_theory():
    # Independent images with one target each, found with p = 0.8: the ratio is a binomial share.
    found = np.random.default_rng(0).random(400) < 0.8
    low, high = ratio_interval(found, np.ones(400), image_weights(400, 4000)) or (0, 0)
    theory = 1.96 * np.sqrt(found.mean() * (1 - found.mean()) / 400)
    assert (high - low) / 2 == pytest.approx(theory, rel=0.08)


def test_paired_f1_difference_keeps_the_pairs():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 4, (3, 40, 3)).astype(float)
    same = paired_f1_difference(a, a, replicates=100)
    assert (same.estimate, same.low, same.high) == (0.0, 0.0, 0.0)  # unpaired images or seeds would give it a width
    better = a.copy()
    better[..., 0] += a[..., 2]  # every miss becomes a hit
    better[..., 2] = 0
    result = paired_f1_difference(a, better, replicates=300, seed=1)
    f1 = [2 * x[0] / (2 * x[0] + x[1] + x[2]) for side in (a, better) for x in side.sum(axis=1)]
    assert result.estimate == pytest.approx(np.mean(f1[3:]) - np.mean(f1[:3]))
    assert result.clear
    assert result == paired_f1_difference(a, better, replicates=300, seed=1)
    with pytest.raises(ValueError, match="seeds, images, 3"):
        paired_f1_difference(a[..., :2], a[..., :2])
    with pytest.raises(ValueError, match="undefined"):
        paired_f1_difference(np.zeros((1, 2, 3)), np.zeros((1, 2, 3)))


def test_paired_ratio_difference_keeps_the_pairs():
    a = np.array([[[2.0, 4.0], [3.0, 4.0], [1.0, 4.0]]] * 2)  # means 0.5, 0.75, 0.25: 0.5 over all
    b = a + np.array([1.0, 0.0])
    same = paired_ratio_difference(a, a, replicates=100)
    assert (same.estimate, same.low, same.high) == (0.0, 0.0, 0.0)
    found = paired_ratio_difference(a, b, replicates=100)
    assert found.estimate == pytest.approx(0.25)
    assert (found.low, found.high) == (pytest.approx(0.25), pytest.approx(0.25))  # the same in every image
    assert found.pairs == 2


@pytest.mark.parametrize("shape", [(2, 3), (1, 0, 2), (0, 2, 2), (1, 2, 3)])
def test_paired_ratio_difference_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match="seeds, images, 2"):
        paired_ratio_difference(np.ones(shape), np.ones(shape))


def test_a_ratio_of_nothing_is_refused():
    with pytest.raises(ValueError, match="undefined"):
        paired_ratio_difference(np.zeros((1, 2, 2)), np.ones((1, 2, 2)))
