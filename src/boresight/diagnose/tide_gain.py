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
from typing import Literal

import numpy as np
from scipy.sparse import csr_array

from boresight.diagnose.tide import CLS, LOC, MISS, ErrorKinds
from boresight.evaluate.average_precision import curve_ap, recall_places
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


def repaired_ap(boxes: BoxSet, errors: ErrorKinds, classes: int, repairs: Sequence[Repair], weights: Floats) -> Floats:
    """Return the AP of every class after each repair, under each row of image weights.

    Args:
        boxes: the data set.
        errors: of these boxes.
        classes: their number C.
        repairs: P sets of repairs, each from the data as they are.
        weights: ``[R, N]`` how often each image counts.

    Returns:
        ``[P, C, R]`` float64 in [0, 1], NaN where a class has no truth.
    """
    by_image = np.ascontiguousarray(weights.T, np.float64)
    result = np.full((len(repairs), classes, len(weights)), np.nan)
    for label, curve in _curves(boxes, errors, classes, by_image):
        for row, repair in enumerate(repairs):
            result[row, label] = curve.ap(repair)
    return result


class _Curve:
    """One class at its ``K`` places: detections that found a truth of it, or would, in falling order of score.

    Args:
        kind: ``[K]`` of the error that is repaired there, -1 for a hit.
        weight: ``[K, R]`` of its image.
        false: for each kind, ``[K, R]`` the false alarms so far.
        all_false: for each kind, ``[R]`` those after the last place included.
        truths, missed, unfound: ``[R]``.
    """

    def __init__(
        self,
        kind: Ints,
        weight: Floats,
        false: Sequence[Floats],
        all_false: Sequence[Floats],
        truths: Floats,
        missed: Floats,
        unfound: Floats,
    ) -> None:
        self.kind, self.weight, self.false, self.all_false = kind, weight, false, all_false
        self.truths, self.missed, self.unfound = truths, missed, unfound
        self._hits: dict[frozenset[int], Floats] = {}
        self._reached: dict[tuple[frozenset[int], Excused], Ints] = {}

    def ap(self, repair: Repair) -> Floats:
        """AP after a repair, ``[R]``; NaN without truth to begin with."""
        left = {"none": self.truths, "missed": self.truths - self.missed, "unfound": self.truths - self.unfound}
        truths = left[repair.excused]
        hits = self._hits_with(repair.found)
        if (key := (repair.found, repair.excused)) not in self._reached:
            self._reached[key] = recall_places(hits, truths)
        stay = [kind for kind in range(FALSE_KINDS) if kind not in repair.gone]
        ap = curve_ap(hits, _total(self.false, stay, hits.shape), truths, self._reached[key])
        silent = _total(self.all_false, stay, truths.shape) == 0
        return np.where((truths == 0) & (self.truths > 0), silent, ap)

    def _hits_with(self, found: frozenset[int]) -> Floats:
        """``[K, R]`` hits so far, with those repairs."""
        if found not in self._hits:
            counts = (self.kind < 0) | np.isin(self.kind, list(found))
            self._hits[found] = np.cumsum(self.weight * counts[:, None], axis=0)
        return self._hits[found]


def _total(tables: Sequence[Floats], rows: Sequence[int], shape: tuple[int, ...]) -> Floats:
    """The sum of some of the tables; zeros of none."""
    if not rows:
        return np.zeros(shape)
    total = tables[rows[0]].copy() if len(rows) > 1 else tables[rows[0]]
    for row in rows[1:]:
        total += tables[row]
    return total


def _curves(boxes: BoxSet, errors: ErrorKinds, classes: int, by_image: Floats) -> Iterator[tuple[int, _Curve]]:
    """Yield every class that has truth."""
    place = _places(boxes, errors)
    kind = np.where(errors.hit, -1, errors.kind)[place]
    first = np.searchsorted(boxes.truth_label[errors.finds[place]], np.arange(classes + 1))
    false, whole = _false_alarms(boxes, errors, place, classes)
    all_false = [table @ by_image for table in whole]
    sums = [
        _table(boxes.truth_label[of], boxes.truth_image[of], (classes, boxes.images)) @ by_image
        for of in (boxes.counted, errors.missed, errors.unfound)
    ]
    for label in np.flatnonzero(np.bincount(boxes.truth_label[boxes.counted], minlength=classes)):
        rows = slice(first[label], first[label + 1])
        yield (
            int(label),
            _Curve(
                kind[rows],
                by_image[boxes.found_image[place[rows]]],
                [np.cumsum(table[rows] @ by_image, axis=0) for table in false],
                [total[label] for total in all_false],
                *(total[label] for total in sums),
            ),
        )


def _places(boxes: BoxSet, errors: ErrorKinds) -> Ints:
    """The detections that found a truth, or would, sorted by the class of that truth, then by rank."""
    able = np.flatnonzero(errors.finds >= 0)
    return able[np.lexsort((boxes.rank[able], boxes.truth_label[errors.finds[able]]))]


def _false_alarms(
    boxes: BoxSet, errors: ErrorKinds, place: Ints, classes: int
) -> tuple[list[csr_array], list[csr_array]]:
    """Counts by kind: of each image before each place (and after the one before it), and of each class and image."""
    span = len(boxes.scores) + 1
    key = boxes.truth_label[errors.finds[place]] * span + boxes.rank[place]
    before, whole = [], []
    for kind in range(FALSE_KINDS):
        mine = np.flatnonzero(errors.false & (errors.kind == kind))
        label, image = boxes.found_label[mine], boxes.found_image[mine]
        row = np.searchsorted(key, label * span + boxes.rank[mine])
        # One that comes after the last place of its class touches no precision there.
        inside = row < np.searchsorted(key, (label + 1) * span)
        before.append(_table(row[inside], image[inside], (len(place), boxes.images)))
        whole.append(_table(label, image, (classes, boxes.images)))
    return before, whole


def _table(row: Ints, column: Ints, shape: tuple[int, int]) -> csr_array:
    return csr_array((np.ones(len(row)), (row, column)), shape=shape)
