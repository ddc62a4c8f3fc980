"""Rules over the gradient's norm, as it was before it was clipped."""

from __future__ import annotations

import numpy as np

from boresight.core.emission import Missing
from boresight.diagnose.finding import Finding
from boresight.diagnose.plan import Plan
from boresight.diagnose.rule import Rule
from boresight.diagnose.steps import Steps, middle

EARLY = 20
SPIKE = 30.0
"""A norm over the median of the fifty before it."""
RISE = 2.0
"""The loss after a spike over that before it: without such a rise a spike has done no harm."""
ALWAYS = 0.9
"""Share of the later steps that are clipped; a batch without objects hardly has a gradient."""
FORGETS = 200
"""Steps in which weight decay alone takes a weight to a third. With a rate of 2e-3 and a decay of 0.01 it is 50,000."""
FAR, VERY_FAR = 5.0, 30.0
"""Median norm over the clip: from the first on it is worth knowing, from the second on it is a fault. Adam divides by
the gradient's size, so that clipping by a constant factor changes nothing: our own recipes lie between 1 and 3."""


def explosion(steps: Steps, plan: Plan) -> list[Finding] | Missing:
    """A gradient many times larger than its neighbours that was not clipped, or after which the loss stands higher."""
    norm = steps.gradient_norm
    if norm is None or steps.loss is None or len(steps) < EARLY:
        return Missing(f"fewer than {EARLY} gradient norms and losses are recorded")
    for at in np.flatnonzero(norm > SPIKE * np.nanmedian(norm)):
        before, after = slice(max(0, at - 50), at), slice(at + 1, at + 11)
        if at < 10 or at + 6 > len(steps):
            continue  # the first steps differ by themselves, and after the last ones nothing is known
        spike = float(norm[at] / max(middle(norm[before]), 1e-12))
        rise = middle(steps.loss[after]) / max(middle(steps.loss[before]), 1e-12)
        if spike > SPIKE and (rise > RISE or plan.clip == 0):
            return [_exploded(spike, rise, int(steps.step[at]), plan)]
    return []


def _exploded(spike: float, rise: float, step: int, plan: Plan) -> Finding:
    lower = {"train.learning_rate": plan.learning_rate / 4 if plan.learning_rate else None}
    return Finding(
        "gradient-explosion",
        "error" if rise > 10 else "warning",
        "the gradient exploded" + (", and the loss has not come back" if rise > RISE else ", and nothing clipped it"),
        {
            "norm over the median before": spike,
            "at most": SPIKE,
            "loss after over before": rise,
            "at most, of that": RISE,
        },
        "one batch weighs more than all others: a box without size, a wrong label, an image out of range; the "
        "optimiser's second moment remembers it for hundreds of steps",
        "clip the gradient" if not plan.clip else "look at the batch of that step, and lower the rate",
        plan.change(lower if plan.clip else {"train.clip": 5.0}),
        0.85,
        "mmdetection#4229",
        step,
    )


def clip_always(steps: Steps, plan: Plan) -> list[Finding] | Missing:
    """The clip is reached in every step, by a wide margin: it, and not the gradient, sets the size of the steps."""
    if steps.gradient_norm is None or plan.clip is None or len(steps) < EARLY:
        return Missing(f"it needs the clip and {EARLY} gradient norms")
    if not plan.clip:
        return []
    norm = steps.gradient_norm[len(steps) // 2 :]
    norm = norm[np.isfinite(norm)]
    if not len(norm):
        return Missing("no gradient norm is finite")
    share, ratio = float((norm > plan.clip).mean()), float(np.median(norm)) / plan.clip
    if share < ALWAYS or ratio < FAR:
        return []
    grave = ratio >= VERY_FAR
    return [
        Finding(
            "clip-always-active",
            "warning" if grave else "note",
            "every step is clipped" + (" to a small part of the gradient" if grave else ""),
            {"share of clipped steps": share, "at most": ALWAYS, "median norm over the clip": ratio}
            | {"at most, of that": FAR},
            "the loss is a sum that nothing divides or has a unit, or the clip is too tight for it",
            "look at the size of the loss terms first; then set the clip near the median norm",
            plan.change({"train.clip": round(float(np.median(norm)), 2)}),
            0.8 if grave else 0.6,
            "our own finished runs: 1 to 11 times the clip",
            int(steps.step[-1]),
        )
    ]


def decay_high(steps: Steps, plan: Plan) -> list[Finding] | Missing:
    """Weight decay shrinks the weights to nothing within some hundred steps."""
    decay, rate = plan.weight_decay, plan.learning_rate
    if decay is None or rate is None or not plan.steps:
        return Missing("the weight decay or the learning rate is not known")
    forgets = 1 / max(decay * rate, 1e-12)
    if forgets >= min(FORGETS, plan.steps):
        return []
    return [
        Finding(
            "weight-decay-high",
            "warning",
            "weight decay takes the weights back faster than they can learn",
            {"steps until a weight has shrunk to a third": forgets, "at least": min(FORGETS, plan.steps)}
            | {"weight decay": decay, "learning rate": rate},
            "AdamW multiplies every weight by 1 - rate x decay in each step, whatever its gradient",
            "lower the weight decay: 0.01 to 0.1 with AdamW",
            plan.change({"train.weight_decay": 0.01}),
            0.85,
            "Loshchilov and Hutter 2019 (AdamW), algorithm 2",
        )
    ]


GRADIENT_RULES: tuple[Rule[Steps], ...] = (
    Rule("gradient-explosion", lambda e: e.steps, explosion),
    Rule("clip-always-active", lambda e: e.steps, clip_always),
    Rule("weight-decay-high", lambda e: e.steps, decay_high),
)
