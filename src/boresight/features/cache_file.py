"""One item of the feature store as bytes: a safetensors file with a checksum of everything else in it.

Anybody can read the file with the safetensors library. It is read here by hand, because the checksum must be known
before the first number is used, and because that is faster: one read, one hash, no copy.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import xxhash
from torch import Tensor

FORMAT = "boresight-features-1"

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

_START = b'{"__metadata__":{"xxh3_128":"'
_HEX = 32
_ALIGN = 64
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


class DamagedError(Exception):
    """The bytes are not what was written; the message says what is wrong."""


@dataclass(frozen=True)
class Item:
    """Tensors by name, and text that goes with them."""

    tensors: dict[str, Tensor]
    notes: dict[str, str]


def pack(key: str, tensors: Mapping[str, Tensor], notes: Mapping[str, str]) -> list[bytes | memoryview]:
    """The parts of the file, to be written one after the other.

    Args:
        key: of the item; it is checked when the file is read, so that a file under a wrong name is noticed.
        tensors: on the CPU, contiguous.
        notes: text by name.
    """
    ordered = sorted(tensors.items(), key=lambda kv: (-kv[1].element_size(), kv[0]))  # so that each is aligned
    header: dict[str, Any] = {"__metadata__": {"xxh3_128": "0" * _HEX, "key": key, "format": FORMAT, **notes}}
    place = 0
    for name, value in ordered:
        if name == "__metadata__" or value.dtype not in _NAMES:
            raise ValueError(f"a tensor `{name}` of {value.dtype} cannot be kept")
        end = place + value.nbytes
        header[name] = {"dtype": _NAMES[value.dtype], "shape": list(value.shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=True).encode()
    text += b" " * (-(8 + len(text)) % _ALIGN)
    front = len(text).to_bytes(8, "little") + text
    data = torch.cat([_flat(value) for _, value in ordered]) if ordered else torch.empty(0, dtype=torch.uint8)
    at = 8 + len(_START)
    return [front[:at] + _digest(front, data.numpy().data).encode() + front[at + _HEX :], data.numpy().data]


def _flat(value: Tensor) -> Tensor:
    return value.detach().reshape(-1).view(torch.uint8)


def _digest(front: bytes, data: memoryview) -> str:
    """Checksum of data and of all of the header but itself. One call, seeded by the header: faster than two updates."""
    at = 8 + len(_START)
    seed = xxhash.xxh3_64_intdigest(front[:at] + b"0" * _HEX + front[at + _HEX :])
    return xxhash.xxh3_128_hexdigest(data, seed=seed)


def unpack(key: str, buffer: Tensor) -> Item:
    """The item in ``buffer [n]`` uint8; its tensors are views of the buffer.

    Raises :class:`DamagedError` unless every byte is as it was written and the item is that of ``key``.
    """
    data = buffer.numpy().data
    front = _front(data)
    at, head = 8 + len(_START), bytes(data[:front])
    if _digest(head, data[front:]).encode() != head[at : at + _HEX]:
        raise DamagedError("its checksum does not fit")
    named = b'","key":"' + key.encode() + b'"'
    if not head.startswith(named, at + _HEX):
        raise DamagedError("it is the item of another key")
    places, notes = _layout(head[at + _HEX + len(named) :], len(buffer) - front)
    try:
        tensors = {p.name: buffer[front + p.start : front + p.end].view(p.dtype).view(p.shape) for p in places}
    except (RuntimeError, OverflowError) as error:  # not aligned, or a shape that torch cannot have
        raise DamagedError(f"its tensors cannot be laid out ({error})") from error
    return Item(tensors, notes)


def _front(data: memoryview) -> int:
    """Where the tensors begin."""
    least = 8 + len(_START) + _HEX
    if len(data) < least:
        raise DamagedError(f"it is cut off after {len(data)} bytes")
    front = 8 + int.from_bytes(data[:8], "little")
    if not least <= front <= len(data):
        raise DamagedError("its header is longer than the file")
    if bytes(data[8 : 8 + len(_START)]) != _START:
        raise DamagedError("it does not begin as an item does")
    return front


class _Place(NamedTuple):
    """Where a tensor lies, counted from the end of the header."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int


@lru_cache(maxsize=256)
def _layout(rest: bytes, size: int) -> tuple[tuple[_Place, ...], dict[str, str]]:
    """Places and notes in what follows the key in a header: the same for all items of one shape, so read once.

    ``size`` bytes follow the header.
    """
    try:
        header = json.loads(b'{"__metadata__":{"key":""' + rest)
        notes = header.pop("__metadata__")
        if notes["format"] != FORMAT:
            raise DamagedError(f"its format is {notes['format']!r}, not {FORMAT!r}")
        places = tuple(_place(name, about, size) for name, about in header.items())
    except _UNREADABLE as error:  # checksummed, and yet no header of ours
        raise DamagedError(f"its header cannot be understood ({error})") from error
    return places, {k: v for k, v in notes.items() if k not in ("format", "key")}


def _place(name: str, about: Any, size: int) -> _Place:
    dtype, shape = _DTYPES[about["dtype"]], tuple(int(n) for n in about["shape"])
    start, end = (int(n) for n in about["data_offsets"])
    if min(shape, default=0) < 0 or not 0 <= start <= end <= size or end - start != math.prod(shape) * dtype.itemsize:
        raise DamagedError(f"tensor `{name}` does not fit into the file")
    return _Place(name, dtype, shape, start, end)
