"""Windows of large images in numpy: what :mod:`boresight.run.windows` does, for an exported detector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from boresight.core.found import Found
from boresight.core.grid import flat_cell
from boresight.data.raster import Raster
from boresight.decode.suppress import kept_by_nms
from boresight.run.tiles import starts

Detect = Callable[[np.ndarray], tuple[Found, tuple[int, int, int]]]
"""Pixels ``[C, H, W]`` of a window to what is found there, and the shape ``(C, H, W)`` of its map."""


def detect_windows(
    detect: Detect,
    pixels: np.ndarray | Raster,
    *,
    stride: float,
    window: int,
    overlap: int,
    nms: float = 0.5,
    top_k: int = 1000,
    step: int = 16,
    least: float = 0.0,
) -> Found:
    """What ``detect`` finds in an image ``[C, H, W]`` of any size: see :func:`boresight.run.windows.detect_windows`."""
    cells = int(stride)
    if step % cells:
        raise ValueError(f"window corners at multiples of {step} px do not fit cells of {stride:g} px")
    height, width = pixels.shape[1:]
    rows, columns = (-(-side // step) * (step // cells) for side in (height, width))
    parts = []
    for top in starts(height, window, overlap, step):
        for left in starts(width, window, overlap, step):
            part = pixels[:, top : top + window, left : left + window]
            found, shape = detect(part)
            keep = _whole(found.boxes, (top, left), part.shape[1:], (height, width), overlap)
            label, row, column = np.unravel_index(found.cell, shape)
            cell = flat_cell(0, label, row + top // cells, column + left // cells, (shape[0], rows, columns))
            shift = np.array([left, top, left, top], dtype=found.boxes.dtype)
            keep &= found.scores >= least
            parts.append(replace(found, boxes=found.boxes + shift, cell=cell).select(keep))
    joined = Found.joined(parts)
    joined = joined.select(np.argsort(-joined.scores, kind="stable"))
    limit = top_k * max(1, -(-height * width // window**2))
    return joined.select(kept_by_nms(joined.boxes, joined.scores, joined.labels, nms)[:limit])


def _whole(
    boxes: np.ndarray, corner: tuple[int, int], part: tuple[int, ...], whole: tuple[int, int], overlap: int
) -> np.ndarray:
    """``[N]`` bool: boxes that no inner border of the window cuts, but where they are too long for the overlap."""
    keep = np.ones(len(boxes), dtype=bool)
    for axis in (0, 1):
        low, high = boxes[:, 1 - axis], boxes[:, 3 - axis]
        cut = (low <= 1) & (corner[axis] > 0)
        cut |= (high >= part[axis] - 1) & (corner[axis] + part[axis] < whole[axis])
        keep &= ~cut | (high - low >= overlap - 2)
    return keep
