"""Rules over the losses themselves: whether they are numbers, in range, and begin where they should."""

from __future__ import annotations

import numpy as np

from boresight.core.emission import Missing
from boresight.diagnose.finding import Finding
from boresight.diagnose.plan import Plan
from boresight.diagnose.rule import Rule
from boresight.diagnose.steps import Steps, middle

WHOLE = 50
"""Steps (of a shorter training all) in which a term must have been 0."""
LAST = 20
"""Last steps of which all must be 0."""
PLACE_LIMIT = 10.0
"""A place term above this after half of the training: relative to its object an edge is off by more than its side."""
TERM_LIMIT = 100.0
"""A score term above this after half of the training: a sum over cells that nothing divides."""
SHOCK = 30.0
"""A score term per object at the start. Focal with a prior of 0.01 starts at 1 to 10 on everything we trained."""


def not_finite(steps: Steps, plan: Plan) -> list[Finding] | Missing:
    """A loss, or the gradient's norm, is infinite or no number."""
    if steps.loss is None and not steps.terms and steps.gradient_norm is None and not steps.not_finite:
        return Missing("no loss is recorded")
    half = plan.precision == "fp16"
    losses = [n for n in steps.not_finite if n.column != "gradient_norm"]
    norms = [n for n in steps.not_finite if n.column == "gradient_norm"]
    if not losses and (not norms or (half and len(norms) <= max(5, 0.1 * len(steps)))):
        return []  # with fp16 the scaler tries out how far it can go: a few skipped steps are its work
    first = (losses or norms)[0]
    rate = plan.learning_rate
    lower = {"train.clip": plan.clip or 5.0, "train.learning_rate": rate / 4 if rate else None}
    wanted = {"train.precision": "no"} if half else lower
    return [
        Finding(
            "non-finite-loss",
            "error",
            f"{first.column} is {first.value} at step {first.step}",
            {"losses not finite": len(losses), "gradient norms not finite": len(norms), "at most": 0},
            "numbers left the range of the precision, or the rate threw the weights out of theirs",
            "train with full precision" if half else "lower the learning rate and clip the gradient",
            plan.change(wanted),
            1.0,
            "RT-DETR PR#464",
            first.step,
        )
    ]


def zero_loss(steps: Steps, plan: Plan) -> list[Finding] | Missing:
    """The loss is exactly 0: nothing is taught."""
    if steps.loss is None or len(steps) < 3:
        return Missing("fewer than 3 losses are recorded")
    loss = steps.loss[-LAST:]
    if not (np.abs(loss) < 1e-12).all():
        return []
    return [
        Finding(
            "zero-loss",
            "error",
            "the loss is 0: nothing is taught",
            {"largest loss of the last steps": float(np.abs(loss).max()), "more than": 0.0},
            "no object reaches the loss, or every term has a weight of 0",
            "check that the class names of the data are those of the settings, and the weights of the loss",
            {},
            0.95,
            "YOLOX#1199",
            int(steps.step[-1]),
        )
    ]


def out_of_range(steps: Steps, plan: Plan) -> list[Finding] | Missing:
    """A term has a unit: a distance in pixels instead of a share of the object."""
    if not steps.terms or len(steps) < 6:
        return Missing("fewer than 6 steps with loss terms are recorded")
    found = []
    for term in steps.terms:
        value = middle(term.values[len(term.values) // 2 :])
        limit = TERM_LIMIT if term.of_scores else PLACE_LIMIT
        if value <= limit or not np.isfinite(value):
            continue
        found.append(
            Finding(
                "loss-out-of-range",
                "warning" if term.of_scores else "error",
                f"the term `{term.name}` is far out of the range of a loss without unit",
                {f"median of {term.name}": value, "at most": limit},
                "coordinates in pixels enter the loss, or a sum is not divided by the objects",
                "divide coordinates by the size of their object or image before the distance is taken",
                plan.change({"loss.per": "objects"}) if term.of_scores else {},
                0.9 if value > 5 * limit else 0.7,
                "an L1 in pixels, whose losses were 300",
                int(steps.step[-1]),
            )
        )
    return found


def first_step_shock(steps: Steps, plan: Plan) -> list[Finding] | Missing:
    """The first steps carry a score loss of hundreds: a fresh head that says "everywhere"."""
    terms = [t for t in steps.terms if t.of_scores]
    if not terms or len(steps) < 3:
        return Missing("no score term is recorded" if not terms else "fewer than 3 steps are recorded")
    first = sum(middle(t.values[:3]) for t in terms)
    if first <= SHOCK:
        return []
    norm = None if steps.gradient_norm is None else middle(steps.gradient_norm[:3])
    return [
        Finding(
            "first-step-shock",
            "warning",
            "the score loss starts in the hundreds: a fresh head finds objects everywhere",
            {"score loss of the first steps": first, "at most": SHOCK, "gradient norm": norm},
            "the last bias does not start at -log((1 - p) / p) of a small prior p, or is overwritten after it was set",
            "start the head at a small prior",
            plan.change({"head.prior": 0.01}),
            0.9,
            "LibreYOLO#542",
            int(steps.step[0]),
        )
    ]


def term_zero(steps: Steps, plan: Plan) -> list[Finding] | Missing:
    """One term of the loss is 0 in every step, while others are not."""
    least = WHOLE if plan.steps is None else min(WHOLE, plan.steps)
    if steps.loss is None or not steps.terms or len(steps) < max(6, least):
        return Missing(f"fewer than {max(6, least)} steps with loss terms are recorded")
    if steps.objects is not None and not np.nansum(steps.objects):
        return Missing("no object was seen: other rules say so")
    none = [t for t in steps.terms if np.nanmax(np.abs(t.values), initial=0.0) < 1e-12]
    if not none or len(none) == len(steps.terms):
        return []
    kinds = {of_scores: [t for t in steps.terms if t.of_scores is of_scores] for of_scores in (True, False)}
    whole = any(kind and all(t in none for t in kind) for kind in kinds.values())
    names = ", ".join(f"`{t.name}`" for t in none)
    return [
        Finding(
            "loss-term-zero",
            "warning" if whole else "note",
            f"the loss of {names} is 0 in every step" + (": nothing else teaches it" if whole else ""),
            {"largest value": 0.0, "more than": 0.0, "terms that are 0": len(none), "of": len(steps.terms)},
            "its weight is 0, or what it compares is cut off from the weights or never there",
            "give the term a weight, or leave it out",
            {},
            0.85,
            "a weight of 0 that was meant for one experiment",
            int(steps.step[-1]),
        )
    ]


LOSS_RULES: tuple[Rule[Steps], ...] = (
    Rule("non-finite-loss", lambda e: e.steps, not_finite),
    Rule("zero-loss", lambda e: e.steps, zero_loss),
    Rule("loss-term-zero", lambda e: e.steps, term_zero),
    Rule("loss-out-of-range", lambda e: e.steps, out_of_range),
    Rule("first-step-shock", lambda e: e.steps, first_step_shock),
)
