"""What lies behind the targets: gradient, 1/f^a clutter, clouds, a skyline; the mean of each pixel in electrons."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boresight.data.sky_settings import Sky

Image = NDArray[np.float32]

_CLOUD_EXPONENT = 3.2  # steep: large banks with a fractal edge (power spectra of cloud radiance fall as f^-3 or faster)
_SKYLINE_EXPONENT = 2.0  # a ridge of hills is close to a random walk


@lru_cache(maxsize=8)
def _log_frequency(height: int, width: int) -> Image:
    """Log of the radial frequency of ``rfft2``, ``[H, W // 2 + 1]``; the zero frequency is +inf (no power)."""
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    squared = fy**2 + fx**2
    squared[0, 0] = np.inf
    log: Image = (0.5 * np.log(squared)).astype(np.float32)
    log.setflags(write=False)
    return log


def power_law_field(rng: np.random.Generator, height: int, width: int, exponent: float) -> Image:
    """Return ``[H, W]`` Gaussian noise with power spectrum ``1 / f^exponent``, mean 0, rms 1 over the frame.

    It is periodic: the left edge continues at the right.
    """
    amplitude = np.exp(np.float32(-exponent / 2) * _log_frequency(height, width))
    pairs = rng.standard_normal((*amplitude.shape, 2), dtype=np.float32)
    field = np.fft.irfft2(pairs.view(np.complex64)[..., 0] * amplitude, s=(height, width))
    spread = float(field.std())
    return np.asarray(field / np.float32(spread), dtype=np.float32)


def _gradient(rng: np.random.Generator, sky: Sky) -> Image:
    """A plane of mean 0 in a random direction; from corner to corner it changes by the drawn peak-to-peak share."""
    angle, span = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(*sky.gradient)
    dx, dy = float(np.cos(angle)), float(np.sin(angle))
    step = span / (abs(dx) + abs(dy))
    across = np.linspace(-0.5, 0.5, sky.width, dtype=np.float32) * np.float32(dx * step)
    down = np.linspace(-0.5, 0.5, sky.height, dtype=np.float32) * np.float32(dy * step)
    return np.asarray(across + down[:, None], dtype=np.float32)


def _clouds(rng: np.random.Generator, sky: Sky) -> Image:
    """Radiance of clouds: a steep field above a threshold, opaque where it is thick."""
    cover, contrast = rng.uniform(0.15, 0.6), rng.uniform(*sky.cloud_contrast)
    field = power_law_field(rng, sky.height, sky.width, _CLOUD_EXPONENT)
    threshold = np.quantile(field[::4, ::4], 1.0 - cover)  # a sixteenth of the pixels tells the quantile well enough
    thickness = np.maximum(field - np.float32(threshold), 0)
    return np.asarray(np.float32(contrast) * (1 - np.exp(-4 * thickness)), dtype=np.float32)


def _ground(rng: np.random.Generator, sky: Sky) -> Image:
    """Share of ground in each pixel, 0 to 1: everything under a tilted, hilly skyline with an edge of about a pixel."""
    tilt, middle = rng.uniform(-0.1, 0.1), rng.uniform(0.5, 0.9) * sky.height
    hills = power_law_field(rng, 2, sky.width, _SKYLINE_EXPONENT)[0] * rng.uniform(0.0, 0.04) * sky.height
    skyline = (middle + tilt * (np.arange(sky.width) - sky.width / 2) + hills).astype(np.float32)
    rows = np.arange(sky.height, dtype=np.float32)[:, None] + np.float32(0.5)
    return np.asarray(np.clip(rows - skyline + np.float32(0.5), 0, 1), dtype=np.float32)


def mean_background(rng: np.random.Generator, sky: Sky) -> NDArray[Any]:
    """Return the photo-electrons that each pixel collects on average without targets, ``[H, W]`` float32, at least 0.

    ``QE * exposure * B * (1 + gradient + clutter + clouds + ground)``; the dark current is not in it.
    """
    level = sky.quantum_efficiency * sky.exposure * rng.uniform(*sky.background)
    exponent, rms = rng.uniform(*sky.clutter_exponent), rng.uniform(*sky.clutter_rms)
    cloudy, skyline = rng.random(2) < (sky.cloud_share, sky.horizon_share)
    relative = 1 + _gradient(rng, sky)
    clutter: Any = np.float32(rms) * power_law_field(rng, sky.height, sky.width, exponent) if rms > 0 else np.float32(0)
    clouds: Any = _clouds(rng, sky) if cloudy else np.float32(0)
    if skyline:
        ground = _ground(rng, sky)
        relative += np.float32(rng.uniform(*sky.horizon_contrast)) * ground
        clouds = clouds * (1 - ground)  # the ground hides what is behind it
        clutter = clutter * (1 + np.float32(sky.ground_roughness - 1) * ground)
    return np.maximum(relative + clutter + clouds, 0) * np.float32(level)
