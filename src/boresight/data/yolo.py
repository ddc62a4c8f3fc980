"""Boxes in YOLO folders as Ultralytics lays them out: a ``data.yaml``, and one text file an image."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boresight.core.errors import UserError
from boresight.core.files import read_text, read_yaml
from boresight.data.box_frames import Box, BoxFrame, BoxFrames, unique_classes, unknown_split
from boresight.data.image import IMAGE_SUFFIXES, Problem
from boresight.data.lists import Log, nameable, read_split

SPLITS = ("train", "val", "test")
_ROOM = f"{os.sep}images{os.sep}"


@dataclass(frozen=True)
class YoloHeader:
    """What a ``data.yaml`` says: the ``file`` itself, the folder that its paths start from, classes, places a split."""

    file: Path
    base: Path
    classes: tuple[str, ...]
    splits: Mapping[str, tuple[str, ...]]


def yolo_boxes(root: str | Path, split: str | None = None, *, audit: bool = False) -> BoxFrames:
    """Open a YOLO data set: its folder, or its YAML file (:func:`yolo_header`).

    A split is a folder of images (searched with all its folders), a text file of image paths, or a list of these.
    The labels of ``images/a.jpg`` lie in ``labels/a.txt`` (beside the image where no folder is called ``images``):
    lines of ``class cx cy width height`` in shares of the image, or polygons ``class x1 y1 x2 y2 ...``, which become
    their box.
    An image without a label file is one without objects; the audit counts them. A line that cannot be understood and
    a class out of range are problems of the image that name file and line. ``split`` None takes the only split there
    is. Raises ``UserError`` for a YAML file that lacks something, for a missing folder or list, and for a split without
    images or with entries that lead out of the data set; with ``audit`` the last two are kept in ``listing`` instead.
    """
    header, log = yolo_header(Path(root)), Log(audit)
    only = next(iter(header.splits)) if len(header.splits) == 1 else ""
    split = only if split is None else {"valid": "val", "validation": "val"}.get(split, split)
    if split not in header.splits:
        raise unknown_split(header.file, split, header.splits)
    images = [pair for place in header.splits[split] for pair in _images(header, place, split, log)]
    if not images:
        log.refuse("empty_split", header.file, f"`{split}` names no images", "name a folder that holds some")
    shared = Counter(name for name, _ in images)
    frames: dict[Path, BoxFrame] = {}
    for name, image in images:
        if image in frames:
            log.note("duplicate_entry", header.file, f"`{split}` names {image} twice", "remove one of the entries")
            continue
        name = name if shared[name] == 1 else Path(os.path.relpath(image, header.base)).as_posix()
        boxes, file, problems = _labels(image, len(header.classes), name)
        frames[image] = BoxFrame(
            name, image, len(frames) + 1, boxes, str(file), relative=True, problems=tuple(problems)
        )
    return BoxFrames(tuple(frames.values()), header.classes, tuple(log.problems))


def yolo_file(root: Path) -> Path | None:
    """The YAML file of a data set, if it has one: ``root`` itself, ``data.yaml``, or the only one there."""
    if root.is_file():
        return root if root.suffix.lower() in (".yaml", ".yml") else None
    there = sorted((*root.glob("*.yaml"), *root.glob("*.yml")))
    usual = [path for path in there if path.stem in ("data", "dataset")]
    return usual[0] if usual else there[0] if len(there) == 1 else None


def yolo_header(root: Path) -> YoloHeader:
    """Read the YAML file of a data set. Raises ``UserError`` that names the key which is missing or makes no sense.

    Of a data set that is given as a folder, every path must stay inside of it. Who gives the YAML file itself vouches
    for what it says, as for any file of settings: its ``path`` and its splits may then lie anywhere.
    """
    file = yolo_file(root)
    if file is None:
        raise UserError(f"{root}: no data.yaml: give the folder of a YOLO data set, or its YAML file")
    content = read_yaml(file, "a YOLO data.yaml")
    if not isinstance(content, dict):
        raise UserError(f"{file}: not a mapping of keys: give a YOLO data.yaml")
    classes = _classes(content.get("names"), file)
    if content.get("nc", len(classes)) != len(classes):
        raise UserError(f"{file}: `nc` is {content['nc']}, but `names` has {len(classes)}: correct one of them")
    given = str(content.get("path") or "")
    base = file.parent / given
    if not nameable(given) or not base.is_dir():
        raise UserError(
            f"{file}: `path` {given} is no folder: correct it, or leave it out to mean the folder of the file"
        )
    splits = {key: _places(content[key], key, file) for key in SPLITS if content.get(key)}
    if not splits:
        raise UserError(f"{file}: none of {', '.join(SPLITS)}: name the folders of images")
    if not root.is_file():
        named = [(split, _found(base, place)) for split, places in splits.items() for place in places]
        for key, path in (("path", base), *named):
            if path is not None and not _inside(path, root):
                raise UserError(f"{file}: `{key}` leads out of {root}: give the file itself if that is meant")
    return YoloHeader(file, base, classes, splits)


def _inside(path: Path, folder: Path) -> bool:
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))


def _found(base: Path, place: str) -> Path | None:
    """Where the images of a split lie, or their list; None where there is nothing."""
    # Roboflow writes `../train/images` for the folder `train` beside the file, and Ultralytics looks there as well
    tries = [base / place, base / place.removeprefix("../")]
    return next((path for path in tries if nameable(place) and path.exists()), None)


def _classes(names: Any, file: Path) -> tuple[str, ...]:
    """The names of the classes, from a list or from a mapping of their numbers."""
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise UserError(f"{file}: `names` must number the classes 0 to {len(names) - 1}: correct the numbers")
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{file}: `names` must be a list of class names, or a mapping from 0 up: add it")
    return unique_classes([str(name) for name in names], file)


def _places(value: Any, key: str, file: Path) -> tuple[str, ...]:
    places = value if isinstance(value, list) else [value]
    if wrong := [place for place in places if not isinstance(place, str)]:
        raise UserError(f"{file}: `{key}` must be a path or a list of paths, not {wrong[0]}: correct it")
    return tuple(places)


def _images(header: YoloHeader, place: str, split: str, log: Log) -> list[tuple[str, Path]]:
    """The images of one place: ``(name, file)``, sorted for a folder, in order for a list."""
    found = _found(header.base, place)
    if found is None:
        raise UserError(f"{header.file}: `{split}`: no such folder or list {header.base / place}: correct the path")
    found = Path(os.path.abspath(found))
    if found.is_dir():
        images = sorted(p for p in found.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
        return [(path.relative_to(found).as_posix(), path) for path in images]
    listed = []
    for entry in read_split(found):
        # relative entries start from the list, or from the base of the data set; both must stay inside
        path = Path(os.path.abspath((found.parent if entry.startswith("./") else header.base) / entry))
        if not nameable(entry) or not any(_inside(path, folder) for folder in (header.base, found.parent)):
            log.refuse("bad_entry", found, f"entry `{entry}` leads out of the data set", "name files inside of it")
        else:
            inside = str(path).rpartition(_ROOM)[2] if _ROOM in str(path) else path.name
            listed.append((Path(inside).as_posix(), path))
    return listed


def _labels(image: Path, classes: int, name: str) -> tuple[tuple[Box, ...], Path, list[Problem]]:
    """The boxes of an image, their file and what is wrong with it."""
    before, room, after = str(image).rpartition(_ROOM)
    file = Path(f"{before}{os.sep}labels{os.sep}{after}" if room else image).with_suffix(".txt")
    if not file.is_file():
        detail = f"no label file for `{name}`, which counts as an image without objects"
        return (
            (),
            file,
            [Problem("missing_label", "info", str(file), detail, "nothing to do if that is meant", name=name)],
        )
    boxes: list[Box] = []
    problems: list[Problem] = []
    for number, line in enumerate(read_text(file, "YOLO labels").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            boxes.append(_box(line.split(), f"line {number}"))
        except ValueError as error:
            detail = f"line {number}: {error}"
            problems.append(Problem("bad_row", "error", str(file), detail, "correct the line", name=name))
    return tuple(boxes), file, problems


def _box(words: list[str], where: str) -> Box:
    """One line: a box, or the box of a polygon. Raises ``ValueError`` for what is neither."""
    try:
        label, *values = map(float, words)
    except ValueError:
        raise ValueError(f"`{' '.join(words)}` is not numbers") from None
    if not label.is_integer():
        raise ValueError(f"class {words[0]} is not a whole number")
    if len(values) == 4:
        x, y, width, height = values
        return Box((x - width / 2, y - height / 2, x + width / 2, y + height / 2), int(label), where=where)
    if len(values) < 6 or len(values) % 2:
        raise ValueError(f"{len(words)} columns are neither `class cx cy width height` nor a polygon of x, y")
    return Box((min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])), int(label), where=where)
