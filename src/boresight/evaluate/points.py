"""How good point detections are: F1 at a frozen threshold, FROC, localisation error, Pd by SNR, intervals by image.

Counts are summed over the whole data set before any ratio is taken. A detection passes a threshold with
``score >= threshold``. Don't-care truths excuse the detections on them and ask for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from boresight.core.types import Detections, Points
from boresight.evaluate.bootstrap import Interval, image_weights, percentile_interval, ratio_interval, wilson
from boresight.evaluate.gather import PointSet
from boresight.evaluate.ladder import Counts, Curve, Ladder
from boresight.evaluate.match import PointMatch
from boresight.evaluate.pairs import Floats

RATES = (0.1, 1.0)
PIXEL_TOLERANCES = (1.0, 2.0, 3.0, 5.0)
SNR_EDGES = tuple(float(x) for x in range(3, 13))


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
