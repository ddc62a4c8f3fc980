"""Candidates from geometry, against a walk over every cell."""

from __future__ import annotations

import pytest

from boresight.targets.cells import cells_inside, nearest_cells


def listed(candidates):
    return list(zip(*(v.tolist() for v in (candidates.object, candidates.row, candidates.column)), strict=True))


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("reach", [None, 1.5])
def test_cells_inside_are_those_of_a_walk(build, seed, reach):
    case, plain = build.random_case(seed), build.plain
    want, only = [], []
    for m, _, _, box, rows, columns, _ in plain.walk(case):
        held = []
        for r in range(rows):
            for c in range(columns):
                x, y = plain.centre(r, c)
                far = max(abs(x - (box[0] + box[2]) / 2), abs(y - (box[1] + box[3]) / 2))
                if plain.inside(box, r, c) and (reach is None or far < reach * 8):
                    held.append((m, r, c))
        only += held
        want += held or [(m, *plain.nearest(box, rows, columns))]
    found = cells_inside(case.objects, case.shape, reach)
    assert listed(found) == want
    assert listed(cells_inside(case.objects, case.shape, reach, always=False)) == only
    assert found.start.tolist() == [next(i for i, w in enumerate(want) if w[0] == m) for m in range(len(case.objects))]
    near = [plain.nearest(box, rows, columns) for _, _, _, box, rows, columns, _ in plain.walk(case)]
    assert [(r, c) for c, r in nearest_cells(case.objects, case.shape).tolist()] == near


def test_a_box_without_a_cell_centre_gets_the_nearest_one(build):
    """2 x 2 px between four cells; 20 x 2 px between two rows: one cell each."""
    case = build.random_case(0, images=1)
    scenes = [build.scene([[7, 7, 9, 9], [0, 7, 20, 9]], size=case.scenes[0].size)]
    found = cells_inside(build.Case(scenes, case.output, case.score).objects, case.shape)
    assert listed(found) == [(0, 1, 1), (1, 1, 1)]
    assert found.inside.tolist() == [False, False]
