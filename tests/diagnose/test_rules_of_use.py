"""Rules over the loop around a detector: what is trained, by which rate, how it is stored, loaded and asked."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

from boresight.core.emission import Missing
from boresight.core.types import DenseTargets, Detections, Points, Scene
from boresight.detectors.own import rows_of
from boresight.diagnose import rules_course, rules_found, rules_gradient, rules_loss, rules_targets, rules_weights
from boresight.diagnose.evidence import ClassTally
from boresight.diagnose.finding import Finding
from boresight.diagnose.measure_labels import returned
from boresight.diagnose.measure_weights import course
from boresight.diagnose.plan import Plan
from boresight.diagnose.probe import Course, Parity, Reload, Returned
from boresight.diagnose.steps import Steps
from boresight.run.optimise import rate_share

PLAN = Plan(score="ap50", steps=100, learning_rate=2e-3, keys=("train.weight_decay", "decode.nms"))


def table(count: int, **columns: Any) -> Steps:
    rows = [{"step": i} | {k: v(i) if callable(v) else v for k, v in columns.items()} for i in range(1, count + 1)]
    return Steps.of(rows)


# --- rates -----------------------------------------------------------------------------------------------------------


def test_a_schedule_that_begins_again_is_named_with_its_step():
    def rate(i: int) -> float:
        return rate_share(i - 1, steps=80, warmup=10, final=0.01)

    assert rules_course.schedule_restarted(table(80, learning_rate=rate), PLAN) == []
    assert rules_course.schedule_restarted(table(80, learning_rate=1e-3), PLAN) == []
    (found,) = rules_course.schedule_restarted(table(80, learning_rate=lambda i: rate(i if i < 60 else i - 50)), PLAN)
    assert (found.id, found.step) == ("schedule-restarted", 60)
    assert isinstance(rules_course.schedule_restarted(table(80, loss_cls=1.0), PLAN), Missing)


@pytest.mark.parametrize(("decay", "fires"), [(0.01, False), (0.1, False), (4.0, False), (6.0, True)])
def test_a_decay_that_forgets_within_the_training(decay, fires):
    plan = Plan(steps=100, learning_rate=2e-3, weight_decay=decay, keys=("train.weight_decay",))
    found = rules_gradient.decay_high(table(3, loss_cls=1.0), plan)
    assert [f.change for f in found] == ([{"train.weight_decay": 0.01}] if fires else [])


def test_a_term_of_zero_is_worse_where_nothing_else_teaches_the_same():
    one = table(60, loss_cls=1.0, loss_l1=0.0, loss_giou=1.0, objects=3)
    both = table(60, loss_cls=1.0, loss_l1=0.0, loss_giou=0.0, objects=3)
    assert [f.severity for f in rules_loss.term_zero(one, PLAN)] == ["note"]
    assert [f.severity for f in rules_loss.term_zero(both, PLAN)] == ["warning"]
    late = table(60, loss_cls=1.0, loss_l1=lambda i: float(i > 40), objects=3)
    assert rules_loss.term_zero(late, PLAN) == []
    for few in (table(30, loss_cls=1.0, loss_l1=0.0, objects=3), table(60, loss_cls=1.0, loss_l1=0.0, objects=0)):
        assert isinstance(rules_loss.term_zero(few, PLAN), Missing)


def test_a_class_without_an_object_among_enough_others():
    rows = [ClassTally(e, name, 5, n, 0) for e in (0, 1) for name, n in (("a", 25), ("b", 0))]
    (found,) = rules_targets.absent_class(tuple(rows), PLAN)
    assert "`b`" in found.title
    seen = [*rows, ClassTally(2, "b", 1, 1, 0)]
    assert rules_targets.absent_class(tuple(seen), PLAN) == []
    assert isinstance(rules_targets.absent_class(tuple(rows[:2]), PLAN), Missing)
    assert isinstance(rules_targets.absent_class(tuple(rows[::2]), PLAN), Missing)


# --- weights ---------------------------------------------------------------------------------------------------------


def two_parts() -> nn.Module:
    torch.manual_seed(0)
    body, head = nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 1))
    return nn.ModuleDict({"encoder": body, "head": head})


def test_how_far_each_part_has_come():
    before, after = two_parts(), two_parts()
    with torch.no_grad():
        after["encoder"][0].weight.mul_(2)
    one, other = course(before, after)
    norms = [float(p.detach().norm()) for p in before["encoder"].parameters()]
    assert (one.part, one.tensors, one.asked, one.still) == ("encoder.0", 2, 2, 1)
    assert one.change == pytest.approx(norms[0] / (4 * norms[0] ** 2 + norms[1] ** 2) ** 0.5)
    assert other == Course("head.0", 2, 2, 2, 0.0)
    before["encoder"].requires_grad_(False)
    assert course(before, after)[0].asked == 0


def part(name: str, *, asked: int = 2, still: int = 0, change: float = 0.5) -> Course:
    return Course(name, 2, asked, still, change)


@pytest.mark.parametrize(
    ("parts", "plan", "says"),
    [
        ([part("encoder.a"), part("head.b")], PLAN, []),
        ([part("encoder.a"), part("head.b", still=1)], PLAN, []),
        ([part("encoder.a"), part("head.b", still=2)], PLAN, ["error"]),
        ([part("encoder.a"), part("head.b", asked=0)], PLAN, ["error"]),
        ([part("encoder.a", asked=0), part("head.b")], PLAN, ["error"]),
        ([part("encoder.a", asked=0), part("head.b")], Plan(steps=100, frozen=True), []),
        ([part("encoder.a", change=1e-5), part("head.b", change=1e-4)], PLAN, ["warning"]),
        ([part("encoder.a", change=1e-5)], Plan(steps=10), []),
        ([part("encoder.a"), part("encoder.c"), part("head.b", still=2)], Plan(steps=100, scored=False), []),
    ],
)
def test_parts_that_stand_still(parts, plan, says):
    assert [f.severity for f in rules_weights.stands_still(tuple(parts), plan)] == says


def test_an_output_that_differs_from_time_to_time_is_told_from_one_that_depends_on_its_batch():
    drawn = Parity((), 0.5, 1.0, 1.0, repeats=0.4)
    batch = Parity(("bn",), 0.5, 1.0, 1.0, repeats=0.0)
    assert "every time" in rules_weights.parity(drawn, PLAN)[0].title
    assert "batch" in rules_weights.parity(batch, PLAN)[0].title
    assert rules_weights.parity(Parity((), 1e-5, 1.0, 1.0, repeats=1e-5), PLAN) == []


# --- what is returned ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reload", "says"),
    [
        (Reload(9, 0, "", 0.5, 0.51), []),
        (Reload(9, 0, "", 0.5, None), []),
        (Reload(9, 0, "", 0.5, 0.45), ["warning"]),
        (Reload(9, 0, "", 0.5, 0.3), ["error"]),
        (Reload(9, 1, "head.bias", 0.5, 0.5), ["error"]),
    ],
)
def test_what_is_used_is_what_was_stored(reload, says):
    assert [f.severity for f in rules_found.reload_differs(reload, PLAN)] == says


def found(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Detections:
    return Detections(torch.tensor(boxes), torch.tensor(scores), torch.tensor(labels), torch.arange(len(scores)))


def test_twins_lie_under_a_better_one_of_their_class():
    box, same, beside = [0.0, 0, 10, 10], [0.0, 0, 10, 8], [30.0, 0, 40, 10]
    one = found([box, same, same, beside], [0.9, 0.8, 0.7, 0.1], [0, 0, 1, 0])
    scene = Scene(torch.zeros(1, 50, 50), "a", boxes=torch.zeros(0, 4), labels=torch.zeros(0).long())
    told = returned([scene], [one], 0.5, tolerance=None)
    assert (told.count, told.used, told.twins) == (4, 3, 1)
    assert (told.low, told.high) == pytest.approx((0.1, 0.9))
    points = found([[5, 5, 5, 5], [6, 5, 6, 5], [8, 5, 8, 5]], [0.9, 0.8, 0.7], [0, 0, 0])
    dots = Scene(torch.zeros(1, 50, 50), "a", points=Points.of([]))
    assert returned([dots], [points], 0.5, tolerance=3.0).twins == 1


def test_shares_and_ranges_on_both_sides_of_their_limits():
    assert rules_found.duplicates(Returned(90, 0.0, 1.0, 40, 4), PLAN) == []
    assert [f.change for f in rules_found.duplicates(Returned(90, 0.0, 1.0, 40, 5), PLAN)] == [{"decode.nms": 0.5}]
    assert isinstance(rules_found.duplicates(Returned(90, 0.0, 1.0, 19, 5), PLAN), Missing)
    assert [f.id for f in rules_found.squeezed(Returned(90, 0.5, 0.73, 9, 0), PLAN)] == ["scores-squeezed"]
    for low, high in ((0.4, 0.73), (0.5, 0.8)):
        assert rules_found.squeezed(Returned(90, low, high, 9, 0), PLAN) == []
    assert isinstance(rules_found.squeezed(Returned(40, 0.5, 0.7, 9, 0), PLAN), Missing)


# --- a run that is ill must still be told ----------------------------------------------------------------------------


def test_a_figure_that_is_no_number_can_be_written():
    ill = Finding("a", "note", "t", {"x": float("nan"), "y": float("inf"), "z": 1.0}, "c", "r", {})
    assert json.loads(json.dumps(ill.to_dict(), allow_nan=False))["evidence"] == {"x": "nan", "y": "inf", "z": 1.0}


def test_targets_that_lost_an_object_have_no_rows():
    boxes = torch.tensor([[0.0, 0, 4, 4], [5, 5, 9, 9]])
    scene = Scene(torch.zeros(3, 16, 16), "a", boxes=boxes, labels=torch.zeros(2).long())
    none = torch.zeros(1, 1, 2, 2)

    def targets(objects: torch.Tensor) -> DenseTargets:
        n = len(objects)
        known = (objects, torch.zeros(n).long(), torch.ones(n, dtype=torch.bool), torch.tensor(1.0))
        return DenseTargets(none > 1, none.long() - 1, none, none > 1, *known)

    assert rows_of(targets(boxes), scene).tolist() == [0, 1]
    lost = rows_of(targets(boxes[:1]), scene)
    assert isinstance(lost, Missing)
    assert "first in `a`" in lost.reason
    assert isinstance(rows_of(targets(boxes + 1), scene), Missing)
