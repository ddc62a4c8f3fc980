"""Truth and detections of any number of images as two Parquet tables, read some images at a time.

Both tables are sorted by ``image_id``; rows of an image keep their order. Numbers are pixels, as in COCO.

``annotations``: ``image_id``, ``category_id``, ``x``, ``y``, ``width``, ``height`` and, where there are crowds,
``iscrowd``. A row without ``category_id`` (null) lists an image and nothing in it: an image without objects needs one.
``predictions``: the same columns without ``iscrowd``, and ``score``.

The schema's metadata may hold ``categories`` as COCO lists them; without it every category of the annotations is a
class, named by its id.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boresight.core.errors import UserError
from boresight.data.columns import Bools, Floats, Ints
from boresight.data.sorted_table import SortedTable, check_columns, finite, opened, told

ROWS = 2**14
"""Rows read at a time."""
CORNERS = ("x", "y", "width", "height")
_TRUTH, _FOUND = ("image_id", "category_id", *CORNERS), ("image_id", "category_id", *CORNERS, "score")


@dataclass(frozen=True, slots=True)
class Images:
    """``N`` images with their ``T`` truths and ``D`` detections, by rising id.

    Attributes:
        image_ids: ``[N]``.
        truth_box, found_box: ``[T, 4]`` and ``[D, 4]`` xyxy.
        truth_image, found_image: the place of each in ``image_ids``.
        truth_label, found_label: classes.
        crowd: ``[T]``.
        score: ``[D]``.
    """

    image_ids: Ints
    truth_box: Floats
    truth_image: Ints
    truth_label: Ints
    crowd: Bools
    found_box: Floats
    found_image: Ints
    found_label: Ints
    score: Floats

    @classmethod
    def joined(cls, parts: Sequence[Images]) -> Images:
        """Images of several parts, one part after the other."""
        first = np.cumsum([0, *(len(part.image_ids) for part in parts)])[:-1]
        return cls(
            image_ids=_end_to_end([part.image_ids for part in parts], np.int64),
            truth_box=_end_to_end([part.truth_box for part in parts], np.float64).reshape(-1, 4),
            truth_image=_end_to_end([part.truth_image + at for part, at in zip(parts, first, strict=True)], np.int64),
            truth_label=_end_to_end([part.truth_label for part in parts], np.int64),
            crowd=_end_to_end([part.crowd for part in parts], np.bool_),
            found_box=_end_to_end([part.found_box for part in parts], np.float64).reshape(-1, 4),
            found_image=_end_to_end([part.found_image + at for part, at in zip(parts, first, strict=True)], np.int64),
            found_label=_end_to_end([part.found_label for part in parts], np.int64),
            score=_end_to_end([part.score for part in parts], np.float64),
        )

    def take(self, keep: Bools) -> Images:
        """The images where ``keep`` (``[N]``) says so, with what is in them."""
        truth, found, place = keep[self.truth_image], keep[self.found_image], np.cumsum(keep) - 1
        return Images(
            image_ids=self.image_ids[keep],
            truth_box=self.truth_box[truth],
            truth_image=place[self.truth_image[truth]],
            truth_label=self.truth_label[truth],
            crowd=self.crowd[truth],
            found_box=self.found_box[found],
            found_image=place[self.found_image[found]],
            found_label=self.found_label[found],
            score=self.score[found],
        )


class BoxTables:
    """Two tables, opened.

    Args:
        annotations, predictions: Parquet files, see the module.

    Attributes:
        classes, category_ids: name and id of each class, by rising id.

    Raises ``UserError``, one line that names file, column or row and the remedy, as :meth:`images` does.
    """

    def __init__(self, annotations: Path, predictions: Path) -> None:
        self.annotations, self.predictions = annotations, predictions
        for file, needed in ((annotations, _TRUTH), (predictions, _FOUND)):
            with opened(file) as table:
                check_columns(file, table.schema_arrow, needed)
        self.category_ids, self.classes = _categories(annotations)

    def images(self, rows: int = ROWS) -> Iterator[Images]:
        """All images, some at a time: as many as some ``rows`` of the annotations list.

        Raises ``UserError`` for tables that are not sorted, values that are missing, not finite, or of no class, sides
        below zero, and detections of an image that the annotations do not list.
        """
        with opened(self.annotations) as truth_file, opened(self.predictions) as found_file:
            flags = ["iscrowd"] if "iscrowd" in truth_file.schema_arrow.names else []
            truth = SortedTable(self.annotations, truth_file, [*_TRUTH, *flags], rows)
            found = SortedTable(self.predictions, found_file, list(_FOUND), rows)
            while (below := truth.whole_images()) is not None:
                yield self._images(truth.take(below), found.take_below(below))
            if (left := found.rest()) is not None:
                raise _unlisted(self.predictions, int(left["row"][0]), int(left["image_id"][0]))

    def _images(self, truth: Mapping[str, Any], found: Mapping[str, Any]) -> Images:
        """Check one part of both tables, and put it into arrays."""
        ids = np.unique(truth["image_id"])
        place = np.searchsorted(ids, found["image_id"])
        known = ids[place.clip(max=len(ids) - 1)] == found["image_id"]
        if not known.all():
            row = int(known.argmin())
            raise _unlisted(self.predictions, int(found["row"][row]), int(found["image_id"][row]))
        there = np.isfinite(truth["category_id"])
        objects = {name: values[there] for name, values in truth.items()}
        none = np.zeros(len(objects["row"]), np.bool_)
        return Images(
            image_ids=ids,
            truth_box=_boxes(self.annotations, objects),
            truth_image=np.searchsorted(ids, objects["image_id"]),
            truth_label=self._labels(self.annotations, objects),
            crowd=_flags(self.annotations, objects) if "iscrowd" in objects else none,
            found_box=_boxes(self.predictions, found),
            found_image=place,
            found_label=self._labels(self.predictions, found),
            score=finite(self.predictions, found, "score"),
        )

    def _labels(self, file: Path, columns: Mapping[str, Any]) -> Ints:
        given = columns["category_id"]
        place = np.searchsorted(self.category_ids, given).clip(max=len(self.category_ids) - 1)
        known = self.category_ids[place] == given
        if not known.all():
            row = int(known.argmin())
            raise UserError(
                f"{file}: row {columns['row'][row]}: category_id {given[row]:g} is no category of the annotations: "
                "correct it, or list it there"
            )
        return place


def _end_to_end(columns: Sequence[NDArray[Any]], dtype: type) -> NDArray[Any]:
    """The columns as one; without any, an empty one."""
    return np.concatenate(columns) if columns else np.zeros(0, dtype)


def _unlisted(file: Path, row: int, image: int) -> UserError:
    return UserError(
        f"{file}: row {row}: image_id {image} is not listed in the annotations: give it a row there (category_id null "
        "where it has no objects)"
    )


def _categories(file: Path) -> tuple[Ints, tuple[str, ...]]:
    """Ids and names of the classes: as the schema lists them, or every category that has an object."""
    with opened(file) as table:
        listed = (table.schema_arrow.metadata or {}).get(b"categories")
        if listed is not None:
            return _listed(file, listed)
        found: set[int] = set()
        with told(file):
            for batch in table.iter_batches(batch_size=ROWS, columns=["category_id"]):
                found.update(batch.column(0).unique().drop_null().to_pylist())
    if not found:
        raise UserError(f"{file}: holds no object: there is nothing to judge by")
    ids = sorted(found)
    if max(map(abs, ids)) >= 2**53:
        raise UserError(f"{file}: category_id {max(ids, key=abs)} is too large: number the categories anew")
    return np.array(ids, np.int64), tuple(str(i) for i in ids)


def _listed(file: Path, text: bytes) -> tuple[Ints, tuple[str, ...]]:
    try:
        entries = json.loads(text)
        named = {int(entry["id"]): str(entry.get("name", entry["id"])) for entry in entries}
        ids = np.array(sorted(named), np.int64)
        if len(named) < len(entries) or len(set(named.values())) < len(named) or not named:
            raise ValueError("an id or a name stands there twice, or nothing at all")
        if abs(ids).max() >= 2**53:
            raise ValueError("an id is too large")
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(
            f"{file}: `categories` of its metadata cannot be used ({error}): write a list of id and name"
        ) from error
    return ids, tuple(named[i] for i in ids.tolist())


def _boxes(file: Path, columns: Mapping[str, Any]) -> Floats:
    x, y, width, height = (finite(file, columns, name) for name in CORNERS)
    negative = (width < 0) | (height < 0)
    if negative.any():
        row = int(negative.argmax())
        raise UserError(f"{file}: row {columns['row'][row]}: a side is below zero: correct or remove it")
    with np.errstate(over="ignore"):
        corners = np.stack((x, y, x + width, y + height), axis=1)
        beyond = ~np.isfinite(np.column_stack((corners, width * height))).all(axis=1)
    if beyond.any():
        row = int(beyond.argmax())
        raise UserError(f"{file}: row {columns['row'][row]}: the box reaches beyond all numbers: correct or remove it")
    return corners


def _flags(file: Path, columns: Mapping[str, Any]) -> Bools:
    given = np.nan_to_num(columns["iscrowd"], nan=0.0)
    odd = (given != 0) & (given != 1)
    if odd.any():
        row = int(odd.argmax())
        raise UserError(f"{file}: row {columns['row'][row]}: iscrowd is {given[row]:g}: say 0 or 1")
    return given.astype(np.bool_)


def write_table(file: Path, columns: Mapping[str, Any], categories: Sequence[Mapping[str, Any]] | None = None) -> None:
    """Write columns (arrays of one length, a masked one has nulls) as such a table, with its categories."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = {
        name: pa.array(np.ma.getdata(values), mask=np.ma.getmaskarray(values))
        if np.ma.isMA(values)
        else pa.array(values)
        for name, values in columns.items()
    }
    table = pa.table(arrays)
    if categories is not None:
        table = table.replace_schema_metadata({"categories": json.dumps(list(categories))})
    pq.write_table(table, file, row_group_size=2**20)
