"""From emitted scores and boxes to detections: threshold, suppression, the best k. Each keeps the cell it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image

from boresight.core.device import sent
from boresight.core.grid import cell_centres
from boresight.core.types import DenseOutput, Detections

HEADROOM = 2
"""Times ``top_k``: so many of the best boxes are suppressed first."""


@dataclass(frozen=True)
class BoxDecoder:
    """Reads detections off a dense output.

    Attributes:
        threshold: scores below are dropped.
        nms: of two boxes of one class that overlap by more than this IoU the lower-scored one is dropped.
        top_k: at most so many an image.
        before_nms: the best so many scores an image are looked at.
        trained_reach: only cells whose own box is centred within so many strides of the cell may speak (a cell far
            from the centre of what it boxes was not trained by an assigner of that radius); 0: every cell may.
        per_class: the two limits hold for each class, not for all together: where no score was learned that could
            compare classes, the channel with the largest numbers would leave the others no place.
    """

    threshold: float = 0.001
    nms: float = 0.5
    top_k: int = 100
    before_nms: int = 1000
    trained_reach: float = 0.0
    per_class: bool = False

    def __call__(self, output: DenseOutput, score: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        """One :class:`Detections` an image, best first, clipped to the image.

        Args:
            output: boxes and stride.
            score: ``[B, C, H, W]`` emitted scores.
            sizes: ``(height, width)`` of each image; cells and boxes beyond are padding.
        """
        if padded(output, sizes):
            score = score.masked_fill(beyond(output, sizes), -1.0)
        if self.trained_reach:
            score = torch.where(self.like_trained(output), score, -1.0)
        return [self._one(output.boxes[i], score[i], size) for i, size in enumerate(sizes)]

    def like_trained(self, output: DenseOutput) -> Tensor:
        """``[B, C, H, W]`` bool: the cell lies as near to the centre of its box as those that are trained."""
        rows, columns = output.logits.shape[-2:]
        centre = (output.boxes[..., :2] + output.boxes[..., 2:]) / 2
        away = centre - cell_centres(rows, columns, output.stride, device=centre.device)
        return away.norm(dim=-1) <= self.trained_reach * output.stride

    def _one(self, boxes: Tensor, score: Tensor, size: tuple[int, int]) -> Detections:
        best, cell = self._loudest(score)
        _, rows, columns = score.shape
        label = torch.div(cell, rows * columns, rounding_mode="floor")
        row, column = torch.div(cell, columns, rounding_mode="floor") % rows, cell % columns
        chosen = clip_boxes_to_image(boxes[label, row, column].float(), size)
        # a box wholly outside the image is clipped to nothing
        solid = (best >= max(self.threshold, 0.0)) & (chosen[:, 2:] > chosen[:, :2]).all(-1)
        keep = solid.nonzero()[:, 0]
        if len(keep) < len(solid):
            chosen, best, label, cell = (v.index_select(0, keep) for v in (chosen, best, label, cell))
        if self.per_class:
            kept = batched_nms(chosen, best, label, self.nms)
            rank = F.one_hot(label[kept], len(score)).cumsum(0).gather(1, label[kept, None])[:, 0]
            kept = kept[rank <= self.top_k]
        else:
            kept = self._kept(chosen, best, label)
        return Detections(chosen[kept], best[kept], label[kept], cell[kept])

    def _kept(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
        """Places of the ``top_k`` best that suppression leaves of boxes ``[k, 4]``, given best first.

        A box is suppressed by better ones alone: where the first few leave enough, the others need not be looked at.
        """
        few = HEADROOM * self.top_k
        if len(boxes) > 2 * few:
            kept = batched_nms(boxes[:few], scores[:few], labels[:few], self.nms)
            if len(kept) >= self.top_k:
                return kept[: self.top_k]
        return batched_nms(boxes, scores, labels, self.nms)[: self.top_k]

    def _loudest(self, score: Tensor) -> tuple[Tensor, Tensor]:
        """The best scores ``[k]`` of an image, or of each of its classes, and their flat places ``[k]``."""
        if not self.per_class:
            return loudest(score.flatten(), self.before_nms)
        parts = [loudest(one.flatten(), self.before_nms) for one in score]
        best, cell = (torch.stack(v) for v in zip(*parts, strict=True))
        first = torch.arange(len(score), device=score.device) * score[0].numel()
        return best.flatten(), (cell + first[:, None]).flatten()


def loudest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` largest of ``values [N]``, falling, and their places; of equal ones the earlier (on a GPU: any).

    On a CPU a partition finds the k-th value in a tenth of the time that sorting them out takes.
    """
    count = min(k, len(values))
    if values.device.type != "cpu" or count == len(values):
        best, place = values.topk(count)
        return best, place
    table = values.detach().float().numpy()
    least = float(np.partition(table, len(table) - count)[len(table) - count])
    place = torch.from_numpy(np.flatnonzero(~(table < least)))  # what is no number is as large as can be, as in topk
    best, order = values.index_select(0, place).sort(descending=True, stable=True)
    return best[:count], place.index_select(0, order[:count])


def padded(output: DenseOutput, sizes: Sequence[tuple[int, int]]) -> bool:
    """Whether any cell may lie wholly in the padding, as far as shapes tell."""
    rows, columns = output.logits.shape[-2:]
    s = output.stride
    return any((rows - 1) * s >= height or (columns - 1) * s >= width for height, width in sizes)


def beyond(output: DenseOutput, sizes: Sequence[tuple[int, int]]) -> Tensor:
    """``[B, 1, H, W]`` bool: cells that lie wholly in the padding."""
    rows, columns = output.logits.shape[-2:]
    centre = cell_centres(rows, columns, output.stride, device=output.logits.device)
    end = sent(torch.tensor([(w, h) for h, w in sizes], dtype=torch.float32), centre.device)
    return (centre - output.stride / 2 >= end[:, None, None]).any(-1)[:, None]
