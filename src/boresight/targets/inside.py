"""Every cell in an object stands for it: FCOS's rule (Tian et al. 2019, section 3.1; centre sampling: 2020, TPAMI)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from boresight.core.boxes import box_area
from boresight.core.types import DenseOutput
from boresight.targets.assignment import Assignment
from boresight.targets.candidates import Candidates, MapShape, Objects
from boresight.targets.cells import cells_inside


def smallest(candidates: Candidates) -> Tensor:
    """``[K]`` bool: where several objects hold a cell, the one with the smallest box has it, of equal ones the earlier.

    What :func:`boresight.targets.assignment.resolve` decides candidate by candidate, for a priority that an object has
    everywhere: ranks of objects are sorted instead, of which there are few.
    """
    order = box_area(candidates.objects.boxes).sort(stable=True).indices
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), 0, -1, device=order.device)
    claim, key = candidates.of_object(rank), candidates.key
    best = claim.new_zeros(candidates.shape.keys).scatter_reduce_(0, key, claim, "amax")
    return best.index_select(0, key) == claim


@dataclass(frozen=True)
class Inside:
    """Positive: cells whose centre lies in the object's box; the smallest box takes a cell that several hold.

    It looks at no prediction. An object that holds no cell's centre gets the nearest cell.

    Attributes:
        radius: only cells less than so many strides, in x and in y, from the object's centre; None: all inside.
    """

    by_prediction: ClassVar[bool] = False
    radius: float | None = None

    @torch.no_grad()
    def __call__(self, output: DenseOutput, score: Tensor, objects: Objects, progress: float = 1.0) -> Assignment:
        """See :class:`boresight.targets.assignment.Assigner`."""
        candidates = cells_inside(objects, MapShape.of(output), self.radius)
        return Assignment(candidates, smallest(candidates)).to(output.logits.device)
