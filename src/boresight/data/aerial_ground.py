"""The ground of an aerial scene: up to three regions of grass, soil, city, water or forest with seams between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from PIL import Image

from boresight.data.aerial_pen import Array, Colour, Light
from boresight.data.aerial_streets import draw_streets

GROUNDS: tuple[str, ...] = ("grass", "soil", "asphalt", "water", "forest")
"""What a scene lies on."""

TYPICAL: dict[str, tuple[str, ...]] = {
    "aircraft": ("asphalt",), "helicopter": ("asphalt", "grass"), "ship": ("water",),
    "storage tank": ("asphalt", "soil"), "vehicle": ("asphalt", "soil"), "truck": ("asphalt", "soil"),
    "tennis court": ("grass", "asphalt"), "swimming pool": ("grass", "asphalt"), "bridge": ("water",),
    "wind turbine": ("grass", "soil"),
}  # fmt: skip
"""Where a kind is mostly found. Never only there: the ground must not tell the kind."""

_COLOURS: dict[str, tuple[tuple[Colour, Colour], ...]] = {  # pairs: the two ends of a ground's range of colour
    "grass": (((96, 122, 62), (132, 144, 82)), ((118, 128, 70), (158, 150, 96)), ((84, 112, 66), (112, 138, 78))),
    "soil": (((168, 138, 100), (192, 164, 126)), ((134, 104, 76), (160, 130, 98)), ((196, 178, 142), (212, 196, 164))),
    "asphalt": (((112, 112, 114), (132, 131, 130)), ((142, 141, 138), (160, 158, 152)), ((90, 92, 96), (112, 112, 98))),
    "water": (((42, 78, 96), (58, 98, 112)), ((62, 88, 82), (82, 106, 96)), ((52, 76, 112), (70, 100, 132))),
    "forest": (((46, 72, 40), (76, 100, 54)), ((58, 80, 46), (92, 108, 62)), ((52, 70, 50), (74, 94, 66))),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Ground:
    """What a scene lies on.

    Attributes:
        names: one of ``GROUNDS`` a region, all different.
        region: ``[H, W]`` uint8, the region of each pixel, an index into ``names``.
        weights: ``[H, W]`` float32 a region, how much of it a pixel shows (they sum to 1).
        ends: the two ends of each region's range of colour.
    """

    names: tuple[str, ...]
    region: NDArray[np.uint8]
    weights: tuple[Array, ...]
    ends: tuple[tuple[Colour, Colour], ...]

    def at(self, x: float, y: float) -> int:
        """Return the region at a place in the pixel frame (outside the frame: that of the nearest pixel)."""
        height, width = self.region.shape
        return int(self.region[min(max(int(y), 0), height - 1), min(max(int(x), 0), width - 1)])

    def mean(self, region: int) -> Colour:
        """Return the colour in the middle of a region's range."""
        low, high = self.ends[region]
        return (low[0] + high[0]) / 2, (low[1] + high[1]) / 2, (low[2] + high[2]) / 2


def lay_ground(
    rng: np.random.Generator, shape: tuple[int, int], kinds: Sequence[str] = (), typical: float = 0.0
) -> Ground:
    """Draw which grounds a frame of ``shape`` (rows, columns) has, and the seams between them.

    Each is, with the chance ``typical``, one where a kind of ``kinds`` is mostly found, and otherwise any.
    """
    count = int(rng.choice(3, p=(0.3, 0.5, 0.2))) + 1
    chosen: dict[str, None] = {}
    while len(chosen) < count:
        likely = kinds and rng.random() < typical
        among = TYPICAL[kinds[int(rng.integers(len(kinds)))]] if likely else GROUNDS
        chosen[among[int(rng.integers(len(among)))]] = None
        typical *= 0.6  # the rest of a scene is less likely to suit: one kind alone has few grounds
    names = tuple(chosen)
    ends = tuple(_vary(rng, name) for name in names)
    weights, region = [np.ones(shape, np.float32)], np.zeros(shape, np.uint8)
    for k, field in enumerate(noise_fields(rng, shape, exponent=2.6, coarse=4)[: count - 1], start=1):
        share = _seam(rng, shape, field)
        weights = [w * (1 - share) for w in weights] + [share]
        region[share > 0.5] = k
    return Ground(names, region, tuple(weights), ends)


def _vary(rng: np.random.Generator, name: str) -> tuple[Colour, Colour]:
    choices = _COLOURS[name]
    low, high = choices[int(rng.integers(len(choices)))]
    shift = rng.normal(0, 5, 3) + rng.normal(0, 8)
    pair = [tuple(float(min(max(v + s, 12.0), 225.0)) for v, s in zip(end, shift, strict=True)) for end in (low, high)]
    return pair[0], pair[1]  # type: ignore[return-value]


