"""Plants a known fault into any detector's output, to see whether the audit finds it there.

A diagnosis that is silent says something only if it would have spoken: with ``plant(source, "score")`` the verdict must
be *score* of a detector that was good before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from boresight.core.emission import Decoding, Emission, Missing, Source, Supervision
from boresight.core.types import Scene
from boresight.decode.replay import Selected
from boresight.diagnose.likeness import BoxIou
from boresight.diagnose.selecting import Selects
from boresight.diagnose.truth import Truth

Fault = Literal[
    "class", "score", "box", "shift", "scale", "background", "threshold", "duplicates", "limit", "starved", "untrained"
]
FAULTS: dict[Fault, str] = {
    "class": "classification",
    "score": "score",
    "box": "box",
    "shift": "box",
    "scale": "box",
    "background": "background",
    "threshold": "threshold",
    "duplicates": "threshold",
    "limit": "threshold",
    "starved": "assignment",
    "untrained": "assignment",
}
"""Every fault, and the word that the verdict must say."""


class Planted:
    """A source with a fault; see :data:`FAULTS`.

    Args:
        source: the detector. ``threshold``, ``duplicates`` and ``limit`` change how it selects, ValueError where it
            does not say how.
        fault: what is planted.
        seed: of what is drawn; an image draws the same every time.

    ``class``: two objects of three are taken for the next class. ``score``: every score near the loudest is drawn at
    random. ``box``: boxes lie off by a third of their size, each its own way; ``shift``: all by half a stride and a
    quarter of their size, one way; ``scale``: all at a fifth of their coordinates. ``background``: one cell of twenty
    in no object is the loudest of all. ``threshold``: scores below 0.9 are cut off; ``duplicates``: nothing is
    suppressed; ``limit``: one detection an image is returned. ``starved``: objects under 24 pixels emit nothing and
    have no trained cell. ``untrained``: cells in objects that are not trained are the loudest, and box half of it.
    """

    def __init__(self, source: Source, fault: Fault, *, seed: int = 0) -> None:
        if fault not in FAULTS:
            raise ValueError(f"unknown fault `{fault}`; known: {', '.join(FAULTS)}")
        self.source, self.fault, self.seed = source, fault, seed
        self.classes = tuple(source.classes)
        self.decoding: Decoding | None = source.decoding
        if fault in SELECTS:
            if source.decoding is None:
                raise ValueError(f"`{fault}` is planted into how a detector selects, and this one does not say how")
            self.decoding = SELECTS[fault](source.decoding)

    def emit(self, scene: Scene) -> Emission:
        """See :class:`~boresight.core.emission.Source`."""
        emission = self.source.emit(scene).to("cpu")
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + scene.image_id)
        return _PLANT[self.fault](self, emission, scene, generator)

    def supervise(self, emission: Emission, scene: Scene) -> Supervision | Missing:
        """See :class:`~boresight.core.emission.Source`."""
        verdict = self.source.supervise(emission, scene)
        if self.fault != "starved" or isinstance(verdict, Missing):
            return verdict
        keep = ~_small(scene)[verdict.object]
        return replace(verdict, cell=verdict.cell[keep], object=verdict.object[keep], positive=verdict.positive[keep])


class PlantedSelecting(Planted):
    """The same of a source that selects by itself, as one of points does by its peaks."""

    def select(self, emission: Emission) -> Selected:
        """See :class:`~boresight.diagnose.selecting.Selects`."""
        assert isinstance(self.source, Selects)
        return self.source.select(emission)


def plant(source: Source, fault: Fault, *, seed: int = 0) -> Planted:
    """A source with a fault in it; see :class:`Planted`. Raises ValueError for a fault that is not known."""
    kind = PlantedSelecting if isinstance(source, Selects) else Planted
    return kind(source, fault, seed=seed)


SELECTS: dict[Fault, Callable[[Decoding], Decoding]] = {
    "threshold": lambda d: replace(d, threshold=max(0.9, d.threshold)),
    "duplicates": lambda d: replace(d, nms=None),
    "limit": lambda d: replace(d, top_k=1, limit="image"),
}
"""What is planted into the selection."""
SMALL = 24.0
"""Pixels, root of the area: smaller objects are starved."""
OFF = 0.35
"""Of a box's size, in both directions: what is left overlaps by 0.27."""


def _small(scene: Scene) -> Tensor:
    """``[N]`` bool: the objects that are starved."""
    assert scene.boxes is not None
    return (scene.boxes[:, 2:] - scene.boxes[:, :2]).clamp(min=0).prod(1).sqrt() < SMALL


def _nearest_object(emission: Emission, scene: Scene) -> tuple[Tensor, Tensor]:
    """``[N]`` the object that the box of each cell's loudest class fits best, and how well (0 without objects)."""
    cells = torch.arange(emission.cells)
    loudest = emission.scores.argmax(0)
    boxes = emission.boxes[loudest if len(emission.boxes) > 1 else 0, cells]
    if scene.boxes is None or not len(scene.boxes):
        return torch.zeros_like(cells), torch.zeros(emission.cells)
    fit, which = BoxIou()(boxes, scene.boxes).max(1)
    return which, fit


