"""Figures of point detections: a data set on paper, literal resampling as the oracle, empty cases."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.core.types import Detections, Points
from boresight.evaluate.bootstrap import image_weights
from boresight.evaluate.gather import PointSet
from boresight.evaluate.ladder import FALLBACK_THRESHOLD, Ladder, best_threshold
from boresight.evaluate.points import PointReport, evaluate_points
from boresight.evaluate.rows import match_table

SIZE = (100, 100)


def detections(*rows: tuple[float, float, float]) -> Detections:
    """Detections from ``(x, y, score)``."""
    table = torch.tensor(rows).reshape(-1, 3)
    return Detections.at(table[:, :2], table[:, 2])


def paper_set() -> tuple[list[Points], list[Detections]]:
    """Two images; counts by threshold: .9 -> 1 hit 0 false, .8 -> 1/1, .7 -> 1/2, .6 -> 2/2, .3 -> 3/2 (of 3)."""
    truth = [Points.of([(10, 10), (50, 50)]), Points.of([(20, 20)])]
    found = [detections((11, 10, 0.9), (80, 80, 0.7), (50, 52, 0.6)), detections((20, 24, 0.8), (20, 20, 0.3))]
    return truth, found


def report(truth: list[Points], found: list[Detections], threshold: float = 0.5, **more: object) -> PointReport:
    return evaluate_points(truth, found, sizes=[SIZE] * len(truth), threshold=threshold, **{"bootstrap": 50, **more})


def test_counts_on_paper():
    got = report(*paper_set(), threshold=0.3).to_dict()
    assert (got["tp"], got["fp"], got["fn"]) == (3, 2, 0)
    assert (got["precision"], got["recall"], got["f1"]) == (0.6, 1.0, 0.75)
    assert got["false_alarms_per_frame"] == 1.0
    assert got["at_half"]["tp"] == 2
    assert got["at_half"]["fn"] == 1
    assert got["f1_at_half"] == got["at_half"]["f1"] == 4 / 7
    assert (got["images"], got["truths"], got["dont_care"], got["megapixels"]) == (2, 3, 0, 0.02)


def test_pd_at_false_alarm_rates_on_paper():
    got = report(*paper_set()).to_dict()
    assert got["pd_at_0.1_false_alarms_per_frame"] == 1 / 3  # 0.2 false alarms allowed: none
    assert got["pd_at_1_false_alarms_per_frame"] == 1.0  # 2 allowed
    assert got["pd_thresholds"]["pd_at_1_false_alarms_per_frame"] == pytest.approx(0.3)
    assert got["pd_at_1_false_alarms_per_megapixel"] == 1 / 3  # 0.02 allowed: none
    roomy = evaluate_points(*paper_set(), sizes=[(1000, 1000)] * 2, threshold=0.5, bootstrap=0).to_dict()
    assert roomy["pd_at_1_false_alarms_per_megapixel"] == 1.0  # 2 allowed


def test_no_threshold_keeps_to_the_rate_when_the_best_score_is_a_false_alarm():
    got = report([Points.of([(10, 10)])], [detections((90, 90, 0.9), (10, 10, 0.8))])
    assert got.to_dict()["pd_at_0.1_false_alarms_per_frame"] == 0.0
    assert got.to_dict()["pd_thresholds"]["pd_at_0.1_false_alarms_per_frame"] is None


def test_localisation_on_paper():
    got = report(*paper_set())  # at 0.5: errors (1, 0) and (0, 2)
    assert got.rmse == pytest.approx(math.sqrt(2.5))
    assert (got.bias_x, got.bias_y) == (0.5, 1.0)
    assert got.f1_at_px == {"1": 2 / 7, "2": 4 / 7, "3": 4 / 7, "5": 6 / 7}


def test_curve_on_paper():
    curve = report(*paper_set()).curve
    assert curve.threshold == pytest.approx((0.9, 0.8, 0.7, 0.6, 0.3))
    assert curve.pd == (1 / 3, 1 / 3, 1 / 3, 2 / 3, 1.0)
    assert curve.false_alarms_per_frame == (0.0, 0.5, 1.0, 1.0, 1.0)
    assert curve.precision == (1.0, 0.5, 1 / 3, 0.5, 0.6)
    assert curve.f1 == (2 / 4, 2 / 5, 2 / 6, 4 / 7, 6 / 8)


def test_thinning_keeps_ends_and_best_f1():
    rng = np.random.default_rng(0)
    found = detections(*[(90, 90, float(s)) for s in rng.random(5000)], (10, 10, 0.98765))
    curve = report([Points.of([(10, 10)])], [found]).curve
    assert 100 < len(curve.threshold) <= 402
    assert curve.pd[-1] == 1.0
    assert curve.false_alarms_per_frame[0] == 1.0
    full = Ladder(PointSet.of([Points.of([(10, 10)])], [found]), 3.0)
    assert max(curve.f1) == np.nanmax(full.f1)
    assert curve.false_alarms_per_frame[-1] == 5000


def test_tied_scores_enter_together():
    truth, found = [Points.of([(10, 10)])], [detections((10, 10, 0.5), (90, 90, 0.5))]
    got = report(truth, found)
    assert (got.at_half.tp, got.at_half.fp) == (1, 1)
    assert len(got.curve.threshold) == 1
    assert got.to_dict()["pd_at_0.1_false_alarms_per_frame"] == 0.0


def test_best_threshold_is_the_middle_of_the_plateau():
    assert best_threshold(*paper_set()) == pytest.approx(0.15)  # all detections, down to 0
    # F1 by level 2/3, 1/2, 2/5, 2/3: plateaus (.8, .9] and (0, .2], the second is wider ...
    truth = [Points.of([(10, 10), (20, 20)])]
    rows = [(10, 10, 0.9), (90, 90, 0.8), (90, 80, 0.7)]
    assert best_threshold(truth, [detections(*rows, (20, 20, 0.2))]) == pytest.approx(0.1)
    # ... and here the first.
    assert best_threshold(truth, [detections(*rows, (20, 20, 0.05))]) == pytest.approx(0.85)


def test_a_detection_that_changes_nothing_widens_the_plateau():
    truth = [dataclasses.replace(Points.of([(10, 10), (50, 50)]), ignore=torch.tensor([False, True]))]
    found = [detections((10, 10, 0.9), (50, 50, 0.6), (90, 90, 0.2))]
    assert best_threshold(truth, found) == pytest.approx(0.55)


def test_best_threshold_between_neighbouring_floats():
    high = np.float32(0.7)
    low = np.nextafter(high, np.float32(0))
    found = [Detections.at(torch.tensor([[10.0, 10.0], [90.0, 90.0]]), torch.tensor([high, low]))]
    chosen = best_threshold([Points.of([(10, 10)])], found)
    assert report([Points.of([(10, 10)])], found, chosen).at_threshold.f1 == 1.0


@pytest.mark.parametrize(
    ("truth", "found"),
    [
        ([], []),
        ([Points.of([(10, 10)])], [detections()]),
        ([Points.of([])], [detections((10, 10, 0.9))]),
        ([Points.of([(10, 10)])], [detections((90, 90, 0.9))]),
    ],
)
def test_best_threshold_without_any_hit(truth: list[Points], found: list[Detections]):
    assert best_threshold(truth, found) == FALLBACK_THRESHOLD


scored = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 8)), max_size=6)
spots = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.booleans()), max_size=3)


def drawn(images: list) -> tuple[list[Points], list[Detections]]:
    truth = [Points.of([p[:2] for p in t], ignore=torch.tensor([p[2] for p in t], dtype=torch.bool)) for t, _ in images]
    return truth, [detections(*[(x, y, s / 8) for x, y, s in f]) for _, f in images]


@settings(max_examples=100, deadline=None)
@given(images=st.lists(st.tuples(spots, scored), min_size=1, max_size=4))
def test_best_threshold_beats_every_other(images: list):
    truth, found = drawn(images)
    chosen = best_threshold(truth, found)
    ladder = Ladder(PointSet.of(truth, found), 3.0)
    best = ladder.counts(chosen).f1 or 0.0
    assert all(best >= (ladder.counts(t).f1 or 0.0) for t in np.linspace(0, 1, 17))


@settings(max_examples=60, deadline=None)
@given(images=st.lists(st.tuples(spots, scored), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_replicates_equal_literally_repeated_images(images: list, seed: int):
    truth, found = drawn(images)
    weights = image_weights(len(truth), 4, seed)
    ladder = Ladder(PointSet.of(truth, found), 3.0)
    exposure = np.ones(len(truth))
    samples = ladder.pd_samples(weights, [(0.5, exposure), (1.0, exposure)])
    for replicate, weight in enumerate(weights.astype(int)):
        again = np.repeat(np.arange(len(truth)), weight)
        literal = Ladder(PointSet.of([truth[i] for i in again], [found[i] for i in again]), 3.0)
        for rate, sample in zip((0.5, 1.0), samples, strict=True):
            want = literal.pd_at(rate * len(truth))[0]
            assert np.isnan(sample[replicate]) if want is None else sample[replicate] == pytest.approx(want)


@settings(max_examples=40, deadline=None)
@given(images=st.lists(st.tuples(spots, scored), max_size=4))
def test_every_report_is_valid_json_and_rows_agree_with_it(images: list):
    truth, found = drawn(images)
    got = report(truth, found, 0.25, bootstrap=5)
    json.dumps(got.to_dict(), allow_nan=False)
    rows, missed = match_table(truth, found, threshold=0.25)
    kinds = [r.kind for r in rows]
    assert kinds.count("hit") == got.at_threshold.tp
    assert kinds.count("false_alarm") + kinds.count("duplicate") == got.at_threshold.fp
    assert len(missed) == got.at_threshold.fn


def test_the_order_of_images_changes_no_count():
    truth, found = paper_set()
    a, b = report(truth, found), report(truth[::-1], found[::-1])
    assert (a.at_threshold, a.curve, a.f1_at_px) == (b.at_threshold, b.curve, b.f1_at_px)


def test_intervals_hold_the_estimate_and_repeat():
    rng = np.random.default_rng(3)
    truth = [Points.of([(50, 50)]) for _ in range(60)]
    found = [detections((50, 50 + 8 * (rng.random() < 0.3), rng.random()), (5, 5, rng.random() / 2)) for _ in truth]
    got = report(truth, found, bootstrap=400).to_dict()
    for key, (low, high) in got["intervals"].items():
        assert low <= got[key] <= high, key
        assert low < high or key.endswith("megapixel"), key
    assert got == report(truth, found, bootstrap=400).to_dict()
    assert got["intervals"] != report(truth, found, bootstrap=400, seed=1).to_dict()["intervals"]


def test_a_thinned_ladder_only_lowers_pd(monkeypatch: pytest.MonkeyPatch):
    truth = [Points.of([(10 * k, 10) for k in range(1, 9)])]
    found = [detections(*[(10 * k, 10, k / 9) for k in range(1, 9)])]
    ladder, weights = Ladder(PointSet.of(truth, found), 3.0), image_weights(1, 2)
    assert ladder.pd_samples(weights, [(0.0, np.ones(1))])[0].tolist() == [1.0, 1.0]
    monkeypatch.setattr("boresight.evaluate.ladder.LADDER_LEVELS", 3)
    assert ladder.pd_samples(weights, [(0.0, np.ones(1))])[0].tolist() == [1.0, 1.0]  # both ends are kept
    # A false alarm at .3 forbids the levels 2/9 and 1/9: 6 of 8 hits, of which the kept level in the middle has fewer.
    two = Ladder(PointSet.of([*truth, Points.of([])], [*found, detections((90, 90, 0.3))]), 3.0)
    exact = two.pd_at(0)[0]
    thinned = two.pd_samples(np.ones((1, 2), np.float32), [(0.0, np.ones(2))])[0]
    assert exact == 6 / 8
    assert 1 / 8 <= thinned[0] < exact


def test_without_bootstrap_there_are_no_intervals():
    assert set(report(*paper_set(), bootstrap=0).to_dict()["intervals"].values()) == {None}


def test_nothing_at_all():
    got = report([], []).to_dict()
    assert (got["tp"], got["f1"], got["precision"], got["false_alarms_per_frame"]) == (0, None, None, None)
    json.dumps(got, allow_nan=False)


def test_truth_and_no_detection():
    got = report([Points.of([(10, 10)])], [detections()]).to_dict()
    assert (got["f1"], got["recall"], got["precision"], got["rmse"]) == (0.0, 0.0, None, None)
    assert got["pd_at_1_false_alarms_per_frame"] == 0.0
    assert got["intervals"]["f1"] == [0.0, 0.0]


def test_only_dont_care():
    truth = [dataclasses.replace(Points.of([(10, 10)]), ignore=torch.tensor([True]))]
    got = report(truth, [detections((11, 10, 0.9), (9, 10, 0.8))]).to_dict()
    assert (got["truths"], got["dont_care"], got["tp"], got["fp"], got["fn"], got["f1"]) == (0, 1, 0, 0, 0, None)


def test_labels_must_agree():
    found = dataclasses.replace(detections((10, 10, 0.9)), labels=torch.tensor([1]))
    got = report([Points.of([(10, 10)])], [found]).at_threshold
    assert (got.tp, got.fp, got.fn) == (0, 1, 1)


def test_a_neighbouring_image_lends_no_truth():
    got = report([Points.of([(10, 10)]), Points.of([])], [detections(), detections((10, 10, 0.9))]).at_threshold
    assert (got.tp, got.fp, got.fn) == (0, 1, 1)


def test_pd_by_snr_on_paper():
    # At 0.1 a frame one false alarm breaks the rate, so the threshold lies above .7; SNR 12 is in the last bin, 20 in
    # none, and neither is 4.2, a don't-care.
    snr = torch.tensor([4.5, 4.0, 12.0, 20.0, 4.2])
    truth = [
        Points.of(
            [(10, 10), (20, 20), (30, 30), (40, 40), (50, 50)],
            snr=snr,
            ignore=torch.tensor([False, False, False, False, True]),
        )
    ]
    found = [detections((10, 10, 0.9), (30, 30, 0.8), (90, 90, 0.7), (20, 20, 0.6))]
    bins = {(b.rate, b.low): b for b in report(truth, found).by_snr}
    assert len(bins) == 18
    assert (bins[0.1, 4.0].n, bins[0.1, 4.0].hits, bins[0.1, 4.0].pd) == (2, 1, 0.5)
    assert (bins[1.0, 4.0].n, bins[1.0, 4.0].hits) == (2, 2)
    assert (bins[0.1, 11.0].n, bins[0.1, 11.0].hits) == (1, 1)
    assert (bins[0.1, 3.0].n, bins[0.1, 3.0].pd, bins[0.1, 3.0].interval) == (0, None, (0.0, 1.0))
    assert sum(b.n for b in bins.values()) == 2 * 3
    assert report(*paper_set()).by_snr == ()


def test_match_table_on_paper():
    snr = torch.tensor([5.0, 6.0, 2.0])
    truth = [
        Points.of([(90, 90)]),
        Points.of([(10, 10), (60, 60), (30, 30)], snr=snr, ignore=torch.tensor([0, 0, 1]).bool()),
    ]
    second = detections((9, 10, 0.4), (10, 10.5, 0.9), (31, 30, 0.8), (90, 90, 0.7), (1, 1, 0.1))
    found = [detections((5, 5, 0.6)), dataclasses.replace(second, cell=torch.arange(5))]
    rows, missed = match_table(truth, found, threshold=0.2)
    assert [(r.image, r.kind, r.object, r.distance) for r in rows] == [
        (0, "false_alarm", -1, None),
        (1, "duplicate", -1, None),
        (1, "hit", 0, 0.5),
        (1, "ignored", -1, None),
        (1, "false_alarm", -1, None),
    ]
    assert [r.cell for r in rows] == [-1, 0, 1, 2, 3]
    assert (rows[2].x, rows[2].y, rows[2].score) == (10.0, 10.5, pytest.approx(0.9))
    assert [(m.image, m.object, m.x, m.y, m.snr) for m in missed] == [
        (0, 0, 90.0, 90.0, None),
        (1, 1, 60.0, 60.0, 6.0),
    ]


def test_sizes_are_checked():
    truth, found = paper_set()
    with pytest.raises(ValueError, match="for each of 2 images"):
        evaluate_points(truth, found, sizes=[SIZE], threshold=0.5)
    with pytest.raises(ValueError, match="positive"):
        evaluate_points(truth, found, sizes=[SIZE, (0, 5)], threshold=0.5)


def test_inputs_stay_as_they_were():
    truth, found = paper_set()
    before = [(t.xy.clone(), d.boxes.clone(), d.scores.clone()) for t, d in zip(truth, found, strict=True)]
    report(truth, found)
    for (xy, boxes, scores), t, d in zip(before, truth, found, strict=True):
        assert torch.equal(xy, t.xy)
        assert torch.equal(boxes, d.boxes)
        assert torch.equal(scores, d.scores)
