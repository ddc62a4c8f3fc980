"""Which pairs of truth and detection are admissible, and which of them an optimal assignment takes.

The graph of admissible pairs falls apart into components of a few points each, and only those with several truths and
several detections need an assignment solver.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

Ints = NDArray[np.int64]
Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

# Pixels. Among assignments of equal total distance, one that leaves excused detections over is taken, so that the
# counts do not hang on the order of the solver; far below any distance that matters, far above rounding.
TIE = 1e-9


@dataclass(frozen=True, slots=True)
class Pairs:
    """Admissible pairs, sorted by truth, then detection: ``truth[k]`` and ``found[k]`` lie ``distance[k]`` apart.

    ``cost`` is the distance plus what decides between equal distances.
    """

    truth: Ints
    found: Ints
    distance: Floats
    cost: Floats

    def select(self, keep: Bools | Ints) -> Pairs:
        """Those pairs alone, by mask or by index."""
        return Pairs(self.truth[keep], self.found[keep], self.distance[keep], self.cost[keep])


def admissible(truth: Floats, found: Floats, truth_group: Ints, found_group: Ints, tolerance: float) -> Pairs:
    """Return every pair of one group within tolerance."""
    if not len(truth) or not len(found):
        return Pairs(*np.zeros((2, 0), np.int64), *np.zeros((2, 0)))
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
    return Pairs(i[order], j[order], distance[order], distance[order])


def counting(every: Pairs, dont_care: Bools, n_found: int) -> tuple[Pairs, Bools]:
    """Return the pairs with truths that count, and which detections lie on a don't-care truth, ``[n_found]``."""
    excused = np.zeros(n_found, np.bool_)
    excused[every.found[dont_care[every.truth]]] = True
    pairs = every.select(~dont_care[every.truth])
    return replace(pairs, cost=pairs.distance + TIE * excused[pairs.found]), excused


def components(pairs: Pairs) -> Ints:
    """Return the connected component of each pair in the graph of truths and detections."""
    ids = [np.unique(x, return_inverse=True)[1] for x in (pairs.truth, pairs.found)]
    n_truth, n_found = (int(x.max()) + 1 for x in ids)
    shape = (n_truth + n_found,) * 2
    graph = coo_array((np.ones(len(ids[0]), np.int8), (ids[0], ids[1] + n_truth)), shape=shape)
    return connected_components(graph, directed=False)[1][ids[0]].astype(np.int64)


def solve(pairs: Pairs) -> Ints:
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


def split(component: Ints) -> list[Ints]:
    """Return the pair indices of each component."""
    if not len(component):
        return []
    order = np.argsort(component, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(component[order])) + 1)


def optimal(pairs: Pairs) -> Ints:
    """Return the indices of the pairs of an optimal assignment."""
    if not len(pairs.truth):
        return np.zeros(0, np.int64)
    component = components(pairs)
    alone = np.bincount(component)[component] == 1
    rest = np.flatnonzero(~alone)
    solved = [rest[members[solve(pairs.select(rest[members]))]] for members in split(component[rest])]
    return np.concatenate([np.flatnonzero(alone), *solved])
