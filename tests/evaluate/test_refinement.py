from dataclasses import replace

import numpy as np
import pytest
import torch

from boresight.core.types import Proposals, Scene
from boresight.evaluate.bootstrap import wilson
from boresight.evaluate.refinement import (
    Outcome,
    Refined,
    calibration,
    choose_confidence,
    clustered_upper,
    per_image_sums,
    refined,
    refinement_figures,
)

TRUTH = [10.0, 10.0, 20.0, 20.0]


def short(height: float) -> list[float]:
    """A box inside of the truth, with an IoU of ``height / 10``."""
    return [10.0, 10.0, 20.0, 10.0 + height]


def scene(coarse, matched, *, boxes=(TRUTH,), ignore=None, labels=None) -> Scene:
    count, truth = len(coarse), torch.tensor(boxes).reshape(-1, 4)
    given = Proposals(
        torch.tensor(coarse).reshape(-1, 4),
        torch.zeros(count).long(),
        torch.ones(count),
        torch.tensor(matched, dtype=torch.long),
    )
    named = torch.zeros(len(truth)).long() if labels is None else torch.tensor(labels)
    crowd = None if ignore is None else torch.tensor(ignore)
    return Scene(torch.zeros(3, 40, 40), "frame", boxes=truth, labels=named, ignore=crowd, proposals=given)


def outcome(moved, kept, replaced, **quality) -> Outcome:
    known = {k: torch.tensor(v) for k, v in quality.items()}
    taken = torch.tensor(replaced, dtype=torch.bool)
    return Outcome(torch.tensor(moved).reshape(-1, 4), torch.tensor(kept).reshape(-1, 4), taken, **known)


def columns(before, after, *, image=None, moved=None, replaced=None, side=None, label=None, **more) -> Refined:
    n = len(before)
    return Refined(
        images=int(max(image or [0])) + 1,
        image=np.array(image or [0] * n),
        label=np.array(label or [0] * n),
        side=np.array(side or [20.0] * n),
        before=np.array(before, float),
        after=np.array(after, float),
        moved=np.array(after if moved is None else moved, float),
        replaced=np.array([True] * n if replaced is None else replaced),
        **{k: np.array(v, float) for k, v in more.items()},
    )


def test_gathered_by_hand():
    one = scene([short(5), short(9), short(2)], [0, 0, -1])
    out = outcome(
        [short(8), short(7), short(10)],
        [short(8), short(9), short(10)],
        [True, False, True],
        start_quality=[0.4, 0.8, 0.1],
        quality=[0.7, 0.6, 0.9],
    )
    data = refined([one], [out])
    assert data.before.tolist() == pytest.approx([0.5, 0.9])  # the third stands for nothing
    assert data.after.tolist() == pytest.approx([0.8, 0.9])
    assert data.moved.tolist() == pytest.approx([0.8, 0.7])
    assert data.replaced.tolist() == [True, False]
    assert data.side.tolist() == pytest.approx([10.0, 10.0])
    assert data.expected.tolist() == pytest.approx([0.7, 0.8])  # of the box that stands


def test_objects_that_do_not_count_are_left_out():
    one = scene([short(5), short(5)], [0, 1], boxes=(TRUTH, TRUTH), ignore=[True, False], labels=[0, 1])
    data = refined([one], [outcome([short(6), short(7)], [short(6), short(7)], [True, True])])
    assert data.after.tolist() == pytest.approx([0.7])
    assert data.label.tolist() == [1]
    assert data.expected is None


def test_images_without_boxes_are_images_all_the_same():
    none = scene([], [], boxes=())
    some = scene([short(5)], [0])
    data = refined([none, some], [outcome([], [], []), outcome([short(6)], [short(6)], [True])])
    assert data.images == 2
    assert data.image.tolist() == [1]
    empty = refined([none], [outcome([], [], [])])
    figures = refinement_figures(empty, ("a",), replicates=10)
    assert figures["boxes"] == 0
    assert figures["iou_after"] is None
    assert figures["calibration"] is None


@pytest.mark.parametrize("change", [{"boxes": None, "labels": None}, {"proposals": None}])
def test_what_is_unknown_cannot_be_judged(change):
    with pytest.raises(ValueError, match="frame"):
        refined([replace(scene([short(5)], [0]), **change)], [outcome([short(6)], [short(6)], [True])])


