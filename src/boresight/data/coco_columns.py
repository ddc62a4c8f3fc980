"""COCO annotations and COCO results as whole columns, for judging: no image is opened and no object made a box.

:mod:`boresight.data.coco` reads the same annotations frame by frame and keeps what is wrong with each; here the first
fault is raised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boresight.core.errors import UserError
from boresight.core.files import read_json
from boresight.data.coco import _corners, _exhaustive, _name, _numbered, _read, _size
from boresight.data.columns import Bools, Columns, Floats, Ints

Entries = Sequence[Mapping[str, Any]]
_EXHAUSTIVE_KEYS = ("exhaustive_category_ids", "neg_category_ids", "not_exhaustive_category_ids")


@dataclass(frozen=True, slots=True)
class TruthColumns:
    """What a file of annotations says of ``N`` images, ``T`` objects and ``C`` classes.

    Attributes:
        classes, category_ids: name and id of each class, by rising id.
        image_ids: ``[N]``, in the order of the file.
        names: of the images.
        sizes: ``(height, width)`` in pixels as the file states them, None where it does not.
        box: ``[T, 4]`` float64 xyxy, pixel frame.
        image: ``[T]`` the place of each in ``image_ids``.
        label: ``[T]`` class.
        crowd: ``[T]`` bool, ``iscrowd``.
        exhaustive: ``[N, C]`` bool, classes of which every object is labelled; None: all of every image.
    """

    classes: tuple[str, ...]
    category_ids: Ints
    image_ids: Ints
    names: tuple[str, ...]
    sizes: tuple[tuple[int, int] | None, ...]
    box: Floats
    image: Ints
    label: Ints
    crowd: Bools
    exhaustive: Bools | None


@dataclass(frozen=True, slots=True)
class FoundColumns:
    """``D`` detections, in the order of their file: boxes ``[D, 4]`` xyxy, place of the image, class, and score."""

    box: Floats
    image: Ints
    label: Ints
    score: Floats


def read_truth(file: Path) -> TruthColumns:
    """Read COCO annotations; classes and exhaustive labels as :func:`~boresight.data.coco.coco_boxes` takes them.

    Raises ``UserError`` for a file of another form, for ids that are listed twice or not at all, and for a box that is
    no four finite numbers with sides of zero or more.
    """
    content = _read(file)
    number, classes = _numbered(content["categories"], file)
    images, source = content["images"], Columns(file, "annotation", content["annotations"])
    image_ids = np.array([entry["id"] for entry in images], np.int64)
    ids, count = np.unique(image_ids, return_counts=True)
    if (count > 1).any():
        raise UserError(f"{file}: image {ids[count > 1][0]} is listed twice: remove one")
    category_ids = np.array(sorted(number), np.int64)
    image, label = source.places("image_id", image_ids), source.places("category_id", category_ids)
    return TruthColumns(
        classes=classes,
        category_ids=category_ids,
        image_ids=image_ids,
        names=tuple(_name(entry) for entry in images),
        sizes=tuple(size[::-1] if (size := _size(entry)) else None for entry in images),
        box=source.boxes(
            [entry["bbox"] if entry.get("bbox") else _outline(source, i) for i, entry in enumerate(source.entries)]
        ),
        image=image,
        label=label,
        crowd=source.flags("iscrowd"),
        exhaustive=_exhaustive_rows(file, images, number, image, label),
    )


def read_found(file: Path, truth: TruthColumns) -> FoundColumns:
    """Read COCO results: a list of ``image_id``, ``category_id``, ``bbox`` (x, y, width, height) and ``score``.

    Raises ``UserError`` for anything else, for ids that the annotations do not list, and for numbers that are not
    finite or sides below zero.
    """
    entries = read_json(file, "COCO results")
    if not isinstance(entries, list):
        raise UserError(f"{file}: is a JSON {type(entries).__name__}, not a list of detections: give COCO results")
    source = Columns(file, "detection", entries)
    return FoundColumns(
        image=source.places("image_id", truth.image_ids),
        label=source.places("category_id", truth.category_ids),
        box=source.boxes(source.values("bbox")),
        score=source.numbers("score"),
    )


def _outline(source: Columns, row: int) -> list[float]:
    """Box x, y, width, height around the polygons of an annotation that has no ``bbox``."""
    try:
        x0, y0, x1, y1 = _corners(source.entries[row])
    except ValueError as error:
        raise source.error(row, str(error), "correct or remove it") from error
    return [x0, y0, x1 - x0, y1 - y0]


def _exhaustive_rows(file: Path, images: Entries, number: Mapping[int, int], image: Ints, label: Ints) -> Bools | None:
    """``[N, C]``, None where no image says anything about it."""
    if not any(key in entry for entry in images for key in _EXHAUSTIVE_KEYS):
        return None
    rows = np.ones((len(images), len(number)), np.bool_)
    present: list[set[int]] = [set() for _ in images]
    for i, k in zip(image.tolist(), label.tolist(), strict=True):
        present[i].add(k)
    for i, entry in enumerate(images):
        known, wrong = _exhaustive(entry, number, present[i])
        if wrong:
            raise UserError(f"{file}: image {entry['id']}: {wrong[0]}: list the category")
        if known is not None:
            rows[i] = known
    return rows
