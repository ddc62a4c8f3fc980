"""Frames on disk with point truth: SIRST folders, CSV tables, COCO boxes, and images of which nothing is known.

Every reader returns :class:`Frames`, which decodes an image only when it is asked for one. What is wrong with a frame
is a :class:`Problem`: reading the frame raises the first, :meth:`Frames.inspect` collects them all.
"""

from __future__ import annotations

import csv
import glob
import hashlib
import io
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from boresight.core.errors import UserError, did_you_mean
from boresight.core.grid import index_to_pixel
from boresight.core.types import Points, Scene, frame_brightness
from boresight.data.image import IMAGE_SUFFIXES, DataError, Problem, Severity, read_image, read_mask, to_gray

T = TypeVar("T")


class FrameSource(Protocol):
    """Frames that are addressed by index, whatever makes them: a folder, a table, a generator."""

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every frame, each unique."""
        ...

    def __len__(self) -> int:
        """The number of frames."""
        ...

    def __getitem__(self, i: int, /) -> Scene:
        """Frame ``i``: a gray image ``[1, H, W]`` with its points. Raises ``UserError`` where it cannot be read."""
        ...

    def truth(self, i: int, /) -> Points | None:
        """The points of frame ``i`` alone, without decoding its image where that can be avoided; None: unknown."""
        ...


@runtime_checkable
class AuditedSource(FrameSource, Protocol):
    """A source of files, which can say what is wrong with each without stopping."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The image file of every frame."""
        ...

    @property
    def listing(self) -> tuple[Problem, ...]:
        """What is wrong with the lists (split file, table) that name the frames."""
        ...

    @property
    def unused(self) -> frozenset[Path]:
        """Image files beside those of the source that are none of its frames."""
        ...

    def inspect(self, i: int, /) -> tuple[Scene | None, tuple[Problem, ...]]:
        """Frame ``i`` where it can be read, and all that is wrong with it."""
        ...


class Row(NamedTuple):
    """One point of a table: ``x, y`` in the pixel frame, and what is known about it (NaN: unknown)."""

    x: float
    y: float
    label: int = 0
    ignore: bool = False
    snr: float = math.nan
    flux: float = math.nan


@dataclass(frozen=True, slots=True)
class Frame:
    """Where one frame comes from.

    Truth is ``rows``, or the components of ``mask``, or unknown where both are None. ``origin`` is the file to blame
    for rows; frames of one ``group`` (a video) are not independent of each other.
    """

    name: str
    image: Path
    image_id: int
    rows: tuple[Row, ...] | None = None
    mask: Path | None = None
    origin: str = ""
    group: str = ""


@dataclass(frozen=True)
class Frames:
    """Frames on disk, read lazily (an :class:`AuditedSource`)."""

    frames: tuple[Frame, ...]
    classes: tuple[str, ...] = ("target",)
    listing: tuple[Problem, ...] = ()
    unused: frozenset[Path] = frozenset()
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(frame.name for frame in self.frames))
        if len(set(self.names)) < len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise ValueError(f"names of frames must be unique, `{twice}` is not")

    @property
    def files(self) -> tuple[Path, ...]:
        """The image file of every frame."""
        return tuple(frame.image for frame in self.frames)

    @property
    def groups(self) -> tuple[str, ...]:
        """What may not be torn apart by a random split: the video of every frame, or its name (:func:`held_out`)."""
        return tuple(frame.group or frame.name for frame in self.frames)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, i: int) -> Scene:
        """Frame ``i``: image ``[1, H, W]`` float32 as stored. Raises ``UserError`` for the first of its problems."""
        scene, problems = self.inspect(i)
        if problems:
            raise DataError(problems[0])
        assert scene is not None
        return scene

    def truth(self, i: int) -> Points | None:
        """The points of frame ``i`` without decoding its image, so points outside of it are not noticed."""
        return _points(self.frames[i])

    def inspect(self, i: int) -> tuple[Scene | None, tuple[Problem, ...]]:
        """Frame ``i`` where it can be read, and all that is wrong with it. The scene may have points outside."""
        frame = self.frames[i]
        image, problems = _attempt(lambda: to_gray(read_image(frame.image)))
        points, more = _attempt(lambda: _points(frame))
        if image is None or more:
            return None, tuple(replace(problem, name=frame.name) for problem in problems + more)
        level, spread = frame_brightness(image)
        scene = Scene(image, frame.name, frame.image_id, points, level=level, spread=spread)
        return scene, tuple(_misfits(scene, frame))


