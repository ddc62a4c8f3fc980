"""How bright a frame is, for machines without torch and for frames that are never held whole."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np


def brightness(frame: np.ndarray) -> tuple[float, float]:
    """``(level, spread)`` of a frame: see :func:`boresight.core.types.frame_brightness`."""
    values = frame.astype(np.float64)
    if values.size and values.min() == values.max():
        return float(values.flat[0]), 1.0
    return float(values.mean()), float(values.std())


def brightness_of_parts(parts: Iterable[np.ndarray]) -> tuple[float, float]:
    """:func:`brightness` of a frame that comes in parts, each pixel once, up to the rounding of float64.

    Means and squared deviations of the parts are put together (Chan, Golub and LeVeque 1983, equation 2.1), which
    loses no digits where the level is large and the spread is small. Raises ValueError where no part holds a pixel.
    """
    count, level, squares = 0, 0.0, 0.0
    low, high = math.inf, -math.inf
    for part in parts:
        values = part.astype(np.float64)
        if not values.size:
            continue
        mean, total = float(values.mean()), count + values.size
        squares += float(np.square(values - mean).sum()) + (mean - level) ** 2 * count * values.size / total
        level += (mean - level) * values.size / total
        low, high, count = min(low, float(values.min())), max(high, float(values.max())), total
    if not count:
        raise ValueError("a frame without pixels has no brightness")
    return (low, 1.0) if low == high else (level, math.sqrt(squares / count))
