"""Pictures that fit together into a number of bytes, and maps of cells as tiny grey pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

STEPS = ((640, 80), (640, 65), (512, 65), (448, 55), (384, 50), (320, 45), (256, 40))
"""Longest side in pixels and quality, from the best to the smallest."""
PATCH = 40
PATCHES = 6
"""Of an image at most."""
LEVELS = 16
"""Grey levels of a map: they are looked at through a colour, over a picture."""


def web_picture(image: Image.Image, longest: int, quality: int) -> str:
    """A picture as WebP in a data URI, sides beyond ``longest`` reduced to it."""
    copy = image.copy()
    copy.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    copy.save(buffer, format="WEBP", quality=quality, method=4)
    return _uri("webp", buffer)


def fitting(images: Sequence[Image.Image], room: int) -> tuple[list[str], int]:
    """All pictures at the best step of ``STEPS`` at which they fit into ``room`` characters, and its longest side.

    The first step that is likely to fit is told from a sample. What does not fit at the smallest step is left out at
    the end: then there are fewer pictures than images.
    """
    start = _first_step(images, room)
    for longest, quality in STEPS[start:]:
        made = [web_picture(image, longest, quality) for image in images]
        if sum(map(len, made)) <= room:
            return made, longest
    ends = np.cumsum([len(m) for m in made]) if images else np.zeros(0)
    return made[: int((ends <= room).sum())], STEPS[-1][0]


def _first_step(images: Sequence[Image.Image], room: int) -> int:
    """The first step at which every tenth image takes less than its share of the room, a little more allowed."""
    sample = list(images[:: max(1, len(images) // 10)])
    share = room * len(sample) / max(1, len(images))
    for number, (longest, quality) in enumerate(STEPS):
        if sum(len(web_picture(image, longest, quality)) for image in sample) <= 1.2 * share:
            return number
    return len(STEPS) - 1


def patches(grey: NDArray[np.uint8], places: Sequence[tuple[float, float]]) -> list[tuple[int, int, str]]:
    """``(left, top, picture)`` of the ``PATCH`` pixels around places, as they are, none that another one shows."""
    height, width = grey.shape
    made: list[tuple[int, int, str]] = []
    for x, y in places:
        left, top = (max(0, min(int(v) - PATCH // 2, side - PATCH)) for v, side in ((x, width), (y, height)))
        if len(made) == PATCHES:
            break
        if all(max(abs(left - a), abs(top - b)) > PATCH // 3 for a, b, _ in made):
            part = Image.fromarray(grey[top : top + PATCH, left : left + PATCH])
            made.append((left, top, web_picture(part, PATCH, 80)))
    return made


def cell_picture(values: NDArray[np.floating], low: float = 0.0, high: float = 1.0) -> str:
    """Values of cells, ``[H, W]``, as a grey PNG of ``LEVELS`` levels: black is ``low``, white ``high``."""
    shown = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    levels = np.round(shown * (LEVELS - 1)).astype(np.uint8)
    picture = Image.fromarray(levels).convert("P")
    shades = np.linspace(0, 255, LEVELS).round().astype(np.uint8)
    picture.putpalette(np.repeat(shades, 3).tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True, bits=4)
    return _uri("png", buffer)


def _uri(kind: str, buffer: io.BytesIO) -> str:
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
