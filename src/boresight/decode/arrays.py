"""The decoders of :mod:`boresight.decode.peaks` and :mod:`boresight.decode.boxes` in numpy: the same answers, no torch.

Scores, boxes and places of one image come as arrays, as an exported detector gives them. ``boxes`` are
``[K, H, W, 4]``: K is 1 where the classes of a cell share one box, else C.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from boresight.core.found import Found
from boresight.core.grid import cell_centre_array, cell_to_pixel
from boresight.decode.suppress import best, kept_by_nms


def inside(rows: int, columns: int, stride: float, size: tuple[int, int]) -> np.ndarray:
    """``[rows, columns]`` bool: cells that touch an image of ``size`` (height, width); the others are padding."""
    end = np.array(size[::-1], dtype=np.float32)
    return np.all(cell_centre_array(rows, columns, stride) - np.float32(stride / 2) < end, axis=-1)


def clipped(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """``[N, 4]`` xyxy cut to an image of ``size`` (height, width)."""
    height, width = size
    return np.clip(boxes, 0, np.array([width, height, width, height], dtype=boxes.dtype))


def decode_points(
    logits: np.ndarray,
    scores: np.ndarray,
    boxes: np.ndarray,
    *,
    stride: float,
    size: tuple[int, int],
    top_k: int = 100,
    refine: Literal["offset", "parabola", "none"] = "offset",
    window: int = 3,
) -> Found:
    """The best ``top_k`` local peaks of one image, best first, moved onto its edge where they lie beyond it.

    Args:
        logits, scores: ``[C, H, W]``; peaks are looked for among the logits, which do not saturate.
        boxes: points as boxes of size zero.
        stride: pixels a cell.
        size: ``(height, width)`` of the image; cells beyond are padding.
        top_k, refine, window: as for :func:`boresight.decode.peaks.decode_points`.
    """
    _, rows, columns = logits.shape
    logits = np.where(inside(rows, columns, stride, size), logits, -np.inf)
    emitting = local_peaks(logits, window) & (logits > -np.inf)
    order, score = best(np.where(emitting, scores, -1.0).reshape(-1), top_k)
    order, score = order[score >= 0], score[score >= 0]
    label, row, column = np.unravel_index(order, logits.shape)
    if refine == "offset":
        xy = boxes[label if len(boxes) > 1 else 0, row, column, :2]
    else:
        uv = np.stack((column, row), axis=-1).astype(np.float32)
        if refine == "parabola":
            uv = uv + _parabola_shift(logits, label, row, column)
        xy = cell_to_pixel(uv, stride)
    places = clipped(np.concatenate((xy, xy), axis=-1), size)
    return Found(places, score, label.astype(np.int64), order.astype(np.int64))


def local_peaks(scores: np.ndarray, window: int = 3) -> np.ndarray:
    """``[C, H, W]`` bool: see :func:`boresight.decode.peaks.local_peaks`; of equal neighbours the first is taken."""
    if window < 1 or window % 2 == 0:
        raise ValueError(f"the window of a local peak must be an odd number of cells, got {window}")
    reach = window // 2
    padded = np.pad(scores, ((0, 0), (reach, reach), (reach, reach)), constant_values=-np.inf)
    around = sliding_window_view(padded, (window, window), axis=(1, 2))
    return around.reshape(*scores.shape, -1).argmax(-1) == window * window // 2


def _parabola_shift(logits: np.ndarray, label: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """``[N, 2]`` sub-cell shifts of the vertices at some cells: see :func:`boresight.decode.peaks.parabola_shift`."""
    padded = np.pad(logits, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    row, column = row + 1, column + 1

    def log_p(down: int, across: int) -> np.ndarray:
        x = padded[label, row + down, column + across]
        return np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x)))

    def vertex(low: np.ndarray, high: np.ndarray) -> np.ndarray:
        bend = low - 2 * log_p(0, 0) + high
        peaked = (bend < 0) & np.isfinite(bend)
        with np.errstate(invalid="ignore"):  # of two missing neighbours
            shift = (low - high) / (2 * np.where(peaked, bend, -1.0))
        return np.clip(np.where(peaked, shift, 0.0), -0.5, 0.5)

    return np.stack((vertex(log_p(0, -1), log_p(0, 1)), vertex(log_p(-1, 0), log_p(1, 0))), axis=-1)


def decode_boxes(
    scores: np.ndarray,
    boxes: np.ndarray,
    *,
    stride: float,
    size: tuple[int, int],
    threshold: float = 0.001,
    nms: float = 0.5,
    top_k: int = 100,
    before_nms: int = 1000,
    trained_reach: float = 0.0,
) -> Found:
    """Boxes of the best emitted scores of one image, without duplicates, best first, clipped to the image.

    Args:
        scores: ``[C, H, W]`` emitted scores.
        boxes: of every cell.
        stride: pixels a cell.
        size: ``(height, width)`` of the image; cells and boxes beyond are padding.
        threshold, nms, top_k, before_nms, trained_reach: as for :class:`boresight.decode.boxes.BoxDecoder`.
    """
    _, rows, columns = scores.shape
    speaking = inside(rows, columns, stride, size)[None]
    if trained_reach:
        away = (boxes[..., :2] + boxes[..., 2:]) / 2 - cell_centre_array(rows, columns, stride)
        speaking = speaking & (np.sqrt((away * away).sum(-1)) <= trained_reach * stride)
    order, score = best(np.where(speaking, scores, -1.0).reshape(-1), before_nms)
    order, score = (v[score >= max(threshold, 0.0)] for v in (order, score))
    label, row, column = np.unravel_index(order, scores.shape)
    chosen = clipped(boxes[label if len(boxes) > 1 else 0, row, column].astype(np.float32), size)
    solid = np.all(chosen[:, 2:] > chosen[:, :2], axis=-1)  # a box wholly outside the image is clipped to nothing
    found = Found(chosen, score, label.astype(np.int64), order.astype(np.int64)).select(solid)
    return found.select(kept_by_nms(found.boxes, found.scores, found.labels, nms)[:top_k])
