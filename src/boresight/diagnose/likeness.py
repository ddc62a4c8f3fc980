"""How well what is emitted fits an object: IoU for boxes, and its like for points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torchvision.ops import box_iou


class Likeness(Protocol):
    """Compares places. 0.5 is where a detection counts as found, 1 is perfect, 0 has nothing to do with it."""

    @property
    def name(self) -> str:
        """What it is called on a page."""
        ...

    def __call__(self, boxes: Tensor, objects: Tensor) -> Tensor:
        """``[N, 4]`` and ``[M, 4]`` to ``[N, M]`` float32 in [0, 1]."""
        ...


@dataclass(frozen=True)
class BoxIou:
    """Intersection over union."""

    name: str = "IoU"

    def __call__(self, boxes: Tensor, objects: Tensor) -> Tensor:
        """See :class:`Likeness`. A box without area is like nothing."""
        empty = ~(boxes[:, 2:] > boxes[:, :2]).all(-1)
        return box_iou(boxes.float(), objects.float()).masked_fill(empty[:, None], 0.0)


@dataclass(frozen=True)
class Closeness:
    """Of points: ``1 - distance / (2 tolerance)``, so that 0.5 is the tolerance of the metric.

    Attributes:
        tolerance: pixels.
    """

    tolerance: float = 3.0
    name: str = "closeness"

    def __call__(self, boxes: Tensor, objects: Tensor) -> Tensor:
        """See :class:`Likeness`; the centres of the boxes are compared."""
        a, b = ((x[:, :2].float() + x[:, 2:].float()) / 2 for x in (boxes, objects))
        return (1 - torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist") / (2 * self.tolerance)).clamp(min=0)
