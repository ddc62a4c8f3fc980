"""Where things lie in an aerial scene, what covers what, and the truth that follows from it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from boresight.core.errors import UserError
from boresight.data.aerial_clutter import draw_cloud, draw_crown, draw_distractor
from boresight.data.aerial_ground import TYPICAL, Ground
from boresight.data.aerial_pen import Array, Colour, Light, Patch, named_colour
from boresight.data.aerial_settings import AerialSettings
from boresight.data.aerial_shapes import draw_object, draw_wake

Box = tuple[int, int, int, int]

LEAST_VISIBLE = 0.4
"""An object that shows less than this is not drawn: it would be a positive without a label."""
CLEARLY_VISIBLE = 0.6
"""An object that shows less than this is labelled don't-care."""
SEEN = 0.3
"""A pixel belongs to an object's box if the object makes up at least this share of it."""
MOST_IOU, MOST_COVER = 0.1, 0.25
"""Boxes of two objects overlap by no more than this IoU, and by this share of the smaller one."""
_MARGIN = 0.45  # what must show of an object when it is placed, before anything covers it
_CONTRAST = 60.0  # distance in RGB between an object and the ground that it is put on, where there is a choice
_TRIES = 40


@dataclass(frozen=True, eq=False)
class Placed:
    """A patch and the frame's pixel ``(top, left)`` that its first pixel lies on (may be outside the frame)."""

    patch: Patch
    top: int
    left: int

    @classmethod
    def at(cls, patch: Patch, x: int, y: int) -> Placed:
        """Put the centre of ``patch`` on pixel ``(x, y)``."""
        return cls(patch, y + patch.top, x + patch.left)

    @property
    def extent(self) -> Box:
        """The xyxy box of the whole patch."""
        height, width = self.patch.alpha.shape
        return self.left, self.top, self.left + width, self.top + height

    def windows(self, shape: tuple[int, ...]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return the part of a frame of ``shape`` that it covers, and the same part of the patch."""
        height, width = self.patch.alpha.shape
        y0, y1 = max(self.top, 0), max(min(self.top + height, shape[0]), 0)
        x0, x1 = max(self.left, 0), max(min(self.left + width, shape[1]), 0)
        y1, x1 = max(y1, y0), max(x1, x0)
        return (slice(y0, y1), slice(x0, x1)), (
            slice(y0 - self.top, y1 - self.top),
            slice(x0 - self.left, x1 - self.left),
        )


@dataclass(frozen=True)
class Made:
    """What is known of one object of a scene.

    Attributes:
        kind: one of the kinds.
        colour: one of the colours.
        size: ``"small"``, ``"large"`` or empty: its longest side in the range of its kind.
        ground: what lies under its centre, one of ``GROUNDS``.
        label: index into the class names.
        box: xyxy, pixel frame: the tight extent of the pixels that show it.
        visible: share of its area that can be seen: not covered and inside the frame.
        length: its longest side in pixels, as drawn.
    """

    kind: str
    colour: str
    size: str
    ground: str
    label: int
    box: Box
    visible: float
    length: float

    @property
    def ignore(self) -> bool:
        """Too little of it shows to demand it."""
        return self.visible < CLEARLY_VISIBLE


@dataclass(frozen=True, eq=False)
class Sketch:
    """An object that has a place; what of it shows is known once all are placed."""

    kind: str
    colour: str
    length: float
    angle: float
    ground: str
    placed: Placed
    box: Box


def tight(alpha: Array, top: int = 0, left: int = 0) -> Box | None:
    """Return the xyxy extent of the pixels of ``alpha [h, w]`` that are at least ``SEEN``, or None without any."""
    seen = alpha >= SEEN
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    if not len(rows):
        return None
    return left + int(columns[0]), top + int(rows[0]), left + int(columns[-1]) + 1, top + int(rows[-1]) + 1


def visible_parts(objects: list[Placed], cover: list[Placed], shape: tuple[int, int]) -> list[tuple[Placed, float]]:
    """Return, for each of ``objects`` (later ones lie on top), what of it is seen and which share of its area that is.

    ``cover`` lies on top of all. The part seen keeps the colours; its alpha is what the object adds to each pixel,
    cut at the frame.
    """
    through = np.ones(shape, np.float32)
    for piece in cover:
        frame, own = piece.windows(shape)
        through[frame] *= 1 - piece.patch.alpha[own]
    parts = []
    for piece in reversed(objects):
        frame, own = piece.windows(shape)
        alpha = piece.patch.alpha[own] * through[frame]
        through[frame] *= 1 - piece.patch.alpha[own]
        seen = Patch(piece.patch.rgb[:, *own], alpha, 0, 0)
        parts.append(
            (Placed(seen, frame[0].start, frame[1].start), float(alpha.sum()) / float(piece.patch.alpha.sum()))
        )
    return parts[::-1]


def place_objects(
    rng: np.random.Generator, settings: AerialSettings, ground: Ground, light: Light, pairs: list[tuple[str, str]]
) -> list[Sketch]:
    """Draw an object for every ``(kind, colour)`` and put it where there is room.

    One that finds no room is drawn again smaller, and left out if even its smallest does not fit. Raises ``UserError``
    when fewer than ``settings.objects[0]`` fit.
    """
    placed: list[Sketch] = []
    for kind, colour in pairs:
        low, high = settings.lengths(kind)
        for longest in (high, math.sqrt(low * high), low):
            length = math.exp(rng.uniform(math.log(low), math.log(longest)))
            sketch = _place(rng, settings, ground, light, placed, (kind, colour, length))
            if sketch is not None:
                placed.append(sketch)
                break
    if pairs and len(placed) < settings.objects[0]:
        raise UserError(
            f"aerial.objects: {settings.objects[0]} do not fit into {settings.width}x{settings.height}; "
            "make it or aerial.scale smaller"
        )
    return placed


def _place(
    rng: np.random.Generator, settings: AerialSettings, ground: Ground, light: Light, others: list[Sketch],
    what: tuple[str, str, float],
) -> Sketch | None:  # fmt: skip
    """Draw one object and try places for it: typical ground first, and a ground that it stands out from."""
    kind, name, length = what
    colour = named_colour(rng, name)
    angle, offset = rng.uniform(0, 2 * math.pi), (rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5))
    patch = draw_object(rng, kind, colour, length, angle, offset).lit(light)
    own = tight(patch.alpha, patch.top, patch.left)
    if own is None:
        raise ValueError(f"a {kind} of {length:.1f} px left no pixel")
    wanted = _wanted(rng, settings, ground, kind, colour)
    over_edge = rng.random() < settings.edge_share
    for attempt in range(_TRIES):
        x, y = _spot(rng, settings, own, over_edge)
        region = ground.at(x, y)
        if attempt < _TRIES // 2 and not wanted[region]:
            continue
        piece = Placed.at(patch, x, y)
        box = own[0] + x, own[1] + y, own[2] + x, own[3] + y
        if _fits(settings, piece, box, others, over_edge):
            return Sketch(kind, name, length, angle, ground.names[region], piece, box)
    return None


def _wanted(
    rng: np.random.Generator, settings: AerialSettings, ground: Ground, kind: str, colour: Colour
) -> list[bool]:
    """Which regions to try first: those that the colour stands out from, and often only the kind's typical ones."""
    clear = [math.dist(colour, ground.mean(k)) >= _CONTRAST for k in range(len(ground.names))]
    typical = [name in TYPICAL[kind] for name in ground.names]
    both = [c and t for c, t in zip(clear, typical, strict=True)]
    prefer = both if rng.random() < settings.typical_ground and any(both) else clear
    return prefer if any(prefer) else [True] * len(clear)


def _fits(settings: AerialSettings, piece: Placed, box: Box, others: list[Sketch], over_edge: bool) -> bool:
    """Whether an object may lie there: boxes hardly overlap, and enough of it and of the others shows."""
    if any(_crowded(box, other.box) for other in others):
        return False
    if not over_edge and not any(_overlap(box, other.box) for other in others):
        return True
    parts = visible_parts([*(o.placed for o in others), piece], [], (settings.height, settings.width))
    return all(share >= _MARGIN for _, share in parts)


def _spot(rng: np.random.Generator, settings: AerialSettings, own: Box, over_edge: bool) -> tuple[int, int]:
    """Draw the pixel of an object's centre: anywhere in the frame, or where all of ``own`` is inside."""
    if over_edge:
        return int(rng.integers(settings.width)), int(rng.integers(settings.height))
    x = rng.integers(-own[0], settings.width - own[2] + 1)
    return int(x), int(rng.integers(-own[1], settings.height - own[3] + 1))


def _overlap(one: Box, two: Box) -> int:
    """The area that two boxes share."""
    wide = min(one[2], two[2]) - max(one[0], two[0])
    high = min(one[3], two[3]) - max(one[1], two[1])
    return wide * high if wide > 0 and high > 0 else 0


def _crowded(one: Box, two: Box, most_cover: float = MOST_COVER) -> bool:
    """Whether two boxes overlap too much."""
    inter = _overlap(one, two)
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, two)]
    return inter > MOST_IOU * (sum(areas) - inter) or inter > most_cover * min(areas)


