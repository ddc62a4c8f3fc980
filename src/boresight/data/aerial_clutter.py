"""Things in an aerial scene that nobody asks for: look-alikes on the ground, tree crowns and clouds above it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from boresight.data.aerial_pen import Colour, Patch, Pen, named_colour
from boresight.data.aerial_settings import COLOURS

_WHITE: Colour = (232.0, 232.0, 228.0)


def draw_distractor(rng: np.random.Generator, length: float) -> Patch:
    """Draw one thing that looks like an object and is none, ``length`` pixels across.

    Half of them have one of the five colours, so that a colour alone names nothing; plain discs, rectangles and
    crosses have the outlines of tanks, trucks and aircraft without their details.
    """
    shape = _DISTRACTORS[int(rng.integers(len(_DISTRACTORS)))]
    colour = _paint(rng)
    pen = Pen(colour, length, rng.uniform(0, 2 * math.pi), (rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5)))
    return pen.finish(shape(pen, rng))


def _paint(rng: np.random.Generator) -> Colour:
    if rng.random() < 0.5:
        return named_colour(rng, COLOURS[int(rng.integers(len(COLOURS)))])
    level = rng.uniform(60, 190)
    red, green, blue = level + rng.uniform(-32, 32, 3)
    return float(red), float(green), float(blue)


def _tarp(pen: Pen, rng: np.random.Generator) -> float:
    """A sheet with uneven corners and folds."""
    corners = [(x + rng.uniform(-0.1, 0.1), y + rng.uniform(-0.1, 0.1)) for x, y in _QUAD]
    pen.polygon(corners, pen.main)
    pen.polygon([corners[0], corners[1], (0.0, 0.0)], pen.tone(0.1))
    pen.polygon([corners[2], corners[3], (0.0, 0.0)], pen.tone(-0.12))
    return 0.0


def _disc(pen: Pen, rng: np.random.Generator) -> float:
    """A flat disc: a tank without its rim and its shadow."""
    radius = rng.uniform(0.3, 0.45)
    pen.ellipse(0, 0, radius, radius * rng.uniform(0.75, 1.0), pen.main)
    return 0.0


def _plate(pen: Pen, rng: np.random.Generator) -> float:
    """A flat rectangle: a truck or a court without anything on it."""
    half = rng.uniform(0.1, 0.32)
    pen.box(-0.5, -half, 0.5, half, pen.main)
    return 0.0


def _cross(pen: Pen, rng: np.random.Generator) -> float:
    """A painted cross: the outline of an aircraft without taper."""
    wide = rng.uniform(0.1, 0.18)
    pen.line(-0.5, 0, 0.5, 0, wide, pen.main)
    pen.line(0, -0.5, 0, 0.5, wide, pen.main)
    return 0.0


def _stain(pen: Pen, rng: np.random.Generator) -> float:
    """A blob: a pond, a puddle, a spill."""
    pen.polygon(_blob(rng, 0.2), pen.main)
    pen.polygon([(0.7 * x + 0.03, 0.7 * y) for x, y in _blob(rng, 0.1)], pen.tone(0.06))
    return 0.0


def _rock(pen: Pen, rng: np.random.Generator) -> float:
    """Rocks in any grey, lit on one side."""
    grey = rng.uniform(90, 160)
    for _ in range(int(rng.integers(1, 4))):
        x, y, size = rng.uniform(-0.25, 0.25), rng.uniform(-0.25, 0.25), rng.uniform(0.25, 0.5)
        pen.polygon([(x + size * u, y + size * v) for u, v in _blob(rng, 0.25, 9)], (grey, grey, grey - 6))
        pen.polygon([(x + 0.5 * size * u, y + 0.5 * size * v) for u, v in _blob(rng, 0.2, 7)], (grey + 25,) * 3)
    return 0.12


def _roof(pen: Pen, rng: np.random.Generator) -> float:
    """A gabled roof."""
    half = rng.uniform(0.24, 0.4)
    pen.box(-0.5, -half, 0.5, 0, pen.tone(0.1))
    pen.box(-0.5, 0, 0.5, half, pen.tone(-0.18))
    pen.box(-0.3, -half * 0.6, -0.2, -half * 0.35, pen.detail(0.5))
    return 0.2


def _marking(pen: Pen, rng: np.random.Generator) -> float:
    """Stripes on the ground: a crossing, a parking row."""
    count = int(rng.integers(3, 7))
    for k in range(count):
        x = -0.5 + k / count
        pen.box(x, -0.16, x + 0.45 / count, 0.16, _WHITE)
    return 0.0


def _tree(pen: Pen, rng: np.random.Generator) -> float:
    """One to three crowns."""
    for _ in range(int(rng.integers(1, 4))):
        _crown(pen, rng, rng.uniform(-0.2, 0.2), rng.uniform(-0.2, 0.2), rng.uniform(0.2, 0.3))
    return 0.22


def _crown(pen: Pen, rng: np.random.Generator, x: float, y: float, radius: float) -> None:
    green: Colour = (rng.uniform(44, 84), rng.uniform(78, 112), rng.uniform(38, 62))
    for shrink, lift in ((1.0, 0.0), (0.72, 14.0), (0.42, 26.0)):
        dx = 0.15 * radius * (1 - shrink)
        outline = [(x + dx + 2 * radius * shrink * u, y + 2 * radius * shrink * v) for u, v in _blob(rng, 0.16, 16)]
        pen.polygon(outline, (green[0] + lift, green[1] + lift, green[2] + 0.6 * lift))


def _blob(rng: np.random.Generator, rough: float, corners: int = 14) -> list[tuple[float, float]]:
    """An uneven round outline of radius one half."""
    turns = np.arange(corners) * (2 * math.pi / corners)
    radius = 0.5 * (1 - rough * rng.random(corners))
    return list(zip((radius * np.cos(turns)).tolist(), (radius * np.sin(turns)).tolist(), strict=True))


_QUAD = ((-0.4, -0.3), (0.4, -0.3), (0.4, 0.3), (-0.4, 0.3))
_DISTRACTORS: tuple[Callable[[Pen, np.random.Generator], float], ...] = (
    _tarp, _disc, _plate, _cross, _stain, _rock, _roof, _marking, _tree
)  # fmt: skip


def draw_crown(rng: np.random.Generator, length: float) -> Patch:
    """Draw a single tree crown, ``length`` pixels across, that may stand over an object."""
    pen = Pen((70.0, 100.0, 52.0), length, rng.uniform(0, 2 * math.pi))
    _crown(pen, rng, 0.0, 0.0, 0.5)
    return pen.finish(0.2)


def draw_cloud(rng: np.random.Generator, length: float) -> Patch:
    """Draw a wisp of cloud, ``length`` pixels long: white, ragged, nowhere quite opaque, and far above its shadow."""
    side = max(round(length), 5)
    angle = rng.uniform(0, math.pi)
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    along = axis[None] * math.cos(angle) + axis[:, None] * math.sin(angle)
    across = axis[:, None] * math.cos(angle) - axis[None] * math.sin(angle)
    cover = 1 - along**2 - (across * rng.uniform(1.1, 2.0)) ** 2
    coarse = rng.standard_normal((9, 9), dtype=np.float32)
    rough = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
    alpha = np.clip((cover + 0.35 * rough) * np.clip(3 * cover, 0, 1), 0, 1) * np.float32(rng.uniform(0.7, 0.9))
    white = np.full((3, side, side), rng.uniform(222, 245), np.float32)
    return Patch(white, alpha.astype(np.float32), -(side // 2), -(side // 2))
