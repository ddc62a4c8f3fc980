"""Faults of labels, keys and thresholds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import yaml
from torch import Tensor

from boresight.core.types import Scene
from boresight.diagnose.evidence import Evidence
from boresight.diagnose.health import health
from boresight.diagnose.measure_labels import labels_of
from boresight.diagnose.plan import Plan
from boresight.diagnose.rule import Health
from boresight.diagnose.steps import Steps
from boresight.run.record import RunFolder
from boresight.run.text import TEXT
from planted.targets import SPEAKING
from planted.tiny import LONG, TWICE, Examine, Fault, Plant, settings_of, trained, with_settings


def _by_heart() -> Health:
    """A table of 300 steps: the loss falls by a half, the figure rises and falls."""
    figures = {100: 0.5, 150: 0.6, 200: 0.45, 250: 0.4, 300: 0.35}
    rows = [{"step": i, "loss_cls": 2.0 - i / 300, "val_f1": figures.get(i)} for i in range(1, 301)]
    return health(Evidence(Plan(score="f1", steps=300), Steps.of(rows, "f1")))


def scenes(split: str, count: int = 24) -> list[Scene]:
    """Made scenes of two classes."""
    frames = getattr(TEXT.frames(settings_of("text", {"data.frames": count, "data.val_frames": count}), None), split)
    return [frames[i] for i in range(len(frames))]


CLASSES = ("yellow vehicle", "black storage tank")


def _labels(change: Callable[[Tensor], Tensor], classes: tuple[str, ...] = CLASSES) -> Plant:
    def run(folder: Path, examine: Examine) -> Health:
        val = [replace(s, labels=change(s.labels)) for s in scenes("val")]  # type: ignore[arg-type]
        return health(Evidence(labels=labels_of(classes, {"train": ((), scenes("train")), "val": ((), val)})))

    return run


def _with_key(folder: Path, examine: Examine) -> Health:
    """A key that nothing reads, in the file of a run of a time when nobody looked."""
    trained(folder, "point", {"train.steps": 2}, probe=False)
    config = RunFolder(folder).config
    values = yaml.safe_load(config.read_text())
    values["train"]["lernig_rate"] = 0.1
    config.write_text(yaml.safe_dump(values))
    return examine(RunFolder(folder), None, False)


LABELS = (
    Fault("counted from 1", "labels are counted from 1", "data", ("class-ids",), _labels(lambda labels: labels + 1)),
    Fault(
        "exchanged",
        "two classes have changed places in the validation split",
        "data",
        ("classes-permuted",),
        _labels(lambda labels: 1 - labels),
    ),
    Fault("unread", "a misspelt key", "point", ("unread-key",), _with_key),
    Fault(
        "switched off",
        "a key of another loss",
        "point",
        ("unread-key",),
        with_settings("point", {"train.steps": 2, "loss.focal_gamma": 1.0}, probe=False),
    ),
    Fault(
        "stretched maps",
        "class maps are stretched over 0..1",
        "text",
        ("map-peak-of-absent",),
        with_settings("text", SPEAKING | TWICE | {"clip.map": "min_max"}),
    ),
    Fault(
        "threshold of custom",
        "a fixed threshold of 0.9",
        "text",
        ("threshold-off",),
        with_settings("text", LONG | {"decode.operating": "fixed", "decode.threshold": 0.9}),
    ),
    Fault(
        "by heart",
        "the validation figure falls while the loss falls (a table)",
        "data",
        ("loss-and-score-diverge",),
        lambda folder, examine: _by_heart(),
    ),
)
