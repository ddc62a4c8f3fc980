"""From everything that is emitted to detections, as the detector itself selects: one thing can be changed first."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image

from boresight.core.emission import Decoding, Emission
from boresight.core.types import Detections

ROWS = 1024
"""Suppressed boxes that are compared with all kept ones at once."""


@dataclass(frozen=True, slots=True)
class Selected:
    """The slots of one image that came as far as suppression, best first.

    Attributes:
        slot: ``[k]`` long.
        boxes: ``[k, 4]`` as they are returned (cut to the image, unless the detector never does so).
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
    boxes = emission.boxes_of(slot).float()
    if decoding.cut == "before":
        boxes = clip_boxes_to_image(boxes, emission.size)
    if decoding.least is not None:
        solid = (boxes[:, 2:] - boxes[:, :2] > decoding.least).all(-1)
        slot, boxes = slot[solid], boxes[solid]
    scores, labels = emission.scores.flatten()[slot].float(), slot // emission.cells
    kept, by = _suppressed(boxes, scores, _arenas(emission, slot, decoding), decoding.nms)
    if decoding.top_k:
        kept &= _place(kept, labels, decoding.limit) <= decoding.top_k
    if decoding.cut == "after":
        boxes = clip_boxes_to_image(boxes, emission.size)
    return Selected(slot, boxes, scores, labels, kept, by)


def _place(kept: Tensor, labels: Tensor, limit: str) -> Tensor:
    """``[k]``: how many kept ones come before, and the row itself; of its class, where each class has a limit."""
    if limit == "image" or not len(kept):
        return kept.cumsum(0)
    own = torch.nn.functional.one_hot(labels) * kept[:, None]
    return own.cumsum(0).gather(1, labels[:, None])[:, 0]


def replay(emission: Emission, decoding: Decoding) -> Detections:
    """Detections of one image, best first; ``cell`` holds slots."""
    return select(emission, decoding).found()


def _arenas(emission: Emission, slot: Tensor, decoding: Decoding) -> Tensor:
    """``[k]`` long: boxes compete with those of the same number alone."""
    arena = slot // emission.cells if decoding.by_class else torch.zeros_like(slot)
    if not decoding.by_level or emission.level is None or not len(slot):
        return arena
    return arena * (int(emission.level.max()) + 1) + emission.level[slot % emission.cells]


def _suppressed(boxes: Tensor, scores: Tensor, arena: Tensor, most: float | None) -> tuple[Tensor, Tensor]:
    own = torch.arange(len(boxes), device=boxes.device)
    if most is None or not len(boxes):
        return torch.ones_like(own, dtype=torch.bool), own
    # batched_nms moves every arena to a place of its own: that needs coordinates from 0 on, and the digits of a double
    exact = boxes.double() - boxes.amin().double()
    kept = torch.zeros_like(own, dtype=torch.bool)
    kept[batched_nms(exact, scores.double(), arena, most)] = True
    holders, dropped = own[kept], own[~kept]
    by = own.clone()
    for some in dropped.split(ROWS):
        rival = (box_iou(exact[some], exact[holders]) > most) & (arena[some][:, None] == arena[holders])
        # best first: the first that overlaps it is the one that suppressed it
        by[some] = torch.where(rival.any(1), holders[rival.byte().argmax(1)], some)
    return kept, by
