"""The two tables of a training, read with their numbers checked: whoever uses them need not ask what they hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from boresight.run.record import read_parquet

COUNTS = ("epoch", "positives", "objects", "objects_with_none")
"""Columns of ``targets.parquet`` that are read by name, beside ``class``."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of ``metrics.parquet``, empty where there is none.

    Raises UserError where a figure of the validation (``val_...``) is anything but a number or null, or ``step``
    anything but a whole number from 0 up. What else is no number counts as missing where it is used.
    """
    return read_parquet(path, check=_check_metrics)


def read_targets(path: Path) -> list[dict[str, Any]]:
    """Rows of ``targets.parquet``, empty where there is none.

    Raises UserError where a column of :data:`COUNTS` holds anything but whole numbers from 0 up, or where more objects
    have no positive cell than there are objects.
    """
    return read_parquet(path, check=_check_targets)


def _check_metrics(table: Any) -> None:
    for name in table.column_names:
        if name == "step":
            _counts(table, name)
        elif name.startswith("val_"):
            _numbers(table, name)


def _check_targets(table: Any) -> None:
    known = {name: _counts(table, name) for name in COUNTS if name in table.column_names}
    if {"objects", "objects_with_none"} <= known.keys() and (known["objects_with_none"] > known["objects"]).any():
        raise ValueError("more objects have no positive cell than there are objects")


def _numbers(table: Any, name: str) -> np.ndarray:
    """The column as floats, NaN for a null. Raises ValueError for one of other things than numbers."""
    import pyarrow as pa

    kind = table.schema.field(name).type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
        raise ValueError(f"column `{name}` holds {kind}, not numbers")
    return table.column(name).cast(pa.float64(), safe=False).to_numpy()


def _counts(table: Any, name: str) -> np.ndarray:
    """The column as floats. Raises ValueError unless all are whole numbers that a float holds, from 0 up."""
    values = _numbers(table, name)
    good = (values >= 0) & (values < 2**53) & (values == np.floor(values))
    if not good.all():
        row = int(good.argmin())
        raise ValueError(f"column `{name}` must hold whole numbers from 0 up, row {row} is {values[row]:g}")
    return values
