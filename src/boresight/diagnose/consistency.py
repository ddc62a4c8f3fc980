"""Do boxes come from cells that were trained to emit them, and what does it cost where they do not?

Three buckets and not two: a detection comes from a supervised cell, from one inside of an object that is not
supervised, or from the background. With two of them every detector looks guilty. Three looks that are not circular
stand beside them: another assigner that cannot see predictions (:mod:`boresight.diagnose.control`), a comparison of
cells that score alike, and the fit against the distance to the object's centre.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from boresight.diagnose.emitted import BUCKETS, INSIDE, NOWHERE, SUPERVISED, EmittedRows
from boresight.evaluate.bootstrap import divide, percentile_interval
from boresight.evaluate.estimate import Estimate, Resampler
from boresight.evaluate.pairs import Bools, Floats, Ints

FOUND = 0.5
"""Likeness from which a detection counts as found."""
DISTANCES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, np.inf)
"""Bins of the distance from a cell to the centre of its object, strides."""
HISTOGRAM = 20
SCORE_BINS = 10


@dataclass(frozen=True, slots=True)
class Spread:
    """How values in [0, 1] are spread; None where there are none. ``histogram`` counts twenty equal bins."""

    n: int
    mean: float | None
    median: float | None
    low: float | None
    high: float | None
    histogram: tuple[int, ...]

    @classmethod
    def of(cls, values: Floats) -> Spread:
        """Of ``[n]`` values: their mean, median and quartiles."""
        counts = tuple(np.histogram(values, HISTOGRAM, (0, 1))[0].tolist())
        if not len(values):
            return cls(0, None, None, None, None, counts)
        low, median, high = (float(q) for q in np.quantile(values, [0.25, 0.5, 0.75]))
        return cls(len(values), float(values.mean()), median, low, high, counts)


@dataclass(frozen=True, slots=True)
class Bucket:
    """The detections of one bucket.

    Attributes:
        share: of all detections.
        iou: how well they fit the object that they fit best, of any class.
        score: as emitted.
        false: share that is a false alarm. After suppression by COCO's one-to-one rule at 0.5; before it, those that
            reach 0.5 with no object of their class.
        false_n: their number.
    """

    share: float | None
    iou: Spread
    score: Spread
    false: Estimate
    false_n: int


def bucket_tables(rows: EmittedRows, hit: Bools, ignored: Bools, draw: Resampler) -> dict[str, Any]:
    """Buckets by the detector's own assigner and by the control, before and after suppression.

    Args:
        rows: every detection.
        hit: ``[D]`` of the kept ones, those that took an object by COCO's rule.
        ignored: ``[D]`` of the kept ones, those that are excused.
        draw: resamples the images of ``rows``.
    """
    every, kept = np.ones(len(rows), bool), rows.kept
    loose = rows.own < FOUND
    return {
        name: {
            "before": _table(rows, bucket, every, loose, draw),
            "after": _table(rows, bucket, kept & ~ignored, ~hit, draw),
        }
        for name, bucket in (("own", rows.bucket), ("control", rows.control))
        if (bucket != NOWHERE).any()
    }


def _table(rows: EmittedRows, bucket: Ints, where: Bools, false: Bools, draw: Resampler) -> dict[str, Any]:
    told = {}
    for k, name in enumerate(BUCKETS):
        mine = where & (bucket == k)
        share = float(mine.sum() / where.sum()) if where.any() else None
        of = Bucket(
            share,
            Spread.of(rows.iou[mine]),
            Spread.of(rows.score[mine]),
            draw.estimate(false.astype(float), mine),
            int((false & mine).sum()),
        )
        if mine.any():
            told[name] = asdict(of)
    return told


def gap(rows: EmittedRows, bucket: Ints, draw: Resampler, where: Bools | None = None) -> dict[str, Any]:
    """How much better boxes of supervised cells fit than those of unsupervised cells in an object, before suppression.

    ``plain``: mean over all of one less that of the other. ``matched``: of those that score alike (ten bins of equal
    numbers), so that a good score alone does not make the difference.
    """
    use = np.ones(len(rows), bool) if where is None else where
    sides = [use & (bucket == k) for k in (SUPERVISED, INSIDE)]
    plain = draw.mean(rows.iou, sides[0]).minus(draw.mean(rows.iou, sides[1])).estimate()
    return {"plain": asdict(plain), "matched": asdict(_matched(rows, sides, draw))}


def _matched(rows: EmittedRows, sides: list[Bools], draw: Resampler) -> Estimate:
    """Mean over bins of the score of the difference, each weighed by ``n m / (n + m)``."""
    both = sides[0] | sides[1]
    n = min(int(s.sum()) for s in sides)
    if not n:
        return Estimate(None, 0, None)
    edges = np.quantile(rows.score[both], np.linspace(0, 1, SCORE_BINS + 1)[1:-1])
    place = rows.image * SCORE_BINS + np.searchsorted(edges, rows.score, side="right")
    size = draw.images * SCORE_BINS

    def summed(where: Bools, values: Floats | None) -> Floats:
        weights = None if values is None else values[where]
        counts = np.bincount(place[where], weights=weights, minlength=size).astype(np.float64)
        return counts.reshape(draw.images, SCORE_BINS)

    tables = [(summed(s, rows.iou), summed(s, None)) for s in sides]
    value = _difference(*[(a.sum(0), b.sum(0)) for a, b in tables])
    samples = _difference(*[(draw.weights @ a, draw.weights @ b) for a, b in tables])
    return Estimate(float(value), n, percentile_interval(samples)) if np.isfinite(value) else Estimate(None, n, None)


def _difference(one: tuple[Floats, Floats], two: tuple[Floats, Floats]) -> Floats:
    (sum_a, n_a), (sum_b, n_b) = one, two
    weight = np.nan_to_num(divide(n_a * n_b, n_a + n_b))  # a bin that holds neither weighs nothing
    step = np.where(weight > 0, divide(sum_a, n_a) - divide(sum_b, n_b), 0.0)
    return divide((weight * step).sum(-1), weight.sum(-1))


def by_distance(rows: EmittedRows, draw: Resampler) -> list[dict[str, Any]]:
    """Mean fit by distance from the cell to the object's centre, of supervised cells and others in an object."""
    table = []
    for low, high in pairwise(DISTANCES):
        within = (rows.distance >= low) & (rows.distance < high)
        sides = {BUCKETS[k]: within & (rows.bucket == k) for k in (SUPERVISED, INSIDE)}
        if any(s.any() for s in sides.values()):
            means = {name: asdict(draw.estimate(rows.iou, s)) for name, s in sides.items()}
            table.append({"low": low, "high": None if np.isinf(high) else high, **means})
    return table
