"""Losses of the boxes that cells emit, without unit: an error counts relative to the object that was to be boxed."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from boresight.core.boxes import aligned_giou
from boresight.core.types import DenseTargets
from boresight.losses.reduce import divisor


def box_l1(boxes: Tensor, wanted: Tensor) -> Tensor:
    """Sum of the distances of the four edges, those in x over the wanted box's width, those in y over its height.

    Both are ``[..., 4]`` in the pixel frame, the wanted boxes with area; returns ``[...]``.
    """
    side = wanted[..., 2:] - wanted[..., :2]
    return ((boxes - wanted).abs() / torch.cat((side, side), dim=-1)).sum(-1)


def box_giou(boxes: Tensor, wanted: Tensor) -> Tensor:
    """``1 - GIoU`` (Rezatofighi et al. 2019, eq. 5) in [0, 2]; both are ``[..., 4]``, returns ``[...]``."""
    return 1 - aligned_giou(boxes, wanted)


def box_loss(
    boxes: Tensor,
    targets: DenseTargets,
    *,
    weight: Tensor | None = None,
    per: Literal["cells", "objects"] = "cells",
) -> tuple[Tensor, Tensor]:
    """L1 and GIoU loss of all cells with a box to emit: sum over the cells, divided by the number of objects.

    Args:
        boxes: ``[B, C, H, W, 4]`` as emitted, any floating type (computed in float32).
        targets: cells with ``matched >= 0`` that are not ignored are counted.
        weight: ``[B, C, H, W]``, how much each cell counts, None: 1. (With ``targets.score``, cells that are matched
            but not positive count 0.)
        per: ``objects`` shares one weight among an object's cells, so that an object of 1000 cells counts as much as
            one of 10; ``cells`` gives each cell its own.

    Returns:
        Two scalars, each with a gradient to ``boxes`` even if there is no object (of 0).
    """
    if not len(targets.objects):
        nothing = boxes.float().sum() * 0.0
        return nothing, nothing
    taught = ((targets.matched >= 0) & ~targets.ignore).flatten()
    cell = cells_to_visit(taught)
    on, owner = taught[cell], targets.matched.flatten()[cell].clamp(min=0)
    each = on.float() if weight is None else torch.where(on, weight.flatten()[cell].float(), 0.0)
    if per == "objects":
        count = torch.zeros(len(targets.objects), device=on.device).scatter_add_(0, owner, on.float())
        each = each / count.clamp(min=1)[owner]
    wanted = torch.where(on[:, None], targets.objects[owner], _unit(boxes.device))
    # what is not taught is replaced before it is measured: 0 x infinity would reach the gradient
    emitted = torch.where(on[:, None], boxes_of_cells(boxes, cell).float(), _unit(boxes.device))
    total = divisor(targets.normaliser)
    l1, giou = ((each * loss(emitted, wanted)).sum() / total for loss in (box_l1, box_giou))
    return l1, giou


def cells_to_visit(taught: Tensor) -> Tensor:
    """Flat cells that hold all ``taught`` ones.

    On a CPU just those: looking costs nothing. On a GPU all cells: to look would make the host wait for the device,
    and the work is small there.
    """
    if taught.device.type == "cpu":
        return taught.nonzero()[:, 0]
    return torch.arange(len(taught), device=taught.device)


def boxes_of_cells(boxes: Tensor, cell: Tensor) -> Tensor:
    """``[N, 4]`` at flat cells of ``boxes [B, C, H, W, 4]``; boxes that all classes share are not copied for each."""
    _, classes, rows, columns, _ = boxes.shape
    if boxes.stride(1) == 0:
        image = torch.div(cell, classes * rows * columns, rounding_mode="floor")
        return boxes[:, 0].reshape(-1, 4)[image * rows * columns + cell % (rows * columns)]
    return boxes.reshape(-1, 4)[cell]


def _unit(device: torch.device) -> Tensor:
    return torch.cat((torch.zeros(2, device=device), torch.ones(2, device=device)))
