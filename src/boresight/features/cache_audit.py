"""Looks at a feature store from outside: what is in it, what is damaged, what can go."""

from __future__ import annotations

import json
import os
import socket
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from boresight.core.errors import UserError
from boresight.features.cache_disk import check_format, read_file, remove
from boresight.features.cache_file import DamagedError, Item, unpack
from boresight.features.cache_locks import Users, session_name
from boresight.features.cache_remembered import join_remembered
from boresight.features.cache_room import StoredFile, stored_files
from boresight.features.cache_tally import merge, total
from boresight.features.feature_store import Counters

OLD_PARTIAL = 3600.0
"""Seconds after which a file that was never finished is taken for that of a dead process on another machine."""


@dataclass(frozen=True)
class RecipeUse:
    """The items of one recipe: who made them, how many they are, and when they were used.

    ``error`` is, for items of 8 bits, the relative error of one of them by tensor; times are seconds since 1970.
    """

    recipe: str
    about: dict[str, Any]
    items: int
    bytes: int
    first_used: float
    last_used: float
    storage: str | None
    error: dict[str, list[float]] | None


@dataclass(frozen=True)
class StoreInfo:
    """What is in a store, and what all its sessions have done."""

    folder: str
    items: int
    bytes: int
    recipes: tuple[RecipeUse, ...]
    counters: Counters
    unfinished: int

    def to_dict(self) -> dict[str, Any]:
        """Plain, for JSON."""
        told = {f.name: getattr(self.counters, f.name) for f in fields(self.counters)}
        return {
            "folder": self.folder,
            "items": self.items,
            "bytes": self.bytes,
            "hit_rate": self.counters.hit_rate,
            **told,
            "unfinished": self.unfinished,
            "recipes": [vars(r) for r in self.recipes],
        }


def info(folder: Path) -> StoreInfo:
    """Look at a store without reading its items. Raises UserError for a folder that is none."""
    check_format(folder)
    groups: dict[str, list[StoredFile]] = defaultdict(list)
    for file in stored_files(folder):
        groups[file.key.rpartition("-")[0]].append(file)
    recipes = tuple(_use(folder, recipe, files) for recipe, files in sorted(groups.items()))
    unfinished = sum(1 for _ in _partials(folder))
    return StoreInfo(
        str(folder), sum(r.items for r in recipes), sum(r.bytes for r in recipes), recipes, total(folder), unfinished
    )


def _use(folder: Path, recipe: str, files: list[StoredFile]) -> RecipeUse:
    used = [file.used / 1e9 for file in files]
    notes = _one(files).notes
    return RecipeUse(
        recipe=recipe,
        about=about_recipe(folder, recipe),
        items=len(files),
        bytes=sum(file.size for file in files),
        first_used=min(used),
        last_used=max(used),
        storage=notes.get("storage"),
        error=_error(notes.get("error", "null")),
    )


