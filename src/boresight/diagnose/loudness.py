"""How loud cells are near objects and in the background: do scores tell one from the other, before anything selects?

What is returned was chosen by its score, so that its scores say nothing of cells that were not chosen. Here every cell
counts that can be heard, in two histograms that take the same memory for one image and for a million.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from boresight.diagnose.emitted import Seen
from boresight.diagnose.oracles import NEAR

HEARD = 0.05
"""Share of an image's highest score below which nobody hears a cell."""
BITS = 16
"""Of a float32 score the upper bits are its bin: exponent and seven bits of fraction, steps under a hundredth."""
BINS = 0x3F80 + 1
"""Bins of scores in [0, 1]: those of 1.0 are 0x3F80."""


def _bins(scores: Tensor) -> Tensor:
    return scores.float().contiguous().view(torch.int32) >> BITS


@dataclass
class Loudness:
    """Counts of cells by the bin of their highest score: row 0 near an object of any class, row 1 in the background."""

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((2, BINS), np.int64))

    def add(self, seen: Seen, like: Tensor) -> None:
        """Count the cells of an image. A cell is near where the box of its loudest class fits an object by 0.1.

        Args:
            seen: the image.
            like: ``[K, N, M]`` likeness of its boxes with its objects.
        """
        if not seen.emission.cells:
            return
        top, label = seen.emission.scores.max(0)
        cells = torch.arange(seen.emission.cells)
        near = like[label if len(like) > 1 else 0, cells].amax(1) >= NEAR if like.shape[2] else cells < 0
        heard = (top > 0) & (top > HEARD * top.max())
        place = _bins(top[heard]) + BINS * (~near[heard]).int()
        self.counts += torch.bincount(place, minlength=2 * BINS).view(2, BINS).numpy()

    def separation(self, least: int) -> float | None:
        """How far apart the scores of both are: the statistic of Kolmogorov and Smirnov, as exact as the bins.

        The largest difference, over all scores, between the shares of either that lie above it: 0 is a score that was
        drawn, 1 one that never errs, or always. None with fewer than ``least`` of either.
        """
        total = self.counts.sum(1)
        if total.min() < least:
            return None
        one, other = (self.counts / total[:, None]).cumsum(1)
        return float(np.abs(one - other).max())
