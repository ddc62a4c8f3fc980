"""Adaptive training sample selection (Zhang et al. 2020, algorithm 1) on one level: no prediction is looked at."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from boresight.core.boxes import aligned_iou
from boresight.core.types import DenseOutput
from boresight.targets.assignment import Assignment, resolve
from boresight.targets.candidates import Candidates, MapShape, Objects
from boresight.targets.cells import centres, nearest_cells

ROUNDING = 1e-9
"""Anchors that overlap an object equally are at their own mean; its rounding must not rule them all out."""


@dataclass(frozen=True)
class Atss:
    """Of the k cells nearest to an object's centre, those whose anchor overlaps it unusually well.

    Positive: IoU of a square anchor with the object at least mean + standard deviation over the k (the unbiased one, as
    in the authors' code), and the cell's centre in the object. Where none is, the nearest cell. An object that wants a
    cell of another has it if its anchor overlaps it more.

    Attributes:
        k: cells looked at; of equally near ones the upper, then the one further left.
        anchor: side of the anchor, in strides.
    """

    by_prediction: ClassVar[bool] = False
    k: int = 9
    anchor: float = 5.0

    @torch.no_grad()
    def __call__(self, output: DenseOutput, score: Tensor, objects: Objects, progress: float = 1.0) -> Assignment:
        """See :class:`boresight.targets.assignment.Assigner`."""
        shape = MapShape.of(output)
        row, column, real = nearest_k(objects, shape, self.k)
        m, k = real.shape
        candidates = Candidates(
            objects,
            shape,
            torch.arange(m).repeat_interleave(k),
            row.flatten(),
            column.flatten(),
            torch.arange(m) * k,
        )
        iou = self._overlap(candidates)
        chosen = _unusual(iou.view(m, k), candidates.inside.view(m, k), real).flatten()
        positive = resolve(chosen, iou, candidates.key, shape.keys)
        return Assignment(candidates, positive).to(output.logits.device)

    def _overlap(self, candidates: Candidates) -> Tensor:
        """``[K]`` float64: IoU of the cell's anchor with the object."""
        half = self.anchor * candidates.shape.stride / 2
        xy = candidates.xy.double()
        return aligned_iou(torch.cat((xy - half, xy + half), dim=-1), candidates.wanted.double())


def _unusual(iou: Tensor, inside: Tensor, real: Tensor) -> Tensor:
    """``[M, k]`` bool from the IoU of the k nearest, nearest first."""
    count = real.sum(1, keepdim=True)
    mean = torch.where(real, iou, 0.0).sum(1, keepdim=True) / count
    square = torch.where(real, (iou - mean).square(), 0.0).sum(1, keepdim=True)
    threshold = mean + (square / (count - 1).clamp(min=1)).sqrt()
    chosen = real & inside & (iou >= threshold - ROUNDING)
    nearest = torch.arange(iou.shape[1]) == 0
    return torch.where(chosen.any(1, keepdim=True), chosen, nearest)


def nearest_k(objects: Objects, shape: MapShape, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The cells nearest to each object's centre, nearest first, of equally near ones the upper, then the one left.

    A small window around the centre, moved onto the map, holds them all: a disc around any place, cut to a quarter by
    the map's corner, contains k centres within the window's side.

    Returns:
        Rows and columns, ``[M, k]`` long; ``[M, k]`` bool, False where the image has no more cells (the nearest is
        repeated there).
    """
    ends = shape.ends[objects.image]
    half = math.ceil(math.sqrt(k / math.pi) + 1)
    if int(shape.ends.min()) <= 2 * half:
        half = k  # a strip: they may all lie in one row
    middle = centres(objects, shape)
    side = torch.arange(2 * half + 1)
    first = (nearest_cells(objects, shape) - half).minimum(ends - len(side)).clamp(min=0)
    column, row = first[:, :1] + side, first[:, 1:] + side
    square = (column - middle[:, :1])[:, None, :].square() + (row - middle[:, 1:])[:, :, None].square()
    off = (column >= ends[:, :1])[:, None, :] | (row >= ends[:, 1:])[:, :, None]
    square, pick = square.masked_fill(off, torch.inf).flatten(1).sort(dim=1, stable=True)
    real = square[:, :k] < torch.inf
    pick = torch.where(real, pick[:, :k], pick[:, :1])
    down = torch.div(pick, len(side), rounding_mode="floor")
    return row.gather(1, down), column.gather(1, pick - down * len(side)), real
