import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.core.boxes import aligned_iou
from boresight.targets.jitter import CLOSE, jitter

SIZE = (120, 160)


def boxes_in(count: int, seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    side = 1 + 60 * torch.rand(count, 2, generator=random)
    corner = (torch.tensor([160.0, 120.0]) - side) * torch.rand(count, 2, generator=random)
    return torch.cat((corner, corner + side), dim=-1)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.02, 1.0))
def test_a_moved_box_overlaps_as_much_as_was_asked(seed, iou):
    boxes = boxes_in(20, seed)
    moved = jitter(boxes, torch.full((20,), iou), torch.Generator().manual_seed(seed), size=SIZE)
    assert float((aligned_iou(moved, boxes) - iou).abs().max()) <= CLOSE
    assert (moved[:, 2:] > moved[:, :2]).all()
    assert (moved >= 0).all()
    assert (moved <= torch.tensor([160.0, 120.0, 160.0, 120.0])).all()


def test_free_of_a_border_the_overlap_is_exact():
    boxes, iou = boxes_in(200, 1), torch.linspace(0.05, 0.999, 200)
    moved = jitter(boxes, iou, torch.Generator().manual_seed(0))
    assert float((aligned_iou(moved.double(), boxes.double()) - iou).abs().max()) < 1e-4


def test_an_overlap_of_one_leaves_the_box_as_it_is():
    boxes = boxes_in(5, 2)
    assert torch.equal(jitter(boxes, torch.ones(5), torch.Generator().manual_seed(0)), boxes)


def test_a_box_that_fills_its_image_can_still_be_moved():
    whole = torch.tensor([[0.0, 0.0, 160.0, 120.0]]).expand(30, 4)
    moved = jitter(whole, torch.full((30,), 0.3), torch.Generator().manual_seed(0), size=SIZE)
    assert float((aligned_iou(moved, whole) - 0.3).abs().max()) <= CLOSE


def test_where_no_direction_drawn_will_do_the_box_shrinks():
    whole = torch.tensor([[0.0, 0.0, 160.0, 120.0]])
    moved = jitter(whole, torch.tensor([0.05]), torch.Generator().manual_seed(0), size=SIZE, attempts=0)
    assert float(aligned_iou(moved, whole)) == pytest.approx(0.05, abs=CLOSE)


def test_boxes_are_shifted_and_change_their_size():
    boxes = torch.tensor([[50.0, 50.0, 70.0, 70.0]]).expand(400, 4)
    moved = jitter(boxes, torch.full((400,), 0.6), torch.Generator().manual_seed(0))
    centre, side = (moved[:, :2] + moved[:, 2:]) / 2, moved[:, 2:] - moved[:, :2]
    assert float(centre.std(0).min()) > 1.0
    assert float(side.std(0).min()) > 1.0
    assert (centre.mean(0) - 60).abs().max() < 0.5  # no direction is preferred


def test_the_same_generator_gives_the_same_boxes():
    boxes, iou = boxes_in(5, 3), torch.full((5,), 0.5)
    one, two, other = (jitter(boxes, iou, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_no_box_is_no_box():
    assert jitter(torch.zeros(0, 4), torch.zeros(0), torch.Generator()).shape == (0, 4)


@pytest.mark.parametrize(
    ("boxes", "iou", "words"),
    [
        ([[0.0, 0.0, 1.0, 1.0]], [0.0], "must lie in"),
        ([[0.0, 0.0, 1.0, 1.0]], [1.1], "must lie in"),
        ([[0.0, 0.0, 0.0, 1.0]], [0.5], "without area"),
        ([[0.0, 0.0, 1.0, 1.0]], [0.5, 0.5], "one IoU a box"),
    ],
)
def test_what_cannot_be_moved_is_refused(boxes, iou, words):
    with pytest.raises(ValueError, match=words):
        jitter(torch.tensor(boxes), torch.tensor(iou), torch.Generator())