def test_owners_that_are_unknown_cannot_be_judged():
    one = scene([short(5)], [0])
    one = replace(one, proposals=replace(one.proposals, matched=None))
    with pytest.raises(ValueError, match="owners"):
        refined([one], [outcome([short(6)], [short(6)], [True])])


def test_figures_by_hand():
    data = columns(
        before=[0.25, 0.55, 0.85, 0.95],
        after=[0.75, 0.55, 0.80, 0.95],
        moved=[0.75, 0.45, 0.80, 0.99],
        replaced=[True, False, True, False],
        side=[10.0, 40.0, 40.0, 200.0],
        label=[0, 0, 1, 1],
    )
    f = refinement_figures(data, ("ship", "tank", "car"), replicates=20)
    assert f["iou_before"] == pytest.approx(0.65)
    assert f["iou_after"] == pytest.approx(0.7625)
    assert f["iou_gain"] == pytest.approx(0.1125)
    assert f["iou_all_replaced"] == pytest.approx(0.7475)
    assert f["iou_best_of_both"] == pytest.approx((0.75 + 0.55 + 0.85 + 0.99) / 4)
    assert f["improved_share"] == 0.25
    assert f["harmed_share"] == 0.5  # of the two above 0.8
    assert f["harmed_share_all"] == 0.25
    assert f["replaced_share"] == 0.5
    low = f["by_iou"]["0.0-0.3"]
    assert low == {"n": 1, "before": 0.25, "after": 0.75, "improved": 1.0, "harmed": 0.0, "replaced": 1.0}
    assert f["by_iou"]["0.8-0.9"]["harmed"] == 1.0
    assert f["by_iou"]["0.6-0.7"]["n"] == 0
    assert f["by_iou"]["0.6-0.7"]["after"] is None
    assert [f["by_size"][k]["n"] for k in ("small", "medium", "large")] == [1, 2, 1]
    assert [f["by_class"][k]["n"] for k in ("ship", "tank", "car")] == [2, 2, 0]


def test_a_perfect_coarse_box_has_a_bin_and_rounding_is_no_harm():
    data = columns(before=[1.0, 0.9], after=[1.0 - 1e-9, 0.9 + 1e-9])
    f = refinement_figures(data, ("a",), replicates=10)
    assert f["by_iou"]["0.9-1.0"]["n"] == 2
    assert f["harmed_share"] == 0
    assert f["improved_share"] == 0


def test_intervals_draw_images_and_not_boxes():
    """One image of a hundred boxes that gained and one of a hundred that did not: the mean is anywhere between."""
    data = columns([0.5] * 200, [0.9] * 100 + [0.5] * 100, image=[0] * 100 + [1] * 100)
    low, high = refinement_figures(data, ("a",), replicates=400)["intervals"]["iou_after"]
    assert (low, high) == pytest.approx((0.5, 0.9))


def test_sums_of_images():
    data = columns([0.2, 0.4, 0.6], [0.3, 0.5, 0.9], image=[0, 0, 2])
    sums = per_image_sums(data)
    assert sums["boxes"] == [2, 0, 1]
    assert sums["iou_before"] == pytest.approx([0.6, 0.0, 0.6])
    assert sums["iou_after"] == pytest.approx([0.8, 0.0, 0.9])


def test_calibration_by_hand():
    data = columns(
        before=[0.5] * 4,
        after=[0.1, 0.3, 0.9, 0.9],
        expected_before=[0.0] * 4,
        expected_moved=[0.21, 0.21, 0.85, 0.95],
    )
    told = calibration(data)
    assert [row["n"] for row in told["bins"]] == [2, 1, 1]
    assert told["bins"][0] == {"low": 0.2, "n": 2, "expected": pytest.approx(0.21), "reached": pytest.approx(0.2)}
    assert told["error"] == pytest.approx((2 * 0.01 + 0.05 + 0.05) / 4)
    assert told["mean_distance"] == pytest.approx((0.11 + 0.09 + 0.05 + 0.05) / 4)
    assert told["correlation"] > 0.9


def test_a_prediction_of_one_falls_into_the_last_bin_and_a_constant_one_has_no_correlation():
    told = calibration(columns([0.5, 0.5], [1.0, 0.8], expected_before=[0, 0], expected_moved=[1.0, 1.0]))
    assert told["bins"] == [{"low": 0.9, "n": 2, "expected": 1.0, "reached": pytest.approx(0.9)}]
    assert told["correlation"] is None


# ---------------------------------------------------------------- the confidence from which boxes are replaced


