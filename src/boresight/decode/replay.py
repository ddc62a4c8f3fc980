"""From everything that is emitted to detections, as the detector itself selects: so that one thing can be changed first."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image, nms

from boresight.core.emission import Decoding, Emission
from boresight.core.types import Detections


@dataclass(frozen=True, slots=True)
class Selected:
    """The slots of one image that came as far as suppression, best first.

    Attributes:
        slot: ``[k]`` long.
        boxes: ``[k, 4]`` cut to the image.
        scores: ``[k]``.
        labels: ``[k]``.
        kept: ``[k]`` bool, returned in the end.
        by: ``[k]`` long, the row of the kept box that suppressed this one; its own row where none did.
    """

    slot: Tensor
    boxes: Tensor
    scores: Tensor
    labels: Tensor
    kept: Tensor
    by: Tensor

    def found(self) -> Detections:
        """What is returned; ``cell`` holds slots."""
        k = self.kept
        return Detections(self.boxes[k], self.scores[k], self.labels[k], self.slot[k])


def candidates(emission: Emission, decoding: Decoding) -> Tensor:
    """``[k]`` slots that pass the threshold and the limits before suppression, best first (of equal ones the lower)."""
    scores = emission.scores
    if decoding.single:
        best = scores.argmax(0, keepdim=True)
        scores = scores.masked_fill(torch.arange(len(scores), device=scores.device)[:, None] != best, -1.0)
    flat = scores.flatten()
    slot = ((flat >= decoding.threshold) & (flat > 0)).nonzero()[:, 0]
    slot = slot[flat[slot].argsort(descending=True, stable=True)]
    if not decoding.before_nms:
        return slot
    if decoding.per == "image":
        return slot[: decoding.before_nms]
    group = slot // emission.cells if decoding.per == "class" else _level(emission, slot % emission.cells)
    order = group.argsort(stable=True)
    ordered = group[order]
    place = torch.arange(len(slot), device=slot.device) - torch.searchsorted(ordered, ordered)
    rank = torch.empty_like(place).scatter_(0, order, place)
    return slot[rank < decoding.before_nms]


def _level(emission: Emission, cell: Tensor) -> Tensor:
    return torch.zeros_like(cell) if emission.level is None else emission.level[cell]


def select(emission: Emission, decoding: Decoding) -> Selected:
    """Replay the selection of one image, and say who suppressed whom.

    Raises ValueError for boxes or scores that are not finite.
    """
    for name, value in (("boxes", emission.boxes), ("scores", emission.scores)):
        if not bool(value.isfinite().all()):
            raise ValueError(f"Emission.{name} holds values that are not finite")
    slot = candidates(emission, decoding)
    boxes = clip_boxes_to_image(emission.boxes_of(slot).float(), emission.size)
    solid = (boxes[:, 2:] - boxes[:, :2] > decoding.least).all(-1)
    slot, boxes = slot[solid], boxes[solid]
    scores, labels = emission.scores.flatten()[slot].float(), slot // emission.cells
    kept, by = _suppressed(boxes, scores, labels, decoding)
    if decoding.top_k:
        kept &= kept.cumsum(0) <= decoding.top_k
    return Selected(slot, boxes, scores, labels, kept, by)


def replay(emission: Emission, decoding: Decoding) -> Detections:
    """Detections of one image, best first; ``cell`` holds slots."""
    return select(emission, decoding).found()


def _suppressed(boxes: Tensor, scores: Tensor, labels: Tensor, decoding: Decoding) -> tuple[Tensor, Tensor]:
    own = torch.arange(len(boxes), device=boxes.device)
    if decoding.nms is None or not len(boxes):
        return torch.ones_like(own, dtype=torch.bool), own
    stays = batched_nms(boxes, scores, labels, decoding.nms) if decoding.by_class else nms(boxes, scores, decoding.nms)
    kept = torch.zeros_like(own, dtype=torch.bool)
    kept[stays] = True
    holders, dropped = own[kept], own[~kept]
    rival = box_iou(boxes[dropped], boxes[holders]) > decoding.nms
    if decoding.by_class:
        rival &= labels[dropped][:, None] == labels[holders]
    rival &= holders < dropped[:, None]  # best first: the first that overlaps it is the one that suppressed it
    by = own.clone()
    by[dropped] = torch.where(rival.any(1), holders[rival.long().argmax(1)], dropped)
    return kept, by
