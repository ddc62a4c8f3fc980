"""Means over objects, and how sure they are: images are drawn again, their objects with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from boresight.evaluate.bootstrap import Interval, divide, image_weights, percentile_interval
from boresight.evaluate.pairs import Bools, Floats, Ints


@dataclass(frozen=True)
class Estimate:
    """A figure over ``n`` objects and its 95 % bootstrap interval by image; None where undefined."""

    value: float | None
    n: int
    interval: Interval | None

    def __str__(self) -> str:
        if self.value is None:
            return "undefined"
        span = "" if self.interval is None else f" [{self.interval[0]:.2f}, {self.interval[1]:.2f}]"
        return f"{self.value:.2f}{span}"


@dataclass(frozen=True)
class Drawn:
    """A figure and its bootstrap replicates, so that differences and ratios of figures keep their pairing.

    ``value`` is NaN where undefined, as are the entries of ``samples [R]``.
    """

    value: float
    samples: Floats
    n: int

    def estimate(self) -> Estimate:
        """The figure with its percentile interval."""
        if not np.isfinite(self.value):
            return Estimate(None, self.n, None)
        return Estimate(self.value, self.n, percentile_interval(self.samples))

    def minus(self, other: Drawn) -> Drawn:
        """The difference; the smaller ``n`` of both."""
        return Drawn(self.value - other.value, self.samples - other.samples, min(self.n, other.n))

    def plus(self, other: Drawn) -> Drawn:
        """The sum; the smaller ``n`` of both."""
        return Drawn(self.value + other.value, self.samples + other.samples, min(self.n, other.n))

    def below_one(self) -> Drawn:
        """``1 - x``."""
        return Drawn(1 - self.value, 1 - self.samples, self.n)


class Resampler:
    """Averages values over objects, under the data and under resampled images.

    Args:
        image: ``[O]`` the image of each object, from 0.
        images: number of images.
        replicates, seed: of the bootstrap; 0 replicates leave intervals out.
    """

    def __init__(self, image: Ints, images: int, replicates: int, seed: int) -> None:
        self.image, self.images = image, images
        self.weights = image_weights(images, replicates, seed).astype(np.float64)

    def mean(self, values: ArrayLike, where: Bools | None = None) -> Drawn:
        """Average ``values [O]`` over the objects ``where`` (bool ``[O]``); NaN marks objects without a value."""
        given = np.asarray(values, np.float64)
        use = np.isfinite(given) if where is None else np.isfinite(given) & where
        if not use.any():
            return Drawn(float("nan"), np.full(len(self.weights), np.nan), 0)
        total = np.bincount(self.image[use], weights=given[use], minlength=self.images)
        count = np.bincount(self.image[use], minlength=self.images)
        samples = divide(self.weights @ total, self.weights @ count)
        return Drawn(float(divide(total.sum(), count.sum())), samples, int(count.sum()))

    def estimate(self, values: ArrayLike, where: Bools | None = None) -> Estimate:
        """:meth:`mean` with its interval."""
        return self.mean(values, where).estimate()
