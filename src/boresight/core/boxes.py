"""Arithmetic of pairs of boxes, one by one: box ``i`` of the one with box ``i`` of the other.

What torchvision offers compares every box with every other, or writes through a boolean mask, which makes a GPU wait
for the host. These compare aligned boxes by plain arithmetic, with finite values and gradients for boxes without area.
Boxes are xyxy in the pixel frame; half-precision input is computed in float32 (an area of 260 x 260 px overflows half).
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST = 1e-9
"""Square pixels: what is divided by where there is no area at all."""


def _precise(boxes: Tensor) -> Tensor:
    return boxes.float() if boxes.dtype in (torch.float16, torch.bfloat16) else boxes


def box_area(boxes: Tensor) -> Tensor:
    """``[..., 4]`` to ``[...]``; a box turned inside out has none."""
    x0, y0, x1, y1 = _precise(boxes).unbind(-1)
    return (x1 - x0).clamp(min=0) * (y1 - y0).clamp(min=0)


def _intersection(a: Tensor, b: Tensor) -> Tensor:
    ax0, ay0, ax1, ay1 = a.unbind(-1)
    bx0, by0, bx1, by1 = b.unbind(-1)
    wide = torch.minimum(ax1, bx1) - torch.maximum(ax0, bx0)
    high = torch.minimum(ay1, by1) - torch.maximum(ay0, by0)
    return wide.clamp(min=0) * high.clamp(min=0)


def aligned_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes ``[..., 4]`` with boxes ``[..., 4]`` (broadcast), ``[...]`` in [0, 1]."""
    a, b = _precise(a), _precise(b)
    inter = _intersection(a, b)
    return inter / (box_area(a) + box_area(b) - inter).clamp(min=SMALLEST)


def aligned_giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU (Rezatofighi et al. 2019, algorithm 1) of aligned boxes, ``[...]`` in [-1, 1].

    IoU less the share of the smallest enclosing box that neither fills, so that boxes apart still pull together.
    """
    a, b = _precise(a), _precise(b)
    inter = _intersection(a, b)
    union = box_area(a) + box_area(b) - inter
    wide = torch.maximum(a[..., 2], b[..., 2]) - torch.minimum(a[..., 0], b[..., 0])
    high = torch.maximum(a[..., 3], b[..., 3]) - torch.minimum(a[..., 1], b[..., 1])
    hull = wide * high
    return inter / union.clamp(min=SMALLEST) - (hull - union) / hull.clamp(min=SMALLEST)


def centerness(boxes: Tensor, xy: Tensor) -> Tensor:
    """``sqrt(min(l, r)/max(l, r) * min(t, b)/max(t, b))`` (Tian et al. 2019, FCOS, eq. 3), 1 in the middle.

    ``boxes [..., 4]`` and places ``xy [..., 2]`` in the same frame; ``[...]`` in [0, 1], 0 on the edge and outside.
    """
    left, right = xy[..., 0] - boxes[..., 0], boxes[..., 2] - xy[..., 0]
    top, bottom = xy[..., 1] - boxes[..., 1], boxes[..., 3] - xy[..., 1]
    across = torch.minimum(left, right).clamp(min=0) / torch.maximum(left, right).clamp(min=SMALLEST)
    down = torch.minimum(top, bottom).clamp(min=0) / torch.maximum(top, bottom).clamp(min=SMALLEST)
    return (across * down).sqrt()


def cover(a: Tensor, b: Tensor) -> Tensor:
    """``[N, M]``: the share of each box ``a [N, 4]`` that lies in each box ``b [M, 4]`` (COCO's overlap with a crowd).

    A box without area is covered by nothing: 0.
    """
    a, b = _precise(a), _precise(b)
    return _intersection(a[:, None], b[None]) / box_area(a)[:, None].clamp(min=SMALLEST)


def boxes_from_distances(xy: Tensor, ltrb: Tensor) -> Tensor:
    """Boxes ``[..., 4]`` whose left, top, right, bottom edges lie ``ltrb [..., 4]`` pixels from ``xy [..., 2]``."""
    return torch.cat((xy - ltrb[..., :2], xy + ltrb[..., 2:]), dim=-1)