def _error(text: str) -> dict[str, list[float]] | None:
    """The measured error of an item's features; None where there is none that can be read."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _one(files: list[StoredFile]) -> Item:
    """The first item that is whole, with nothing in it where there is none."""
    for file in files[:5]:
        try:
            return unpack(file.key, read_file(file.file, touch=False))
        except (DamagedError, OSError):  # `verify` is for that
            continue
    return Item({}, {})


def about_recipe(folder: Path, recipe: str) -> dict[str, Any]:
    """What made the items of a recipe; empty where nobody has said it."""
    try:
        found = json.loads((folder / "items" / recipe / "recipe.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class Damage:
    """An item that is not what was written."""

    file: str
    reason: str
    removed: bool


def verify(folder: Path, *, take_away: bool = False) -> tuple[int, list[Damage]]:
    """Read every item; how many were looked at, and which are damaged. ``take_away`` removes those."""
    check_format(folder)
    count, found = 0, []
    for file in stored_files(folder):
        count += 1
        try:
            unpack(file.key, read_file(file.file, touch=False))
        except FileNotFoundError:  # evicted just now
            continue
        except (DamagedError, OSError) as error:
            if take_away:
                remove(file.file)
            found.append(Damage(str(file.file), str(error), take_away))
    return count, found


@dataclass(frozen=True)
class Pruned:
    """What was taken away: items and their bytes, unfinished files, and files of dead sessions."""

    items: int
    bytes: int
    unfinished: int
    sessions: int


def prune(
    folder: Path, *, limit_mb: float | None = None, older_than_days: float | None = None, recipe: str | None = None
) -> Pruned:
    """Take away what is not needed. Items that a living process holds stay.

    Args:
        folder: the store.
        limit_mb: the least recently used items go until no more than so many megabytes are left.
        older_than_days: items that were not used for so long go.
        recipe: of this recipe's items alone (its first digits will do).

    What dead processes left (unfinished files, holds, remembered images in many files) is tidied up in any case.
    Raises UserError for a folder that is no store, and for a recipe that is not there.
    """
    check_format(folder)
    held = Users(folder / "users", session_name()).held()
    chosen = None if recipe is None else named_recipe(folder, recipe)
    files = sorted(
        (f for f in stored_files(folder) if chosen is None or f.key.startswith(f"{chosen}-")), key=lambda f: f.used
    )
    going = _going(files, held, limit_mb, older_than_days)
    for file in going:
        remove(file.file)
    partials = [p for p in _partials(folder) if _is_left(p)]
    for partial in partials:
        remove(partial)
    joined = merge(folder) + join_remembered(folder, session_name())
    return Pruned(len(going), sum(f.size for f in going), len(partials), joined)


def _going(
    files: list[StoredFile], held: set[str], limit_mb: float | None, older_than_days: float | None
) -> list[StoredFile]:
    left = sum(f.size for f in files)
    oldest = None if older_than_days is None else time.time() - older_than_days * 86400
    going = []
    for file in files:
        old = oldest is not None and file.used / 1e9 < oldest
        many = limit_mb is not None and left > limit_mb * 1e6
        if (old or many) and file.key not in held:
            going.append(file)
            left -= file.size
    return going


def clear(folder: Path, *, recipe: str | None = None) -> Pruned:
    """Take away all items, or those of one recipe. Raises UserError for a folder that is no store."""
    check_format(folder)
    chosen = None if recipe is None else named_recipe(folder, recipe)
    files = [f for f in stored_files(folder) if chosen is None or f.key.startswith(f"{chosen}-")]
    for file in files:
        remove(file.file)
    for name in {f.key.rpartition("-")[0] for f in files} | ({chosen} if chosen else set()):
        remove(folder / "items" / name / "recipe.json")
    return Pruned(len(files), sum(f.size for f in files), 0, 0)


def named_recipe(folder: Path, start: str) -> str:
    """The recipe that begins so; UserError where none or several do."""
    there = sorted(p.name for p in (folder / "items").glob("*") if p.is_dir())
    fitting = [start] if start in there else [name for name in there if name.startswith(start)]
    if len(fitting) != 1:
        what = "no recipe begins" if not fitting else f"{len(fitting)} recipes begin"
        raise UserError(
            f"--recipe {start}: {what} so in {folder}; there are {', '.join(n[:12] for n in there) or 'none'}"
        )
    return fitting[0]


def _partials(folder: Path) -> Iterator[Path]:
    yield from folder.glob(".*.tmp")
    for room in ("items", "stats", "remembered"):
        yield from (folder / room).rglob(".*.tmp")
    yield from (folder / "users").glob("*.tmp")


def _is_left(partial: Path) -> bool:
    """Whether nobody will finish a file: its process, on this machine, is dead; or it is an hour old."""
    try:
        if time.time() - partial.stat().st_mtime > OLD_PARTIAL:
            return True
    except FileNotFoundError:  # finished just now
        return False
    _, here, rest = partial.name.partition(f"{socket.gethostname()}-")
    process = rest.partition("-")[0]
    return bool(here) and process.isdigit() and not _runs(int(process))


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs, and is somebody else's
        return True
    return True
