"""Data sets of boxes, opened by what lies in the folder: COCO, YOLO or PASCAL VOC."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from boresight.core.errors import UserError, did_you_mean
from boresight.data.box_frames import BoxFrames, unknown_split
from boresight.data.coco import coco_boxes, coco_tables, image_folders
from boresight.data.voc import voc_boxes
from boresight.data.yolo import yolo_boxes, yolo_file

Kind = Literal["auto", "coco", "voc", "yolo"]

_KINDS = ("auto", "coco", "voc", "yolo")
_ALIKE = ("val", "valid", "validation")


def open_boxes(
    root: str | Path, split: str | Path | None = None, *, kind: Kind = "auto", audit: bool = False
) -> BoxFrames:
    """Open a data set of boxes by its layout, or by the ``kind`` given.

    ``auto`` takes the first that fits:

    * COCO: ``<split>.json`` or ``instances_<split>.json``, here or in ``annotations``, or ``_annotations.coco.json`` in
      the folder of the split; images in ``images/<split>``, ``<split>``, ``images``, or beside the file. Where there is
      one file alone, ``split`` may also be a list of image names;
    * YOLO: a ``data.yaml``;
    * VOC: ``Annotations``, or XML files beside images.

    ``root`` may be the JSON or YAML file itself. ``val`` and ``valid`` are the same split. Raises ``UserError`` that
    says what was looked for; with ``audit`` faults of lists are kept in ``listing`` instead of raised.
    """
    root = Path(root)
    if not root.exists():
        raise UserError(f"{root}: no such data set: correct the path")
    kind = _recognised(root, split) if kind == "auto" else kind
    if kind == "coco":
        return _coco(root, split, audit=audit)
    if kind == "yolo":
        return yolo_boxes(root, None if split is None else str(split), audit=audit)
    if kind == "voc":
        return voc_boxes(root, None if split is None else str(split), audit=audit)
    raise UserError(f"kind `{kind}` of data set{did_you_mean(kind, _KINDS)}: use {', '.join(_KINDS)}")


def _recognised(root: Path, split: str | Path | None) -> Kind:
    if coco_tables(root):
        return "coco"
    if yolo_file(root):
        return "yolo"
    if (root / "Annotations").is_dir() or any(any(p.glob("*.xml")) for p in (root, root / str(split))):
        return "voc"
    looked = "a COCO *.json (also in annotations and in the folders of splits), a YOLO data.yaml, a VOC Annotations"
    raise UserError(f"{root}: not a data set of boxes: looked for {looked}; give data of that form, or its `kind`")


def _coco(root: Path, split: str | Path | None, *, audit: bool) -> BoxFrames:
    tables = coco_tables(root)
    named = [str(split), *(_ALIKE if str(split) in _ALIKE else ())]
    for name in named:
        if name in tables:
            return coco_boxes(tables[name], image_folders(tables[name], name), audit=audit)
    if len(tables) == 1:
        ((name, table),) = tables.items()
        return coco_boxes(table, image_folders(table, name), split=split, audit=audit)
    if not tables:
        raise UserError(f"{root}: no COCO *.json (also in annotations and in the folders of splits): correct the path")
    if split is None:
        raise UserError(f"{root}: which split is meant? There are {', '.join(sorted(tables))}: name one")
    raise unknown_split(root, split, tables)
