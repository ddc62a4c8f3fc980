"""Files of the feature store: where they lie, how they are read in one go and written in one step."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from boresight.core.errors import UserError
from boresight.features.cache_file import FORMAT
from boresight.features.cache_locks import session_name

log = logging.getLogger("boresight.features")

KEY = re.compile(r"([0-9a-f]{16,64})-([0-9a-f]{32})")


def prepare(folder: Path) -> bool:
    """Make a store of a folder, or see that it is one; whether it can be written to.

    Raises UserError for a folder that cannot be made, that is of another version, or that holds other things.
    """
    mark = folder / "format.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not mark.is_file():
            strange = [p.name for p in folder.iterdir() if p.name not in ROOMS and not p.name.startswith(".")]
            if strange:
                raise UserError(f"{folder}: no feature store, but holds `{strange[0]}`: name an empty or a new folder")
            write_file(mark, [json.dumps({"format": FORMAT}).encode()], session_name())
            return True
    except OSError as error:
        raise UserError(f"store.folder={folder}: cannot be made ({error.strerror}): name another folder") from error
    check_format(folder)
    return os.access(folder, os.W_OK) and _can_write(folder)


ROOMS = ("format.json", "items", "locks", "users", "stats", "remembered", "evict.lock")
"""What lies in a store."""


def _can_write(folder: Path) -> bool:
    probe = folder / f".{session_name()}.tmp"
    try:
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    return True


def check_format(folder: Path) -> None:
    """UserError unless the folder is a feature store of this version."""
    mark = folder / "format.json"
    try:
        found = json.loads(mark.read_text(encoding="utf-8")).get("format")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{folder}: not a feature store ({mark.name} is missing or damaged): name another") from error
    if found != FORMAT:
        raise UserError(f"{folder}: a feature store of format {found!r}, this version reads {FORMAT!r}: name another")


def relative_file(key: str) -> str:
    """Where the item of a key lies in a store. Raises ValueError for what is no key."""
    match = KEY.fullmatch(key)
    if match is None:
        raise ValueError(f"a key is <recipe>-<image>, 16 to 64 and 32 hex digits, got {key!r}")
    recipe, image = match.groups()
    return f"items/{recipe}/{image[:2]}/{image}.safetensors"


def item_file(folder: Path, key: str) -> Path:
    """Where the item of a key lies."""
    return folder / relative_file(key)


def read_file(file: Path | str) -> Tensor:
    """The bytes of a file, ``[n]`` uint8, and a note of its use. Raises OSError."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        buffer = torch.empty(os.fstat(descriptor).st_size, dtype=torch.uint8)
        left = buffer.numpy().data
        while len(left):
            count = os.readv(descriptor, [left])
            if not count:
                break  # shorter than it said: the checksum will tell
            left = left[count:]
        _touch(descriptor)
        return buffer
    finally:
        os.close(descriptor)


def _touch(descriptor: int) -> None:
    """Note that a file is used now."""
    try:
        os.utime(descriptor)
    except OSError:
        return  # a store that is read only is never evicted from


def write_file(file: Path, parts: Sequence[bytes | memoryview], session: str, *, durable: bool = False) -> None:
    """Write a file under a name of this session, and put it in place in one step. Raises OSError, leaving nothing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.stem}.{session}.{threading.get_ident()}.tmp")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            _write_all(descriptor, parts)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        partial.replace(file)
    except OSError:
        remove(partial)
        raise


def _write_all(descriptor: int, parts: Sequence[bytes | memoryview]) -> None:
    left = [memoryview(part) for part in parts if len(part)]
    while left:
        count = os.writev(descriptor, left[:64])
        while left and count >= len(left[0]):
            count -= len(left.pop(0))
        if count:
            left[0] = left[0][count:]


def remove(file: Path) -> None:
    """Remove a file, if it is there; a warning where that cannot be done."""
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s: cannot be removed (%s)", file, error.strerror)
