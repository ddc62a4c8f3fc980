"""The targets: where they lie, how the optics image them, and how bright an SNR makes them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from boresight.core.errors import UserError
from boresight.core.psf import SIGMA_TO_FWHM, gaussian_psf
from boresight.data.sky_settings import Sky

Array = NDArray[np.float64]
Window = tuple[slice, slice]

NOISE_WINDOW = 11
"""Side in pixels of the window in which a target's local background and clutter are measured."""

_REACH = {"gaussian": 5.0, "moffat": 10.0, "airy": 12.0}  # window half-size in sigmas: the light outside is not drawn
_QUADRATURE = tuple((0.5 * (x + 1), 0.5 * w) for x, w in zip(*np.polynomial.legendre.leggauss(4), strict=True))
_SMEAR = tuple((0.5 * x, 0.5 * w) for x, w in zip(*np.polynomial.legendre.leggauss(7), strict=True))
_AIRY_HALF = 1.61634  # (2 J1(v) / v)^2 = 1/2


def place_targets(rng: np.random.Generator, count: int, sky: Sky) -> Array:
    """Draw ``count`` places uniformly, ``[count, 2]`` in the pixel frame, inside the border and apart from each other.

    The whole set is drawn again until it fits, which keeps it uniform among the sets that do. Raises ``UserError`` when
    2000 draws do not fit.
    """
    low = np.array([sky.border, sky.border])
    high = np.array([sky.width - sky.border, sky.height - sky.border])
    for _ in range(2000):
        xy = rng.uniform(low, high, (count, 2))
        apart = np.hypot(*(xy[:, None] - xy[None]).T) + np.where(np.eye(count, dtype=bool), np.inf, 0.0)
        if count < 2 or apart.min() >= sky.min_separation:
            return xy
    raise UserError(
        f"sky.min_separation: {count} targets {sky.min_separation} px apart do not fit into {sky.width}x{sky.height}; "
        "make it or sky.targets smaller"
    )


@lru_cache(maxsize=1)
def _airy_table() -> tuple[Array, Array]:
    """``v`` and ``(2 J1(v) / v)^2`` up to v = 60, with ``J1(v) = mean over [0, pi] of cos(t - v sin t)``."""
    v = np.arange(1, 6001) * 0.01
    t = (np.arange(128) + 0.5) * (np.pi / 128)
    bessel = np.cos(t - v[:, None] * np.sin(t)).mean(-1)
    return np.concatenate(([0.0], v)), np.concatenate(([1.0], (2 * bessel / v) ** 2))


