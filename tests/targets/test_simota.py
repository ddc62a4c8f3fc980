"""SimOTA: by hand, and against a walk over every cell."""

from __future__ import annotations

import math

import pytest
import torch

from boresight.core.types import DenseOutput
from boresight.targets.simota import Cells, SimOta, class_cost


def hand_case(build, reached):
    """4 x 4 cells, one object of 32 x 32; each cell's box reaches the IoU in ``reached [4, 4]``."""
    boxes = torch.zeros(1, 1, 4, 4, 4)
    boxes[..., 2] = 32
    boxes[0, 0, :, :, 3] = 32 * reached
    score = torch.full((1, 1, 4, 4), 0.5)
    scene = build.scene([[0, 0, 32, 32]], size=(32, 32))
    return build.Case([scene], DenseOutput(score.logit(), boxes, 8.0), score)


def test_an_object_takes_as_many_cells_as_it_has_good_boxes(build):
    """IoUs .9, .8, .7 and 13 of .05: the ten largest add up to 2.75, so two; of equal scores the best boxed."""
    reached = torch.full((4, 4), 0.05)
    reached[1, 1], reached[2, 2], reached[2, 1] = 0.9, 0.8, 0.7
    assert set(build.owners(hand_case(build, reached).run(SimOta()))) == {(0, 0, 1, 1), (0, 0, 2, 2)}


def test_it_takes_one_cell_at_least_and_that_in_the_middle(build):
    """No box is good; the best is in the corner, 1.5 strides from the centre and so not nearer than 1.5."""
    reached = torch.full((4, 4), 0.05)
    reached[0, 0], reached[1, 2] = 0.2, 0.1
    assert set(build.owners(hand_case(build, reached).run(SimOta()))) == {(0, 0, 0, 0)}
    assert set(build.owners(hand_case(build, reached).run(SimOta(centre=1.5)))) == {(0, 0, 1, 2)}


def test_class_cost_is_the_cross_entropy_of_all_classes(build):
    """Scores .5 (its own), .25, .0, and 1 for a class that is not there."""
    score = torch.tensor([0.5, 0.25, 0.0, 1.0]).view(1, 4, 1, 1)
    output = DenseOutput(torch.zeros(1, 4, 1, 1), torch.zeros(1, 4, 1, 1, 4), 8.0)
    case = build.Case([build.scene([[0, 0, 8, 8]], [0], size=(8, 8))], output, score)
    candidates = case.run(SimOta()).candidates
    cells = Cells.of(candidates)
    assert float(class_cost(score, candidates, cells)) == pytest.approx(math.log(2) + math.log(4 / 3) + 100)
    other = class_cost(
        score.flip(1), candidates, cells
    )  # its own score is 1: 100 is added and taken off again, in float32
    assert float(other) == pytest.approx(math.log(4 / 3) + math.log(2), abs=1e-5)


@pytest.mark.parametrize("seed", range(80))
def test_against_a_walk(build, seed):
    """The penalty is 1e3 here: beside 1e5 a float32 keeps two decimals of the rest, and ties would be luck."""
    case, plain, claims = build.random_case(seed), build.plain, []
    score = case.score.tolist()
    for m, i, label, box, rows, columns, emitted in plain.walk(case):
        cost, iou, near_any = {}, {}, plain.nearest(box, rows, columns)
        for r in range(rows):
            for c in range(columns):
                x, y = plain.centre(r, c)
                far = max(abs(x - (box[0] + box[2]) / 2), abs(y - (box[1] + box[3]) / 2)) / 8
                held = plain.inside(box, r, c)
                if not (held or far < 2.5 or (r, c) == near_any):
                    continue
                iou[r, c] = plain.iou(emitted[r][c], box)
                p = [score[i][k][r][c] for k in range(case.shape.classes)]
                entropy = -sum(math.log(q if k == label else 1 - q) for k, q in enumerate(p))
                cost[r, c] = entropy - 3 * math.log(iou[r, c] + 1e-8) + (0 if held and far < 2.5 else 1e3)
        k = max(1, int(sum(sorted(iou.values(), reverse=True)[:10])))
        for r, c in sorted(cost, key=lambda cell: (cost[cell], cell))[:k]:
            claims.append((m, i, label, r, c, -cost[r, c]))
    assert build.owners(case.run(SimOta(outside=1e3))) == plain.winners(case, claims)
