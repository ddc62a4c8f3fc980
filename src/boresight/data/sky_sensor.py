"""The camera: from the light of a scene to the numbers it writes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from boresight.data.sky_settings import Sky

Image = NDArray[np.float32]


def _pixels(rng: np.random.Generator, share: float, sky: Sky) -> NDArray[np.int64]:
    """Flat indices of a random ``share`` of the frame's pixels (the count is Poisson)."""
    size = sky.height * sky.width
    return rng.integers(0, size, rng.poisson(share * size))


def _streak(rng: np.random.Generator, sky: Sky) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Flat indices and charges, e-, of a cosmic ray's path: a straight line of 1 to 25 pixels from a random place."""
    x, y, angle = rng.uniform(0, sky.width), rng.uniform(0, sky.height), rng.uniform(0, 2 * np.pi)
    steps = np.arange(0.0, min(1 + rng.exponential(6.0), 25.0), 0.25)
    columns = np.floor(x + steps * np.cos(angle)).astype(np.int64)
    rows = np.floor(y + steps * np.sin(angle)).astype(np.int64)
    inside = (columns >= 0) & (columns < sky.width) & (rows >= 0) & (rows < sky.height)
    charge = 0.25 * sky.cosmic_level * rng.gamma(4.0, 0.25) * rng.gamma(4.0, 0.25, len(steps))
    return (rows * sky.width + columns)[inside], charge[inside]


def _collect(rng: np.random.Generator, light: Image, sky: Sky) -> Image:
    """Electrons in the wells: Poisson around light, dark current and hot pixels, with streaks, none in dead pixels."""
    mean = light
    if sky.prnu > 0:
        response = rng.standard_normal(light.shape, dtype=np.float32)
        mean = light * np.maximum(1 + np.float32(sky.prnu) * response, 0)
    mean = mean + np.float32(sky.dark * sky.exposure)
    hot = _pixels(rng, rng.uniform(*sky.hot_share), sky)
    np.add.at(mean.reshape(-1), hot, rng.exponential(sky.hot_level * sky.exposure, len(hot)).astype(np.float32))
    electrons = rng.poisson(mean).astype(np.float32)
    for _ in range(rng.poisson(sky.cosmic_rate)):
        path, charge = _streak(rng, sky)
        np.add.at(electrons.reshape(-1), path, charge.astype(np.float32))
    electrons.reshape(-1)[_pixels(rng, sky.dead_share, sky)] = 0
    return electrons


def expose(rng: np.random.Generator, light: Image, sky: Sky) -> Image:
    """Return the frame that the camera writes: ``[H, W]`` float32 whole numbers from 0 to ``2^bits - 1`` (ADU).

    ``n = Poisson(light * PRNU + dark + hot) + streaks + Normal(0, read) + rows + columns``, then
    ``clip(round(n / gain + bias))``.

    Args:
        rng: read in a fixed order.
        light: ``[H, W]`` mean photo-electrons of background and targets, at least 0; not written to.
        sky: the camera's knobs.
    """
    signal = _collect(rng, light, sky)
    signal += np.float32(sky.read_noise) * rng.standard_normal(signal.shape, dtype=np.float32)
    rows = sky.row_noise * rng.standard_normal((sky.height, 1))
    signal += (rows + sky.column_noise * rng.standard_normal((1, sky.width))).astype(np.float32)
    signal *= np.float32(1 / sky.gain)
    signal += np.float32(sky.bias)
    return np.clip(np.rint(signal, out=signal), 0, 2**sky.bits - 1, out=signal)
