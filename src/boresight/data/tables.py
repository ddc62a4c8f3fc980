"""Point truth in one table for many frames: CSV rows, and COCO boxes as their centres."""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boresight.core.errors import UserError, did_you_mean
from boresight.core.files import read_json, read_text
from boresight.data.coco import _flag, _is_id
from boresight.data.frames import Frame, Frames, Row
from boresight.data.image_files import images_in
from boresight.data.lists import Known, Log, find_split, gathered, select

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
    Raises ``UserError`` for a missing file, folder or column, for an entry that leads out of the folder, for a split
    without frames and for a row that cannot be understood (its line is named); with ``audit`` the last three are kept
    in ``listing`` instead.
    """
    table, folder, log = Path(table), Path(images), Log(audit)
    rows, videos, classes = _read_table(table, columns or {}, log)
    listed = {folder / name for name in rows}
    beside = [
        path
        for place in sorted({folder} | {path.parent for path in listed})
        if place.is_dir() or place == folder
        for path in images_in(place)
    ]
    known = Known({path.relative_to(folder).as_posix(): path for path in beside})
    truth = {known.find(name) or folder / name: points for name, points in rows.items()}
    usable = Known(
        {path.relative_to(folder).as_posix(): path for path in (truth if only_listed else {*beside, *truth})}
    )
    groups: dict[str, list[Path]] = defaultdict(list)
    for name, video in videos.items():
        groups[video].append(known.find(name) or folder / name)
    video_of = {path: video for video, paths in groups.items() for path in paths}
    paths = select(usable, folder, None if split is None else find_split(table.parent, split), log, groups)

    def make(name: str, path: Path, number: int) -> Frame:
        return Frame(name, path, number, tuple(truth.get(path, ())), origin=str(table), group=video_of.get(path, ""))

    return gathered(paths, folder, known, log, make, classes=classes)


def _read_table(
    file: Path, columns: Mapping[str, str], log: Log
) -> tuple[dict[str, list[Row]], dict[str, str], tuple[str, ...]]:
    """Return the points of every image, the video of every image that has one, and the names of the classes."""
    reader = csv.DictReader(io.StringIO(read_text(file, "a table of points"), newline=""), skipinitialspace=True)
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
    number, classes = _numbered({label for _, label, row in given if row}, file)
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


LARGEST_CLASS = 99_999
"""Number of a class in a table: every number up to the largest one is a class."""


def _numbered(labels: set[str], file: Path) -> tuple[dict[str, int], tuple[str, ...]]:
    """Number the classes of a table: numbers stay, words are numbered in order of the alphabet, none is class 0."""
    if not labels - {""}:
        return {"": 0}, ("target",)
    if all(label.isdecimal() for label in labels):
        if large := [label for label in labels if len(label) > 9 or int(label) > LARGEST_CLASS]:
            raise UserError(f"{file}: class {large[0]} is above {LARGEST_CLASS}: number the classes from 0")
        numbers = {label: int(label) for label in labels}
        return numbers, tuple(str(i) for i in range(max(numbers.values()) + 1))
    return {label: i for i, label in enumerate(sorted(labels))}, tuple(sorted(labels))


def coco_points(
    annotations: str | Path, images: str | Path, *, split: str | Path | None = None, audit: bool = False
) -> Frames:
    """Open COCO boxes as points: their centres.

    Categories become classes from 0 in order of their id; ``iscrowd`` becomes ``ignore``. Frames keep their COCO id and
    are named by ``file_name``. ``split`` is a list of these names, with or without suffix. Raises ``UserError``
    for a missing file or folder and for a file of another form, for an image that leads out of the folder or is listed
    twice, for a split without frames and for an annotation that cannot be understood; with ``audit`` the last three are
    kept in ``listing`` instead.
    """
    file, folder, log = Path(annotations), Path(images), Log(audit)
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
    known = Known({path.relative_to(folder).as_posix(): path for path in ids})
    paths = select(known, folder, None if split is None else find_split(file.parent, split), log)

    def make(name: str, path: Path, number: int) -> Frame:
        image_id = ids.get(path, -number)
        return Frame(name, path, image_id, tuple(rows.get(image_id, ())), origin=str(file))

    classes = tuple(str(category.get("name", category["id"])) for category in categories)
    on_disk = Known({path.name: path for path in images_in(folder)})
    return gathered(paths, folder, on_disk, log, make, classes=classes)


def _read_coco(file: Path) -> dict[str, list[dict[str, Any]]]:
    """Read a COCO file and check its outline: lists of objects that have what is needed to tell them apart."""
    content = read_json(file, "COCO annotations")
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
            if lacks or (key != "annotations" and not _is_id(entry["id"])):
                raise UserError(f"{file}: {key}[{i}] needs {', '.join(needed)}, ids being whole numbers: correct it")
    return content


def _reference(annotation: Mapping[str, Any], key: str, known: Mapping[int, object]) -> int:
    value = annotation[key]
    if not _is_id(value) or value not in known:
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
    return Row(x + width / 2, y + height / 2, label, _flag(annotation))
