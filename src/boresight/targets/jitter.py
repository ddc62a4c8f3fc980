"""Coarse boxes made from true ones, each at the overlap that is asked for.

A box is moved along a random direction of its four edges. Along any direction the IoU with the truth falls (an edge
that moves out enlarges the union, one that moves in shrinks the intersection), so that the place where it has a given
value is found by halving. What a refiner is trained on is then known by its IoU, and not by the size of a noise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from boresight.core.boxes import aligned_iou

HALVINGS = 30
CLOSE = 0.01
"""An IoU within this of the one asked for is taken."""

_FARTHEST = 8.0  # box sides by which an edge may move


def jitter(
    boxes: Tensor,
    iou: Tensor,
    generator: torch.Generator,
    *,
    size: tuple[int, int] | None = None,
    attempts: int = 8,
) -> Tensor:
    """Boxes that overlap ``boxes`` by ``iou``, each in a direction of its own.

    Each edge moves by its own normal number times the box's side, all four by a common factor: shifts and changes of
    size mixed. Inside of an image an edge stops at the border, so that a direction may not reach a low IoU: another is
    drawn then, and in the last one the box shrinks, which reaches any.

    Args:
        boxes: ``[N, 4]`` xyxy with area, pixel frame, inside of the image.
        iou: ``[N]`` in (0, 1].
        generator: of the directions.
        size: ``(height, width)``: boxes do not reach beyond the image.
        attempts: directions drawn at most.

    Returns:
        ``[N, 4]`` with area, within 0.01 of the IoU (mostly within 1e-5); equal to ``boxes`` where ``iou`` is 1.

    Raises ValueError for an IoU outside of (0, 1] and for boxes without area.
    """
    _check(boxes, iou)
    found, open_ = boxes.double().clone(), iou.double() < 1
    for attempt in range(attempts + 1):
        if not open_.any():
            break
        direction = torch.randn(boxes.shape, generator=generator, dtype=torch.float64)
        if attempt == attempts:  # inwards
            direction = direction.abs() * direction.new_tensor([1, 1, -1, -1])
        tried = _at(boxes.double(), iou.double(), direction, size)
        good = open_ & ((aligned_iou(tried, boxes.double()) - iou).abs() <= CLOSE)
        found = torch.where(good[:, None], tried, found)
        open_ = open_ & ~good
    return found.to(boxes.dtype)


def _check(boxes: Tensor, iou: Tensor) -> None:
    if iou.shape != boxes.shape[:1]:
        raise ValueError(f"one IoU a box is needed: {list(boxes.shape)} and {list(iou.shape)}")
    if len(iou) and not (float(iou.min()) > 0 and float(iou.max()) <= 1):
        raise ValueError(f"IoUs must lie in (0, 1], got {float(iou.min()):g} to {float(iou.max()):g}")
    if not bool((boxes[:, 2:] > boxes[:, :2]).all()):
        raise ValueError("a box without area cannot be overlapped")


def _at(boxes: Tensor, iou: Tensor, direction: Tensor, size: tuple[int, int] | None) -> Tensor:
    """The boxes along ``direction`` where the overlap is ``iou``, as far as it gets there."""
    near = torch.zeros_like(iou)
    far = torch.full_like(iou, _FARTHEST)
    for _ in range(HALVINGS):
        middle = (near + far) / 2
        above = aligned_iou(_moved(boxes, direction, middle, size), boxes) >= iou
        near, far = torch.where(above, middle, near), torch.where(above, far, middle)
    return _moved(boxes, direction, near, size)


def _moved(boxes: Tensor, direction: Tensor, share: Tensor, size: tuple[int, int] | None) -> Tensor:
    side = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    moved = boxes + share[:, None] * direction * side
    if size is None:
        return moved
    height, width = size
    return moved.clamp(min=0).minimum(moved.new_tensor([width, height, width, height]))