@dataclass(frozen=True)
class Subset:
    """The frames ``indices`` of another source, in that order, with the same protocol."""

    source: FrameSource
    indices: tuple[int, ...]

    def __init__(self, source: FrameSource, indices: Iterable[int]) -> None:
        object.__setattr__(self, "source", source)
        object.__setattr__(self, "indices", tuple(int(i) for i in indices))
        if wrong := [i for i in self.indices if not 0 <= i < len(source)]:
            raise ValueError(f"index {wrong[0]} is outside 0..{len(source) - 1}")

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every frame."""
        return tuple(self.source.names[i] for i in self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> Scene:
        return self.source[self.indices[i]]

    def truth(self, i: int) -> Points | None:
        """The points of frame ``i``."""
        return self.source.truth(self.indices[i])

    @property
    def files(self) -> tuple[Path, ...]:
        """The image file of every frame (a path made of its name where the source has no files)."""
        files = getattr(self.source, "files", None) or tuple(Path(name) for name in self.source.names)
        return tuple(files[i] for i in self.indices)

    @property
    def groups(self) -> tuple[str, ...]:
        """What may not be torn apart by a random split, of every frame."""
        groups = getattr(self.source, "groups", self.source.names)
        return tuple(groups[i] for i in self.indices)

    @property
    def listing(self) -> tuple[Problem, ...]:
        """What is wrong with the lists of the whole source."""
        return getattr(self.source, "listing", ())

    @property
    def unused(self) -> frozenset[Path]:
        """Image files of the source that are no frame of this part."""
        return frozenset(getattr(self.source, "unused", ())) | set(getattr(self.source, "files", ())) - set(self.files)

    def inspect(self, i: int) -> tuple[Scene | None, tuple[Problem, ...]]:
        """Frame ``i`` where it can be read, and all that is wrong with it."""
        return inspect(self.source, self.indices[i])


def inspect(source: FrameSource, i: int) -> tuple[Scene | None, tuple[Problem, ...]]:
    """Frame ``i`` of any source where it can be read, and all that is wrong with it: never raises a ``UserError``."""
    if isinstance(source, AuditedSource):
        return source.inspect(i)
    try:
        return source[i], ()
    except DataError as error:
        return None, (error.problem,)
    except UserError as error:
        return None, (Problem("corrupt_image", "error", source.names[i], str(error), "leave the frame out"),)


def held_out(keys: int | Sequence[str], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Split frames into ``(train, validation)``: indices in rising order, with about ``share`` of them held out.

    ``keys`` are the names of the frames, or their groups (:attr:`Frames.groups`): frames with one key stay on one side,
    so that neighbours in a video do not sit on both. A number stands for that many frames named by their index. Keys
    are ordered by a hash of ``(seed, key)`` and held out until ``round(share * n)`` frames are (at least one, never all
    keys): the same on every machine, and adding a frame moves few others. ``share`` 0 holds out nothing. Raises
    ``UserError`` for a share outside [0, 1), or where there are fewer than two keys to part.
    """
    names = [str(i) for i in range(keys)] if isinstance(keys, int) else list(keys)
    if not 0 <= share < 1:
        raise UserError(f"share of held-out frames {share}: give a number from 0 up to, not including, 1")
    if share == 0:
        return list(range(len(names))), []
    order = sorted(set(names), key=lambda key: hashlib.blake2b(f"{seed}:{key}".encode()).digest())
    if len(order) < 2:
        raise UserError(f"cannot hold out {share:g} of {len(order)} independent frames: give more, or a share of 0")
    wanted, count = max(1, round(share * len(names))), 0
    chosen: set[str] = set()
    size = Counter(names)
    for key in order[:-1]:
        if count >= wanted:
            break
        chosen.add(key)
        count += size[key]
    sides = [name in chosen for name in names]
    return [i for i, held in enumerate(sides) if not held], [i for i, held in enumerate(sides) if held]


