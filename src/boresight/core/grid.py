"""Pixel and cell arithmetic: the only place that knows where a cell lies.

Two frames are in use and no third one:

* the **pixel frame**: continuous coordinates of the original image, origin at the outer corner of the first pixel.
  Pixel ``i`` covers ``[i, i + 1]`` and has its centre at ``i + 0.5`` ("half-pixel centres", as in COCO boxes). An image
  of width ``W`` covers ``[0, W]`` and a horizontal flip is ``x -> W - x``.
* the **cell frame** of a map with stride ``s``: cell ``j`` has its centre at the *integer* ``j``, so that rounding a
  cell coordinate gives the cell.

``u = x / s - 0.5`` takes the first to the second. (With pixel *indices* ``i = x - 0.5``, as a centroid over array
indices gives them, the same formula reads ``u = (i + 0.5) / s - 0.5``.)

What is plain arithmetic holds for numpy arrays as well, and does not import torch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Numbers = TypeVar("Numbers", "Tensor", "np.ndarray")
"""A tensor or an array."""


def index_to_pixel(index: Tensor) -> Tensor:
    """Turn array indices (a pixel's centre is an integer) into the pixel frame (a centre is at ``i + 0.5``)."""
    return index + 0.5


def pixel_to_index(xy: Tensor) -> Tensor:
    """Inverse of :func:`index_to_pixel`."""
    return xy - 0.5


def pixel_to_cell(xy: Numbers, stride: float) -> Numbers:
    """Map pixel coordinates of any shape to real-valued cell coordinates ``u = x / stride - 0.5``."""
    return xy / stride - 0.5


def cell_to_pixel(uv: Numbers, stride: float) -> Numbers:
    """Inverse of :func:`pixel_to_cell`: ``x = (u + 0.5) * stride``."""
    return (uv + 0.5) * stride


def grid_size(height: int, width: int, stride: int) -> tuple[int, int]:
    """Return ``(rows, columns)`` of the smallest map of this stride that covers the image."""
    return math.ceil(height / stride), math.ceil(width / stride)


def cell_centres(rows: int, columns: int, stride: float, *, device: torch.device | str | None = None) -> Tensor:
    """Return the pixel coordinates ``(x, y)`` of every cell centre, ``[rows, columns, 2]`` float32."""
    import torch

    y = torch.arange(rows, dtype=torch.float32, device=device)
    x = torch.arange(columns, dtype=torch.float32, device=device)
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    return cell_to_pixel(torch.stack((grid_x, grid_y), dim=-1), stride)


def cell_centre_array(rows: int, columns: int, stride: float) -> np.ndarray:
    """:func:`cell_centres` as an array."""
    x, y = np.meshgrid(np.arange(columns, dtype=np.float32), np.arange(rows, dtype=np.float32))
    return cell_to_pixel(np.stack((x, y), axis=-1), stride)


def nearest_cell(uv: Tensor, rows: int, columns: int) -> Tensor:
    """Return the cell ``(column, row)`` nearest to real cell coordinates ``uv [..., 2]``, clipped to the map, as long.

    A coordinate halfway between two cells goes to the higher one, everywhere alike (``floor(u + 0.5)``; ``round`` would
    go to the even one and make neighbouring targets differ).
    """
    import torch

    limit = torch.tensor([columns - 1, rows - 1], device=uv.device)
    return torch.floor(uv + 0.5).long().clamp(min=0).minimum(limit)


def flat_cell(level_offset: int, label: Numbers, row: Numbers, column: Numbers, shape: tuple[int, int, int]) -> Numbers:
    """Return the flat index of ``(level, class, row, column)`` in one image's output.

    ``shape`` is ``(C, H, W)`` of the level, ``level_offset`` the number of cells of all levels before it.
    """
    _, rows, columns = shape
    return level_offset + (label * rows + row) * columns + column


def unravel_cell(cell: Tensor, shapes: list[tuple[int, int, int]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Split flat cells into ``(level, class, row, column)``, each long and of the same shape as ``cell``.

    ``shapes`` holds ``(C, H, W)`` of every level, in order. Raises ``ValueError`` for a cell outside all levels.
    """
    import torch

    sizes = torch.tensor([c * h * w for c, h, w in shapes], device=cell.device)
    ends = sizes.cumsum(0)
    if cell.numel() and (int(cell.min()) < 0 or int(cell.max()) >= int(ends[-1])):
        raise ValueError(f"a cell index lies outside 0..{int(ends[-1]) - 1}: {int(cell.min())}..{int(cell.max())}")
    level = torch.bucketize(cell, ends, right=True)
    local = cell - (ends - sizes)[level]
    rows = torch.tensor([h for _, h, _ in shapes], device=cell.device)[level]
    columns = torch.tensor([w for _, _, w in shapes], device=cell.device)[level]
    return level, local // (rows * columns), local // columns % rows, local % columns
