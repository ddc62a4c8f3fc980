"""Files of the feature store: where they lie, how they are read in one go and written in one step."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from boresight.core.errors import UserError
from boresight.features.cache_file import FORMAT
from boresight.features.cache_locks import session_name
from boresight.features.cache_storage import Storage

log = logging.getLogger("boresight.features")

KEY = re.compile(r"([0-9a-f]{16,64})-([0-9a-f]{32})")
"""What callers give: a recipe and an image."""


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
    return _can_write(folder)


ROOMS = ("format.json", "items", "locks", "users", "stats", "remembered")
"""What lies in a store."""


def _can_write(folder: Path) -> bool:
    """False only where it will never be possible: a disk that is full may have room later."""
    probe = folder / f".{session_name()}.tmp"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        return error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM)
    return True


def check_format(folder: Path) -> None:
    """UserError unless the folder is a feature store of this version."""
    mark = folder / "format.json"
    try:
        found = json.loads(mark.read_text(encoding="utf-8")).get("format")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{folder}: not a feature store ({mark.name} is missing or damaged): name another") from error
    if found != FORMAT:
        raise UserError(f"{folder}: a feature store of format {found!r}, this version reads {FORMAT!r}: name another")


def place_of(key: str, storage: Storage) -> str:
    """The name of an item in the store. Raises ValueError for what is no key."""
    match = KEY.fullmatch(key)
    if match is None:
        raise ValueError(f"a key is <recipe>-<image>, 16 to 64 and 32 hex digits, got {key!r}")
    return f"{recipe_of(match[1], storage)}-{match[2]}"


def recipe_of(recipe: str, storage: Storage) -> str:
    """The name of the folder of a recipe. Raises ValueError for what is no recipe."""
    if not re.fullmatch(r"[0-9a-f]{16,64}", recipe):
        raise ValueError(f"a recipe is 16 to 64 hex digits, got {recipe!r}")
    return recipe if storage == "fp32" else f"{recipe}.{storage}"


def relative_file(place: str) -> str:
    """Where an item lies in a store."""
    recipe, image = place.rsplit("-", 1)
    return f"items/{recipe}/{image[:2]}/{image}.safetensors"


def item_file(folder: Path, place: str) -> Path:
    """Where an item lies."""
    return folder / relative_file(place)


def read_file(file: Path | str, *, touch: bool = True) -> Tensor:
    """The bytes of a file, ``[n]`` uint8; ``touch`` notes it as used now. Raises OSError."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        buffer = torch.empty(os.fstat(descriptor).st_size, dtype=torch.uint8)
        left = buffer.numpy().data
        while len(left):
            count = os.readv(descriptor, [left])
            if not count:
                return buffer[: len(buffer) - len(left)]  # shorter than it said
            left = left[count:]
        if touch:
            _touch(descriptor)
        return buffer
    finally:
        os.close(descriptor)


def _touch(descriptor: int) -> None:
    """Note that a file is used now."""
    try:
        now = time.time_ns()
        os.utime(descriptor, ns=(now, now))  # the kernel's own clock may stand still for milliseconds
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
    except BaseException:
        partial.unlink(missing_ok=True)
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
