"""Entries of a JSON file as whole columns: each is checked as one array, and one that fails is searched for its fault.

A list of 150,000 detections is read so in the time that the JSON takes; an object made of every entry takes many times
that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boresight.core.errors import UserError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Columns:
    """Entries of one file, column by column; whatever cannot be used is blamed on the first such entry.

    Args:
        file, word: what to blame: ``detection 12`` of the file.
        entries: objects, as JSON gives them.

    Every method raises ``UserError``, one line with file, entry, fault and remedy.
    """

    def __init__(self, file: Path, word: str, entries: Sequence[Any]) -> None:
        self.file, self.word, self.entries = file, word, entries

    def error(self, row: int, fault: str, remedy: str) -> UserError:
        """What to raise about the entry at ``row``, counted from 0."""
        entry = self.entries[row]
        known = f" (id {entry['id']})" if isinstance(entry, Mapping) and "id" in entry else ""
        return UserError(f"{self.file}: {self.word} {row}{known}: {fault}: {remedy}")

    def values(self, key: str) -> list[Any]:
        """One value of every entry."""
        try:
            return [entry[key] for entry in self.entries]
        except (KeyError, TypeError, IndexError):
            row = next(i for i, e in enumerate(self.entries) if not isinstance(e, Mapping) or key not in e)
        if isinstance(self.entries[row], Mapping):
            raise self.error(row, f"has no `{key}`", "add it")
        raise self.error(row, f"is no object but {self.entries[row]!r}", f"give one with `{key}`")

    def places(self, key: str, ids: Ints) -> Ints:
        """The place of every entry's id in ``ids [N]``."""
        values = self.values(key)
        given = self._array(key, values, "i", 1, _is_id, "a whole number").astype(np.int64)
        order = np.argsort(ids)
        place = np.searchsorted(ids[order], given).clip(max=max(len(ids) - 1, 0))
        known = ids[order][place] == given if len(ids) else np.zeros(len(given), np.bool_)
        if not known.all():
            row = int(known.argmin())
            raise self.error(row, f"{key} {values[row]} is not listed in the annotations", _listed(ids))
        return order[place] if len(ids) else place

    def numbers(self, key: str) -> Floats:
        """A finite number of every entry."""
        values = self.values(key)
        given = self._array(key, values, "iuf", 1, _is_number, "a number").astype(np.float64)
        if (bad := ~np.isfinite(given)).any():
            row = int(bad.argmax())
            raise self.error(row, f"{key} is {values[row]}, which is not finite", "correct or remove it")
        return given

    def boxes(self, values: list[Any]) -> Floats:
        """``[*, 4]`` xyxy of boxes given as x, y, width, height."""
        given = self._array("bbox", values, "iuf", 2, _is_box, "four numbers x, y, width, height").reshape(-1, 4)
        bad = ~np.isfinite(given).all(axis=1) | (given[:, 2:] < 0).any(axis=1)
        if bad.any():
            row = int(bad.argmax())
            raise self.error(row, f"bbox {values[row]} is not finite, or has a negative side", "correct or remove it")
        given = given.astype(np.float64)
        with np.errstate(over="ignore"):
            corners = np.hstack((given[:, :2], given[:, :2] + given[:, 2:]))
            beyond = ~np.isfinite(np.hstack((corners, given[:, 2:3] * given[:, 3:]))).all(axis=1)
        if beyond.any():
            row = int(beyond.argmax())
            raise self.error(row, f"bbox {values[row]} reaches beyond all numbers", "correct or remove it")
        return corners

    def flags(self, key: str) -> Bools:
        """0 or 1 of every entry, 0 where it says nothing."""
        values = [entry.get(key, 0) for entry in self.entries]
        row = next((i for i, value in enumerate(values) if value not in (0, 1)), None)
        if row is not None:
            raise self.error(row, f"{key} is {values[row]!r}", "say 0 or 1")
        return np.array(values, np.bool_)

    def _array(
        self, key: str, values: list[Any], kinds: str, ndim: int, good: Callable[[Any], bool], wanted: str
    ) -> NDArray[Any]:
        """The column as numpy makes it, where that is of a kind of number and of the right shape."""
        if not values:
            return np.zeros(0, np.int64)
        try:
            made = np.array(values)
        except (ValueError, OverflowError):  # rows of unequal length, or beyond any number
            made = np.zeros(0, np.object_)
        if made.dtype.kind in kinds and made.ndim == ndim and (ndim == 1 or made.shape[1] == 4):
            return made
        row = next(i for i, value in enumerate(values) if not good(value))
        raise self.error(row, f"{key} must be {wanted}, got {values[row]!r}", "correct or remove it")


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2**63


def _is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(_is_number(v) for v in value)


def _listed(ids: Ints) -> str:
    """Which ids there are, in few words."""
    few = ", ".join(str(i) for i in sorted(ids.tolist())[:3])
    return f"use the ids of the annotations ({few}{', ...' if len(ids) > 3 else ''})" if len(ids) else "they list none"
