"""What AP would be if some errors were repaired, under the data and under resampled images, from one matching.

Repairing a kind does to its errors what tidecv 1.0.1 does. A Cls or a Loc that would find a truth becomes a hit of that
truth's class, at the place in the ranking that its score gives it, and the others vanish; those of Both, Dupe and Bkg
vanish; of Miss, the truths need not be found any more. What one repair does to a detection depends on no other repair,
so a set of repairs has one AP, whatever the order.

Here repairing never lowers AP. It can in tidecv, for three reasons that are not followed:

* Ties. There a repaired data set is ranked with its false alarms first among equal scores; the one before is ranked as
  the files are. Scores of two decimals are enough for gains that are negative, or set to 0. Here both are ranked alike.
* A class without truth but with detections counts there, with AP 0, until a repair takes its last detection away; then
  the mean is over fewer classes. Here only classes with truth count, as in COCO.
* A class in which nothing is left to find has AP 0 there, or no AP where it has no detections left. Here it is 0 while
  any false alarm is left and 1 otherwise, so that the mean is always over the same classes.

tidecv also takes the recalls of the 101 points as decimal fractions, COCO as multiples of a rounded hundredth: where
the recall of a hit is such a point exactly, one of 101 precisions may be that of the next hit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from boresight.diagnose.tide import CLS, LOC, MISS, ErrorKinds
from boresight.evaluate.average_precision import (
    by_class,
    drawn_of,
    envelope_ap,
    precision_of,
    recall_places,
    so_far,
    some_rows,
)
from boresight.evaluate.bootstrap import whole
from boresight.evaluate.box_set import BoxSet
from boresight.evaluate.pairs import Floats, Ints

FALSE_KINDS = MISS
"""Kinds of false alarms: all those before Miss."""


Excused = Literal["none", "missed", "unfound"]


@dataclass(frozen=True, slots=True)
class Repair:
    """What is made true.

    Attributes:
        found: kinds whose errors find the truth that they would find.
        gone: kinds of false alarms that vanish.
        excused: truths that need not be found any more: those missed, or all that nothing took.
    """

    found: frozenset[int] = frozenset()
    gone: frozenset[int] = frozenset()
    excused: Excused = "none"

    @classmethod
    def of(cls, *kinds: int) -> Repair:
        """Those kinds of error, together."""
        gone = frozenset(kinds) - {MISS}
        return cls(gone & {CLS, LOC}, gone, "missed" if MISS in kinds else "none")


NOTHING = Repair()
FALSE_POSITIVES = Repair(gone=frozenset(range(FALSE_KINDS)))
"""tidecv's FalsePos: no false alarm, and no more found than before."""
FALSE_NEGATIVES = Repair(excused="unfound")
"""tidecv's FalseNeg: nothing is left unfound, and precision is as before."""


def repaired_ap(
    boxes: BoxSet, errors: ErrorKinds, classes: int, repairs: Sequence[Repair], weights: NDArray[Any]
) -> Floats:
    """Return the AP of every class after each repair, under each row of image weights.

    Args:
        boxes: the data set.
        errors: of these boxes.
        classes: their number C.
        repairs: P sets of repairs, each from the data as they are.
        weights: ``[R, N]`` how often each image counts.

    Returns:
        ``[P, C, R]`` float64 in [0, 1], NaN where a class has no truth.

    Raises ``ValueError`` for weights that are no whole numbers.
    """
    rows = whole(weights)
    result = np.full((len(repairs), classes, len(rows)), np.nan)
    for label, places in enumerate(_places(boxes, errors, classes)):
        done = 0
        for some in some_rows(rows, places.width) if len(places.truths) else ():
            curve = _Curve(places, some)
            for row, repair in enumerate(repairs):
                result[row, label, done : done + len(some)] = curve.ap(repair)
            done += len(some)
    return result


@dataclass(frozen=True, slots=True)
class _ClassPlaces:
    """One class at its ``K`` places: detections that found a truth of it, or would, in falling order of score.

    Attributes:
        kind: ``[K]`` of the error that is repaired there, -1 for a hit.
        image: ``[K]``.
        false: for each kind, the images of its false alarms, in the same order.
        before: for each kind, ``[K]`` how many of its false alarms come up to each place.
        truths, missed, unfound: the images of those.
    """

    kind: Ints
    image: Ints
    false: tuple[Ints, ...]
    before: tuple[Ints, ...]
    truths: Ints
    missed: Ints
    unfound: Ints

    @property
    def width(self) -> int:
        """Numbers a replicate: places, or false alarms where there are more."""
        return max(len(self.kind), sum(len(images) for images in self.false))


