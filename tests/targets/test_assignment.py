"""The best k of each object, one object a box."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from boresight.targets.assignment import Assignment, resolve, top_k_per_object, top_values
from boresight.targets.cells import cells_inside

VALUES = st.floats(-(2.0**100), 2.0**100, width=32) | st.sampled_from([0.0, -0.0, 1.0, float("inf"), -float("inf")])


def grouped(build, seed):
    case = build.random_case(seed)
    return cells_inside(case.objects, case.shape)


def naive_top_k(metric, candidates, k):
    owner = candidates.object.tolist()
    chosen = [False] * len(owner)
    for m in set(owner):
        rows = sorted((i for i, o in enumerate(owner) if o == m), key=lambda i: (-metric[i], i))
        for i in rows[: k[m]]:
            chosen[i] = True
    return chosen


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("tied", [False, True])
def test_top_k_is_that_of_a_sort(build, seed, tied):
    candidates, random = grouped(build, seed), np.random.default_rng(seed)
    metric = random.normal(size=len(candidates)).astype(np.float32)
    metric = np.round(metric) if tied else metric
    each = random.integers(0, 9, len(candidates.objects))
    found = top_k_per_object(torch.tensor(metric), candidates, torch.tensor(each))
    assert found.tolist() == naive_top_k(metric, candidates, each.tolist())
    assert top_k_per_object(torch.tensor(metric), candidates, 3).tolist() == naive_top_k(metric, candidates, [3] * 99)


@pytest.mark.parametrize("seed", range(20))
def test_top_values_are_those_of_a_sort(build, seed):
    candidates = grouped(build, seed)
    metric = torch.rand(len(candidates), generator=torch.Generator().manual_seed(seed))
    want = []
    for m in range(len(candidates.objects)):
        own = sorted(metric[candidates.object == m].tolist(), reverse=True)[:4]
        want.append(own + [0.0] * (4 - len(own)))
    assert top_values(metric, candidates, 4).tolist() == want


@given(st.lists(st.tuples(st.booleans(), VALUES, st.integers(0, 4)), max_size=30))
def test_resolve_gives_each_box_to_the_first_of_the_best(rows):
    chosen, priority, key = (list(v) for v in zip(*rows, strict=True)) if rows else ([], [], [])
    want = [False] * len(rows)
    for box in set(key):
        mine = [i for i in range(len(rows)) if chosen[i] and key[i] == box]
        if mine:
            want[max(mine, key=lambda i: (priority[i], -i))] = True
    found = resolve(
        torch.tensor(chosen, dtype=torch.bool),
        torch.tensor(priority, dtype=torch.float32),
        torch.tensor(key, dtype=torch.long),
        5,
    )
    assert found.tolist() == want


def test_moving_an_assignment_moves_all_of_it(build):
    candidates = grouped(build, 3)
    moved = Assignment(candidates, torch.ones(len(candidates), dtype=torch.bool), torch.ones(len(candidates))).to(
        "meta"
    )
    parts = (moved.positive, moved.metric, moved.candidates.cell, moved.candidates.objects.boxes)
    assert {p.device.type for p in parts} == {"meta"}
