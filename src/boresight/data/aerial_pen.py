"""Colours, light, and a pen for small rotated things, drawn larger and averaged down."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Array = NDArray[np.float32]
Colour = tuple[float, float, float]
Points = Sequence[tuple[float, float]]

_FINE_BELOW = 28.0  # pixels: a smaller thing is drawn four times larger and averaged down, a larger one three times

_HSV = {  # (hue, its jitter, saturation from/to, value from/to): hues stay 20 degrees away from any other word
    "red": (0.995, 0.015, 0.78, 0.95, 0.66, 0.86),
    "blue": (0.610, 0.020, 0.70, 0.90, 0.62, 0.88),
    "yellow": (0.145, 0.012, 0.75, 0.92, 0.86, 0.97),
    "white": (0.100, 0.100, 0.00, 0.05, 0.88, 0.97),
    "black": (0.600, 0.300, 0.00, 0.15, 0.06, 0.13),
}


def named_colour(rng: np.random.Generator, name: str) -> Colour:
    """Draw a colour, RGB in 0..255, that ``name`` (of ``COLOURS``) is true of."""
    hue, spread, s0, s1, v0, v1 = _HSV[name]
    red, green, blue = colorsys.hsv_to_rgb(
        (hue + rng.uniform(-spread, spread)) % 1.0, rng.uniform(s0, s1), rng.uniform(v0, v1)
    )
    return 255 * red, 255 * green, 255 * blue


def mix(one: Colour, two: Colour, share: float) -> Colour:
    """Return ``one`` with ``share`` (0..1) of ``two``."""
    return (
        one[0] + share * (two[0] - one[0]), one[1] + share * (two[1] - one[1]), one[2] + share * (two[2] - one[2])
    )  # fmt: skip


@dataclass(frozen=True)
class Light:
    """The sun of a scene: where shadows fall, and how strong it is.

    Attributes:
        x: direction in which shadows fall, the x of a unit vector in the frame.
        y: its y.
        slope: length of a shadow per height.
        depth: how much of the light a shadow takes, 0..1.
    """

    x: float
    y: float
    slope: float
    depth: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Light:
        """Draw a sun between 35 and 63 degrees above the horizon."""
        angle = rng.uniform(0, 2 * math.pi)
        return cls(math.cos(angle), math.sin(angle), rng.uniform(0.5, 1.4), rng.uniform(0.3, 0.6))


@dataclass(frozen=True, eq=False)
class Patch:
    """A drawn thing: colours ``rgb [3, h, w]`` in 0..255 and ``alpha [h, w]`` in 0..1, float32.

    ``top`` and ``left`` say where its first pixel lies, counted from the pixel of the thing's centre. ``height`` is how
    far its top stands above the ground, in pixels: what it casts a shadow with.
    """

    rgb: Array
    alpha: Array
    top: int
    left: int
    height: float = 0.0

    def lit(self, light: Light) -> Patch:
        """Return the patch brighter towards the light and darker away from it, the more the higher the thing stands."""
        if self.height == 0:
            return self
        rows, columns = self.alpha.shape
        half = max(rows, columns) / 2
        strength = 0.9 * min(self.height / half, 0.4) / (2 * half)
        across = np.arange(self.left, self.left + columns, dtype=np.float32) * np.float32(-light.x * strength)
        down = np.arange(self.top, self.top + rows, dtype=np.float32) * np.float32(-light.y * strength)
        slope = (across + 1)[None] + down[:, None]
        return replace(self, rgb=np.minimum(self.rgb * slope, np.float32(255)))


class Pen:
    """Draws in coordinates where the thing's longest side runs from -0.5 to 0.5 along x, turned by ``angle``.

    Args:
        main: the thing's colour, RGB in 0..255.
        length: its longest side in pixels.
        angle: direction of its x axis in the frame, radians (y points down).
        offset: where its centre lies within the middle pixel, in pixels, each in -0.5..0.5.
        reach: how far from the centre it is drawn, in units of ``length``.
    """

    def __init__(
        self, main: Colour, length: float, angle: float, offset: tuple[float, float] = (0.0, 0.0), reach: float = 0.6
    ) -> None:
        half = math.ceil(reach * length) + 2
        self.main, self.length, self.side = main, length, 2 * half + 1
        self._finer = finer = 4 if length < _FINE_BELOW else 3
        middle = (half + 0.5 + offset[0], half + 0.5 + offset[1])
        cosine, sine = finer * length * math.cos(angle), finer * length * math.sin(angle)
        self._map = (cosine, sine, finer * middle[0], finer * middle[1])
        side = finer * self.side
        # The fourth band is the alpha; were PIL told so, it would convert the drawing twice to average it. Around the
        # thing lies its main colour, so that the plain average of an edge keeps it.
        self.image = Image.new("RGBX", (side, side), (*_whole(main), 0))
        self._draw = ImageDraw.Draw(self.image)

    def polygon(self, points: Points, colour: Colour) -> None:
        """Fill a polygon."""
        c, s, x0, y0 = self._map
        self._draw.polygon([(c * x - s * y + x0, s * x + c * y + y0) for x, y in points], fill=(*_whole(colour), 255))

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        """Fill a rectangle."""
        self.polygon(((x0, y0), (x1, y0), (x1, y1), (x0, y1)), colour)

    def ellipse(self, x: float, y: float, a: float, b: float, colour: Colour, corners: int = 28) -> None:
        """Fill an ellipse with half axes ``a`` (along x) and ``b``."""
        turns = [2 * math.pi * k / corners for k in range(corners)]
        self.polygon([(x + a * math.cos(t), y + b * math.sin(t)) for t in turns], colour)

    def line(
        self, x0: float, y0: float, x1: float, y1: float, width: float, colour: Colour, least: float = 0.8
    ) -> None:
        """Draw a line of ``width`` (in units of the length, at least ``least`` pixels)."""
        half = max(width, least / self.length) / 2
        dx, dy = x1 - x0, y1 - y0
        norm = math.hypot(dx, dy)
        nx, ny = -dy / norm * half, dx / norm * half
        self.polygon(((x0 + nx, y0 + ny), (x1 + nx, y1 + ny), (x1 - nx, y1 - ny), (x0 - nx, y0 - ny)), colour)

    def tone(self, change: float) -> Colour:
        """Return the main colour, lighter for a positive ``change`` (1 is white), darker for a negative one."""
        return mix(self.main, (255.0, 255.0, 255.0) if change > 0 else (0.0, 0.0, 0.0), abs(change))

    def detail(self, strength: float) -> Colour:
        """Return the main colour moved away by ``strength``: darker details on a light thing, lighter on a dark one."""
        bright = 0.3 * self.main[0] + 0.59 * self.main[1] + 0.11 * self.main[2]
        return self.tone(-strength if bright > 60 else 0.6 * strength)

    def finish(self, height: float = 0.0) -> Patch:
        """Reduce the drawing to the frame's pixels; ``height`` in units of the length."""
        small = self.image.reduce(self._finer)
        left, top, right, bottom = small.getchannel(3).getbbox() or (0, 0, 1, 1)
        values = np.asarray(small.crop((left, top, right, bottom))).transpose(2, 0, 1).astype(np.float32, order="C")
        half = self.side // 2
        return Patch(values[:3], values[3] * np.float32(1 / 255), top - half, left - half, height * self.length)


def _whole(colour: Colour) -> tuple[int, int, int]:
    return int(colour[0] + 0.5), int(colour[1] + 0.5), int(colour[2] + 0.5)
