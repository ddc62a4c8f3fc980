"""Centre-inside: by hand, and against a walk over every cell."""

from __future__ import annotations

import pytest
import torch

from boresight.core.types import DenseOutput
from boresight.targets.inside import Inside


def case_of(build, scene, classes=1, rows=3, columns=3, shared=True):
    boxes = torch.zeros(1, 1 if shared else classes, rows, columns, 4).expand(1, classes, rows, columns, 4)
    logits = torch.zeros(1, classes, rows, columns)
    return build.Case([scene], DenseOutput(logits, boxes, 8.0), logits.sigmoid())


def test_the_smallest_box_has_an_ambiguous_cell(build):
    """3 x 3 cells: one object over all of them, one over the left column (centres at x = 4)."""
    case = case_of(build, build.scene([[0, 0, 24, 24], [0, 0, 8, 24]], size=(24, 24)))
    owner = build.owners(case.run(Inside()))
    assert owner == {(0, 0, r, c): int(c == 0) for r in range(3) for c in range(3)}


def test_classes_share_a_box_or_have_their_own(build):
    scene = build.scene([[0, 0, 24, 24], [0, 0, 8, 8]], [0, 1], size=(24, 24))
    assert len(build.owners(case_of(build, scene, classes=2).run(Inside()))) == 9
    assert len(build.owners(case_of(build, scene, classes=2, shared=False).run(Inside()))) == 10


def test_an_edge_through_a_centre_does_not_hold_it(build):
    case = case_of(build, build.scene([[4, 4, 20, 20]], size=(24, 24)))
    assert build.owners(case.run(Inside())) == {(0, 0, 1, 1): 0}


def test_the_centre_alone(build):
    case = case_of(build, build.scene([[0, 0, 24, 24]], size=(24, 24)))
    assert build.owners(case.run(Inside(radius=0.5))) == {(0, 0, 1, 1): 0}


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("radius", [None, 1.5])
def test_against_a_walk(build, seed, radius):
    case, plain, claims = build.random_case(seed), build.plain, []
    for m, i, label, box, rows, columns, _ in plain.walk(case):
        held = []
        for r in range(rows):
            for c in range(columns):
                x, y = plain.centre(r, c)
                far = max(abs(x - (box[0] + box[2]) / 2), abs(y - (box[1] + box[3]) / 2))
                if plain.inside(box, r, c) and (radius is None or far < radius * 8):
                    held.append((r, c))
        for r, c in held or [plain.nearest(box, rows, columns)]:
            claims.append((m, i, label, r, c, -plain.area(box)))
    assert build.owners(case.run(Inside(radius))) == plain.winners(case, claims)
