"""Which cells may stand for which object, from geometry alone.

Truth is known to the host, and so is where cells lie. Candidates are therefore enumerated on the CPU, where their
number is plain, and then sent to the device: nothing that a GPU computed has to be waited for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from boresight.core.grid import nearest_cell, pixel_to_cell
from boresight.targets.candidates import Candidates, MapShape, Objects

Ranges = tuple[Tensor, Tensor]
"""First and last ``(column, row)`` of each object, ``[M, 2]`` long each; empty where the last is before the first."""


def _checked(objects: Objects, shape: MapShape) -> None:
    if objects.images != shape.images:
        raise ValueError(f"the output has {shape.images} images, the truth {objects.images}")


def _between(low: Tensor, high: Tensor, objects: Objects, shape: MapShape) -> Ranges:
    """Cells strictly between real cell coordinates, on the map."""
    last = shape.ends[objects.image] - 1
    return (low.floor().long() + 1).clamp(min=0), (high.ceil().long() - 1).minimum(last)


def box_ranges(objects: Objects, shape: MapShape) -> Ranges:
    """Cells whose centre lies in the object's box."""
    _checked(objects, shape)
    edges = pixel_to_cell(objects.boxes.double(), shape.stride)
    return _between(edges[:, :2], edges[:, 2:], objects, shape)


def centres(objects: Objects, shape: MapShape) -> Tensor:
    """``[M, 2]`` float64: the objects' centres in the cell frame."""
    boxes = objects.boxes.double()
    return pixel_to_cell((boxes[:, :2] + boxes[:, 2:]) / 2, shape.stride)


def centre_ranges(objects: Objects, shape: MapShape, reach: float) -> Ranges:
    """Cells whose centre lies less than ``reach`` strides, in x and in y, from the object's."""
    _checked(objects, shape)
    middle = centres(objects, shape)
    return _between(middle - reach, middle + reach, objects, shape)


def nearest_cells(objects: Objects, shape: MapShape) -> Tensor:
    """``[M, 2]`` long ``(column, row)``: the cell of its image nearest to each object's centre."""
    near = nearest_cell(centres(objects, shape), shape.rows, shape.columns)
    return near.minimum(shape.ends[objects.image] - 1)


def or_nearest(ranges: Ranges, objects: Objects, shape: MapShape) -> Ranges:
    """The ranges, with the nearest cell in the place of those that are empty: a small object gets one too."""
    first, last = ranges
    empty = (last < first).any(-1, keepdim=True)
    if not bool(empty.any()):
        return ranges
    near = nearest_cells(objects, shape)
    return torch.where(empty, near, first), torch.where(empty, near, last)


def rectangles(objects: Objects, shape: MapShape, ranges: Ranges) -> Candidates:
    """All cells of the ranges, row by row."""
    first, last = ranges
    wide, high = (last - first + 1).clamp(min=0).unbind(-1)
    owner = torch.repeat_interleave(high, output_size=int(high.sum()))
    row = torch.arange(len(owner)) - (high.cumsum(0) - high - first[:, 1]).index_select(0, owner)
    return runs(objects, shape, owner, row, first[:, 0].index_select(0, owner), wide.index_select(0, owner))


def runs(objects: Objects, shape: MapShape, owner: Tensor, row: Tensor, first: Tensor, wide: Tensor) -> Candidates:
    """Candidates from rows of cells: ``wide`` cells from column ``first`` of ``row``, for ``owner`` (ascending)."""
    begin = wide.cumsum(0) - wide
    run = torch.repeat_interleave(wide, output_size=int(wide.sum()))
    place = torch.arange(len(run)) + (first - begin).index_select(0, run)
    count = torch.zeros(len(objects), dtype=torch.long).scatter_add_(0, owner, wide)
    return Candidates(
        objects,
        shape,
        owner.index_select(0, run),
        row.index_select(0, run),
        place,
        count.cumsum(0) - count,
    )


def cells_inside(objects: Objects, shape: MapShape, reach: float | None = None, *, always: bool = True) -> Candidates:
    """The cells whose centre lies in each object's box, on the CPU.

    Args:
        objects: on the CPU.
        shape: the map.
        reach: only cells less than so many strides, in x and in y, from the object's centre.
        always: an object that holds no cell's centre gets the nearest cell.
    """
    first, last = box_ranges(objects, shape)
    if reach is not None:
        near, far = centre_ranges(objects, shape, reach)
        first, last = first.maximum(near), last.minimum(far)
    return rectangles(objects, shape, or_nearest((first, last), objects, shape) if always else (first, last))
