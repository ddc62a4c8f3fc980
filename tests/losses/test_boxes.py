"""Box losses: by hand, which cells count, gradients, both ways to visit the cells."""

from __future__ import annotations

import pytest
import torch

from boresight.core.types import DenseTargets
from boresight.losses import boxes as b


def targets(matched, objects, *, ignore=None, normaliser=None):
    matched = torch.tensor(matched).view(1, 1, 2, 2)
    objects = torch.tensor(objects, dtype=torch.float64).reshape(-1, 4)
    ignore = torch.zeros(4, dtype=torch.bool) if ignore is None else torch.tensor(ignore)
    return DenseTargets(
        positive=matched >= 0,
        matched=matched,
        score=torch.tensor([1.0, 0.5, 0.25, 0.0]).view(1, 1, 2, 2),
        ignore=ignore.view(1, 1, 2, 2),
        objects=objects,
        labels=torch.zeros(len(objects), dtype=torch.long),
        counted=torch.ones(len(objects), dtype=torch.bool),
        normaliser=torch.tensor(float(len(objects) if normaliser is None else normaliser)),
    )


def emitted():
    """IoU 1/2 with the first object, apart from it, the second object exactly, anything."""
    rows = [[0.0, 0.0, 4.0, 2.0], [8.0, 0.0, 12.0, 4.0], [10.0, 10.0, 20.0, 14.0], [float("inf"), 0.0, 1.0, 1.0]]
    return torch.tensor(rows).view(1, 1, 2, 2, 4)


OBJECTS = [[0.0, 0.0, 4.0, 4.0], [10.0, 10.0, 20.0, 14.0]]
both_ways = pytest.mark.parametrize("all_cells", [False, True], ids=["matched cells", "all cells"])


@pytest.fixture
def visit(request, monkeypatch):
    """All cells, as on a GPU, or the matched ones, as on a CPU."""
    if request.getfixturevalue("all_cells"):
        monkeypatch.setattr(b, "cells_to_visit", lambda taught: torch.arange(len(taught)))


def test_l1_is_relative_to_the_wanted_box():
    """2 px of 10 in x and 1 px of 4 in y."""
    wanted = torch.tensor([10.0, 10.0, 20.0, 14.0])
    assert float(b.box_l1(wanted + torch.tensor([2.0, 0, 0, -1.0]), wanted)) == pytest.approx(0.2 + 0.25)
    assert float(b.box_l1(10 * wanted + torch.tensor([20.0, 0, 0, -10.0]), 10 * wanted)) == pytest.approx(0.45)


def test_giou_loss_by_hand():
    wanted = torch.tensor(OBJECTS[0]).expand(2, 4)
    assert b.box_giou(emitted().view(-1, 4)[:2], wanted).tolist() == pytest.approx([0.5, 1 + 16 / 48])


@both_ways
@pytest.mark.usefixtures("visit")
def test_sum_over_cells_over_objects(all_cells):
    """Cells 0 and 1 learn the first object (L1 .5 and 4, GIoU loss .5 and 4/3), cell 2 the second exactly."""
    t = targets([0, 0, 1, -1], OBJECTS)
    l1, giou = b.box_loss(emitted(), t)
    assert [float(l1), float(giou)] == pytest.approx([4.5 / 2, (0.5 + 4 / 3) / 2])
    l1, giou = b.box_loss(emitted(), t, weight=t.score)
    assert [float(l1), float(giou)] == pytest.approx([(0.5 + 2) / 2, (0.5 + 2 / 3) / 2])
    l1, giou = b.box_loss(emitted(), t, per="objects")
    assert [float(l1), float(giou)] == pytest.approx([4.5 / 4, (0.5 + 4 / 3) / 4])