def _seam(rng: np.random.Generator, shape: tuple[int, int], rough: Array) -> Array:
    """How much of the next region a pixel shows: one side of a line, or a strip (a river, a road), bent by noise."""
    height, width = shape
    angle = rng.uniform(0, 2 * math.pi)
    size = min(shape)
    x = (np.arange(width, dtype=np.float32) - width * rng.uniform(0.25, 0.75)) * np.float32(math.cos(angle))
    y = (np.arange(height, dtype=np.float32) - height * rng.uniform(0.25, 0.75)) * np.float32(math.sin(angle))
    away = y[:, None] + x[None] + rough * np.float32(size * rng.choice((0.0, 0.05, 0.12)))
    if rng.random() < 0.35:
        away = np.float32(size * rng.uniform(0.12, 0.22)) - np.abs(away)
    return np.clip(away * np.float32(1 / rng.uniform(1.0, 5.0)) + np.float32(0.5), 0, 1)


_BYTE_RMS = math.sqrt((256**2 - 1) / 12)


@lru_cache(maxsize=32)
def _filter(shape: tuple[int, int], low: float, exponent: float) -> Array:
    """Amplitude of a spectrum 1/f^exponent that is flat below ``low`` cycles a frame, with mean square 1 in space."""
    fy = np.fft.fftfreq(shape[0])[:, None] * min(shape)
    fx = np.fft.fftfreq(shape[1])[None] * min(shape)
    amplitude = np.maximum(np.hypot(fy, fx), low) ** (-exponent / 2)
    amplitude[0, 0] = 0.0
    return (amplitude * np.sqrt(shape[0] * shape[1] / (amplitude**2).mean()) / _BYTE_RMS).astype(np.float32)


