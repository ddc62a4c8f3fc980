"""Where the windows of a large image lie, and which part of it each answers for. Does without torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from boresight.core.errors import UserError

MOST_SHARED = 256
"""Pixels that neighbouring windows of a prediction share at most."""
BOXES_SHARE, POINTS_SHARE = 4, 2
"""Which part of a small window they share: half where a peak is to be what it is in the whole frame, so that 128 px
around every window's own part, more than the built-in encoder looks at, lie in windows of 512 px as well."""


@dataclass(frozen=True, slots=True)
class Span:
    """One side of a window, in pixels of an image of ``length``.

    Attributes:
        start, end: what the window sees.
        first, last: its own part ``[first, last)``; those of all windows cover the image once.
        length: of the image.
    """

    start: int
    end: int
    first: int
    last: int
    length: int

    @property
    def pixels(self) -> slice:
        """What the window sees, as an index."""
        return slice(self.start, self.end)

    def near(self, cells: int, stride: float, reach: int) -> np.ndarray:
        """``[cells]`` bool: which cells along the window lie in its own part, or up to ``reach`` cells beside it."""
        place = self.start + np.arange(cells) * stride
        return (place >= self.first - reach * stride) & (place < self.last + reach * stride)


@dataclass(frozen=True, slots=True)
class Window:
    """One window of an image."""

    rows: Span
    columns: Span

    def near(self, cells: tuple[int, int], stride: float, reach: int) -> np.ndarray:
        """``[H, W]`` bool of a map of so many cells: see :meth:`Span.near`."""
        rows, columns = cells
        return np.outer(self.rows.near(rows, stride, reach), self.columns.near(columns, stride, reach))


def windows(size: tuple[int, int], window: int, overlap: int, step: int) -> Iterator[Window]:
    """The windows of an image of ``size`` (height, width), row by row; see :func:`spans`."""
    height, width = size
    across = spans(width, window, overlap, step)
    for rows in spans(height, window, overlap, step):
        for columns in across:
            yield Window(rows, columns)


def spans(length: int, window: int, overlap: int, step: int) -> list[Span]:
    """Windows along one side, see :func:`starts`; their own parts meet in the middle of what two neighbours share.

    Own parts begin at multiples of ``step``, so that every cell belongs to one window.
    """
    begin = starts(length, window, overlap, step)
    ends = [min(start + window, length) for start in begin]
    middles = [after + (end - after) // 2 // step * step for end, after in zip(ends, begin[1:], strict=False)]
    return [Span(*place, length) for place in zip(begin, ends, [0, *middles], [*middles, length], strict=True)]


def starts(length: int, window: int, overlap: int, step: int) -> list[int]:
    """Where windows begin along one side: multiples of ``step``, the last window reaches the end.

    Neighbours share at least ``overlap`` pixels. Raises ValueError where that leaves less than a ``step`` to go on.
    """
    if not 0 <= overlap <= window - step:
        raise ValueError(
            f"overlap {overlap} must lie in 0..{window - step}: windows of {window} px, steps of {step} px"
        )
    if length <= window:
        return [0]
    stride = (window - overlap) // step * step
    last = -(-(length - window) // step) * step
    return [*range(0, last, stride), last]


def shared(window: int, step: int, share: int) -> int:
    """Pixels that neighbours share in a prediction: a ``share``-th of the window, but at most :data:`MOST_SHARED`.

    Raises UserError for a window too small for a detector with steps of ``step`` pixels.
    """
    overlap = min(MOST_SHARED, window // share)
    if window - overlap < step:
        raise UserError(f"--window {window}: too small for a detector of steps of {step} px; give {2 * step} or more")
    return overlap


def reach_of(neighbourhood: int) -> int:
    """Cells beside a peak that decide on it: half the neighbourhood in which it is the largest, 1 for its parabola."""
    return max(1, neighbourhood // 2)
