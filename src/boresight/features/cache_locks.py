"""Who computes what, and what is in use: locks that the kernel frees when their owner dies, however it dies."""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

STRIPES = 4096
"""Lock files at most. Keys share them: two keys of one stripe wait for each other, which costs time and no error."""

POLL = 0.02
"""Seconds between attempts to get a lock that another holds."""


def session_name() -> str:
    """A name that no other process on any machine has: host, process and a random part."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def lock_on(file: Path) -> FileLock:
    """A lock, not taken yet. It is the kernel's or none: a lock file that outlives its owner would stay for ever.

    Not thread-local: a lock that one thread took is none for another, because each makes its own object.
    """
    return FileLock(file, thread_local=False, fallback_to_soft=False)


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

    def claim(self, keys: Iterator[str], most: int, others: list[str]) -> tuple[list[str], list[FileLock]]:
        """Up to ``most`` keys that nobody else is computing, and the locks on them, for :meth:`release`.

        ``keys`` is read as far as needed; keys that another has go to ``others``. Never waits, so that no two claims
        can wait for each other. Where locks cannot be had, any keys are claimed.
        """
        mine: list[str] = []
        locks: dict[str, FileLock | None] = {}
        for key in keys:
            stripe = self._stripe(key)
            if stripe not in locks:
                locks[stripe] = self._try(stripe)
            if locks[stripe] is not None or self.useless is not None:
                mine.append(key)
            else:
                others.append(key)
            if len(mine) == most:
                break
        return mine, [lock for lock in locks.values() if lock is not None]

    def wait(self, key: str, seconds: float) -> None:
        """Wait until nobody is computing ``key``, or so many seconds have passed."""
        if self.useless is not None:
            return
        try:
            with lock_on(self.folder / self._stripe(key)).acquire(timeout=seconds, poll_interval=POLL):
                return
        except Timeout:
            return
        except OSError as error:  # the folder was taken away
            self.useless = str(error)

    @staticmethod
    def release(locks: Iterable[FileLock]) -> None:
        """Give locks up."""
        for lock in locks:
            lock.release()

    def _stripe(self, key: str) -> str:
        return f"{zlib.crc32(key.encode()) % STRIPES:03x}"

    def _try(self, stripe: str) -> FileLock | None:
        if self.useless is not None:
            return None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = lock_on(self.folder / stripe)
            lock.acquire(blocking=False)
            return lock
        except Timeout:
            return None
        except (OSError, NotImplementedError) as error:
            self.useless = str(error)
            return None


class Users:
    """What living processes hold: files of keys, beside a lock that lives as long as its owner.

    Args:
        folder: of the files.
        session: the name of this process (:func:`session_name`).
    """

    def __init__(self, folder: Path, session: str) -> None:
        self.folder, self.session = folder, session
        self._lock: FileLock | None = None
        self._guard = threading.Lock()
        self._count = 0

    def sign(self) -> None:
        """Show that this process lives, until :meth:`close`. Raises OSError where that cannot be shown."""
        with self._guard:
            if self._lock is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                lock = lock_on(self.folder / f"{self.session}.lock")
                lock.acquire(timeout=10)
                self._lock = lock

    @contextmanager
    def holding(self, keys: Iterable[str]) -> Iterator[None]:
        """While it lasts, :meth:`held` gives these keys to all. Raises OSError where that cannot be written."""
        self.sign()
        with self._guard:
            self._count += 1
            file = self.folder / f"{self.session}.{self._count}.keys"
        partial, owner = file.with_suffix(".tmp"), os.getpid()
        partial.write_text(json.dumps(list(keys)), encoding="utf-8")
        partial.replace(file)
        try:
            yield
        finally:
            if os.getpid() == owner:  # not in a process that was forked off meanwhile
                file.unlink(missing_ok=True)

    def held(self) -> set[str]:
        """The keys that any living process holds; files of dead ones are removed."""
        found: set[str] = set()
        living: dict[str, bool] = {}
        for file in self.folder.glob("*.keys"):
            session = file.name.rsplit(".", 2)[0]
            if session not in living:
                living[session] = session == self.session or alive(self.folder, session)
            try:
                if living[session]:
                    found.update(str(key) for key in json.loads(file.read_text(encoding="utf-8")))
                else:
                    file.unlink()
            except FileNotFoundError:  # given up just now
                continue
            except (ValueError, TypeError, RecursionError):  # damaged: what is evicted too soon is computed again
                continue
        return found

    def close(self) -> None:
        """This process holds nothing any more."""
        with self._guard:
            lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()
            Path(lock.lock_file).unlink(missing_ok=True)


def alive(users: Path, session: str) -> bool:
    """Whether the process of that name has signed and lives. The lock of a dead one is removed."""
    file = users / f"{session}.lock"
    if not file.exists():
        return False
    lock = lock_on(file)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    except (OSError, NotImplementedError):  # no locks here: nobody can tell
        return True
    lock.release()
    file.unlink(missing_ok=True)
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
