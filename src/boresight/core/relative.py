"""Boxes seen from a window around them: enlarged, relative, and turned into any of the eight orientations."""

from __future__ import annotations

import torch
from torch import Tensor

from boresight.core.boxes import SMALLEST


def enlarged(boxes: Tensor, factor: float, least: float = 0.0) -> Tensor:
    """Windows about the centres of ``boxes [..., 4]``, ``factor`` times as wide and high, no side below ``least``."""
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    half = ((boxes[..., 2:] - boxes[..., :2]) * factor).clamp(min=max(least, SMALLEST)) / 2
    return torch.cat((centre - half, centre + half), dim=-1)


def relative(boxes: Tensor, windows: Tensor) -> Tensor:
    """Boxes in shares of their windows: (0, 0) is the window's first corner and (1, 1) its last. Both ``[..., 4]``."""
    corner, side = windows[..., :2], windows[..., 2:] - windows[..., :2]
    return (boxes - torch.cat((corner, corner), dim=-1)) / torch.cat((side, side), dim=-1)


def absolute(shares: Tensor, windows: Tensor) -> Tensor:
    """Inverse of :func:`relative`."""
    corner, side = windows[..., :2], windows[..., 2:] - windows[..., :2]
    return shares * torch.cat((side, side), dim=-1) + torch.cat((corner, corner), dim=-1)


def ordered(boxes: Tensor) -> Tensor:
    """Boxes whose first corner is the smaller one in x and in y; one that is turned inside out is turned back."""
    first, last = boxes[..., :2], boxes[..., 2:]
    return torch.cat((torch.minimum(first, last), torch.maximum(first, last)), dim=-1)


def _flags(turns: Tensor, dims: int) -> tuple[Tensor, Tensor, Tensor]:
    shape = (-1, *([1] * (dims - 1)))
    mirror_x, mirror_y, transpose = ((turns.view(shape) >> bit & 1).bool() for bit in range(3))
    return mirror_x, mirror_y, transpose


def turned_maps(maps: Tensor, turns: Tensor) -> Tensor:
    """``[N, ..., G, G]`` square maps, each in its own orientation: mirrored in x, in y, then transposed.

    Args:
        maps: rows are y, columns x.
        turns: ``[N]`` long in 0..7, see :class:`boresight.core.types.Proposals`.
    """
    mirror_x, mirror_y, transpose = _flags(turns, maps.ndim)
    maps = torch.where(mirror_x, maps.flip(-1), maps)
    maps = torch.where(mirror_y, maps.flip(-2), maps)
    return torch.where(transpose, maps.transpose(-1, -2), maps)


def turned_boxes(shares: Tensor, turns: Tensor) -> Tensor:
    """``[N, 4]`` boxes in shares of a window as :func:`turned_maps` shows them."""
    mirror_x, mirror_y, transpose = _flags(turns, 2)
    x0, y0, x1, y1 = shares.split(1, dim=-1)
    x0, x1 = torch.where(mirror_x, 1 - x1, x0), torch.where(mirror_x, 1 - x0, x1)
    y0, y1 = torch.where(mirror_y, 1 - y1, y0), torch.where(mirror_y, 1 - y0, y1)
    return torch.where(transpose, torch.cat((y0, x0, y1, x1), -1), torch.cat((x0, y0, x1, y1), -1))


def upright_boxes(shares: Tensor, turns: Tensor) -> Tensor:
    """Inverse of :func:`turned_boxes`."""
    mirror_x, mirror_y, transpose = _flags(turns, 2)
    shares = torch.where(transpose, shares[:, [1, 0, 3, 2]], shares)
    x0, y0, x1, y1 = shares.split(1, dim=-1)
    x0, x1 = torch.where(mirror_x, 1 - x1, x0), torch.where(mirror_x, 1 - x0, x1)
    y0, y1 = torch.where(mirror_y, 1 - y1, y0), torch.where(mirror_y, 1 - y0, y1)
    return torch.cat((x0, y0, x1, y1), dim=-1)


def upright_edges(edges: Tensor, turns: Tensor) -> Tensor:
    """``[N, 4, K]`` numbers for K places across a turned window, for each edge, as they lie in the upright one."""
    mirror_x, mirror_y, transpose = _flags(turns, 3)
    edges = torch.where(transpose, edges[:, [1, 0, 3, 2]], edges)
    back = edges.flip(-1)[:, [2, 3, 0, 1]]
    mirrored = torch.cat((mirror_x, mirror_y, mirror_x, mirror_y), dim=1)
    return torch.where(mirrored, back, edges)
