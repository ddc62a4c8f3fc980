"""The reference rule: the cell that boxes an object best, and a window around it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from boresight.core.boxes import SMALLEST, aligned_giou
from boresight.core.device import sent
from boresight.core.types import DenseOutput
from boresight.targets.assignment import Assignment, boxes_at, boxes_of, ordered, resolve
from boresight.targets.candidates import Candidates, MapShape, Objects


@dataclass(frozen=True)
class Radius:
    """Positive: cells around the best-overlapping cell of the object's channel, if that overlaps well enough.

    Of objects that want one box, the one that it overlaps most (GIoU) has it. The whole map of the image is searched,
    a few objects at a time: memory is a constant times H x W.

    Attributes:
        radius: cells; the Euclidean distance to the best cell.
        threshold: the best GIoU must be above, else the object has no positive cell.
    """

    by_prediction: ClassVar[bool] = True
    radius: float = 1.5
    threshold: float = 0.3

    @torch.no_grad()
    def __call__(self, output: DenseOutput, score: Tensor, objects: Objects, progress: float = 1.0) -> Assignment:
        """See :class:`boresight.targets.assignment.Assigner`."""
        shape, device = MapShape.of(output), output.logits.device
        there = objects.to(device)
        found, best_row, best_column = best_cells(output, objects, there, shape, self.threshold)
        step = sent(disc(self.radius), device)
        ends = sent(shape.ends[objects.image], device)
        row, column = best_row[:, None] + step[:, 1], best_column[:, None] + step[:, 0]
        on_map = (column >= 0) & (row >= 0) & (column < ends[:, :1]) & (row < ends[:, 1:])
        index = torch.arange(len(objects), device=device)
        candidates = Candidates(
            there,
            shape,
            index[:, None].expand_as(row).flatten(),
            torch.where(on_map, row, best_row[:, None]).flatten(),  # a step off the map is listed as no step
            torch.where(on_map, column, best_column[:, None]).flatten(),
            index * len(step),
        )
        fit = aligned_giou(boxes_at(output, candidates), candidates.wanted)
        chosen = (on_map & found[:, None]).flatten()
        return Assignment(candidates, resolve(chosen, fit, candidates.key, shape.keys))


def disc(radius: float) -> Tensor:
    """``[S, 2]`` long: steps ``(column, row)`` of Euclidean length at most ``radius``, row by row."""
    side = torch.arange(-math.floor(radius), math.floor(radius) + 1)
    row, column = torch.cartesian_prod(side, side).reshape(-1, 2).unbind(-1)
    return torch.stack((column, row), dim=-1)[row * row + column * column <= radius * radius]


def best_cells(
    output: DenseOutput, objects: Objects, there: Objects, shape: MapShape, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The cell of each object's channel whose box has the best GIoU with it.

    On a CPU only cells are measured that can pass the threshold; on a GPU all, for the host would have to wait to know
    which. Both find the same.

    Args:
        output: boxes of every class and cell.
        objects, there: the objects on the CPU and on the device of the output.
        shape: of the output.
        threshold: of the GIoU.

    Returns:
        ``[M]`` bool, whether the best is above the threshold; its row and column, ``[M]`` long (any cell if it is not).
    """
    if output.boxes.device.type == "cpu" and threshold > MARGIN:
        return best_of_possible(output, objects, shape, threshold)
    return best_of_all(output, objects, there, shape, threshold)


MARGIN = 1e-3
"""What rounding can add to a GIoU, generously."""