def _attempt(read: Callable[[], T]) -> tuple[T | None, tuple[Problem, ...]]:
    """Return what ``read`` returns and no problem, or None and the problem that it raised."""
    try:
        return read(), ()
    except DataError as error:
        return None, (error.problem,)


def _points(frame: Frame) -> Points | None:
    """The truth of one frame: its rows, or the components of its mask."""
    if frame.rows is not None:
        table = torch.tensor([[float(v) for v in row] for row in frame.rows], dtype=torch.float64).reshape(
            -1, len(Row._fields)
        )
        x, y, label, ignore, snr, flux = table.unbind(dim=1)
        known = [None if v.isnan().all() else v.float() for v in (snr, flux)]
        return Points(torch.stack((x, y), dim=-1).float(), label.long(), ignore.bool(), snr=known[0], flux=known[1])
    if frame.mask is None:
        return None
    try:
        return mask_points(read_mask(frame.mask))
    except DataError as error:
        if error.problem.kind != "missing_image":
            raise
        detail, remedy = f"no mask for the frame `{frame.name}`", "add the mask (all zeros where there is no target)"
        raise DataError(
            replace(error.problem, kind="mask_missing", detail=detail, remedy=remedy, name=frame.name)
        ) from error


def mask_points(mask: Tensor) -> Points:
    """Turn a mask ``[H, W]`` bool into one point for each 8-connected component, with ``Points.mask`` filled.

    A point is the plain mean of the centres of its pixels, in the pixel frame (half-pixel centres). Components are
    numbered in the order in which a scan by rows first meets them.
    """
    components, n = ndimage.label(mask.numpy(), structure=np.ones((3, 3), dtype=bool))
    rows, columns = np.nonzero(components)
    owner = components[rows, columns] - 1
    sums = np.stack([np.bincount(owner, weights=at, minlength=n) for at in (columns, rows)], axis=-1)
    centroids = sums / np.maximum(np.bincount(owner, minlength=n), 1)[:, None]
    return Points.of(
        index_to_pixel(torch.from_numpy(centroids)).float(), mask=torch.from_numpy(components.astype(np.int32))
    )


def _misfits(scene: Scene, frame: Frame) -> Iterator[Problem]:
    """Truth that does not fit its image: a mask of another size, points outside."""
    if (points := scene.points) is None:
        return
    height, width = scene.size
    if points.mask is not None and points.mask.shape != (height, width):
        theirs = f"is {points.mask.shape[1]}x{points.mask.shape[0]}, its image {width}x{height}"
        yield Problem(
            "mask_size", "error", str(frame.mask), theirs, "save the mask at the size of the image", name=frame.name
        )
        return
    yield from outside(scene, frame.origin or str(frame.image))


def outside(scene: Scene, file: str) -> Iterator[Problem]:
    """Yield a problem for every point that lies outside of the image of its scene (borders belong to the image)."""
    if scene.points is None:
        return
    height, width = scene.size
    for x, y in scene.points.xy.tolist():
        if not (0 <= x <= width and 0 <= y <= height):
            detail = f"point ({x:g}, {y:g}) lies outside of `{scene.name}` ({width}x{height})"
            yield Problem("point_outside", "error", file, detail, "correct the point or remove it", name=scene.name)


# --- readers ---------------------------------------------------------------------------------------------------------

_ALIASES = {
    "image": ("image", "file", "file_name", "filename"),
    "x": ("cx", "x"),
    "y": ("cy", "y"),
    "label": ("label", "class"),
    "ignore": ("ignore",),
    "snr": ("snr",),
    "flux": ("flux",),
    "video": ("video",),
}
_YES, _NO = ("1", "true", "yes"), ("", "0", "false", "no")


@dataclass
class _Log:
    """What a reader finds wrong with its lists: with ``audit`` it is kept, else the first thing fatal is raised."""

    audit: bool
    problems: list[Problem] = field(default_factory=list)

    def note(self, kind: str, file: Path | str, detail: str, remedy: str, severity: Severity = "error") -> None:
        self.problems.append(Problem(kind, severity, str(file), detail, remedy))

    def refuse(self, kind: str, file: Path | str, detail: str, remedy: str) -> None:
        self.note(kind, file, detail, remedy)
        if not self.audit:
            raise DataError(self.problems[-1])

    def safe(self, entry: str, file: Path | str) -> bool:
        """Refuse an entry that leads out of its folder."""
        parts = (*PurePosixPath(entry).parts, *PureWindowsPath(entry).parts)
        leads_out = (
            PurePosixPath(entry).is_absolute() or PureWindowsPath(entry).anchor or ".." in parts or "\0" in entry
        )
        if leads_out:
            self.refuse("bad_entry", file, f"entry `{entry}` leads out of the image folder", "name files inside of it")
        return not leads_out


