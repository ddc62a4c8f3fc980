"""A prediction-free verdict on the cells of any detector: the control of an audit whose assigner looks at predictions.

An assigner that chooses cells for the boxes they emit (TAL, SimOTA, Hungarian matching) makes supervised cells look
good by construction. The same output is therefore judged by an assigner that cannot see it as well: adaptive training
sample selection (Zhang et al. 2020, algorithm 1), for cells that lie anywhere, on any number of levels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_iou

from boresight.core.emission import Emission, Missing, Supervision

ROUNDING = 1e-9
"""Anchors that overlap an object equally are at their own mean; its rounding must not rule them all out."""


def control(emission: Emission, objects: Tensor, *, k: int = 9, anchor: float = 8.0) -> Supervision | Missing:
    """Assign without a look at what is emitted.

    Args:
        emission: only where its cells lie is read.
        objects: ``[M, 4]`` xyxy, pixel frame.
        k: cells of each level nearest to an object's centre that are looked at.
        anchor: side of the square that stands for a cell, in strides.

    Positive: IoU of the cell's square with the object at least mean + standard deviation over the cells looked at, and
    the cell's centre in the object; where none is, the nearest of them. A cell that several objects want goes to the
    one that its square overlaps most. Missing where cells have no place or no stride.
    """
    if emission.centres is None or emission.strides is None:
        return Missing("its cells have no place, so that no assigner can judge them without their predictions")
    if not len(objects) or not emission.cells:
        none = torch.zeros(0, dtype=torch.long)
        return Supervision(none, none, none.bool(), by_prediction=False)
    centres, strides = emission.centres.double(), emission.strides.double()
    middle = (objects[:, :2] + objects[:, 2:]).double() / 2
    away = (centres[None] - middle[:, None]).norm(dim=-1)
    near = _nearest(away, emission.level, k)
    half = (anchor * strides / 2)[:, None]
    squares = torch.cat((centres - half, centres + half), dim=1)
    overlap = box_iou(objects.double(), squares)
    positive = _unusual(overlap, near, _inside(centres, objects.double()), away)
    wish = overlap.masked_fill(~positive, -1.0)
    best, owner = wish.max(0)
    cell = (best >= 0).nonzero()[:, 0]
    return Supervision(cell, owner[cell], torch.ones_like(cell, dtype=torch.bool), by_prediction=False)


def _nearest(away: Tensor, level: Tensor | None, k: int) -> Tensor:
    """``[M, N]`` bool: the k cells of each level nearest to each object."""
    near = torch.zeros_like(away, dtype=torch.bool)
    levels = torch.zeros(away.shape[1], dtype=torch.long) if level is None else level
    for one in levels.unique():
        cells = (levels == one).nonzero()[:, 0]
        picked = away[:, cells].topk(min(k, len(cells)), dim=1, largest=False).indices
        near.scatter_(1, cells[picked], True)
    return near


def _inside(centres: Tensor, objects: Tensor) -> Tensor:
    """``[M, N]`` bool: the cell's centre lies in the object."""
    return ((centres > objects[:, None, :2]) & (centres < objects[:, None, 2:])).all(-1)


def _unusual(overlap: Tensor, near: Tensor, inside: Tensor, away: Tensor) -> Tensor:
    count = near.sum(1, keepdim=True)
    mean = torch.where(near, overlap, 0.0).sum(1, keepdim=True) / count
    square = torch.where(near, (overlap - mean).square(), 0.0).sum(1, keepdim=True)
    threshold = mean + (square / (count - 1).clamp(min=1)).sqrt()
    chosen = near & inside & (overlap >= threshold - ROUNDING)
    first = away.masked_fill(~near, torch.inf).argmin(1, keepdim=True)
    nearest = torch.zeros_like(near).scatter_(1, first, True)
    return torch.where(chosen.any(1, keepdim=True), chosen, nearest)
