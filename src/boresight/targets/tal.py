"""Task-aligned assignment (Feng et al. 2021, TOOD, section 3.2.1): cells stand for what they score and box well."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from boresight.core.boxes import aligned_iou
from boresight.core.device import sent
from boresight.core.types import DenseOutput
from boresight.targets.assignment import Assigner, Assignment, boxes_at, resolve, top_k_per_object, values_at
from boresight.targets.atss import Atss
from boresight.targets.candidates import Candidates, MapShape, Objects
from boresight.targets.cells import cells_inside, nearest_cells


@dataclass(frozen=True)
class Tal:
    """Of the cells in an object, the ``k`` with the largest ``t = s^alpha u^beta`` (eq. 2), t above 0.

    s is the emitted score of the object's class and u the IoU of the emitted box. An object of which every candidate
    has t = 0 gets the nearest cell. Of objects that want one box, the one that it overlaps most has it.

    Attributes:
        k, alpha, beta: see above.
        warmup: assigns while progress is below ``until``: early predictions say little.
        until: share of the training.
    """

    by_prediction: ClassVar[bool] = True
    k: int = 13
    alpha: float = 1.0
    beta: float = 6.0
    warmup: Assigner = field(default_factory=Atss)
    until: float = 0.15

    @torch.no_grad()
    def __call__(self, output: DenseOutput, score: Tensor, objects: Objects, progress: float = 1.0) -> Assignment:
        """See :class:`boresight.targets.assignment.Assigner`. The metric is t."""
        if progress < self.until:
            return self.warmup(output, score, objects, progress)
        shape, device = MapShape.of(output), output.logits.device
        candidates = cells_inside(objects, shape).to(device)
        iou = aligned_iou(boxes_at(output, candidates), candidates.wanted)
        metric = values_at(score, candidates) ** self.alpha * iou**self.beta
        chosen = top_k_per_object(metric, candidates, self.k) & (metric > 0)
        near = candidates.of_object(sent(nearest_cells(objects, shape), device))
        is_nearest = (candidates.column == near[:, 0]) & (candidates.row == near[:, 1])
        chosen = chosen | (is_nearest & ~_any(metric > 0, candidates))
        return Assignment(candidates, resolve(chosen, iou, candidates.key, shape.keys), metric)


def _any(mask: Tensor, candidates: Candidates) -> Tensor:
    """``[K]`` bool: whether ``mask [K]`` holds for any candidate of the same object."""
    count = torch.zeros(len(candidates.objects), dtype=torch.long, device=mask.device)
    return candidates.of_object(count.scatter_add_(0, candidates.object, mask.long()) > 0)
