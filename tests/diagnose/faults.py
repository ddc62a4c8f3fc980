"""Faults that cost somebody a training, each planted in a real system, and the rules that must fire on it.

`FAULTS` is a plain tuple, so that tests and experiments go through the same list: ``fault.health(folder)`` plants the
fault, trains in ``folder`` (seconds on a CPU) and returns what the rules say.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import yaml
from torch import Tensor, nn

from boresight.core.errors import Failure
from boresight.core.types import Points, Scene
from boresight.detectors import gaussian_point
from boresight.detectors.frozen_maps import FrozenMaps
from boresight.diagnose.evidence import Evidence
from boresight.diagnose.health import health
from boresight.diagnose.measure_labels import labels_of
from boresight.diagnose.plan import Plan
from boresight.diagnose.rule import Health
from boresight.diagnose.steps import Steps
from boresight.features.feature_store import MemoryStore
from boresight.losses.classification import bce
from boresight.run.config import PointSettings
from boresight.run.config_refine import RefineSettings
from boresight.run.config_text import LocaliseSettings, TextSettings
from boresight.run.health import run_health
from boresight.run.localise import LOCALISE
from boresight.run.point import POINT
from boresight.run.recipe import Recipe
from boresight.run.record import RunFolder
from boresight.run.refine import REFINE
from boresight.run.text import TEXT
from boresight.run.train import train

POINTS: dict[str, Any] = {
    "data.preset": "easy",
    "data.height": 64,
    "data.width": 80,
    "data.frames": 16,
    "data.val_frames": 12,
    "augment.crop": 32,
    "encoder.widths": (8, 8, 8, 8),
    "encoder.channels": 8,
    "train.steps": 24,
    "train.batch": 4,
    "train.warmup": 6,
    "train.validate_every": 12,
    "train.checkpoint_every": 12,
    "train.threads": 1,
}
BOXES: dict[str, Any] = {
    "data.kinds": ("vehicle", "storage tank"),
    "data.colours": ("yellow", "black"),
    "data.height": 80,
    "data.width": 80,
    "data.frames": 8,
    "data.val_frames": 8,
    "train.steps": 24,
    "train.batch": 4,
    "train.warmup": 4,
    "train.validate_every": 12,
    "train.checkpoint_every": 12,
    "train.threads": 1,
}
QUERIES = BOXES | {
    "clip.window": 64,
    "encoder.widths": (4, 6, 8, 8),
    "encoder.channels": 8,
    "head.width": 8,
    "head.embed": 8,
    "head.depth": 1,
}
COARSE = BOXES | {"coarse.per_image": 4, "head.grid": 4, "head.width": 16, "head.depth": 1}
SYSTEMS: dict[str, tuple[Recipe, Any, dict[str, Any]]] = {
    "point": (POINT, PointSettings(), POINTS),
    "text": (TEXT, TextSettings(), QUERIES),
    "localise": (LOCALISE, LocaliseSettings(), QUERIES),
    "refine": (REFINE, RefineSettings(), COARSE),
}


def settings_of(system: str, keys: dict[str, Any] | None = None) -> Any:
    """Settings of a tiny run with these keys (``group.name``)."""
    _, settings, tiny = SYSTEMS[system]
    for key, value in (tiny | (keys or {})).items():
        group, _, name = key.rpartition(".")
        inner = replace(getattr(settings, group), **{name: value}) if group else value
        settings = replace(settings, **{group or name: inner})
    return settings


def trained(
    folder: Path,
    system: str,
    keys: dict[str, Any] | None = None,
    *,
    recipe: Recipe | None = None,
    as_written: bool = False,
    probe: bool = True,
) -> Health:
    """Train a tiny run in ``folder`` and examine it; a run that ends in a failure is examined as it lies there.

    ``recipe`` is the system with its fault; ``as_written`` examines the run by the system without it.
    """
    with suppress(Failure):
        train(recipe or SYSTEMS[system][0], settings_of(system, keys), folder, quiet=True)
    run = RunFolder(folder)
    return run_health(run, probe=probe and run.done.is_file(), kind=None if as_written else recipe)


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        name: of the fault.
        what: one sentence.
        rules: ids of the rules that must fire.
        health: plants it and examines the run, in an empty folder.
    """

    name: str
    what: str
    rules: tuple[str, ...]
    health: Callable[[Path], Health]


def _settings(system: str, keys: dict[str, Any], **more: Any) -> Callable[[Path], Health]:
    return lambda folder: trained(folder, system, keys, **more)


