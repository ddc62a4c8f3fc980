"""What the loop needs to know of a system: how to build it, feed it and judge it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from boresight.core.types import Detections, Scene
from boresight.detectors.detector import Detector


class Frames(Protocol):
    """Frames that can be asked for by index, and give the same scene every time."""

    @property
    def names(self) -> Sequence[str]:
        """A name for every frame."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Scene: ...


@dataclass(frozen=True)
class Splits:
    """The frames of a run. ``test`` is never looked at in training.

    Attributes:
        train, val, test: the frames.
        order: indices into ``train``, one an entry of an epoch (a frame may stand there several times).
        classes: class names.
    """

    train: Frames
    val: Frames
    test: Frames
    order: Sequence[int]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Judgement:
    """What the validation frames say of a detector.

    Attributes:
        score: the number that names the best checkpoint; larger is better.
        name: what that number is.
        threshold: the operating point chosen on these frames, stored with the weights.
        figures: further numbers for the metrics table.
    """

    score: float
    name: str
    threshold: float
    figures: dict[str, float | None] = field(default_factory=dict)


View = Callable[[Frames, int, np.random.Generator], Scene]
"""Frames, the index of one, and a generator: the scene to train on."""


@dataclass(frozen=True)
class Recipe:
    """One system, as the loop sees it.

    Attributes:
        name: as on the command line.
        settings: the settings dataclass.
        build: settings and number of classes to a detector.
        frames: settings to splits (checked).
        view: settings to the training view.
        judge: settings, truth scenes and detections to a judgement.
    """

    name: str
    settings: type
    build: Callable[[Any, int], Detector]
    frames: Callable[[Any], Splits]
    view: Callable[[Any], View]
    judge: Callable[[Any, Sequence[Scene], Sequence[Detections]], Judgement]
