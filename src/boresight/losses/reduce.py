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
        per: ``objects`` divides by the normaliser (1 when it is 0), so that a few objects weigh as much as the many
            cells without one. ``cells`` divides by the number of counted cells, which lets the background drown them:
            the known failure, kept for comparison.
    """
    total = torch.where(counted, loss, 0.0).sum()
    return total / divisor(normaliser if per == "objects" else counted.sum())


def divisor(count: Tensor) -> Tensor:
    """The count, or 1 where it is 0: nothing to divide by, and no object is not an error.

    A count between 0 and 1 stays: a few objects shared by several processes make less than one for each.
    """
    return torch.where(count == 0, 1, count)
