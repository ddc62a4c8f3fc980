"""AP50 under image weights, so that its interval needs one matching and no second run of the evaluator.

A replicate of the bootstrap draws images again and again: it is a weight an image. Precision and recall are ratios of
counts that add over images, so a replicate is a running sum of weights along the ranking of a class. As many replicates
are summed at once as stay near the processor; what is held beside the weights does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boresight.core.types import Detections, Scene
from boresight.evaluate.bootstrap import Interval, image_weights, percentile_interval, whole
from boresight.evaluate.box_match import match_boxes
from boresight.evaluate.box_set import BoxSet
from boresight.evaluate.pairs import Bools, Floats, Ints

RECALLS = np.linspace(0.0, 1.0, 101)
LIMIT = 100  # detections of a class in an image that COCO looks at
AT_ONCE = 2**17
"""Numbers of one kind, replicates times places, that are worked on together: they fit into a cache."""


@dataclass(frozen=True, slots=True)
class ClassSteps:
    """What one class adds to the precision-recall curve: the image of each of the following.

    Attributes:
        hits: ``[K]`` hits in falling order of score.
        false: ``[F]`` false alarms before the last hit, in the same order: precision is highest at hits, so nothing
            that follows matters.
        before: ``[K]`` how many of the false alarms come before each hit.
        truths: ``[T]`` truths that count.
    """

    hits: Ints
    false: Ints
    before: Ints
    truths: Ints


def class_steps(boxes: BoxSet, iou: float, classes: int) -> list[ClassSteps]:
    """Match once at ``iou`` and return the steps of every class."""
    boxes = boxes.best(LIMIT)
    match = match_boxes(boxes, iou)
    return list(steps_of(boxes, match.hit, match.false, classes))


def steps_of(
    boxes: BoxSet, hits: Bools, false: Bools, classes: int, scores: Floats | None = None
) -> Iterator[ClassSteps]:
    """Yield the steps of every class in turn.

    Args:
        boxes: the data set; boxes themselves are not looked at.
        hits, false: ``[D]`` detections that are known to be hits and false alarms; others are neither.
        classes: their number.
        scores: ``[D]`` by which to rank; of equal ones that goes first which does in ``boxes``. None: as in ``boxes``.
    """
    truths = by_class(boxes.truth_label, classes, np.flatnonzero(boxes.counted))
    for mine, there in zip(by_class(boxes.found_label, classes), truths, strict=True):
        used = mine[hits[mine] | false[mine]]
        rows = used[np.argsort(boxes.rank[used])]
        if scores is not None:
            rows = rows[np.argsort(-scores[rows], kind="stable")]
        hit, image = hits[rows], boxes.found_image[rows]
        at = np.flatnonzero(hit)
        last = int(at[-1]) if len(at) else 0
        yield ClassSteps(image[at], image[:last][~hit[:last]], at - np.arange(len(at)), boxes.truth_image[there])


def by_class(label: Ints, classes: int, rows: Ints | None = None) -> list[Ints]:
    """Return the places of each class in ``label``, rising; of some ``rows`` those of the class, in their order."""
    given = label if rows is None else label[rows]
    order = np.argsort(given, kind="stable")
    cuts = np.searchsorted(given[order], np.arange(1, classes))
    return np.split(order if rows is None else rows[order], cuts)


def weighted_ap(steps: ClassSteps, weights: NDArray[Any]) -> Floats:
    """Return the 101-point AP of a class under each row of ``weights [R, N]``, ``[R]``; NaN without truth.

    Raises ``ValueError`` for weights that are no whole numbers.
    """
    values = []
    for rows in some_rows(whole(weights), len(steps.hits) + len(steps.false)):
        tp, fp = so_far(rows, steps.hits)[:, 1:], so_far(rows, steps.false).take(steps.before, axis=1)
        values.append(curve_ap(tp, fp, drawn_of(rows, steps.truths)))
    return np.concatenate(values or [np.zeros(0)])


def some_rows(weights: NDArray[Any], width: int) -> Iterator[NDArray[Any]]:
    """Yield the rows of a table of weights, as many at a time as make :data:`AT_ONCE` numbers of ``width`` columns."""
    step = max(1, AT_ONCE // max(1, width))
    for first in range(0, len(weights), step):
        yield weights[first : first + step]


def so_far(weights: NDArray[Any], images: Ints) -> Ints:
    """Return how much the first none, one, two... of some things in ``images [K]`` weigh, ``[R, K + 1]``."""
    total = np.zeros((len(weights), len(images) + 1), np.int64)
    np.cumsum(weights.take(images, axis=1).astype(np.int64), axis=1, out=total[:, 1:])
    return total


def drawn_of(weights: NDArray[Any], images: Ints) -> Floats:
    """Return how much some things in ``images [T]`` weigh together, ``[R]``."""
    return weights.take(images, axis=1).sum(axis=1, dtype=np.int64).astype(np.float64)


def curve_ap(tp: Ints | Floats, fp: Ints | Floats, truths: Floats, reached: Ints | None = None) -> Floats:
    """Return the area under each of R precision-recall curves, by the 101 points of COCO; NaN without truth.

    Args:
        tp, fp: ``[R, K]`` hits and false alarms so far, at K places in falling order of score; every hit must be one.
        truths: ``[R]`` how many there are to find.
        reached: :func:`recall_places` of ``tp`` and ``truths``, where they are known already.
    """
    at = recall_places(tp, truths) if reached is None else reached
    return envelope_ap(precision_of(tp, fp), at, truths)


def precision_of(tp: Ints | Floats, fp: Ints | Floats) -> Floats:
    """Return the share of hits so far, of counts of one shape."""
    precision = np.add(tp, fp, dtype=np.float64)
    precision += np.spacing(1)
    return np.divide(tp, precision, out=precision)


def envelope_ap(precision: Floats, reached: Ints, truths: Floats) -> Floats:
    """:func:`curve_ap` of a precision ``[R, K]`` and the places ``[R, 101]`` at which each recall is reached."""
    curves, places = precision.shape
    if not places:
        return np.where(truths > 0, 0.0, np.nan)
    # The first recall is reached at place 0, so that the stretches of one curve end where the next curve begins.
    first = np.minimum(reached, places - 1) + places * np.arange(curves)[:, None]
    best = np.maximum.reduceat(precision.ravel(), first.ravel()).reshape(first.shape)
    best = np.maximum.accumulate(best[:, ::-1], axis=1)[:, ::-1]
    best[reached >= places] = 0.0
    return np.where(truths > 0, best.mean(axis=1), np.nan)


def recall_places(tp: Ints | Floats, truths: Floats) -> Ints:
    """Return the first place at which each recall of :data:`RECALLS` is reached, ``[R, 101]``, K where it never is.

    Args:
        tp: ``[R, K]`` whole numbers of hits so far.
        truths: ``[R]``; without any, every recall but the first is out of reach.
    """
    there = np.maximum(truths, 1)[:, None]
    least = np.ceil(RECALLS * there)
    least -= (least - 1) / there >= RECALLS
    least += least / there < RECALLS
    places = np.empty(least.shape, np.int64)
    for place, row, wanted in zip(places, tp, least.astype(tp.dtype), strict=True):
        place[:] = row.searchsorted(wanted)
    places[truths <= 0, 1:] = tp.shape[1]
    return places


def mean_ap(steps: Iterable[ClassSteps], weights: NDArray[Any]) -> Floats:
    """Return the mean of :func:`weighted_ap` over the classes that have truth, ``[R]``; NaN where none has."""
    total, count = np.zeros(len(weights)), np.zeros(len(weights))
    rows = whole(weights)
    for step in steps:
        ap = weighted_ap(step, rows)
        known = np.isfinite(ap)
        total[known] += ap[known]
        count += known
    return np.divide(total, count, out=np.full(len(weights), np.nan), where=count > 0)


def ap_interval(
    truth: Sequence[Scene],
    found: Sequence[Detections],
    classes: Sequence[str],
    *,
    iou: float = 0.5,
    replicates: int = 1000,
    seed: int = 0,
) -> tuple[float | None, Interval | None]:
    """Return COCO's AP at one IoU and its 95 % interval over resampled images.

    The value equals that of :func:`~boresight.evaluate.detection.coco_figures`. In each replicate the mean is over the
    classes that it drew truth of. Both are None without truth.
    """
    value, samples = _drawn(truth, found, classes, iou, replicates, seed)
    return (value, percentile_interval(samples)) if np.isfinite(value) else (None, None)


def ap_difference(
    truth: Sequence[Scene],
    before: Sequence[Detections],
    after: Sequence[Detections],
    classes: Sequence[str],
    *,
    iou: float = 0.5,
    replicates: int = 1000,
    seed: int = 0,
) -> tuple[float | None, Interval | None]:
    """Return how much higher AP at one IoU is ``after`` than ``before``, and its 95 % interval over resampled images.

    Every replicate judges both on the same images. Both are None without truth.
    """
    (one, low), (two, high) = (_drawn(truth, found, classes, iou, replicates, seed) for found in (before, after))
    return (two - one, percentile_interval(high - low)) if np.isfinite(two - one) else (None, None)


def _drawn(
    truth: Sequence[Scene], found: Sequence[Detections], classes: Sequence[str], iou: float, replicates: int, seed: int
) -> tuple[float, Floats]:
    """AP at one IoU (NaN without truth), and that of every replicate."""
    if not truth:
        return float("nan"), np.zeros(0)
    steps = class_steps(BoxSet.of(truth, found), iou, len(classes))
    value = float(mean_ap(steps, np.ones((1, len(truth))))[0])
    return value, mean_ap(steps, image_weights(len(truth), replicates, seed))
