from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boresight.run.order import Positions, Views


class Numbers:
    """Frames that are their own index."""

    names = ()

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return index


def drawn(frames, index, rng):
    """A view that shows which frame was taken and what was drawn for it."""
    return frames[index], int(rng.integers(1 << 40))


def views(count=5, *, order=None, seed=0):
    return Views(Numbers(count), order if order is not None else range(count), drawn, seed)


def test_by_hand():
    """Steps 1 and 2 of batches of four, for the second of two processes in two passes."""
    batches = list(Positions(1, 3, 4, rank=1, world=2, parts=2))
    assert batches == [[5], [7], [9], [11]]


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_processes_and_passes_share_one_batch(world, parts):
    batch, steps = 16, 3
    shares = [list(Positions(0, steps, batch, rank=r, world=world, parts=parts)) for r in range(world)]
    assert {len(s) for s in shares} == {steps * parts}
    for step in range(steps):
        seen = [p for share in shares for part in share[step * parts : (step + 1) * parts] for p in part]
        assert sorted(seen) == list(range(step * batch, (step + 1) * batch))


def test_two_processes_see_what_one_sees_in_two_passes():
    passes = list(Positions(0, 2, 8, parts=2))
    ranks = [list(Positions(0, 2, 8, rank=r, world=2)) for r in (0, 1)]
    assert passes == [ranks[0][0], ranks[1][0], ranks[0][1], ranks[1][1]]


@given(st.integers(0, 9), st.integers(1, 9), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2]))
def test_continuing_gives_the_tail(step, more, world, parts):
    whole = list(Positions(0, step + more, 8, rank=world - 1, world=world, parts=parts))
    assert list(Positions(step, step + more, 8, rank=world - 1, world=world, parts=parts)) == whole[step * parts :]


@given(st.integers(1, 12), st.integers(0, 5), st.integers(0, 99))
def test_an_epoch_holds_every_entry_once(count, epoch, seed):
    taken = views(count, seed=seed)
    start = epoch * count
    assert sorted(taken[p][0] for p in range(start, start + count)) == list(range(count))


def test_entries_may_stand_in_the_order_several_times():
    taken = views(3, order=[0, 1, 2, 2])
    assert sorted(taken[p][0] for p in range(4, 8)) == [0, 1, 2, 2]


def test_epochs_differ_and_positions_do_not():
    taken = views(20)
    epochs = [[taken[e * 20 + p][0] for p in range(20)] for e in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != list(range(20))
    assert [taken[p] for p in (7, 33, 7)] == [views(20)[p] for p in (7, 33, 7)]
    assert len({taken[p][1] for p in range(40)}) == 40


def test_the_seed_decides():
    orders = [[views(20, seed=s)[p][0] for p in range(20)] for s in (0, 1)]
    assert orders[0] != orders[1]


def test_the_global_generator_is_not_used():
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    views()[3]
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
