"""Looks at large images window by window, in bounded memory, whatever looks. Does without torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from boresight.core.found import Found
from boresight.core.grid import flat_cell
from boresight.decode.suppress import kept_by_nms
from boresight.run.tiles import Span, Window, windows


class Pixels(Protocol):
    """An image ``[C, H, W]`` of which parts can be read: an array, a tensor, a raster."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(C, H, W)``."""
        ...

    def __getitem__(self, place: tuple[slice, slice, slice], /) -> Any:
        """Some rows and columns of some channels."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """What is found in one window.

    Attributes:
        found: best first, in pixels and cells of the window.
        shape: ``(C, H, W)`` of the map that emitted it.
        stride: pixels a cell.
    """

    found: Found
    shape: tuple[int, int, int]
    stride: float


Detect = Callable[[Any, Window], Seen]
"""Pixels ``[C, h, w]`` of a window, of the kind that the image is, and where it lies, to what is found there."""

Suppress = Callable[[np.ndarray, np.ndarray, np.ndarray, float], np.ndarray]
"""Boxes, scores, labels and an IoU to the indices of what stays, best first."""


def detect_windows(
    detect: Detect,
    pixels: Pixels,
    *,
    window: int,
    overlap: int,
    step: int,
    nms: float = 0.5,
    top_k: int = 1000,
    least: float = 0.0,
    suppress: Suppress = kept_by_nms,
) -> Found:
    """The boxes that ``detect`` finds in an image of any size, best first.

    The image is read in overlapping windows whose corners are multiples of ``step`` (the detector's ``divisor``, a
    multiple of its stride), so that their cells are cells of the map that the image would have if it was read at once:
    ``cell`` counts there. A box that an inner border of its window cuts is left to the neighbour that sees it whole,
    unless it is too long for their overlap. Doubles are suppressed across windows.

    Args:
        detect: looks at one window.
        pixels: the image.
        window, overlap, step: pixels.
        nms: IoU above which of two boxes of one class the lower-scored one is dropped.
        top_k: at most so many, for every area of a window that the image has.
        least: scores below it are dropped at once: what is above it does not depend on them.
        suppress: does that.

    Raises ValueError for a ``step`` that is no multiple of the stride.
    """

    def whole(seen: Seen, place: Window) -> np.ndarray:
        boxes = seen.found.boxes
        return _uncut(boxes[:, 0::2], place.columns, overlap) & _uncut(boxes[:, 1::2], place.rows, overlap)

    joined = _joined(detect, pixels, whole, window=window, overlap=overlap, step=step, least=least)
    _, height, width = pixels.shape
    limit = top_k * max(1, -(-height * width // window**2))
    return joined.select(suppress(joined.boxes, joined.scores, joined.labels, nms)[:limit])


def detect_peaks(detect: Detect, pixels: Pixels, *, window: int, overlap: int, step: int, least: float = 0.0) -> Found:
    """The points that ``detect`` finds in an image of any size, best first.

    Windows lie as for :func:`detect_windows`. Each answers for the cells of its own part, which ends in the middle of
    what it shares with its neighbour: every peak is told once, and nothing is suppressed. It is that of the image read
    at once where half the overlap holds what a cell sees of its surroundings, and where nothing is counted or averaged
    over the whole image (of the heads: channel attention and the proposals of coarse-to-fine). Every window gives as
    many peaks as the detector gives of an image, so that a large one has more.

    Args:
        detect: looks at one window; its borders may fill it with false peaks, so that the best are to be taken of what
            is :meth:`~boresight.run.tiles.Window.near` its own part.
        pixels, window, overlap, step, least: as for :func:`detect_windows`.

    Raises ValueError for a ``step`` that is no multiple of the stride.
    """

    def own(seen: Seen, place: Window) -> np.ndarray:
        _, row, column = np.unravel_index(seen.found.cell, seen.shape)
        return place.near(seen.shape[1:], seen.stride, 0)[row, column]

    return _joined(detect, pixels, own, window=window, overlap=overlap, step=step, least=least)


def _joined(
    detect: Detect,
    pixels: Pixels,
    keep: Callable[[Seen, Window], np.ndarray],
    *,
    window: int,
    overlap: int,
    step: int,
    least: float,
) -> Found:
    """What windows find and ``keep`` leaves, in pixels and cells of the image, best first."""
    _, height, width = pixels.shape
    parts = []
    for place in windows((height, width), window, overlap, step):
        top, left = place.rows.start, place.columns.start
        seen = detect(pixels[:, place.rows.pixels, place.columns.pixels], place)
        stride = int(seen.stride)
        if step % stride:
            raise ValueError(f"window corners at multiples of {step} px do not fit cells of {stride} px")
        rows, columns = (-(-side // step) * (step // stride) for side in (height, width))
        label, row, column = np.unravel_index(seen.found.cell, seen.shape)
        cell = flat_cell(0, label, row + top // stride, column + left // stride, (seen.shape[0], rows, columns))
        shift = np.array([left, top, left, top], dtype=seen.found.boxes.dtype)
        moved = replace(seen.found, boxes=seen.found.boxes + shift, cell=cell)
        parts.append(moved.select(keep(seen, place) & (seen.found.scores >= least)))
    every = Found.joined(parts)
    return every.select(np.argsort(-every.scores, kind="stable"))


def _uncut(sides: np.ndarray, span: Span, overlap: int) -> np.ndarray:
    """``[N]`` bool: extents ``[N, 2]`` that no inner border of the window cuts, but where too long for the overlap.

    A border cuts what comes within a pixel of it, so that a box has to be two pixels shorter than the overlap to lie
    whole in one of two neighbours.
    """
    low, high = sides.T
    cut = (low <= 1) & (span.start > 0)
    cut |= (high >= span.end - span.start - 1) & (span.end < span.length)
    return ~cut | (high - low >= overlap - 2)
