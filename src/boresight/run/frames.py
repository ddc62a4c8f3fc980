"""From data settings to the frames of a run: opened, checked, split."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from string import Template
from typing import Any, TypeVar

from boresight.core.errors import UserError
from boresight.core.types import Scene
from boresight.data.check import check, enforce, without
from boresight.data.frames import FrameSource, Subset, held_out
from boresight.data.image import Problem
from boresight.data.memory import InMemory
from boresight.data.points import open_points
from boresight.data.sky_settings import preset
from boresight.data.skyfield import Skyfield
from boresight.run.config import DataSettings
from boresight.run.config_text import BoxDataSettings
from boresight.run.recipe import Splits

T = TypeVar("T")


def expanded(path: str, key: str) -> Path:
    """``path`` with ``$NAME`` and ``~`` filled in; ``$BORESIGHT_DATA`` is ../shared/data where it is not set.

    Raises UserError when the environment does not have another name.
    """
    known = {"BORESIGHT_DATA": "../shared/data", **os.environ}
    full = os.path.expanduser(Template(path).safe_substitute(known))
    if "$" in full:
        raise UserError(f"`{key}` = {path}: the environment variable is not set; export it, or give the folder itself")
    return Path(full)


def skyfield(data: DataSettings, split: str) -> Skyfield:
    """The made frames of one split. Splits lie a million frames apart, so they never share one."""
    first, count = {
        "train": (0, data.frames),
        "val": (1_000_000, data.val_frames),
        "test": (2_000_000, data.test_frames),
    }[split]
    sky = preset(data.preset, height=data.height, width=data.width)
    return Skyfield(sky, count=count, seed=data.seed, first=first)


WHOLE = "*"
"""The name of a split that is everything in the folder."""


def opened(data: DataSettings | BoxDataSettings, open_split: Callable[..., T]) -> dict[str, T | Subset]:
    """The frames of a data set on disk by split, unchecked; what is not named is held out or shared as the keys say.

    ``open_split(root, split or None, kind=, audit=)`` reads one.
    """
    if not data.root:
        raise UserError(f"`data.root` is empty: give the folder of the `{data.source}` data")
    root = expanded(data.root, "data.root")

    def read(split: str) -> T:
        name = None if split == WHOLE else split or None
        return open_split(root, name, kind=data.source, audit=data.on_problem == "drop")

    train: Any = read(data.train)
    if data.val:
        val: Any = read(data.val)
    else:
        if data.val_share == 0:
            raise UserError("`data.val_share` = 0: name validation frames with data.val, or hold out a share")
        kept, held = held_out(getattr(train, "groups", train.names), data.val_share, data.seed)
        train, val = Subset(train, kept), Subset(train, held)
    return {"train": train, "val": val, "test": read(data.test) if data.test else val}


def point_splits(data: DataSettings, only: str | None = None) -> Splits:
    """Open and check the frames of a run; ``only`` checks that split alone (the others are not looked into).

    Raises:
        UserError: the data has problems (``data.on_problem``), or a split has no frames.
    """
    if data.source == "skyfield":
        made = {name: InMemory(skyfield(data, name), data.cache_mb) for name in ("train", "val", "test")}
        return _splits(made, data, ("target",), only)
    sources = opened(data, open_points)
    names = [only] if only else [k for k in sources if k != "test" or sources[k] is not sources["val"]]
    problems = check({k: sources[k] for k in names})
    # what is held against one split (a frame shared with another, say) leaves the others as they are
    checked = {name: "val" if source is sources["val"] and "val" in names else name for name, source in sources.items()}
    clean = {
        name: without(source, enforce(problems, data.on_problem, split=checked[name]))
        for name, source in sources.items()
    }
    classes = tuple(getattr(_origin(sources["train"]), "classes", ("target",)))
    return _splits({name: InMemory(source, data.cache_mb) for name, source in clean.items()}, data, classes, only)


def _origin(source: FrameSource) -> FrameSource:
    while isinstance(source, Subset):
        source = source.source
    return source


def _splits(
    frames: dict[str, InMemory], data: DataSettings, classes: tuple[str, ...], only: str | None = None
) -> Splits:
    train = frames["train"]
    order = list(range(len(train)))
    if data.oversample > 1 and only in (None, "train"):  # every frame must be read to know
        order += [i for i in range(len(train)) if _has_targets(train[i])] * (data.oversample - 1)
    return Splits(train, frames["val"], frames["test"], order, classes)


def _has_targets(scene: Scene) -> bool:
    return scene.points is not None and bool((~scene.points.ignore).any())


def check_folder(root: Path, splits: Sequence[str], kind: str = "auto") -> list[Problem]:
    """Everything that is wrong with a data set: its splits, or all of it when none is named."""
    named = {split or "all": open_points(root, split or None, kind=kind, audit=True) for split in (splits or [""])}  # type: ignore[arg-type]
    return check(named)
