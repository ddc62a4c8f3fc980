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
        classes: class names, of those that are trained.
        novel: names of further classes, which the test alone knows; their labels come after those of ``classes``.
    """

    train: Frames
    val: Frames
    test: Frames
    order: Sequence[int]
    classes: tuple[str, ...]
    novel: tuple[str, ...] = ()


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
class Request:
    """What is to be judged, and how thoroughly.

    Attributes:
        splits: of the run; ``split`` names the one that is judged.
        split: ``train``, ``val`` or ``test``.
        count: the first so many of its frames.
        threshold: the operating point frozen on the validation frames.
        bootstrap: image resamples for the intervals.
        quiet: no progress.
    """

    splits: Splits
    split: str
    count: int
    threshold: float
    bootstrap: int = 1000
    quiet: bool = True

    @property
    def frames(self) -> Frames:
        """The frames of the split."""
        return getattr(self.splits, self.split)


@dataclass(frozen=True)
class Examination:
    """What a split says of a detector.

    Attributes:
        figures: for ``evaluation.json``.
        predictions: COCO results, a dict a detection.
        rows: of ``matches.parquet``.
        columns: their types.
    """

    figures: dict[str, Any]
    predictions: Sequence[dict[str, Any]]
    rows: Sequence[dict[str, Any]]
    columns: dict[str, str]


@dataclass(frozen=True)
class Recipe:
    """One system, as the loop sees it.

    Attributes:
        name: as on the command line.
        settings: the settings dataclass.
        build: settings and class names to a detector.
        frames: settings to splits (checked; where a split is named, that one alone).
        view: settings to the training view.
        judge: settings, class names, truth scenes and detections to a judgement.
        examine: a detector, its settings and a request to an examination.
        figures: keys of the examination that a study compares, the first being that of the judgement.
        monitor: the key of the judgement's figures that says how far training has come.
        summary: figures to lines for a person.
    """

    name: str
    settings: type
    build: Callable[[Any, tuple[str, ...]], Detector]
    frames: Callable[[Any, str | None], Splits]
    view: Callable[[Any], View]
    judge: Callable[[Any, tuple[str, ...], Sequence[Scene], Sequence[Detections]], Judgement]
    examine: Callable[[Detector, Any, Request], Examination]
    figures: tuple[str, ...]
    monitor: str
    summary: Callable[[dict[str, Any]], str]
