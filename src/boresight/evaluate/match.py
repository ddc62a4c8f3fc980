"""The only matcher: which detection stands for which point of truth, at one threshold and at every threshold.

A detection may stand for a truth when both have the same label and lie no farther apart than the tolerance, the
tolerance itself included (``distance <= tolerance``, pixel frame, float64). Among all one-to-one assignments that obey
this, one with the most pairs is taken, among those one with the least total distance, and among those one that leaves
the fewest false alarms. A greedy matcher can lose pairs that exist; this one cannot.

All images of a data set are matched in one call: image and label together make the *group* of a point, and points
match only within their group. The graph of admissible pairs falls apart into components of a few points each, and
only those with several truths and several detections need an assignment solver.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from boresight.core.types import Detections, Points

Ints = NDArray[np.int64]
Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

# Pixels. Among assignments of equal total distance, one that leaves excused detections over is taken, so that the
# counts do not hang on the order of the solver; far below any distance that matters, far above rounding.
TIE = 1e-9


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


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Admissible pairs, sorted by truth, then detection: ``truth[k]`` and ``found[k]`` lie ``distance[k]`` apart.

    ``cost`` is the distance plus what decides between equal distances.
    """

    truth: Ints
    found: Ints
    distance: Floats
    cost: Floats

    def select(self, keep: Bools | Ints) -> _Pairs:
        return _Pairs(self.truth[keep], self.found[keep], self.distance[keep], self.cost[keep])


def _admissible(truth: Floats, found: Floats, truth_group: Ints, found_group: Ints, tolerance: float) -> _Pairs:
    """Return every pair of one group within tolerance."""
    if not len(truth) or not len(found):
        return _Pairs(*np.zeros((2, 0), np.int64), *np.zeros((2, 0)))
    _, dense = np.unique(np.concatenate((truth_group, found_group)), return_inverse=True)
    # A third axis keeps groups farther apart than any tolerance; the search is a hair too wide and the exact test
    # follows, so that the inclusive edge does not hang on how the tree rounds.
    depth = dense.astype(float) * (4 * tolerance + 4)
    trees = [
        cKDTree(np.column_stack((xy, z))) for xy, z in ((truth, depth[: len(truth)]), (found, depth[len(truth) :]))
    ]
    near = trees[0].sparse_distance_matrix(trees[1], tolerance * (1 + 1e-6) + 1e-6, output_type="ndarray")
    i, j = near["i"].astype(np.int64), near["j"].astype(np.int64)
    gap = truth[i] - found[j]
    distance = np.sqrt((gap**2).sum(axis=1))
    order = np.lexsort((j, i))
    order = order[distance[order] <= tolerance]
    return _Pairs(i[order], j[order], distance[order], distance[order])


def _counting(every: _Pairs, dont_care: Bools, n_found: int) -> tuple[_Pairs, Bools]:
    """Return the pairs with truths that count, and which detections lie on a don't-care truth, ``[n_found]``."""
    excused = np.zeros(n_found, np.bool_)
    excused[every.found[dont_care[every.truth]]] = True
    pairs = every.select(~dont_care[every.truth])
    return replace(pairs, cost=pairs.distance + TIE * excused[pairs.found]), excused


def _components(pairs: _Pairs) -> Ints:
    """Return the connected component of each pair in the graph of truths and detections."""
    ids = [np.unique(x, return_inverse=True)[1] for x in (pairs.truth, pairs.found)]
    n_truth, n_found = (int(x.max()) + 1 for x in ids)
    shape = (n_truth + n_found,) * 2
    graph = coo_array((np.ones(len(ids[0]), np.int8), (ids[0], ids[1] + n_truth)), shape=shape)
    return connected_components(graph, directed=False)[1][ids[0]].astype(np.int64)


def _solve(pairs: _Pairs) -> Ints:
    """Return which of the pairs of one component to take: most pairs first, then least total distance."""
    if pairs.truth[0] == pairs.truth[-1]:  # one truth (pairs are sorted by truth): its nearest detection
        return np.array([pairs.cost.argmin()])
    _, row = np.unique(pairs.truth, return_inverse=True)
    _, column = np.unique(pairs.found, return_inverse=True)
    shape = (int(row.max()) + 1, int(column.max()) + 1)
    # Dearer than all pairs that could be taken together, so no saving in distance is worth a pair.
    forbidden = min(shape) * float(pairs.cost.max()) + 1.0
    cost = np.full(shape, forbidden)
    cost[row, column] = pairs.cost
    place = np.full(shape, -1, dtype=np.int64)
    place[row, column] = np.arange(len(row))
    taken = place[linear_sum_assignment(cost)]
    return taken[taken >= 0]


def _split(component: Ints) -> list[Ints]:
    """Return the pair indices of each component."""
    if not len(component):
        return []
    order = np.argsort(component, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(component[order])) + 1)


def _optimal(pairs: _Pairs) -> Ints:
    """Return the indices of the pairs of an optimal assignment."""
    if not len(pairs.truth):
        return np.zeros(0, np.int64)
    component = _components(pairs)
    alone = np.bincount(component)[component] == 1
    rest = np.flatnonzero(~alone)
    solved = [rest[members[_solve(pairs.select(rest[members]))]] for members in _split(component[rest])]
    return np.concatenate([np.flatnonzero(alone), *solved])


