"""How the oracle grows with the number of cells: the best of ``n`` cells drawn from all ``N``, exactly.

The chance that the best of the drawn cells is the ``i``-th best of all is a ratio of binomials, so the curve needs no
drawing: with the overlaps sorted falling, ``P(none of the first i is drawn) = C(N - i, n) / C(N, n)``.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.special import gammaln
from torch import Tensor

from boresight.evaluate.pairs import Floats

CELL_COUNTS = (1, 4, 16, 49, 196, 784, 3136, 12544, 50176)


@lru_cache(maxsize=64)
def none_drawn(cells: int, drawn: int) -> Floats:
    """``[cells + 1]``: the chance that ``drawn`` of ``cells`` cells miss the first ``i``, for ``i = 0..cells``."""
    left = np.arange(cells, drawn - 1, -1)  # with fewer than ``drawn`` left, one of the first must be drawn
    chance = gammaln(left + 1) - gammaln(left - drawn + 1) - gammaln(cells + 1) + gammaln(cells - drawn + 1)
    return np.append(np.exp(chance), np.zeros(drawn))


def best_of_drawn(overlap: Tensor) -> Floats:
    """Return ``[m, 9, 2]``: expected best IoU, and chance that it is at least 0.5, of ``CELL_COUNTS`` random cells.

    ``overlap`` is ``[m, N]`` IoU of objects and cells. NaN for counts above ``N``.
    """
    iou = -np.sort(-overlap.double().cpu().numpy(), axis=1)
    m, cells = iou.shape
    good = (iou >= 0.5).sum(axis=1)
    curve = np.full((m, len(CELL_COUNTS), 2), np.nan)
    for k, drawn in enumerate(CELL_COUNTS):
        if drawn <= cells:
            missed = none_drawn(cells, drawn)
            curve[:, k, 0] = iou @ (missed[:-1] - missed[1:])
            curve[:, k, 1] = 1 - missed[good]
    return curve
