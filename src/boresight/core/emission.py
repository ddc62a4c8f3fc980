"""All that a detector emits for one image, before anything is dropped, and what it was trained to emit there.

The audit of :mod:`boresight.diagnose` reads these and never a model, so that anybody's detector can be judged. A *cell*
is whatever emits boxes: a place of a feature map, an anchor, a proposal, a query. A *slot* is a class of a cell; its
flat number is ``label * N + cell`` for N cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from boresight.core.types import Detections, Scene, _check, _OnDevice


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that a source cannot give, and why. It is said, never guessed."""

    reason: str


@dataclass(frozen=True, slots=True)
class Emission(_OnDevice):
    """The raw output for one image of C classes and N cells.

    Attributes:
        boxes: ``[K, N, 4]`` float xyxy, pixel frame of the original image. K is 1 where the classes of a cell share one
            box, else C. Points have size zero.
        scores: ``[C, N]`` float in [0, 1], by which detections are ranked in the end (everything multiplied in).
        size: ``(height, width)`` of the image, pixels.
        centres: ``[N, 2]`` float, pixel frame, where each cell lies; None where cells have no place (queries).
        strides: ``[N]`` float, pixels a cell; None where there is no such thing.
        level: ``[N]`` long, the level of the pyramid from 0; None: there is one.
        found: what the detector itself kept of this, ``cell`` being slots (-1 where that is not known); None where only
            its :class:`Decoding` is known.
        given: why the scores are no output of the detector, where they are not: what a score made true would gain is
            not asked then.
    """

    boxes: Tensor
    scores: Tensor
    size: tuple[int, int]
    centres: Tensor | None = None
    strides: Tensor | None = None
    level: Tensor | None = None
    found: Detections | None = None
    given: str | None = None

    def __post_init__(self) -> None:
        _check("Emission", "scores", self.scores, (None, None))
        classes, cells = self.scores.shape
        _check("Emission", "boxes", self.boxes, (None, cells, 4))
        if len(self.boxes) not in (1, classes):
            raise ValueError(f"Emission.boxes must have 1 or {classes} boxes a cell, got {len(self.boxes)}")
        for name, shape in (("centres", (cells, 2)), ("strides", (cells,)), ("level", (cells,))):
            if (value := getattr(self, name)) is not None:
                _check("Emission", name, value, shape)

    @property
    def classes(self) -> int:
        """C."""
        return len(self.scores)

    @property
    def cells(self) -> int:
        """N."""
        return int(self.scores.shape[1])

    def boxes_of(self, slot: Tensor) -> Tensor:
        """``[k, 4]`` boxes of the slots ``[k]``."""
        label, cell = slot // self.cells, slot % self.cells
        return self.boxes[label if len(self.boxes) > 1 else label * 0, cell]


@dataclass(frozen=True, slots=True)
class Supervision(_OnDevice):
    """Which cells were trained, and for what: the assigner's verdict on one image, P pairs of a cell and an object.

    Attributes:
        cell: ``[P]`` long, cells whose box is trained; a cell stands for one object at most in each class.
        object: ``[P]`` long, the row of ``Scene.boxes`` that it must emit.
        positive: ``[P]`` bool, whether its score is trained as that of the object too (else the box alone is).
        by_prediction: whether the assigner looked at what was emitted (TAL, SimOTA, Hungarian matching). Then that its
            cells emit good boxes is no finding: it chose them for it.
    """

    cell: Tensor
    object: Tensor
    positive: Tensor
    by_prediction: bool

    def __post_init__(self) -> None:
        for name in ("cell", "object", "positive"):
            _check("Supervision", name, getattr(self, name), (len(self.cell),))


@dataclass(frozen=True)
class Decoding:
    """How a detector gets from its slots to what it returns.

    Attributes:
        threshold: scores must be at least this (and over 0).
        before_nms: the best so many slots are looked at; 0: all.
        per: those of the ``image``, of each ``level``, or of each ``class``.
        nms: of two boxes that overlap by more than this IoU the lower-scored one is dropped; None: nothing is dropped.
        by_class: only boxes of one class compete.
        by_level: only boxes of one level compete.
        single: a cell speaks for its best class alone.
        top_k: at most so many detections; 0: all.
        limit: those of the ``image``, or of each ``class``.
        least: boxes with a side of at most this many pixels are dropped before they compete; None: none is.
        cut: boxes are cut to the image ``before`` they compete, ``after`` it, or ``never``.
    """

    threshold: float = 0.0
    before_nms: int = 1000
    per: Literal["image", "level", "class"] = "image"
    nms: float | None = 0.5
    by_class: bool = True
    by_level: bool = False
    single: bool = False
    top_k: int = 100
    limit: Literal["image", "class"] = "image"
    least: float | None = 0.0
    cut: Literal["before", "after", "never"] = "before"


class Source(Protocol):
    """Anybody's detector, as the audit sees it.

    Attributes:
        classes: names, in the order of the scores and of ``Scene.labels``.
        decoding: how it selects; None where that is not known (then `Emission.found` speaks).
    """

    classes: tuple[str, ...]
    decoding: Decoding | None

    def emit(self, scene: Scene) -> Emission:
        """Everything that it emits for an image, in inference mode, nothing dropped."""
        ...

    def supervise(self, emission: Emission, scene: Scene) -> Supervision | Missing:
        """Which of these cells it would train, and for which object of ``scene.boxes``, by its own assigner."""
        ...