def _patched(
    what: Callable[[ExitStack], None], system: str, keys: dict[str, Any] | None = None, **more: Any
) -> Callable:
    def run(folder: Path) -> Health:
        with ExitStack() as stack:
            what(stack)
            return trained(folder, system, keys, **more)

    return run


def _replaced(target: str, value: Any) -> Callable[[ExitStack], None]:
    return lambda stack: stack.enter_context(patch(target, value))


# --- data and views --------------------------------------------------------------------------------------------------


def _view(system: str, change: Callable[[Scene, int], Scene]) -> Recipe:
    """The recipe with training views changed; ``change`` is given the view and how many were made before."""
    recipe = SYSTEMS[system][0]

    def view(settings: Any) -> Any:
        plain, count = recipe.view(settings), itertools.count()
        return lambda frames, index, rng: change(plain(frames, index, rng), next(count))

    return replace(recipe, view=view)


class Changed:
    """Frames, each changed."""

    def __init__(self, frames: Any, change: Callable[[Scene], Scene]) -> None:
        self.frames, self.change, self.names = frames, change, frames.names
        self.classes = getattr(frames, "classes", ())

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Scene:
        return self.change(self.frames[index])


def _frames(system: str, change: Callable[[Scene], Scene]) -> Recipe:
    """The recipe with training frames changed."""
    recipe = SYSTEMS[system][0]

    def frames(settings: Any, only: str | None) -> Any:
        splits = recipe.frames(settings, only)
        return replace(splits, train=Changed(splits.train, change))

    return replace(recipe, frames=frames)


def _without_objects(scene: Scene) -> Scene:
    if scene.points is not None:
        return replace(scene, points=Points.of([]))
    none = torch.zeros(0, dtype=torch.long)
    made = replace(scene, boxes=torch.zeros(0, 4), labels=none, ignore=None)
    if made.proposals is not None:
        made = replace(made, proposals=type(made.proposals)(torch.zeros(0, 4), none, torch.zeros(0), none))
    return made


def _shifted(scene: Scene, count: int) -> Scene:
    """Labels half a cell to the right and down, as an even window put on whole cells leaves them."""
    assert scene.points is not None
    height, width = scene.size
    end = torch.tensor([width, height]) - 0.01
    return replace(scene, points=replace(scene.points, xy=(scene.points.xy + 2).minimum(end)))


def _tiny(scene: Scene, count: int) -> Scene:
    """In the 14th step, boxes of a thousandth of a pixel, as a wrong division leaves them."""
    if not 56 <= count < 60 or scene.boxes is None:
        return scene
    middle = (scene.boxes[:, :2] + scene.boxes[:, 2:]) / 2
    return replace(scene, boxes=torch.cat((middle, middle + 1e-3), dim=-1))


def _infinite(scene: Scene, count: int) -> Scene:
    """From the 30th view on one pixel is infinite."""
    if count < 30:
        return scene
    image = scene.image.clone()
    image[0, 3, 3] = torch.inf
    return replace(scene, image=image)


def _giant(scene: Scene, count: int) -> Scene:
    """One object that fills the image, among several of 5 pixels."""
    height, width = scene.size
    small = torch.tensor([[8.0 * i + 4, 8.0 * i + 4, 8.0 * i + 9, 8.0 * i + 9] for i in range(8)])
    boxes = torch.cat((torch.tensor([[0.0, 0.0, width, height]]), small))
    return replace(scene, boxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.long), ignore=None)


# --- parts of the detector -------------------------------------------------------------------------------------------


def _two(assign: Callable[..., Any]) -> Callable[..., Any]:
    """Targets of the first two objects of an image: an array of fixed length has room for no more."""

    def truncated(self: Any, output: Any, scenes: Sequence[Scene]) -> Any:
        first = [replace(s, points=s.points.select(torch.arange(min(2, len(s.points))))) for s in scenes]  # type: ignore[union-attr, arg-type]
        return assign(self, output, first)

    return truncated


def _halved(decode: Callable[..., Any]) -> Callable[..., Any]:
    """Boxes in the pixels of an image of half the size."""
    return lambda self, output: [replace(d, boxes=d.boxes / 2) for d in decode(self, output)]


def _top_left(image: Tensor, height: int, width: int) -> Tensor:
    _, h, w = image.shape
    return nn.functional.pad(image, (width - w, 0, height - h, 0), mode="replicate")


def _turned(xy: Tensor, stride: float) -> Tensor:
    """Pixels to cells, columns and rows exchanged."""
    return xy.flip(-1) / stride - 0.5


def _in_pixels(boxes: Tensor, wanted: Tensor) -> Tensor:
    return (boxes - wanted).abs().sum(-1)


