"""Rules over weights and activations: alike in training and inference, in range, up to date, frozen where said."""

from __future__ import annotations

from boresight.core.emission import Missing
from boresight.diagnose.evidence import Outcome
from boresight.diagnose.finding import Finding
from boresight.diagnose.plan import Plan
from boresight.diagnose.probe import Activation, Averaged, Course, Moved, Parity
from boresight.diagnose.rule import Rule

COMPANIONS = 0.02
"""Change of a logit by the other images of the batch, over the spread of the logits; rounding gives 1e-5."""
MODES = 1.5
"""Loss in inference over that in training mode, on the same batch."""
REPEATS = 1e-3
"""Change of a logit from one time to the next, over the spread of the logits."""
LONG, CRAWL = 50, 1e-3
"""Steps from which weights should have moved, and by which part of their size at the least."""
HALF_LIMIT = 65504.0
"""The largest number of float16."""
BEHIND = 1.5
"""Loss of the averaged weights over that of the raw ones."""


def parity(parity: Parity, plan: Plan) -> list[Finding] | Missing:
    """What is emitted in inference is not what was trained."""
    ratio = parity.eval / parity.train if parity.train > 0 else 1.0
    if parity.repeats > REPEATS and parity.companions <= max(COMPANIONS, 3 * parity.repeats):
        return [_random(parity)]
    if not parity.stuck and parity.companions <= COMPANIONS and ratio <= MODES:
        return []
    batch = bool(parity.stuck) or parity.companions > COMPANIONS
    figures: dict[str, float | int | str | None] = {"loss, inference over training": ratio, "at most": MODES}
    figures |= {"change by the rest of the batch": parity.companions, "at most, of that": COMPANIONS}
    figures |= {"modules left in training": len(parity.stuck)} | ({"first": parity.stuck[0]} if parity.stuck else {})
    return [
        Finding(
            "train-eval-parity",
            "error" if batch or ratio > 2 * MODES else "warning",
            "in inference an image's output depends on its batch" if batch else "inference is far worse than training",
            figures,
            "batch normalisation stays in training mode"
            if batch
            else "running statistics have not caught up with the weights, or were never updated",
            "call eval() before inference, on every module"
            if batch
            else "train longer, raise the statistics' momentum, or normalise by groups",
            {} if batch else plan.change({"train.batch": 16}),
            0.9 if batch else 0.7,
            "tensorflow/models#10065",
        )
    ]


def _random(parity: Parity) -> Finding:
    stuck = f" (`{parity.stuck[0]}` is left in training)" if parity.stuck else ""
    return Finding(
        "train-eval-parity",
        "error",
        "in inference the same image gives another output every time" + stuck,
        {"change from one time to the next": parity.repeats, "at most": REPEATS, "left in training": len(parity.stuck)},
        "dropout, or another layer that draws numbers, is still on",
        "call eval() before inference; pass `self.training` to functions that draw",
        {},
        0.95,
        "tensorflow/models#10065",
    )


def stands_still(parts: tuple[Course, ...], plan: Plan) -> list[Finding] | Missing:
    """A part that is to be trained is as it was before the first step."""
    if not plan.steps:
        return Missing("no step was planned")
    idle = [p for p in parts if _idle(p, plan)]
    if not plan.scored and 2 * sum(p.tensors for p in idle) < sum(p.tensors for p in parts):
        idle = []  # what makes scores has no part in a training of places alone
    asked = [p for p in parts if p.asked]
    crawling = plan.steps >= LONG and max((p.change for p in asked), default=1.0) < CRAWL
    if not idle and not crawling:
        return []
    first = min(idle or asked, key=lambda p: p.change)
    every = len(idle) == len(parts)
    what = "no weight has" if every else f"`{first.part}` has not" if idle else "the weights have hardly"
    figures: dict[str, float | int | str | None] = {"parts that stand still": len(idle), "at most": 0}
    figures |= {"change of the weights": max((p.change for p in asked), default=0.0), "at least": CRAWL}
    return [
        Finding(
            "weights-still",
            "error" if idle else "warning",
            f"{what} moved in the training",
            figures | ({"parts": ", ".join(p.part for p in idle[:4])} if idle else {}),
            "its parameters are not in the optimiser, do not ask for a gradient, or the learning rate is 0"
            if idle
            else "the learning rate is far too small for so few steps",
            "give the optimiser every parameter, after the whole detector is built"
            if idle
            else "raise the learning rate by factors of 10 until the loss falls",
            {} if idle else plan.change({"train.learning_rate": (plan.learning_rate or 0.0) * 100 or None}),
            0.95 if idle else 0.8,
            "an optimiser that was made before the head was replaced",
        )
    ]