def _sign(count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, (count, 2), generator=generator).float() * 2 - 1


def _class(planted: Planted, e: Emission, scene: Scene, generator: torch.Generator) -> Emission:
    if e.classes < 2:
        raise ValueError("with one class there is no other to take an object for")
    which, fit = _nearest_object(e, scene)
    wrong = torch.rand(max(1, len(scene.boxes)), generator=generator) < 2 / 3  # type: ignore[arg-type]
    turned = (fit > 0.3) & wrong[which]
    scores = torch.where(turned, e.scores.roll(1, 0), e.scores)
    boxes = e.boxes if len(e.boxes) == 1 else torch.where(turned[:, None], e.boxes.roll(1, 0), e.boxes)
    return replace(e, scores=scores, boxes=boxes, found=None)


def _score(planted: Planted, e: Emission, scene: Scene, generator: torch.Generator) -> Emission:
    top = e.scores.max(0).values
    least = 0.05 * float(top.max()) if e.cells else 0.0
    drawn = torch.rand(e.cells, generator=generator)
    factor = torch.where(top > least, drawn / top.clamp(min=1e-6), 1.0)
    return replace(e, scores=(e.scores * factor).clamp(max=1.0), found=None)


def _box(planted: Planted, e: Emission, scene: Scene, generator: torch.Generator) -> Emission:
    which, fit = _nearest_object(e, scene)
    way = _sign(max(1, len(scene.boxes)), generator)[which]  # type: ignore[arg-type]
    side = e.boxes[..., 2:] - e.boxes[..., :2]
    off = torch.where((fit > 0)[:, None], OFF * side * way, 0.0)
    return replace(e, boxes=e.boxes + torch.cat((off, off), -1), found=None)


def _shift(planted: Planted, e: Emission, scene: Scene, generator: torch.Generator) -> Emission:
    side = e.boxes[..., 2:] - e.boxes[..., :2]
    stride = 0.0 if e.strides is None else e.strides[:, None] / 2
    off = stride + 0.25 * side
    return replace(e, boxes=e.boxes + torch.cat((off, off), -1), found=None)


def _background(planted: Planted, e: Emission, scene: Scene, generator: torch.Generator) -> Emission:
    _, fit = _nearest_object(e, scene)
    inside = Truth.of(scene, e.classes).holds(e)
    outside = (fit < 0.05) if inside is None else (fit < 0.05) & ~inside.any(1)
    loud = outside & (torch.rand(e.cells, generator=generator) < 0.05)
    said = torch.randint(0, e.classes, (e.cells,), generator=generator)
    scores = e.scores.clone()
    cells = loud.nonzero()[:, 0]
    scores[said[cells], cells] = 0.98 + 0.02 * torch.rand(len(cells), generator=generator)
    if len(e.boxes) > 1:  # of a class of its own the box must lie in the background too
        boxes = e.boxes.clone()
        boxes[said[cells], cells] = e.boxes[e.scores.argmax(0)[cells], cells]
        return replace(e, scores=scores, boxes=boxes, found=None)
    return replace(e, scores=scores, found=None)


def _as_it_is(planted: Planted, e: Emission, scene: Scene, generator: torch.Generator) -> Emission:
    return e


def _scale(planted: Planted, e: Emission, scene: Scene, generator: torch.Generator) -> Emission:
    return replace(e, boxes=e.boxes * 0.2, found=None)


def _starved(planted: Planted, e: Emission, scene: Scene, generator: torch.Generator) -> Emission:
    which, fit = _nearest_object(e, scene)
    silent = (fit > 0) & _small(scene)[which] if len(scene.boxes) else fit > 1  # type: ignore[arg-type]
    return replace(e, scores=e.scores.masked_fill(silent, 0.0), found=None)


def _untrained(planted: Planted, e: Emission, scene: Scene, generator: torch.Generator) -> Emission:
    truth = Truth.of(scene, e.classes)
    inside, verdict = truth.holds(e), planted.source.supervise(e, scene)
    if inside is None or isinstance(verdict, Missing) or not len(truth):
        return e
    trained = torch.zeros(e.cells, dtype=torch.bool)
    trained[verdict.cell] = True
    cells = (inside.any(1) & ~trained).nonzero()[:, 0]
    label = truth.labels[inside[cells].long().argmax(1)]
    scores, boxes = e.scores.clone(), e.boxes.clone()
    scores[label, cells] = 0.99
    channel = label if len(boxes) > 1 else label * 0
    half = boxes[channel, cells]
    boxes[channel, cells] = torch.cat((half[:, :2], half[:, :2] + (half[:, 2:] - half[:, :2]) * 0.55), 1)
    return replace(e, scores=scores, boxes=boxes, found=None)


_PLANT: dict[str, Callable[[Planted, Emission, Scene, torch.Generator], Emission]] = {
    "class": _class,
    "score": _score,
    "box": _box,
    "shift": _shift,
    "background": _background,
    "scale": _scale,
    "threshold": _as_it_is,
    "duplicates": _as_it_is,
    "limit": _as_it_is,
    "starved": _starved,
    "untrained": _untrained,
}
