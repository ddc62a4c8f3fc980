"""How good point detections are: F1 at a frozen threshold, FROC, localisation error, Pd by SNR, intervals by image.

Counts are summed over the whole data set before any ratio is taken. A detection passes a threshold with
``score >= threshold``. Don't-care truths excuse the detections on them and ask for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from boresight.core.types import Detections, Points
from boresight.evaluate.bootstrap import Interval, divide, image_weights, percentile_interval, ratio_interval, wilson
from boresight.evaluate.match import Floats, Ints, PointMatch, PointSet, count_steps

RATES = (0.1, 1.0)
PIXEL_TOLERANCES = (1.0, 2.0, 3.0, 5.0)
SNR_EDGES = tuple(float(x) for x in range(3, 13))
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
class PdAt:
    """Pd at the best threshold that keeps to ``rate`` false alarms a frame or megapixel.

    ``threshold`` is None where already the highest score breaks the rate (Pd 0); ``pd`` is None without truth.
    """

    rate: float
    per: Literal["frame", "megapixel"]
    pd: float | None
    threshold: float | None
    interval: Interval | None

    @property
    def key(self) -> str:
        """The name of the figure in a report."""
        return f"pd_at_{self.rate:g}_false_alarms_per_{self.per}"


@dataclass(frozen=True)
class SnrBin:
    """Pd of the truths with ``low <= snr < high`` (the last bin holds its upper edge) at a false alarm rate a frame."""

    rate: float
    low: float
    high: float
    n: int
    hits: int
    pd: float | None
    interval: Interval


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


@dataclass(frozen=True)
class PointReport:
    """Everything :func:`evaluate_points` finds out; errors of localisation are pixels, ``found - truth``."""

    images: int
    truths: int
    dont_care: int
    megapixels: float
    tolerance: float
    at_threshold: Counts
    at_half: Counts
    pd_at: tuple[PdAt, ...]
    f1_at_px: dict[str, float | None]
    rmse: float | None
    bias_x: float | None
    bias_y: float | None
    by_snr: tuple[SnrBin, ...]
    curve: Curve
    f1_interval: Interval | None
    f1_at_half_interval: Interval | None

    def to_dict(self) -> dict[str, Any]:
        """The report for JSON: ``f1``, ``pd_at_...``, ``intervals`` at the top; None where undefined, never NaN."""
        pd = {p.key: p.pd for p in self.pd_at}
        intervals = {"f1": self.f1_interval, "f1_at_half": self.f1_at_half_interval}
        intervals |= {p.key: p.interval for p in self.pd_at}
        plain = ("images", "truths", "dont_care", "megapixels", "tolerance", "f1_at_px", "rmse", "bias_x", "bias_y")
        return {
            **self.at_threshold.to_dict(),
            "f1_at_half": self.at_half.f1,
            **pd,
            **{name: getattr(self, name) for name in plain},
            "at_half": self.at_half.to_dict(),
            "intervals": {k: None if v is None else list(v) for k, v in intervals.items()},
            "pd_thresholds": {p.key: p.threshold for p in self.pd_at},
            "by_snr": [asdict(b) | {"interval": list(b.interval)} for b in self.by_snr],
            "curve": {k: list(v) for k, v in asdict(self.curve).items()},
        }


class Ladder:
    """The exact counts at every distinct score, highest first.

    Attributes:
        points: what was matched.
        hits, false: ``[D]`` the steps of :func:`~boresight.evaluate.match.count_steps`.
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


def _f1_interval(ladder: Ladder, threshold: float, weights: Floats) -> Interval | None:
    tp, fp, fn = ladder.per_image(threshold)
    return ratio_interval(2 * tp, 2 * tp + fp + fn, weights)


def _all_pd_at(ladder: Ladder, megapixels: Floats, weights: Floats) -> tuple[PdAt, ...]:
    frames = np.ones_like(megapixels)
    wanted: list[tuple[float, Literal["frame", "megapixel"], Floats]] = []
    wanted += [(rate, "frame", frames) for rate in RATES]
    wanted += [(rate, "megapixel", megapixels) for rate in RATES]
    samples = ladder.pd_samples(weights, [(rate, exposure) for rate, _, exposure in wanted])
    return tuple(
        PdAt(rate, per, *ladder.pd_at(rate * float(exposure.sum())), percentile_interval(drawn))
        for (rate, per, exposure), drawn in zip(wanted, samples, strict=True)
    )


def _errors(points: PointSet, match: PointMatch) -> tuple[float | None, float | None, float | None]:
    """RMSE and bias in x and y of the hits, pixels; None without hits."""
    if not match.hit.any():
        return None, None, None
    gap = points.found_xy[match.hit] - points.truth_xy[match.truth_of_found[match.hit]]
    bias = gap.mean(axis=0)
    return float(np.sqrt((gap**2).sum(axis=1).mean())), float(bias[0]), float(bias[1])


def _snr_bins(ladder: Ladder, tolerance: float, edges: Sequence[float], rates: Sequence[float]) -> tuple[SnrBin, ...]:
    points = ladder.points
    counting = ~points.dont_care & np.isfinite(points.snr)
    if not counting.any():
        return ()
    bins = []
    for rate in rates:
        threshold = ladder.pd_at(rate * points.images)[1]
        hit = np.zeros(len(counting), np.bool_)
        if threshold is not None:
            hit = points.above(threshold).match(tolerance).found_of_truth >= 0
        n, hits = (np.histogram(points.snr[which], edges)[0] for which in (counting, counting & hit))
        for low, high, k, m in zip(edges[:-1], edges[1:], n.tolist(), hits.tolist(), strict=True):
            bins.append(SnrBin(rate, float(low), float(high), k, m, m / k if k else None, wilson(m, k)))
    return tuple(bins)