@both_ways
@pytest.mark.usefixtures("visit")
def test_ignored_cells_and_cells_without_an_object_do_not_count(all_cells):
    boxes = emitted().requires_grad_()
    l1, giou = b.box_loss(boxes, targets([0, 0, 1, -1], OBJECTS, ignore=[False, True, False, False]))
    assert [l1.item(), giou.item()] == pytest.approx([0.25, 0.25])
    (l1 + giou).backward()
    assert boxes.grad.isfinite().all()  # the fourth cell's box is infinite
    assert boxes.grad[0, 0, 0, 1].eq(0).all()
    assert boxes.grad[0, 0, 1, 1].eq(0).all()
    assert boxes.grad[0, 0, 0, 0].ne(0).any()


@both_ways
@pytest.mark.usefixtures("visit")
@pytest.mark.parametrize("per", ["cells", "objects"])
def test_gradients_are_those_of_the_loss(all_cells, per):
    t = targets([0, 1, 1, -1], OBJECTS)
    random = torch.Generator().manual_seed(1)
    boxes = torch.tensor(OBJECTS[0]).double() + torch.randn(1, 1, 2, 2, 4, generator=random, dtype=torch.float64)

    def total(x):
        l1, giou = b.box_loss(x, t, weight=t.score, per=per)
        return l1 + 2 * giou

    # the loss computes in float32: a wide step, and a tolerance to match
    assert torch.autograd.gradcheck(total, (boxes.requires_grad_(),), eps=1e-3, atol=2e-3, rtol=1e-2)


@both_ways
@pytest.mark.usefixtures("visit")
def test_degenerate_boxes_have_finite_gradients(all_cells):
    rows = [[1.0, 1.0, 1.0, 1.0], [3.0, 3.0, 1.0, 1.0], [1e6, 1e6, 1e6, 1e6], [0.0, 2.0, 4.0, 2.0]]
    boxes = torch.tensor(rows).view(1, 1, 2, 2, 4).requires_grad_()
    l1, giou = b.box_loss(boxes, targets([0, 0, 0, 0], OBJECTS))
    (l1 + giou).backward()
    assert l1.isfinite()
    assert giou.isfinite()
    assert boxes.grad.isfinite().all()


@both_ways
@pytest.mark.usefixtures("visit")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_boxes(all_cells, dtype):
    low = emitted().to(dtype)
    for a, c in zip(b.box_loss(low, targets([0, 0, 1, -1], OBJECTS)), (2.25, (0.5 + 4 / 3) / 2), strict=True):
        assert float(a) == pytest.approx(c)


@both_ways
@pytest.mark.usefixtures("visit")
def test_nothing_to_box_has_a_loss_of_zero_and_a_gradient(all_cells):
    for t in (targets([-1] * 4, []), targets([-1] * 4, OBJECTS), targets([-1] * 4, OBJECTS, normaliser=0)):
        boxes = torch.zeros(1, 1, 2, 2, 4, requires_grad=True)
        l1, giou = b.box_loss(boxes, t)
        (l1 + giou).backward()
        assert l1.item() == giou.item() == 0
        assert boxes.grad.eq(0).all()


@both_ways
@pytest.mark.usefixtures("visit")
def test_boxes_shared_by_classes_collect_the_gradient_of_all(all_cells):
    """Three classes look at one box: as if each had its own copy."""
    random = torch.Generator().manual_seed(2)
    one = (10 * torch.rand(2, 1, 3, 4, 4, generator=random)).requires_grad_()
    matched = torch.randint(-1, 2, (2, 3, 3, 4), generator=random)
    zero = torch.zeros_like(matched)
    parts = {"labels": torch.zeros(2).long(), "counted": torch.ones(2).bool(), "normaliser": torch.tensor(2.0)}
    t = DenseTargets(matched >= 0, matched, zero.float(), zero.bool(), torch.tensor(OBJECTS), **parts)
    gradients = []
    for boxes in (one.expand(2, 3, 3, 4, 4), one.repeat(1, 3, 1, 1, 1)):
        l1, giou = b.box_loss(boxes, t)
        gradients.append(torch.autograd.grad(l1 + giou, one)[0])
    assert torch.allclose(*gradients, atol=1e-6)
    assert gradients[0].ne(0).any()
