"""From cells to one number, and the loss of places."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from boresight.losses.reduce import reduce_cells
from boresight.losses.regression import offset_l1

LOSS = torch.tensor([[1.0, 2.0], [4.0, 100.0]])
COUNTED = torch.tensor([[True, True], [True, False]])


@pytest.mark.parametrize(
    ("per", "objects", "want"), [("objects", 2.0, 3.5), ("cells", 2.0, 7 / 3), ("objects", 0.0, 7.0)]
)
def test_by_hand(per, objects, want):
    """Sum 7 over three counted cells; the fourth is unknown. Without an object the sum is divided by 1."""
    assert float(reduce_cells(LOSS, COUNTED, torch.tensor(objects), per)) == pytest.approx(want)


@pytest.mark.parametrize("per", ["objects", "cells"])
def test_nothing_counted_is_zero(per):
    assert float(reduce_cells(LOSS, torch.zeros_like(COUNTED), torch.tensor(0.0), per)) == 0.0
    assert float(reduce_cells(LOSS[:0], COUNTED[:0], torch.tensor(0.0), per)) == 0.0


@pytest.mark.parametrize("per", ["objects", "cells"])
def test_an_uncounted_cell_gets_no_gradient_and_may_even_be_infinite(per):
    loss = torch.tensor([1.0, torch.inf], requires_grad=True)
    total = reduce_cells(loss, torch.tensor([True, False]), torch.tensor(1.0), per)
    total.backward()
    assert float(total.detach()) == 1.0
    assert loss.grad.tolist() == [1.0, 0.0]


@given(st.integers(1, 5), st.integers(1, 9))
def test_more_background_drowns_objects_only_when_divided_by_cells(objects, times):
    """The reference failure: an object's share of the loss shrinks as the frame grows."""
    cell = torch.cat((torch.full((objects,), 3.0), torch.zeros(10 * times)))
    counted, normaliser = torch.ones_like(cell, dtype=torch.bool), torch.tensor(float(objects))
    assert float(reduce_cells(cell, counted, normaliser)) == pytest.approx(3.0)
    assert float(reduce_cells(cell, counted, normaliser, "cells")) == pytest.approx(
        3 * objects / (objects + 10 * times)
    )


def test_offset_l1_by_hand():
    """Stride 4: 2 px right and 1 px up are three quarters of a cell."""
    assert offset_l1(torch.tensor([[10.0, 5.0]]), torch.tensor([[8.0, 6.0]]), 4.0).tolist() == [0.75]


def test_offset_l1_gradient():
    have = torch.tensor([[10.0, 5.0], [0.3, 7.0]], dtype=torch.float64, requires_grad=True)
    want = torch.tensor([[8.0, 6.0], [0.0, 9.0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: offset_l1(x, want, 4.0), (have,))


@given(st.floats(1, 16), st.floats(-9, 9), st.floats(-9, 9))
def test_offset_l1_has_no_unit(scale, dx, dy):
    """An image twice as large with cells twice as large has the same loss."""
    a, b = torch.tensor([[dx, dy]]), torch.zeros(1, 2)
    assert torch.allclose(offset_l1(a * scale, b * scale, 4 * scale), offset_l1(a, b, 4.0), rtol=1e-5, atol=1e-6)


def test_a_share_of_an_object_is_not_rounded_up():
    """One object in two processes: each divides by a half, and their mean is what one process would compute."""
    cell, counted = torch.tensor([4.0]), torch.tensor([True])
    halves = [reduce_cells(cell, counted, torch.tensor(0.5)), reduce_cells(cell * 0, counted, torch.tensor(0.5))]
    assert float(torch.stack(halves).mean()) == float(reduce_cells(cell, counted, torch.tensor(1.0))) == 4.0
