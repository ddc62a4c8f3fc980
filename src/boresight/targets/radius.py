"""The reference rule: the cell that boxes an object best, and a window around it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from boresight.core.boxes import SMALLEST, aligned_giou
from boresight.core.types import DenseOutput
from boresight.targets.assignment import Assignment, boxes_at, resolve
from boresight.targets.candidates import Candidates, MapShape, Objects
from boresight.targets.cells import nearest_cells


@dataclass(frozen=True)
class Radius:
    """Positive: cells around the best-overlapping cell of the object's channel, if that overlaps well enough.

    Of objects that want one box, the one that it overlaps most (GIoU) has it. The whole map of the image is searched,
    a few objects at a time: memory is a constant times H x W.

    Attributes:
        radius: cells; the Euclidean distance to the best cell.
        threshold: the best GIoU must be above, else the object has no positive cell.
    """

    radius: float = 1.5
    threshold: float = 0.3

    @torch.no_grad()
    def __call__(self, output: DenseOutput, score: Tensor, objects: Objects, progress: float = 1.0) -> Assignment:
        """See :class:`boresight.targets.assignment.Assigner`."""
        shape, device = MapShape.of(output), output.logits.device
        there = objects.to(device)
        giou, column, row = best_cells(output, objects, there, shape)
        step = disc(self.radius).to(device, non_blocking=True)
        ends = shape.ends[objects.image].to(device, non_blocking=True)
        columns, rows = column[:, None] + step[:, 0], row[:, None] + step[:, 1]
        on_map = (columns >= 0) & (rows >= 0) & (columns < ends[:, :1]) & (rows < ends[:, 1:])
        best = (row * shape.columns + column)[:, None]
        cell = torch.where(on_map, rows * shape.columns + columns, best)
        near_column, near_row = nearest_cells(objects, shape).to(device, non_blocking=True).unbind(-1)
        index = torch.arange(len(objects), device=device)
        candidates = Candidates(
            there,
            shape,
            index[:, None].expand_as(cell).flatten(),
            cell.flatten(),
            index * len(step),
            near_row * shape.columns + near_column,
        )
        chosen = (on_map & (giou > self.threshold)[:, None]).flatten()
        fit = aligned_giou(boxes_at(output, candidates), candidates.wanted)
        return Assignment(candidates, resolve(chosen, fit, candidates.key, shape.keys))


def disc(radius: float) -> Tensor:
    """``[S, 2]`` long: steps ``(column, row)`` of Euclidean length at most ``radius``, row by row."""
    side = torch.arange(-math.floor(radius), math.floor(radius) + 1)
    row, column = torch.cartesian_prod(side, side).reshape(-1, 2).unbind(-1)
    return torch.stack((column, row), dim=-1)[row * row + column * column <= radius * radius]


def best_cells(output: DenseOutput, objects: Objects, there: Objects, shape: MapShape) -> tuple[Tensor, Tensor, Tensor]:
    """GIoU, column and row, ``[M]`` each, of the cell in each object's channel that overlaps it best.

    ``there`` is ``objects`` on the device of the output.
    """
    boxes, device = output.boxes, output.boxes.device
    many = 8 if device.type == "cpu" else 64  # few enough to stay in a core's cache; enough to fill a GPU
    found, at = [torch.zeros(0, device=device)], [torch.zeros(0, dtype=torch.long, device=device)]
    wide = [torch.zeros(0, dtype=torch.long)]
    begin = 0
    for image, count in enumerate(torch.bincount(objects.image, minlength=shape.images).tolist()):
        columns, rows = shape.ends[image].tolist()
        channels = boxes[image, :, :rows, :columns]
        shared = _planes(channels[:1]) if shape.shared and count else None
        for low in range(begin, begin + count, many):
            chunk = slice(low, min(low + many, begin + count))
            planes = _planes(channels.index_select(0, there.labels[chunk])) if shared is None else shared
            best, cell = _giou(planes, there.boxes[chunk]).max(1)
            found.append(best)
            at.append(cell)
        wide.append(torch.full((count,), columns))
        begin += count
    columns_of = torch.cat(wide).to(device, non_blocking=True)
    cell = torch.cat(at)
    row = torch.div(cell, columns_of, rounding_mode="floor")
    return torch.cat(found), cell - row * columns_of, row


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
