"""AP50 under image weights, so that its interval needs one matching and no second run of the evaluator.

A replicate of the bootstrap draws images again and again: it is a weight an image. Precision and recall are ratios of
counts that add over images, so all replicates come out of one sparse matrix product a class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csc_array

from boresight.core.types import Detections, Scene
from boresight.evaluate.bootstrap import Interval, image_weights, percentile_interval
from boresight.evaluate.box_match import match_boxes
from boresight.evaluate.box_set import BoxSet
from boresight.evaluate.pairs import Bools, Floats, Ints

RECALLS = np.linspace(0.0, 1.0, 101)
LIMIT = 100  # detections of a class in an image that COCO looks at


@dataclass(frozen=True, slots=True)
class ClassSteps:
    """What one class adds to the precision-recall curve, image by image; ``K`` hits in falling order of score.

    Attributes:
        hits, false: ``[N, K]`` sparse counts. Column ``k`` holds hit ``k`` in its image, and the false alarms between
            hit ``k - 1`` and hit ``k``: precision is highest at hits, so nothing else of the curve matters.
        truths: ``[N, 1]`` truths that count, sparse as well.
    """

    hits: csc_array
    false: csc_array
    truths: csc_array


def class_steps(boxes: BoxSet, iou: float, classes: int) -> list[ClassSteps]:
    """Match once at ``iou`` and return the steps of every class."""
    boxes = boxes.best(LIMIT)
    match = match_boxes(boxes, iou)
    return steps_of(boxes, match.hit, match.false, classes)


def steps_of(boxes: BoxSet, hits: Bools, false: Bools, classes: int) -> list[ClassSteps]:
    """The steps of every class, of detections ``[D]`` that are known to be hits, false alarms or neither.

    Boxes themselves are not looked at.
    """
    use = np.flatnonzero(hits | false)
    order = use[np.lexsort((boxes.rank[use], boxes.found_label[use]))]
    first = np.searchsorted(boxes.found_label[order], np.arange(classes + 1))
    steps = []
    for label in range(classes):
        mine = order[first[label] : first[label + 1]]
        hit, image = hits[mine], boxes.found_image[mine]
        column: Ints = np.cumsum(hit) - hit
        count = int(hit.sum())
        before = ~hit & (column < count)
        truths = boxes.truth_image[boxes.counted & (boxes.truth_label == label)]
        steps.append(
            ClassSteps(
                _counts(image[hit], column[hit], (boxes.images, count)),
                _counts(image[before], column[before], (boxes.images, count)),
                _counts(truths, np.zeros_like(truths), (boxes.images, 1)),
            )
        )
    return steps


def _counts(image: Ints, column: Ints, shape: tuple[int, int]) -> csc_array:
    return csc_array((np.ones(len(image)), (image, column)), shape=shape)


def weighted_ap(steps: ClassSteps, weights: Floats) -> Floats:
    """Return the 101-point AP of a class under each row of ``weights [R, N]``, ``[R]``; NaN without truth."""
    weights = weights.astype(np.float64, copy=False)
    truths = (steps.truths.T @ weights.T)[0]
    tp, fp = (np.cumsum((m.T @ weights.T), axis=0) for m in (steps.hits, steps.false))
    return curve_ap(tp, fp, truths)


def curve_ap(tp: Floats, fp: Floats, truths: Floats, reached: Ints | None = None) -> Floats:
    """Return the area under each of R precision-recall curves, by the 101 points of COCO; NaN without truth.

    Args:
        tp, fp: ``[K, R]`` hits and false alarms so far, at K places in falling order of score; every hit must be one.
        truths: ``[R]`` how many there are to find.
        reached: :func:`recall_places` of ``tp`` and ``truths``, where they are known already.
    """
    at = recall_places(tp, truths) if reached is None else reached
    precision = tp + fp
    precision += np.spacing(1)
    np.divide(tp, precision, out=precision)
    envelope = np.zeros((len(tp) + 1, len(truths)))  # recall never reached: precision 0
    np.maximum.accumulate(precision[::-1], axis=0, out=envelope[-2::-1])
    return np.where(truths > 0, envelope[at, np.arange(len(truths))].mean(axis=0), np.nan)


def recall_places(tp: Floats, truths: Floats) -> Ints:
    """Return the first place at which each recall of :data:`RECALLS` is reached, ``[101, R]``, K where it never is."""
    recall = np.divide(tp, truths, out=np.zeros(tp.shape), where=truths > 0)
    rows = np.ascontiguousarray(recall.T)
    places = np.empty((len(truths), len(RECALLS)), np.int64)
    for place, row in zip(places, rows, strict=True):
        place[:] = row.searchsorted(RECALLS)
    return places.T


def mean_ap(steps: Sequence[ClassSteps], weights: Floats) -> Floats:
    """Return the mean of :func:`weighted_ap` over the classes that have truth, ``[R]``; NaN where none has."""
    total, count = np.zeros(len(weights)), np.zeros(len(weights))
    for step in steps:
        ap = weighted_ap(step, weights)
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
