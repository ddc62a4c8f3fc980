"""Boxes in COCO JSON files, and where such files and their images lie.

Own parsing, as in :mod:`~boresight.data.voc` and :mod:`~boresight.data.yolo`: the readers of `supervision` keep no
image ids, no exhaustive classes and no VOC ``difficult``, and stop at the first fault without naming it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

from boresight.core.errors import UserError
from boresight.core.files import read_json
from boresight.data.box_frames import Box, BoxFrame, BoxFrames, unique_classes
from boresight.data.image import Problem
from boresight.data.image_files import images_in
from boresight.data.lists import Known, Log, find_split, select

_GROUP_KEYS = ("group", "video_id", "scene_group", "source_photo", "parent")
_ROBOFLOW = "_annotations.coco.json"


def coco_boxes(
    table: str | Path, folders: Sequence[str | Path], *, split: str | Path | None = None, audit: bool = False
) -> BoxFrames:
    """Open a COCO file whose images lie in ``folders`` (the first that has an image wins).

    Categories become classes in order of their ids, which may be any whole numbers. ``iscrowd`` becomes ``ignore``. A
    category of an image is exhaustive as ``exhaustive_category_ids`` of the image says, or by the rule of LVIS
    (``neg_category_ids``, ``not_exhaustive_category_ids``); without these keys every class is. An annotation without
    ``bbox`` takes the box of its polygons. Images keep their id and are named by ``file_name``; those that share a
    ``group``, ``video_id``, ``scene_group``, ``source_photo`` or ``parent`` form a group. ``split`` is a list of names.

    Raises ``UserError`` for a file of another form. What is wrong with one image is a problem of that image; what
    belongs to no image (an annotation of an unknown image, an image listed twice) is raised, or kept in ``listing``
    with ``audit``.
    """
    file, places, log = Path(table), [Path(folder) for folder in folders], Log(audit)
    content = _read(file)
    number, classes = _numbered(content["categories"], file)
    entries = _entries(content["images"], file, log)
    rows, faults = _rows(content["annotations"], entries, number, file, log)
    paths = {name: _place(name, places) for name in (_name(entry) for entry in entries.values())}
    chosen = _chosen(paths, file, split, log)
    frames = []
    for image_id, entry in entries.items():
        name = _name(entry)
        if name not in chosen:
            continue
        exhaustive, unknown = _exhaustive(entry, number, {row.label for row in rows[image_id]})
        faults[image_id] += [("unknown_category", f"image {image_id}: {text}", "list the category") for text in unknown]
        problems = tuple(Problem(k, "error", str(file), d, remedy, name=name) for k, d, remedy in faults[image_id])
        group = next((f"{key} {entry[key]}" for key in _GROUP_KEYS if entry.get(key) not in (None, "")), "")
        frame = BoxFrame(name, paths[name], image_id, tuple(rows[image_id]), str(file), _size(entry))
        frames.append(replace(frame, exhaustive=exhaustive, group=group, problems=problems))
    used, there = {frame.image for frame in frames}, {path.parent for path in paths.values()}
    beside = {image for folder in there if folder.is_dir() for image in images_in(folder)}
    return BoxFrames(tuple(frames), classes, tuple(log.problems), frozenset(beside - used))


def coco_tables(root: Path) -> dict[str, Path]:
    """The COCO files of a data set by split: ``[annotations/][instances_]train.json``, and Roboflow's folders."""
    if root.is_file():
        return {root.stem.removeprefix("instances_"): root} if root.suffix.lower() == ".json" else {}
    found = {path.parent.name: path for path in sorted(root.glob(f"*/{_ROBOFLOW}"))}
    for folder in (root / "annotations", root):
        plain = {path for path in folder.glob("*.json") if path.name != _ROBOFLOW}
        found |= {path.stem.removeprefix("instances_"): path for path in sorted(plain)}
    return found | ({"": root / _ROBOFLOW} if (root / _ROBOFLOW).is_file() else {})


