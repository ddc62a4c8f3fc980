"""Where frozen features are kept: in memory, or one file an item. Small on purpose."""

from __future__ import annotations

import os
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError
from torch import Tensor

from boresight.core.errors import UserError

Named = dict[str, Tensor]
"""Tensors by name: the form of one item (:meth:`boresight.features.dense.DenseFeatures.tensors`)."""


class FeatureStore(Protocol):
    """Keeps items by key, on the CPU, and computes those it does not have.

    Attributes:
        hits, misses: how often :meth:`get` found an item, and how often it had to be computed.
    """

    hits: int
    misses: int

    def __contains__(self, key: str) -> bool:
        """Whether :meth:`get` is likely to find it (a file may still turn out to be damaged)."""
        ...

    def get(self, key: str, compute: Callable[[], Named]) -> Named:
        """The item; ``compute`` is called, and its result kept, only when the store has none that is whole.

        The caller must not write into the tensors. They are the same whether they were just computed or kept.
        """
        ...


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
        self.hits = self.misses = 0
        self.held = 0
        self._items: OrderedDict[str, Named] = OrderedDict()

    def __contains__(self, key: str) -> bool:
        return key in self._items

    def get(self, key: str, compute: Callable[[], Named]) -> Named:
        """See :class:`FeatureStore`."""
        if key in self._items:
            self.hits += 1
            self._items.move_to_end(key)
            return _full(self._items[key])
        self.misses += 1
        item = _on_cpu(compute())
        item = _halved(item) if self.half else item
        self._items[key] = item
        self.held += _bytes(item)
        while self.held > self.limit and self._items:
            self.held -= _bytes(self._items.popitem(last=False)[1])
        return _full(item)


def _bytes(item: Named) -> int:
    return sum(value.nbytes for value in item.values())


class DiskStore:
    """Items in a folder, one safetensors file a key with a checksum; several processes may share it.

    A file is written beside its place and renamed, so that one is either whole or not there. One that is damaged all
    the same (found by the checksum) is computed and written again.

    Args:
        folder: made when it is missing.
        half: keep floats as float16.
    """

    def __init__(self, folder: str | Path, *, half: bool = False) -> None:
        self.folder, self.half = Path(folder).expanduser(), half
        self.hits = self.misses = 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"store.folder={folder}: cannot be made ({error.strerror})") from error

    def _file(self, key: str) -> Path:
        if not key or not all(c.isalnum() or c in "-_." for c in key) or key.startswith("."):
            raise ValueError(f"a key must be letters, digits, '-', '_' and '.', got {key!r}")
        return self.folder / f"{key}.safetensors"

    def __contains__(self, key: str) -> bool:
        return self._file(key).is_file()

    def get(self, key: str, compute: Callable[[], Named]) -> Named:
        """See :class:`FeatureStore`."""
        file = self._file(key)
        item = _read(file)
        if item is not None:
            self.hits += 1
            return _full(item)
        self.misses += 1
        item = _on_cpu(compute())
        item = _halved(item) if self.half else item
        _write(file, item)
        return _full(item)


def _checksum(item: Named) -> str:
    total = 0
    for name in sorted(item):
        total = zlib.crc32(name.encode(), total)
        total = zlib.crc32(item[name].reshape(-1).view(torch.uint8).numpy().data, total)
    return f"{total:08x}"


def _read(file: Path) -> Named | None:
    """The item in the file; None when there is none, or none that is whole."""
    from safetensors import safe_open

    if not file.is_file():
        return None
    try:
        with safe_open(str(file), framework="pt") as held:
            item = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118 (it is no mapping)
            checksum = (held.metadata() or {}).get("crc32")
    except (SafetensorError, OSError, ValueError):  # cut short, overwritten, or taken away just now
        return None
    return item if checksum == _checksum(item) else None


def _write(file: Path, item: Named) -> None:
    """Write under a name of this process, flush, and put in place in one step."""
    from safetensors.torch import save

    partial = file.with_suffix(f".{os.getpid()}.partial")
    try:
        with partial.open("wb") as out:
            out.write(save(item, metadata={"crc32": _checksum(item)}))
            out.flush()
            os.fsync(out.fileno())
        partial.replace(file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(
            f"store.folder={file.parent}: cannot write features ({error.strerror}); free space or name another folder"
        ) from error
