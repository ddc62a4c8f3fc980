"""The reference rule: by hand, and against a walk over every cell of the object's channel."""

from __future__ import annotations

import pytest
import torch

from boresight.core.boxes import aligned_giou
from boresight.core.types import DenseOutput
from boresight.targets.radius import Radius, _giou, disc


def hand_case(build, good, scenes=None, classes=1, shared=True):
    """4 x 4 cells; all boxes lie far away but those in ``good``: ``{(class, row, column): box}``."""
    boxes = torch.tensor([200.0, 200.0, 210.0, 210.0]).repeat(1, 1 if shared else classes, 4, 4, 1)
    for (label, r, c), box in good.items():
        boxes[0, label, r, c] = torch.tensor(box)
    logits = torch.zeros(1, classes, 4, 4)
    output = DenseOutput(logits, boxes.expand(1, classes, 4, 4, 4), 8.0)
    return build.Case(scenes or [build.scene([[8, 8, 24, 24]], size=(32, 32))], output, logits.sigmoid())


def test_the_best_cell_and_those_around_it(build):
    """It is in the corner: of the 3 x 3 window four cells are on the map."""
    case = hand_case(build, {(0, 0, 0): [8, 8, 24, 22], (0, 2, 2): [8, 8, 24, 16]})
    assert set(build.owners(case.run(Radius()))) == {(0, 0, r, c) for r in (0, 1) for c in (0, 1)}
    assert set(build.owners(case.run(Radius(radius=1.0)))) == {(0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 1, 0)}
    assert set(build.owners(case.run(Radius(radius=0.0)))) == {(0, 0, 0, 0)}


def test_an_object_that_no_cell_boxes_has_none(build):
    """GIoU of a half is .5: above .3, not above .5."""
    case = hand_case(build, {(0, 1, 1): [8, 8, 24, 16]})
    assert len(build.owners(case.run(Radius()))) == 9
    assert build.owners(case.run(Radius(threshold=0.5))) == {}
    assert build.owners(hand_case(build, {}).run(Radius())) == {}


def test_each_class_has_its_own_channel(build):
    scene = build.scene([[8, 8, 24, 24], [8, 8, 24, 24]], [0, 1], size=(32, 32))
    good = {(0, 0, 0): [8, 8, 24, 24], (1, 3, 3): [8, 8, 24, 24]}
    owner = build.owners(hand_case(build, good, [scene], classes=2, shared=False).run(Radius(radius=1.0)))
    assert {c for c, m in owner.items() if m == 0} == {(0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 1, 0)}
    assert {c for c, m in owner.items() if m == 1} == {(0, 1, 3, 3), (0, 1, 3, 2), (0, 1, 2, 3)}


@pytest.mark.parametrize("radius", [0.0, 1.0, 1.5, 2.0, 3.3])
def test_disc(radius):
    want = [(c, r) for r in range(-4, 5) for c in range(-4, 5) if r * r + c * c <= radius * radius]
    assert [tuple(v) for v in disc(radius).tolist()] == want


@pytest.mark.parametrize("seed", range(5))
def test_the_quick_giou_is_giou(build, seed):
    case = build.random_case(seed, images=1, shared=True)
    cells, wanted = case.output.boxes[0, 0].reshape(-1, 4), torch.rand(7, 4) * 30 + torch.tensor([0, 0, 31, 31])
    found = _giou(cells.T[:, None].contiguous(), wanted)
    assert torch.allclose(found, aligned_giou(cells[None], wanted[:, None]), atol=1e-5)


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("radius", [1.5, 2.2])
def test_against_a_walk(build, seed, radius):
    case, plain, claims = build.random_case(seed), build.plain, []
    for m, i, label, box, rows, columns, emitted in plain.walk(case):
        found = {(r, c): plain.giou(emitted[r][c], box) for r in range(rows) for c in range(columns)}
        best = max(found, key=found.get)
        if found[best] > 0.3:
            for r, c in found:
                if (r - best[0]) ** 2 + (c - best[1]) ** 2 <= radius**2:
                    claims.append((m, i, label, r, c, found[r, c]))
    assert build.owners(case.run(Radius(radius))) == plain.winners(case, claims)


def test_more_objects_than_are_searched_at_once(build):
    boxes = [[8 * (i % 4), 8 * (i // 4), 8 * (i % 4) + 8, 8 * (i // 4) + 8] for i in range(16)]
    good = {(0, i // 4, i % 4): box for i, box in enumerate(boxes)}
    case = hand_case(build, good, [build.scene(boxes, size=(32, 32))])
    assert build.owners(case.run(Radius(radius=0.0))) == {(0, 0, i // 4, i % 4): i for i in range(16)}
