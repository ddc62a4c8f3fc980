"""Which images a run was judged on and which it was diagnosed on, as the image browser needs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from boresight.report.image_set import ImageSet
from boresight.report.reading import FrameStore, RunData, same_images
from boresight.run.recipe import Frames

FALLBACK = 0.5
"""The threshold where none was judged yet."""


@dataclass(frozen=True)
class Opened:
    """The first ``count`` of the frames of a split, and the names of all labels."""

    split: str
    frames: Frames
    classes: tuple[str, ...]
    count: int


Make = Callable[[RunData, Opened], ImageSet]


def run_sets(
    run: RunData, store: FrameStore, of_evaluation: Make, of_diagnosis: Make
) -> tuple[list[ImageSet], list[str]]:
    """The images that the run was judged on and, where they are others, those that it was diagnosed on; and notes."""
    sets, notes = [], []
    for opened, make in (
        (judged_images(run, store), of_evaluation),
        (diagnosed_images(run, store), of_diagnosis),
    ):
        if isinstance(opened, Opened):
            sets.append(make(run, opened))
        elif opened:
            notes.append(f"{run.name}: {opened}")
    return sets, notes


def judged_images(run: RunData, store: FrameStore) -> Opened | str:
    """Those of the evaluation, or a sentence why there is none."""
    if run.evaluation is None or run.predictions is None:
        return "not evaluated yet, so there is no image to look at: `boresight evaluate` writes what is needed."
    splits, frames = store.splits(run), store.frames(run)
    if isinstance(splits, str) or isinstance(frames, str):
        return str(frames)
    count = min(int(run.evaluation.get("frames", len(frames))), len(frames))
    return Opened(run.split, frames, splits.classes + splits.novel, count)


def diagnosed_images(run: RunData, store: FrameStore) -> Opened | str:
    """Those of the diagnosis where it saw others than the evaluation, a sentence where they cannot be opened."""
    if run.diagnosis is None or not run.emissions or (run.evaluation is not None and same_images(run)):
        return ""
    opened = store.of_diagnosis(run)
    if isinstance(opened, str):
        return opened
    frames, classes = opened
    return Opened(str(run.diagnosis["split"]), frames, classes, min(int(run.diagnosis["images"]), len(frames)))


def stored_threshold(run: RunData) -> float:
    """The threshold that the evaluation used."""
    return float((run.evaluation or {}).get("threshold", FALLBACK))


def of_same_images(run: RunData) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Emissions and objects of a diagnosis of the judged images; empty where it saw others, or there is none."""
    return (run.emissions, run.objects) if same_images(run) else ([], [])


def lost(row: Mapping[str, Any]) -> float:
    """How much better the box that this emission drove out would have fitted, 0 where it drove out none."""
    return 0.0 if row.get("displaced_iou") is None else float(row["displaced_iou"] - row["own_iou"])
