"""One process's use of a feature store: its name, what it holds, what it has done."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from time import monotonic

from boresight.features.cache_locks import Users, session_name
from boresight.features.cache_tally import write_tally
from boresight.features.feature_store import Counters

log = logging.getLogger("boresight.features")

SAVE_SECONDS, SAVE_GETS = 30.0, 1000
"""What was done is written after so long, or after so many items that were asked for."""


class Session:
    """From the opening of a store until it is closed, by one process.

    Args:
        folder: the store.
        writable: whether anything can be written to it.

    Attributes:
        counters: what was done; they go on when the session ends and the next begins.
    """

    def __init__(self, folder: Path, *, writable: bool) -> None:
        self.folder, self.writable = folder, writable
        self.process = os.getpid()
        self.counters = Counters()
        self.guard = threading.Lock()
        self._told: set[str] = set()
        self._begin()

    def _begin(self) -> None:
        self.name = session_name()
        self.users = Users(self.folder / "users", self.name)
        self._before = self.counters.copy()
        self._saved, self._gets = monotonic(), 0

    def asked(self, count: int) -> None:
        """So many items were asked for: what was done is written from time to time."""
        self._gets += count
        if self._gets >= SAVE_GETS or monotonic() - self._saved > SAVE_SECONDS:
            self._save()

    def end(self) -> None:
        """Write what was done, and hold nothing any more. Nothing happens in a process that was forked off."""
        if os.getpid() == self.process:
            self._save()
            self.users.close()
            self._begin()

    def _save(self) -> None:
        self._saved, self._gets = monotonic(), 0
        with self.guard:
            done = self.counters.since(self._before)
        if not self.writable or done == Counters() or not (self.folder / "format.json").is_file():
            return  # nothing to write, or the whole store was deleted
        try:
            self.users.sign()
            write_tally(self.folder, self.name, done)
        except OSError as error:
            self.say("tally", f"{self.folder}: what was done cannot be written ({error.strerror}); going on")

    def say(self, what: str, words: str) -> None:
        """A warning, once for each ``what``."""
        with self.guard:
            known = what in self._told
            self._told.add(what)
        if not known:
            log.warning("%s", words)
