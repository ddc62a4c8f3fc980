"""The limit of the feature store: the least recently used items make room for new ones."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from filelock import Timeout

from boresight.features.cache_locks import lock_on

SLACK = 0.02
"""Share of the limit that is freed at once, and that others may have written before they are counted again."""
COUNT_EVERY = 30.0
BUSY = 10.0
"""Seconds to wait for another that makes room."""


@dataclass(frozen=True)
class StoredFile:
    """One item on disk: its key, file, bytes, and when it was used last (nanoseconds)."""

    key: str
    file: Path
    size: int
    used: int


def stored_files(folder: Path, recipes: Iterable[Path] | None = None) -> Iterator[StoredFile]:
    """All items of a store, or those of some folders of recipes."""
    for recipe in _folders(folder / "items") if recipes is None else recipes:
        for part in _folders(recipe):
            with os.scandir(part) as entries:
                for entry in entries:
                    name, _, kind = entry.name.partition(".")
                    if kind != "safetensors" or not name:
                        continue
                    try:
                        about = entry.stat()
                    except FileNotFoundError:  # evicted just now
                        continue
                    yield StoredFile(f"{recipe.name}-{name}", part / entry.name, about.st_size, about.st_mtime_ns)


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [folder / entry.name for entry in entries if entry.is_dir()]
    except FileNotFoundError:
        return []


class Room:
    """How much room there is, as far as this process knows. Threads may share it.

    One process never exceeds the limit. Several know of each other's items from time to time only, and may together
    exceed it by 2 % each.

    Args:
        folder: the store.
        limit: bytes of all items together.
    """

    def __init__(self, folder: Path, limit: float) -> None:
        self.folder, self.limit = folder, limit
        self._guard = threading.Lock()
        self._size: int | None = None
        self._reserved = 0
        self._fresh = 0
        self._counted = 0.0

    def take(self, size: int, held: Callable[[], set[str]]) -> tuple[bool, int]:
        """Reserve ``size`` bytes for an item, and give up others for it where that is needed.

        Returns whether there is room (then :meth:`settle` must follow), and how many items were given up.
        """
        if size > self.limit:
            return False, 0
        with self._guard:
            stale = self._fresh > SLACK * self.limit or monotonic() - self._counted > COUNT_EVERY
            count = 0
            if self._size is None or stale or self._size + self._reserved + size > self.limit:
                count = self._count_and_evict(size, held)
            assert self._size is not None
            fits = self._size + self._reserved + size <= self.limit
            self._reserved += size if fits else 0
            return fits, count

    def settle(self, size: int, *, written: bool) -> None:
        """The item that room was taken for was written, or could not be."""
        with self._guard:
            self._reserved -= size
            if written and self._size is not None:
                self._size += size
                self._fresh += size

    def _count_and_evict(self, size: int, held: Callable[[], set[str]]) -> int:
        files = self._count()
        assert self._size is not None
        if self._size + self._reserved + size <= self.limit:
            return 0
        lock = lock_on(self.folder / "locks" / "evict")
        try:
            lock.acquire(timeout=BUSY)  # two that evict at once would give up twice as much
        except (Timeout, OSError, NotImplementedError):
            return self._evict(files, size, held())  # a store without locks, or one that is very slow
        try:
            return self._evict(self._count(), size, held())
        finally:
            lock.release()

    def _count(self) -> list[StoredFile]:
        files = sorted(stored_files(self.folder), key=lambda f: f.used)
        self._size, self._fresh, self._counted = sum(f.size for f in files), 0, monotonic()
        return files

    def _evict(self, files: list[StoredFile], size: int, held: set[str]) -> int:
        """Give up files, the least recently used first, until there is room and a little more."""
        count = 0
        assert self._size is not None
        goal = self.limit - self._reserved - max(size, SLACK * self.limit)
        for file in files:
            if self._size <= goal:
                break
            if file.key in held or _used_since(file):
                continue
            file.file.unlink(missing_ok=True)
            self._size -= file.size
            count += 1
        return count


def _used_since(file: StoredFile) -> bool:
    """Whether it was read since it was counted."""
    try:
        return file.file.stat().st_mtime_ns != file.used
    except FileNotFoundError:
        return False
