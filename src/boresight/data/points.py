"""Data sets of point truth, opened: SIRST folders, images of which nothing is known, and whatever lies in a folder.

Every reader returns :class:`~boresight.data.frames.Frames`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from boresight.core.errors import UserError, did_you_mean
from boresight.data.frames import Frame, Frames
from boresight.data.image_files import image_files, images_in
from boresight.data.lists import Known, Log, find_split, gathered, select, stem_of
from boresight.data.tables import coco_points, csv_points


def sirst(
    root: str | Path,
    split: str | Path | None = None,
    *,
    images: str = "images",
    masks: str = "masks",
    audit: bool = False,
) -> Frames:
    """Open a SIRST-style folder: an image and a binary mask of the same stem (or ``<stem>_pixels0``) for every frame.

    ``split`` is a list of stems (:func:`~boresight.data.lists.find_split`), None takes every image. Frames are named by
    their stem; their points are those of :func:`~boresight.data.frames.mask_points`. Raises ``UserError`` for a missing
    folder or list, for an entry that leads out of the folder and for a list without frames; with ``audit`` the last two
    are kept in ``listing`` instead.
    """
    root, log = Path(root), Log(audit)
    folder = root / images
    known = Known({path.name: path for path in images_in(folder)})
    mask_files = {stem_of(path.name).removesuffix("_pixels0"): path for path in images_in(root / masks)}
    paths = select(known, folder, None if split is None else find_split(root, split), log)
    for stem in sorted(mask_files.keys() - known.stems.keys()):
        log.note(
            "unknown_file", mask_files[stem], "a mask without an image", "add the image or remove the mask", "warning"
        )

    def make(name: str, path: Path, number: int) -> Frame:
        stem = stem_of(name)
        return Frame(stem, path, number, mask=mask_files.get(stem, root / masks / f"{stem}.png"))

    return gathered(paths, folder, known, log, make)


def image_folder(paths: str | Path | Sequence[str | Path]) -> Frames:
    """Open images of which nothing is known (``points`` is None): a folder, a file, a pattern (``a/*.png``), several.

    Frames are sorted and named by file name, or by their whole path where two files share a name. Raises ``UserError``
    where a path leads nowhere or nothing is found.
    """
    files = image_files(paths)
    return Frames(tuple(Frame(name, path, i + 1) for i, (name, path) in enumerate(files)))


Kind = Literal["auto", "sirst", "csv", "coco", "images"]


def open_points(
    root: str | Path, split: str | Path | None = None, *, kind: Kind = "auto", audit: bool = False
) -> Frames:
    """Open a data set by its layout, or by the ``kind`` given.

    ``auto`` takes the first that fits: folders ``images`` and ``masks`` (:func:`sirst`), a ``*.csv``
    (:func:`~boresight.data.tables.csv_points`), a COCO ``*.json`` here or in ``annotations``
    (:func:`~boresight.data.tables.coco_points`); ``root`` may be the table or the JSON itself. Their images lie in the
    folder ``images``, or beside them. Where several tables lie side by side, ``split`` names one (``train`` for
    ``train.json`` or ``instances_train.json``); else it is a list of frames. Raises ``UserError`` that says what was
    looked for.
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
