"""What is particular to the point detector; what all detectors share is in test_contract."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from boresight.core.types import DenseOutput, Points, Scene
from boresight.detectors.gaussian_point import PointAssigner, PointCriterion, normalised_batch
from boresight.losses import classification
from boresight.run.config import PointSettings
from boresight.run.point import point_detector
from boresight.targets import schedule
from boresight.targets.gaussian import coarser_targets, gaussian_kernel, hard_kernel, point_targets


def output(logits, sizes=()):
    """A point output at stride 4, every cell at (0, 0)."""
    return DenseOutput(logits, torch.zeros(*logits.shape, 4), 4.0, sizes=sizes)


def test_the_default_detector_is_small():
    count = sum(p.numel() for p in point_detector(PointSettings(), 1).parameters())
    assert 80_000 < count <= 150_000


# ---------------------------------------------------------------- pixels


def test_a_batch_is_normalised_and_padded_by_its_edge():
    one = Scene(torch.tensor([[[3.0, 5.0]]]), "one", level=3.0, spread=2.0)
    two = Scene(torch.full((1, 3, 1), 7.0), "two", level=5.0, spread=1.0)
    have = normalised_batch([one, two], 4)
    assert have.shape == (2, 1, 4, 4)
    assert have[0, 0].tolist() == [[0, 1, 1, 1]] * 4
    assert (have[1] == 2).all()


def test_a_colour_image_is_named():
    with pytest.raises(ValueError, match=r"photo: point detection reads one channel, got \[3, 4, 4\]"):
        normalised_batch([Scene(torch.zeros(3, 4, 4), "photo")], 16)


# ---------------------------------------------------------------- what lies outside


@pytest.mark.parametrize(("width", "ignored"), [(8, 2), (9, 1), (12, 1), (13, 0), (16, 0)])
def test_cells_wholly_in_the_padding_are_unknown(width, ignored):
    """Four cells of 4 px. A cell of which one pixel column is image belongs to the image."""
    scenes = [Scene(torch.zeros(1, 4, width), "frame", points=Points.of([]))]
    assign = PointAssigner(schedule.fixed(1.0), gaussian_kernel)
    targets = assign(scenes, output(torch.zeros(1, 1, 1, 4), ((4, width),)), 0.0)
    assert targets.ignore[0, 0, 0].tolist() == [False] * (4 - ignored) + [True] * ignored


@pytest.mark.parametrize("at", [(-0.5, 2.0), (2.0, 4.5), (11.0, 2.0)])
def test_a_point_outside_its_frame_is_named(at):
    """The third lies in the padding."""
    scenes = [Scene(torch.zeros(1, 4, 10), "cut", points=Points.of([at]))]
    assign = PointAssigner(schedule.fixed(1.0), gaussian_kernel)
    with pytest.raises(ValueError, match="cut has a point outside its 10 x 4 px"):
        assign(scenes, output(torch.zeros(1, 1, 1, 4), ((4, 10),)), 0.0)


# ---------------------------------------------------------------- schedules reach the labels and the loss


def test_labels_follow_the_schedule():
    scenes = [Scene(torch.zeros(1, 36, 36), "frame", points=Points.of([(18.0, 18.0)]))]
    assign = PointAssigner(schedule.steps(), lambda sigma: gaussian_kernel(sigma, "physical"))
    empty = output(torch.zeros(1, 1, 9, 9))
    mass = [float(assign(scenes, empty, p).score.sum()) for p in (0.1, 0.5, 0.9)]
    side = [int((assign(scenes, empty, p).score[0, 0, 4] > 0).sum()) for p in (0.1, 0.5, 0.9)]
    assert mass[0] > mass[1] > mass[2]
    assert side == [5, 5, 3]  # from a cell's centre, 2.146 sigma reach 2.58, 2.15 and 1.72 cells


def test_the_weight_multiplies_positive_cells_alone():
    targets = point_targets(
        [Points.of([(6.0, 6.0)])], classes=1, rows=3, columns=3, stride=4, kernel=hard_kernel, reach=1
    )
    have = [
        PointCriterion(classification.bce, schedule.with_weight_ramp(schedule.fixed(1.0), w, w), offset=0.0)(
            output(torch.zeros(1, 1, 3, 3)), targets, 0.5
        )["cls"]
        for w in (1.0, 3.0)
    ]
    assert float(have[0]) == pytest.approx(9 * 0.6931, abs=1e-3)
    assert float(have[1]) == pytest.approx(11 * 0.6931, abs=1e-3)


# ---------------------------------------------------------------- the loss


def test_the_offset_is_the_mean_distance_in_cells():
    """Places are all (0, 0), the target (6, 6): three cells in L1 at stride 4, whatever the number of taught cells."""
    targets = point_targets(
        [Points.of([(6.0, 6.0)])], classes=1, rows=3, columns=3, stride=4, kernel=hard_kernel, reach=1
    )
    criterion = PointCriterion(classification.bce, schedule.fixed(1.0), offset=0.5)
    assert float(criterion(output(torch.zeros(1, 1, 3, 3)), targets, 0.0)["offset"]) == pytest.approx(1.5)


def test_each_coarser_level_counts_with_its_weight():
    targets = point_targets(
        [Points.of([(6.0, 6.0)])], classes=1, rows=4, columns=4, stride=4, kernel=hard_kernel, reach=1
    )
    coarse = DenseOutput(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2, 4), 8.0)
    both = replace(output(torch.zeros(1, 1, 4, 4)), coarser=(coarse,))
    terms = PointCriterion(classification.bce, schedule.fixed(1.0), auxiliary=0.25)(
        both, replace(targets, coarser=(coarser_targets(targets, 2),)), 0.0
    )
    assert float(terms["auxiliary"]) == pytest.approx(0.25 * 4 * 0.6931, abs=1e-3)


def test_hard_negatives_are_not_spent_on_unknown_cells():
    """A bright don't-care is the hardest negative of all; mined and then left out, it would teach nothing."""
    logits = torch.tensor([9.0, 0.0, 8.0, 1.0, -1.0, -2.0]).view(1, 1, 1, 6).requires_grad_()
    truth = Points.of([(10.0, 2.0), (2.0, 2.0)], ignore=torch.tensor([False, True]))
    targets = point_targets([truth], classes=1, rows=1, columns=6, stride=4, kernel=hard_kernel, reach=1)
    criterion = PointCriterion(classification.ohem(2.0, floor=0), schedule.fixed(1.0), offset=0.0)
    criterion(output(logits), targets, 0.0)["cls"].backward()
    assert (logits.grad[0, 0, 0] != 0).tolist() == [False, True, True, True, False, False]


@pytest.mark.parametrize(
    "loss",
    [
        classification.bce,
        classification.weighted_bce(50.0),
        classification.focal(),
        classification.penalty_reduced_focal(),
        classification.quality_focal(),
        classification.ohem(),
    ],
)
def test_unknown_cells_change_neither_loss_nor_gradient(loss):
    truth = Points.of([(10.0, 2.0), (22.0, 2.0)], ignore=torch.tensor([False, True]))
    targets = point_targets(
        [truth], classes=1, rows=1, columns=6, stride=4, kernel=gaussian_kernel(0.8, "physical"), reach=3
    )
    assert targets.ignore.any()
    seen = []
    for told in (-3.0, 12.0):
        logits = torch.where(targets.ignore, told, torch.linspace(-2, 2, 6)).requires_grad_()
        term = PointCriterion(loss, schedule.fixed(1.0), offset=0.0)(output(logits), targets, 0.0)["cls"]
        term.backward()
        assert not logits.grad[targets.ignore].any()
        seen.append((float(term.detach()), logits.grad.clone()))
    assert seen[0][0] == seen[1][0]
    assert torch.equal(seen[0][1], seen[1][1])
