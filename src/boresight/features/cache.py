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
import os
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

from torch import Tensor

from boresight.core.errors import UserError
from boresight.features.cache_disk import (
    item_file,
    place_of,
    prepare,
    read_file,
    recipe_of,
    relative_file,
    remove,
    write_file,
)
from boresight.features.cache_file import DamagedError, pack, unpack
from boresight.features.cache_locks import Claims, Pause
from boresight.features.cache_remote import Remote
from boresight.features.cache_room import Room
from boresight.features.cache_session import Session
from boresight.features.cache_storage import STORAGES, Storage, as_stored, restored
from boresight.features.feature_store import Compute, Counters, Named, computed

PATIENCE = 600.0
"""Seconds to wait for an item that another computes, before computing it as well."""
RETRY = 60.0
"""Seconds after which a disk that could not be written to is tried again."""


class FeatureCache:
    """Items in a folder (a :class:`~boresight.features.feature_store.FeatureStore`). Threads may share one.

    It can be pickled, and used after a fork: the other process opens the folder anew, with counters of its own.

    Args:
        folder: made when it is missing.
        storage: how items are kept: ``fp32`` (as computed), ``fp16``, ``bf16`` or ``int8``
            (:func:`~boresight.features.cache_storage.as_stored`). Items that are kept otherwise are others: what is
            read never depends on who has filled the folder.
        limit_mb: megabytes that all items may take; the least recently used are given up beyond, but none that is held
            or being read. 0: no limit.
        remote: an fsspec address (``s3://bucket/prefix``): items that are missing here are looked for there first.
        half: give items back in the half precision in which they are kept, to save the time of turning them back.
        durable: flush every item to the disk before it counts as kept.
        patience: seconds to wait for an item that another process computes.

    Attributes:
        counters: what this object has done in this process.

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
        self.folder = Path(folder).expanduser().absolute()
        self.storage, self.limit_mb, self.half, self.durable, self.patience = storage, limit_mb, half, durable, patience
        self.remote = Remote(remote) if remote else None
        self._abouts: dict[str, bytes] = {}
        self._open()

    def _open(self) -> None:
        self.writable = prepare(self.folder)
        self._session = Session(self.folder, writable=self.writable)
        self.counters: Counters = self._session.counters
        self._say, self._guard = self._session.say, self._session.guard
        self._claims, self._pause = Claims(self.folder / "locks"), Pause(RETRY)
        self._room = Room(self.folder, self.limit_mb * 1e6) if self.limit_mb else None
        self._busy: dict[str, int] = {}
        self._root = str(self.folder)
        self._end = weakref.finalize(self, self._session.end)

    @property
    def session(self) -> str:
        """The name of this process among the users of the folder."""
        return self._session.name

    def __getstate__(self) -> dict[str, Any]:
        names = ("folder", "storage", "limit_mb", "half", "durable", "patience", "remote", "_abouts")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    def _after_fork(self) -> None:
        if os.getpid() != self._session.process:
            self._end.detach()
            self._open()

    def __contains__(self, key: str) -> bool:
        """Whether there is a file for it."""
        return item_file(self.folder, place_of(key, self.storage)).is_file()

    def get_many(self, keys: Sequence[str], compute: Compute, *, batch: int = 1) -> list[Named]:
        """See :class:`~boresight.features.feature_store.FeatureStore`.

        Raises ValueError for features that are not finite: they are not kept.
        """
        self._after_fork()
        places = {key: place_of(key, self.storage) for key in dict.fromkeys(keys)}
        with self._in_use(places.values()):
            found = self._found(places.values())
            missing = {place: key for key, place in places.items() if place not in found}
            if missing:
                with self._held(missing if self._room is not None else ()):
                    found |= self._filled(list(missing), lambda some: compute([missing[p] for p in some]), batch)
        self._session.asked(len(places))
        return [found[places[key]] for key in keys]

    def _filled(self, left: list[str], compute: Compute, batch: int) -> dict[str, Named]:
        """Items that were missing: computed here ``batch`` at a time, or by others meanwhile.

        It waits for another only while it has no lock itself, so nobody ever waits in a circle.
        """
        found: dict[str, Named] = {}
        waited = 0.0
        while left:
            ahead, others = iter(left), list[str]()
            while (claimed := self._claims.claim(ahead, batch, others))[0]:
                try:
                    found |= self._made_or_found(claimed[0], compute, batch)
                finally:
                    self._claims.release(claimed[1])
            self._say_without_locks()
            waited = waited if len(others) == len(left) else 0.0
            left = others
            if left and waited < self.patience:
                began = monotonic()
                self._claims.wait(left[0], self.patience - waited)
                waited += monotonic() - began
            elif left:
                self._say("patience", f"{self.folder}: waited {waited:.0f} s for another process: computing as well")
                return found | self._made_or_found(left, compute, batch)
        return found

    def _made_or_found(self, places: Sequence[str], compute: Compute, batch: int) -> dict[str, Named]:
        """Items that another may have computed since they were missed, or that the second level has, and the rest."""
        found = self._found(places, remote=True)
        rest = [place for place in places if place not in found]
        for start in range(0, len(rest), batch):
            began = perf_counter()
            items = computed(rest[start : start + batch], compute, batch)
            ended = perf_counter()
            found |= {place: self._keep(place, item) for place, item in items}
            with self._guard:
                self.counters.misses += len(items)
                self.counters.compute_seconds += ended - began
                self.counters.write_seconds += perf_counter() - ended
        return found

    def _found(self, places: Iterable[str], *, remote: bool = False) -> dict[str, Named]:
        """The items that are there."""
        began, found = perf_counter(), {}
        for place in places:
            if (item := self._read(place, remote)) is not None:
                found[place] = item
        with self._guard:
            self.counters.hits += len(found)
            self.counters.read_seconds += perf_counter() - began
        return found

    def _read(self, place: str, remote: bool) -> Named | None:
        """The item, verified; None where there is none that is whole."""
        file = f"{self._root}/{relative_file(place)}"
        try:
            buffer = read_file(file)
        except FileNotFoundError:
            return self._fetched(place) if remote else None
        except OSError as error:
            self._say(place, f"{file}: cannot be read ({error.strerror}): computed again")
            return None
        item = self._verified(place, buffer, file)
        if item is None and self.writable:
            remove(Path(file))
        return item

    def _verified(self, place: str, buffer: Tensor, source: str) -> Named | None:
        """The item in these bytes; None, and a warning, where they are not what was written."""
        try:
            packed = unpack(place, buffer)
            item = restored(packed.tensors, packed.notes, half=self.half)
        except (DamagedError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            with self._guard:
                self.counters.damaged += 1
            self._say(source, f"{source}: damaged ({error}): computed again")
            return None
        with self._guard:
            self.counters.bytes_read += buffer.nbytes
        return item

    def _fetched(self, place: str) -> Named | None:
        """The item from the second level, kept here as well."""
        if self.remote is None or (data := self.remote.read(relative_file(place), self._say)) is None:
            return None
        item = self._verified(place, data, f"{self.remote.address}/{relative_file(place)}")
        if item is not None:
            self._write(place, [data.numpy().data])
            with self._guard:
                self.counters.fetched += 1
        return item

    def _keep(self, place: str, item: Named) -> Named:
        """Keep an item, and return it as it will be read."""
        kept, notes = as_stored(place, item, self.storage)
        self._write(place, pack(place, kept, notes))
        return restored(kept, notes, half=self.half)

    def _write(self, place: str, parts: Sequence[bytes | memoryview]) -> None:
        size = sum(len(part) for part in parts)
        written = False
        if not self.writable:
            self._say("write", f"{self.folder}: may not be written to: what is missing is computed every time")
        elif not self._pause and self._takes_room(size):
            try:
                write_file(item_file(self.folder, place), parts, self._session.name, durable=self.durable)
                written = True
                self._write_about(place.rsplit("-", 1)[0])
            except OSError as error:
                self._pause.begin()
                self._say("write", f"{self.folder}: features cannot be kept ({error.strerror}); going on without")
            if self._room is not None:
                self._room.settle(size, written=written)
        with self._guard:
            self.counters.bytes_written += size if written else 0
            self.counters.unwritten += not written

    def _takes_room(self, size: int) -> bool:
        """Whether there is room for an item; others are given up for it where that is possible."""
        if self._room is None:
            return True
        fits, evicted = self._room.take(size, lambda: self._session.users.held() | set(self._busy))
        with self._guard:
            self.counters.evicted += evicted
        if not fits:
            self._say("room", f"{self.folder}: {self.limit_mb:g} MB are full of items in use; raise the limit")
        return fits

    @contextmanager
    def _in_use(self, places: Iterable[str]) -> Iterator[None]:
        """While it lasts, this object does not evict them."""
        if self._room is None:
            yield
            return
        held = list(places)
        with self._guard:
            for place in held:
                self._busy[place] = self._busy.get(place, 0) + 1
        try:
            yield
        finally:
            with self._guard:
                for place in held:
                    self._busy[place] -= 1
                    if not self._busy[place]:
                        del self._busy[place]

    @contextmanager
    def _held(self, places: Iterable[str]) -> Iterator[None]:
        """While it lasts, no process evicts them, as far as that can be made known."""
        held = list(places)
        with ExitStack() as stack:
            stack.enter_context(self._in_use(held))
            if held and self.writable:
                try:
                    stack.enter_context(self._session.users.holding(held))
                except OSError as error:
                    self._say("hold", f"{self.folder}: cannot say what is in use ({error.strerror}); going on")
            yield

    @contextmanager
    def hold(self, keys: Iterable[str]) -> Iterator[None]:
        """While it lasts, no process evicts these items. Nobody learns of it in a folder that cannot be written to."""
        self._after_fork()
        with self._held(place_of(key, self.storage) for key in keys):
            yield

    def describe(self, recipe: str, about: Mapping[str, Any]) -> None:
        """Write what a recipe stands for beside its items."""
        self._after_fork()
        name = recipe_of(recipe, self.storage)
        self._abouts[name] = json.dumps(dict(about), sort_keys=True, indent=1).encode()
        try:
            if self.writable:
                self._write_about(name)
        except OSError as error:
            self._say("write", f"{self.folder}: features cannot be kept ({error.strerror}); going on without")

    def _write_about(self, recipe: str) -> None:
        file = self.folder / "items" / recipe / "recipe.json"
        if recipe in self._abouts and not file.is_file():
            write_file(file, [self._abouts[recipe]], self._session.name)

    def close(self) -> None:
        """Write what was done, and hold nothing any more. The store can still be used."""
        self._session.end()

    def _say_without_locks(self) -> None:
        if self.writable and self._claims.useless is not None:
            reason = self._claims.useless
            self._say("locks", f"{self.folder}: no locks ({reason}): items may be computed more than once; going on")
