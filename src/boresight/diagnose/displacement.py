"""The harm that suppression does: kept boxes of unsupervised cells that drove out better boxes of supervised ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from boresight.diagnose.emitted import INSIDE, SUPERVISED, EmittedRows
from boresight.evaluate.estimate import Estimate, Resampler
from boresight.evaluate.pairs import Bools, Floats, Ints

MARGIN = 0.05
"""A box is better where it fits its object by so much more."""


@dataclass(frozen=True, slots=True)
class Displaced:
    """What each kept box drove out.

    Attributes:
        row: ``[P]`` kept boxes (rows of the table) that drove out a better one of a supervised cell.
        better: ``[P]`` the best of those.
        lost: ``[P]`` likeness lost: that of ``better`` less that of ``row``, both with the object of ``better``.
    """

    row: Ints
    better: Ints
    lost: Floats


def displaced(rows: EmittedRows, margin: float = MARGIN) -> Displaced:
    """Every kept box that suppressed a better one of a supervised cell, whatever bucket the kept one is in.

    Both are of one class where suppression is by class, and both are compared with the objects of their own class.
    """
    if not len(rows):
        none = np.zeros(0, np.int64)
        return Displaced(none, none, np.zeros(0))
    victim = np.flatnonzero((rows.by != np.arange(len(rows))) & (rows.bucket == SUPERVISED))
    keeper = rows.by[victim]
    lost = rows.own[victim] - rows.own[keeper]
    better = lost >= margin
    victim, keeper, lost = victim[better], keeper[better], lost[better]
    order = np.lexsort((-lost, keeper))
    victim, keeper, lost = victim[order], keeper[order], lost[order]
    first = np.flatnonzero(np.diff(keeper, prepend=-1))
    return Displaced(keeper[first], victim[first], lost[first])


def displacement(rows: EmittedRows, draw: Resampler, margin: float = MARGIN) -> dict[str, Any]:
    """How often, and how much is lost, by the bucket of the kept box.

    ``share``: of the kept boxes of that bucket. ``lost``: mean likeness lost where it happens. ``reached``: boxes that
    count as found only without it (the better one reaches 0.5, the kept one does not). That supervised cells drive out
    better supervised ones too is the measure to compare with: it is what any imperfect score does.
    """
    found = displaced(rows, margin)
    lost, happened = np.zeros(len(rows)), np.zeros(len(rows), bool)
    happened[found.row], lost[found.row] = True, found.lost
    reached = np.zeros(len(rows), bool)
    reached[found.row] = (rows.own[found.row] < 0.5) & (rows.own[found.better] >= 0.5)
    sides: dict[str, Bools] = {
        "supervised": rows.bucket == SUPERVISED,
        "unsupervised": rows.bucket >= INSIDE,
    }
    told = {}
    for name, side in sides.items():
        mine = rows.kept & side
        told[name] = {
            "kept": int(mine.sum()),
            "n": int((happened & mine).sum()),
            "share": _plain(draw.estimate(happened.astype(float), mine)),
            "lost": _plain(draw.estimate(lost, happened & mine)),
            "reached": int((reached & mine).sum()),
        }
    return told


def _plain(estimate: Estimate) -> dict[str, Any]:
    return asdict(estimate)
