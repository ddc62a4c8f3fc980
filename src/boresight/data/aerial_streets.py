"""What a city has besides tarmac: streets with markings, and roofs in a row."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from boresight.data.aerial_pen import Array

_ROOFS = ((150, 92, 74), (168, 160, 150), (120, 118, 118), (186, 176, 160), (132, 108, 92), (96, 100, 108))
_FINER = 2  # drawn twice as large and averaged: straight edges without steps


def draw_streets(rng: np.random.Generator, image: Array, weight: Array, light: tuple[float, float]) -> None:
    """Draw streets and roofs into ``image [3, H, W]`` in place, where ``weight [H, W]`` says that there is city."""
    style = rng.random()
    if style < 0.4:  # an apron or a car park: tarmac alone
        return
    rows, columns = (np.flatnonzero((weight > 0).any(axis)) for axis in (1, 0))
    if not len(rows):
        return
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    height, width = weight[window].shape
    layer = Image.new("RGBX", (_FINER * width, _FINER * height), (110, 110, 110, 0))
    grid = _Grid(layer, rng.uniform(0, math.pi))
    reach = 0.75 * max(height, width)
    streets = np.sort(rng.uniform(-0.5, 0.5, int(rng.integers(1, 4)))) * max(height, width)
    if style < 0.75:
        _roofs(rng, grid, reach, streets, light)
    for across in streets:
        _street(rng, grid, across, reach)
    *bands, drawn = layer.reduce(_FINER).split()
    alpha = np.asarray(drawn) * (weight[window] * np.float32(1 / 255))
    for plane, band in zip(image[:, *window], bands, strict=True):
        plane += alpha * (np.asarray(band) - plane)


class _Grid:
    """Draws rectangles of a town whose streets run in one direction; coordinates from the picture's middle."""

    def __init__(self, layer: Image.Image, angle: float) -> None:
        self.draw = ImageDraw.Draw(layer)
        self.c, self.s = _FINER * math.cos(angle), _FINER * math.sin(angle)
        self.x, self.y = layer.width / 2, layer.height / 2

    def box(
        self, u0: float, v0: float, u1: float, v1: float, colour: tuple[int, ...], shift: tuple[float, float] = (0, 0)
    ) -> None:
        """Fill a rectangle; one outside the picture costs nothing."""
        x, y = self.x + _FINER * shift[0], self.y + _FINER * shift[1]
        u, v = (u0 + u1) / 2, (v0 + v1) / 2
        far = _FINER * (u1 - u0 + v1 - v0) / 2
        if abs(self.c * u - self.s * v) > self.x + far or abs(self.s * u + self.c * v) > self.y + far:
            return
        corners = ((u0, v0), (u1, v0), (u1, v1), (u0, v1))
        self.draw.polygon(
            [(self.c * u - self.s * v + x, self.s * u + self.c * v + y) for u, v in corners], fill=(*colour, 255)
        )


def _street(rng: np.random.Generator, grid: _Grid, across: float, reach: float) -> None:
    half, grey = rng.uniform(7, 13), int(rng.integers(70, 105))
    grid.box(-reach, across - half, reach, across + half, (grey, grey, grey + 3))
    for edge in (-half + 1, half - 1):
        grid.box(-reach, across + edge - 0.4, reach, across + edge + 0.4, (200, 200, 196))
    step = rng.uniform(9, 16)
    for k in range(int(2 * reach / step)):
        grid.box(-reach + k * step, across - 0.5, -reach + (k + 0.5) * step, across + 0.5, (214, 212, 200))


def _roofs(
    rng: np.random.Generator, grid: _Grid, reach: float, streets: np.ndarray, light: tuple[float, float]
) -> None:
    deep, wide = rng.uniform(22, 40), rng.uniform(24, 56)
    keep = rng.uniform(0.2, 0.5)
    for v in np.arange(-reach, reach, deep + 9):
        if np.abs(streets - v - deep / 2).min() < deep / 2 + 15:
            continue
        for u in np.arange(-reach, reach, wide + 7):
            if rng.random() > keep:
                continue
            u0, v0 = u + rng.uniform(0, 6), v + rng.uniform(0, 4)
            u1, v1 = u + wide * rng.uniform(0.7, 1), v + deep * rng.uniform(0.8, 1)
            roof = _ROOFS[int(rng.integers(len(_ROOFS)))]
            grid.box(u0, v0, u1, v1, (58, 58, 62), (4 * light[0], 4 * light[1]))
            grid.box(u0, v0, u1, (v0 + v1) / 2, tuple(min(c + 16, 255) for c in roof))
            grid.box(u0, (v0 + v1) / 2, u1, v1, tuple(c - 12 for c in roof))
