"""The ideal observer: the best Pd that white noise allows, as the line no detector may lie above.

For a target of known shape in white Gaussian noise, the likelihood ratio is the matched filter, so a detector that
thresholds its maxima is optimal (Neyman-Pearson). A network above the line has seen the truth (a leak); one far below
it wastes what the pixels hold.

What is simulated, exactly:

* the frame is white noise of unit variance; the target is the pixel-integrated Gaussian
  (:func:`boresight.core.psf.gaussian_psf`) at a place uniform within a pixel, scaled so that
  ``flux * sqrt(sum(PSF^2)) = SNR``;
* the observer filters with the PSF of a target at a pixel's *centre* (unit norm) and reports every maximum of its 3x3
  neighbourhood above a threshold, at the pixel's centre. It tries no sub-pixel templates: between the pixels noise
  gains nearly as much as targets, and at a fixed false alarm rate Pd rises by less than 0.02 (measured with templates
  at 4x4 places a pixel), so that a detector may lie that much above the line;
* the threshold gives the stated number of noise maxima a frame. Every pixel counts as an interior one (the outermost
  ring of a 640x480 frame is 0.7 % of it). The rate is not counted on frames (at 0.1 a frame that would take thousands
  of them) but drawn from the exact law of a pixel and its eight neighbours after the filter, conditioned on the pixel
  lying above the threshold (importance sampling);
* a target is found when at least one reported maximum lies within the tolerance of its true place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d
from scipy.special import ndtr, ndtri

from boresight.core.psf import gaussian_psf, gaussian_share

Array = NDArray[np.float64]

_NEIGHBOURS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0))


def _template(sigma: float) -> Array:
    """One axis of the unit-norm template, ``[2 R + 1]``, ``R = ceil(5 sigma)``; the template is its outer square."""
    radius = math.ceil(5.0 * sigma)
    line = gaussian_share(radius + 0.5, sigma, 2 * radius + 1)
    return line / float(np.linalg.norm(line))


def matched_filter(image: NDArray[Any], sigma: float = 1.0) -> Array:
    """Correlate an image with the unit-norm pixel-integrated Gaussian PSF: the SNR map of white noise.

    Args:
        image: ``[H, W]`` noise of mean 0 and standard deviation 1 plus targets (subtract the background and divide by
            the noise first). Outside it is taken as 0, which damps the map within ``5 sigma`` of a border.
        sigma: standard deviation of the PSF, pixels.

    Returns:
        ``[H, W]`` float64: noise has unit variance, and a target at a pixel's centre peaks at its SNR on average.

    Raises:
        ValueError: the image is not two-dimensional or sigma is not positive.
    """
    if image.ndim != 2:
        raise ValueError(f"matched_filter wants an image [H, W], got shape {list(image.shape)}")
    line = _template(sigma)
    down = correlate1d(image.astype(np.float64), line, axis=0, mode="constant")
    return np.asarray(correlate1d(down, line, axis=1, mode="constant"), dtype=np.float64)


class _NoiseMaxima:
    """How many 3x3 maxima of filtered white noise lie above a threshold, by importance sampling.

    With ``z`` the value at a pixel, its neighbours are jointly normal given ``z``: mean ``rho z``, covariance
    ``C - rho rho^T``. The rate a pixel is ``P(z > u) * P(all neighbours < z | z > u)``; the second factor is averaged
    over draws that are the same for every ``u``, so that the rate falls smoothly and can be inverted.
    """

    def __init__(self, sigma: float, draws: int, rng: np.random.Generator) -> None:
        line = _template(sigma)
        lags = np.correlate(line, line, "full")[len(line) - 1 :]
        places = np.array(_NEIGHBOURS)
        apart = np.abs(places[:, None] - places[None])
        self._rho = lags[np.abs(places)].prod(-1)
        conditional = lags[apart].prod(-1) - np.outer(self._rho, self._rho)
        self._rest = rng.standard_normal((draws, len(places))) @ np.linalg.cholesky(conditional).T
        self._tail = (np.arange(draws) + 0.5) / draws

    def rate(self, threshold: float) -> float:
        """Maxima above ``threshold`` a pixel."""
        share = float(ndtr(-threshold))
        z = -ndtri(self._tail * share)[:, None]
        return share * float((self._rho * z + self._rest < z).all(-1).mean())

    def threshold(self, rate: float) -> float:
        """The threshold with this ``rate`` a pixel, by bisection on [-4, 12]."""
        low, high = -4.0, 12.0
        if not self.rate(high) < rate < self.rate(low):
            raise ValueError(f"no threshold gives {rate:.3g} maxima a pixel: choose between 1e-30 and 0.1")
        while high - low > 1e-4:
            middle = (low + high) / 2
            low, high = (middle, high) if self.rate(middle) > rate else (low, middle)
        return (low + high) / 2


def _responses(sigma: float, reach: int, trials: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Filtered patches around targets: ``noise``, ``signal`` at SNR 1 (both ``[T, S, S]``, S = 2 reach + 3) and
    ``distance`` of the inner pixel centres from the target (``[T, S - 2, S - 2]``).
    """
    line = _template(sigma)
    side = 2 * reach + 3
    patch = side + len(line) - 1
    band = np.zeros((side, patch))
    for i in range(side):
        band[i, i : i + len(line)] = line
    xy = patch // 2 + rng.random((trials, 2))
    psf = gaussian_psf(xy, sigma, patch, patch)
    psf /= np.linalg.norm(psf, axis=(1, 2), keepdims=True)
    noise = rng.standard_normal((trials, patch, patch))
    centres = len(line) // 2 + 1 + np.arange(side - 2) + 0.5
    distance = np.hypot(centres[:, None] - xy[:, 1, None, None], centres - xy[:, 0, None, None])
    return band @ noise @ band.T, band @ psf @ band.T, distance


