import math

import pytest
import torch
from torch.testing import assert_close

from boresight.core.types import DenseOutput, DenseTargets
from boresight.losses.refine import decision_loss, edge_loss, quality_loss, shared_weight

ONE = torch.tensor(1.0)


def targets(matched, objects, *, ignore=None) -> DenseTargets:
    owner = torch.tensor(matched).view(1, 1, -1, 1)
    boxes = torch.tensor(objects).reshape(-1, 4)
    return DenseTargets(
        positive=owner >= 0,
        matched=owner,
        score=torch.zeros(owner.shape),
        ignore=torch.zeros_like(owner, dtype=torch.bool) if ignore is None else torch.tensor(ignore).view_as(owner),
        objects=boxes,
        labels=torch.zeros(len(boxes), dtype=torch.long),
        counted=torch.ones(len(boxes), dtype=torch.bool),
        normaliser=torch.tensor(float(len(boxes))),
    )


BOX = [2.0, 4.0, 8.0, 6.0]


def with_edges(logits: torch.Tensor, window=(0.0, 0.0, 10.0, 10.0)) -> DenseOutput:
    """``[M, 4, K]`` logits."""
    count = len(logits)
    shape = (1, 1, count, 1)
    return DenseOutput(
        torch.zeros(shape),
        torch.zeros(*shape, 4),
        0.0,
        edges=logits.view(*shape, 4, -1),
        window=torch.tensor(window).expand(*shape, 4),
        counts=(count,),
    )


def test_an_object_s_weight_is_shared_by_its_boxes():
    assert shared_weight(targets([0, 0, 1, -1], [BOX, BOX])).flatten().tolist() == [0.5, 0.5, 1.0, 0.0]
    masked = targets([0, 0, 1, -1], [BOX, BOX], ignore=[True, False, False, True])
    assert shared_weight(masked).flatten().tolist() == [0.0, 1.0, 1.0, 0.0]


def test_edges_by_hand():
    """Ten places a pixel apart in a window of 10 px: the edge at 2 lies between places 1.5 and 2.5, halfway."""
    wanted = targets([0], [BOX])
    flat = torch.zeros(1, 4, 10)
    assert float(edge_loss(with_edges(flat), wanted, shared_weight(wanted))) == pytest.approx(math.log(10))
    sharp = torch.full((1, 4, 10), -1e4)
    for edge, (low, high) in enumerate([(1, 2), (3, 4), (7, 8), (5, 6)]):
        sharp[0, edge, [low, high]] = 0.0
    assert float(edge_loss(with_edges(sharp), wanted, shared_weight(wanted))) == pytest.approx(math.log(2))


def test_edges_between_two_places_weigh_both_by_nearness():
    wanted = targets([0], [[2.0, 2.0, 6.75, 6.75]])  # 6.75 px: three quarters from place 6 (at 6.5) to ... 6 and 7
    logits = torch.zeros(1, 4, 10)
    logits[0, :, 6] = 3.0
    share = torch.log_softmax(logits[0, 0], -1)
    far = -(0.75 * share[6] + 0.25 * share[7])
    near = -(0.5 * share[1] + 0.5 * share[2])
    assert float(edge_loss(with_edges(logits), wanted, shared_weight(wanted))) == pytest.approx(float((far + near) / 2))


def test_an_edge_outside_of_the_window_pulls_to_its_border():
    wanted = targets([0], [[-50.0, -50.0, 99.0, 99.0]])
    logits = torch.full((1, 4, 10), -30.0)
    logits[0, :2, 0] = 0.0
    logits[0, 2:, 9] = 0.0
    assert float(edge_loss(with_edges(logits), wanted, shared_weight(wanted))) == pytest.approx(0.0, abs=1e-5)


def test_without_objects_every_edge_has_a_gradient_of_nothing():
    logits = torch.zeros(2, 4, 10, requires_grad=True)
    wanted = targets([-1, -1], [])
    loss = edge_loss(with_edges(logits), wanted, shared_weight(wanted))
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_the_gradient_of_edges_is_that_of_finite_differences():
    wanted = targets([0, -1], [BOX])
    logits = torch.randn(2, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    window = (0.0, 0.0, 12.0, 12.0)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return edge_loss(with_edges(x, window), wanted, shared_weight(wanted))

    x = logits.clone().requires_grad_()
    loss(x).backward()
    step = 1e-2
    for at in [(0, 0, 1), (0, 2, 4), (0, 3, 0), (1, 1, 1)]:
        up, down = logits.clone(), logits.clone()
        up[at] += step
        down[at] -= step
        assert float((loss(up) - loss(down)) / (2 * step)) == pytest.approx(float(x.grad[at]), abs=1e-4)


def test_a_quality_that_is_right_costs_nothing_and_any_other_costs_something():
    iou = torch.tensor([0.0, 0.3, 0.9, 1.0]).view(1, 1, 4, 1)
    weight = torch.ones_like(iou)
    right = iou.logit(eps=1e-6)
    assert float(quality_loss(right, iou, weight, ONE)) == pytest.approx(0.0, abs=1e-4)
    for shift in (-1.0, 1.0):
        assert float(quality_loss(right[:, :, 1:3] + shift, iou[:, :, 1:3], weight[:, :, 1:3], ONE)) > 0.05


def test_quality_and_decision_by_hand_with_weights_and_normaliser():
    logits, weight = torch.zeros(1, 1, 2, 1), torch.tensor([1.0, 0.5]).view(1, 1, 2, 1)
    iou = torch.tensor([1.0, 1.0]).view(1, 1, 2, 1)
    want = 1.5 * math.log(2) / 3
    assert float(quality_loss(logits, iou, weight, torch.tensor(3.0))) == pytest.approx(want, abs=1e-4)
    assert float(decision_loss(logits, iou, weight, torch.tensor(3.0))) == pytest.approx(want)


def test_the_gradient_of_quality_pulls_towards_the_iou():
    logits = torch.tensor([-2.0, 2.0]).view(1, 1, 2, 1).requires_grad_()
    quality_loss(logits, torch.full((1, 1, 2, 1), 0.5), torch.ones(1, 1, 2, 1), ONE).backward()
    low, high = logits.grad.flatten().tolist()
    assert_close(torch.tensor([low, high]), torch.tensor([-2.0, 2.0]).sigmoid() - 0.5)


def test_no_object_divides_by_one():
    assert float(decision_loss(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), 0 * ONE)) == 0
