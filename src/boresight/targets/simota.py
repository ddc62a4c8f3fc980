"""SimOTA (Ge et al. 2021, YOLOX, section 2.1): each object takes its cheapest cells, as many as it has good boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from boresight.core.boxes import aligned_iou
from boresight.core.device import sent
from boresight.core.types import DenseOutput
from boresight.targets.assignment import Assignment, boxes_at, resolve, top_k_per_object, top_values
from boresight.targets.candidates import Candidates, MapShape, Objects
from boresight.targets.cells import Ranges, box_ranges, centre_ranges, or_nearest, runs

LARGEST_LOG = 100.0
"""Cross-entropy counts a probability of 0 as ``exp(-100)``, as torch does."""


@dataclass(frozen=True)
class SimOta:
    """Cost: cross-entropy of all classes' scores + ``box`` x (-log IoU) + ``outside`` beyond box or centre.

    Candidates are the cells in the object's box or near its centre (YOLOX also prices those of all other objects, which
    no object ever takes while it has enough of its own). An object takes the k cheapest, k being the sum of its
    ``top`` largest IoUs, rounded down, at least 1. Of objects that want one box, the one it is cheapest to has it.

    Attributes:
        centre: strides, in x and in y, that count as near the centre.
        top: IoUs that are added up.
        box, outside: see above.
    """

    by_prediction: ClassVar[bool] = True
    centre: float = 2.5
    top: int = 10
    box: float = 3.0
    outside: float = 1e5

    @torch.no_grad()
    def __call__(self, output: DenseOutput, score: Tensor, objects: Objects, progress: float = 1.0) -> Assignment:
        """See :class:`boresight.targets.assignment.Assigner`."""
        here = box_or_centre(objects, MapShape.of(output), self.centre)
        cells = Cells.of(here).to(output.logits.device)
        candidates = here.to(output.logits.device)
        iou = aligned_iou(boxes_at(output, candidates), candidates.wanted)
        both = candidates.inside & (candidates.centre_offset.abs() < self.centre).all(-1)
        cost = class_cost(score, candidates, cells) - self.box * (iou + 1e-8).log()
        cost = cost + torch.where(both, 0.0, self.outside)
        k = top_values(iou, candidates, self.top).sum(1).long().clamp(min=1)
        chosen = top_k_per_object(-cost, candidates, k)
        return Assignment(candidates, resolve(chosen, -cost, candidates.key, candidates.shape.keys))


@dataclass(frozen=True)
class Cells:
    """The cells that are a candidate of any object, each once: what costs a logarithm a class is done once a cell.

    Attributes:
        image, cell: ``[U]`` long.
        of_candidate: ``[K]`` long, the row of each candidate.
    """

    image: Tensor
    cell: Tensor
    of_candidate: Tensor

    @classmethod
    def of(cls, candidates: Candidates) -> Cells:
        """Of candidates on the CPU."""
        place = candidates.of_object(candidates.objects.image * candidates.shape.cells) + candidates.cell
        once, of_candidate = place.unique(return_inverse=True)
        return cls(once // candidates.shape.cells, once % candidates.shape.cells, of_candidate)

    def to(self, device: torch.device | str) -> Cells:
        """The same on ``device``, without waiting for it."""
        return Cells(*(sent(v, device) for v in (self.image, self.cell, self.of_candidate)))


def class_cost(score: Tensor, candidates: Candidates, cells: Cells) -> Tensor:
    """``[K]``: cross-entropy of all classes' scores at the cell with "the object's class and no other"."""
    known = score.flatten(2)[cells.image, :, cells.cell].float()
    absent = -torch.log1p(-known).clamp(min=-LARGEST_LOG)
    classes = absent.shape[1]
    own = cells.of_candidate * classes + candidates.label
    present = -known.flatten().index_select(0, own).log().clamp(min=-LARGEST_LOG)
    every = absent.sum(1).index_select(0, cells.of_candidate)
    return every - absent.flatten().index_select(0, own) + present


def box_or_centre(objects: Objects, shape: MapShape, reach: float) -> Candidates:
    """Cells in the object's box or less than ``reach`` strides, in x and in y, from its centre; on the CPU.

    Both rectangles hold the cell nearest to the centre, so that each row of their union is one run of cells.
    """
    (box0, box1), centre = box_ranges(objects, shape), centre_ranges(objects, shape, reach)
    near0, near1 = or_nearest(centre, objects, shape)
    empty = (box1 < box0).any(-1, keepdim=True)
    box: Ranges = (torch.where(empty, near0, box0), torch.where(empty, near1, box1))
    first, last = box[0].minimum(near0), box[1].maximum(near1)
    high = last[:, 1] - first[:, 1] + 1
    owner = torch.repeat_interleave(high, output_size=int(high.sum()))
    row = torch.arange(len(owner)) - (high.cumsum(0) - high - first[:, 1]).index_select(0, owner)
    far = shape.columns
    low, top = [], []
    for a, b in (box, (near0, near1)):
        on = (row >= a[owner, 1]) & (row <= b[owner, 1])
        low.append(torch.where(on, a[owner, 0], far))
        top.append(torch.where(on, b[owner, 0], -1))
    left, right = torch.minimum(*low), torch.maximum(*top)
    return runs(objects, shape, owner, row, left, right - left + 1)
