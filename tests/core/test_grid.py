from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from boresight.core import grid

STRIDES = st.sampled_from([1, 2, 4, 8, 16, 32])
PIXELS = st.lists(st.floats(-64, 8192, width=32), min_size=2, max_size=40).map(
    lambda v: torch.tensor(v[: len(v) // 2 * 2])
)
SHAPES = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4)


# By hand. At stride 4 cell 0 covers pixels 0..4: its centre is x = 2, its left edge half a cell before that.
@pytest.mark.parametrize(
    ("x", "stride", "u"), [(2.0, 4, 0.0), (0.0, 4, -0.5), (4.0, 4, 0.5), (6.0, 4, 1.0), (0.5, 1, 0.0), (11.0, 2, 5.0)]
)
def test_pixel_to_cell_by_hand(x, stride, u):
    assert grid.pixel_to_cell(torch.tensor([x]), stride).tolist() == [u]
    assert grid.cell_to_pixel(torch.tensor([u]), stride).tolist() == [x]


def test_a_pixel_index_lies_half_a_pixel_before_its_centre():
    assert grid.index_to_pixel(torch.tensor([0.0, 7.0])).tolist() == [0.5, 7.5]
    assert grid.pixel_to_index(torch.tensor([0.5, 7.5])).tolist() == [0.0, 7.0]


@given(PIXELS, STRIDES)
def test_round_trip_in_float32(xy, stride):
    there_and_back = grid.cell_to_pixel(grid.pixel_to_cell(xy, stride), stride)
    assert (there_and_back - xy).abs().max() < 1e-4


@given(PIXELS, st.floats(0.3, 64))
def test_round_trip_for_any_stride(xy, stride):
    exact = xy.double()
    assert (grid.cell_to_pixel(grid.pixel_to_cell(exact, stride), stride) - exact).abs().max() < 1e-9


@given(PIXELS, STRIDES)
def test_pixel_indices_follow_the_published_formula(index, stride):
    """``u = (i + 0.5) / s - 0.5`` for an array index ``i``."""
    index = index.double()
    u = grid.pixel_to_cell(grid.index_to_pixel(index), stride)
    assert torch.allclose(u, (index + 0.5) / stride - 0.5, rtol=0, atol=1e-9)


@given(PIXELS, STRIDES, st.integers(1, 200))
def test_flipping_pixels_is_flipping_cells(x, stride, columns):
    x, width = x.double(), columns * stride
    flipped = grid.pixel_to_cell(width - x, stride)
    assert torch.allclose(flipped, columns - 1 - grid.pixel_to_cell(x, stride), rtol=0, atol=1e-9)


@given(PIXELS, STRIDES, st.integers(0, 50))
def test_cropping_whole_cells_shifts_cells(x, stride, cut):
    x = x.double()
    shifted = grid.pixel_to_cell(x - cut * stride, stride)
    assert torch.allclose(shifted, grid.pixel_to_cell(x, stride) - cut, rtol=0, atol=1e-9)


@given(PIXELS, STRIDES, st.floats(0.25, 4))
def test_resizing_image_and_stride_alike_changes_no_cell(x, stride, factor):
    x = x.double()
    resized = grid.pixel_to_cell(x * factor, stride * factor)
    assert torch.allclose(resized, grid.pixel_to_cell(x, stride), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("image", "stride", "cells"),
    [
        ((480, 640), 4, (120, 160)),
        ((481, 641), 4, (121, 161)),
        ((3, 5), 4, (1, 2)),
        ((7, 9), 1, (7, 9)),
        ((0, 8), 8, (0, 1)),
    ],
)
def test_grid_size_covers_the_image(image, stride, cells):
    assert grid.grid_size(*image, stride) == cells


def test_cell_centres_by_hand():
    centres = grid.cell_centres(2, 3, 4)
    assert centres.dtype == torch.float32
    assert centres[..., 0].tolist() == [[2, 6, 10], [2, 6, 10]]
    assert centres[..., 1].tolist() == [[2, 2, 2], [6, 6, 6]]


@given(st.integers(1, 30), st.integers(1, 30), STRIDES)
def test_cell_centres_lie_on_whole_cells_and_mirror(rows, columns, stride):
    centres = grid.cell_centres(rows, columns, stride)
    cells = grid.pixel_to_cell(centres, stride)
    assert cells[..., 0].tolist() == [list(range(columns))] * rows
    assert cells[..., 1].tolist() == [[row] * columns for row in range(rows)]
    assert torch.equal(centres.flip(1)[..., 0], columns * stride - centres[..., 0])
    assert torch.equal(centres.flip(0)[..., 1], rows * stride - centres[..., 1])


# Halfway goes to the higher cell, for odd and even neighbours alike; 2.5 and -0.5 are where `round` would differ.
@pytest.mark.parametrize(
    ("u", "cell"),
    [(0.5, 1), (1.5, 2), (2.5, 3), (-0.5, 0), (1.4999, 1), (-0.51, 0), (-40.0, 0), (6.49, 6), (6.5, 6), (99.0, 6)],
)
def test_nearest_cell_rounds_half_up_and_clips(u, cell):
    wide = grid.nearest_cell(torch.tensor([u, 0.0]), rows=2, columns=7)
    tall = grid.nearest_cell(torch.tensor([0.0, u]), rows=7, columns=2)
    assert wide.dtype == torch.long
    assert wide.tolist() == [cell, 0]
    assert tall.tolist() == [0, cell]


@given(st.integers(0, 99), st.integers(0, 59), STRIDES, st.integers(0, 15), st.integers(0, 15))
def test_every_pixel_of_a_cell_is_nearest_to_it(column, row, stride, part_x, part_y):
    xy = torch.tensor([(column + part_x / 16) * stride, (row + part_y / 16) * stride])
    assert grid.nearest_cell(grid.pixel_to_cell(xy, stride), rows=60, columns=100).tolist() == [column, row]


def test_nothing_in_nothing_out():
    none = torch.empty(0, 2)
    assert grid.pixel_to_cell(none, 4).shape == (0, 2)
    assert grid.nearest_cell(none, 3, 3).shape == (0, 2)
    assert [part.shape for part in grid.unravel_cell(none[:, 0].long(), [(1, 3, 3)])] == [(0,)] * 4


def test_flat_cell_by_hand():
    """Two levels, ``[2, 3, 4]`` and ``[2, 2, 2]``: cell (class 1, row 2, column 3) is the last of the first."""
    at = [torch.tensor(v) for v in (1, 2, 3)]
    assert int(grid.flat_cell(0, *at, shape=(2, 3, 4))) == 23
    at = [torch.tensor(v) for v in (1, 0, 1)]
    assert int(grid.flat_cell(24, *at, shape=(2, 2, 2))) == 24 + 4 + 1
    level, label, row, column = grid.unravel_cell(torch.tensor([0, 23, 24, 29]), [(2, 3, 4), (2, 2, 2)])
    assert level.tolist() == [0, 0, 1, 1]
    assert label.tolist() == [0, 1, 0, 1]
    assert row.tolist() == [0, 2, 0, 0]
    assert column.tolist() == [0, 3, 0, 1]


@given(SHAPES)
def test_flat_cell_is_the_place_in_the_flattened_outputs_and_unravel_is_its_inverse(shapes):
    sizes = [math.prod(shape) for shape in shapes]
    for index, shape in enumerate(shapes):
        before = sum(sizes[:index])
        label, row, column = (
            axis.flatten() for axis in torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij")
        )
        flat = grid.flat_cell(before, label, row, column, shape)
        assert flat.tolist() == list(range(before, before + sizes[index]))
        level, *rest = grid.unravel_cell(flat, shapes)
        assert level.tolist() == [index] * sizes[index]
        assert all(torch.equal(got, want) for got, want in zip(rest, (label, row, column), strict=True))


@given(SHAPES, st.randoms(use_true_random=False))
def test_unravel_keeps_shape_and_order(shapes, random):
    total = sum(math.prod(shape) for shape in shapes)
    cell = torch.tensor([random.randrange(total) for _ in range(6)]).reshape(2, 3)
    parts = grid.unravel_cell(cell, shapes)
    before = [sum(math.prod(s) for s in shapes[:k]) for k in range(len(shapes))]
    for at in ((i, j) for i in range(2) for j in range(3)):
        level, label, row, column = (part[at] for part in parts)
        assert grid.flat_cell(before[int(level)], label, row, column, shapes[int(level)]) == cell[at]
    assert all(part.dtype == torch.long and part.shape == (2, 3) for part in parts)


@pytest.mark.parametrize(("cell", "shown"), [([3, -1], "-1..3"), ([0, 32], "0..32"), ([1000], "1000..1000")])
def test_a_cell_outside_all_levels_is_an_error_that_shows_it(cell, shown):
    with pytest.raises(ValueError, match=r"outside 0\.\.31: " + shown.replace(".", r"\.")):
        grid.unravel_cell(torch.tensor(cell), [(2, 3, 4), (2, 2, 2)])


@pytest.mark.parametrize(
    "call",
    [
        lambda t: grid.index_to_pixel(t),
        lambda t: grid.pixel_to_index(t),
        lambda t: grid.pixel_to_cell(t, 4),
        lambda t: grid.cell_to_pixel(t, 4),
        lambda t: grid.nearest_cell(t, 5, 6),
        lambda t: grid.unravel_cell(t.long().abs(), [(1, 100, 100)]),
    ],
)
def test_inputs_are_left_as_they_were(call):
    given_xy = torch.tensor([[3.25, -7.5], [10.0, 2.5]])
    copy = given_xy.clone()
    call(given_xy)
    assert torch.equal(given_xy, copy)
