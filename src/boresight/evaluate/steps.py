"""The matcher at every threshold at once: how hits and false alarms change as the threshold falls."""

from __future__ import annotations

import numpy as np

from boresight.evaluate.gather import PointSet
from boresight.evaluate.pairs import Bools, Floats, Ints, Pairs, admissible, components, counting, solve, split


def count_steps(points: PointSet, tolerance: float) -> tuple[Ints, Ints]:
    """Return the exact change of the counts as each detection enters, ``(hits [D], false_alarms [D])``.

    The hits at any threshold are the sum of ``hits`` over the detections with ``score >= threshold``, and likewise the
    false alarms; both equal what matching from scratch at that threshold gives. A detection near no counting truth is
    a false alarm (or excused) at every threshold. Elsewhere a component is matched again at each distinct score in it,
    and the difference is booked on the first detection of that score. No step is negative: a newcomer adds a hit, or
    leaves one more detection (itself or the one it displaces) without a truth.
    """
    found_n = len(points.found_xy)
    hits = np.zeros(found_n, np.int64)
    every = admissible(points.truth_xy, points.found_xy, points.truth_group, points.found_group, tolerance)
    pairs, excused = counting(every, points.dont_care, found_n)
    false = (~excused).astype(np.int64)
    if len(pairs.truth):
        false[pairs.found] = 0
        for members in split(components(pairs)):
            _book(pairs.select(members), points.scores, excused, hits, false)
    return hits, false


def _book(pairs: Pairs, scores: Floats, excused: Bools, hits: Ints, false: Ints) -> None:
    """Write the steps of one component into ``hits`` and ``false``."""
    found = np.unique(pairs.found)
    one_truth = pairs.truth[0] == pairs.truth[-1]
    if one_truth and not excused[found].any():  # the best-scored detection hits, all others are duplicates
        best = found[scores[found].argmax()]
        false[found], false[best], hits[best] = 1, 0, 1
        return
    before = np.zeros(2, np.int64)
    for score in np.unique(scores[found])[::-1]:
        inside = pairs.select(scores[pairs.found] >= score)
        matched = inside.found[solve(inside)]
        rest = np.setdiff1d(found[scores[found] >= score], matched)
        now = np.array([len(matched), int((~excused[rest]).sum())])
        first = found[scores[found] == score][0]
        hits[first], false[first] = now - before
        before = now
