"""From an assignment to maps: scores by hand, whose boxes are trained, what is unknown."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from boresight.core.types import DenseOutput
from boresight.targets import dense
from boresight.targets.atss import Atss
from boresight.targets.dense import dense_targets
from boresight.targets.inside import Inside
from boresight.targets.radius import Radius
from boresight.targets.simota import SimOta
from boresight.targets.tal import Tal


def hand_case(build, scene, *, classes=1, shared=True, rows=4, columns=4, boxes=None, score=None, sizes=()):
    boxes = torch.zeros(1, 1 if shared else classes, rows, columns, 4) if boxes is None else boxes
    score = torch.full((1, classes, rows, columns), 0.5) if score is None else score
    output = DenseOutput(score.logit(), boxes.expand(1, classes, rows, columns, 4), 8.0, sizes=sizes)
    return build.Case([scene], output, score)


def targets_of(case, rule, score=dense.hard, box_cells="positive"):
    return dense_targets(case.output, case.run(rule), case.objects, case.scenes, score=score, box_cells=box_cells)


def cells(mask):
    return {tuple(v) for v in mask.nonzero().tolist()}


# ---------------------------------------------------------------- scores


def scored(build, score, rule=Inside()):  # noqa: B008
    """4 x 4 cells; an object over the 2 x 2 in the middle, whose boxes reach IoUs of 1, 1/2, 1/4 and 0."""
    boxes = torch.tensor([8.0, 8.0, 24.0, 24.0]).repeat(1, 1, 4, 4, 1)
    boxes[0, 0, 1, 2, 3], boxes[0, 0, 2, 1, 3], boxes[0, 0, 2, 2] = 16, 12, torch.tensor([200.0, 200.0, 210.0, 210.0])
    emitted = torch.full((1, 1, 4, 4), 0.5)
    emitted[0, 0, 1, 2] = 0.9
    case = hand_case(build, build.scene([[8, 8, 24, 24]], size=(32, 32)), boxes=boxes, score=emitted)
    targets = targets_of(case, rule, score)
    middle = targets.score[0, 0, 1:3, 1:3].clone()
    targets.score[0, 0, 1:3, 1:3] = 0
    assert not targets.score.any()
    return middle.flatten().tolist()


def test_hard(build):
    assert scored(build, dense.hard) == [1, 1, 1, 1]


def test_centerness(build):
    """Each centre is 4 px from two edges and 12 from the others."""
    assert scored(build, dense.centerness_target) == pytest.approx([1 / 3] * 4)


def test_iou(build):
    assert scored(build, dense.iou) == pytest.approx([1, 0.5, 0.25, 0])


def test_iou_power(build):
    assert scored(build, dense.iou_power(2.0)) == pytest.approx([1, 0.25, 0.0625, 0])


def test_aligned_without_a_metric_is_the_iou(build):
    assert scored(build, dense.aligned) == pytest.approx([1, 0.5, 0.25, 0])


def test_aligned_by_hand(build):
    """alpha = beta = 1: t = .5, .45, .125, 0 (which is no positive); the best is 1 because the best IoU is."""
    assert scored(build, dense.aligned, Tal(alpha=1, beta=1)) == pytest.approx([1, 0.9, 0.25, 0])


def test_aligned_rises_to_the_best_iou_of_the_object(build):
    """The cell of the largest t gets the largest u, even of another cell (TOOD, section 3.2.2)."""
    found = scored(build, dense.aligned, Tal(alpha=6, beta=1))
    t = [0.5**6, 0.9**6 / 2, 0.5**6 / 4]
    assert found == pytest.approx([v / max(t) for v in t] + [0])


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("rule", [Tal(), Atss(), Radius(), SimOta()])
def test_scores_against_a_walk(build, seed, rule):
    case, plain = build.random_case(seed), build.plain
    found = case.run(rule)
    owner, objects = build.owners(found), case.objects
    u = {c: plain.iou(case.output.boxes[c].tolist(), objects.boxes[m].tolist()) for c, m in owner.items()}
    t = {c: float(case.score[c]) * u[c] ** 6 for c in owner} if isinstance(rule, Tal) else u
    want_iou, want_aligned = torch.zeros_like(case.score), torch.zeros_like(case.score)
    for c, m in owner.items():
        own = [d for d in owner if owner[d] == m]
        best_t, best_u = max(t[d] for d in own), max(u[d] for d in own)
        want_iou[c] = u[c]
        want_aligned[c] = t[c] / best_t * best_u if best_t > 1e-40 else 0.0
    for score, want in ((dense.iou, want_iou), (dense.aligned, want_aligned)):
        targets = dense_targets(case.output, found, objects, case.scenes, score=score)
        assert torch.allclose(targets.score, want, atol=1e-5)
    assert cells(targets.positive) == set(owner)
    assert all(int(targets.matched[c]) == m for c, m in owner.items())
    assert cells(targets.matched >= 0) == set(owner)


# ---------------------------------------------------------------- whose boxes are trained


def test_all_cells_inside_learn_a_box_the_smallest_object_first(build):
    """Positives: one cell an object. Around them, the small object's 2 x 2 and the large one's other cells."""
    scene = build.scene([[0, 0, 32, 32], [0, 0, 16, 16]], size=(32, 32))
    targets = targets_of(hand_case(build, scene), Inside(0.6), box_cells="inside")
    assert targets.matched[0, 0].tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert not targets.score[~targets.positive].any()


def test_a_positive_cell_keeps_its_object(build):
    """The cell that stands for the large object lies in the small one."""
    scene = build.scene([[0, 0, 32, 32], [8, 8, 16, 16]], size=(32, 32))
    boxes = torch.full((1, 1, 4, 4, 4), 300.0)
    boxes[0, 0, 1, 1] = torch.tensor([0.0, 0.0, 32.0, 31.0])
    targets = targets_of(hand_case(build, scene, boxes=boxes), Radius(radius=0), box_cells="inside")
    assert cells(targets.positive) == {(0, 0, 1, 1)}
    assert targets.matched.eq(0).all()


@pytest.mark.parametrize("shared", [True, False])
def test_a_shared_box_learns_one_object(build, shared):
    """Class 0 stands for the large object on a cell that the small one, of class 1, holds too."""
    scene = build.scene([[0, 0, 32, 32], [8, 8, 16, 16]], [0, 1], size=(32, 32))
    boxes = torch.full((1, 1 if shared else 2, 4, 4, 4), 300.0)
    boxes[0, 0, 1, 1] = torch.tensor([0.0, 0.0, 32.0, 31.0])
    case = hand_case(build, scene, classes=2, shared=shared, boxes=boxes)
    targets = targets_of(case, Radius(radius=0), box_cells="inside")
    assert cells(targets.matched[:, 1] >= 0) == (set() if shared else {(0, 1, 1)})
    assert int((targets.matched[:, 0] == 0).sum()) == 16


@pytest.mark.parametrize("seed", range(40))
def test_inside_against_a_walk(build, seed):
    case, plain = build.random_case(seed), build.plain
    found = case.run(Tal(k=2))
    owner, shared = build.owners(found), case.shape.shared
    taken = {(c[0], *c[2:]) if shared else c for c in owner}
    claims = [
        (m, i, label, r, c, -plain.area(box))
        for m, i, label, box, rows, columns, _ in plain.walk(case)
        for r in range(rows)
        for c in range(columns)
        if plain.inside(box, r, c) and ((i, r, c) if shared else (i, label, r, c)) not in taken
    ]
    want = plain.winners(case, claims) | owner
    targets = dense_targets(case.output, found, case.objects, case.scenes, score=dense.iou, box_cells="inside")
    assert {c: int(targets.matched[c]) for c in cells(targets.matched >= 0)} == want
    assert cells(targets.positive) == set(owner)


# ---------------------------------------------------------------- unknown


def test_a_crowd_silences_its_own_class(build):
    """A crowd of class 0 over the left half, an object of class 1 in its corner, one of class 0 elsewhere."""
    boxes = [[0, 0, 16, 32], [0, 0, 8, 8], [24, 24, 32, 32]]
    scene = build.scene(boxes, [0, 1, 0], size=(32, 32), ignore=[True, False, False])
    targets = targets_of(hand_case(build, scene, classes=2), Inside())
    assert cells(targets.ignore) == {(0, 0, r, c) for r in range(4) for c in (0, 1)}
    assert cells(targets.positive) == {(0, 1, 0, 0), (0, 0, 3, 3)}
    assert targets.objects.tolist() == [boxes[1], boxes[2], boxes[0]]
    assert targets.labels.tolist() == [1, 0, 0]
    assert targets.counted.tolist() == [True, True, False]
    assert float(targets.normaliser) == 2
    assert targets.positives_per_object().tolist() == [1, 1, 0]


def test_an_object_in_a_crowd_stays_positive(build):
    scene = build.scene([[0, 0, 32, 32], [8, 8, 16, 16]], size=(32, 32), ignore=[True, False])
    targets = targets_of(hand_case(build, scene), Inside())
    assert cells(targets.positive) == {(0, 0, 1, 1)}
    assert int(targets.ignore.sum()) == 15
    assert not bool(targets.ignore[0, 0, 1, 1])


def test_silence_about_a_class_that_is_not_labelled_is_no_negative(build):
    scene = build.scene([[0, 0, 8, 8], [8, 8, 16, 16]], [0, 1], size=(32, 32), exhaustive=[True, False, False])
    targets = targets_of(hand_case(build, scene, classes=3), Inside())
    assert not targets.ignore[0, 0].any()
    assert cells(~targets.ignore[0, 1]) == {(1, 1)}
    assert targets.ignore[0, 2].all()


def test_unknown_classes_are_those_of_their_own_scene(build):
    scenes = [build.scene([], size=(16, 16), exhaustive=[False, True]), build.scene([], size=(16, 16))]
    output = DenseOutput(torch.zeros(2, 2, 2, 2), torch.zeros(2, 2, 2, 2, 4), 8.0)
    targets = targets_of(build.Case(scenes, output, output.logits), Inside())
    assert targets.ignore.flatten(2).all(-1).tolist() == [[True, False], [False, False]]
    assert int(targets.ignore.sum()) == 4


def test_exhaustive_of_another_length_is_named(build):
    scene = build.scene([], size=(32, 32), exhaustive=[True, False], name="x.png")
    with pytest.raises(ValueError, match=r"x\.png: exhaustive.*3 classes.*\[2\]"):
        targets_of(hand_case(build, scene, classes=3), Inside())


def test_padding_is_unknown_and_never_positive(build):
    """An image 9 px wide and 20 high on 4 x 4 cells: 2 columns and 3 rows of cells touch it."""
    scene = build.scene([[0, 0, 9, 20]], size=(20, 9))
    targets = targets_of(hand_case(build, scene, sizes=((20, 9),)), Inside(), box_cells="inside")
    known = {(0, 0, r, c) for r in range(3) for c in range(2)}
    assert cells(~targets.ignore) == known
    assert cells(targets.matched >= 0) <= known


def test_several_levels_are_refused(build):
    case = hand_case(build, build.scene([], size=(32, 32)))
    case = build.Case(case.scenes, replace(case.output, coarser=(case.output,)), case.score)
    with pytest.raises(ValueError, match="one level, the output has 2"):
        targets_of(case, Inside())
