"""Every reader of files that others write: a valid input in memory, how it is damaged, and what reads it.

A reader passes where it returns or raises ``UserError`` or ``Failure`` with one printable line, within the time it has.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from types import FrameType

from boresight.core.errors import Failure, UserError
from fuzzing import data_cases, run_cases, store_cases
from fuzzing.mutate import mutated_bytes, mutated_json, mutated_lines

Files = dict[str, bytes]
Damage = Callable[[Random, str, bytes], bytes]


class Hang(BaseException):
    """Reading took longer than it may; no reader can catch it."""


@dataclass(frozen=True)
class Reader:
    """One reader.

    Attributes:
        name: short.
        make: a valid input: contents by path in a folder.
        read: reads the folder, whole.
        words: what its text may hold beside the common ones.
        fixed: files that are not damaged.
    """

    name: str
    make: Callable[[], Files]
    read: Callable[[Path], None]
    words: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()

    def damaged(self, rng: Random, files: Files) -> Files:
        """Those files that change, one or now and then two, damaged by the form that their suffix tells."""
        names = [name for name in files if name not in self.fixed]
        chosen = {rng.choice(names) for _ in range(rng.choice((1, 1, 1, 2)))}
        return {name: _damage(rng, name, files[name], self.words) for name in sorted(chosen)}


def _damage(rng: Random, name: str, content: bytes, words: tuple[str, ...]) -> bytes:
    if name.endswith(".json"):
        return mutated_json(rng, content)
    if name.endswith((".txt", ".csv", ".xml", ".yaml")):
        return mutated_lines(rng, content, words)
    if name in run_cases.TABLES and rng.randrange(3):
        return run_cases.mutated_table(rng, run_cases.TABLES[name]())
    if name in store_cases.HEADED and rng.randrange(3):
        return store_cases.mutated_header(rng, name, content)
    return mutated_bytes(rng, content)


READERS = (
    Reader("coco", data_cases.coco, data_cases.read_coco, fixed=data_cases.IMAGES),
    Reader("results", data_cases.results, data_cases.read_results),
    Reader("tables", data_cases.tables, data_cases.read_tables),
    Reader("voc", data_cases.voc, data_cases.read_voc, data_cases.XML_WORDS, fixed=data_cases.IMAGES),
    Reader("yolo", data_cases.yolo, data_cases.read_yolo, data_cases.YAML_WORDS, fixed=data_cases.IMAGES),
    Reader("points", data_cases.points, data_cases.read_points, fixed=data_cases.IMAGES),
    Reader("images", data_cases.images, data_cases.read_images),
    Reader("geo", data_cases.georeferenced, data_cases.read_georeferenced),
    Reader("config", run_cases.configs, run_cases.read_configs, data_cases.YAML_WORDS),
    Reader("study", run_cases.study, run_cases.read_study_file, data_cases.YAML_WORDS),
    Reader("run", run_cases.run_folder, run_cases.read_run_folder, data_cases.YAML_WORDS),
    Reader("state", run_cases.state, run_cases.read_state),
    Reader("checkpoint", store_cases.checkpoint, store_cases.read_checkpoint),
    Reader("weights", store_cases.weights, store_cases.read_weight_files),
    Reader("item", store_cases.item, store_cases.read_item),
    Reader("store", store_cases.store, store_cases.read_store),
)
"""In the order of the page on security."""


@cache
def valid(reader: Reader) -> Files:
    """The valid input of a reader, made once."""
    return reader.make()


def lay_out(folder: Path, files: Files) -> None:
    """Write files into a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def outcome(reader: Reader, folder: Path, seconds: float) -> str:
    """Read the folder in CPU ``seconds``: ``value``, or ``refused``. Raises what the reader must not, and ``Hang``."""
    with _alarm(seconds):
        try:
            reader.read(folder)
        except (UserError, Failure) as error:
            line = str(error)
            if not line or not line.isprintable():
                raise AssertionError(f"no printable line: {line!r}") from error
            return "refused"
    return "value"


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise Hang(f"still reading after {seconds:g} s")

    # the time of the processor: what a busy machine takes is no fault of the reader
    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def tried(reader: Reader, damaged: Files, folder: Path, seconds: float = 20.0) -> str:
    """Put damaged files over the valid ones that lie in ``folder``, read it, and put the valid ones back."""
    files = valid(reader)
    lay_out(folder, damaged)
    try:
        return outcome(reader, folder, seconds)
    finally:
        lay_out(folder, {name: files[name] for name in damaged})
