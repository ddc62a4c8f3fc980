"""The limit of the feature store: the least recently used items make room for new ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from filelock import FileLock, Timeout

SLACK = 0.02
"""Share of the limit that is freed at once, and that others may have written before they are counted again."""
COUNT_EVERY = 30.0


@dataclass(frozen=True)
class StoredFile:
    """One item on disk: its key, file, bytes, and when it was used last (nanoseconds)."""

    key: str
    file: Path
    size: int
    used: int


def stored_files(folder: Path) -> Iterator[StoredFile]:
    """All items of a store."""
    for recipe in _folders(folder / "items"):
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
    """How much room there is, as far as this process knows.

    One process never exceeds the limit. Several know of each other's items from time to time only, and may together
    exceed it by 2 % each.

    Args:
        folder: the store.
        limit: bytes of all items together.
    """

    def __init__(self, folder: Path, limit: float) -> None:
        self.folder, self.limit = folder, limit
        self._size: int | None = None
        self._fresh = 0
        self._counted = 0.0

    def added(self, size: int) -> None:
        """An item was written."""
        self._size = (self._size or 0) + size
        self._fresh += size

    def make(self, size: int, held: Callable[[], set[str]]) -> tuple[bool, int]:
        """Make room for ``size`` bytes; whether there is, and how many items were given up."""
        if size > self.limit:
            return False, 0
        stale = self._size is None or self._fresh > SLACK * self.limit or monotonic() - self._counted > COUNT_EVERY
        if not stale and self._size is not None and self._size + size <= self.limit:
            return True, 0
        return self._count_and_evict(size, held)

    def _count_and_evict(self, size: int, held: Callable[[], set[str]]) -> tuple[bool, int]:
        files = sorted(stored_files(self.folder), key=lambda f: f.used)
        self._size, self._fresh, self._counted = sum(f.size for f in files), 0, monotonic()
        if self._size + size <= self.limit:
            return True, 0
        try:
            with FileLock(self.folder / "evict.lock", thread_local=False).acquire(blocking=False):
                count = self._evict(files, self.limit - max(size, SLACK * self.limit), held())
        except Timeout:  # another makes room
            count = 0
        return self._size + size <= self.limit, count

    def _evict(self, files: list[StoredFile], goal: float, held: set[str]) -> int:
        """Give up files, the least recently used first, until no more than ``goal`` bytes are left."""
        count = 0
        assert self._size is not None
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
