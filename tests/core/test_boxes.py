"""Arithmetic of aligned boxes: by hand, against torchvision, at its limits."""

from __future__ import annotations

import math

import pytest
import torch
from torchvision.ops import box_area as peer_area
from torchvision.ops import box_iou, generalized_box_iou

from boresight.core.boxes import aligned_giou, aligned_iou, box_area, boxes_from_distances, centerness, cover

FOUR = torch.tensor([0.0, 0.0, 4.0, 4.0])
DEGENERATE = {
    "point": [1.0, 1.0, 1.0, 1.0],
    "line": [0.0, 2.0, 4.0, 2.0],
    "inside out": [3.0, 3.0, 1.0, 1.0],
    "far away": [1e4, 1e4, 1e4, 1e4],
    "the same": [0.0, 0.0, 4.0, 4.0],
}


def boxes(seed: int, n: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    corner = 50 * torch.rand(n, 2, generator=random, dtype=torch.float64)
    return torch.cat((corner, corner + 1 + 40 * torch.rand(n, 2, generator=random, dtype=torch.float64)), dim=-1)


def test_by_hand():
    """4 x 4 against its right half moved 1 to the right: 2 x 4 + ... worked out below."""
    other = torch.tensor([2.0, 0.0, 6.0, 4.0])  # shares 2 x 4 = 8 of 16 + 16: union 24, hull 6 x 4 = 24
    assert float(aligned_iou(FOUR, other)) == pytest.approx(8 / 24)
    assert float(aligned_giou(FOUR, other)) == pytest.approx(8 / 24)
    apart = torch.tensor([6.0, 0.0, 8.0, 4.0])  # union 16 + 8, hull 8 x 4
    assert float(aligned_iou(FOUR, apart)) == 0
    assert float(aligned_giou(FOUR, apart)) == pytest.approx(-8 / 32)


@pytest.mark.parametrize("seed", range(10))
def test_pairs_are_the_diagonal_of_torchvision_s_table(seed):
    a, b = boxes(seed, 40), boxes(seed + 100, 40)
    assert torch.allclose(aligned_iou(a, b), box_iou(a, b).diagonal(), atol=1e-12)
    assert torch.allclose(aligned_giou(a, b), generalized_box_iou(a, b).diagonal(), atol=1e-12)
    assert torch.equal(box_area(a), peer_area(a))


def test_broadcast():
    a, b = boxes(0, 6).view(2, 3, 4), boxes(1, 3)
    assert aligned_iou(a, b).shape == (2, 3)
    assert torch.equal(aligned_giou(a, b)[1, 2], aligned_giou(a[1, 2], b[2]))


@pytest.mark.parametrize("box", DEGENERATE.values(), ids=DEGENERATE)
@pytest.mark.parametrize("function", [aligned_iou, aligned_giou])
def test_degenerate_boxes_give_finite_values_and_gradients(function, box):
    a = torch.tensor(box, requires_grad=True)
    for b in (FOUR, a.detach().clone()):
        value = function(a, b)
        (gradient,) = torch.autograd.grad(value, a)
        assert -1 <= float(value.detach()) <= 1
        assert gradient.isfinite().all()


def test_boxes_apart_pull_together():
    a = torch.tensor([20.0, 0.0, 24.0, 4.0], requires_grad=True)
    aligned_giou(a, FOUR).backward()
    assert a.grad[0] < 0  # the near edge moves towards the other box
    assert torch.equal(torch.autograd.grad(aligned_iou(a, FOUR), a)[0], torch.zeros(4))  # IoU alone says nothing


@pytest.mark.parametrize("function", [aligned_iou, aligned_giou])
def test_gradients(function):
    a, b = boxes(5, 12).requires_grad_(), boxes(6, 12)
    assert torch.autograd.gradcheck(lambda x: function(x, b), (a,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    a = torch.tensor([0.0, 0.0, 512.0, 512.0], dtype=dtype)  # an area of 262144 is beyond float16
    assert aligned_iou(a, a).dtype == torch.float32
    assert float(aligned_giou(a, a)) == 1.0
    assert float(cover(a[None], a[None])) == 1.0


def test_centerness_by_hand():
    box = torch.tensor([0.0, 0.0, 8.0, 4.0])
    xy = torch.tensor([[4.0, 2.0], [2.0, 2.0], [2.0, 1.0], [0.0, 2.0], [9.0, 2.0]])
    want = [1.0, math.sqrt(1 / 3), math.sqrt(1 / 3 * 1 / 3), 0.0, 0.0]
    assert centerness(box, xy).tolist() == pytest.approx(want)


def test_cover_is_a_share_of_the_first():
    crowd = torch.tensor([[0.0, 0.0, 100.0, 100.0], [2.0, 0.0, 4.0, 4.0]])
    assert cover(torch.stack((FOUR, torch.zeros(4))), crowd).tolist() == [[1.0, 0.5], [0.0, 0.0]]
    assert cover(FOUR[None], crowd[:0]).shape == (1, 0)


def test_boxes_from_distances():
    made = boxes_from_distances(torch.tensor([10.0, 20.0]), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert made.tolist() == [9.0, 18.0, 13.0, 24.0]
