"""The score threshold that suits boxes best, and the counts of each image at one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from boresight.core.types import Detections, Scene
from boresight.evaluate.box_match import match_boxes
from boresight.evaluate.box_set import BoxSet
from boresight.evaluate.ladder import FALLBACK_THRESHOLD
from boresight.evaluate.pairs import Bools, Floats, Ints


def per_image_counts(truth: Sequence[Scene], found: Sequence[Detections], threshold: float, iou: float = 0.5) -> Ints:
    """Return ``[N, 3]`` counts ``(tp, fp, fn)`` of each image over all classes, at ``score >= threshold``.

    Excused detections are in none of them. The rows are what
    :func:`~boresight.evaluate.bootstrap.paired_f1_difference` resamples.
    """
    return counts_of(BoxSet.of(truth, found), threshold, iou)


def counts_of(boxes: BoxSet, threshold: float, iou: float = 0.5) -> Ints:
    """:func:`per_image_counts` of a data set that is gathered already."""
    boxes = boxes.above(threshold)
    match = match_boxes(boxes, iou)
    tp, fp = (np.bincount(boxes.found_image[x], minlength=boxes.images) for x in (match.hit, match.false))
    truths = np.bincount(boxes.truth_image[boxes.counted], minlength=boxes.images)
    return np.stack([tp, fp, truths - tp], axis=1)


def best_f_threshold(truth: Sequence[Scene], found: Sequence[Detections], iou: float = 0.5) -> float:
    """Return the threshold that maximises F1 over all detections of the data set (one threshold for all classes).

    The middle of the widest stretch of thresholds of the best F1 is taken, so that a small shift of the scores changes
    nothing; where no threshold gives a hit it is ``FALLBACK_THRESHOLD``. The greedy rule chooses best first, so that
    one matching of everything holds the matching at every threshold.
    """
    return best_f_of(BoxSet.of(truth, found), iou)


def best_f_of(boxes: BoxSet, iou: float = 0.5) -> float:
    """:func:`best_f_threshold` of a data set that is gathered already."""
    match = match_boxes(boxes, iou)
    return best_f_from(boxes.scores, match.hit, match.false, int(boxes.counted.sum()))


def best_f_from(scores: Floats, hits: Bools, false: Bools, truths: int) -> float:
    """:func:`best_f_threshold` of detections ``[D]`` that are known to be hits, false alarms or neither."""
    if not hits.any():
        return FALLBACK_THRESHOLD
    order = np.argsort(scores)[::-1]
    falling = scores[order]
    last = np.append(falling[1:] != falling[:-1], True)
    tp, found = (np.cumsum(x[order], dtype=np.int64)[last] for x in (hits, hits | false))
    del order  # here and below: whole columns of a large data set, held no longer than they are looked at
    falling = falling[last]
    found += truths
    return widest_best(falling, 2 * tp / found)


def widest_best(scores: Floats, f1: Floats) -> float:
    """Return the middle of the widest stretch of thresholds at which ``f1`` is best.

    Args:
        scores: ``[K]`` distinct scores, falling.
        f1: ``[K]`` the figure of the detections with at least that score.

    A threshold anywhere between two neighbouring scores lets in the same detections; below the lowest score the stretch
    reaches down to 0. Of equally wide stretches the highest is taken.
    """
    lower = np.append(scores[1:], min(0.0, float(scores[-1])))
    best = np.flatnonzero(f1 == f1.max())
    runs = np.split(best, np.flatnonzero(np.diff(best) > 1) + 1)
    top, bottom = max(((float(scores[r[0]]), float(lower[r[-1]])) for r in runs), key=lambda edge: edge[0] - edge[1])
    middle = float(scores.dtype.type((top + bottom) / 2))
    # Between two neighbouring floats the middle rounds to one of them, and the lower one would let more in.
    return middle if middle > bottom else top