def evaluate_points(
    truth: Sequence[Points],
    found: Sequence[Detections],
    *,
    sizes: Sequence[tuple[int, int]],
    threshold: float,
    tolerance: float = 3.0,
    bootstrap: int = 1000,
    seed: int = 0,
    snr_edges: Sequence[float] = SNR_EDGES,
    snr_rates: Sequence[float] = RATES,
) -> PointReport:
    """Judge the detections of a data set at a threshold frozen beforehand, at 0.5 and along all thresholds.

    Args:
        truth, found: one entry an image, in the same order; pixel frame.
        sizes: ``(height, width)`` of each image, pixels.
        threshold: chosen on validation data (:func:`best_threshold`), never on these.
        tolerance: pixels, inclusive.
        bootstrap: image resamples for the 95 % percentile intervals; 0 leaves them out (None).
        snr_edges: rising edges of the SNR bins; truths outside them are in no bin.
        snr_rates: false alarms a frame at which Pd by SNR is given.

    Raises ``ValueError`` when the lists differ in length or a size is not positive.
    """
    points = PointSet.of(truth, found)
    if len(sizes) != points.images or any(h <= 0 or w <= 0 for h, w in sizes):
        raise ValueError(f"sizes must hold a positive (height, width) for each of {points.images} images")
    megapixels = np.array([h * w / 1e6 for h, w in sizes], dtype=np.float64)
    ladder = Ladder(points, tolerance)
    weights = image_weights(points.images, bootstrap, seed)
    passed = points.above(threshold)
    rmse, bias_x, bias_y = _errors(points=passed, match=passed.match(tolerance))
    return PointReport(
        images=points.images,
        truths=ladder.truths,
        dont_care=int(points.dont_care.sum()),
        megapixels=float(megapixels.sum()),
        tolerance=tolerance,
        at_threshold=ladder.counts(threshold),
        at_half=ladder.counts(0.5),
        pd_at=_all_pd_at(ladder, megapixels, weights),
        f1_at_px={f"{px:g}": _f1_at(passed, ladder.truths, px) for px in PIXEL_TOLERANCES},
        rmse=rmse,
        bias_x=bias_x,
        bias_y=bias_y,
        by_snr=_snr_bins(ladder, tolerance, snr_edges, snr_rates),
        curve=ladder.curve(),
        f1_interval=_f1_interval(ladder, threshold, weights),
        f1_at_half_interval=_f1_interval(ladder, 0.5, weights),
    )


def _f1_at(passed: PointSet, truths: int, tolerance: float) -> float | None:
    match = passed.match(tolerance)
    tp = int(match.hit.sum())
    return Counts(0.0, passed.images, tp, int(match.false_alarm.sum()), truths - tp).f1


ErrorKind = Literal["hit", "duplicate", "false_alarm", "ignored"]


@dataclass(frozen=True, slots=True)
class DetectionRow:
    """One detection and what it is: a row of ``matches.parquet``.

    ``object`` is the matched truth's row within its image, -1 for none; ``distance`` (pixels) is None with it. A
    ``duplicate`` lies within tolerance of a truth that another detection took; ``ignored`` lies on a don't-care truth.
    """

    image: int
    cell: int
    score: float
    x: float
    y: float
    distance: float | None
    object: int
    kind: ErrorKind


@dataclass(frozen=True, slots=True)
class MissedRow:
    """One truth that counts and was not found; ``object`` is its row within its image."""

    image: int
    object: int
    x: float
    y: float
    snr: float | None


def match_table(
    truth: Sequence[Points], found: Sequence[Detections], *, threshold: float = 0.0, tolerance: float = 3.0
) -> tuple[list[DetectionRow], list[MissedRow]]:
    """Return a row for every detection of ``score >= threshold`` and one for every truth missed by them.

    ``image`` is the index into ``truth``; rows are in order of image, then as given. Pixel frame.
    """
    points = PointSet.of(truth, found).above(threshold)
    match = points.match(tolerance)
    start = np.cumsum([0, *(len(p) for p in truth)])
    kind = np.select([match.hit, match.ignored, match.duplicate], ["hit", "ignored", "duplicate"], "false_alarm")
    place = np.where(match.hit, match.truth_of_found - start[points.found_image], -1)
    rows = [
        DetectionRow(image, cell, score, x, y, distance if number >= 0 else None, number, sort)
        for image, cell, score, (x, y), distance, number, sort in zip(
            points.found_image.tolist(),
            points.cell.tolist(),
            points.scores.tolist(),
            points.found_xy.tolist(),
            match.distance.tolist(),
            place.tolist(),
            kind.tolist(),
            strict=True,
        )
    ]
    missed = []
    for number in np.flatnonzero(match.missed):
        image, snr = int(points.truth_image[number]), float(points.snr[number])
        x, y = points.truth_xy[number].tolist()
        missed.append(MissedRow(image, int(number - start[image]), x, y, snr if np.isfinite(snr) else None))
    return rows, missed