def _height_of_best(response: Array, near: NDArray[np.bool_]) -> Array:
    """The highest 3x3 maximum among the inner pixels that are ``near``, ``[T]`` (minus infinity without one)."""
    side = response.shape[-1]
    inner = response[:, 1:-1, 1:-1]
    peak = near.copy()
    for dy, dx in _NEIGHBOURS:
        peak &= inner > response[:, 1 + dy : side - 1 + dy, 1 + dx : side - 1 + dx]
    return np.asarray(np.where(peak, inner, -np.inf).max(axis=(1, 2)), dtype=np.float64)


def ideal_observer(
    snr: Sequence[float],
    false_alarms_per_frame: Sequence[float],
    *,
    shape: tuple[int, int] = (480, 640),
    sigma: float = 1.0,
    tolerance: float = 3.0,
    trials: int = 4000,
    seed: int = 0,
) -> Array:
    """Probability of detection of the ideal observer in white noise (see the module for what is simulated).

    Args:
        snr: ``[S]`` matched-filter SNR of the targets.
        false_alarms_per_frame: ``[F]`` noise maxima a frame that the threshold lets through, positive.
        shape: ``(height, width)`` of the frame, pixels.
        sigma: standard deviation of the Gaussian PSF, pixels.
        tolerance: largest distance of a detection from the true place, pixels (inclusive).
        trials: simulated targets an SNR. The standard error of Pd is at most ``0.5 / sqrt(trials)``: 0.008 by default.
        seed: the result is a pure function of the arguments. All SNR and rates share their draws, so that the curve is
            smooth.

    Returns:
        ``[F, S]`` float64 in [0, 1].

    Raises:
        ValueError: a rate that no threshold gives, or no trials.

    Source: Kay, Fundamentals of Statistical Signal Processing II, section 4.3 (matched filter).
    """
    if trials < 1:
        raise ValueError(f"trials must be at least 1, got {trials}")
    tail, patches = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2))
    maxima = _NoiseMaxima(sigma, 20_000, tail)
    pixels = shape[0] * shape[1]
    thresholds = np.array([maxima.threshold(rate / pixels) for rate in false_alarms_per_frame])
    found = np.zeros((len(thresholds), len(snr)))
    for start in range(0, trials, 2000):  # in batches: 2000 patches of 21x21 are 7 MB
        count = min(2000, trials - start)
        noise, signal, distance = _responses(sigma, math.ceil(tolerance), count, patches)
        for column, value in enumerate(snr):
            best = _height_of_best(noise + value * signal, distance <= tolerance)
            found[:, column] += (best > thresholds[:, None]).sum(-1)
    return found / trials
