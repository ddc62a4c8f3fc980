"""The selection ladder: how well a box fits its object when less and less is asked of the choice.

Every rung reads the same emitted boxes; the rungs differ in who chooses the cell. ``m`` objects of a class get ``m``
boxes, so that an image with several objects is treated as fairly as one with a single object.

1. ``predicted_class``: the image's best boxes over all classes after suppression, as many as it has objects. A box
   stands for an object of its own class only.
2. ``gt_class``: the best ``m`` boxes of the true class's channel after suppression.
3. ``top_k``: the best ``k m`` of them.
4. ``gt_centre``: the box at the cell that holds the object's centre. No score and no overlap chooses.
5. ``one_to_one``: any cell of the channel, the best assignment of cells to objects (Kuhn 1955).
6. ``oracle``: any cell of the channel, the best for each object. It grows with the number of cells whatever they emit.

Rungs 1 to 3 and 5 pair boxes and objects one to one, so that the total IoU is largest; an object without a box has 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import batched_nms

from boresight.evaluate.dense_image import Objects
from boresight.evaluate.pairs import Floats

RUNGS = ("predicted_class", "gt_class", "top_k", "gt_centre", "one_to_one", "oracle")
# What one channel gives by itself.
CHANNEL_RUNGS = RUNGS[1:]


@dataclass(frozen=True)
class Selection:
    """How detections are selected: ``top_k`` boxes an object, suppression at IoU ``nms`` among the ``limit`` best."""

    top_k: int = 5
    nms: float = 0.5
    limit: int = 1000


class Choice(Protocol):
    """An order of preference among the cells."""

    def overall(self, limit: int) -> tuple[Tensor, Tensor]:
        """The best ``(class, cell)`` of all channels, each long ``[K]``, best first."""

    def within(self, label: int, limit: int) -> Tensor:
        """The best cells of one channel, long ``[K]``, best first."""


class ByScore:
    """Prefers higher scores; ``score [C, N]``."""

    def __init__(self, score: Tensor) -> None:
        self.score = score

    def overall(self, limit: int) -> tuple[Tensor, Tensor]:
        """The best of all channels."""
        best = self.score.flatten().topk(min(limit, self.score.numel())).indices
        return best // self.score.shape[1], best % self.score.shape[1]

    def within(self, label: int, limit: int) -> Tensor:
        """The best of one channel."""
        return self.score[label].topk(min(limit, self.score.shape[1])).indices


class AtRandom:
    """Prefers nothing: the order of a detector that has not seen the image."""

    def __init__(self, classes: int, cells: int, generator: torch.Generator) -> None:
        self.classes, self.cells, self.generator = classes, cells, generator

    def overall(self, limit: int) -> tuple[Tensor, Tensor]:
        """Classes and cells drawn at random (the same one twice does no harm: suppression drops it)."""
        draw = [torch.randint(n, (limit,), generator=self.generator) for n in (self.classes, self.cells)]
        return draw[0], draw[1]

    def within(self, label: int, limit: int) -> Tensor:
        """Cells drawn at random."""
        return torch.randint(self.cells, (limit,), generator=self.generator)


def kept(boxes: Tensor, labels: Tensor, nms: float, count: int) -> Tensor:
    """Indices of the first ``count`` of ``boxes [K, 4]``, best first, that no better one of their class suppresses."""
    # Suppression looks at better boxes only, so the first boxes decide by themselves; mostly a few are enough.
    looked_at = min(len(boxes), 4 * count + 32)
    while True:
        order = -torch.arange(looked_at, dtype=torch.float32, device=boxes.device)
        found = batched_nms(boxes[:looked_at], order, labels[:looked_at], nms)
        if len(found) >= count or looked_at == len(boxes):
            return found[:count]
        looked_at = min(len(boxes), 3 * looked_at)


def assigned(overlap: Tensor) -> Floats:
    """Return the IoU of each object in the one-to-one assignment of largest total IoU.

    ``overlap`` is ``[m, K]``; returns ``[m]``, 0 for objects without a partner.
    """
    m, k = overlap.shape
    got = np.zeros(m)
    if m == 0 or k == 0:
        return got
    if m == 1:
        return overlap.max(dim=1).values.double().cpu().numpy()
    # The others can take at most m - 1 cells from an object, so it ends on one of its m best.
    column = overlap.topk(min(m, k), dim=1).indices.unique()
    table = overlap[:, column].double().cpu().numpy()
    row, taken = linear_sum_assignment(table, maximize=True)
    got[row] = table[row, taken]
    return got


def read_channel(overlap: Tensor, boxes: Tensor, cells: Tensor, centre_cell: Tensor, rule: Selection) -> Floats:
    """Return ``[m, 5]`` IoU of the objects of one class at ``CHANNEL_RUNGS``.

    Args:
        overlap: ``[m, N]`` IoU of the objects with every cell's box.
        boxes: ``[N, 4]`` the channel's boxes.
        cells: long ``[K]``, cells in order of preference.
        centre_cell: long ``[m]``.
        rule: how boxes are selected.
    """
    m = len(overlap)
    best = cells[kept(boxes[cells], torch.zeros_like(cells), rule.nms, rule.top_k * m)]
    centre = overlap.gather(1, centre_cell[:, None])[:, 0]
    columns = (
        assigned(overlap[:, best[:m]]),
        assigned(overlap[:, best]),
        centre.double().cpu().numpy(),
        assigned(overlap),
        overlap.max(dim=1).values.double().cpu().numpy(),
    )
    return np.stack(columns, axis=1)


def climb(objects: Objects, field: Tensor, choice: Choice, rule: Selection) -> Floats:
    """Return ``[m, 6]`` IoU of every object at every rung of ``RUNGS``.

    Args:
        objects: of one image.
        field: ``[C, N, 4]`` boxes, cut to the image.
        choice: the order in which cells are preferred.
        rule: how boxes are selected.
    """
    rungs = np.zeros((len(objects), len(RUNGS)))
    if not len(objects):
        return rungs
    label, cell = choice.overall(rule.limit)
    emitted = field[label, cell]
    best = kept(emitted, label, rule.nms, len(objects))
    for name in objects.labels.unique().tolist():
        which = (objects.labels == name).nonzero()[:, 0]
        overlap = objects.overlap(field[name], which)
        mine = which.cpu().numpy()
        rungs[mine, 1:] = read_channel(
            overlap, field[name], choice.within(name, rule.limit), objects.centre_cell[which], rule
        )
        said = best[label[best] == name]
        rungs[mine, 0] = assigned(objects.overlap(emitted[said], which))
    return rungs
