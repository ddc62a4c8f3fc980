"""From the parts of an aerial scene to its pixels: shadows, things, cover, light, haze, blur and noise."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from boresight.data.aerial_layout import Placed
from boresight.data.aerial_pen import Array, Light

_SUM_RMS = math.sqrt(2 * (65536.0**2 - 1) / 12)


def blend(image: Array, piece: Placed) -> None:
    """Lay a piece over ``image [3, H, W]`` in place."""
    frame, own = piece.windows(image.shape[1:])
    under = image[:, *frame]
    under += piece.patch.alpha[own] * (piece.patch.rgb[:, *own] - under)


def shade(image: Array, pieces: list[Placed], light: Light) -> None:
    """Darken ``image [3, H, W]`` in place where ``pieces`` cast their shadows; shadows that meet do not add up."""
    tall = [p for p in pieces if p.patch.height * light.slope >= 0.5]
    if not tall:
        return
    dark = np.zeros(image.shape[1:], np.float32)
    for piece in tall:
        length = piece.patch.height * light.slope
        steps = math.ceil(length / 2)
        for k in range(1, steps + 1):  # the thing is solid: its outline swept along the ground
            dy, dx = round(light.y * length * k / steps), round(light.x * length * k / steps)
            frame, own = Placed(piece.patch, piece.top + dy, piece.left + dx).windows(dark.shape)
            np.maximum(dark[frame], piece.patch.alpha[own], out=dark[frame])
    image *= 1 - np.float32(light.depth) * dark


def expose(rng: np.random.Generator, image: Array) -> NDArray[np.uint8]:
    """Return the photograph ``[3, H, W]`` uint8 of the painted scene ``image [3, H, W]`` (0..255), which is used up.

    Drawn once a scene: strength and warmth of the light, haze (which lowers the contrast), blur, and the sensor's
    noise. All are bounded so that a named colour stays that colour.
    """
    gain = rng.uniform(0.84, 1.12) * (1 + rng.uniform(-0.03, 0.03) * np.array((1.0, 0.0, -1.0)))
    haze = rng.uniform(0.0, 0.16)
    air = np.array((196.0, 204.0, 214.0))
    planes = image
    planes *= ((1 - haze) * gain).astype(np.float32)[:, None, None]
    if rng.random() < 0.5:
        planes = _blurred(planes, np.float32(rng.uniform(0.04, 0.22)))
    grain = _grain(rng, planes.shape[1:], rng.uniform(1.0, 5.0))
    planes += grain
    grain *= np.float32(0.4)  # some of the noise is colour noise: the same grain elsewhere
    planes[0, :, 7:] += grain[:, :-7]
    planes[2, 5:] -= grain[:-5]
    planes += (haze * air + 0.5).astype(np.float32)[:, None, None]
    return np.clip(planes, 0, 255, out=planes).astype(np.uint8)


def _grain(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> Array:
    """Noise of mean 0 and rms ``sigma``, each value the sum of two uniform ones: no far tails, and cheap to draw."""
    size = math.prod(shape)
    two = np.frombuffer(rng.bytes(4 * size), np.int16).reshape(2, *shape)
    return np.add(two[0], two[1], dtype=np.float32) * np.float32(sigma / _SUM_RMS)


def _blurred(planes: Array, side: np.float32) -> Array:
    """Average each pixel with its neighbours above and below, then left and right, ``side`` the weight of each."""
    down = planes * (1 - 2 * side)
    down[:, 1:] += planes[:, :-1] * side
    down[:, :-1] += planes[:, 1:] * side
    down[:, 0] += planes[:, 0] * side
    down[:, -1] += planes[:, -1] * side
    across = down * (1 - 2 * side)
    across[:, :, 1:] += down[:, :, :-1] * side
    across[:, :, :-1] += down[:, :, 1:] * side
    across[:, :, 0] += down[:, :, 0] * side
    across[:, :, -1] += down[:, :, -1] * side
    return across