class _Known:
    """Image files by their name inside of a folder, with or without suffix."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self.files = dict(sorted(files.items()))
        self.stems = {_stem(name): path for name, path in reversed(self.files.items())}

    def find(self, entry: str) -> Path | None:
        return self.files.get(entry) or self.stems.get(entry)


def _stem(name: str) -> str:
    """A name without its image suffix; other dots belong to the name."""
    base, dot, suffix = name.rpartition(".")
    return base if f"{dot}{suffix}".lower() in IMAGE_SUFFIXES else name


def _images_in(folder: Path) -> list[Path]:
    """The image files directly in a folder, sorted. Raises ``UserError`` where there is no such folder."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of images: correct the path")
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())


def _read_text(file: Path, what: str) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read ({error}): give {what} in UTF-8") from error


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
    lines = (line.strip() for line in _read_text(file, "a list of names, one a line,").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _select(
    known: _Known, folder: Path, split: Path | None, log: _Log, groups: Mapping[str, list[Path]] | None = None
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


def _meant(entry: str, known: _Known, folder: Path, groups: Mapping[str, list[Path]]) -> list[Path]:
    """The files that an entry stands for: itself, or the members of a group."""
    found = known.find(entry)
    return [found] if found else groups.get(entry, [folder / entry])


def _frames(
    paths: Sequence[Path], folder: Path, known: _Known, log: _Log, make: Callable[[str, Path, int], Frame], **more: Any
) -> Frames:
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


def sirst(
    root: str | Path,
    split: str | Path | None = None,
    *,
    images: str = "images",
    masks: str = "masks",
    audit: bool = False,
) -> Frames:
    """Open a SIRST-style folder: an image and a binary mask of the same stem (or ``<stem>_pixels0``) for every frame.

    ``split`` is a list of stems (:func:`find_split`), None takes every image. Frames are named by their stem; their
    points are those of :func:`mask_points`. Raises ``UserError`` for a missing folder or list, for an entry that leads
    out of the folder and for a list without frames; with ``audit`` the last two are kept in ``listing`` instead.
    """
    root, log = Path(root), _Log(audit)
    folder = root / images
    known = _Known({path.name: path for path in _images_in(folder)})
    mask_files = {_stem(path.name).removesuffix("_pixels0"): path for path in _images_in(root / masks)}
    paths = _select(known, folder, None if split is None else find_split(root, split), log)
    for stem in sorted(mask_files.keys() - known.stems.keys()):
        log.note(
            "unknown_file", mask_files[stem], "a mask without an image", "add the image or remove the mask", "warning"
        )

    def make(name: str, path: Path, number: int) -> Frame:
        stem = _stem(name)
        return Frame(stem, path, number, mask=mask_files.get(stem, root / masks / f"{stem}.png"))

    return _frames(paths, folder, known, log, make)


def csv_points(
    table: str | Path,
    images: str | Path,
    *,
    split: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    only_listed: bool = False,
    audit: bool = False,
) -> Frames:
    """Open a table of points, one a row, in the pixel frame.

    Columns are ``image, x, y`` (or ``cx, cy``, which win where both are there: ``x, y`` are then a corner), and where
    known ``label`` or ``class`` (numbers from 0, or words, which are numbered in order of the alphabet), ``ignore``,
    ``snr``, ``flux``, ``video``; others are passed over. ``columns`` maps these names to those of the file. Images
    beside those listed, and rows whose ``x`` and ``y`` are empty, are frames without targets; ``only_listed`` leaves
    out the images that no row names. ``split`` is a list of images (with or without suffix) or of values of ``video``.
    Raises as :func:`sirst` does, and for a row that cannot be understood (its line is named).
    """
    table, folder, log = Path(table), Path(images), _Log(audit)
    rows, videos, classes = _read_table(table, columns or {}, log)
    listed = {folder / name for name in rows}
    beside = [
        path
        for place in sorted({folder} | {path.parent for path in listed})
        if place.is_dir() or place == folder
        for path in _images_in(place)
    ]
    known = _Known({path.relative_to(folder).as_posix(): path for path in beside})
    truth = {known.find(name) or folder / name: points for name, points in rows.items()}
    usable = _Known(
        {path.relative_to(folder).as_posix(): path for path in (truth if only_listed else {*beside, *truth})}
    )
    groups: dict[str, list[Path]] = defaultdict(list)
    for name, video in videos.items():
        groups[video].append(known.find(name) or folder / name)
    video_of = {path: video for video, paths in groups.items() for path in paths}
    paths = _select(usable, folder, None if split is None else find_split(table.parent, split), log, groups)

    def make(name: str, path: Path, number: int) -> Frame:
        return Frame(name, path, number, tuple(truth.get(path, ())), origin=str(table), group=video_of.get(path, ""))

    return _frames(paths, folder, known, log, make, classes=classes)


def _read_table(
    file: Path, columns: Mapping[str, str], log: _Log
) -> tuple[dict[str, list[Row]], dict[str, str], tuple[str, ...]]:
    """Return the points of every image, the video of every image that has one, and the names of the classes."""
    reader = csv.DictReader(io.StringIO(_read_text(file, "a table of points"), newline=""), skipinitialspace=True)
    reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
    where = _columns(file, reader.fieldnames, columns)
    given: list[tuple[str, str, Row | None]] = []
    videos: dict[str, str] = {}
    try:
        for record in reader:
            cells = {key: (record.get(column) or "").strip() for key, column in where.items()}
            place = f"{file}:{reader.line_num}"
            if not log.safe(cells["image"], place):
                continue
            try:
                given.append((cells["image"], cells.get("label", ""), _row(cells)))
            except ValueError as error:
                log.refuse("bad_row", place, str(error), "correct the row")
                continue
            if cells.get("video"):
                videos[cells["image"]] = cells["video"]
    except csv.Error as error:
        raise UserError(
            f"{file}:{reader.line_num}: not a table of comma-separated values ({error}): correct it"
        ) from error
    number, classes = _numbered({label for _, label, row in given if row})
    rows: dict[str, list[Row]] = {name: [] for name, _, _ in given}
    for name, label, row in given:
        if row:
            rows[name].append(row._replace(label=number[label]))
    return rows, videos, classes


def _columns(file: Path, header: list[str], columns: Mapping[str, str]) -> dict[str, str]:
    """Return the file's column of every quantity that it has."""
    if wrong := sorted(columns.keys() - _ALIASES.keys()):
        raise UserError(
            f"columns.{wrong[0]}: no such quantity{did_you_mean(wrong[0], _ALIASES)}: use {', '.join(_ALIASES)}"
        )
    folded = {name.lower(): name for name in reversed(header)}
    found: dict[str, str] = {}
    for key, aliases in _ALIASES.items():
        if key in columns and columns[key] not in header:
            raise UserError(
                f"{file}: no column `{columns[key]}`{did_you_mean(columns[key], header)}: it has {', '.join(header)}"
            )
        names = [columns[key]] if key in columns else [folded[alias] for alias in aliases if alias in folded]
        if names:
            found[key] = names[0]
    if missing := [key for key in ("image", "x", "y") if key not in found]:
        raise UserError(
            f"{file}: no column for {', '.join(missing)}: it has {', '.join(header) or 'none'}; map them with `columns`"
        )
    return found


def _row(cells: Mapping[str, str]) -> Row | None:
    """One row without its class, or None for a frame without targets. Raises ``ValueError`` for what makes no sense."""
    if not cells["image"]:
        raise ValueError("names no image")
    if not cells["x"] and not cells["y"]:
        return None
    x, y = (_number(cells[key], key) for key in ("x", "y"))
    snr, flux = (_number(cells[key], key) if cells.get(key) else math.nan for key in ("snr", "flux"))
    ignore = cells.get("ignore", "").lower()
    if ignore not in _YES + _NO:
        raise ValueError(f"ignore `{ignore}` is neither 1 nor 0")
    return Row(x, y, ignore=ignore in _YES, snr=snr, flux=flux)


def _number(text: object, name: str) -> float:
    try:
        value = float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{name} `{text}` is not a finite number")
    return value


def _numbered(labels: set[str]) -> tuple[dict[str, int], tuple[str, ...]]:
    """Number the classes of a table: numbers stay, words are numbered in order of the alphabet, none is class 0."""
    if not labels - {""}:
        return {"": 0}, ("target",)
    if all(label.isdecimal() for label in labels):
        numbers = {label: int(label) for label in labels}
        return numbers, tuple(str(i) for i in range(max(numbers.values()) + 1))
    return {label: i for i, label in enumerate(sorted(labels))}, tuple(sorted(labels))


def coco_points(
    annotations: str | Path, images: str | Path, *, split: str | Path | None = None, audit: bool = False
) -> Frames:
    """Open COCO boxes as points: their centres.

    Categories become classes from 0 in order of their id; ``iscrowd`` becomes ``ignore``. Frames keep their COCO id and
    are named by ``file_name``. ``split`` is a list of these names, with or without suffix. Raises as :func:`sirst`
    does, and for an annotation that cannot be understood.
    """
    file, folder, log = Path(annotations), Path(images), _Log(audit)
    content = _read_coco(file)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of images: correct the path")
    categories = sorted(content["categories"], key=lambda category: category["id"])
    number = {category["id"]: i for i, category in enumerate(categories)}
    ids: dict[Path, int] = {}
    taken: set[int] = set()
    for entry in content["images"]:
        if log.safe(str(entry["file_name"]), file):
            path = folder / str(entry["file_name"])
            if path in ids or entry["id"] in taken:
                log.refuse("bad_row", file, f"lists image {entry['id']} (`{entry['file_name']}`) twice", "remove one")
            else:
                ids[path] = entry["id"]
                taken.add(entry["id"])
    rows: dict[int, list[Row]] = {image_id: [] for image_id in ids.values()}
    for annotation in content["annotations"]:
        try:
            rows[_reference(annotation, "image_id", rows)].append(_centre(annotation, number))
        except ValueError as error:
            log.refuse("bad_row", file, f"annotation {annotation.get('id')}: {error}", "correct the annotation")
    known = _Known({path.relative_to(folder).as_posix(): path for path in ids})
    paths = _select(known, folder, None if split is None else find_split(file.parent, split), log)

    def make(name: str, path: Path, number: int) -> Frame:
        image_id = ids.get(path, -number)
        return Frame(name, path, image_id, tuple(rows.get(image_id, ())), origin=str(file))

    classes = tuple(str(category.get("name", category["id"])) for category in categories)
    on_disk = _Known({path.name: path for path in _images_in(folder)})
    return _frames(paths, folder, on_disk, log, make, classes=classes)


def _read_coco(file: Path) -> dict[str, list[dict[str, Any]]]:
    """Read a COCO file and check its outline: lists of objects that have what is needed to tell them apart."""
    try:
        content = json.loads(_read_text(file, "COCO annotations"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not JSON ({error}): give COCO annotations") from error
    for key, needed in (
        ("images", ("id", "file_name")),
        ("annotations", ("image_id", "category_id", "bbox")),
        ("categories", ("id",)),
    ):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise UserError(f"{file}: no list `{key}`: give COCO annotations")
        for i, entry in enumerate(entries):
            lacks = [name for name in needed if name not in entry] if isinstance(entry, dict) else list(needed)
            if lacks or (key != "annotations" and not isinstance(entry["id"], int)):
                raise UserError(f"{file}: {key}[{i}] needs {', '.join(needed)}, ids being whole numbers: correct it")
    return content


def _reference(annotation: Mapping[str, Any], key: str, known: Mapping[int, object]) -> int:
    value = annotation[key]
    if not isinstance(value, int) or value not in known:
        raise ValueError(f"{key} `{value}` is not listed")
    return value


def _centre(annotation: Mapping[str, Any], number: Mapping[int, int]) -> Row:
    label = number[_reference(annotation, "category_id", number)]
    box = annotation["bbox"]
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError(f"bbox `{box}` is not [x, y, width, height]")
    x, y, width, height = (_number(value, "bbox") for value in box)
    if width < 0 or height < 0:
        raise ValueError(f"bbox `{box}` has a negative size")
    return Row(x + width / 2, y + height / 2, label, bool(annotation.get("iscrowd", 0)))


def image_folder(paths: str | Path | Sequence[str | Path]) -> Frames:
    """Open images of which nothing is known (``points`` is None): a folder, a file, a pattern (``a/*.png``), several.

    Frames are sorted and named by file name, or by their whole path where two files share a name. Raises ``UserError``
    where a path leads nowhere or nothing is found.
    """
    given = [paths] if isinstance(paths, (str, Path)) else list(paths)
    found = sorted({image for path in given for image in _expand(Path(path))})
    if not found:
        raise UserError(
            f"{', '.join(map(str, given)) or 'no path'}: no images there: give a folder, files or a pattern"
        )
    shared = Counter(path.name for path in found)
    names = [path.name if shared[path.name] == 1 else path.as_posix() for path in found]
    return Frames(tuple(Frame(name, path, i + 1) for i, (name, path) in enumerate(zip(names, found, strict=True))))


def _expand(path: Path) -> list[Path]:
    if path.is_dir():
        return _images_in(path)
    if path.exists():
        return [path]
    if not glob.has_magic(str(path)):
        raise UserError(f"{path}: no such file or folder: correct the path")
    return [
        Path(match) for match in glob.glob(str(path), recursive=True) if Path(match).suffix.lower() in IMAGE_SUFFIXES
    ]


Kind = Literal["auto", "sirst", "csv", "coco", "images"]


def open_points(
    root: str | Path, split: str | Path | None = None, *, kind: Kind = "auto", audit: bool = False
) -> Frames:
    """Open a data set by its layout, or by the ``kind`` given.

    ``auto`` takes the first that fits: folders ``images`` and ``masks`` (:func:`sirst`), a ``*.csv``
    (:func:`csv_points`), a COCO ``*.json`` here or in ``annotations`` (:func:`coco_points`); ``root`` may be the table
    or the JSON itself. Their images lie in the folder ``images``, or beside them. Where several tables lie side by
    side, ``split`` names one (``train`` for ``train.json`` or ``instances_train.json``); else it is a list of frames.
    Raises ``UserError`` that says what was looked for.
    """
    root = Path(root)
    if not root.exists():
        raise UserError(f"{root}: no such data set: correct the path")
    kind = _recognised(root) if kind == "auto" else kind
    if kind == "sirst":
        return sirst(root, split, audit=audit)
    if kind == "images":
        return image_folder(root)
    if kind not in ("csv", "coco"):
        raise UserError(f"kind `{kind}` of data set{did_you_mean(kind, _KINDS)}: use {', '.join(_KINDS)}")
    table, listed = _table_of(root, "*.csv" if kind == "csv" else "*.json", split)
    images = next((p / "images" for p in (table.parent, table.parent.parent) if (p / "images").is_dir()), table.parent)
    read = csv_points if kind == "csv" else coco_points
    return read(table, images, split=listed, audit=audit)


_KINDS = ("auto", "sirst", "csv", "coco", "images")


def _recognised(root: Path) -> Kind:
    if (root / "images").is_dir() and (root / "masks").is_dir():
        return "sirst"
    if _tables(root, "*.csv"):
        return "csv"
    if _tables(root, "*.json"):
        return "coco"
    looked = "folders images and masks, a *.csv, a COCO *.json (also in annotations)"
    raise UserError(f"{root}: not a data set of points: looked for {looked}; give data of that form, or its `kind`")


def _tables(root: Path, pattern: str) -> list[Path]:
    if root.is_file():
        return [root] if root.match(pattern) else []
    return sorted((*root.glob(pattern), *(root / "annotations").glob(pattern)))


def _table_of(root: Path, pattern: str, split: str | Path | None) -> tuple[Path, str | Path | None]:
    """Choose the table of a data set: ``(table, split that is left to be looked up)``."""
    tables = _tables(root, pattern)
    named = [
        t for t in tables if split is not None and str(split) in (t.name, t.stem, t.stem.removeprefix("instances_"))
    ]
    if named:
        return named[0], None
    if len(tables) == 1:
        return tables[0], split
    there = ", ".join(table.name for table in tables) or "none"
    raise UserError(
        f"{root}: which {pattern} is meant is not clear (there are {there}): name one as the split or the path"
    )
