"""Exact counts at every distinct score, and the threshold that suits validation data best.

Counts are summed over the whole data set before any ratio is taken. A detection passes a threshold with
``score >= threshold``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boresight.core.types import Detections, Points
from boresight.evaluate.bootstrap import divide
from boresight.evaluate.gather import PointSet
from boresight.evaluate.pairs import Floats, Ints
from boresight.evaluate.steps import count_steps

# What `best_threshold` says when no threshold gives a hit: the neutral value, at which every report is given anyway.
FALLBACK_THRESHOLD = 0.5
CURVE_POINTS = 400
LADDER_LEVELS = 2000


@dataclass(frozen=True)
class Counts:
    """Hits, false alarms and misses over ``images`` images at one threshold; ratios are None where undefined."""

    threshold: float
    images: int
    tp: int
    fp: int
    fn: int

    @property
    def precision(self) -> float | None:
        """Share of the detections that hit."""
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else None

    @property
    def recall(self) -> float | None:
        """Share of the truths that were hit (Pd)."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else None

    @property
    def f1(self) -> float | None:
        """``2 tp / (2 tp + fp + fn)``; 0 where there is truth and nothing is found."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else None

    @property
    def false_alarms_per_frame(self) -> float | None:
        """False alarms an image."""
        return self.fp / self.images if self.images else None

    def to_dict(self) -> dict[str, Any]:
        """Counts and ratios by name."""
        ratios = ("precision", "recall", "f1", "false_alarms_per_frame")
        return {k: v for k, v in asdict(self).items() if k != "images"} | {name: getattr(self, name) for name in ratios}


@dataclass(frozen=True)
class Curve:
    """Figures at falling thresholds, thinned for plots; FROC and precision-recall curve in one.

    Ratios are None where undefined. The best F1, both ends and the region of few false alarms survive the thinning.
    """

    threshold: tuple[float, ...]
    pd: tuple[float | None, ...]
    false_alarms_per_frame: tuple[float, ...]
    precision: tuple[float | None, ...]
    f1: tuple[float | None, ...]


class Ladder:
    """The exact counts at every distinct score, highest first.

    Attributes:
        points: what was matched.
        hits, false: ``[D]`` the steps of :func:`~boresight.evaluate.steps.count_steps`.
        threshold: ``[K]`` distinct scores, falling.
        tp, fp: ``[K]`` counts of the detections with ``score >= threshold``.
        truths: number of truths that count.
    """

    def __init__(self, points: PointSet, tolerance: float) -> None:
        self.points = points
        self.hits, self.false = count_steps(points, tolerance)
        rising, level = np.unique(points.scores, return_inverse=True)
        self.threshold = rising[::-1]
        self._level = len(rising) - 1 - level
        self.tp, self.fp = (self._per_level(step).cumsum() for step in (self.hits, self.false))
        self.truths = int((~points.dont_care).sum())

    def _per_level(self, step: Ints) -> Ints:
        return np.bincount(self._level, weights=step, minlength=len(self.threshold)).astype(np.int64)

    @cached_property
    def f1(self) -> Floats:
        """``[K]`` F1 at every distinct score, NaN where undefined."""
        return divide(2 * self.tp, self.tp + self.fp + self.truths)

    def per_image(self, threshold: float) -> tuple[Ints, Ints, Ints]:
        """``(tp, fp, fn)``, each ``[images]``, at a threshold."""
        points, keep = self.points, self.points.scores >= threshold
        tp, fp = (self._by_image(points.found_image[keep], step[keep]) for step in (self.hits, self.false))
        return tp, fp, self.truths_per_image - tp

    @cached_property
    def truths_per_image(self) -> Ints:
        """``[images]`` truths that count."""
        return np.bincount(self.points.truth_image[~self.points.dont_care], minlength=self.points.images)

    def _by_image(self, image: Ints, step: Ints) -> Ints:
        return np.bincount(image, weights=step, minlength=self.points.images).astype(np.int64)

    def counts(self, threshold: float) -> Counts:
        """Counts over the data set at a threshold."""
        tp, fp, fn = (int(x.sum()) for x in self.per_image(threshold))
        return Counts(float(threshold), self.points.images, tp, fp, fn)

    def pd_at(self, budget: float) -> tuple[float | None, float | None]:
        """Return the best Pd with at most ``budget`` false alarms in all, and the highest threshold that gives it."""
        allowed = np.flatnonzero(self.fp <= budget + 1e-9)
        if not self.truths:
            return None, None
        if not len(allowed):
            return 0.0, None
        best = allowed[self.tp[allowed].argmax()]
        return float(self.tp[best]) / self.truths, float(self.threshold[best])

    def pd_samples(self, weights: Floats, budgets: Sequence[tuple[float, Floats]]) -> list[Floats]:
        """Return bootstrap replicates of Pd for each ``(rate, exposure an image)``, ``[R]`` each, NaN without truth.

        Pd only changes where a hit enters, so these levels are exact; beyond ``LADDER_LEVELS`` of them they are thinned
        evenly, which can only lower Pd, by about a share of 1 / LADDER_LEVELS.
        """
        truths = weights.astype(np.float64) @ self.truths_per_image
        levels = np.unique(self._level[self.hits > 0])
        if not len(levels):
            return [divide(np.zeros(len(weights)), truths) for _ in budgets]
        if len(levels) > LADDER_LEVELS:
            levels = levels[np.linspace(0, len(levels) - 1, LADDER_LEVELS).round().astype(np.int64)]
        column = np.searchsorted(levels, self._level)
        kept = column < len(levels)
        tp, fp = (
            weights @ self._table(column[kept], step[kept], kept, len(levels)) for step in (self.hits, self.false)
        )
        samples = []
        for rate, exposure in budgets:
            allowed = fp <= rate * (weights.astype(np.float64) @ exposure)[:, None] + 1e-6
            samples.append(divide(np.where(allowed, tp, 0).max(axis=1), truths))
        return samples

    def _table(self, column: Ints, step: Ints, kept: NDArray[np.bool_], columns: int) -> Floats:
        """Counts of each image at each level, ``[images, columns]`` float32."""
        cell = self.points.found_image[kept] * columns + column
        flat = np.bincount(cell, weights=step, minlength=self.points.images * columns)
        return flat.reshape(self.points.images, columns).cumsum(axis=1).astype(np.float32)

    def curve(self) -> Curve:
        """The thinned curve."""
        k = len(self.threshold)
        if k > CURVE_POINTS:
            half = CURVE_POINTS // 2
            spread = np.concatenate((np.geomspace(1, k, half) - 1, np.linspace(0, k - 1, half)))
            at = np.unique(np.append(spread.round().astype(np.int64), np.nan_to_num(self.f1).argmax()))
        else:
            at = np.arange(k)
        tp, fp = self.tp[at], self.fp[at]
        return Curve(
            tuple(float(x) for x in self.threshold[at]),
            _with_none(divide(tp, self.truths)),
            tuple(float(x) for x in fp / max(self.points.images, 1)),
            _with_none(divide(tp, tp + fp)),
            _with_none(self.f1[at]),
        )


def _with_none(values: Floats) -> tuple[float | None, ...]:
    return tuple(float(x) if np.isfinite(x) else None for x in values)


def best_threshold(truth: Sequence[Points], found: Sequence[Detections], tolerance: float = 3.0) -> float:
    """Return the threshold that maximises F1 over the data set.

    All thresholds between two neighbouring scores keep the same detections. Neighbouring stretches of the same best F1
    form a plateau (the lowest reaches down to 0); the middle of the widest plateau is returned, of equally wide
    ones the highest, so that a small shift of the scores changes nothing. Where no threshold gives a hit (nothing
    found, no truth, F1 0 throughout) it is ``FALLBACK_THRESHOLD``, 0.5.
    """
    ladder = Ladder(PointSet.of(truth, found), tolerance)
    if not len(ladder.tp) or not ladder.tp.max():
        return FALLBACK_THRESHOLD
    scores = ladder.threshold
    lower = np.append(scores[1:], min(0.0, float(scores[-1])))
    best = np.flatnonzero(ladder.f1 == ladder.f1.max())
    runs = np.split(best, np.flatnonzero(np.diff(best) > 1) + 1)
    top, bottom = max(((float(scores[r[0]]), float(lower[r[-1]])) for r in runs), key=lambda edge: edge[0] - edge[1])
    middle = float(scores.dtype.type((top + bottom) / 2))
    # Between two neighbouring floats the middle rounds to one of them, and the lower one would let more in.
    return middle if middle > bottom else top
