"""Which frame is seen when: a pure function of the seed, so that a run can be continued anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from torch.utils.data import Dataset, Sampler

from boresight.core.types import Scene
from boresight.run.recipe import Frames, View


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, 1, epoch]).permutation(count)


class Views(Dataset[Scene]):
    """Training views by position: position ``k`` is the same view in every run with the same seed.

    Args:
        frames: where scenes come from.
        order: the entries of an epoch (indices of frames); they are shuffled anew every epoch.
        view: makes the training view.
        seed: of order and views.
    """

    def __init__(self, frames: Frames, order: Sequence[int], view: View, seed: int) -> None:
        self.frames, self.order, self.view, self.seed = frames, list(order), view, seed

    def entry(self, position: int) -> int:
        """The index of the frame that is seen at a position."""
        epoch, place = divmod(position, len(self.order))
        return self.order[int(_permutation(self.seed, epoch, len(self.order))[place])]

    def __getitem__(self, position: int) -> Scene:
        return self.view(self.frames, self.entry(position), np.random.default_rng([self.seed, 2, position]))


class Positions(Sampler[list[int]]):
    """Batches of positions for one process, from ``step`` on.

    The global batch of a step does not depend on the number of processes: each takes its share of the same positions.
    """

    def __init__(self, step: int, steps: int, batch: int, *, rank: int = 0, world: int = 1, parts: int = 1) -> None:
        self.step, self.steps, self.batch, self.rank, self.world, self.parts = step, steps, batch, rank, world, parts

    def __iter__(self) -> Iterator[list[int]]:
        share = self.batch // (self.world * self.parts)
        for step in range(self.step, self.steps):
            for part in range(self.parts):
                first = step * self.batch + (part * self.world + self.rank) * share
                yield list(range(first, first + share))