def gained(threshold, score, before, moved) -> tuple[float, float]:
    """Mean IoU and share of good boxes that are harmed, at a threshold."""
    score, before, moved = (np.array(x) for x in (score, before, moved))
    after = np.where(score >= threshold, moved, before)
    good = before > 0.8
    return float(after.mean()), float((after < before - 1e-6)[good].sum() / max(1, good.sum()))


def test_all_are_replaced_where_all_gain():
    score, before, moved = np.array([0.2, 0.5]), np.array([0.3, 0.4]), np.array([0.6, 0.6])
    assert choose_confidence(score, before, moved, 0.0) == pytest.approx(0.2)


def test_none_is_replaced_where_none_gains():
    score = np.array([0.9, 1.0])
    assert choose_confidence(score, np.array([0.9, 0.9]), np.array([0.5, 0.5]), 1.0) > 1.0


def test_harm_is_bounded_even_where_more_would_be_gained():
    score = np.array([0.9, 0.8, 0.7])
    before, moved = np.array([0.3, 0.9, 0.3]), np.array([0.6, 0.85, 0.9])
    assert choose_confidence(score, before, moved, 0.0) == pytest.approx(0.9)
    assert choose_confidence(score, before, moved, 1.0) == pytest.approx(0.7)


def test_boxes_of_one_score_are_replaced_together():
    score, before, moved = np.full(3, 0.5), np.array([0.3, 0.9, 0.9]), np.array([0.9, 0.2, 0.2])
    assert choose_confidence(score, before, moved, 1.0) > 1.0


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("harm", [0.0, 0.05, 0.3, 1.0])
def test_no_other_threshold_is_better_within_the_bound(seed, harm):
    rng = np.random.default_rng(seed)
    before = rng.uniform(0.1, 1.0, 60)
    moved = np.clip(before + rng.normal(0.02, 0.1, 60), 0, 1)
    score = np.round(rng.uniform(size=60), 1)
    good = int((before > 0.8).sum())

    def allowed(cost: float) -> bool:
        return cost == 0 or wilson(round(cost * good), good, level=0.8)[1] <= harm + 1e-12

    mean, hurt = gained(choose_confidence(score, before, moved, harm), score, before, moved)
    assert allowed(hurt)
    for other in [*np.unique(score), 2.0]:
        rival, cost = gained(other, score, before, moved)
        assert rival <= mean + 1e-12 or not allowed(cost)


def test_few_good_boxes_are_not_believed():
    """One of 30 harmed is 3 %, and may well be 10 %: of 600, 20 harmed are 3 % and at most 5 %."""
    for times, replaced in ((1, 39), (20, 820)):
        before = np.tile(np.r_[np.full(30, 0.85), np.full(11, 0.3)], times)
        moved = np.tile(np.r_[0.7, np.full(29, 0.86), np.full(11, 0.9)], times)
        score = np.tile(np.r_[0.5, np.full(29, 0.6), np.full(10, 0.9), 0.5], times)
        assert (score >= choose_confidence(score, before, moved, 0.05)).sum() == replaced


def test_boxes_of_one_image_are_no_independent_draws():
    """Twenty of 400 boxes are harmed: one image's all, or one of each of twenty images."""
    image = np.repeat(np.arange(20), 20)
    together, apart = np.zeros(400, bool), np.zeros(400, bool)
    together[:20] = True
    apart[::20] = True
    assert clustered_upper(apart, image)[-1] == pytest.approx(0.05)  # every image alike: no spread at all
    share, spread = 0.05, np.sqrt((19**2 + 19 * 1) * 20 / 19) / 400
    assert clustered_upper(together, image)[-1] == pytest.approx(share + 1.2816 * spread)
    assert (clustered_upper(together, np.zeros(400, np.int64)) == 1).all()
    assert len(clustered_upper(np.zeros(0, bool), np.zeros(0, np.int64))) == 0


def test_harm_in_one_image_counts_for_more():
    n = 400
    image = np.repeat(np.arange(20), 20)
    before, score = np.full(n, 0.85), np.full(n, 0.5)
    moved = np.where(image == 0, 0.7, 0.9)
    loose = np.arange(100)
    before, moved = np.append(before, np.full(100, 0.3)), np.append(moved, np.full(100, 0.8))
    score, image = np.append(score, np.full(100, 0.9)), np.append(image, loose % 20)
    assert (score >= choose_confidence(score, before, moved, 0.08)).sum() == 500
    assert (score >= choose_confidence(score, before, moved, 0.08, image)).sum() == 100
