"""Does the score rank by how well boxes fit?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from scipy.stats import kendalltau, rankdata

from boresight.diagnose.emitted import EmittedRows, ObjectRows
from boresight.evaluate.bootstrap import percentile_interval
from boresight.evaluate.estimate import Estimate, Resampler
from boresight.evaluate.pairs import Bools, Floats, Ints

NEAR = 0.1
"""Likeness from which a detection has to do with an object; those below are background and are not ranked."""
LEAST = 5
"""Detections an image needs to have a correlation of its own."""
TIES = 1e-6
POOLED = 200_000
"""Detections of the pooled correlation at most (drawn with a fixed seed)."""


def regret(objects: ObjectRows, draw: Resampler) -> dict[str, Any]:
    """What is lost because the cell with the highest score speaks for an object, and not the one whose box fits best.

    ``regret``: mean over objects of the best likeness among its cells less that of the top-scored cell.
    ``top_is_best``: share of objects where they are the same (or fit alike). ``best_in_reach``: mean best likeness.
    """
    known = np.isfinite(objects.best)
    lost = objects.best - objects.top
    return {
        "regret": asdict(draw.estimate(lost, known)),
        "top_is_best": asdict(draw.estimate((lost <= TIES).astype(float), known)),
        "best_in_reach": asdict(draw.estimate(objects.best, known)),
        "top": asdict(draw.estimate(objects.top, known)),
        "without_cells": int((~known).sum()),
    }


def correlations(rows: EmittedRows, draw: Resampler) -> dict[str, Any]:
    """Spearman's and Kendall's rank correlation (tau-b) of score and fit, within images and over all.

    Of detections before suppression that have to do with an object of their class (likeness 0.1). Within: the mean
    over images with five of them, its interval by image. None where there are too few, or all are alike.
    """
    near = rows.own >= NEAR
    within = {"spearman": [], "kendall": []}  # type: dict[str, list[float]]
    order = np.flatnonzero(near)
    cuts = np.flatnonzero(np.diff(rows.image[order])) + 1
    for part in np.split(order, cuts):
        if len(part) >= LEAST:
            for name, measure in (("spearman", spearman), ("kendall", kendall)):
                if (value := measure(rows.score[part], rows.own[part])) is not None:
                    within[name].append(value)
    rng = np.random.default_rng(0)
    pool = order if len(order) <= POOLED else rng.choice(order, POOLED, replace=False)
    told: dict[str, Any] = {"n": len(order)}
    for name, measure in (("spearman", spearman), ("kendall", kendall)):
        told[name] = {
            "within": asdict(_mean(np.array(within[name]), len(draw.weights))),
            "pooled": measure(rows.score[pool], rows.own[pool]),
        }
    return told


def _mean(values: Floats, replicates: int) -> Estimate:
    if not len(values):
        return Estimate(None, 0, None)
    rng = np.random.default_rng(0)
    drawn = np.array([values[rng.integers(len(values), size=len(values))].mean() for _ in range(replicates)])
    return Estimate(float(values.mean()), len(values), percentile_interval(drawn))


def spearman(a: Floats, b: Floats) -> float | None:
    """Pearson's correlation of the ranks, ties sharing theirs; None for fewer than two, or where one does not vary."""
    if len(a) < 2:
        return None
    x, y = (rankdata(v) - (len(v) + 1) / 2 for v in (a, b))
    size = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum() / size) if size > 0 else None


def kendall(a: Floats, b: Floats) -> float | None:
    """Kendall's tau-b; None as in :func:`spearman`."""
    if len(a) < 2 or not np.ptp(a) or not np.ptp(b):
        return None
    return float(kendalltau(a, b).statistic)


def calibration(score: Floats, fit: Floats, where: Bools, bins: int = 10) -> dict[str, Any] | None:
    """How far a score is from the likeness that it stands for; None without detections.

    ``error`` is the expected calibration error (Guo et al. 2017, eq. 3) with likeness in the place of accuracy;
    ``bias`` the mean score less the mean likeness; ``bins`` the reliability curve.
    """
    s, f = score[where], fit[where]
    if not len(s):
        return None
    place = score_bins(s, bins)
    told, reached = (np.bincount(place, v, bins).astype(np.float64) for v in (s, f))
    curve = reliability(np.bincount(place, minlength=bins), told, reached)
    return None if curve is None else curve | {"bias": float((s - f).mean())}


def score_bins(score: Floats, bins: int) -> Ints:
    """The bin of each score in [0, 1], of ``bins`` of one width."""
    return np.clip((score * bins).astype(np.int64), 0, bins - 1)


def reliability(count: Ints | Floats, told: Floats, reached: Floats) -> dict[str, Any] | None:
    """:func:`calibration` of how many detections each bin holds, and what their scores and their fits sum to."""
    n = int(count.sum())
    if not n:
        return None
    curve = [
        {"low": k / len(count), "n": int(c), "score": float(a / c), "fit": float(b / c)}
        for k, (c, a, b) in enumerate(zip(count, told, reached, strict=True))
        if c
    ]
    error = float(np.abs(told - reached).sum() / n)
    return {"n": n, "error": error, "bias": float((told.sum() - reached.sum()) / n), "bins": curve}
