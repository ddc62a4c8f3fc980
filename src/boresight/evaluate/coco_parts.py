"""COCO's twelve figures of data sets that come some images at a time; of a detection 27 bytes are kept.

A part is matched as soon as it comes: what a detection is depends on its own image alone. Kept are its score, its class
and, for each range of areas, at which of the ten IoUs it is a hit and at which a false alarm. Precision and recall of a
class come out of one sort at the end, as exact as of everything at once.

The rules of areas are COCO's: a truth outside of the range, like a crowd, may be taken and need not be; a detection
prefers truths that count; one that took no truth that counts is left out if it took another, or lies outside itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from boresight.evaluate.average_precision import LIMIT, by_class, curve_ap
from boresight.evaluate.box_match import ALMOST_ONE, Overlaps, choices, greedy
from boresight.evaluate.box_set import BoxSet
from boresight.evaluate.column import Column
from boresight.evaluate.detection import SUMMARY, ClassFigures, CocoFigures
from boresight.evaluate.pairs import Bools, Floats, Ints

IOUS = np.linspace(0.5, 0.95, 10)
AREAS = ((0.0, 1e10), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e10))
"""All, small, medium and large, in pixels."""
FIRST = (1, 10, LIMIT)
"""Detections of a class in an image that recall looks at."""

Bits = NDArray[np.uint16]


@dataclass
class CocoParts:
    """Collects parts; once :meth:`figures` has told, nothing can be added.

    Args:
        classes: their names.

    Attributes:
        images: so far.
        truths: ``[A, C]`` that count in each range of areas, so far.
        scores, label: columns ``[D]`` of the detections that were taken in.
    """

    classes: Sequence[str]
    images: int = 0
    truths: Ints = field(init=False)
    scores: Column = field(default_factory=Column, init=False)
    label: Column = field(default_factory=Column, init=False)
    _place: Column = field(default_factory=Column, init=False)
    _hits: tuple[Column, ...] = field(default_factory=lambda: tuple(Column() for _ in AREAS), init=False)
    _false: tuple[Column, ...] = field(default_factory=lambda: tuple(Column() for _ in AREAS), init=False)
    _told: CocoFigures | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.truths = np.zeros((len(AREAS), len(self.classes)), np.int64)

    def add(self, best: BoxSet, pairs: Overlaps) -> tuple[Bools, Bools]:
        """Take in some images.

        Args:
            best: the :data:`LIMIT` best detections of each class in each image, and all truths. Images come by rising
                id: of equal scores the one that came first stands first.
            pairs: overlaps of these.

        Returns:
            Hits and false alarms at each IoU of :data:`IOUS` among truths of all areas, ``[10, D]``.

        Raises ``RuntimeError`` after :meth:`figures`.
        """
        if self._told is not None:
            raise RuntimeError("the figures were told already: collect anew")
        same = pairs.select(best.found_label[pairs.found] == best.truth_label[pairs.truth])
        same = same.select(same.iou >= IOUS[0])
        sizes = [(box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) for box in (best.found_box, best.truth_box)]
        hits, false = (np.zeros((len(AREAS), len(IOUS), len(best.scores)), np.bool_) for _ in range(2))
        for a, (low, high) in enumerate(AREAS):
            outside_found, outside = ((size < low) | (size > high) for size in sizes)
            outside |= best.crowd
            self.truths[a] += np.bincount(best.truth_label[~outside], minlength=len(self.classes))
            near = choices(same, last=outside)
            for t, iou in enumerate(IOUS):
                near = near.select(near.iou >= min(iou, ALMOST_ONE))
                found, truth = greedy(near, best.rank, len(best.crowd), shared=best.crowd)
                took = np.zeros(len(best.scores), np.bool_)
                took[found] = True
                hits[a, t, found[~outside[truth]]] = True
                false[a, t] = ~took & ~outside_found & ~best.open
        self.images += best.images
        for columns, flags in ((self._hits, hits), (self._false, false)):
            for column, of_area in zip(columns, flags, strict=True):
                column.add(as_bits(of_area))
        self.scores.add(best.scores)
        self.label.add(best.found_label.astype(np.min_scalar_type(len(self.classes))))
        self._place.add(best.places().astype(np.uint8))
        return hits[0], false[0]

    def by_iou(self) -> Iterator[tuple[Bools, Bools]]:
        """Hits and false alarms ``[D]`` of everything taken in, at each IoU in turn, among truths of all areas."""
        for t in range(len(IOUS)):
            hits, false = (columns[0].whole() >> t & 1 for columns in (self._hits, self._false))
            yield hits.astype(np.bool_), false.astype(np.bool_)

    def figures(self) -> CocoFigures:
        """The figures of everything that was taken in. What no other method needs is let go."""
        if self._told is None:
            self._told = self._figures()
            for column in (self._place, *self._hits[1:], *self._false[1:]):
                column.take()
        return self._told

    def _figures(self) -> CocoFigures:
        precision = np.full((len(IOUS), len(self.classes), len(AREAS)), -1.0)
        recall = np.full((len(IOUS), len(self.classes), len(AREAS), len(FIRST)), -1.0)
        scores, label, place = (column.whole() for column in (self.scores, self.label, self._place))
        for k, mine in enumerate(by_class(label, len(self.classes))):
            rows = mine[np.argsort(-scores[mine], kind="stable")]
            for a in np.flatnonzero(self.truths[:, k]):
                hits, false = (columns[a].whole()[rows] for columns in (self._hits, self._false))
                use = np.flatnonzero(hits | false)
                told = _of_class(hits[use], false[use], place[rows[use]], int(self.truths[a, k]))
                precision[:, k, a], recall[:, k, a] = told
        return self._summary(precision, recall)

    def _summary(self, precision: Floats, recall: Floats) -> CocoFigures:
        told: dict[str, float | None] = {}
        for name, kind, iou, area, most in SUMMARY:
            rows = slice(None) if iou is None else np.isclose(IOUS, iou)
            told[name] = _mean(precision[rows, :, area] if kind == "precision" else recall[rows, :, area, most])
        per_class = tuple(
            ClassFigures(name, int(self.truths[0, k]), _mean(precision[:, k, 0]), _mean(precision[:1, k, 0]))
            for k, name in enumerate(self.classes)
        )
        return CocoFigures(self.images, int(self.truths[0].sum()), per_class=per_class, **told)


def as_bits(flags: Bools) -> Bits:
    """``[B, D]`` flags, 16 at the most, as one number a detection: bit ``b`` is flag ``b``."""
    bits = np.zeros(flags.shape[1], np.uint16)
    for t, flag in enumerate(flags):
        bits |= flag.astype(np.uint16) << np.uint16(t)
    return bits


def _of_class(hits: Bits, false: Bits, place: NDArray[np.uint8], truths: int) -> tuple[Floats, Floats]:
    """Precision ``[10]`` and recall ``[10, 3]`` at each IoU, of detections of a class in falling order of score."""
    precision, recall = np.zeros(len(IOUS)), np.zeros((len(IOUS), len(FIRST)))
    for t in range(len(IOUS)):
        at = np.flatnonzero(hits & (1 << t))
        wrong = np.cumsum((false >> t & 1).astype(np.int64))
        tp, fp = np.arange(1, len(at) + 1)[None], wrong[at][None]
        precision[t] = curve_ap(tp, fp, np.array([float(truths)]))[0]
        recall[t] = [int((place[at] < most).sum()) / truths for most in FIRST]
    return precision, recall


def _mean(values: Floats) -> float | None:
    known = values[values > -1]
    return float(known.mean()) if known.size else None
