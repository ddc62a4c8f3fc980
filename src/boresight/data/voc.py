"""Boxes in PASCAL VOC folders: one XML file an image."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from xml.parsers import expat

from boresight.core.errors import UserError
from boresight.core.files import read_bytes
from boresight.data.box_frames import Box, BoxFrame, BoxFrames, unique_classes, unknown_split
from boresight.data.image import DataError, Problem
from boresight.data.image_files import images_in
from boresight.data.lists import Known, Log, read_split, stem_of

LARGEST_XML = 2**26
"""Bytes of one annotation file."""
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def voc_boxes(root: str | Path, split: str | None = None, *, audit: bool = False) -> BoxFrames:
    """Open a VOC folder: ``Annotations/*.xml``, ``JPEGImages``, lists of stems in ``ImageSets/Main/<split>.txt``.

    Without such folders ``root/<split>`` holds XML files beside their images. VOC counts pixels from 1 and includes
    the last one, so that a box is ``(xmin - 1, ymin - 1, xmax, ymax)`` in the pixel frame. ``difficult`` becomes
    ``ignore``. Classes are those of ``labels.txt``, one a line, where there is one, else all names of the data set, of
    whatever split, in order of the alphabet. ``split`` None takes every image. Raises ``UserError`` for a missing
    folder or list, for a list without images and for an entry that leads out of the folder; with ``audit`` the last two
    are kept in ``listing`` instead.
    """
    root, log = Path(root), Log(audit)
    notes, pictures = _folders(root, split)
    files = {path.relative_to(notes).with_suffix("").as_posix(): path for path in sorted(notes.rglob("*.xml"))}
    listed = _listed(root, split, files, log)
    read = {stem: _read(files[stem]) for stem in listed if stem in files}
    known = _images(pictures, listed)
    classes = _classes(root, read.values(), set(root.rglob("*.xml")) - {files[stem] for stem in read})
    number = {name: i for i, name in enumerate(classes)}
    frames: list[BoxFrame] = []
    for stem in listed:
        image, file = known.find(stem) or pictures / f"{stem}.jpg", files.get(stem, notes / f"{stem}.xml")
        objects, size, faults = read.get(stem) or _no_label(file)
        boxes: list[Box] = []
        for label, xyxy, ignore, where in objects:
            if label in number:
                boxes.append(Box(xyxy, number[label], ignore, where))
            else:
                detail = f"{where}: `{label}` is not in labels.txt"
                faults.append(Problem("unknown_category", "error", str(file), detail, "add it there"))
        name = image.relative_to(pictures).as_posix()
        problems = tuple(replace(problem, name=name) for problem in faults)
        frames.append(BoxFrame(name, image, len(frames) + 1, tuple(boxes), str(file), size, problems=problems))
    unused = frozenset(known.files.values()) - {frame.image for frame in frames}
    return BoxFrames(tuple(frames), classes, tuple(log.problems), unused)


def voc_splits(root: Path) -> list[str]:
    """The lists of a VOC folder."""
    return sorted(path.stem for path in (root / "ImageSets" / "Main").glob("*.txt"))


def _folders(root: Path, split: str | None) -> tuple[Path, Path]:
    """The folders of XML files and of images."""
    if (root / "Annotations").is_dir():
        return root / "Annotations", root / "JPEGImages"
    beside = root / split if split and (root / split).is_dir() else root
    if not any(beside.glob("*.xml")):
        raise UserError(f"{root}: no folder Annotations, no XML files in {beside}: give a VOC data set")
    return beside, beside


def _listed(root: Path, split: str | None, files: Iterable[str], log: Log) -> list[str]:
    """The stems of a split, each once."""
    if split is None or not (root / "Annotations").is_dir():
        return sorted(files)
    table = root / "ImageSets" / "Main" / f"{split}.txt"
    if not table.is_file():
        raise unknown_split(root, split, voc_splits(root))
    stems: dict[str, None] = {}
    known = set(files)
    for line in read_split(table):
        entry = line.split()[0]  # the lists of a single class have a second column
        if not log.safe(entry, table):
            continue
        path = PurePosixPath(entry).as_posix()  # `./a` is `a`
        stem = path if path in known else stem_of(path)  # and `a.jpg`, where a stem was asked for
        if stem in stems:
            log.note("duplicate_entry", table, f"`{stem}` stands there twice", "remove one of the entries")
        else:
            stems[stem] = None
    if not stems:
        log.refuse("empty_split", table, "names no images", "list the images that belong to it")
    return list(stems)


def _images(pictures: Path, stems: Iterable[str]) -> Known:
    """The images of a folder, and of the folders in it that stems name."""
    folders = {pictures} | {(pictures / stem).parent for stem in stems}
    found = [image for folder in folders if folder.is_dir() for image in images_in(folder)]
    return Known({image.relative_to(pictures).as_posix(): image for image in found})


_Object = tuple[str, tuple[float, float, float, float], bool, str]
_File = tuple[list[_Object], tuple[int, int] | None, list[Problem]]


def _classes(root: Path, read: Iterable[_File], others: Iterable[Path]) -> tuple[str, ...]:
    """The classes: listed, or gathered from the files read and the ``others`` (whose faults their own split tells)."""
    if (root / "labels.txt").is_file():
        return unique_classes(read_split(root / "labels.txt"), root / "labels.txt")
    parsed = (*read, *(_read(file) for file in others))
    if names := sorted({entry[0] for objects, _, _ in parsed for entry in objects}):
        return tuple(names)
    raise UserError(f"{root}: no XML file names an object: give VOC annotations")


def _no_label(file: Path) -> _File:
    """What stands for a file that is not there: VOC has one for an image without objects, too."""
    return (
        [],
        None,
        [Problem("missing_label", "error", str(file), "no such annotation file", "add it, without objects")],
    )


def _read(file: Path) -> _File:
    """The objects of a file (name, corners in the pixel frame, difficult, place), the stated size, and the faults."""
    try:
        tree = _parsed(file)
    except DataError as error:
        return [], None, [error.problem]
    objects: list[_Object] = []
    faults: list[Problem] = []
    for i, entry in enumerate(tree.iter("object"), start=1):
        try:
            objects.append(_object(entry, f"object {i}"))
        except ValueError as error:
            faults.append(Problem("bad_row", "error", str(file), f"object {i}: {error}", "correct the object"))
    try:
        width, height = (int(float(tree.findtext(f"size/{side}") or 0)) for side in ("width", "height"))
    except (ValueError, OverflowError) as error:
        faults.append(Problem("bad_row", "error", str(file), f"size: {error}", "correct the size"))
        width = height = 0
    return objects, (width, height) if width > 0 and height > 0 else None, faults


def _object(entry: ET.Element, where: str) -> _Object:
    name = (entry.findtext("name") or "").strip()
    if not name:
        raise ValueError("has no name")
    texts = [entry.findtext(f"bndbox/{corner}") for corner in _CORNERS]
    try:
        x1, y1, x2, y2 = (float(text or "") for text in texts)
    except ValueError:
        raise ValueError(f"bndbox {texts} is not four numbers ({', '.join(_CORNERS)})") from None
    difficult = (entry.findtext("difficult") or "0").strip()
    if difficult not in ("0", "1"):
        raise ValueError(f"difficult `{difficult}` is neither 0 nor 1")
    return name, (x1 - 1, y1 - 1, x2, y2), difficult == "1", where


def _parsed(file: Path) -> ET.Element:
    """Parse a file. A DOCTYPE is refused unread: its entities may grow without bound or name other files."""

    def refuse(*_: object) -> None:
        raise DataError(Problem("bad_label", "error", str(file), "has a DOCTYPE", "remove it: VOC files need none"))

    try:
        content = read_bytes(file, "VOC annotations", largest=LARGEST_XML)
        outline = expat.ParserCreate()
        outline.StartDoctypeDeclHandler = refuse
        outline.Parse(content, True)
        return ET.fromstring(content)
    except DataError:
        raise
    except UserError as error:
        detail = str(error).removeprefix(f"{file}: ")
        raise DataError(Problem("bad_label", "error", str(file), detail, "write it anew")) from error
    except (expat.ExpatError, ET.ParseError, ValueError, LookupError) as error:
        detail = f"is not XML that can be read ({error})"
        raise DataError(Problem("bad_label", "error", str(file), detail, "write it anew")) from error
