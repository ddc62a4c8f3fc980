"""A Parquet table that is sorted by image, read a part at a time, with its numbers checked and its rows counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from boresight.core.errors import UserError
from boresight.core.files import disguised
from boresight.data.columns import Floats, Ints

LARGEST_ID = 2**62
"""Of an image: beyond it there must be another number."""
REMEDY = "docs/formats.md describes the tables"


class SortedTable:
    """Rows of a table that is sorted by image, a part at a time; the last image of a part may go on in the next."""

    def __init__(self, path: Path, file: Any, names: Sequence[str], rows: int) -> None:
        self.path, self.names = path, list(names)
        self.batches = file.iter_batches(batch_size=rows, columns=self.names)
        self.count, self.last = 0, np.iinfo(np.int64).min
        self.held = self._next()

    def _next(self) -> dict[str, Any] | None:
        """The next rows, None at the end."""
        with told(self.path):
            batch = next(self.batches, None)
        if batch is None:
            return None
        if not batch.num_rows:
            return self._next()
        columns: dict[str, Any] = {name: numbers(self.path, batch, name) for name in self.names}
        ids = ids_of(self.path, batch, self.count)
        falls = np.flatnonzero(ids < np.append(self.last, ids[:-1]))
        if len(falls):
            raise UserError(
                f"{self.path}: row {self.count + int(falls[0])}: image_id {ids[falls[0]]} comes after a larger one: "
                "sort the table by image_id"
            )
        columns |= {"image_id": ids, "row": np.arange(self.count, self.count + len(ids))}
        self.count, self.last = self.count + len(ids), int(ids[-1])
        return columns

    def _extend(self) -> bool:
        """Hold the next rows as well; False at the end."""
        more = self._next()
        if more is None:
            return False
        held = self.held
        self.held = more if held is None else {k: np.concatenate((held[k], more[k])) for k in more}
        return True

    def whole_images(self) -> int | None:
        """An id below which the held rows, one at least, hold every row there is; None where nothing is left."""
        while self.held is not None:
            ids = self.held["image_id"]
            if ids[0] < ids[-1]:
                return int(ids[-1])
            if not self._extend():
                return int(ids[-1]) + 1
        return None

    def take(self, below: int) -> dict[str, Any]:
        """The held rows of images below an id, which are held no longer."""
        held = self.held
        if held is None:
            return {name: np.zeros(0) for name in self.names} | {"row": np.zeros(0, np.int64)}
        cut = int(np.searchsorted(held["image_id"], below))
        rest = {name: values[cut:] for name, values in held.items()}
        self.held = rest if len(rest["row"]) else self._next()
        return {name: values[:cut] for name, values in held.items()}

    def take_below(self, below: int) -> dict[str, Any]:
        """All rows of images below an id, read as far as that takes."""
        while self.held is not None and self.held["image_id"][-1] < below and self._extend():
            pass
        return self.take(below)

    def rest(self) -> dict[str, Any] | None:
        """What is held."""
        return self.held


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """A Parquet file, opened. Raises ``UserError`` for one that is missing, damaged or a link to something else."""
    import pyarrow.parquet as pq

    if not file.is_file():
        raise UserError(f"{file}: no such file: give a Parquet table; {REMEDY}")
    if target := disguised(file):
        raise UserError(f"{file}: is a link to {target}, a file of another kind: give the table itself")
    with told(file):
        opened = pq.ParquetFile(file, memory_map=False, pre_buffer=False)
    with opened as table:
        yield table


@contextmanager
def told(file: Path) -> Iterator[None]:
    """Turn what pyarrow raises for a damaged file into one line."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError, TypeError, LookupError, ArithmeticError, MemoryError) as error:
        raise UserError(f"{file}: cannot be read as a table in Parquet ({error}): write it anew") from error


def check_columns(file: Path, schema: Any, needed: Sequence[str]) -> None:
    """Raise ``UserError`` unless the needed columns are there, once, and hold numbers; ids whole ones."""
    import pyarrow as pa

    if twice := [name for name in needed if schema.names.count(name) > 1]:
        raise UserError(f"{file}: has the column `{twice[0]}` twice: remove one")
    if missing := [name for name in needed if name not in schema.names]:
        raise UserError(f"{file}: has no column {', '.join(missing)}: {REMEDY}")
    for name in (n for n in (*needed, "iscrowd") if n in schema.names):
        kind = schema.field(name).type
        whole = pa.types.is_integer(kind) or (name == "iscrowd" and pa.types.is_boolean(kind))
        if not whole and (name in ("image_id", "category_id") or not pa.types.is_floating(kind)):
            wanted = "whole numbers" if name in ("image_id", "category_id") else "numbers"
            raise UserError(f"{file}: column `{name}` holds {kind}, not {wanted}: {REMEDY}")


def ids_of(file: Path, batch: Any, before: int) -> Ints:
    """The images of a batch, before which ``before`` rows stand. Raises ``UserError`` where one is missing."""
    column = batch.column(batch.schema.get_field_index("image_id"))
    if column.null_count:
        row = before + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise UserError(f"{file}: row {row}: image_id is missing: add it")
    with told(file):
        ids: Ints = column.cast("int64").to_numpy(zero_copy_only=False)
    large = (ids >= LARGEST_ID) | (ids <= -LARGEST_ID)
    if large.any():
        row = int(large.argmax())
        raise UserError(f"{file}: row {before + row}: image_id {ids[row]} is too large: number the images anew")
    return ids


def numbers(file: Path, batch: Any, name: str) -> Floats:
    """A column as floats, NaN where it is null."""
    column = batch.column(batch.schema.get_field_index(name))
    with told(file):
        return column.cast("float64", safe=False).to_numpy(zero_copy_only=False)


def finite(file: Path, columns: Mapping[str, Any], name: str) -> Floats:
    """A column that must be numbers throughout. Raises ``UserError`` that names the row of the first that is none."""
    values: Floats = columns[name]
    good = np.isfinite(values)
    if not good.all():
        row = int(good.argmin())
        raise UserError(f"{file}: row {columns['row'][row]}: {name} is missing or not finite: correct or remove it")
    return values