@dataclass(frozen=True)
class Optics:
    """How one frame images a point: the drawn values of the knobs of the same names (angles in radians)."""

    psf: str
    sigma: float
    beta: float = 3.0
    ellipticity: float = 0.0
    direction: float = 0.0
    blur: float = 0.0
    blur_direction: float = 0.0

    @classmethod
    def draw(cls, rng: np.random.Generator, sky: Sky) -> Optics:
        """Draw the optics of a frame."""
        sigma, ellipticity, blur = (rng.uniform(*pair) for pair in (sky.sigma, sky.ellipticity, sky.motion_blur))
        direction, blur_direction = rng.uniform(0, np.pi, 2)
        return cls(sky.psf, sigma, sky.moffat_beta, ellipticity, direction, blur, blur_direction)

    def image(self, x: float, y: float, shape: tuple[int, int]) -> tuple[Window, Array]:
        """Return the window of a frame of ``shape`` that a point at ``(x, y)`` lights, and the share of each pixel.

        The shares sum to 1 less the light outside the window (under 1e-6 for the Gaussian, 0.2 % for a Moffat of
        ``beta`` 3, some 5 % for an Airy pattern) and less what the frame's edge cuts off.
        """
        reach = math.ceil(_REACH[self.psf] * self.sigma / math.sqrt(1.0 - self.ellipticity) + self.blur / 2)
        top, left = max(math.floor(y) - reach, 0), max(math.floor(x) - reach, 0)
        bottom, right = min(math.floor(y) + reach + 1, shape[0]), min(math.floor(x) + reach + 1, shape[1])
        dx, dy = self.blur * math.cos(self.blur_direction), self.blur * math.sin(self.blur_direction)
        smear = _SMEAR if self.blur > 0 else ((0.0, 1.0),)
        share = np.zeros((bottom - top, right - left))
        for step, weight in smear:
            share += weight * self._still(x + step * dx - left, y + step * dy - top, *share.shape)
        return (slice(top, bottom), slice(left, right)), share

    def _still(self, x: float, y: float, rows: int, columns: int) -> Array:
        """The unsmeared image: exact for the round Gaussian, else 4x4 Gauss-Legendre points a pixel."""
        if self.psf == "gaussian" and self.ellipticity == 0:
            return gaussian_psf((x, y), self.sigma, rows, columns)
        nodes, weights = (np.array(v) for v in zip(*_QUADRATURE, strict=True))
        across = (np.arange(columns)[:, None] + nodes - x).reshape(-1)
        down = (np.arange(rows)[:, None] + nodes - y).reshape(-1, 1)
        cosine, sine = math.cos(self.direction), math.sin(self.direction)
        stretch = math.sqrt(1.0 - self.ellipticity)  # keeps the area, and with it the flux
        squared = ((cosine * across + sine * down) * stretch) ** 2 + ((cosine * down - sine * across) / stretch) ** 2
        density = self._density(squared).reshape(rows, len(nodes), columns, len(nodes))
        return np.asarray(np.einsum("rmcn,m,n->rc", density, weights, weights), dtype=np.float64)

    def _density(self, squared: Array) -> Array:
        """Light a square pixel at squared radius ``squared``; its integral over the plane is 1."""
        fwhm = SIGMA_TO_FWHM * self.sigma
        if self.psf == "gaussian":
            return np.asarray(np.exp(-squared / (2 * self.sigma**2)) / (2 * math.pi * self.sigma**2))
        if self.psf == "moffat":
            alpha2 = (fwhm / 2) ** 2 / (2 ** (1 / self.beta) - 1)
            return np.asarray((self.beta - 1) / (math.pi * alpha2) * (1 + squared / alpha2) ** -self.beta)
        scale = 2 * _AIRY_HALF / fwhm
        v, intensity = _airy_table()
        return np.asarray(scale**2 / (4 * math.pi) * np.interp(scale * np.sqrt(squared), v, intensity))


def local_noise(x: float, y: float, background: NDArray[np.floating], sky: Sky) -> float:
    """Return the noise that an SNR is stated against: its standard deviation in electrons at a target at ``(x, y)``.

    The sum of the variances, in e-^2, with ``b`` the mean of ``background`` (``[H, W]`` photo-electrons, without noise
    and without targets) in the window of ``NOISE_WINDOW`` pixels around the target, cut at the frame's edge:

    * shot noise of background and dark current, ``b + dark * exposure``;
    * readout ``read_noise^2``, rounding ``gain^2 / 12``;
    * fixed pattern ``(prnu * b)^2 + row_noise^2 + column_noise^2``;
    * local clutter: the variance of ``background`` within the window (everything in it: clutter, gradient, edges).

    The target's own shot noise, hot and dead pixels and streaks are not in it. Clutter is correlated and does not
    average out over the PSF as white noise does: in strong clutter a plain matched filter sees less than the stated
    SNR. Only in white noise (the preset ``white``) is the SNR that of the ideal observer.
    """
    half = NOISE_WINDOW // 2
    row, column = math.floor(y), math.floor(x)
    window = background[max(row - half, 0) : row + half + 1, max(column - half, 0) : column + half + 1]
    level = float(window.mean(dtype=np.float64))
    photon = level + sky.dark * sky.exposure
    readout = sky.read_noise**2 + sky.gain**2 / 12 + sky.row_noise**2 + sky.column_noise**2
    return math.sqrt(photon + readout + (sky.prnu * level) ** 2 + float(window.var(dtype=np.float64)))


def flux_of(snr: float, share: Array, noise: float) -> float:
    """The flux in electrons of a target with this matched-filter SNR: ``snr * noise / sqrt(sum(PSF^2))``."""
    return snr * noise / float(np.linalg.norm(share))
