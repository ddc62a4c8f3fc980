"""The only matcher: which detection stands for which point of truth.

A detection may stand for a truth when both have the same label and lie no farther apart than the tolerance, the
tolerance itself included (``distance <= tolerance``, pixel frame, float64). Among all one-to-one assignments that obey
this, one with the most pairs is taken, among those one with the least total distance, and among those one that leaves
the fewest false alarms. A greedy matcher can lose pairs that exist; this one cannot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from boresight.evaluate.pairs import Bools, Floats, Ints, Pairs, admissible, counting, optimal


@dataclass(frozen=True, slots=True)
class PointMatch:
    """Who stands for whom among ``T`` truths and ``D`` detections.

    Attributes:
        found_of_truth: ``[T]`` the detection of each truth, -1 for none (always -1 for don't-care truths).
        truth_of_found: ``[D]`` the truth of each detection, -1 for none.
        distance: ``[D]`` pixels between a detection and its truth, inf where it has none.
        dont_care: ``[T]`` bool, the truths that do not count.
        near_truth: ``[D]`` bool, within tolerance of a truth that counts.
        near_dont_care: ``[D]`` bool, within tolerance of a don't-care truth.
    """

    found_of_truth: Ints
    truth_of_found: Ints
    distance: Floats
    dont_care: Bools
    near_truth: Bools
    near_dont_care: Bools

    @property
    def hit(self) -> Bools:
        """``[D]`` detections that stand for a truth."""
        return self.truth_of_found >= 0

    @property
    def ignored(self) -> Bools:
        """``[D]`` detections without a truth that lie on a don't-care one: neither hits nor false alarms."""
        return ~self.hit & self.near_dont_care

    @property
    def false_alarm(self) -> Bools:
        """``[D]`` all other detections, duplicates among them."""
        return ~self.hit & ~self.near_dont_care

    @property
    def duplicate(self) -> Bools:
        """``[D]`` false alarms within tolerance of a truth that another detection took."""
        return self.false_alarm & self.near_truth

    @property
    def missed(self) -> Bools:
        """``[T]`` truths that count and that no detection stands for."""
        return (self.found_of_truth < 0) & ~self.dont_care


def match_points(
    truth_xy: ArrayLike,
    found_xy: ArrayLike,
    tolerance: float,
    *,
    truth_labels: ArrayLike | None = None,
    found_labels: ArrayLike | None = None,
    dont_care: ArrayLike | None = None,
) -> PointMatch:
    """Match detections to truths one to one: most pairs first, then least total distance.

    Args:
        truth_xy, found_xy: ``[T, 2]`` and ``[D, 2]``, pixel frame.
        tolerance: pixels, inclusive.
        truth_labels, found_labels: ``[T]`` and ``[D]`` integers; only equal labels match (None: all equal).
        dont_care: ``[T]`` bool, truths that take no detection but excuse those near them (None: all count).

    Raises ``ValueError`` on a negative or non-finite tolerance.
    """
    if not (np.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(f"tolerance must be a finite number of pixels >= 0, got {tolerance}")
    truth, found = (np.asarray(xy, np.float64).reshape(-1, 2) for xy in (truth_xy, found_xy))
    n_truth, n_found = len(truth), len(found)
    groups = [
        np.zeros(n, np.int64) if g is None else np.asarray(g, np.int64)
        for g, n in ((truth_labels, n_truth), (found_labels, n_found))
    ]
    ignore = np.zeros(n_truth, np.bool_) if dont_care is None else np.asarray(dont_care, np.bool_)
    every = admissible(truth, found, groups[0], groups[1], tolerance)
    return _result(*counting(every, ignore, n_found), ignore)


def _result(pairs: Pairs, excused: Bools, dont_care: Bools) -> PointMatch:
    n_truth, n_found = len(dont_care), len(excused)
    taken = pairs.select(optimal(pairs))
    found_of_truth, truth_of_found = np.full(n_truth, -1, np.int64), np.full(n_found, -1, np.int64)
    distance = np.full(n_found, np.inf)
    found_of_truth[taken.truth], truth_of_found[taken.found] = taken.found, taken.truth
    distance[taken.found] = taken.distance
    near = np.zeros(n_found, np.bool_)
    near[pairs.found] = True
    return PointMatch(found_of_truth, truth_of_found, distance, dont_care, near, excused)
