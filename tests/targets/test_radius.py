"""The reference rule: by hand, and against a walk over every cell of the object's channel."""

from __future__ import annotations

import tracemalloc

import pytest
import torch

from boresight.core.boxes import aligned_giou
from boresight.core.types import DenseOutput
from boresight.targets import radius as module
from boresight.targets.radius import Radius, _giou, best_of_all, disc


@pytest.fixture(params=["possible cells", "all cells"], autouse=True)
def search(request, monkeypatch):
    """Both ways to search: as on a CPU, and as on a GPU."""
    if request.param == "all cells":
        monkeypatch.setattr(module, "best_of_possible", lambda o, b, s, t: best_of_all(o, b, b, s, t))


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


@pytest.mark.parametrize(("threshold", "found"), [(-0.5, True), (-0.2, False), (0.0, False)])
def test_a_threshold_of_0_or_below_rules_no_cell_out_beforehand(build, threshold, found):
    """A box 10 px beside the object: hull 42 x 16, of which 10 x 16 are empty, GIoU -.238."""
    case = hand_case(build, {(0, 2, 2): [34, 8, 50, 24]})
    assert build.owners(case.run(Radius(0.0, threshold))) == ({(0, 0, 2, 2): 0} if found else {})


def test_a_cpu_looks_at_few_objects_at_once(build, search):
    """60 objects on 112 x 112 cells, a byte a pair, are 0.75 MB; 2^16 pairs at a time, three masks at once, are .2."""
    random = torch.Generator().manual_seed(0)
    corner = 800 * torch.rand(60, 2, generator=random)
    scene = build.scene(torch.cat((corner, corner + 60), dim=-1).tolist(), size=(896, 896))
    output = DenseOutput(torch.zeros(1, 1, 112, 112), torch.zeros(1, 1, 112, 112, 4), 8.0)
    case = build.Case([scene], output, output.logits)
    tracemalloc.start()
    case.run(Radius())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.5e6


@pytest.mark.parametrize("shared", [True, False])
def test_a_gpu_looks_at_few_objects_at_once(build, shared):
    """60 objects on 112 x 112 cells: 83 fit into 2^20 pairs; on a larger map fewer."""
    boxes = [[8.0 * i, 0, 8.0 * i + 8, 8] for i in range(60)]
    for side, chunks in ((112, 1), (256, 4)):
        wide = torch.empty(1, 2, side, side, 4, device="meta") if not shared else torch.empty(1, 1, side, side, 4)
        output = DenseOutput(torch.zeros(1, 2, side, side), wide.expand(1, 2, side, side, 4), 8.0)
        case = build.Case([build.scene(boxes, size=(896, 896))], output, output.logits)
        there = case.objects.to(wide.device)
        found = list(module._chunks(output, case.objects, there, case.shape))
        assert [i for c, _ in found for i in range(c.start, c.stop)] == list(range(60))
        assert len(found) == chunks
        assert all(len(range(c.start, c.stop)) * side * side <= 2**20 for c, _ in found)


def test_more_objects_than_are_searched_at_once(build):
    """20 objects, each boxed by one cell of 256 x 256: one object at a time on a CPU, 16 on a GPU."""
    wanted = [[8 * i, 8 * i, 8 * i + 8, 8 * i + 8] for i in range(20)]
    boxes = torch.full((1, 1, 256, 256, 4), 5000.0)
    for i, box in enumerate(wanted):
        boxes[0, 0, 255 - i, 2 * i] = torch.tensor(box)
    output = DenseOutput(torch.zeros(1, 1, 256, 256), boxes, 8.0)
    case = build.Case([build.scene(wanted, size=(2048, 2048))], output, output.logits)
    assert build.owners(case.run(Radius(radius=0.0))) == {(0, 0, 255 - i, 2 * i): i for i in range(20)}