def noise_fields(
    rng: np.random.Generator, shape: tuple[int, int], exponent: float, low: float = 1.0, coarse: int = 1, tiles: int = 1
) -> list[Array]:
    """Draw two independent fields ``shape`` of mean 0 and rms 1 with power ``1/f^exponent`` (flat below ``low``).

    They are the real and the imaginary part of one inverse transform of complex white noise. The white noise is of
    uniform bytes: the transform adds up thousands of them, and drawing them costs nothing. ``coarse`` > 1 makes the
    fields that many times smaller and enlarges them smoothly, for those whose fine detail does not show; ``tiles`` > 1
    repeats a smaller field that many times (it is periodic), for those whose repetition does not show.
    """
    parts = coarse * tiles
    small = -(-shape[0] // parts), -(-shape[1] // parts)
    white = np.frombuffer(rng.bytes(2 * small[0] * small[1]), np.int8) + np.float32(0.5)
    field = scipy.fft.ifft2(white.view(np.complex64).reshape(small) * _filter(small, low, exponent), overwrite_x=True)
    fields = [np.ascontiguousarray(field.real), np.ascontiguousarray(field.imag)]
    if tiles > 1:
        return [np.ascontiguousarray(np.tile(f, (tiles, tiles))[: shape[0], : shape[1]]) for f in fields]
    if coarse == 1:
        return fields
    down, across = _enlarger(small[0], shape[0]), _enlarger(small[1], shape[1])
    return [down @ f @ across.T for f in fields]


@lru_cache(maxsize=16)
def _enlarger(small: int, large: int) -> Array:
    """The matrix ``[large, small]`` that enlarges a column smoothly (bicubic): two products cost less than a resize."""
    return np.asarray(Image.fromarray(np.eye(small, dtype=np.float32)).resize((small, large), Image.Resampling.BICUBIC))


def _shifted(field: Array, light: Light, step: float) -> Array:
    """The field less itself a step towards the light: as if lit from the side."""
    dy, dx = round(light.y * step), round(light.x * step)
    return field - np.roll(field, (dy, dx), axis=(0, 1))


def paint_ground(rng: np.random.Generator, ground: Ground, light: Light) -> Array:
    """Paint the ground ``[3, H, W]``, float32 0..255, before the light's strength."""
    shape = ground.region.shape
    soft = noise_fields(rng, shape, exponent=2.2, low=3.0, coarse=8)
    fine = noise_fields(rng, shape, exponent=1.0, low=min(shape) / 24, tiles=2)
    shown = [k for k in range(len(ground.names)) if (ground.region == k).any()]
    planes, colours = np.empty((2 * len(shown), *shape), np.float32), []
    for row, k in enumerate(shown):
        tint, relief = _TEXTURE[ground.names[k]](rng, soft, fine, light)
        low, high = ground.ends[k]
        bright, share = planes[2 * row], planes[2 * row + 1]
        np.add(relief, 1, out=bright)
        np.clip(np.float32(0.35) * tint + np.float32(0.5), -0.2, 1.2, out=share)
        planes[2 * row : 2 * row + 2] *= ground.weights[k]
        colours += [low, [h - w for h, w in zip(high, low, strict=True)]]
    mixed = np.array(colours, np.float32).T @ planes.reshape(len(planes), -1)  # low * bright + (high - low) * share
    image = mixed.reshape(3, *shape)
    for k in shown:
        if ground.names[k] == "asphalt":
            draw_streets(rng, image, ground.weights[k], (light.x, light.y))
    return image


def _axes(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Coordinates along and across a random direction, pixels."""
    angle = rng.uniform(0, math.pi)
    c, s = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    y, x = np.arange(shape[0], dtype=np.float32)[:, None], np.arange(shape[1], dtype=np.float32)[None]
    return c * x + s * y, c * y - s * x


def _grass(rng: np.random.Generator, soft: list[Array], fine: list[Array], light: Light) -> tuple[Array, Array]:
    """Parcels of different green with furrows, or open grass."""
    tint, relief = 0.6 * soft[0] + 0.2 * fine[0], np.float32(0.045) * fine[0]
    if rng.random() < 0.6:
        along, across = _axes(rng, soft[0].shape)
        wide, long = rng.uniform(40, 110), rng.uniform(70, 200)
        shades = rng.normal(0, 1.1, (16, 16)).astype(np.float32)
        rows, columns = (across / wide).astype(np.int16) & 15, (along / long).astype(np.int16) & 15
        tint = tint + shades[rows, columns]
        period = rng.uniform(4, 11)
        wave = np.sin(across * np.float32(2 * math.pi / period) + soft[1] * np.float32(0.5))
        relief = relief + np.float32(rng.uniform(0.01, 0.05)) * wave
    return tint, relief


def _soil(rng: np.random.Generator, soft: list[Array], fine: list[Array], light: Light) -> tuple[Array, Array]:
    """Bare ground, with ripples or tracks of a plough."""
    relief = np.float32(0.05) * fine[1] + np.float32(0.06) * _shifted(soft[0], light, 3)
    if rng.random() < 0.5:
        _, across = _axes(rng, soft[0].shape)
        bend = np.float32(rng.uniform(0.5, 2.0))
        relief = relief + np.float32(0.035) * np.sin(
            across * np.float32(2 * math.pi / rng.uniform(5, 14)) + bend * soft[1]
        )
    return soft[0] + np.float32(0.3) * fine[1], relief


def _asphalt(rng: np.random.Generator, soft: list[Array], fine: list[Array], light: Light) -> tuple[Array, Array]:
    """Tarmac or concrete with stains."""
    stains: Array = np.maximum(soft[0] - 1, np.float32(0))
    return np.float32(0.8) * soft[1], np.float32(0.03) * fine[0] - np.float32(0.04) * stains


def _water(rng: np.random.Generator, soft: list[Array], fine: list[Array], light: Light) -> tuple[Array, Array]:
    """Waves of one direction, bent, with glints."""
    _, across = _axes(rng, soft[0].shape)
    phase = (
        across * np.float32(2 * math.pi / rng.uniform(5, 12)) + np.float32(1.6) * soft[1] + np.float32(0.8) * fine[1]
    )
    waves = np.sin(phase)
    glint: Array = np.maximum(waves * fine[0] - np.float32(1.6), np.float32(0))
    return soft[0], np.float32(rng.uniform(0.02, 0.06)) * waves + np.float32(0.02) * fine[1] + np.float32(0.35) * glint


def _forest(rng: np.random.Generator, soft: list[Array], fine: list[Array], light: Light) -> tuple[Array, Array]:
    """Tree crowns: a rough field lit from the side."""
    crowns: Array = np.abs(fine[0])
    relief = np.float32(0.2) * _shifted(crowns, light, 2.5) - np.float32(0.08)
    return np.float32(0.8) * soft[0] + np.float32(0.5) * fine[1], relief


_Texture = Callable[[np.random.Generator, list[Array], list[Array], Light], tuple[Array, Array]]
_TEXTURE: dict[str, _Texture] = {
    "grass": _grass, "soil": _soil, "asphalt": _asphalt, "water": _water, "forest": _forest
}  # fmt: skip
