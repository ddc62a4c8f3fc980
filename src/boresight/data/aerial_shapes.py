"""The ten kinds of objects, each drawn from above: outline, a few details, and how high it stands.

Every ``_kind(pen, rng)`` draws with the longest side along x and returns the height in units of the length. Most of
the pixels have the main colour: the colour word must stay true.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from boresight.data.aerial_pen import Colour, Patch, Pen, mix

_GLASS: Colour = (38.0, 48.0, 60.0)
_CONCRETE: Colour = (176.0, 172.0, 164.0)
_WHITE: Colour = (240.0, 240.0, 238.0)
_RUBBER: Colour = (30.0, 30.0, 32.0)


def draw_object(
    rng: np.random.Generator, kind: str, colour: Colour, length: float, angle: float, offset: tuple[float, float]
) -> Patch:
    """Draw one object; ``rng`` draws its proportions and details.

    Args:
        rng: source of the proportions.
        kind: one of ``KINDS``.
        colour: its main colour, RGB in 0..255.
        length: longest side in pixels.
        angle: direction of the longest side, radians.
        offset: see :class:`~boresight.data.aerial_pen.Pen`.
    """
    pen = Pen(colour, length, angle, offset, reach=0.62)
    height = _DRAW[kind](pen, rng)
    return pen.finish(height)


def draw_wake(rng: np.random.Generator, length: float, angle: float) -> Patch:
    """Draw the foam behind a ship of ``length`` pixels that sails in direction ``angle``; centred on the ship."""
    pen = Pen((226.0, 232.0, 234.0), length, angle, reach=1.3)
    far, wide = rng.uniform(0.8, 1.2), rng.uniform(0.16, 0.3)
    _mirrored(pen, [(-0.42, 0.05), (-far, wide), (-far - 0.06, wide * 0.72)], pen.main)
    pen.polygon([(-0.42, 0.06), (-far, 0.03), (-far, -0.03), (-0.42, -0.06)], pen.main)
    drawn = pen.finish()
    return replace(drawn, alpha=drawn.alpha * np.float32(rng.uniform(0.3, 0.6)))


def _glass(pen: Pen) -> Colour:
    """Windows: dark, and lighter than the thing where it is dark itself."""
    return _GLASS if max(pen.main) > 70 else (120.0, 132.0, 145.0)


def _mirrored(pen: Pen, points: list[tuple[float, float]], colour: Colour) -> None:
    pen.polygon(points, colour)
    pen.polygon([(x, -y) for x, y in points], colour)


def _aircraft(pen: Pen, rng: np.random.Generator) -> float:
    half, sweep, span = rng.uniform(0.055, 0.07), rng.uniform(0.1, 0.24), rng.uniform(0.4, 0.49)
    root = rng.uniform(0.08, 0.16)
    tip = root - sweep
    _mirrored(pen, [(root, 0), (tip, span), (tip - 0.07, span), (root - 0.24, 0)], pen.tone(-0.06))
    _mirrored(pen, [(-0.36, 0), (-0.45, 0.19), (-0.5, 0.19), (-0.47, 0)], pen.tone(-0.1))
    for y in (0.17, 0.3)[: int(rng.integers(1, 3))]:
        x = root - sweep * y / span
        for side in (y, -y):
            pen.box(x - 0.06, side - 0.026, x + 0.05, side + 0.026, pen.detail(0.4))
    outline = [(0.5, 0), (0.46, half * 0.6), (0.38, half), (-0.25, half), (-0.49, half * 0.25)]
    pen.polygon([*outline, *((x, -y) for x, y in reversed(outline[1:]))], pen.tone(0.06))
    pen.line(-0.5, 0, -0.34, 0, 0.02, pen.detail(0.35))
    pen.polygon([(0.45, 0.028), (0.41, 0.045), (0.41, -0.045), (0.45, -0.028)], _glass(pen))
    return 0.1


def _helicopter(pen: Pen, rng: np.random.Generator) -> float:
    wide = rng.uniform(0.12, 0.15)
    pen.polygon([(0.0, 0.055), (-0.46, 0.026), (-0.46, -0.026), (0.0, -0.055)], pen.tone(-0.08))
    pen.box(-0.5, -0.1, -0.44, 0.1, pen.tone(-0.05))
    pen.line(0.0, wide + 0.05, 0.28, wide + 0.05, 0.025, pen.detail(0.4))
    pen.line(0.0, -wide - 0.05, 0.28, -wide - 0.05, 0.025, pen.detail(0.4))
    pen.ellipse(0.12, 0, 0.26, wide, pen.main)
    pen.polygon([(0.36, wide * 0.3), (0.25, wide * 0.72), (0.25, -wide * 0.72), (0.36, -wide * 0.3)], _glass(pen))
    blades, turn = int(rng.integers(2, 6)), rng.uniform(0, math.pi)
    for k in range(blades):
        t = turn + 2 * math.pi * k / blades
        pen.line(0.1, 0, 0.1 + 0.4 * math.cos(t), 0.4 * math.sin(t), 0.024, pen.detail(0.5), least=1.0)
    pen.ellipse(0.1, 0, 0.045, 0.045, pen.detail(0.6), 12)
    return 0.14


def _ship(pen: Pen, rng: np.random.Generator) -> float:
    half, blunt = rng.uniform(0.1, 0.16), rng.uniform(0.18, 0.3)
    stern = half * rng.uniform(0.7, 0.95)
    hull = [(0.5, 0), (0.5 - 0.35 * blunt, half * 0.55), (0.5 - blunt, half), (-0.38, half), (-0.5, stern)]
    whole = [*hull, *((x, -y) for x, y in reversed(hull[1:]))]
    pen.polygon(whole, pen.tone(-0.22))
    pen.polygon([(0.95 * x, 0.78 * y) for x, y in whole], pen.tone(0.04))
    if rng.random() < 0.5:  # a bulk carrier with hatches, or a ferry with one long deck house
        count = int(rng.integers(3, 6))
        for k in range(count):
            x = -0.2 + 0.46 * k / count
            pen.box(x, -half * 0.5, x + 0.3 / count, half * 0.5, pen.detail(0.3))
    else:
        pen.box(-0.22, -half * 0.42, 0.2, half * 0.42, pen.tone(0.25))
        pen.line(-0.16, 0, 0.16, 0, 0.02, pen.detail(0.45))
    bridge = _WHITE if min(pen.main) < 150 else (120.0, 124.0, 130.0)
    pen.box(-0.4, -half * 0.62, -0.29, half * 0.62, bridge)
    pen.ellipse(-0.35, 0, 0.025, 0.025, pen.detail(0.6), 10)
    return 0.09


def _storage_tank(pen: Pen, rng: np.random.Generator) -> float:
    pen.ellipse(0, 0, 0.5, 0.5, pen.detail(0.42), 40)
    pen.ellipse(0, 0, 0.45, 0.45, pen.tone(0.02), 40)
    if rng.random() < 0.6:  # a floating roof: a sunk ring
        inner = rng.uniform(0.27, 0.34)
        pen.ellipse(0, 0, inner + 0.035, inner + 0.035, pen.detail(0.32), 36)
        pen.ellipse(0, 0, inner, inner, pen.tone(0.05), 36)
    else:  # a cone roof: ribs
        for k in range(6):
            t = math.pi * k / 6
            c, s = 0.45 * math.cos(t), 0.45 * math.sin(t)
            pen.line(-c, -s, c, s, 0.016, pen.detail(0.28), least=0.5)
    pen.ellipse(0, 0, 0.055, 0.055, pen.detail(0.55), 12)
    pen.line(0.18, 0, 0.48, 0, 0.035, pen.detail(0.6))
    return rng.uniform(0.18, 0.3)


def _vehicle(pen: Pen, rng: np.random.Generator) -> float:
    half = rng.uniform(0.2, 0.25)
    for x in (-0.3, 0.3):
        pen.box(x - 0.08, -half - 0.02, x + 0.08, half + 0.02, _RUBBER if max(pen.main) > 70 else (70.0, 70.0, 72.0))
    front = [(0.5, half * 0.55), (0.44, half), (-0.45, half), (-0.5, half * 0.75)]
    pen.polygon([*front, *((x, -y) for x, y in reversed(front))], pen.main)
    pen.polygon([(0.22, half * 0.9), (0.09, half * 0.72), (0.09, -half * 0.72), (0.22, -half * 0.9)], _glass(pen))
    pen.polygon([(-0.26, half * 0.7), (-0.36, half * 0.8), (-0.36, -half * 0.8), (-0.26, -half * 0.7)], _glass(pen))
    pen.box(-0.26, -half * 0.74, 0.09, half * 0.74, pen.tone(0.12))
    for y in (half * 0.6, -half * 0.6):
        pen.box(0.45, y - 0.04, 0.49, y + 0.04, (245.0, 240.0, 215.0))
    return 0.14


def _truck(pen: Pen, rng: np.random.Generator) -> float:
    half, gap = rng.uniform(0.12, 0.15), rng.uniform(0.05, 0.07)
    cab = rng.uniform(0.16, 0.2)
    joint = 0.5 - cab - gap
    pen.box(-0.5 + 0.05, -half - 0.012, joint - 0.35, half + 0.012, _RUBBER if max(pen.main) > 70 else (70.0,) * 3)
    pen.line(joint - 0.02, 0, 0.5 - cab + 0.02, 0, 0.06, pen.detail(0.7), least=1.2)
    pen.box(-0.5, -half, joint, half, pen.tone(0.03))
    for k in range(1, 6):
        x = -0.5 + (joint + 0.5) * k / 6
        pen.line(x, -half, x, half, 0.01, pen.detail(0.22), least=0.4)
    front = [(0.5, half * 0.75), (0.47, half * 0.92), (0.5 - cab, half * 0.92)]
    pen.polygon([*front, *((x, -y) for x, y in reversed(front))], pen.tone(-0.06))
    pen.box(0.405, -half * 0.8, 0.455, half * 0.8, _glass(pen))
    return 0.14


def _tennis_court(pen: Pen, rng: np.random.Generator) -> float:
    half = rng.uniform(0.27, 0.3)
    lines = _WHITE if min(pen.main) < 150 else (70.0, 90.0, 80.0)
    pen.box(-0.5, -half, 0.5, half, pen.detail(0.25))
    x, y = 0.4, half * 0.68
    pen.box(-x, -y, x, y, pen.main)
    inner = pen.length > 26  # on a smaller one the lines would be most of what is seen
    for side in (y, -y, y * 0.76, -y * 0.76)[: 4 if inner else 2]:
        pen.line(-x, side, x, side, 0.016, lines, least=0.6)
    for end in (x, -x):
        pen.line(end, -y, end, y, 0.016, lines, least=0.6)
        if inner:
            pen.line(end * 0.54, -y * 0.76, end * 0.54, y * 0.76, 0.016, lines, least=0.6)
    if inner:
        pen.line(-x * 0.54, 0, x * 0.54, 0, 0.016, lines, least=0.6)
    pen.line(0, -y - 0.04, 0, y + 0.04, 0.022, pen.detail(0.75), least=0.9)
    return 0.0


def _swimming_pool(pen: Pen, rng: np.random.Generator) -> float:
    rim, half = rng.uniform(0.05, 0.075), rng.uniform(0.26, 0.36)
    turns = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    bend = rng.uniform(0.25, 0.45)

    def basin(shrink: float) -> list[tuple[float, float]]:
        x = (0.5 - shrink) * np.cos(turns)
        y = (half - shrink) * np.sin(turns) * (1 - bend * np.cos(turns) ** 2 * 0.3)
        dent = np.where(np.sin(turns) < 0, bend * half * np.exp(-((x / 0.2) ** 2)), 0.0)
        return list(zip(x.tolist(), (y + dent).tolist(), strict=True))

    pen.polygon(basin(0.0), _CONCRETE if min(pen.main) < 150 else (112.0, 108.0, 104.0))
    pen.polygon(basin(rim), pen.main)
    pen.polygon([(0.72 * x - 0.06, 0.6 * y + 0.02) for x, y in basin(rim)], pen.tone(0.1))
    for _ in range(4):
        x, y = rng.uniform(-0.28, 0.22), rng.uniform(-0.05, 0.5) * half
        pen.line(x, y, x + 0.1, y + rng.uniform(-0.03, 0.03), 0.02, pen.tone(0.45), least=0.6)
    for y in (half * 0.12, half * 0.42):  # the ladder
        pen.line(0.36, y, 0.47, y, 0.025, pen.detail(0.7), least=0.7)
    return 0.0


def _bridge(pen: Pen, rng: np.random.Generator) -> float:
    half, piers = rng.uniform(0.075, 0.105), int(rng.integers(2, 5))
    for k in range(piers):
        x = -0.36 + 0.72 * k / (piers - 1)
        pen.box(x - 0.028, -half - 0.05, x + 0.028, half + 0.05, pen.detail(0.35))
    flare = [(-0.5, half * 1.55), (-0.42, half), (0.42, half), (0.5, half * 1.55)]
    pen.polygon([*flare, *((x, -y) for x, y in reversed(flare))], pen.main)
    for y in (half * 0.86, -half * 0.86):
        pen.line(-0.44, y, 0.44, y, 0.02, pen.detail(0.5), least=0.6)
    if rng.random() < 0.5:
        for k in range(7):  # the road's broken line
            x = -0.46 + 0.135 * k
            pen.line(x, 0, x + 0.075, 0, 0.016, _WHITE if min(pen.main) < 150 else (90.0, 90.0, 92.0), least=0.7)
    else:
        for k in range(8):  # a truss
            x, y = -0.42 + 0.105 * k, half * 0.86 * (1 if k % 2 else -1)
            pen.line(x, y, x + 0.105, -y, 0.014, pen.detail(0.4), least=0.6)
    return 0.1


def _wind_turbine(pen: Pen, rng: np.random.Generator) -> float:
    turn, lean = rng.uniform(0, 2 * math.pi), rng.uniform(0, 2 * math.pi)
    tower = rng.uniform(0.3, 0.42)
    foot = (tower * math.cos(lean), tower * math.sin(lean))
    pen.ellipse(*foot, 0.05, 0.05, _CONCRETE, 14)
    pen.line(0, 0, *foot, 0.05, mix(pen.main, (128.0, 128.0, 128.0), 0.3), least=1.2)
    wide = max(rng.uniform(0.065, 0.085), 1.8 / pen.length)
    for k in range(3):
        t = turn + 2 * math.pi * k / 3
        c, s = math.cos(t), math.sin(t)
        blade = [(0.02, wide * 0.3), (0.12, wide * 0.75), (0.5, wide * 0.22), (0.5, -wide * 0.1), (0.02, -wide * 0.4)]
        pen.polygon([(c * x - s * y, s * x + c * y) for x, y in blade], pen.main)
    pen.ellipse(0, 0, 0.075, 0.075, pen.tone(-0.1), 16)
    pen.ellipse(0, 0, 0.04, 0.04, pen.detail(0.3), 12)
    return 0.3


_DRAW: dict[str, Callable[[Pen, np.random.Generator], float]] = {
    "aircraft": _aircraft, "helicopter": _helicopter, "ship": _ship, "storage tank": _storage_tank,
    "vehicle": _vehicle, "truck": _truck, "tennis court": _tennis_court, "swimming pool": _swimming_pool,
    "bridge": _bridge, "wind turbine": _wind_turbine,
}  # fmt: skip
