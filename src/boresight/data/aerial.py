"""Synthetic aerial scenes: ten kinds of things in five colours, their boxes, and sentences that say what is there.

A scene is planned first (ground, objects, look-alikes, cover: :mod:`~boresight.data.aerial_layout`), then painted
(:mod:`~boresight.data.aerial_paint`). Truth comes from the plan: a box is the extent of the pixels that show the
object. The knobs are :class:`~boresight.data.aerial_settings.AerialSettings`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from boresight.core.errors import UserError
from boresight.core.types import Scene
from boresight.data.aerial_ground import Ground, lay_ground, paint_ground
from boresight.data.aerial_layout import (
    SEEN,
    Made,
    Placed,
    Sketch,
    place_cover,
    place_distractors,
    place_objects,
    tight,
    visible_parts,
)
from boresight.data.aerial_paint import blend, expose, shade
from boresight.data.aerial_pen import Light
from boresight.data.aerial_settings import (
    COLOURS,
    KINDS,
    AerialSettings,
    compositions,
    held_out,
)
from boresight.data.aerial_words import sentence

__all__ = ["COLOURS", "KINDS", "Aerial", "AerialSettings", "Made", "compositions", "held_out"]

_GROUND, _THINGS, _TEXTURE, _CAMERA, _CAPTION = range(1, 6)  # each has a stream of its own


@dataclass(frozen=True, eq=False)
class Plan:
    """One scene before it is painted.

    Attributes:
        ground: what it lies on.
        light: the sun.
        distractors: look-alikes on the ground.
        objects: the objects, later ones on top.
        cover: tree crowns and clouds on top of all.
        made: the truth of each object.
        shadow: whether things cast shadows.
    """

    ground: Ground
    light: Light
    distractors: tuple[Placed, ...]
    objects: tuple[Placed, ...]
    cover: tuple[Placed, ...]
    made: tuple[Made, ...]
    shadow: bool


class Aerial:
    """A sequence of synthetic aerial scenes; scene ``i`` is a pure function of settings, ``seed`` and ``first + i``.

    Args:
        settings: the knobs.
        count: number of scenes.
        seed: from 0.
        first: index of the first scene: ``Aerial(s, count=10, first=90, novel=False)`` are the last ten of a hundred.
        novel: whether held-out compositions are drawn: False for training and validation, True for the test.

    Raises:
        UserError: a negative count, seed or first.
    """

    def __init__(self, settings: AerialSettings, *, count: int, seed: int = 0, first: int = 0, novel: bool) -> None:
        for name, value in (("count", count), ("seed", seed), ("first", first)):
            if value < 0:
                raise UserError(f"aerial {name}: {value} must not be negative")
        self.settings, self.count, self.seed, self.first, self.novel = settings, count, seed, first, novel
        self._base, self._novel = settings.base_pairs, settings.novel_pairs if novel else ()
        self._last: tuple[int, Plan] | None = None

    def __len__(self) -> int:
        return self.count

    @property
    def names(self) -> list[str]:
        """The names of all scenes, in order; no scene is made."""
        return [self._name(i) for i in range(self.count)]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels, held-out ones included."""
        return self.settings.class_names

    @property
    def base(self) -> tuple[str, ...]:
        """The classes that training scenes may hold."""
        return tuple(name for name in self.classes if name not in self.held_out)

    @property
    def held_out(self) -> tuple[str, ...]:
        """The classes that training scenes never hold; none where a class is a kind of any colour."""
        if self.settings.classes == "kinds":
            return ()
        return tuple(f"{colour} {kind}" for kind, colour in self.settings.novel_pairs)

    def __getitem__(self, i: int) -> Scene:
        """Scene ``i`` of ``0..count - 1``.

        Returns a Scene with ``image [3, H, W]`` uint8 and ``boxes``, ``labels`` and ``ignore`` of its objects in the
        order of :meth:`objects`. A box is tight around the pixels that show the object; its shadow is outside. Raises
        ``IndexError`` past the end, and ``UserError`` if the objects do not fit into the frame.
        """
        plan = self.plan(i)
        image = torch.from_numpy(paint(self._stream(i, _TEXTURE), self._stream(i, _CAMERA), plan))
        boxes = torch.tensor([m.box for m in plan.made], dtype=torch.float32).reshape(-1, 4)
        labels = torch.tensor([m.label for m in plan.made], dtype=torch.long)
        ignore = torch.tensor([m.ignore for m in plan.made], dtype=torch.bool)
        index = self.first + i
        return Scene(image, self._name(i), index + 1, boxes=boxes, labels=labels, ignore=ignore)

    def __iter__(self) -> Iterator[Scene]:
        return (self[i] for i in range(self.count))

    def objects(self, i: int) -> tuple[Made, ...]:
        """What scene ``i`` holds, without painting it."""
        return self.plan(i).made

    def masks(self, i: int) -> NDArray[np.bool_]:
        """The pixels that show each object of scene ``i``: ``[N, H, W]``."""
        plan, shape = self.plan(i), (self.settings.height, self.settings.width)
        masks = np.zeros((len(plan.objects), *shape), np.bool_)
        for mask, (part, _) in zip(masks, visible_parts(list(plan.objects), list(plan.cover), shape), strict=True):
            frame, own = part.windows(shape)
            mask[frame] = part.patch.alpha[own] >= SEEN
        return masks

    def caption(self, i: int) -> str:
        """A sentence that says what scene ``i`` holds: the first of :meth:`captions`."""
        return self.captions(i, 1)[0]

    def captions(self, i: int, n: int) -> tuple[str, ...]:
        """``n`` sentences about scene ``i``; the first ones stay the same when more are asked for."""
        plan = self.plan(i)
        return tuple(sentence(self._stream(i, _CAPTION, k), plan.made, plan.ground.names) for k in range(n))

    def plan(self, i: int) -> Plan:
        """Scene ``i`` before it is painted; the last one asked for is kept."""
        if not 0 <= i < self.count:
            raise IndexError(f"scene {i} of {self.count}")
        if self._last is None or self._last[0] != i:
            self._last = (i, self._plan(i))
        return self._last[1]

    def _name(self, i: int) -> str:
        return f"aerial_{self.seed}_{self.first + i:06d}"

    def _stream(self, i: int, *purpose: int) -> np.random.Generator:
        """A stream of its own for each purpose: a knob of one leaves the draws of the others."""
        return np.random.default_rng([self.seed, self.first + i, *purpose])

    def _plan(self, i: int) -> Plan:
        settings = self.settings
        lay, things = self._stream(i, _GROUND), self._stream(i, _THINGS)
        shape = (settings.height, settings.width)
        pairs = self._draw_pairs(things)
        ground, light = lay_ground(lay, shape, [kind for kind, _ in pairs], settings.typical_ground), Light.draw(lay)
        sketches = place_objects(things, settings, ground, light, pairs)
        distractors = place_distractors(things, settings, sketches)
        cover = place_cover(things, settings, sketches)
        pieces = [s.placed for s in sketches]
        parts = visible_parts(pieces, cover, shape)
        made = tuple(
            _truth(settings, sketch, part, share) for sketch, (part, share) in zip(sketches, parts, strict=True)
        )
        return Plan(ground, light, tuple(distractors), tuple(pieces), tuple(cover), made, settings.shadow)

    def _draw_pairs(self, rng: np.random.Generator) -> list[tuple[str, str]]:
        """Draw what the scene is to hold."""
        settings = self.settings
        empty, count = rng.random() < settings.empty_share, int(rng.integers(*settings.objects, endpoint=True))
        if empty:
            return []
        base, novel = self._base, self._novel
        share = len(novel) / (len(novel) + len(base)) if settings.novel_share is None else settings.novel_share
        chosen: list[tuple[str, str]] = []
        for again, pick, held in rng.random((count, 3)):
            if chosen and again < settings.repeat_share:
                chosen.append(chosen[int(pick * len(chosen))])
                continue
            pool = novel if novel and held < share else base
            chosen.append(pool[int(pick * len(pool))])
        return chosen


def paint(texture: np.random.Generator, camera: np.random.Generator, plan: Plan) -> NDArray[np.uint8]:
    """Paint a plan: ``[3, H, W]`` uint8. The two generators draw the ground's texture and the camera."""
    image = paint_ground(texture, plan.ground, plan.light)
    standing = [*plan.distractors, *plan.objects]
    if plan.shadow:
        shade(image, standing, plan.light)
    for piece in standing:
        blend(image, piece)
    if plan.shadow:
        shade(image, list(plan.cover), plan.light)
    for piece in plan.cover:
        blend(image, piece)
    return expose(camera, image)


def _truth(settings: AerialSettings, sketch: Sketch, part: Placed, share: float) -> Made:
    box = tight(part.patch.alpha, part.top, part.left)
    if box is None:
        raise ValueError(f"no pixel of a {sketch.colour} {sketch.kind} shows, although {share:.2f} of it should")
    label, size = settings.label(sketch.kind, sketch.colour), settings.size_word(sketch.kind, sketch.length)
    return Made(sketch.kind, sketch.colour, size, sketch.ground, label, box, share, sketch.length)