class _Curve:
    """One class under some rows of weights.

    Args:
        places: of the class.
        weights: ``[R, N]`` whole numbers.
    """

    def __init__(self, places: _ClassPlaces, weights: NDArray[Any]) -> None:
        self.kind, self.weight = places.kind, weights.take(places.image, axis=1).astype(np.int64)
        self.false, self.all_false = [], []
        for images, before in zip(places.false, places.before, strict=True):
            table = so_far(weights, images)
            self.false.append(table.take(before, axis=1).astype(np.float64))
            self.all_false.append(table[:, -1])
        self.every = _total(self.false)
        truths, missed, unfound = (drawn_of(weights, x) for x in (places.truths, places.missed, places.unfound))
        self.truths = {"none": truths, "missed": truths - missed, "unfound": truths - unfound}
        self._hits: dict[frozenset[int], Floats] = {}
        self._reached: dict[tuple[frozenset[int], Excused], Ints] = {}
        self._as_it_is = precision_of(self._hits_with(frozenset()), self.every)

    def ap(self, repair: Repair) -> Floats:
        """AP after a repair, ``[R]``; NaN without truth to begin with."""
        truths = self.truths[repair.excused]
        if (key := (repair.found, repair.excused)) not in self._reached:
            self._reached[key] = recall_places(self._hits_with(repair.found), truths)
        ap = envelope_ap(self._precision_with(repair.found, repair.gone), self._reached[key], truths)
        stay = [total for kind, total in enumerate(self.all_false) if kind not in repair.gone]
        silent = np.sum(stay, axis=0) == 0
        return np.where((truths == 0) & (self.truths["none"] > 0), silent, ap)

    def _hits_with(self, found: frozenset[int]) -> Floats:
        """``[R, K]`` hits so far, with those repairs."""
        if found not in self._hits:
            counts = self.kind < 0
            for kind in found:
                counts |= self.kind == kind
            self._hits[found] = np.cumsum(self.weight * counts, axis=1).astype(np.float64)
        return self._hits[found]

    def _precision_with(self, found: frozenset[int], gone: frozenset[int]) -> Floats:
        """``[R, K]`` precision, with some errors found and the false alarms of some kinds gone."""
        if not found | gone:
            return self._as_it_is
        stay = [table for kind, table in enumerate(self.false) if kind not in gone]
        if len(stay) < len(gone):
            return precision_of(self._hits_with(found), _total(stay))
        return precision_of(self._hits_with(found), self.every - _total([self.false[kind] for kind in gone]))


def _total(tables: Sequence[Floats]) -> Floats:
    """The sum of tables of one shape; a zero without any."""
    total = tables[0] if tables else np.zeros(1)
    for table in tables[1:]:
        total = total + table
    return total


def _places(boxes: BoxSet, errors: ErrorKinds, classes: int) -> Iterator[_ClassPlaces]:
    """Yield the places of every class in turn."""
    able = np.flatnonzero(errors.finds >= 0)
    found = by_class(boxes.truth_label[errors.finds[able]], classes)
    said = by_class(boxes.found_label, classes)
    truths, missed, unfound = (
        by_class(boxes.truth_label, classes, np.flatnonzero(of))
        for of in (boxes.counted, errors.missed, errors.unfound)
    )
    for label in range(classes):
        mine = said[label]
        place, wrong = (_ranked(rows, boxes.rank) for rows in (able[found[label]], mine[errors.false[mine]]))
        kinds = [wrong[errors.kind[wrong] == kind] for kind in range(FALSE_KINDS)]
        yield _ClassPlaces(
            np.where(errors.hit[place], -1, errors.kind[place]),
            boxes.found_image[place],
            tuple(boxes.found_image[rows] for rows in kinds),
            tuple(np.searchsorted(boxes.rank[rows], boxes.rank[place], side="right") for rows in kinds),
            *(boxes.truth_image[of[label]] for of in (truths, missed, unfound)),
        )


def _ranked(rows: Ints, rank: Ints) -> Ints:
    """Some detections, that of the highest score first."""
    return rows[np.argsort(rank[rows])]
