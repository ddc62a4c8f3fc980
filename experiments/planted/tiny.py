"""Tiny trainings of every system, and the ways in which a fault is planted in one.

A fault is planted in the real code (a part replaced while it trains and is examined) or in its data and settings; what
examines it, the rules alone or the whole diagnosis, is handed in.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from torch import nn

from boresight.core.errors import Failure
from boresight.core.types import Scene
from boresight.diagnose.rule import Health
from boresight.run.config import PointSettings
from boresight.run.config_refine import RefineSettings
from boresight.run.config_text import LocaliseSettings, TextSettings
from boresight.run.health import run_health
from boresight.run.localise import LOCALISE
from boresight.run.point import POINT
from boresight.run.recipe import Recipe, Splits
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
LONG = {"train.steps": 80, "train.warmup": 10, "train.validate_every": 40, "train.checkpoint_every": 80}
SHORT = {"train.steps": 6, "train.validate_every": 6, "train.checkpoint_every": 6}
TWICE = {"train.steps": 8, "train.validate_every": 8, "train.checkpoint_every": 8}

Examine = Callable[[RunFolder, Recipe | None, bool], Health]
"""A run folder, the recipe with its fault (None: our own) and whether to probe the detector, to what the rules say."""


def examined(run: RunFolder, kind: Recipe | None, probe: bool) -> Health:
    """The rules alone; a run that ended in a failure is examined as it lies there."""
    return run_health(run, probe=probe and run.done.is_file(), kind=kind)


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        name: of the fault.
        what: one sentence.
        system: in which it is planted; `data` where nothing is trained.
        rules: ids of the rules that must fire.
        plant: plants it, trains in an empty folder, and examines the run.
        word: the verdict that names it as well as a rule would; empty: none.
    """

    name: str
    what: str
    system: str
    rules: tuple[str, ...]
    plant: Callable[[Path, Examine], Health]
    word: str = ""

    def health(self, folder: Path, examine: Examine = examined) -> Health:
        """Plant it in an empty folder and examine the run."""
        return self.plant(folder, examine)


Plant = Callable[[Path, Examine], Health]


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
    examine: Examine = examined,
) -> Health:
    """Train a tiny run in ``folder`` and examine it, also where it ended in a failure.

    ``recipe`` is the system with its fault; ``as_written`` examines the run by the system without it.
    """
    with suppress(Failure):
        train(recipe or SYSTEMS[system][0], settings_of(system, keys), folder, quiet=True)
    return examine(RunFolder(folder), None if as_written else recipe, probe)


def with_settings(system: str, keys: dict[str, Any], **more: Any) -> Plant:
    """A fault of settings, or of a recipe (``recipe=``)."""
    return lambda folder, examine: trained(folder, system, keys, examine=examine, **more)


def patched(what: Callable[[ExitStack], None], system: str, keys: dict[str, Any] | None = None, **more: Any) -> Plant:
    """A fault of the code: ``what`` replaces parts of it while the run is trained and examined."""

    def run(folder: Path, examine: Examine) -> Health:
        with ExitStack() as stack:
            what(stack)
            return trained(folder, system, keys, examine=examine, **more)

    return run


def replaced(target: str, value: Any) -> Callable[[ExitStack], None]:
    """``package.module.name`` has another value."""
    return lambda stack: stack.enter_context(patch(target, value))


def within(
    target: Any, name: str, wrap: Callable[..., Any], system: str, keys: dict[str, Any] | None = None, **more: Any
) -> Plant:
    """``target.name`` is what ``wrap`` makes of it."""

    def run(folder: Path, examine: Examine) -> Health:
        with patch.object(target, name, wrap(getattr(target, name))):
            return trained(folder, system, keys, examine=examine, **more)

    return run


def with_views(system: str, change: Callable[[Scene, int], Scene]) -> Recipe:
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


def with_splits(system: str, change: Callable[[Splits], Splits]) -> Recipe:
    """The recipe with other frames."""
    recipe = SYSTEMS[system][0]
    return replace(recipe, frames=lambda settings, only: change(recipe.frames(settings, only)))


def with_frames(system: str, change: Callable[[Scene], Scene], *splits: str) -> Recipe:
    """The recipe with the frames of ``splits`` (none named: of training) changed."""
    names = splits or ("train",)
    return with_splits(system, lambda s: replace(s, **{name: Changed(getattr(s, name), change) for name in names}))


def built(system: str, wrap: Callable[..., Callable[..., nn.Module]]) -> Recipe:
    """The recipe with another way of building."""
    recipe = SYSTEMS[system][0]
    return replace(recipe, build=wrap(recipe.build))