def image_folders(table: Path, split: str) -> list[Path]:
    """Where the images of a COCO file may lie, the most particular place first."""
    if table.name == _ROBOFLOW:
        return [table.parent]
    root = table.parent.parent if table.parent.name == "annotations" else table.parent
    places = (root / "images" / split, root / split, root / "images", root, table.parent)
    return [place for i, place in enumerate(places) if place.is_dir() and place not in places[:i]]


def _read(file: Path) -> dict[str, list[dict[str, Any]]]:
    """Read a COCO file and check its outline."""
    content = read_json(file, "COCO annotations")
    for key in ("images", "annotations", "categories"):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise UserError(f"{file}: no list `{key}`: give COCO annotations")
        for i, entry in enumerate(entries):
            if not isinstance(entry, dict) or (key != "annotations" and not _is_id(entry.get("id"))):
                raise UserError(f"{file}: {key}[{i}] must be an object with a whole number `id`: correct it")
            if key == "images" and not (entry.get("file_name") or entry.get("coco_url")):
                raise UserError(f"{file}: image {entry['id']} has no `file_name`: name its file")
            if key == "images" and not all(_is_side(entry.get(side, 0)) for side in ("width", "height")):
                raise UserError(f"{file}: width and height of image {entry['id']} must be whole numbers: correct them")
    return content


