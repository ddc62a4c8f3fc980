"""From data settings to the images of a run: opened, checked, split, with base classes before novel ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from boresight.core.errors import UserError, did_you_mean
from boresight.data.aerial import Aerial
from boresight.data.aerial_settings import COLOURS, KINDS, AerialSettings
from boresight.data.box_check import check_boxes
from boresight.data.boxes import open_boxes
from boresight.data.check import enforce, without
from boresight.data.frames import Subset
from boresight.data.image import Problem
from boresight.data.memory import InMemory
from boresight.data.relabel import Relabelled
from boresight.run.config_text import BoxDataSettings
from boresight.run.frames import opened
from boresight.run.recipe import Splits


def query_texts(classes: Sequence[str], queries: Sequence[str]) -> tuple[str, ...]:
    """What is asked for each class: its name, or what ``class=query|synonym`` says.

    Raises UserError for a name that is no class, with its neighbour.
    """
    asked = {}
    for entry in queries:
        name, _, text = entry.partition("=")
        asked[name.strip()] = text.strip()
    return tuple(asked.get(c, c.replace("-", " ").replace("_", " ")) for c in classes)


def check_queries(classes: Sequence[str], data: BoxDataSettings) -> None:
    """UserError for a query or a novel class that names no class, or one twice, and where none is left to train on."""
    given = {"data.queries": [q.partition("=")[0].strip() for q in data.queries], "data.novel": list(data.novel)}
    for key, names in given.items():
        for i, name in enumerate(names):
            if name not in classes:
                near = did_you_mean(name, classes) or f"; classes: {', '.join(classes)}"
                raise UserError(f"`{key}` names `{name}`: no class of the data{near}")
            if name in names[:i]:
                raise UserError(f"`{key}` names `{name}` twice: name each class once, synonyms as `{name}=a|b`")
    if not set(classes) - set(data.novel):
        raise UserError("`data.novel` names every class: leave at least one to train on")


def aerial(data: BoxDataSettings, split: str) -> Aerial:
    """The made scenes of one split. Splits lie a million scenes apart, so they never share one."""
    first, count = {
        "train": (0, data.frames),
        "val": (1_000_000, data.val_frames),
        "test": (2_000_000, data.test_frames),
    }[split]
    settings = AerialSettings(
        height=data.height,
        width=data.width,
        kinds=data.kinds or KINDS,
        colours=data.colours or COLOURS,
        classes=data.classes,
    )
    return Aerial(settings, count=count, seed=data.seed, first=first, novel=split == "test")


def box_splits(data: BoxDataSettings, only: str | None = None) -> Splits:
    """Open and check the images of a run; ``only`` checks that split alone.

    Training and validation know the base classes; the test is asked for the novel ones as well, which come after them.

    Raises:
        UserError: the data has problems (``data.on_problem``), a split has no images, or a key names no class.
    """
    if data.source == "aerial":
        made = {name: aerial(data, name) for name in ("train", "val", "test")}
        check_queries(made["test"].classes, data)
        novel = tuple(dict.fromkeys((*made["test"].held_out, *data.novel)))
        return _splits(made, tuple(c for c in made["test"].base if c not in novel), novel, data)
    sources = opened(data, open_boxes)
    classes = tuple(_classes(sources["train"]))
    check_queries(classes, data)  # before every image is read
    names = [only] if only else [k for k in sources if k != "test" or sources[k] is not sources["val"]]
    problems = check_boxes({k: sources[k] for k in names})
    same = sources["test"] is sources["val"]
    clean = {
        name: without(source, enforce(problems, data.on_problem, split="val" if name == "test" and same else name))
        for name, source in sources.items()
    }
    base = tuple(c for c in classes if c not in data.novel)
    return _splits(clean, base, tuple(data.novel), data)


def _classes(source: Any) -> Sequence[str]:
    while isinstance(source, Subset):
        source = source.source
    return source.classes


class _Named:
    """A part of a source, with the classes of the whole."""

    def __init__(self, source: Any) -> None:
        self.source, self.classes, self.names = source, tuple(_classes(source)), source.names

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Any:
        return self.source[index]


def _splits(sources: dict[str, Any], base: tuple[str, ...], novel: tuple[str, ...], data: BoxDataSettings) -> Splits:
    frames = {
        name: InMemory(Relabelled(_Named(source), base + novel if name == "test" else base), data.cache_mb)
        for name, source in sources.items()
    }
    return Splits(frames["train"], frames["val"], frames["test"], range(len(frames["train"])), base, novel)


def check_box_folder(root: Path, splits: Sequence[str], kind: str = "auto") -> list[Problem]:
    """Everything that is wrong with a data set of boxes: its splits, or all of it when none is named."""
    named = {split or "all": open_boxes(root, split or None, kind=kind, audit=True) for split in (splits or [""])}  # type: ignore[arg-type]
    return check_boxes(named)
