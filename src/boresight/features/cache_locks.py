"""Who computes what, and what is in use: locks that the kernel frees when their owner dies, however it dies."""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import xxhash
from filelock import FileLock, Timeout

STRIPES = 4096
"""Lock files at most. Keys share them: two keys of one stripe wait for each other, which costs time and no error."""

POLL = 0.02
"""Seconds between attempts to get a lock that another holds."""


def session_name() -> str:
    """A name that no other process on any machine has: host, process and a random part."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


class Claims:
    """Locks on keys that are missing, so that each is computed by one process (or thread) alone.

    Args:
        folder: of the lock files.

    Attributes:
        useless: why locks cannot be had here (a read-only folder, a file system without them); None: they can.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.useless: str | None = None

    def claim(self, keys: Sequence[str]) -> tuple[list[str], list[FileLock]]:
        """The keys that nobody else is computing, and the locks on them, to be given to :meth:`release`.

        Never waits, so that no two claims can wait for each other. Where locks cannot be had all keys are claimed.
        """
        mine: list[str] = []
        locks: dict[str, FileLock | None] = {}
        for key in keys:
            stripe = self._stripe(key)
            if stripe not in locks:
                locks[stripe] = self._try(stripe)
            if locks[stripe] is not None or self.useless is not None:
                mine.append(key)
        return mine, [lock for lock in locks.values() if lock is not None]

    def wait(self, key: str, seconds: float) -> bool:
        """Wait until nobody is computing ``key``, or so many seconds have passed; False in that case."""
        if self.useless is not None:
            return True
        try:
            with self._lock(self._stripe(key)).acquire(timeout=seconds, poll_interval=POLL):
                return True
        except Timeout:
            return False

    @staticmethod
    def release(locks: Iterable[FileLock]) -> None:
        """Give locks up."""
        for lock in locks:
            lock.release()

    def _stripe(self, key: str) -> str:
        return f"{xxhash.xxh3_64_intdigest(key.encode()) % STRIPES:03x}"

    def _lock(self, stripe: str) -> FileLock:
        # not thread-local: a lock that one thread took is none for another, and each claim makes its own object
        return FileLock(self.folder / stripe, thread_local=False)

    def _try(self, stripe: str) -> FileLock | None:
        if self.useless is not None:
            return None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = self._lock(stripe)
            lock.acquire(blocking=False)
            return lock
        except Timeout:
            return None
        except (OSError, NotImplementedError) as error:
            self.useless = str(error)
            return None


class Users:
    """What living processes hold: a file of keys each, beside a lock that lives as long as its owner.

    Args:
        folder: of the files.
        session: the name of this process (:func:`session_name`).
    """

    def __init__(self, folder: Path, session: str) -> None:
        self.folder, self.session, self.process = folder, session, os.getpid()
        self._lock: FileLock | None = None
        self._held: dict[str, int] = {}

    def add(self, keys: Iterable[str]) -> None:
        """Hold keys (once more) from now on."""
        for key in keys:
            self._held[key] = self._held.get(key, 0) + 1
        self._write()

    def remove(self, keys: Iterable[str]) -> None:
        """Hold them once less."""
        for key in keys:
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]
        self._write()

    def held(self) -> set[str]:
        """The keys that any living process holds; files of dead ones are removed."""
        found = set(self._held)
        if not self.folder.is_dir():
            return found
        for file in self.folder.glob("*.json"):
            if file.stem == self.session:
                continue
            try:
                if _alive(file.with_suffix(".lock")):
                    found |= set(json.loads(file.read_text(encoding="utf-8")))
            except (FileNotFoundError, ValueError):  # gone just now, or never whole: its owner died in writing it
                continue
        return found

    def close(self) -> None:
        """Hold nothing any more."""
        self._held.clear()
        self._file.unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.release()
            Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock = None

    @property
    def _file(self) -> Path:
        return self.folder / f"{self.session}.json"

    def _write(self) -> None:
        if not self._held:
            self._file.unlink(missing_ok=True)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._lock is None:
            self._lock = FileLock(self._file.with_suffix(".lock"), thread_local=False)
            self._lock.acquire(timeout=10)
        partial = self._file.with_suffix(".partial")
        partial.write_text(json.dumps(sorted(self._held)), encoding="utf-8")
        partial.replace(self._file)


def _alive(file: Path) -> bool:
    """Whether the owner of a lock lives. What a dead one left is removed."""
    lock = FileLock(file, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    lock.release()
    for left in (file.with_suffix(".json"), file):
        left.unlink(missing_ok=True)
    return False


class Pause:
    """Something that does not work now and is tried again after a while."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._until = seconds, 0.0

    def begin(self) -> None:
        """It did not work."""
        self._until = time.monotonic() + self.seconds

    def __bool__(self) -> bool:
        return time.monotonic() < self._until
