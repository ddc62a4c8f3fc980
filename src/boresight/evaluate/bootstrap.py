"""How sure a figure is: resampling of images, pairs of seeds, and shares of a count.

The image is the unit that is drawn, since targets of one frame share its background and its sensor. Every metric here
is made of counts that add over images, so a replicate is a row of weights and all replicates are one matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit

Floats = NDArray[np.floating]
Interval = tuple[float, float]


def image_weights(images: int, replicates: int, seed: int = 0) -> Floats:
    """Return how often each image is drawn in each replicate, ``[replicates, images]`` float32, rows sum to images."""
    if images == 0 or replicates == 0:
        return np.zeros((replicates, images), np.float32)
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1 / images), size=replicates).astype(np.float32)


def image_draws(images: int, replicates: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return a row of ones, then the rows of :func:`image_weights`, in a byte an image: ``[1 + replicates, images]``.

    A byte is enough: an image is drawn once on average, and 256 times in less than one of 10^500 replicates.
    """
    draws = np.ones((1 + replicates, images), np.uint8)
    rng = np.random.default_rng(seed)
    for row in draws[1:] if images else ():
        row[:] = rng.multinomial(images, np.full(images, 1 / images))
    return draws


def whole(weights: NDArray[Any]) -> NDArray[Any]:
    """Return image weights as whole numbers, in a byte each where that holds them.

    Raises ``ValueError`` for a weight that is none: it says how often an image counts.
    """
    if weights.dtype.kind in "bui":
        return weights
    for kind in (np.uint8, np.int64):
        with np.errstate(invalid="ignore"):
            made = weights.astype(kind)
        if (made == weights).all():
            return made
    raise ValueError("weights say how often an image counts: they must be whole numbers")


def percentile_interval(samples: Floats, level: float = 0.95) -> Interval | None:
    """Return the central ``level`` of the finite samples, or None when there is none."""
    kept = samples[np.isfinite(samples)]
    if not len(kept):
        return None
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def divide(numerator: ArrayLike, denominator: ArrayLike) -> Floats:
    """Return the ratio in float64, NaN where the denominator is zero."""
    top, bottom = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0)


def ratio_interval(
    numerator: ArrayLike, denominator: ArrayLike, weights: Floats, level: float = 0.95
) -> Interval | None:
    """Return the percentile interval of ``sum(numerator) / sum(denominator)`` over resampled images.

    Args:
        numerator, denominator: ``[N]`` counts an image. For F1 they are ``2 tp`` and ``2 tp + fp + fn``.
        weights: ``[R, N]`` from :func:`image_weights`.

    Replicates whose denominator is zero are left out; None when no other is left (Efron and Tibshirani 1993, ch. 13).
    """
    parts = [weights.astype(np.float64) @ np.asarray(x, np.float64) for x in (numerator, denominator)]
    return percentile_interval(divide(*parts), level)


def wilson(hits: int, trials: int, level: float = 0.95) -> Interval:
    """Return Wilson's score interval of a share ``hits / trials`` (Wilson 1927); ``(0, 1)`` without trials.

    Raises ``ValueError`` unless ``0 <= hits <= trials``.
    """
    if not 0 <= hits <= trials:
        raise ValueError(f"hits must lie in 0..trials, got {hits} of {trials}")
    if trials == 0:
        return 0.0, 1.0
    z = float(ndtri((1 + level) / 2))
    share, spread = hits / trials, z * z / trials
    centre = (share + spread / 2) / (1 + spread)
    half = z * np.sqrt(share * (1 - share) / trials + spread / (4 * trials)) / (1 + spread)
    # At the ends the bound is exact; rounding would leave 1e-17 there.
    low = 0.0 if hits == 0 else float(centre - half)
    high = 1.0 if hits == trials else float(centre + half)
    return low, high