def best_of_possible(
    output: DenseOutput, objects: Objects, shape: MapShape, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`best_cells`. A GIoU above t needs an overlap above t of the object's width and of its height."""
    plane = objects.image if shape.shared else objects.image * shape.classes + objects.labels
    owner, cell = _possible(output, objects, shape, plane, threshold)
    columns = shape.ends[objects.image, 0].index_select(0, owner)
    row = torch.div(cell, columns, rounding_mode="floor")
    cell = row * shape.columns + cell - row * columns
    emitted = boxes_of(output, shape, plane.index_select(0, owner) * shape.cells + cell)
    giou = aligned_giou(emitted, objects.boxes.index_select(0, owner))
    claim = (ordered(giou) << 32) | (0xFFFFFFFF - cell)  # of equal cells the first
    claim = claim.masked_fill(giou <= threshold, NOBODY)
    best = torch.full((len(objects),), NOBODY).scatter_reduce_(0, owner, claim, "amax")
    cell = torch.where(best > NOBODY, 0xFFFFFFFF - (best & 0xFFFFFFFF), 0)
    row = torch.div(cell, shape.columns, rounding_mode="floor")
    return best > NOBODY, row, cell - row * shape.columns


def _possible(
    output: DenseOutput, objects: Objects, shape: MapShape, plane: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    """Pairs of an object and a cell (of its image without padding) whose box overlaps enough in x and in y.

    Plane by plane, a few objects at a time. In numpy, which compares and lists several times as fast as torch does.
    """
    low, high = objects.boxes[:, :2], objects.boxes[:, 2:]
    margin = (threshold - MARGIN) * (high - low)
    (left, top), (right, bottom) = (v.numpy().T[..., None] for v in (low + margin, high - margin))
    order = np.argsort(plane.numpy(), kind="stable")
    begins = np.flatnonzero(np.diff(plane.numpy()[order], prepend=-1)).tolist()
    boxes = output.boxes[:, :1].detach() if shape.shared else output.boxes.detach()
    ends = shape.ends.tolist()
    owners, cells = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for begin, end in pairwise([*begins, len(order)]):
        image, label = divmod(int(plane[order[begin]]), boxes.shape[1])
        columns, rows = ends[image]
        x0, y0, x1, y1 = _planes(boxes[image, label : label + 1, :rows, :columns]).numpy()
        many = max(1, 2**16 // x0.size)
        for few in (order[i : min(i + many, end)] for i in range(begin, end, many)):
            # the box reaches beyond the near edge and the far one, by the margin
            possible = (x1 > left[few]) & (x0 < right[few]) & (y1 > top[few]) & (y0 < bottom[few])
            which, cell = np.divmod(np.flatnonzero(possible), x0.size)
            owners.append(few[which])
            cells.append(cell)
    return torch.from_numpy(np.concatenate(owners)), torch.from_numpy(np.concatenate(cells))


NOBODY = torch.iinfo(torch.int64).min


def best_of_all(
    output: DenseOutput, objects: Objects, there: Objects, shape: MapShape, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`best_cells`."""
    device = output.boxes.device
    giou, at = [torch.zeros(0, device=device)], [torch.zeros(0, dtype=torch.long, device=device)]
    for chunk, planes in _chunks(output, objects, there, shape):
        best, cell = _giou(planes, there.boxes[chunk]).max(1)
        giou.append(best)
        at.append(cell)
    columns = sent(shape.ends[objects.image, 0], device)
    cell = torch.cat(at)
    row = torch.div(cell, columns, rounding_mode="floor")
    return torch.cat(giou) > threshold, row, cell - row * columns


def _chunks(output: DenseOutput, objects: Objects, there: Objects, shape: MapShape) -> Iterator[tuple[slice, Tensor]]:
    """A few objects of one image at a time, in order, with the coordinates ``[4, n or 1, L]`` of all their cells."""
    many = max(1, 2**20 // max(1, shape.cells))  # enough to fill a GPU
    begin = 0
    for image, count in enumerate(torch.bincount(objects.image, minlength=shape.images).tolist()):
        columns, rows = shape.ends[image].tolist()
        channels = output.boxes[image, :, :rows, :columns]
        shared = _planes(channels[:1]) if shape.shared and count else None
        for low in range(begin, begin + count, many):
            chunk = slice(low, min(low + many, begin + count))
            yield chunk, _planes(channels.index_select(0, there.labels[chunk])) if shared is None else shared
        begin += count


def _planes(boxes: Tensor) -> Tensor:
    """``[n, H, W, 4]`` to ``[4, n, H * W]`` float32: coordinates in planes are read without gaps."""
    return boxes.flatten(1, 2).permute(2, 0, 1).float().contiguous()


def _giou(planes: Tensor, boxes: Tensor) -> Tensor:
    """``[n, L]``: GIoU of boxes ``[n, 4]`` with planes ``[4, n or 1, L]``.

    As :func:`boresight.core.boxes.aligned_giou`, in fewer passes: the hull's width is the sum of both widths less that
    of the intersection (negative where they are apart). In-place, on its own tensors only.
    """
    x0, y0, x1, y1 = planes
    left, top, right, bottom = (v[:, None] for v in boxes.unbind(1))
    wide, high = x1 - x0, y1 - y0
    area = wide.clamp(min=0) * high.clamp(min=0)
    common_wide = torch.minimum(x1, right).sub_(torch.maximum(x0, left))
    common_high = torch.minimum(y1, bottom).sub_(torch.maximum(y0, top))
    hull = (wide + (right - left)).sub_(common_wide).mul_((high + (bottom - top)).sub_(common_high))
    inter = common_wide.clamp_(min=0).mul_(common_high.clamp_(min=0))
    union = (area + (right - left) * (bottom - top)).sub_(inter).clamp_(min=SMALLEST)
    return inter.div_(union).add_(union.div_(hull)).sub_(1)
