"""From emitted scores and boxes to detections: threshold, suppression, the best k. Each keeps the cell it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image

from boresight.core.device import sent
from boresight.core.grid import cell_centres
from boresight.core.types import DenseOutput, Detections


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
        groups = score.flatten(1) if self.per_class else score.flatten()[None]
        best, cell = groups.topk(min(self.before_nms, groups.shape[1]))
        first = torch.arange(len(groups), device=score.device) * groups.shape[1]
        best, cell = best.flatten(), (cell + first[:, None]).flatten()
        keep = best >= max(self.threshold, 0.0)
        best, cell = best[keep], cell[keep]
        _, rows, columns = score.shape
        label = cell // (rows * columns)
        row, column = cell // columns % rows, cell % columns
        chosen = clip_boxes_to_image(boxes[label, row, column].float(), size)
        solid = (chosen[:, 2:] > chosen[:, :2]).all(-1)  # a box wholly outside the image is clipped to nothing
        chosen, best, label, cell = chosen[solid], best[solid], label[solid], cell[solid]
        kept = batched_nms(chosen, best, label, self.nms)
        if self.per_class:
            rank = F.one_hot(label[kept], len(score)).cumsum(0).gather(1, label[kept, None])[:, 0]
            kept = kept[rank <= self.top_k]
        else:
            kept = kept[: self.top_k]
        return Detections(chosen[kept], best[kept], label[kept], cell[kept])


def beyond(output: DenseOutput, sizes: Sequence[tuple[int, int]]) -> Tensor:
    """``[B, 1, H, W]`` bool: cells that lie wholly in the padding."""
    rows, columns = output.logits.shape[-2:]
    centre = cell_centres(rows, columns, output.stride, device=output.logits.device)
    end = sent(torch.tensor([(w, h) for h, w in sizes], dtype=torch.float32), centre.device)
    return (centre - output.stride / 2 >= end[:, None, None]).any(-1)[:, None]