class _Stuck(nn.BatchNorm2d):
    """Batch normalisation that no one can switch to inference."""

    def train(self, mode: bool = True) -> _Stuck:
        return super().train(True)


class _Stale(nn.BatchNorm2d):
    """Batch normalisation with the running statistics of other images, which nothing updates."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=0.0)
        self.running_mean.fill_(0.5)  # type: ignore[union-attr]
        self.running_var.fill_(16.0)  # type: ignore[union-attr]


def _scaled(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    def built(settings: Any, classes: tuple[str, ...]) -> nn.Module:
        detector = build(settings, classes)
        with torch.no_grad():
            for module in detector.modules():
                if isinstance(module, nn.Conv2d):
                    module.weight.mul_(1e5)
        return detector

    return built


def _thawed(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """A frozen backbone that somebody thawed again."""

    def built(settings: Any, classes: tuple[str, ...]) -> nn.Module:
        detector = build(settings, classes)
        for module in detector.modules():
            if getattr(module, "frozen", None) is True:
                module.frozen = False  # type: ignore[assignment]
        return detector.requires_grad_(True)

    return built


@torch.no_grad()
def _slow_average(averaged: Any, current: Any, count: Any) -> None:
    """An average that reaches back to the first step from the start."""
    torch._foreach_lerp_(averaged, current, 1e-4)


def _bce(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Scores by plain cross-entropy, whatever their targets."""

    def built(settings: Any, classes: tuple[str, ...]) -> nn.Module:
        detector: Any = build(settings, classes)
        detector.criterion = replace(detector.criterion, cell_loss=bce)
        return detector

    return built


def _worn_encoder(stack: ExitStack) -> None:
    """Every look at the frozen encoder's hash finds it changed by training."""
    count = itertools.count()
    stack.enter_context(patch.object(FrozenMaps, "fingerprint", property(lambda self: f"{next(count):032x}")))


def _new_keys(stack: ExitStack) -> None:
    """An image's key is made of when it was asked for."""
    count = itertools.count()
    stack.enter_context(patch("boresight.features.frozen.image_key", lambda image: f"{next(count):032x}"))


def _small_store(stack: ExitStack) -> None:
    """Room for about three images of eight."""
    stack.enter_context(patch("boresight.run.text_parts.MemoryStore", lambda megabytes: MemoryStore(0.2)))


def _tired(scene: Scene, gain: float, shift: float, noise: float, rng: Any) -> Scene:
    time.sleep(0.02)
    return scene


def _by_heart() -> Health:
    """A table of 300 steps: the loss falls by a half, the figure rises and falls."""
    figures = {100: 0.5, 150: 0.6, 200: 0.45, 250: 0.4, 300: 0.35}
    rows = [{"step": i, "loss_cls": 2.0 - i / 300, "val_f1": figures.get(i)} for i in range(1, 301)]
    return health(Evidence(Plan(score="f1", steps=300), Steps.of(rows, "f1")))


def _coarse_without(plain: Callable[..., Any]) -> Callable[..., Any]:
    def targets(fine: Any, factor: int) -> Any:
        made = plain(fine, factor)
        return replace(made, positive=torch.zeros_like(made.positive)) if factor > 2 else made

    return targets


# --- data alone ------------------------------------------------------------------------------------------------------


def scenes(split: str, count: int = 24) -> list[Scene]:
    """Made scenes of two classes."""
    frames = getattr(TEXT.frames(settings_of("text", {"data.frames": count, "data.val_frames": count}), None), split)
    return [frames[i] for i in range(len(frames))]


CLASSES = ("yellow vehicle", "black storage tank")


def _labels(change: Callable[[Tensor], Tensor], classes: tuple[str, ...] = CLASSES) -> Callable[[Path], Health]:
    def run(folder: Path) -> Health:
        val = [replace(s, labels=change(s.labels)) for s in scenes("val")]  # type: ignore[arg-type]
        return health(Evidence(labels=labels_of(classes, {"train": ((), scenes("train")), "val": ((), val)})))

    return run


def _with_key(folder: Path) -> Health:
    """A key that nothing reads, in the file of a run of a time when nobody looked."""
    trained(folder, "point", {"train.steps": 2}, probe=False)
    config = RunFolder(folder).config
    values = yaml.safe_load(config.read_text())
    values["train"]["lernig_rate"] = 0.1
    config.write_text(yaml.safe_dump(values))
    return run_health(RunFolder(folder))


