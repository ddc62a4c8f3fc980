import pytest
import torch
from torch.testing import assert_close

from boresight.core.relative import (
    absolute,
    enlarged,
    ordered,
    relative,
    turned_boxes,
    turned_maps,
    upright_boxes,
    upright_edges,
)

TURNS = torch.arange(8)


def random_boxes(count: int, seed: int = 0) -> torch.Tensor:
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(seed))
    return torch.cat((corners.amin(1), corners.amax(1)), dim=-1)


def test_a_window_is_as_much_larger_as_was_asked_and_never_below_the_least():
    boxes = torch.tensor([[10.0, 20.0, 30.0, 24.0]])
    assert_close(enlarged(boxes, 2.0), torch.tensor([[0.0, 18.0, 40.0, 26.0]]))
    assert_close(enlarged(boxes, 2.0, least=12.0), torch.tensor([[0.0, 16.0, 40.0, 28.0]]))


def test_a_box_without_area_has_a_window_with_area():
    window = enlarged(torch.tensor([[5.0, 5.0, 5.0, 5.0]]), 2.0, least=4.0)
    assert_close(window, torch.tensor([[3.0, 3.0, 7.0, 7.0]]))
    assert relative(torch.tensor([[5.0, 5.0, 5.0, 5.0]]), window).isfinite().all()


def test_relative_by_hand_and_back():
    window = torch.tensor([[10.0, 20.0, 50.0, 40.0]])
    shares = relative(torch.tensor([[20.0, 25.0, 50.0, 40.0]]), window)
    assert_close(shares, torch.tensor([[0.25, 0.25, 1.0, 1.0]]))
    assert_close(absolute(shares, window), torch.tensor([[20.0, 25.0, 50.0, 40.0]]))


def test_a_box_turned_inside_out_is_turned_back_with_a_gradient():
    boxes = torch.tensor([[5.0, 1.0, 3.0, 2.0]], requires_grad=True)
    assert_close(ordered(boxes), torch.tensor([[3.0, 1.0, 5.0, 2.0]]))
    (ordered(boxes) * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert_close(boxes.grad, torch.tensor([[3.0, 2.0, 1.0, 4.0]]))


@pytest.mark.parametrize("turn", range(8))
def test_maps_and_boxes_turn_together(turn):
    """A bright rectangle on a map lies, after the turn, where its box says."""
    grid = 8
    image = torch.zeros(1, 1, grid, grid)
    image[..., 2:4, 1:6] = 1  # rows 2..4, columns 1..6
    box = torch.tensor([[1.0, 2.0, 6.0, 4.0]]) / grid
    code = torch.tensor([turn])
    x0, y0, x1, y1 = (turned_boxes(box, code)[0] * grid).round().long().tolist()
    want = torch.zeros(1, 1, grid, grid)
    want[..., y0:y1, x0:x1] = 1
    assert torch.equal(turned_maps(image, code), want)


def test_the_eight_orientations_differ():
    image = torch.arange(9.0).view(1, 3, 3).expand(8, 3, 3)
    assert len({tuple(m.flatten().tolist()) for m in turned_maps(image, TURNS)}) == 8


def test_upright_is_the_inverse_of_turned():
    boxes = random_boxes(8)
    assert_close(upright_boxes(turned_boxes(boxes, TURNS), TURNS), boxes)


@pytest.mark.parametrize("turn", range(8))
def test_the_places_of_edges_turn_with_their_box(turn):
    """Numbers that peak at the edges of the turned box peak at those of the upright one."""
    bins, code = 50, torch.tensor([turn])
    box = torch.tensor([[0.11, 0.23, 0.57, 0.91]])
    places = (torch.arange(bins) + 0.5) / bins
    peaks = -(turned_boxes(box, code)[..., None] - places).abs()
    found = places[upright_edges(peaks, code).argmax(-1)]
    assert_close(found, box, atol=0.5 / bins + 1e-6, rtol=0)
