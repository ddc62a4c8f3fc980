"""How the losses of single cells become one number."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Per = Literal["objects", "cells"]


def reduce_cells(loss: Tensor, counted: Tensor, normaliser: Tensor, per: Per = "objects") -> Tensor:
    """Sum the loss of the counted cells and divide.

    Args:
        loss: any shape.
        counted: bool of the same shape; other cells carry no loss.
        normaliser: scalar, the number of objects in the batch.
        per: ``objects`` divides by the normaliser (at least 1), so that a few objects weigh as much as the many cells
            without one. ``cells`` divides by the number of counted cells, which lets the background drown them: the
            known failure, kept for comparison.
    """
    total = torch.where(counted, loss, 0.0).sum()
    return total / (normaliser if per == "objects" else counted.sum()).clamp(min=1)
