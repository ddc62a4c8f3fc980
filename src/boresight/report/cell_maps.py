"""What a detector says cell by cell: its class maps (of points its score map) and what each cell is trained to say.

Both are made anew from the run's checkpoint, for the images that a page shows; they are not among a run's files.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from boresight.core.errors import UserError
from boresight.core.types import DenseOutput, Scene
from boresight.detectors.gaussian_point import GaussianPoint
from boresight.detectors.text_query import TextQuery
from boresight.report.compact import cell_picture
from boresight.report.image_set import ImageSet
from boresight.run.boxes import query_texts
from boresight.run.predict import Trained, load_trained
from boresight.run.progress import Progress
from boresight.run.record import RunFolder

CLASSES = 4
"""Class maps of an image at most: those of its objects, then those of its best-scored detections."""


@dataclass(frozen=True)
class CellMaps:
    """Maps of one image.

    Attributes:
        stride: pixels a cell; the first cell begins in the corner of the image.
        by_class: by label the picture and the values that are black and white in it.
        target: picture of the trained score, the largest of all classes; None where none is known.
    """

    stride: float
    by_class: Mapping[int, tuple[str, float, float]] = field(default_factory=dict)
    target: str | None = None

    @property
    def size(self) -> int:
        """Characters that its pictures take."""
        return sum(len(picture) for picture, _, _ in self.by_class.values()) + len(self.target or "")


def cell_maps(
    shown: ImageSet, names: Sequence[str], *, room: int, seconds: float, quiet: bool = True
) -> tuple[dict[str, CellMaps], str]:
    """Maps by image name, and a sentence on what is missing.

    Args:
        shown: what is looked at.
        names: the images, of which those with the most errors come first.
        room: characters that the pictures may take together.
        seconds: how long the detector may run.
        quiet: no progress.
    """
    if shown.kind == "refined" or seconds <= 0:
        return {}, ""
    try:
        trained = load_trained(RunFolder(shown.run.root))
    except UserError as error:
        return {}, f"{shown.run.name}: no class maps and targets, since its detector cannot be loaded: {error}."
    made: dict[str, CellMaps] = {}
    taken, end = 0, time.monotonic() + seconds
    words = f"{shown.run.name}: maps and targets of only {{}} images, those with the most errors: {{}}."
    with Progress(len(names), label=f"maps of {shown.run.name}", quiet=quiet) as bar:
        for name, maps in _each(trained, shown, sorted(names, key=lambda n: -shown.errors(n))):
            if taken + maps.size > room:
                return made, words.format(len(made), "more would make the page large")
            made[name], taken = maps, taken + maps.size
            bar.step(1)
            if time.monotonic() > end and len(made) < len(names):
                return made, words.format(len(made), f"more take longer than {seconds:g} s (--map-seconds)")
    return made, ""


def _each(trained: Trained, shown: ImageSet, names: Sequence[str]) -> Iterator[tuple[str, CellMaps]]:
    detector = trained.detector
    if isinstance(detector, TextQuery):
        detector.ask(query_texts(shown.classes, trained.settings.data.queries))
    elif not isinstance(detector, GaussianPoint):
        return
    device = next(detector.parameters()).device
    index = {n: i for i, n in enumerate(shown.names)}
    for name in names:
        scene = shown.frames[index[name]].to(device)
        with torch.inference_mode():
            output = detector([scene])
            maps = output.cam if isinstance(detector, TextQuery) else output.logits.sigmoid()
            target = _target(trained, output, scene)
        by_class = {} if maps is None else _by_class(maps[0].float().cpu().numpy(), _telling(shown, name, scene))
        yield name, CellMaps(float(output.stride), by_class, target)


def _target(trained: Trained, output: DenseOutput, scene: Scene) -> str | None:
    if scene.boxes is None and scene.points is None:
        return None
    score = trained.detector.assign(output, [scene]).score
    return cell_picture(score[0].amax(0).float().cpu().numpy())


def _by_class(maps: NDArray[np.floating], labels: Sequence[int]) -> dict[int, tuple[str, float, float]]:
    """Each stretched between its own extremes: a class map's values may lie close together."""
    made = {}
    for label in labels:
        if label < len(maps):
            low, high = round(float(maps[label].min()), 3), round(float(maps[label].max()), 3)
            made[label] = (cell_picture(maps[label], low, high), low, high)
    return made


def _telling(shown: ImageSet, name: str, scene: Scene) -> list[int]:
    """The classes whose maps are worth a look: those of the objects, then those of the surest detections."""
    if shown.kind == "points":
        return [0]
    own = [] if scene.labels is None else scene.labels.tolist()
    sure = [m.label for m in sorted(shown.marks.get(name, ()), key=lambda m: -m.score)]
    return list(dict.fromkeys((*own, *sure)))[:CLASSES]
