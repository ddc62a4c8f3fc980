"""Rules over rows, on tables worked out by hand: each on both sides of its limit."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from boresight.core.emission import Missing
from boresight.diagnose import rules_course, rules_gradient, rules_loss, rules_speed, rules_targets
from boresight.diagnose.evidence import ClassTally, Evidence, FrozenPart, Outcome, UnreadKey
from boresight.diagnose.finding import Finding
from boresight.diagnose.health import health
from boresight.diagnose.plan import Plan
from boresight.diagnose.probe import Cost, Operating, Probe
from boresight.diagnose.rules_scores import half_threshold
from boresight.diagnose.steps import Steps

PLAN = Plan(system="point", score="f1", steps=100, batch=4, learning_rate=1e-3, clip=5.0, score_loss="bce", per="cells")


def table(count: int, **columns: Any) -> Steps:
    """A table of ``count`` steps; a column is a number, or a function of the step."""
    rows = []
    for i in range(1, count + 1):
        values = {k: v(i) if isinstance(v, Callable) else v for k, v in columns.items()}
        rows.append({"step": i, "epoch": (i - 1) // 10, **values})
    return Steps.of(rows, "f1")


def only(found: list[Finding] | Missing) -> Finding:
    assert not isinstance(found, Missing)
    (finding,) = found
    return finding


def of(rule: str, evidence: Evidence) -> list[Finding]:
    """What one rule says of all evidence; fails where it was not judged."""
    said = health(evidence)
    assert rule not in {u.rule for u in said.unjudged}, said.unjudged
    return [f for f in said.findings if f.id == rule]


# --- losses ----------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_is_named_with_its_step():
    finding = only(rules_loss.not_finite(table(5, loss_cls=lambda i: math.nan if i == 4 else 1.0), PLAN))
    assert (finding.severity, finding.step) == ("error", 4)
    assert rules_loss.not_finite(table(5, loss_cls=1.0), PLAN) == []


def test_fp16_may_skip_a_few_steps():
    half = Plan(precision="fp16")
    few = table(100, loss_cls=1.0, gradient_norm=lambda i: math.inf if i <= 5 else 1.0)
    many = table(100, loss_cls=1.0, gradient_norm=lambda i: math.inf if i <= 20 else 1.0)
    assert rules_loss.not_finite(few, half) == []
    assert only(rules_loss.not_finite(many, half)).id == "non-finite-loss"
    assert only(rules_loss.not_finite(few, Plan(precision="no"))).step == 1


def test_a_loss_of_zero_and_one_that_is_only_small():
    assert only(rules_loss.zero_loss(table(5, loss_cls=0.0), PLAN)).severity == "error"
    assert rules_loss.zero_loss(table(5, loss_cls=1e-6), PLAN) == []
    assert isinstance(rules_loss.zero_loss(table(2, loss_cls=0.0), PLAN), Missing)


def test_the_last_twenty_steps_must_be_zero():
    assert only(rules_loss.zero_loss(table(40, loss_cls=lambda i: float(i <= 20)), PLAN))
    assert rules_loss.zero_loss(table(40, loss_cls=lambda i: float(i <= 30)), PLAN) == []


def test_a_place_term_has_a_smaller_range_than_a_score_term():
    def said(**terms: float) -> list[tuple[str, str]]:
        found = rules_loss.out_of_range(table(10, **terms), PLAN)
        assert not isinstance(found, Missing)
        return [(f.severity, f.title) for f in found]

    assert said(loss_l1=9.0, loss_cls=90.0) == []
    assert [severity for severity, _ in said(loss_l1=11.0, loss_cls=110.0)] == ["error", "warning"]
    assert said(loss_l1=9.0, loss_cls=90.0) == []


def test_the_range_is_that_of_the_later_half():
    assert rules_loss.out_of_range(table(20, loss_l1=lambda i: 300.0 if i < 9 else 1.0), PLAN) == []


def test_a_score_term_of_hundreds_at_the_start_is_a_shock():
    assert only(rules_loss.first_step_shock(table(3, loss_cls=25.0, loss_auxiliary=6.0), PLAN)).severity == "warning"
    assert rules_loss.first_step_shock(table(3, loss_cls=25.0, loss_l1=300.0), PLAN) == []


# --- the course ------------------------------------------------------------------------------------------------------


def test_a_jump_of_the_loss_and_one_that_few_objects_explain():
    jump = table(40, loss_cls=lambda i: 6.0 if i == 20 else 1.0, objects=4.0)
    thin = table(40, loss_cls=lambda i: 6.0 if i == 20 else 1.0, objects=lambda i: 1.0 if i == 20 else 6.0)
    finding = only(rules_course.learning_rate_high(jump, PLAN))
    assert (finding.step, finding.severity) == (20, "warning")
    assert rules_course.learning_rate_high(thin, PLAN) == []


def test_a_rate_far_beyond_what_is_usual_for_so_few_images():
    calm = table(40, loss_cls=1.0)
    assert rules_course.learning_rate_high(calm, PLAN) == []
    assert only(rules_course.learning_rate_high(calm, Plan(learning_rate=0.1, batch=4))).confidence == 0.5
    assert rules_course.learning_rate_high(calm, Plan(learning_rate=0.016, batch=4)) == []


def test_of_a_few_steps_no_course_is_known():
    few = table(19, loss_cls=lambda i: 6.0 if i == 10 else 1.0, gradient_norm=100.0)
    assert isinstance(rules_course.learning_rate_high(few, PLAN), Missing)
    assert isinstance(rules_gradient.explosion(few, PLAN), Missing)
    assert isinstance(rules_gradient.clip_always(few, PLAN), Missing)
    times = rules_speed.Times(table(19, time_data=1.0, time_forward=0.1, time_backward=0.1), ())
    assert isinstance(rules_speed.loader_bound(times, PLAN), Missing)


def trap(ratio: float, **figures: float) -> Any:
    """100 steps of 1,000 cells and one positive, at so many times the loss of the base rate."""
    optimum = -(1e-3 * math.log(1e-3) + 0.999 * math.log(0.999))
    shown = {f"val_{k}": (lambda i, v=v: v if i in (50, 100) else None) for k, v in figures.items()}
    counts = {"positives": 1.0, "positive_rate": 1e-3, "positive_mass": 1.0, "objects": 1.0}
    return rules_course.background_trap(table(100, loss_cls=ratio * optimum, **counts, **shown), PLAN)


def test_the_trap_is_the_loss_of_the_base_rate_and_nothing_found():
    finding = only(trap(1.0, f1=0.1, f1_at_half=0.0))
    assert finding.severity == "error"
    assert finding.evidence["score loss over the base rate's"] == pytest.approx(1.0)
    assert only(trap(1.0, f1=0.6, f1_at_half=0.0)).severity == "warning"


def test_no_trap_where_something_is_found_or_the_loss_is_another():
    assert trap(1.0, f1=0.6, f1_at_half=0.05) == []
    assert trap(1.0, f1=0.6, f1_at_half=0.01)
    assert trap(0.3, f1=0.1, f1_at_half=0.0) == []
    assert trap(6.0, f1=0.1, f1_at_half=0.0) == []


def test_the_loss_of_the_base_rate_may_be_divided_by_objects():
    counts = {"positives": 2.0, "positive_rate": 2e-3, "positive_mass": 2.0, "objects": 4.0}
    optimum = -(2e-3 * math.log(2e-3) + 0.998 * math.log(0.998)) * 1000 / 4
    figures = {"val_f1": lambda i: 0.0 if i % 50 == 0 else None}
    steps = table(100, loss_cls=optimum, **counts, **figures)
    each = Plan(score="f1", steps=100, score_loss="bce", per="objects")
    assert only(rules_course.background_trap(steps, each)).evidence["score loss over the base rate's"] == pytest.approx(
        1
    )


def test_another_loss_must_fall_to_nothing_and_find_nothing():
    focal = Plan(score="f1", steps=100, score_loss="focal")
    none = {"val_f1": lambda i: 0.0 if i % 50 == 0 else None}
    fallen, standing = table(100, loss_cls=lambda i: 1.0 / i**2, **none), table(100, loss_cls=1.0, **none)
    assert only(rules_course.background_trap(fallen, focal)).confidence == 0.6
    assert rules_course.background_trap(standing, focal) == []


def test_an_unfinished_training_may_have_found_nothing_once():
    counts = {"positives": 1.0, "positive_rate": 1e-3, "positive_mass": 1.0, "objects": 1.0}
    once = table(50, loss_cls=0.008, val_f1=lambda i: 0.0 if i == 50 else None, **counts)
    assert rules_course.background_trap(once, PLAN) == []
    assert only(rules_course.background_trap(once, Plan(score="f1", steps=50, score_loss="bce", per="cells")))


def judged(*figures: float, loss: Any = lambda i: 2 - i / 100) -> Any:
    every = 100 // len(figures)
    column = {"val_f1": lambda i: figures[i // every - 1] if i % every == 0 and i // every <= len(figures) else None}
    return rules_course.diverge(table(100, loss_cls=loss, **column), PLAN)


def test_a_figure_that_falls_while_the_loss_falls():
    finding = only(judged(0.3, 0.6, 0.4, 0.35))
    assert finding.step == 50
    assert finding.severity == "warning"


@pytest.mark.parametrize(
    "figures",
    [
        (0.3, 0.6, 0.58, 0.57),
        (0.3, 0.6, 0.3, 0.6),
        (0.6, 0.5, 0.4, 0.62),
        (0.02, 0.04, 0.02, 0.02),
        (0.3, 0.5, 0.6, 0.3),
    ],
)
def test_a_figure_that_wavers_is_no_divergence(figures):
    assert judged(*figures) == []


def test_a_figure_that_falls_with_a_loss_that_rises_is_another_fault():
    assert judged(0.3, 0.6, 0.4, 0.35, loss=lambda i: i / 100) == []


# --- the gradient ----------------------------------------------------------------------------------------------------


def spike(size: float, after: float) -> Steps:
    return table(60, loss_cls=lambda i: after if i > 30 else 1.0, gradient_norm=lambda i: size if i == 30 else 1.0)


def test_a_spike_is_harmless_where_it_is_clipped_and_the_loss_comes_back():
    assert rules_gradient.explosion(spike(100.0, 1.0), PLAN) == []
    assert only(rules_gradient.explosion(spike(100.0, 3.0), PLAN)).severity == "warning"
    assert only(rules_gradient.explosion(spike(100.0, 20.0), PLAN)).severity == "error"
    assert only(rules_gradient.explosion(spike(100.0, 1.0), Plan(clip=0.0))).step == 30
    assert rules_gradient.explosion(spike(20.0, 1.0), Plan(clip=0.0)) == []


@pytest.mark.parametrize(("norm", "severity"), [(4.0, None), (20.0, None), (30.0, "note"), (200.0, "warning")])
def test_a_clip_that_is_always_reached_matters_by_its_margin(norm, severity):
    found = rules_gradient.clip_always(table(40, gradient_norm=norm), PLAN)
    assert not isinstance(found, Missing)
    assert [f.severity for f in found] == ([] if severity is None else [severity])


def test_a_clip_that_is_reached_now_and_then_is_what_it_is_for():
    often = table(40, gradient_norm=lambda i: 200.0 if i % 2 else 1.0)
    assert rules_gradient.clip_always(often, PLAN) == []


def test_without_a_clip_nothing_is_clipped():
    assert rules_gradient.clip_always(table(40, gradient_norm=200.0), Plan(clip=0.0)) == []
    assert isinstance(rules_gradient.clip_always(table(40, gradient_norm=200.0), Plan()), Missing)


# --- time and store --------------------------------------------------------------------------------------------------


def loading(data: float, *costs: Cost) -> Any:
    steps = table(30, time_data=data, time_forward=0.1, time_backward=0.1)
    return rules_speed.loader_bound(rules_speed.Times(steps, costs), Plan(keys=("train.workers", "augment.noise")))


def test_a_step_that_waits_for_images_names_what_takes_longest():
    noise = Cost("augment.noise", 0.03, {"augment.noise": 0.0})
    finding = only(loading(0.3, Cost("reading", 0.01), noise))
    assert "`augment.noise`" in finding.title
    assert finding.evidence["share of loading"] == pytest.approx(0.6)
    assert finding.evidence["share of augment.noise in it"] == pytest.approx(0.75)
    assert finding.change == {"train.workers": 2, "augment.noise": 0.0}
    assert loading(0.15, noise) == []


def store(hits: float, misses: float, evicted: int | None = None) -> list[str]:
    def per_epoch(later: float, first: float) -> Any:
        return lambda i: first if i <= 10 else later

    steps = table(40, feature_hits=per_epoch(hits, 0.0), feature_misses=per_epoch(misses, 4.0))
    outcome: Any = Missing("not finished") if evicted is None else Outcome(evicted=evicted)
    said = health(Evidence(PLAN, steps, outcome=outcome))
    return [f.id for f in said.findings if f.id.startswith("cache")]


def test_the_first_epoch_of_a_store_does_not_count():
    assert store(4.0, 0.0) == []
    assert store(3.8, 0.2) == []


def test_images_that_are_never_found_again_have_keys_that_change():
    assert store(0.0, 4.0) == store(0.0, 4.0, evicted=0) == ["cache-key-unstable"]
    assert store(0.0, 4.0, evicted=30) == store(2.0, 2.0) == ["cache-hits-low"]


def test_a_run_of_one_epoch_says_nothing_of_its_store():
    steps = table(10, feature_hits=0.0, feature_misses=4.0)
    assert isinstance(rules_speed.key_unstable(rules_speed.Stored(steps, None), PLAN), Missing)


# --- targets ---------------------------------------------------------------------------------------------------------


def tally(*rows: tuple[str, int, int, int]) -> tuple[ClassTally, ...]:
    return tuple(ClassTally(0, *row) for row in rows)


def test_objects_that_no_cell_stands_for():
    assert rules_targets.without_positives(tally(("ship", 900, 100, 12)), PLAN) == []  # 12 % of 100 may be chance
    assert only(rules_targets.without_positives(tally(("ship", 900, 1000, 130)), PLAN)).severity == "warning"
    assert only(rules_targets.without_positives(tally(("ship", 100, 100, 80)), PLAN)).severity == "error"


def test_one_class_may_starve_among_many():
    finding = only(rules_targets.without_positives(tally(("ship", 9000, 1000, 0), ("buoy", 20, 50, 40)), PLAN))
    assert finding.evidence["worst class"] == "buoy"
    assert rules_targets.without_positives(tally(("ship", 9000, 1000, 0), ("buoy", 20, 50, 15)), PLAN) == []


def test_of_coarse_boxes_a_view_shows_a_sample():
    proposals = Plan(proposals=True, keys=("coarse.per_image",))
    assert rules_targets.without_positives(tally(("ship", 900, 1000, 300)), proposals) == []
    assert set(only(rules_targets.without_positives(tally(("ship", 90, 1000, 700)), proposals)).change) == {
        "coarse.per_image"
    }


def test_the_earlier_half_of_the_epochs_does_not_count():
    rows = tuple(ClassTally(e, "ship", 100, 100, 90 if e < 2 else 0) for e in range(4))
    assert only(rules_targets.without_positives(rows, PLAN)).evidence["share of objects with none"] == pytest.approx(
        0.3
    )
    rows = tuple(ClassTally(e, "ship", 100, 100, 90 if e < 1 else 0) for e in range(4))
    assert rules_targets.without_positives(rows, PLAN) == []


@pytest.mark.parametrize(("positives", "severity"), [(95, None), (70, "warning"), (20, "error")])
def test_an_object_has_a_positive_cell(positives, severity):
    found = rules_targets.positives_per_object(tally(("ship", positives, 100, 0)), PLAN)
    assert not isinstance(found, Missing)
    assert [f.severity for f in found] == ([] if severity is None else [severity])


def test_no_object_in_an_epoch_and_in_a_few_steps():
    assert only(rules_targets.no_objects(table(12, objects=0.0), PLAN)).severity == "error"
    assert rules_targets.no_objects(table(5, objects=0.0), PLAN) == []
    assert rules_targets.no_objects(table(12, objects=lambda i: float(i == 1)), PLAN) == []


def test_objects_and_no_positive():
    assert only(rules_targets.no_positives(table(5, objects=3.0, positives=0.0), PLAN)).severity == "error"
    assert rules_targets.no_positives(table(5, objects=3.0, positives=lambda i: float(i == 5)), PLAN) == []
    assert rules_targets.no_positives(table(5, objects=0.0, positives=0.0), PLAN) == []


# --- judgements and settings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("half", "severity"), [(0.5, None), (0.4, "note"), (0.1, "warning")])
def test_a_half_is_not_where_scores_divide(half, severity):
    figures = {"val_f1": 0.8, "val_f1_at_half": half, "val_threshold": 0.05}
    steps = table(100, loss_cls=1.0, **{k: (lambda i, v=v: v if i == 100 else None) for k, v in figures.items()})
    found = half_threshold(steps, PLAN)
    assert not isinstance(found, Missing)
    assert [f.severity for f in found] == ([] if severity is None else [severity])


def test_the_runs_own_judgement_of_its_threshold_goes_before_the_probe():
    few, all_ = Operating(20, 0.5, 0.1, 0.05, 0.8, 0.0), Operating(500, 0.5, 0.8, 0.45, 0.8)
    assert of("threshold-off", Evidence(PLAN, probe=Probe(operating=few)))
    assert not of("threshold-off", Evidence(PLAN, outcome=Outcome(operating=all_), probe=Probe(operating=few)))


def test_a_frozen_part_whose_hash_changed():
    same, other = FrozenPart("clip", "a" * 32, "a" * 32), FrozenPart("sam", "a" * 32, "b" * 32)
    (finding,) = of("frozen-hash-changed", Evidence(outcome=Outcome((same, other))))
    assert "`sam`" in finding.title
    assert not of("frozen-hash-changed", Evidence(outcome=Outcome((same,))))


def test_an_unknown_key_weighs_more_than_one_that_is_switched_off():
    unknown, off = UnreadKey("a.b", "1", "no setting has this name", False), UnreadKey("c.d", "2", "off", True)
    assert [f.severity for f in of("unread-key", Evidence(unread=(unknown, off)))] == ["warning", "note"]
    assert not of("unread-key", Evidence(unread=()))
