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
# Pairs looked at in one go: bounds memory (some 100 MB), whatever the number of images.
PAIRS_AT_ONCE = 1_000_000


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
    parts = [_overlaps(boxes, *pairs) for pairs in _pairs_by_image(boxes)]
    if not parts:
        return Overlaps(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    joined = Overlaps(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("found", "truth", "iou")))
    order = np.lexsort((joined.truth, joined.found))
    return Overlaps(joined.found[order], joined.truth[order], joined.iou[order])


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
    a, b = boxes.found_box[found], boxes.truth_box[truth]
    side = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    shared = np.where((side > 0).all(axis=1), side.prod(axis=1), 0.0)
    area = (a[:, 2:] - a[:, :2]).prod(axis=1)
    whole = np.where(boxes.crowd[truth], area, area + (b[:, 2:] - b[:, :2]).prod(axis=1) - shared)
    keep = shared > 0
    return Overlaps(found[keep], truth[keep], shared[keep] / whole[keep])


def greedy(pairs: Overlaps, rank: Ints, truths: int) -> tuple[Ints, Ints]:
    """Return ``(found, truth)`` of the pairs that the greedy rule takes.

    Args:
        pairs: the admissible ones.
        rank: ``[D]`` order in which detections choose, 0 first.
        truths: number of truths.
    """
    order = np.lexsort((-pairs.truth, -pairs.iou, pairs.found))
    found, truth = pairs.found[order], pairs.truth[order]
    chooser, first, count = np.unique(found, return_index=True, return_counts=True)
    wish, end, place = first.copy(), first + count, rank[chooser]
    holder = np.full(truths, np.iinfo(np.int64).max)  # the rank that holds each truth
    active = np.arange(len(chooser))
    while True:
        np.minimum.at(holder, truth[wish[active]], place[active])
        lost = active[holder[truth[wish[active]]] != place[active]]
        if not len(lost):
            return chooser[active], truth[wish[active]]
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
    found, truth = greedy(near.select(~crowd), boxes.rank, len(boxes.crowd))
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
    own, own_iou = _best(counting.select(same & close), len(boxes.scores))
    wrong, wrong_iou = _best(counting.select(~same & close), len(boxes.scores))
    _, any_iou = _best(counting, len(boxes.scores))
    hit_iou = np.zeros(len(boxes.scores))
    taken = match.truth_of_found[counting.found] == counting.truth
    hit_iou[counting.found[taken]] = counting.iou[taken]
    cases: list[Bools] = [match.hit, match.ignored, own >= 0, wrong >= 0]
    kind = np.select(cases, ["hit", "ignored", "duplicate", "wrong_class"], "false_alarm")
    other = np.select(cases, [match.truth_of_found, np.full_like(own, -1), own, wrong], -1)
    return kind, other, np.select(cases, [hit_iou, any_iou, own_iou, wrong_iou], any_iou)


def _best(pairs: Overlaps, found: int) -> tuple[Ints, Floats]:
    """Return the truth of highest overlap of each detection (-1 for none) and that overlap (0 for none)."""
    order = np.lexsort((pairs.truth, pairs.iou))  # the best is written last
    truth, iou = np.full(found, -1, np.int64), np.zeros(found)
    truth[pairs.found[order]], iou[pairs.found[order]] = pairs.truth[order], pairs.iou[order]
    return truth, iou
