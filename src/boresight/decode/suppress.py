"""Non-maximum suppression in numpy, box for box what torchvision's ``batched_nms`` keeps."""

from __future__ import annotations

import numpy as np

APART = 1000
"""Boxes up to which torchvision moves each class to a place of its own; of more it takes the classes one by one."""


def best(values: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and values of the ``count`` largest, in falling order; of equal ones the first comes first."""
    if count < len(values):
        least = np.partition(values, len(values) - count)[len(values) - count]
        candidates = np.flatnonzero(values >= least)
    else:
        candidates = np.arange(len(values))
    order = candidates[np.argsort(-values[candidates], kind="stable")][:count]
    return order, values[order]


def kept_by_nms(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, most: float) -> np.ndarray:
    """Which boxes stay, best first: of two of one class that overlap by more than ``most`` the lower-scored one goes.

    Args:
        boxes: ``[N, 4]`` float32 xyxy; from 0 on.
        scores, labels: ``[N]``.
        most: IoU.
    """
    if not len(boxes):
        return np.zeros(0, dtype=np.int64)
    if len(boxes) <= APART:
        # sums of float32 round, and what is kept may hang on that: the arithmetic is torchvision's
        apart = labels.astype(boxes.dtype) * (boxes.max() + boxes.dtype.type(1))
        return _greedy(boxes + apart[:, None], scores, most)
    kept = [own[_greedy(boxes[own], scores[own], most)] for own in (np.flatnonzero(labels == k) for k in set(labels))]
    every = np.sort(np.concatenate(kept))
    return every[np.argsort(-scores[every], kind="stable")]


def _greedy(boxes: np.ndarray, scores: np.ndarray, most: float) -> np.ndarray:
    order = np.argsort(-scores, kind="stable")
    x0, y0, x1, y1 = boxes[order].T
    area = (x1 - x0) * (y1 - y0)
    alive = np.ones(len(order), dtype=bool)
    zero = boxes.dtype.type(0)
    for i in range(len(order)):
        if not alive[i]:
            continue
        width = np.maximum(zero, np.minimum(x1[i], x1[i + 1 :]) - np.maximum(x0[i], x0[i + 1 :]))
        height = np.maximum(zero, np.minimum(y1[i], y1[i + 1 :]) - np.maximum(y0[i], y0[i + 1 :]))
        both = width * height
        with np.errstate(invalid="ignore"):  # of two boxes without area
            overlap = both / (area[i] + area[i + 1 :] - both)
        alive[i + 1 :] &= ~(overlap.astype(np.float64) > most)
    return order[alive]