def _idle(part: Course, plan: Plan) -> bool:
    """Whether the part stood still although it is not the one that is to."""
    if plan.frozen and not part.asked and (plan.proposals or part.part.split(".")[0] in ("encoder", "backbone")):
        return False
    return part.still == part.asked


def half_overflow(activation: Activation, plan: Plan) -> list[Finding] | Missing:
    """An activation is too large for float16."""
    if activation.largest <= HALF_LIMIT / 2:
        return []
    now = plan.precision == "fp16"
    return [
        Finding(
            "fp16-overflow",
            "error" if now and activation.largest > HALF_LIMIT else "warning" if now else "note",
            "activations reach the end of float16" + ("" if now else ", which this run does not use"),
            {"largest activation": activation.largest, "at most": HALF_LIMIT, "module": activation.module},
            "weights have grown, or inputs are not normalised",
            "use bf16, or normalise what enters the module",
            plan.change({"train.precision": "bf16"}) if now else {},
            0.9,
            "RT-DETR PR#464",
        )
    ]


def average_behind(averaged: Averaged, plan: Plan) -> list[Finding] | Missing:
    """The averaged weights, which are judged and kept, are much worse than the raw ones."""
    ratio = averaged.averaged / averaged.raw if averaged.raw > 0 else 1.0
    if ratio <= BEHIND:
        return []
    return [
        Finding(
            "ema-behind",
            "error" if ratio > 3 else "warning",
            "the averaged weights lag behind the raw ones",
            {"loss, averaged over raw": ratio, "at most": BEHIND, "raw": averaged.raw, "averaged": averaged.averaged},
            "the average reaches back to the first steps: its decay is too near 1 for so few steps",
            "lower the decay, or let it rise from a small value",
            plan.change({"train.ema": 0.99 if (plan.ema or 1) > 0.99 else 0.9}),
            0.85,
            "actionformer#103",
        )
    ]


def frozen_moved(moved: tuple[Moved, ...], plan: Plan) -> list[Finding] | Missing:
    """Weights or running statistics of a part that was to stay as it was have changed."""
    bad = [m for m in moved if m.moved]
    return [
        _moved(m.part, {"tensors moved": m.moved, "at most": 0, "worst": m.worst, "relative change": m.change})
        for m in bad
    ]


def hash_changed(outcome: Outcome, plan: Plan) -> list[Finding] | Missing:
    """The hash of a frozen part is another than before the training."""
    if not outcome.frozen:
        return Missing("nothing is frozen, or no hash is recorded")
    changed = [p for p in outcome.frozen if p.before != p.after]
    return [
        _moved(p.name, {"hash before": p.before[:12], "after": p.after[:12]}, rule="frozen-hash-changed")
        for p in changed
    ]


def _moved(part: str, figures: dict[str, float | int | str | None], rule: str = "frozen-weights-moved") -> Finding:
    return Finding(
        rule,
        "error",
        f"the frozen part `{part}` has moved",
        figures,
        "its parameters are in the optimiser, or its normalisation keeps counting in training mode",
        "leave it out of the optimiser and keep it in inference mode",
        {},
        0.95,
        "the hash of a frozen encoder before and after training",
    )


WEIGHT_RULES = (
    Rule("train-eval-parity", lambda e: e.probe.parity, parity),
    Rule("fp16-overflow", lambda e: e.probe.activation, half_overflow),
    Rule("ema-behind", lambda e: e.probe.averaged, average_behind),
    Rule("weights-still", lambda e: e.probe.course, stands_still),
    Rule("frozen-weights-moved", lambda e: e.probe.moved, frozen_moved),
)
HASHES = Rule("frozen-hash-changed", lambda e: e.outcome, hash_changed)
