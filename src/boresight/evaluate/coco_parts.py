"""COCO's twelve figures of data sets that come some images at a time; of a detection some 25 bytes are kept.

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

from boresight.evaluate.average_precision import LIMIT, curve_ap
from boresight.evaluate.box_match import ALMOST_ONE, Overlaps, greedy
from boresight.evaluate.box_set import BoxSet
from boresight.evaluate.detection import SUMMARY, ClassFigures, CocoFigures
from boresight.evaluate.pairs import Bools, Floats, Ints

IOUS = np.linspace(0.5, 0.95, 10)
AREAS = ((0.0, 1e10), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e10))
"""All, small, medium and large, in pixels."""
FIRST = (1, 10, LIMIT)
"""Detections of a class in an image that recall looks at."""

Bits = NDArray[np.uint16]


@dataclass
class _Part:
    """What is kept of some images: of each detection, hits and false alarms by IoU as bits, ``[A, D]``."""

    scores: Floats
    label: NDArray[np.int32]
    place: NDArray[np.uint8]
    hits: Bits
    false: Bits


@dataclass
class CocoParts:
    """Collects parts.

    Args:
        classes: their names.

    Attributes:
        images: so far.
        truths: ``[A, C]`` that count in each range of areas, so far.
    """

    classes: Sequence[str]
    images: int = 0
    truths: Ints = field(init=False)
    _parts: list[_Part] = field(default_factory=list, init=False)

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
        """
        same = pairs.select(best.found_label[pairs.found] == best.truth_label[pairs.truth])
        same = same.select(same.iou >= IOUS[0])
        sizes = [(box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) for box in (best.found_box, best.truth_box)]
        hits, false = (np.zeros((len(AREAS), len(IOUS), len(best.scores)), np.bool_) for _ in range(2))
        for a, (low, high) in enumerate(AREAS):
            outside_found, outside = ((size < low) | (size > high) for size in sizes)
            outside |= best.crowd
            self.truths[a] += np.bincount(best.truth_label[~outside], minlength=len(self.classes))
            for t, iou in enumerate(IOUS):
                near = same.select(same.iou >= min(iou, ALMOST_ONE))
                found, truth = greedy(near, best.rank, len(best.crowd), last=outside, shared=best.crowd)
                took = np.zeros(len(best.scores), np.bool_)
                took[found] = True
                hits[a, t, found[~outside[truth]]] = True
                false[a, t] = ~took & ~outside_found & ~best.open
        self.images += best.images
        bits = [np.bitwise_or.reduce(x << np.arange(10, dtype=np.uint16)[:, None], axis=1) for x in _wide(hits, false)]
        label = best.found_label.astype(np.int32)
        self._parts.append(_Part(best.scores, label, _places(best), bits[0], bits[1]))
        return hits[0], false[0]

    def by_iou(self) -> Iterator[tuple[Bools, Bools]]:
        """Hits and false alarms ``[D]`` of everything taken in, at each IoU in turn, among truths of all areas."""
        for t in range(len(IOUS)):
            hits, false = (np.concatenate([getattr(p, n)[0] >> t & 1 for p in self._parts]) for n in ("hits", "false"))
            yield hits.astype(np.bool_), false.astype(np.bool_)

    def figures(self) -> CocoFigures:
        """The figures of everything that was taken in."""
        precision = np.full((len(IOUS), len(self.classes), len(AREAS)), -1.0)
        recall = np.full((len(IOUS), len(self.classes), len(AREAS), len(FIRST)), -1.0)
        scores, label, place = (_joined(self._parts, name) for name in ("scores", "label", "place"))
        hits, false = (_joined(self._parts, name, axis=1) for name in ("hits", "false"))
        order = np.argsort(label, kind="stable")
        first = np.searchsorted(label[order], np.arange(len(self.classes) + 1))
        for k in range(len(self.classes)):
            mine = order[first[k] : first[k + 1]]
            mine = mine[np.argsort(-scores[mine], kind="stable")]
            for a in np.flatnonzero(self.truths[:, k]):
                for t in range(len(IOUS)):
                    hit, wrong = (bits[a, mine] >> t & 1 for bits in (hits, false))
                    precision[t, k, a] = _precision(hit, wrong, int(self.truths[a, k]))
                    reached = [int(hit[place[mine] < most].sum()) for most in FIRST]
                    recall[t, k, a] = np.array(reached) / self.truths[a, k]
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


def _wide(*flags: Bools) -> list[Bits]:
    return [f.astype(np.uint16) for f in flags]


def _joined(parts: Sequence[_Part], name: str, axis: int = 0) -> NDArray:
    if not parts:
        return np.zeros((len(AREAS), 0) if axis else 0, np.int64)
    return np.concatenate([getattr(part, name) for part in parts], axis=axis)


def _places(boxes: BoxSet) -> NDArray[np.uint8]:
    """``[D]`` place of each detection among those of its class and image, best first; below :data:`LIMIT`."""
    order = np.lexsort((boxes.rank, boxes.found_label, boxes.found_image))
    new = np.ones(len(order), np.bool_)
    new[1:] = (np.diff(boxes.found_label[order]) != 0) | (np.diff(boxes.found_image[order]) != 0)
    first = np.flatnonzero(new)
    place = np.empty(len(order), np.uint8)
    place[order] = np.arange(len(order)) - np.repeat(first, np.diff(np.append(first, len(order))))
    return place


def _precision(hit: Bits, wrong: Bits, truths: int) -> float:
    """The area under the curve of detections in falling order of score; 0 without any."""
    at = np.flatnonzero(hit)
    tp, fp = np.arange(1.0, len(at) + 1), np.cumsum(wrong, dtype=np.float64)[at]
    return float(curve_ap(tp[:, None], fp[:, None], np.array([float(truths)]))[0])


def _mean(values: Floats) -> float | None:
    known = values[values > -1]
    return float(known.mean()) if known.size else None
