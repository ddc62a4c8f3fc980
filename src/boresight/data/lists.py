"""The lists that name frames (folders, splits, tables): what an entry may name, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from boresight.core.errors import UserError, did_you_mean
from boresight.core.files import read_text
from boresight.data.frames import Frame, Frames
from boresight.data.image import IMAGE_SUFFIXES, DataError, Problem, Severity


@dataclass
class Log:
    """What a reader finds wrong with its lists: with ``audit`` it is kept, else the first thing fatal is raised."""

    audit: bool
    problems: list[Problem] = field(default_factory=list)

    def note(self, kind: str, file: Path | str, detail: str, remedy: str, severity: Severity = "error") -> None:
        """Keep a problem, whatever ``audit`` is."""
        self.problems.append(Problem(kind, severity, str(file), detail, remedy))

    def refuse(self, kind: str, file: Path | str, detail: str, remedy: str) -> None:
        """Keep a problem with ``audit``, else raise it as a ``DataError``."""
        self.note(kind, file, detail, remedy)
        if not self.audit:
            raise DataError(self.problems[-1])

    def safe(self, entry: str, file: Path | str) -> bool:
        """Whether an entry stays inside of its folder; one that leads out, or can name no file, is refused.

        Both kinds of path are looked at, whatever this machine has: a data set made on one goes to the other.
        """
        parts = (*PurePosixPath(entry).parts, *PureWindowsPath(entry).parts)
        leads_out = PurePosixPath(entry).is_absolute() or PureWindowsPath(entry).anchor or ".." in parts
        if leads_out:
            self.refuse("bad_entry", file, f"entry `{entry}` leads out of the image folder", "name files inside of it")
        elif not nameable(entry):
            remedy = "give it the name of a file"
            self.refuse("bad_entry", file, f"entry `{entry}` is no name that a file can have", remedy)
            return False
        return not leads_out


def nameable(entry: str) -> bool:
    """Whether a file system can hold a file of that name: no NUL, no half character, no part of over 255 bytes."""
    try:
        name = entry.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return b"\0" not in name and len(name) <= 2048 and max(map(len, name.split(b"/"))) <= 255


class Known:
    """Image files by their name inside of a folder, with or without suffix."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self.files = dict(sorted(files.items()))
        self.stems = {stem_of(name): path for name, path in reversed(self.files.items())}

    def find(self, entry: str) -> Path | None:
        """Return the file of an entry, or None where there is none."""
        return self.files.get(entry) or self.stems.get(entry)


def stem_of(name: str) -> str:
    """A name without its image suffix; other dots belong to the name."""
    base, dot, suffix = name.rpartition(".")
    return base if f"{dot}{suffix}".lower() in IMAGE_SUFFIXES else name


def find_split(root: str | Path, split: str | Path) -> Path:
    """Find a list of frames: a path, or ``[splits/]<name>[.txt]`` under ``root``. Else raises ``UserError``."""
    root = Path(root)
    places = (
        Path(split),
        root / "splits" / f"{split}.txt",
        root / "splits" / split,
        root / f"{split}.txt",
        root / split,
    )
    for place in places:
        if place.is_file():
            return place
    there = sorted(p.stem for folder in (root / "splits", root) for p in folder.glob("*.txt"))
    offered = f"; there are {', '.join(there)}" if there else ""
    raise UserError(f"{root}: no split `{split}` (a file, or {split}.txt){did_you_mean(str(split), there)}{offered}")


def read_split(file: Path) -> list[str]:
    """Read the entries of a list, one a line; blank lines and lines that start with ``#`` are passed over."""
    lines = (line.strip() for line in read_text(file, "a list of names, one a line,").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def select(
    known: Known, folder: Path, split: Path | None, log: Log, groups: Mapping[str, list[Path]] | None = None
) -> list[Path]:
    """The image files that a split names (None: all), each once; an unknown one is kept, and missed when it is read."""
    if split is None:
        named = [(path.name, path) for path in known.files.values()]
    else:
        entries = [entry for entry in read_split(split) if log.safe(entry, split)]
        named = [(entry, path) for entry in entries for path in _meant(entry, known, folder, groups or {})]
    chosen: dict[Path, str] = {}
    for entry, path in named:
        if path in chosen:
            log.note("duplicate_entry", split or folder, f"`{entry}` names a frame twice", "remove one of the entries")
        chosen.setdefault(path, entry)
    if not chosen:
        log.refuse("empty_split", split or folder, "names no frames", "list the images that belong to it")
    return list(chosen)


def _meant(entry: str, known: Known, folder: Path, groups: Mapping[str, list[Path]]) -> list[Path]:
    """The files that an entry stands for: itself, or the members of a group."""
    found = known.find(entry)
    return [found] if found else groups.get(entry, [folder / entry])


def gathered(
    paths: Sequence[Path], folder: Path, known: Known, log: Log, make: Callable[[str, Path, int], Frame], **more: Any
) -> Frames:
    """Make the frames of ``paths``, named by their path in ``folder`` and numbered from 1; ``more`` goes to ``Frames``.

    Of several frames with one name the first is kept. Files of ``known`` that became no frame are ``unused``.
    """
    frames: dict[str, Frame] = {}
    for path in paths:
        frame = make(path.relative_to(folder).as_posix(), path, len(frames) + 1)
        if frame.name in frames:
            log.note(
                "duplicate_entry", path, f"has the name `{frame.name}` of {frames[frame.name].image.name}", "rename it"
            )
        frames.setdefault(frame.name, frame)
    unused = frozenset(known.files.values()) - {frame.image for frame in frames.values()}
    return Frames(tuple(frames.values()), listing=tuple(log.problems), unused=unused, **more)