@dataclass(frozen=True, slots=True)
class PointSet:
    """The truths and detections of many images, one after the other (numpy; the door to the evaluators).

    Attributes:
        images: number of images, those without truth and detections included.
        truth_xy, found_xy: ``[T, 2]`` and ``[D, 2]`` float64, pixel frame.
        truth_image, found_image: the image of each, from 0.
        truth_group, found_group: image and label in one number; points match within it alone.
        dont_care: ``[T]`` bool.
        snr: ``[T]`` float64, NaN where unknown.
        scores: ``[D]`` in the precision they came in, so that a float32 score of 0.9 passes a threshold of 0.9.
        cell: ``[D]`` the emitting cell, -1 where unknown.
    """

    images: int
    truth_xy: Floats
    truth_image: Ints
    truth_group: Ints
    dont_care: Bools
    snr: Floats
    found_xy: Floats
    found_image: Ints
    found_group: Ints
    scores: Floats
    cell: Ints

    @classmethod
    def of(cls, truth: Sequence[Points], found: Sequence[Detections]) -> PointSet:
        """Gather the images. Raises ``ValueError`` on unequal lengths, coordinates or scores that are not finite."""
        if len(truth) != len(found):
            raise ValueError(f"truth holds {len(truth)} images and found {len(found)}: they must be the same images")
        labels = [_numpy([x.labels for x in side], np.int64) for side in (truth, found)]
        image = [np.repeat(np.arange(len(truth)), [len(x) for x in side]) for side in (truth, found)]
        span = 1 + max((int(x.max()) for x in labels if len(x)), default=0)
        unknown = [torch.full((len(p),), torch.nan) if p.snr is None else p.snr for p in truth]
        made = cls(
            images=len(truth),
            truth_xy=_numpy([p.xy for p in truth], np.float64).reshape(-1, 2),
            truth_image=image[0],
            truth_group=image[0] * span + labels[0],
            dont_care=_numpy([p.ignore for p in truth], np.bool_),
            snr=_numpy(unknown, np.float64),
            found_xy=_numpy([d.xy for d in found], np.float64).reshape(-1, 2),
            found_image=image[1],
            found_group=image[1] * span + labels[1],
            scores=_numpy([d.scores for d in found]),
            cell=_numpy([d.cell for d in found], np.int64),
        )
        for name in ("truth_xy", "found_xy", "scores"):
            if not np.isfinite(getattr(made, name)).all():
                raise ValueError(f"{name} holds values that are not finite")
        return made

    def match(self, tolerance: float) -> PointMatch:
        """Match all detections, whatever their score."""
        groups = {"truth_labels": self.truth_group, "found_labels": self.found_group}
        return match_points(self.truth_xy, self.found_xy, tolerance, dont_care=self.dont_care, **groups)

    def above(self, threshold: float) -> PointSet:
        """The set with the detections of ``score >= threshold`` alone."""
        keep = self.scores >= threshold
        parts = (
            self.found_xy[keep],
            self.found_image[keep],
            self.found_group[keep],
            self.scores[keep],
            self.cell[keep],
        )
        return PointSet(
            self.images, self.truth_xy, self.truth_image, self.truth_group, self.dont_care, self.snr, *parts
        )


def _numpy(tensors: Sequence[torch.Tensor], dtype: type | None = None) -> NDArray[Any]:
    parts = [t.detach().cpu() for t in tensors]
    half = (torch.bfloat16, torch.float16)
    arrays = [(t.float() if t.dtype in half else t).numpy() for t in parts]
    joined = np.concatenate(arrays) if arrays else np.zeros(0, np.float32)
    return joined if dtype is None else joined.astype(dtype)


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
    every = _admissible(truth, found, groups[0], groups[1], tolerance)
    return _result(*_counting(every, ignore, n_found), ignore)


def _result(pairs: _Pairs, excused: Bools, dont_care: Bools) -> PointMatch:
    n_truth, n_found = len(dont_care), len(excused)
    taken = pairs.select(_optimal(pairs))
    found_of_truth, truth_of_found = np.full(n_truth, -1, np.int64), np.full(n_found, -1, np.int64)
    distance = np.full(n_found, np.inf)
    found_of_truth[taken.truth], truth_of_found[taken.found] = taken.found, taken.truth
    distance[taken.found] = taken.distance
    near = np.zeros(n_found, np.bool_)
    near[pairs.found] = True
    return PointMatch(found_of_truth, truth_of_found, distance, dont_care, near, excused)


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
    every = _admissible(points.truth_xy, points.found_xy, points.truth_group, points.found_group, tolerance)
    pairs, excused = _counting(every, points.dont_care, found_n)
    false = (~excused).astype(np.int64)
    if len(pairs.truth):
        false[pairs.found] = 0
        for members in _split(_components(pairs)):
            _book(pairs.select(members), points.scores, excused, hits, false)
    return hits, false


def _book(pairs: _Pairs, scores: Floats, excused: Bools, hits: Ints, false: Ints) -> None:
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
        matched = inside.found[_solve(inside)]
        rest = np.setdiff1d(found[scores[found] >= score], matched)
        now = np.array([len(matched), int((~excused[rest]).sum())])
        first = found[scores[found] == score][0]
        hits[first], false[first] = now - before
        before = now
