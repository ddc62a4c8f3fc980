"""Hashes of image files that were read before, so that a fill that goes on neither decodes nor hashes them again.

A file is known by its path, size, times and inode. What is remembered are lines of text, one file a session,
each line with a checksum of its own: a line that is torn or changed is as if it was never written.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import xxhash
from torch import Tensor

from boresight.features.image_hash import image_key

log = logging.getLogger("boresight.features")

READER = "rgb-1"
"""Version of how image files are decoded; what was remembered of another is not used."""

RACY = 2.0
"""Seconds. A file that was changed so shortly before it was hashed may change again within one tick of its clock."""


class Remembered:
    """Hashes of files by what the file system says of them.

    Args:
        folder: of a feature store.
        session: the name of this process (:func:`boresight.features.cache_locks.session_name`).
        reader: version of the decoding.
    """

    def __init__(self, folder: Path, session: str, *, reader: str = READER) -> None:
        self.folder, self.session, self.reader = folder / "remembered", session, reader
        self.known: dict[str, str] = {}
        self.read = 0
        self._failed = False
        for file in sorted(self.folder.glob("*.txt")):
            self._load(file)

    def key(self, file: Path, read: Callable[[Path], Tensor]) -> tuple[str, Tensor | None]:
        """The hash of an image file (:func:`~boresight.features.image_hash.image_key`), and the image if it was read.

        ``read`` decodes a file that is not remembered; what it raises is passed on.
        """
        about = self._about(file)
        if about in self.known:
            return self.known[about], None
        image = read(file)
        self.read += 1
        key = image_key(image)
        if self._about(file) == about and time.time() - file.stat().st_mtime > RACY:
            self._write(about, key)
        return key, image

    def _about(self, file: Path) -> str:
        found = file.stat()
        times = (found.st_mtime_ns, found.st_ctime_ns)  # the second tells where the first was set back
        return json.dumps([str(file.absolute()), found.st_size, *times, found.st_ino, self.reader])

    def _write(self, about: str, key: str) -> None:
        self.known[about] = key
        line = f"{key} {about}"
        try:
            self.folder.mkdir(exist_ok=True)
            with (self.folder / f"{self.session}.txt").open("a", encoding="utf-8") as out:
                out.write(f"\n{_sum(line)} {line}\n")  # a line that was torn before spoils none after it
        except OSError as error:
            if not self._failed:
                log.warning("%s: hashes of files cannot be kept (%s); going on without", self.folder, error.strerror)
            self._failed = True

    def _load(self, file: Path) -> None:
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            checksum, _, rest = line.partition(" ")
            key, _, about = rest.partition(" ")
            if checksum == _sum(rest) and about:
                self.known[about] = key


def _sum(text: str) -> str:
    return xxhash.xxh3_64_hexdigest(text.encode())


def join_remembered(folder: Path, session: str) -> int:
    """Write the lines of all sessions that ended a day ago into one file; how many were joined."""
    room, day = folder / "remembered", time.time() - 86400
    old = [f for f in sorted(room.glob("*.txt")) if f.stat().st_mtime < day]
    if len(old) < 2:
        return 0
    lines = dict.fromkeys(line for f in old for line in f.read_text(encoding="utf-8", errors="replace").splitlines())
    partial = room / f".{session}.tmp"
    partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    os.replace(partial, room / f"joined-{session}.txt")
    for file in old:
        file.unlink(missing_ok=True)
    return len(old)
