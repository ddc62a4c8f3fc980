"""Which error every detection and every missed truth is: the six kinds of TIDE (Bolya et al. 2020, sec. 2.2).

A detection that took no truth is looked at in this order; overlaps are with truths that count, in its own image:

===== ==============================================================================================================
Loc   its best overlap with a truth of its class lies in [``background``, ``iou``)
Cls   its best overlap with a truth of another class is ``iou`` or more
Dupe  it overlaps a truth of its class by ``iou`` or more, which a detection of higher score took
Bkg   it overlaps no truth by more than ``background``
Both  what is left: a truth of another class, and too far off
===== ==============================================================================================================

A Loc or a Cls names the truth of that best overlap. Where nothing took that truth, the error of highest score among all
that name it, of either kind, *would find* it. Miss is a truth that nothing took and nothing would find.

These are the definitions of tidecv 1.0.1, read from its source, but for the following.

* There a duplicate at exactly ``iou`` is a Loc (both ends of the interval belong to it); here it is a Dupe.
* There an excused detection (in a crowd) is an error like any other. Here it is one only if it would find a truth;
  otherwise changing it changes nothing, and it is not counted. AP is the same.
* There a crowd excuses what it covers by more than ``iou``, here by ``iou`` or more, as in COCO.
* Of equal overlaps the first truth is taken there, here the later, as in COCO.
* There the 100 best detections of an image are looked at, here the 100 best of each class in it, as in COCO.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from boresight.evaluate.box_match import ALMOST_ONE, BoxMatch, Overlaps, best_truth, match_boxes, overlaps
from boresight.evaluate.box_set import BoxSet
from boresight.evaluate.pairs import Bools, Ints

KINDS = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
"""The six kinds; a detection's kind is its place in here."""
CLS, LOC, BOTH, DUPE, BKG, MISS = range(6)
NONE = -1
"""Of a detection that is no error: it took a truth, or it is excused."""


@dataclass(frozen=True, slots=True)
class ErrorKinds:
    """The errors of ``D`` detections and ``T`` truths.

    Attributes:
        kind: ``[D]`` place in :data:`KINDS` (never that of Miss), :data:`NONE` for what is no error.
        hit: ``[D]`` bool, took a truth.
        false: ``[D]`` bool, a false alarm: every error but those of excused detections, which cost nothing.
        finds: ``[D]`` the truth that the detection took, or would find if this one error were repaired; -1 for none. No
            truth stands there twice.
        unfound: ``[T]`` bool, truths that count and that nothing took.
        missed: ``[T]`` bool, those of them that no repair would find either: Miss.
    """

    kind: Ints
    hit: Bools
    false: Bools
    finds: Ints
    unfound: Bools
    missed: Bools


def error_kinds(
    boxes: BoxSet, *, iou: float = 0.5, background: float = 0.1, pairs: Overlaps | None = None
) -> ErrorKinds:
    """Name the error of every detection and truth; the matching is that of :func:`match_boxes`.

    Args:
        boxes: the data set.
        iou: least overlap of a hit, in (0, 1].
        background: overlap up to which a detection has nothing to do with a truth, in (0, iou).
        pairs: :func:`~boresight.evaluate.box_match.overlaps` of these boxes, where they are known already.

    Raises ``ValueError`` for thresholds out of these ranges.
    """
    if not 0 < background < iou:
        raise ValueError(f"background must lie in (0, iou), got {background} with iou {iou}")
    pairs = overlaps(boxes) if pairs is None else pairs
    match = match_boxes(boxes, iou, pairs)
    counting = pairs.select(boxes.counted[pairs.truth])
    kind, named = _kinds(boxes, match, counting, min(iou, ALMOST_ONE), background)
    unfound = boxes.counted & (match.found_of_truth < 0)
    repairs = _first_of_each(named, unfound, boxes.rank)
    finds = match.truth_of_found.copy()
    finds[repairs] = named[repairs]
    kind[match.ignored & (finds < 0)] = NONE
    missed = unfound.copy()
    missed[finds[repairs]] = False
    return ErrorKinds(kind, match.hit, match.false, finds, unfound, missed)


def _kinds(boxes: BoxSet, match: BoxMatch, pairs: Overlaps, iou: float, background: float) -> tuple[Ints, Ints]:
    """The kind of every detection as if none were excused, and the truth that a Loc or a Cls names (-1 for others)."""
    same = boxes.found_label[pairs.found] == boxes.truth_label[pairs.truth]
    own, own_iou = best_truth(pairs.select(same), len(boxes.scores))
    other, other_iou = best_truth(pairs.select(~same), len(boxes.scores))
    cases = [
        match.hit,
        (own_iou >= background) & (own_iou < iou),
        other_iou >= iou,
        own_iou >= iou,
        np.maximum(own_iou, other_iou) <= background,
    ]
    kind = np.select(cases, [NONE, LOC, CLS, DUPE, BKG], BOTH)
    return kind, np.select([kind == LOC, kind == CLS], [own, other], -1)


def _first_of_each(named: Ints, unfound: Bools, rank: Ints) -> Ints:
    """The detections of highest score among those that name the same truth, of truths that nothing took."""
    able = np.flatnonzero(np.append(unfound, False)[named])
    able = able[np.lexsort((rank[able], named[able]))]
    return able[np.unique(named[able], return_index=True)[1]]
