"""How the soft labels change while training runs.

Size, sigma and truncation of a soft label are one parameter: a Gaussian cut where it falls below 0.1 has the radius
2.146 sigma, so a window of 5, 4 or 3 cells stands for sigma 1.2, 1.0 or 0.8. A schedule is therefore a schedule of
sigma, as a function of progress alone, so that a resumed run sees the same labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

TRUNCATION = math.sqrt(2 * math.log(10))
"""Radius, in sigma, at which a Gaussian of peak 1 falls to 0.1: 2.146."""

WINDOW_SIGMA = {5: 1.2, 4: 1.0, 3: 0.8}
"""The sigma (cells) that a window of so many cells stands for."""


@dataclass(frozen=True)
class Label:
    """The soft label of one moment.

    Attributes:
        sigma: cells.
        weight: what the loss of positive cells is multiplied by.
    """

    sigma: float
    weight: float = 1.0

    @property
    def window(self) -> int:
        """The side, in cells, of the window that the truncated Gaussian fills: ``floor(2 * 2.146 * sigma)``."""
        return math.floor(2 * TRUNCATION * self.sigma)


Schedule = Callable[[float], Label]
"""Progress in [0, 1] to the label of that moment."""


def fixed(sigma: float) -> Schedule:
    """The same sigma from the first step to the last."""
    return lambda progress: Label(sigma)


def steps(sigmas: tuple[float, ...] = (1.2, 1.0, 0.8), breaks: tuple[float, ...] = (0.3, 0.7)) -> Schedule:
    """``sigmas[i]`` from ``breaks[i - 1]`` to ``breaks[i]`` of progress. Reverse the sigmas to sharpen first."""
    if len(sigmas) != len(breaks) + 1:
        raise ValueError(f"{len(sigmas)} sigmas need {len(sigmas) - 1} breaks, got {len(breaks)}")
    return lambda progress: Label(sigmas[sum(progress >= b for b in breaks)])


def linear(first: float = 1.2, last: float = 0.8) -> Schedule:
    """From ``first`` to ``last`` in a straight line."""
    return lambda progress: Label(first + (last - first) * progress)


def cosine(first: float = 1.2, last: float = 0.8) -> Schedule:
    """From ``first`` to ``last`` along half a cosine: slow at both ends."""
    return lambda progress: Label(last + (first - last) * (1 + math.cos(math.pi * progress)) / 2)


def with_constant_mass(schedule: Schedule, reference_sigma: float = 1.0) -> Schedule:
    """Hold the positive mass of an object: weight the positive term by ``(reference_sigma / sigma)^2``.

    The soft labels of one object, averaged over its places in a cell, sum to ``0.9 * 2 pi sigma^2`` (a tenth lies
    beyond the truncation); without this a schedule of sigma is a schedule of the positive weight as well, and the two
    effects cannot be told apart. Sum times weight then stays constant to 0.1 % for a physical peak, and to 3 % for a
    unit peak, which adds up to a tenth of a cell.
    """

    def label(progress: float) -> Label:
        now = schedule(progress)
        return Label(now.sigma, now.weight * (reference_sigma / now.sigma) ** 2)

    return label


def with_weight_ramp(schedule: Schedule, first: float = 1.0, last: float = 1.0, *, cap: float = 10.0) -> Schedule:
    """Multiply the positive weight by a straight ramp from ``first`` to ``last``, never above ``cap``.

    A weight ``w`` moves a calibrated probability ``p`` to ``w p / (w p + 1 - p)``: the threshold has to be validated
    again after training.
    """

    def label(progress: float) -> Label:
        now = schedule(progress)
        return Label(now.sigma, min(cap, now.weight * (first + (last - first) * progress)))

    return label