def _is_id(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_side(value: object) -> bool:
    return _is_id(value) and 0 <= value < 2**31


def _numbered(categories: list[dict[str, Any]], file: Path) -> tuple[dict[int, int], tuple[str, ...]]:
    """Class of every category id, and the names of the classes."""
    ordered = sorted(categories, key=lambda category: category["id"])
    if twice := [i for i, n in Counter(category["id"] for category in ordered).items() if n > 1]:
        raise UserError(f"{file}: category {twice[0]} is listed twice: remove one")
    if not ordered:
        raise UserError(f"{file}: lists no categories: name what the boxes show")
    names = [str(category.get("name", category["id"])) for category in ordered]
    return {category["id"]: i for i, category in enumerate(ordered)}, unique_classes(names, file)


def _name(entry: Mapping[str, Any]) -> str:
    """The file of an image; LVIS gives only its address, whose last parts are those of the COCO folders."""
    return str(entry.get("file_name") or "/".join(str(entry["coco_url"]).split("/")[-2:]))


def _entries(images: list[dict[str, Any]], file: Path, log: Log) -> dict[int, dict[str, Any]]:
    """The images by id, without those that are listed twice or lead out of the folder."""
    kept: dict[int, dict[str, Any]] = {}
    names: set[str] = set()
    for entry in images:
        name = _name(entry)
        if not log.safe(name, file):
            continue
        if name in names or entry["id"] in kept:
            log.refuse("duplicate_entry", file, f"lists image {entry['id']} (`{name}`) twice", "remove one")
            continue
        names.add(name)
        kept[entry["id"]] = entry
    return kept


_Fault = tuple[str, str, str]  # kind, detail, remedy


def _rows(
    annotations: list[dict[str, Any]], entries: Mapping[int, object], number: Mapping[int, int], file: Path, log: Log
) -> tuple[dict[int, list[Box]], dict[int, list[_Fault]]]:
    """The boxes and the faulty annotations of every image."""
    rows: dict[int, list[Box]] = defaultdict(list)
    faults: dict[int, list[_Fault]] = defaultdict(list)
    for i, annotation in enumerate(annotations):
        where = f"annotation {annotation['id']}" if "id" in annotation else f"annotations[{i}]"
        image_id, category = annotation.get("image_id"), annotation.get("category_id")
        if not _is_id(image_id) or image_id not in entries:
            detail = f"{where}: image {image_id} is not listed"
            log.refuse("unknown_image", file, detail, "list the image or remove the annotation")
        elif not _is_id(category) or category not in number:
            remedy = "list the category or correct the annotation"
            faults[image_id].append(("unknown_category", f"{where}: category {category} is not listed", remedy))
        else:
            try:
                box = Box(_corners(annotation), number[category], _flag(annotation), where)
            except ValueError as error:
                faults[image_id].append(("bad_row", f"{where}: {error}", "correct the annotation"))
            else:
                rows[image_id].append(box)
    twice = [i for i, n in Counter(a["id"] for a in annotations if _is_id(a.get("id"))).items() if n > 1]
    if twice:
        detail = f"{len(twice)} annotation ids stand there more than once, first {twice[0]}"
        log.note("duplicate_entry", file, detail, "number the annotations anew", "warning")
    return rows, faults


def _corners(annotation: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """The box of an annotation, or that of its polygons. Raises ``ValueError`` that says why there is none."""
    box = annotation.get("bbox")
    if box is None:
        polygons = annotation.get("segmentation")
        if not isinstance(polygons, list) or not polygons:
            raise ValueError("neither a bbox nor polygons")
        values = _numbers([v for polygon in polygons for v in polygon] if isinstance(polygons[0], list) else polygons)
        if len(values) < 6 or len(values) % 2:
            raise ValueError("no bbox, and polygons that are no list of x, y")
        return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError(f"bbox `{box}` is not [x, y, width, height]")
    x, y, width, height = _numbers(box)
    return x, y, x + width, y + height


def _numbers(values: list[Any]) -> list[float]:
    """Floats; ValueError for what is none or cannot be one. NaN and infinity are numbers here, and judged later."""
    if wrong := [v for v in values if not isinstance(v, (int, float)) or isinstance(v, bool)]:
        raise ValueError(f"`{wrong[0]}` is not a number")
    try:
        return [float(v) for v in values]
    except OverflowError:
        raise ValueError("a number is beyond all that can be computed with") from None


def _flag(annotation: Mapping[str, Any]) -> bool:
    value = annotation.get("iscrowd", 0)
    if value not in (0, 1):
        raise ValueError(f"iscrowd `{value}` is neither 0 nor 1")
    return bool(value)


def _exhaustive(
    entry: Mapping[str, Any], number: Mapping[int, int], present: set[int]
) -> tuple[tuple[bool, ...] | None, list[str]]:
    """For each class whether the image is labelled exhaustively (None: all are), and what makes no sense about it."""
    wrong: list[str] = []

    def classes(key: str) -> Iterator[int]:
        given = entry.get(key)
        for category in given if isinstance(given, list) else []:
            if _is_id(category) and category in number:
                yield number[category]
            else:
                wrong.append(f"`{key}` names category {category}, which is not listed")
        if given is not None and not isinstance(given, list):
            wrong.append(f"`{key}` is no list of categories")

    if "exhaustive_category_ids" in entry:
        known = set(classes("exhaustive_category_ids"))
    elif "neg_category_ids" in entry or "not_exhaustive_category_ids" in entry:
        # LVIS: looked for and absent, or present and not marked as incomplete
        known = set(classes("neg_category_ids")) | (present - set(classes("not_exhaustive_category_ids")))
    else:
        return None, wrong
    return tuple(i in known for i in range(len(number))), wrong


def _size(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = entry.get("width"), entry.get("height")
    return (width, height) if width and height else None


def _place(name: str, folders: Sequence[Path]) -> Path:
    """The file of an image: in the first folder that has it (in the first folder, to be missed there, if none has)."""
    return next((folder / name for folder in folders if (folder / name).is_file()), folders[0] / name)


def _chosen(paths: Mapping[str, Path], file: Path, split: str | Path | None, log: Log) -> set[str]:
    """The names of the images that a list of names keeps (None: all)."""
    if split is None:
        if not paths:
            log.refuse("empty_split", file, "lists no images", "list the images that belong to it")
        return set(paths)
    listed = find_split(file.parent, split)
    name_of = {Path(name): name for name in paths}
    found = select(Known({name: path for path, name in name_of.items()}), Path(), listed, log)
    for path in (path for path in found if path not in name_of):
        log.refuse("bad_entry", listed, f"names `{path}`, which {file.name} does not list", "correct the entry")
    return {name_of[path] for path in found if path in name_of}
