"""The box matcher: COCO's greedy one-to-one rule, and what each detection is because of it.

Detections take truths of their class in falling order of score. Each takes the one of highest IoU among those still
free, at least ``iou`` (of equal ones the later, as pycocotools does). What finds no truth that counts is excused by a
crowd region that covers enough of it (there the overlap is divided by the detection's own area).

In that order every truth prefers the same detections, so the greedy result is the one stable matching of detections
that prefer by IoU and truths that prefer by score (Gale and Shapley 1962): it is found for all images at once, by
proposals in rounds, without a loop over detections.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from boresight.core.types import Detections, Scene
from boresight.evaluate.box_set import BoxSet
from boresight.evaluate.pairs import Bools, Floats, Ints

BoxKind = Literal["hit", "duplicate", "wrong_class", "false_alarm", "ignored"]

# An IoU of 1 that rounding left a hair below still matches at a threshold of 1 (pycocotools has the same constant).
ALMOST_ONE = 1 - 1e-10
# Pairs looked at in one go: bounds memory (some 20 MB), whatever the number of images.
PAIRS_AT_ONCE = 300_000


@dataclass(frozen=True, slots=True)
class Overlaps:
    """Every overlapping pair of a detection and a truth of its image, whatever their classes.

    ``iou[k]`` is that of detection ``found[k]`` and truth ``truth[k]``; for a crowd the intersection over the
    detection's area. A box without area overlaps nothing.
    """

    found: Ints
    truth: Ints
    iou: Floats

    def select(self, keep: Bools) -> Overlaps:
        """Those pairs alone."""
        return Overlaps(self.found[keep], self.truth[keep], self.iou[keep])


@dataclass(frozen=True, slots=True)
class BoxMatch:
    """What became of ``D`` detections and ``T`` truths.

    Attributes:
        truth_of_found: ``[D]`` the truth each detection hit, -1 for none.
        found_of_truth: ``[T]`` its inverse (-1 always for crowds).
        ignored: ``[D]`` detections that hit nothing and are excused: by a crowd, or because their class is not
            exhaustively labelled in the image.
    """

    truth_of_found: Ints
    found_of_truth: Ints
    ignored: Bools

    @property
    def hit(self) -> Bools:
        """``[D]`` detections that took a truth."""
        return self.truth_of_found >= 0

    @property
    def false(self) -> Bools:
        """``[D]`` detections that took none and are not excused."""
        return ~self.hit & ~self.ignored


def overlaps(boxes: BoxSet) -> Overlaps:
    """Return the overlapping pairs, sorted by detection, then truth."""
    compare = _overlaps if boxes.reach is None else _closeness
    parts = [compare(boxes, *pairs) for pairs in _pairs_by_image(boxes)]
    if not parts:
        return Overlaps(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    return Overlaps(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("found", "truth", "iou")))


def _pairs_by_image(boxes: BoxSet) -> Iterator[tuple[Ints, Ints]]:
    """Yield all pairs within an image, some images at a time. Both sides are stored image after image."""
    n_truth = np.bincount(boxes.truth_image, minlength=boxes.images)
    first_truth = np.cumsum(n_truth) - n_truth
    width = n_truth[boxes.found_image]
    ends = np.cumsum(width)
    cuts = np.searchsorted(ends, np.arange(PAIRS_AT_ONCE, ends[-1] if len(ends) else 0, PAIRS_AT_ONCE))
    for part in np.split(np.arange(len(width)), np.unique(cuts)):
        n = width[part]
        found = np.repeat(part, n)
        within = np.arange(len(found)) - np.repeat(np.cumsum(n) - n, n)
        if len(found):
            yield found, first_truth[boxes.found_image[found]] + within


def _overlaps(boxes: BoxSet, found: Ints, truth: Ints) -> Overlaps:
    """Those of the pairs that overlap. Most do not even in one direction, so the other is looked at afterwards."""
    wide = _shared(boxes, found, truth, 0)
    keep = np.flatnonzero(wide > 0)
    found, truth, wide = found[keep], truth[keep], wide[keep]
    high = _shared(boxes, found, truth, 1)
    keep = np.flatnonzero(high > 0)
    found, truth, shared = found[keep], truth[keep], wide[keep] * high[keep]
    area, other = _area(boxes.found_box)[found], _area(boxes.truth_box)[truth]
    return Overlaps(found, truth, shared / np.where(boxes.crowd[truth], area, area + other - shared))


def _closeness(boxes: BoxSet, found: Ints, truth: Ints) -> Overlaps:
    """Of points, those of the pairs that are less than twice ``boxes.reach`` pixels apart."""
    assert boxes.reach is not None
    a, b = (box[:, :2] + box[:, 2:] for box in (boxes.found_box[found], boxes.truth_box[truth]))
    close = 1 - np.hypot(*(a - b).T) / 2 / (2 * boxes.reach)
    keep = close > 0
    return Overlaps(found[keep], truth[keep], close[keep])


def _shared(boxes: BoxSet, found: Ints, truth: Ints, axis: int) -> Floats:
    """How long both boxes of each pair reach side by side along x (0) or y (1), below 0 where they do not."""
    low, high = (np.ascontiguousarray(boxes.found_box[:, k])[found] for k in (axis, axis + 2))
    np.maximum(low, np.ascontiguousarray(boxes.truth_box[:, axis])[truth], out=low)
    np.minimum(high, np.ascontiguousarray(boxes.truth_box[:, axis + 2])[truth], out=high)
    return np.subtract(high, low, out=high)


def _area(box: Floats) -> Floats:
    return (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])


def choices(pairs: Overlaps, last: Bools | None = None) -> Overlaps:
    """Return the pairs detection by detection, each in the order in which it would take its truths.

    Args:
        pairs: the admissible ones.
        last: ``[T]`` truths that a detection takes only where no other is free; None: none.
    """
    keys = (-pairs.truth, -pairs.iou) if last is None else (-pairs.truth, -pairs.iou, last[pairs.truth])
    order = np.lexsort((*keys, pairs.found))
    return Overlaps(pairs.found[order], pairs.truth[order], pairs.iou[order])


def greedy(chosen: Overlaps, rank: Ints, truths: int, *, shared: Bools | None = None) -> tuple[Ints, Ints]:
    """Return ``(found, truth)`` of the pairs that the greedy rule takes.

    Args:
        chosen: the admissible pairs as :func:`choices` sorts them, or some of these.
        rank: ``[D]`` order in which detections choose, 0 first.
        truths: number of truths T.
        shared: ``[T]`` truths that any number of detections may take; None: none.
    """
    truth = chosen.truth
    wish = np.flatnonzero(np.diff(chosen.found, prepend=-1))
    chooser, end = chosen.found[wish], np.append(wish[1:], len(truth))
    place = rank[chooser]
    holder = np.full(truths, np.iinfo(np.int64).max)  # the rank that holds each truth
    active = np.arange(len(chooser))
    while True:
        wanted = truth[wish[active]]
        np.minimum.at(holder, wanted, place[active])
        taken = holder[wanted] != place[active]
        lost = active[taken if shared is None else taken & ~shared[wanted]]
        if not len(lost):
            return chooser[active], wanted
        wish[lost] += 1
        active = active[wish[active] < end[active]]


def match_boxes(boxes: BoxSet, iou: float = 0.5, pairs: Overlaps | None = None) -> BoxMatch:
    """Match by COCO's rule at one IoU.

    Args:
        boxes: the data set.
        iou: least overlap, in (0, 1].
        pairs: :func:`overlaps` of these boxes, where they are known already.

    Raises ``ValueError`` for an IoU outside (0, 1].
    """
    if not 0 < iou <= 1:
        raise ValueError(f"iou must lie in (0, 1], got {iou}")
    every = overlaps(boxes) if pairs is None else pairs
    same = boxes.found_label[every.found] == boxes.truth_label[every.truth]
    near = every.select(same & (every.iou >= min(iou, ALMOST_ONE)))
    crowd = boxes.crowd[near.truth]
    truth_of_found = np.full(len(boxes.scores), -1, np.int64)
    found_of_truth = np.full(len(boxes.crowd), -1, np.int64)
    found, truth = greedy(choices(near.select(~crowd)), boxes.rank, len(boxes.crowd))
    truth_of_found[found], found_of_truth[truth] = truth, found
    excused = boxes.open.copy()
    excused[near.found[crowd]] = True
    return BoxMatch(truth_of_found, found_of_truth, excused & (truth_of_found < 0))


@dataclass(frozen=True, slots=True)
class BoxRow:
    """One detection and what it is: a row of ``matches.parquet``.

    ``hit``: it took a truth. ``ignored``: it took none and is excused. ``duplicate``: it overlaps a truth of its class
    that another detection took. ``wrong_class``: it overlaps a truth of another class. ``false_alarm``: the rest.
    ``object`` is the row, within the image, of the truth that makes it so (-1 for false alarms and ignored ones);
    ``iou`` the overlap with it, for the others the best overlap with any truth that counts (0 for none).
    """

    image: int
    cell: int
    score: float
    label: int
    box: tuple[float, float, float, float]
    iou: float
    object: int
    kind: BoxKind


@dataclass(frozen=True, slots=True)
class MissedBox:
    """One truth that counts and was not found; ``object`` is its row within its image."""

    image: int
    object: int
    label: int
    box: tuple[float, float, float, float]


def box_table(
    truth: Sequence[Scene], found: Sequence[Detections], *, threshold: float = 0.0, iou: float = 0.5
) -> tuple[list[BoxRow], list[MissedBox]]:
    """Return a row for every detection of ``score >= threshold`` and one for every truth missed by them.

    ``image`` is the index into ``truth``; rows are in order of image, then as given. Raises ``ValueError`` as
    :meth:`BoxSet.of <boresight.evaluate.box_set.BoxSet.of>` does.
    """
    boxes = BoxSet.of(truth, found).above(threshold)
    pairs = overlaps(boxes)
    match = match_boxes(boxes, iou, pairs)
    kind, other, overlap = _kinds(boxes, match, pairs, min(iou, ALMOST_ONE))
    place = np.where(other >= 0, np.append(boxes.truth_object, -1)[other], -1)
    columns = (boxes.found_image, boxes.cell, boxes.scores, boxes.found_label)
    rows = [
        BoxRow(image, cell, score, label, (x0, y0, x1, y1), value, number, sort)
        for image, cell, score, label, (x0, y0, x1, y1), value, number, sort in zip(
            *(c.tolist() for c in (*columns, boxes.found_box, overlap, place, kind)), strict=True
        )
    ]
    lost = np.flatnonzero((match.found_of_truth < 0) & boxes.counted)
    of_truth = (boxes.truth_image, boxes.truth_object, boxes.truth_label, boxes.truth_box)
    missed = [
        MissedBox(image, number, label, (x0, y0, x1, y1))
        for image, number, label, (x0, y0, x1, y1) in zip(*(c[lost].tolist() for c in of_truth), strict=True)
    ]
    return rows, missed


def _kinds(boxes: BoxSet, match: BoxMatch, pairs: Overlaps, iou: float) -> tuple[np.ndarray, Ints, Floats]:
    """Return the kind of each detection, the truth that makes it so, and the overlap to show."""
    counting = pairs.select(boxes.counted[pairs.truth])
    same = boxes.found_label[counting.found] == boxes.truth_label[counting.truth]
    close = counting.iou >= iou
    own, own_iou = best_truth(counting.select(same & close), len(boxes.scores))
    wrong, wrong_iou = best_truth(counting.select(~same & close), len(boxes.scores))
    _, any_iou = best_truth(counting, len(boxes.scores))
    hit_iou = np.zeros(len(boxes.scores))
    taken = match.truth_of_found[counting.found] == counting.truth
    hit_iou[counting.found[taken]] = counting.iou[taken]
    cases: list[Bools] = [match.hit, match.ignored, own >= 0, wrong >= 0]
    kind = np.select(cases, ["hit", "ignored", "duplicate", "wrong_class"], "false_alarm")
    other = np.select(cases, [match.truth_of_found, np.full_like(own, -1), own, wrong], -1)
    return kind, other, np.select(cases, [hit_iou, any_iou, own_iou, wrong_iou], any_iou)


def best_truth(pairs: Overlaps, found: int) -> tuple[Ints, Floats]:
    """Return, for each of ``found`` detections, the truth of highest overlap (-1 for none) and that overlap (0).

    The pairs are sorted, as :func:`overlaps` returns them. Of equal overlaps the later truth is taken, as in the
    matching.
    """
    truth, iou = np.full(found, -1, np.int64), np.zeros(found)
    if not len(pairs.found):
        return truth, iou
    first = np.flatnonzero(np.diff(pairs.found, prepend=-1))
    iou[pairs.found[first]] = np.maximum.reduceat(pairs.iou, first)
    best = np.flatnonzero(pairs.iou == iou[pairs.found])
    truth[pairs.found[best]] = pairs.truth[best]  # the last of equals is written last
    return truth, iou
