"""Sizes and windows: which size an image is encoded at, where windows lie, and how they are put together."""

from __future__ import annotations

import torch
from torch import Tensor

from boresight.core.errors import UserError


def encoded_size(height: int, width: int, size: int | None, patch: int) -> tuple[int, int]:
    """Return ``(height, width)`` in pixels at which an image is encoded: multiples of ``patch``, rounded up.

    ``size`` is what the short side becomes, the long one keeping the proportion; None keeps the image's own size.
    """
    if size is not None and size < 1:
        raise UserError(f"size={size}: the short side must have at least 1 px")
    short = min(height, width)
    num, den = (1, 1) if size is None else (size, short)
    rows, columns = (-(-side * num // (den * patch)) for side in (height, width))
    return rows * patch, columns * patch


def window_cells(window: int | None, overlap: float, patch: int, grid: tuple[int, int]) -> tuple[int, int, int]:
    """Return ``(rows, columns, step)`` in cells of the windows for a map of ``grid`` cells; None: the map is one."""
    if not 0 <= overlap < 1:
        raise UserError(f"overlap={overlap}: must lie in [0, 1)")
    if window is None:
        return grid[0], grid[1], max(grid)
    if window < 1:
        raise UserError(f"window={window}: a window must have at least 1 px")
    side = -(-window // patch)
    step = max(1, round(side * (1 - overlap)))
    return min(side, grid[0]), min(side, grid[1]), step


def window_starts(cells: int, window: int, step: int) -> list[int]:
    """First cells of windows that cover ``cells``, ``step`` apart; the last one ends where the map ends."""
    return [*range(0, cells - window, step), cells - window]


def feather(rows: int, columns: int, *, device: torch.device | str | None = None) -> Tensor:
    """``[rows, columns]`` weights above 0 that fall off linearly from the middle of a window to its border."""

    def along(cells: int) -> Tensor:
        place = torch.arange(cells, dtype=torch.float32, device=device)
        return torch.minimum(place + 1, cells - place)

    return along(rows)[:, None] * along(columns)[None]


class Mosaic:
    """A map put together from windows: the mean of what they say, weighted with :func:`feather`."""

    def __init__(self, grid: tuple[int, int]) -> None:
        self.grid = grid
        self.total: Tensor | None = None
        self.weight: Tensor | None = None

    def add(self, part: Tensor, row: int, column: int) -> None:
        """``part [B, C, h, w]``, its first cell at ``(row, column)``."""
        if self.total is None or self.weight is None:
            self.total = part.new_zeros(*part.shape[:2], *self.grid)
            self.weight = part.new_zeros(self.grid)
        rows, columns = part.shape[-2:]
        here = (..., slice(row, row + rows), slice(column, column + columns))
        weight = feather(rows, columns, device=part.device).to(part.dtype)
        self.total[here] += weight * part
        self.weight[here] += weight

    def mean(self) -> Tensor:
        """``[B, C, H, W]``; ValueError when nothing was added."""
        if self.total is None or self.weight is None:
            raise ValueError("no window was added")
        return self.total / self.weight
