"""Task-aligned assignment: by hand, and against a walk over every cell."""

from __future__ import annotations

import pytest
import torch

from boresight.core.types import DenseOutput
from boresight.targets.atss import Atss
from boresight.targets.tal import Tal


def hand_case(build, box=(0, 0, 32, 32)):
    """4 x 4 cells, every one emits the object; the score rises with the cell."""
    score = torch.arange(1, 17).view(1, 1, 4, 4) / 20
    boxes = torch.tensor([0.0, 0.0, 32.0, 32.0]).expand(1, 1, 4, 4, 4)
    scene = build.scene([list(box)], size=(32, 32))
    return build.Case([scene], DenseOutput(score.logit(), boxes, 8.0), score)


def test_of_equal_boxes_the_best_scored_are_taken(build):
    assert set(build.owners(hand_case(build).run(Tal(k=3)))) == {(0, 0, 3, 1), (0, 0, 3, 2), (0, 0, 3, 3)}


def test_the_box_weighs_more_than_the_score(build):
    """One cell has a 16th of the best score and the right box; others reach .75 (.75^6 = .18) or .5 (.5^6 = .016)."""
    case = hand_case(build)
    for good, first in ((0.75, 3), (0.5, 0)):
        boxes = case.output.boxes.clone()
        boxes[..., 3] = 32 * good
        boxes[0, 0, 0, 0, 3] = 32.0
        output = DenseOutput(case.output.logits, boxes, 8.0)
        cell = next(iter(build.owners(build.Case(case.scenes, output, case.score).run(Tal(k=1)))))
        assert cell == (0, 0, first, first)


def test_the_emitted_score_is_read_not_the_logits(build):
    case = hand_case(build)
    flipped = build.Case(case.scenes, case.output, case.score.flip(2, 3))
    assert set(build.owners(flipped.run(Tal(k=1)))) == {(0, 0, 0, 0)}


def test_an_object_that_no_box_touches_gets_its_nearest_cell(build):
    case = hand_case(build, box=(9, 9, 24, 24))
    output = DenseOutput(case.output.logits, case.output.boxes + 500, 8.0)
    assert build.owners(build.Case(case.scenes, output, case.score).run(Tal())) == {(0, 0, 2, 2): 0}


def test_warm_up(build):
    case = hand_case(build)
    early, late = (build.owners(case.run(Tal(k=3, until=0.2), progress=p)) for p in (0.19, 0.2))
    assert early == build.owners(case.run(Atss()))
    assert len(late) == 3


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("k", [1, 5, 13])
def test_against_a_walk(build, seed, k):
    case, plain, claims = build.random_case(seed), build.plain, []
    score = case.score.tolist()
    for m, i, label, box, rows, columns, emitted in plain.walk(case):
        near = plain.nearest(box, rows, columns)
        cells = [(r, c) for r in range(rows) for c in range(columns) if plain.inside(box, r, c)] or [near]
        iou = {(r, c): plain.iou(emitted[r][c], box) for r, c in cells}
        metric = {(r, c): score[i][label][r][c] * iou[r, c] ** 6 for r, c in cells}
        best = sorted((cell for cell in cells if metric[cell] > 1e-44), key=lambda cell: (-metric[cell], cell))[:k]
        for r, c in best or [near]:
            claims.append((m, i, label, r, c, iou[r, c]))
    assert build.owners(case.run(Tal(k))) == plain.winners(case, claims)


def test_the_metric_is_kept(build):
    case = hand_case(build)
    found = case.run(Tal())
    assert torch.allclose(found.metric, case.score.flatten())
