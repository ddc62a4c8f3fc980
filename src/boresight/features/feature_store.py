"""Where frozen features are kept: what every store promises, and the one in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from time import perf_counter
from typing import Any, Protocol

import torch
from torch import Tensor

from boresight.core.errors import UserError

Named = dict[str, Tensor]
"""Tensors by name: the form of one item."""

Compute = Callable[[list[str]], Sequence[Named]]
"""Keys that a store does not have to their items, in the same order."""


@dataclass
class Counters:
    """What a store has done so far.

    Attributes:
        hits: items found.
        misses: items computed.
        fetched: of the hits, those that came from the second level.
        damaged: items that were not what was written; they were computed again.
        evicted: items given up for others.
        unwritten: items that were computed and could not be kept.
        bytes_read, bytes_written: of items.
        read_seconds, compute_seconds, write_seconds: spent.
    """

    hits: int = 0
    misses: int = 0
    fetched: int = 0
    damaged: int = 0
    evicted: int = 0
    unwritten: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    read_seconds: float = 0.0
    compute_seconds: float = 0.0
    write_seconds: float = 0.0

    @property
    def hit_rate(self) -> float | None:
        """Share of the items that were found; None before the first."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else None

    def copy(self) -> Counters:
        """As they are now."""
        return replace(self)

    def since(self, earlier: Counters) -> Counters:
        """What has been done since ``earlier``."""
        return Counters(**{f.name: getattr(self, f.name) - getattr(earlier, f.name) for f in fields(self)})

    def plus(self, other: Counters) -> Counters:
        """Both together."""
        return Counters(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})


class FeatureStore(Protocol):
    """Keeps items by key, on the CPU, and computes those it does not have.

    A key is ``<recipe>-<image>``: a hash of all that makes features of an image, and one of the image.
    """

    counters: Counters

    def __contains__(self, key: str) -> bool:
        """Whether :meth:`get_many` is likely to find it (a file may still turn out to be damaged)."""
        ...

    def get_many(self, keys: Sequence[str], compute: Compute, *, batch: int = 1) -> list[Named]:
        """The items, in the order of the keys.

        ``compute`` is called, and its results kept, only for keys of which the store has no whole item: with at most
        ``batch`` of them at a time, each once. The caller must not write into the tensors. They are the same whether
        they were just computed or kept.
        """
        ...

    def describe(self, recipe: str, about: Mapping[str, Any]) -> None:
        """Say, for people, what the first part of keys stands for."""
        ...

    def close(self) -> None:
        """Write what is pending. The store can still be used."""
        ...


def get(store: FeatureStore, key: str, compute: Callable[[], Named]) -> Named:
    """One item."""
    return store.get_many([key], lambda keys: [compute()])[0]


def computed(keys: Sequence[str], compute: Compute, batch: int) -> list[tuple[str, Named]]:
    """Items of keys, computed ``batch`` at a time. Raises ValueError where ``compute`` gives more or fewer items."""
    found: list[tuple[str, Named]] = []
    for start in range(0, len(keys), batch):
        part = list(keys[start : start + batch])
        items = compute(part)
        if len(items) != len(part):
            raise ValueError(f"{len(part)} items were to be computed, {len(items)} came back")
        found += zip(part, items, strict=True)
    return found


class MemoryStore:
    """Items in memory, the least recently used given up beyond a limit.

    Args:
        megabytes: the limit. An item larger than that is computed every time.
        half: keep floats as float16: half the memory, about three decimal digits.
    """

    def __init__(self, megabytes: float, *, half: bool = False) -> None:
        if megabytes < 0:
            raise UserError(f"store.megabytes={megabytes}: must not be negative")
        self.limit, self.half = megabytes * 1e6, half
        self.counters = Counters()
        self.held = 0
        self._items: OrderedDict[str, Named] = OrderedDict()

    def __contains__(self, key: str) -> bool:
        return key in self._items

    def get_many(self, keys: Sequence[str], compute: Compute, *, batch: int = 1) -> list[Named]:
        """See :class:`FeatureStore`."""
        found: dict[str, Named] = {}
        for key in dict.fromkeys(keys):
            if key in self._items:
                self._items.move_to_end(key)
                found[key] = _full(self._items[key])
                self.counters.bytes_read += _bytes(self._items[key])
        missing = [key for key in dict.fromkeys(keys) if key not in found]
        self.counters.hits += len(found)
        self.counters.misses += len(missing)
        began = perf_counter()
        for key, item in computed(missing, compute, batch):
            found[key] = self._keep(key, item)
        self.counters.compute_seconds += perf_counter() - began
        return [found[key] for key in keys]

    def _keep(self, key: str, item: Named) -> Named:
        item = _on_cpu(item)
        item = _halved(item) if self.half else item
        self._items[key] = item
        self.held += _bytes(item)
        self.counters.bytes_written += _bytes(item)
        while self.held > self.limit and self._items:
            self.held -= _bytes(self._items.popitem(last=False)[1])
            self.counters.evicted += 1
        return _full(item)

    def describe(self, recipe: str, about: Mapping[str, Any]) -> None:
        """Nothing is written here."""

    def close(self) -> None:
        """Nothing is pending here."""


def _halved(item: Named) -> Named:
    """Floats as float16, except where a value is too large for it (above 65,504)."""

    def small(value: Tensor) -> Tensor:
        half = value.half() if value.is_floating_point() else value
        return half if bool(half.isfinite().all()) else value

    return {name: small(value) for name, value in item.items()}


def _on_cpu(item: Named) -> Named:
    return {name: value.detach().cpu().contiguous() for name, value in item.items()}


def _full(item: Named) -> Named:
    return {name: value.float() if value.dtype == torch.float16 else value for name, value in item.items()}


def _bytes(item: Named) -> int:
    return sum(value.nbytes for value in item.values())