def wilson_upper(hits: ArrayLike, trials: int, level: float = 0.9) -> Floats:
    """Return the bound that the share ``hits / trials`` does not exceed at ``level`` (Wilson 1927, one side).

    ``hits`` has any shape, each in ``0..trials``; 1 without trials.
    """
    share = np.asarray(hits, np.float64) / max(trials, 1)
    if trials == 0:
        return np.ones_like(share)
    z = float(ndtri(level))
    spread = z * z / trials
    half = z * np.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    return np.minimum((share + spread / 2 + half) / (1 + spread), 1.0)


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """A mean difference ``b - a`` over pairs and its interval; ``low`` and ``high`` are None where unknown."""

    estimate: float
    low: float | None
    high: float | None
    pairs: int

    @property
    def clear(self) -> bool:
        """Whether the interval is known and leaves out zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def paired_difference(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> PairedDifference:
    """Return the mean of ``b - a`` over paired seeds with Student's t interval (``n - 1`` degrees of freedom).

    ``a[k]`` and ``b[k]`` are one figure of two variants trained with the same seed. One pair gives an estimate and no
    interval. Raises ``ValueError`` for no pair, unequal lengths or values that are not finite.
    """
    if len(a) != len(b) or not len(a):
        raise ValueError(f"paired_difference needs the same seeds on both sides, got {len(a)} and {len(b)} values")
    gap = np.asarray(b, np.float64) - np.asarray(a, np.float64)
    if not np.isfinite(gap).all():
        raise ValueError(f"paired_difference needs finite values, got {list(a)} and {list(b)}")
    n, mean = len(gap), float(gap.mean())
    if n == 1:
        return PairedDifference(mean, None, None, 1)
    half = float(stdtrit(n - 1, (1 + level) / 2) * gap.std(ddof=1) / np.sqrt(n))
    return PairedDifference(mean, mean - half, mean + half, n)


def paired_f1_difference(
    a: ArrayLike, b: ArrayLike, *, replicates: int = 1000, seed: int = 0, level: float = 0.95
) -> PairedDifference:
    """Return the difference of mean F1, ``b - a``, with an interval over seeds *and* images.

    Args:
        a, b: ``[S, N, 3]`` counts ``(tp, fp, fn)`` of seed and image; row ``s`` of both was trained with the same seed
            and column ``n`` is the same image.
        replicates, seed, level: of the bootstrap.

    See :func:`paired_ratio_difference`. Raises ``ValueError`` when the shapes differ or hold no seed or no image, and
    when a seed's F1 is undefined.
    """
    counts = np.stack([np.asarray(x, np.float64) for x in (a, b)])
    if counts.ndim != 4 or counts.shape[-1] != 3 or 0 in counts.shape:
        raise ValueError(f"counts must have shape [seeds, images, 3], got {list(counts.shape[1:])}")
    ratios = np.stack((2 * counts[..., 0], 2 * counts[..., 0] + counts[..., 1] + counts[..., 2]), axis=-1)
    if not ratios[..., 1].sum(axis=-1).all():
        raise ValueError("F1 is undefined for a seed without any truth or detection")
    return paired_ratio_difference(ratios[0], ratios[1], replicates=replicates, seed=seed, level=level)


def paired_ratio_difference(
    a: ArrayLike, b: ArrayLike, *, replicates: int = 1000, seed: int = 0, level: float = 0.95
) -> PairedDifference:
    """Return the difference of a ratio of sums over images, ``b - a``, with an interval over seeds *and* images.

    Args:
        a, b: ``[S, N, 2]`` numerator and denominator of seed and image (a sum over objects and their number, say); row
            ``s`` of both was trained with the same seed and column ``n`` is the same image.
        replicates, seed, level: of the bootstrap.

    Each replicate draws the images once for all seeds and both variants (every seed sees the same images: the two
    factors are crossed, and both stay paired), then draws the seeds, and averages the ratio over them (the pigeonhole
    bootstrap, Owen 2007). With few seeds it understates their part by ``(S - 1) / S``; :func:`paired_difference` does
    not. Raises ``ValueError`` when the shapes differ or hold no seed or no image, and when a ratio is undefined.
    """
    sums = np.stack([np.asarray(x, np.float64) for x in (a, b)])
    if sums.ndim != 4 or sums.shape[-1] != 2 or 0 in sums.shape:
        raise ValueError(f"sums must have shape [seeds, images, 2], got {list(sums.shape[1:])}")
    seeds, images = sums.shape[1:3]
    weights = image_weights(images, replicates, seed).astype(np.float64)
    top, bottom = sums[..., 0], sums[..., 1]
    if not bottom.sum(axis=-1).all():
        raise ValueError("a ratio is undefined for a seed without anything to divide by")
    estimate = divide(top.sum(axis=-1), bottom.sum(axis=-1)).mean(axis=1)
    ratio = divide(np.einsum("rn,vsn->rvs", weights, top), np.einsum("rn,vsn->rvs", weights, bottom))
    drawn = np.random.default_rng([seed, 1]).integers(seeds, size=(replicates, seeds))
    gap = np.take_along_axis(ratio[:, 1] - ratio[:, 0], drawn, axis=1).mean(axis=1)
    interval = percentile_interval(gap, level)
    low, high = interval or (None, None)
    return PairedDifference(float(estimate[1] - estimate[0]), low, high, seeds)