def _within(
    target: Any, name: str, wrap: Callable[..., Any], system: str, keys: dict[str, Any] | None = None
) -> Callable:
    """``target.name`` replaced by what ``wrap`` makes of it."""

    def run(folder: Path) -> Health:
        with patch.object(target, name, wrap(getattr(target, name))):
            return trained(folder, system, keys)

    return run


def _built(system: str, wrap: Callable[..., Any]) -> Recipe:
    """The recipe with another way of building."""
    recipe = SYSTEMS[system][0]
    return replace(recipe, build=wrap(recipe.build))


HARD = {"target.label": "hard", "loss.name": "bce", "loss.per": "cells"}
SPARSE = {"data.height": 128, "data.width": 160, "augment.crop": 96, "augment.positive_share": 0.0}
LONG = {"train.steps": 80, "train.warmup": 10, "train.validate_every": 40, "train.checkpoint_every": 80}
SHORT = {"train.steps": 6, "train.validate_every": 6, "train.checkpoint_every": 6}
TWICE = {"train.steps": 8, "train.validate_every": 8, "train.checkpoint_every": 8}
NORM = "boresight.features.pyramid.nn.BatchNorm2d"

LOSSES = (
    Fault(
        "background",
        "one-pixel labels and cross-entropy averaged over all cells",
        ("background-trap",),
        _settings("point", HARD | SPARSE | LONG, probe=False),
    ),
    Fault(
        "calibration",
        "the same on crops full of targets: ranking is learned, and 0.5 finds nothing",
        ("threshold-half",),
        _settings("point", HARD | LONG, probe=False),
    ),
    Fault(
        "bias of zero",
        "a fresh head says 0.5 everywhere",
        ("prior-missing", "first-step-shock"),
        _settings("point", SPARSE | SHORT | {"head.prior": 0.5}),
    ),
    Fault(
        "no weighing",
        "cross-entropy over cells, a fresh head at 0.5",
        ("gradient-share",),
        _settings("point", HARD | SPARSE | SHORT | {"head.prior": 0.5}),
    ),
    Fault(
        "far too fast",
        "a learning rate of 3 for four images, no clip",
        ("learning-rate-high", "no-better-than-constant"),
        _settings("point", LONG | {"train.learning_rate": 3.0, "train.clip": 0.0}),
    ),
    Fault(
        "a box without size",
        "one batch of boxes of a thousandth of a pixel, no clip",
        ("gradient-explosion",),
        _settings("localise", {"train.clip": 0.0}, recipe=_view("localise", _tiny), probe=False),
    ),
    Fault(
        "tight clip", "a clip of 0.001", ("clip-always-active",), _settings("point", {"train.clip": 1e-3}, probe=False)
    ),
    Fault(
        "dead sensor",
        "one frame holds an infinite value",
        ("non-finite-loss",),
        _settings("point", {}, recipe=_view("point", _infinite)),
    ),
    Fault(
        "pixels",
        "the distance of edges in pixels",
        ("loss-out-of-range",),
        _patched(_replaced("boresight.losses.boxes.box_l1", _in_pixels), "localise", TWICE, probe=False),
    ),
    Fault(
        "soft floor",
        "cross-entropy with soft targets, learned as far as it goes",
        ("entropy-floor",),
        _settings("text", LONG | {"assign.rule": "inside", "assign.score": "centerness"}, recipe=_built("text", _bce)),
    ),
)
TARGETS = (
    Fault(
        "no class map",
        "every label is dropped on the way",
        ("no-objects",),
        _settings("point", {}, recipe=_frames("point", _without_objects), probe=False),
    ),
    Fault(
        "nothing taught",
        "the same of a refiner",
        ("zero-loss", "no-objects"),
        _settings("refine", TWICE, recipe=_view("refine", lambda scene, count: _without_objects(scene))),
    ),
    Fault(
        "limit out of reach",
        "only cells whose box overlaps by 1 are positive",
        ("no-positives", "objects-without-positives", "positives-per-object"),
        _settings("text", TWICE | {"assign.rule": "radius", "assign.min_giou": 1.0}),
    ),
    Fault(
        "empty level",
        "the coarsest level is supervised and never assigned",
        ("positive-rate-of-level",),
        _within(gaussian_point, "coarser_targets", _coarse_without, "point", SHORT),
    ),
    Fault(
        "one giant",
        "every cell inside is positive, and one object fills the image",
        ("positives-uneven",),
        _settings("text", TWICE | {"assign.rule": "inside", "head.stride": 4}, recipe=_view("text", _giant)),
    ),
    Fault(
        "truncated",
        "targets hold two objects of an image",
        ("targets-truncated",),
        _within(gaussian_point.GaussianPoint, "assign", _two, "point", SHORT),
    ),
)
PLACES = (
    Fault(
        "coarse",
        "a level of stride 16 without a place in the cell",
        ("level-too-coarse",),
        _settings("point", SHORT | {"head.level": "p4", "decode.refine": "none"}),
    ),
    Fault(
        "half the pixels",
        "boxes are decoded at half the size",
        ("geometry-round-trip",),
        _within(gaussian_point.GaussianPoint, "decode", _halved, "point", SHORT),
    ),
    Fault(
        "rows for columns",
        "targets exchange rows and columns",
        ("geometry-round-trip",),
        _patched(_replaced("boresight.targets.gaussian.pixel_to_cell", _turned), "point", SHORT),
    ),
    Fault(
        "wrong side",
        "images are padded at the top and left",
        ("padding-shift",),
        _patched(_replaced("boresight.detectors.gaussian_point._padded", _top_left), "point", LONG),
    ),
    Fault(
        "half a cell",
        "training labels lie half a cell beside their targets",
        ("labels-shifted",),
        _settings("point", LONG, recipe=_view("point", _shifted)),
    ),
)
WEIGHTS = (
    Fault(
        "stuck",
        "batch normalisation stays in training mode",
        ("train-eval-parity",),
        _patched(_replaced(NORM, _Stuck), "point", SHORT),
    ),
    Fault(
        "stale statistics",
        "running statistics are those of other images",
        ("train-eval-parity",),
        _patched(_replaced(NORM, _Stale), "point", LONG),
    ),
    Fault(
        "long average",
        "an average over 10,000 steps that does not start short",
        ("ema-behind",),
        _patched(_replaced("boresight.run.train.moving_average", lambda decay: _slow_average), "point", LONG),
    ),
    Fault(
        "out of half",
        "weights 100,000 times too large",
        ("fp16-overflow",),
        _settings("point", SHORT, recipe=_built("point", _scaled)),
    ),
    Fault(
        "thawed",
        "a frozen backbone is thawed and trained",
        ("frozen-weights-moved",),
        _settings(
            "text",
            TWICE | {"encoder.name": "squeezenet", "encoder.frozen": True},
            recipe=_built("text", _thawed),
            as_written=True,
        ),
    ),
    Fault(
        "tuned encoder",
        "the frozen language-image encoder is written to in training",
        ("frozen-hash-changed",),
        _patched(_worn_encoder, "text", TWICE),
    ),
)
SPEED = (
    Fault(
        "slow view",
        "a change of brightness takes 20 ms",
        ("loader-bound",),
        _patched(_replaced("boresight.data.augment.brightened", _tired), "point", {"augment.noise": 0.1}),
    ),
    Fault(
        "key of the hour",
        "the key of an image is new every time",
        ("cache-key-unstable",),
        _patched(_new_keys, "text", TWICE, probe=False),
    ),
    Fault(
        "small store",
        "the store holds three of eight images",
        ("cache-hits-low",),
        _patched(_small_store, "text", TWICE, probe=False),
    ),
)
LABELS = (
    Fault("counted from 1", "labels are counted from 1", ("class-ids",), _labels(lambda labels: labels + 1)),
    Fault(
        "exchanged",
        "two classes have changed places in the validation split",
        ("classes-permuted",),
        _labels(lambda labels: 1 - labels),
    ),
    Fault("unread", "a misspelt key", ("unread-key",), _with_key),
    Fault(
        "switched off",
        "a key of another loss",
        ("unread-key",),
        _settings("point", {"train.steps": 2, "loss.focal_gamma": 1.0}, probe=False),
    ),
    Fault(
        "stretched maps",
        "class maps are stretched over 0..1",
        ("map-peak-of-absent",),
        _settings("text", TWICE | {"clip.map": "min_max"}),
    ),
    Fault(
        "threshold of custom",
        "a fixed threshold of 0.9",
        ("threshold-off",),
        _settings("text", LONG | {"decode.operating": "fixed", "decode.threshold": 0.9}),
    ),
    Fault(
        "by heart",
        "the validation figure falls while the loss falls (a table)",
        ("loss-and-score-diverge",),
        lambda folder: _by_heart(),
    ),
)
FAULTS: tuple[Fault, ...] = (*LOSSES, *TARGETS, *PLACES, *WEIGHTS, *SPEED, *LABELS)


def rules_planted() -> dict[str, tuple[str, ...]]:
    """Every fault by name, with the rules that must fire on it."""
    return {fault.name: fault.rules for fault in FAULTS}
