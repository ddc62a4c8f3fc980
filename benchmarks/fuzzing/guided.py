"""The same readers under atheris: inputs that reach new lines of a reader are kept and damaged further.

libFuzzer makes bytes and learns from the lines that they reach. Half of the inputs spend them on the choices of our own
damages (which file, which token, which value), so that what comes out is nearly right; in the others they are the
content of one file as it is.
"""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NoReturn

from fuzzing.readers import Files, Reader, valid

LONGEST = 4096
"""Bytes of an input at most."""


class Spent(Random):
    """A source of choices that spends given bytes, and chooses the first of everything when they are used up.

    Overrides all that ``random.Random`` draws from, so that the same bytes always make the same choices.
    """

    def __new__(cls, content: bytes) -> Spent:
        return super().__new__(cls, 0)

    def __init__(self, content: bytes) -> None:
        super().__init__(0)
        self._left = memoryview(content)

    def _take(self, count: int) -> int:
        taken, self._left = self._left[:count], self._left[count:]
        return int.from_bytes(taken, "little")

    def getrandbits(self, k: int) -> int:
        """``k`` bits: one byte for up to eight of them, and so on."""
        return self._take((k + 7) // 8) & ((1 << k) - 1)

    def random(self) -> float:
        """At least 0 and less than 1, in steps of 2 to the -32."""
        return self._take(4) / 2**32


def made_of(reader: Reader, content: bytes) -> Files:
    """The files that these bytes stand for: the first says how the rest is used."""
    if not content:
        return {}
    first, rest = content[0], content[1:]
    if first % 2 == 0:
        return reader.damaged(Spent(rest), valid(reader))
    names = _names(reader)
    return {names[(first // 2) % len(names)]: rest}


def seeds(reader: Reader) -> list[bytes]:
    """Every file as it is, where it is short enough, and some bytes to choose by."""
    names = _names(reader)[:128]
    whole = [bytes([2 * i + 1]) + valid(reader)[name] for i, name in enumerate(names)]
    return [w for w in whole if len(w) <= LONGEST] + [b"\0" + Random(i).randbytes(64) for i in range(32)]


def _names(reader: Reader) -> list[str]:
    return [name for name in valid(reader) if name not in reader.fixed]


def watch() -> None:
    """Every module of Boresight that is imported from here on tells which of its lines ran."""
    import atheris

    atheris.instrument_imports(include=["boresight"], enable_loader_override=False).__enter__()


def guided(
    reader: Reader,
    attempt: Callable[[int, Files], None],
    inputs: int,
    seed: int,
    corpus: Path,
    done: Callable[[], None],
) -> NoReturn:
    """Call ``attempt`` with the number and the files of each of ``inputs`` inputs, then ``done``; the process ends."""
    import atheris

    corpus.mkdir()
    for i, content in enumerate(seeds(reader)):
        (corpus / f"seed-{i}").write_bytes(content)
    count = 0

    def take(content: bytes) -> None:
        nonlocal count
        attempt(count, made_of(reader, content))
        count += 1
        if count == inputs:
            done()
            os._exit(0)  # libFuzzer would end the process as hard, and say nothing

    words = [f"-seed={seed + 1}", f"-max_len={LONGEST}", "-timeout=1200", "-rss_limit_mb=0", "-verbosity=0"]
    words += [f"-handle_{signal}=0" for signal in ("abrt", "segv", "bus", "fpe", "ill")]  # Python shows more of these
    faulthandler.enable()
    atheris.Setup([sys.argv[0], *words, os.fspath(corpus)], take)
    atheris.Fuzz()
    raise AssertionError("libFuzzer ended by itself")