def place_distractors(rng: np.random.Generator, settings: AerialSettings, objects: list[Sketch]) -> list[Placed]:
    """Draw the scene's look-alikes and put them beside the objects; one that finds no room is left out."""
    low, high = settings.scale
    placed = [_wake(rng, o) for o in objects if o.kind == "ship" and o.ground == "water" and rng.random() < 0.6]
    for _ in range(int(rng.integers(settings.distractors[0], settings.distractors[1] + 1))):
        patch = draw_distractor(rng, math.exp(rng.uniform(math.log(low), math.log(high))))
        for _ in range(8):
            piece = Placed.at(patch, int(rng.integers(settings.width)), int(rng.integers(settings.height)))
            if not any(_crowded(piece.extent, o.box, 0.1) for o in objects):
                placed.append(piece)
                break
    return placed


def _wake(rng: np.random.Generator, ship: Sketch) -> Placed:
    hull = ship.placed
    x, y = hull.left - hull.patch.left, hull.top - hull.patch.top
    return Placed.at(draw_wake(rng, ship.length, ship.angle), x, y)


def place_cover(rng: np.random.Generator, settings: AerialSettings, objects: list[Sketch]) -> list[Placed]:
    """Put tree crowns and wisps of cloud over some objects, never so that less than ``LEAST_VISIBLE`` of one shows.

    As many again lie anywhere: what covers must not tell where objects are.
    """
    cover: list[Placed] = []
    pieces = [o.placed for o in objects]
    for sketch, aimed in [(o, aimed) for o in objects for aimed in (True, False)]:
        if rng.random() >= settings.occlusion:
            continue
        x0, y0, x1, y1 = sketch.box if aimed else (0, 0, settings.width, settings.height)
        for shrink in (1.0, 0.8, 0.6, 0.45):
            size = shrink * sketch.length * rng.uniform(0.5, 1.2)
            patch = draw_cloud(rng, 1.2 * size) if rng.random() < 0.4 else draw_crown(rng, 0.8 * size)
            piece = Placed.at(patch, int(rng.integers(x0, x1)), int(rng.integers(y0, y1)))
            if any(_overlap(piece.extent, o.box) for o in objects):
                parts = visible_parts(pieces, [*cover, piece], (settings.height, settings.width))
                if any(share < LEAST_VISIBLE for _, share in parts):
                    continue
            cover.append(piece)
            break
    return cover
