"""The feature store on disk: frozen features are computed once, anywhere, and can never be wrong.

* An item is a file of its own, written beside its place and renamed: whole or absent, whatever is killed when.
* Every read verifies a checksum over the whole file, and the key inside of it. What does not fit is reported once,
  taken away, and computed again. So nothing is flushed to the disk by default: what a power cut tears is found by the
  next read, and the death of a process loses nothing that the kernel has.
* Processes, on one machine or on many that share the folder, may read and write at once. Locks that the kernel frees
  with their owner keep two of them from computing the same item.
* A disk that is full, or a folder that may not be written to, costs time and nothing else.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

from boresight.core.errors import UserError
from boresight.features.cache_disk import (
    item_file,
    prepare,
    read_file,
    relative_file,
    remove,
    write_file,
)
from boresight.features.cache_file import DamagedError, pack, unpack
from boresight.features.cache_locks import Claims, Pause, Users, session_name
from boresight.features.cache_remote import Remote
from boresight.features.cache_room import Room
from boresight.features.cache_storage import STORAGES, Storage, as_stored, restored
from boresight.features.feature_store import Compute, Counters, Named, computed

log = logging.getLogger("boresight.features")

PATIENCE = 600.0
"""Seconds to wait for an item that another computes, before computing it as well."""
RETRY = 60.0
"""Seconds after which a disk that could not be written to is tried again."""
TALLY_EVERY = 30.0


class FeatureCache:
    """Items in a folder (a :class:`~boresight.features.feature_store.FeatureStore`).

    Args:
        folder: made when it is missing.
        storage: how new items are kept: ``fp32`` (as computed), ``fp16``, ``bf16`` or ``int8``
            (:func:`~boresight.features.cache_storage.as_stored`). Items of any storage are read.
        limit_mb: megabytes that all items may take; the least recently used are given up beyond, but none that is held
            or being read. 0: no limit.
        remote: an fsspec address (``s3://bucket/prefix``): items that are missing here are looked for there first.
        half: give items back in the half precision in which they are kept, to save the time of turning them back.
        durable: flush every item to the disk before it counts as kept.
        patience: seconds to wait for an item that another process computes.

    Attributes:
        counters: what this object has done.

    Raises UserError for a folder that cannot be made or is of another version, and for an unknown storage.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        storage: Storage = "fp32",
        limit_mb: float = 0,
        remote: str | None = None,
        half: bool = False,
        durable: bool = False,
        patience: float = PATIENCE,
    ) -> None:
        if storage not in STORAGES:
            raise UserError(f"store.storage={storage}: use {', '.join(STORAGES)}")
        if limit_mb < 0:
            raise UserError(f"store.limit_mb={limit_mb}: must not be negative")
        self.folder = Path(folder).expanduser()
        self.storage, self.limit_mb, self.half, self.durable, self.patience = storage, limit_mb, half, durable, patience
        self.remote = Remote(remote) if remote else None
        self._open()

    def _open(self) -> None:
        self.counters, self._written = Counters(), Counters()
        self._pause, self._told = Pause(RETRY), set[str]()
        self._guard = threading.Lock()
        self._process = os.getpid()
        self.session = session_name()
        self.writable = prepare(self.folder)
        self._claims = Claims(self.folder / "locks")
        self._users = Users(self.folder / "users", self.session)
        self._room = Room(self.folder, self.limit_mb * 1e6) if self.limit_mb else None
        self._busy: dict[str, int] = {}
        self._root = str(self.folder)
        self._tallied = monotonic()
        self._end = weakref.finalize(self, _end, self._users, self.folder, self.session, self.counters, self._told)

    def __getstate__(self) -> dict[str, Any]:
        names = ("folder", "storage", "limit_mb", "half", "durable", "patience", "remote")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    def _after_fork(self) -> None:
        """A forked process is another user with counters of its own."""
        if os.getpid() != self._process:
            self._end.detach()
            self._open()

    def __contains__(self, key: str) -> bool:
        """Whether there is a file for it."""
        return item_file(self.folder, key).is_file()

    def get_many(self, keys: Sequence[str], compute: Compute, *, batch: int = 1) -> list[Named]:
        """See :class:`~boresight.features.feature_store.FeatureStore`."""
        self._after_fork()
        distinct = list(dict.fromkeys(keys))
        with self._in_use(distinct):
            found, missing = self._found(distinct)
            waited = 0.0
            while missing:
                mine, locks = self._claims.claim(missing)
                if not mine and waited >= self.patience:
                    self._say(
                        "patience", f"{self.folder}: waited {waited:.0f} s for another process: computing as well"
                    )
                    mine = missing
                try:
                    done, todo = self._found(mine, fetch=False) if mine else ({}, [])
                    found |= done | self._made(todo, compute, batch)
                finally:
                    self._claims.release(locks)
                missing = [key for key in missing if key not in found]
                if missing:  # somebody else computes these: what is ours is done and unlocked
                    began = monotonic()
                    self._claims.wait(missing[0], max(0.0, self.patience - waited))
                    waited += monotonic() - began
        self._tally()
        return [found[key] for key in keys]

    def _found(self, keys: Sequence[str], *, fetch: bool = True) -> tuple[dict[str, Named], list[str]]:
        """The items that are there, or (``fetch``) at the second level, and the keys of those that are not."""
        began, found = perf_counter(), {}
        for key in keys:
            item = self._read(key)
            if item is None and fetch and self.remote is not None:
                item = self._fetched(key)
            if item is not None:
                found[key] = item
        with self._guard:
            self.counters.hits += len(found)
            self.counters.read_seconds += perf_counter() - began
        return found, [key for key in keys if key not in found]

    def _made(self, keys: Sequence[str], compute: Compute, batch: int) -> dict[str, Named]:
        """Items computed and, where that is possible, kept."""
        found: dict[str, Named] = {}
        for start in range(0, len(keys), batch):
            began = perf_counter()
            items = computed(keys[start : start + batch], compute, batch)
            ended = perf_counter()
            found |= {key: self._keep(key, item) for key, item in items}
            with self._guard:
                self.counters.misses += len(items)
                self.counters.compute_seconds += ended - began
                self.counters.write_seconds += perf_counter() - ended
        return found

    def _read(self, key: str) -> Named | None:
        """The item, verified; None where there is none that is whole."""
        file = f"{self._root}/{relative_file(key)}"
        try:
            buffer = read_file(file)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._say(key, f"{file}: cannot be read ({error.strerror}): computed again")
            return None
        try:
            item = unpack(key, buffer)
        except DamagedError as error:
            self._damaged(key, Path(file), error)
            return None
        with self._guard:
            self.counters.bytes_read += buffer.nbytes
        return restored(item.tensors, item.notes, half=self.half)

    def _damaged(self, key: str, file: Path | str, error: DamagedError) -> None:
        with self._guard:
            self.counters.damaged += 1
        self._say(key, f"{file}: damaged ({error}): computed again")
        if isinstance(file, Path):
            remove(file)

    def _fetched(self, key: str) -> Named | None:
        """The item from the second level, kept here as well."""
        if self.remote is None or (data := self.remote.read(relative_file(key), self._say)) is None:
            return None
        try:
            item = unpack(key, data)
        except DamagedError as error:
            self._damaged(key, f"{self.remote.address}/{relative_file(key)}", error)
            return None
        self._write(key, [data.numpy().data])
        with self._guard:
            self.counters.fetched += 1
            self.counters.bytes_read += data.nbytes
        return restored(item.tensors, item.notes, half=self.half)

    def _keep(self, key: str, item: Named) -> Named:
        """Keep an item, and return it as it will be read."""
        kept, notes = as_stored(key, item, self.storage)
        self._write(key, pack(key, kept, notes))
        return restored(kept, notes, half=self.half)

    def _write(self, key: str, parts: Sequence[bytes | memoryview]) -> None:
        size = sum(len(part) for part in parts)
        if self._pause or not self.writable or not self._has_room(key, size):
            with self._guard:
                self.counters.unwritten += 1
            return
        file = item_file(self.folder, key)
        try:
            write_file(file, parts, self.session, durable=self.durable)
        except OSError as error:
            self._pause.begin()
            with self._guard:
                self.counters.unwritten += 1
            self._say("write", f"{self.folder}: features cannot be kept ({error.strerror}); going on without")
            return
        with self._guard:
            self.counters.bytes_written += size
        if self._room is not None:
            self._room.added(size)

    def _has_room(self, key: str, size: int) -> bool:
        """Whether there is room for an item; others are given up for it where that is possible."""
        if self._room is None:
            return True
        fits, evicted = self._room.make(size, lambda: self._users.held() | set(self._busy))
        with self._guard:
            self.counters.evicted += evicted
        if not fits:
            self._say("room", f"{self.folder}: {self.limit_mb:g} MB are full of items in use; raise the limit")
        return fits

    @contextmanager
    def _in_use(self, keys: Sequence[str]) -> Iterator[None]:
        """While it lasts, this object does not evict them."""
        if self._room is None:
            yield
            return
        with self._guard:
            for key in keys:
                self._busy[key] = self._busy.get(key, 0) + 1
        try:
            yield
        finally:
            with self._guard:
                for key in keys:
                    self._busy[key] -= 1
                    if not self._busy[key]:
                        del self._busy[key]

    @contextmanager
    def hold(self, keys: Iterable[str]) -> Iterator[None]:
        """While it lasts, no process evicts these items. In a folder that cannot be written to it does nothing."""
        held = list(keys)
        if self.writable:
            self._users.add(held)
        try:
            yield
        finally:
            if self.writable:
                self._users.remove(held)

    def describe(self, recipe: str, about: Mapping[str, Any]) -> None:
        """Write what a recipe stands for beside its items, once."""
        file = self.folder / "items" / recipe / "recipe.json"
        if not self.writable or file.is_file():
            return
        text = json.dumps(dict(about), sort_keys=True, indent=1).encode()
        try:
            write_file(file, [text], self.session)
        except OSError as error:
            self._say("describe", f"{file}: cannot be written ({error.strerror}); going on without")

    def close(self) -> None:
        """Write the counters, and hold nothing any more."""
        self._tally(now=True)
        self._users.close()

    def _tally(self, *, now: bool = False) -> None:
        if self.writable and (now or monotonic() - self._tallied > TALLY_EVERY):
            self._tallied = monotonic()
            _write_counters(self.folder, self.session, self.counters, self._told)

    def _say(self, what: str, words: str) -> None:
        """A warning, once for each ``what``."""
        with self._guard:
            known = what in self._told
            self._told.add(what)
        if not known:
            log.warning("%s", words)


def _end(users: Users, folder: Path, session: str, counters: Counters, told: set[str]) -> None:
    """At the end of the object or of the process: what it did is counted, what it held is free."""
    if users.process == os.getpid():
        users.close()
        if counters != Counters():
            _write_counters(folder, session, counters, told)


def _write_counters(folder: Path, session: str, counters: Counters, told: set[str]) -> None:
    """Write what a session did into ``stats``; a warning, once, where that cannot be done."""
    try:
        write_file(folder / "stats" / f"{session}.json", [json.dumps(vars(counters)).encode()], session)
    except OSError as error:
        if "counters" not in told:
            told.add("counters")
            log.warning("%s: counters cannot be written (%s)", folder, error.strerror)
