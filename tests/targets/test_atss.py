"""ATSS: by hand, and against a walk over every cell."""

from __future__ import annotations

import statistics

import pytest
import torch

from boresight.core.types import DenseOutput
from boresight.targets.atss import Atss, nearest_k


def test_by_hand(build):
    """3 x 3 cells, one object of 16 x 16 px in the middle, anchors of 16 px.

    The middle anchor is the object (IoU 1), those beside it share half (1/3), the corners a quarter (1/7). Mean .323,
    deviation .269: only the middle is above .592.
    """
    scene = build.scene([[4, 4, 20, 20]], size=(24, 24))
    output = DenseOutput(torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 3, 3, 4), 8.0)
    case = build.Case([scene], output, torch.zeros(1, 1, 3, 3))
    assert build.owners(case.run(Atss(anchor=2.0))) == {(0, 0, 1, 1): 0}


def test_anchors_that_overlap_equally_are_all_taken(build):
    """An object that holds every anchor whole: all nine are at their mean, and none below it by rounding."""
    scene = build.scene([[0, 0, 104, 104]], size=(104, 104))
    output = DenseOutput(torch.zeros(1, 1, 13, 13), torch.zeros(1, 1, 13, 13, 4), 8.0)
    case = build.Case([scene], output, torch.zeros(1, 1, 13, 13))
    assert set(build.owners(case.run(Atss(anchor=1.1)))) == {(0, 0, r, c) for r in (5, 6, 7) for c in (5, 6, 7)}


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("k", [1, 4, 9, 20])
def test_the_nearest_k_are_those_of_a_sort(build, seed, k):
    case, plain = build.random_case(seed), build.plain
    row, column, real = nearest_k(case.objects, case.shape, k)
    for m, _, _, box, rows, columns, _ in plain.walk(case):
        every = [(plain.away(box, r, c), r, c) for r in range(rows) for c in range(columns)]
        want = [(r, c) for _, r, c in sorted(every)[:k]]
        assert list(zip(row[m].tolist(), column[m].tolist(), strict=True)) == want + want[:1] * (k - len(want))
        assert real[m].tolist() == [True] * len(want) + [False] * (k - len(want))


@pytest.mark.parametrize(("rows", "columns"), [(1, 40), (40, 1), (2, 30), (40, 40), (7, 8)])
def test_the_window_holds_the_nearest_k_on_any_map(build, rows, columns):
    """Objects centred all over maps of any shape, their corners included."""
    plain, boxes = build.plain, []
    for x in torch.linspace(0.01, columns * 8 - 0.01, 9).tolist():
        for y in torch.linspace(0.01, rows * 8 - 0.01, 9).tolist():
            boxes.append([x - 3, y - 3, x + 3, y + 3])
    scene = build.scene(boxes, size=(rows * 8, columns * 8))
    output = DenseOutput(torch.zeros(1, 1, rows, columns), torch.zeros(1, 1, rows, columns, 4), 8.0)
    case = build.Case([scene], output, output.logits)
    for k in (1, 9, 30):
        row, column, _ = nearest_k(case.objects, case.shape, k)
        for m, _, _, box, _, _, _ in plain.walk(case):
            away = sorted(plain.away(box, r, c) for r in range(rows) for c in range(columns))[:k]
            found = [plain.away(box, r, c) for r, c in zip(row[m].tolist(), column[m].tolist(), strict=True)]
            assert found[: len(away)] == pytest.approx(away)


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("k", [1, 9])
def test_against_a_walk(build, seed, k):
    case, plain, claims = build.random_case(seed), build.plain, []
    for m, i, label, box, rows, columns, _ in plain.walk(case):
        near = sorted((plain.away(box, r, c), r, c) for r in range(rows) for c in range(columns))[:k]
        iou = []
        for _, r, c in near:
            x, y = plain.centre(r, c)
            iou.append(plain.iou((x - 20, y - 20, x + 20, y + 20), box))
        limit = statistics.fmean(iou) + (statistics.stdev(iou) if len(iou) > 1 else 0.0) - 1e-9
        good = [(r, c, u) for u, (_, r, c) in zip(iou, near, strict=True) if u >= limit and plain.inside(box, r, c)]
        for r, c, u in good or [(*near[0][1:], iou[0])]:
            claims.append((m, i, label, r, c, u))
    assert build.owners(case.run(Atss(k))) == plain.winners(case, claims)
