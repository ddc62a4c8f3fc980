"""Rules over scores: where they start, whether they learn, and where the threshold lies."""

from __future__ import annotations

from dataclasses import dataclass

from boresight.core.emission import Missing
from boresight.diagnose.evidence import Evidence
from boresight.diagnose.finding import Finding
from boresight.diagnose.plan import Plan
from boresight.diagnose.probe import UNPROBED, Learned, Operating, Pull, Start
from boresight.diagnose.rule import Rule
from boresight.diagnose.steps import Steps

FRESH = 0.1
"""Mean score of a fresh detector; a prior of 0.01 (RetinaNet) lies far below, a bias of 0 gives 0.5."""
OVER_RATE = 10.0
"""The same over the share of positive cells: with as many positives as that, any prior will do."""
LEARNED = 0.05
"""Share of what scores can learn on one batch, from the best constant to the targets themselves."""
RANKED = 0.1
"""Average precision of positive cells: above it scores rank, however small they are, and a threshold can be found."""
OBJECTS = 5
"""Objects of the batch from which that share is worth saying."""
SHORT = 50
"""Steps from which a training that has learned nothing is to blame."""
PULLED = 0.02
"""Positive cells' share of the gradient before the first step."""
KEPT = 0.6
"""F1 at the threshold that is used over F1 at the best one."""
HALF_OF = 0.3
"""The same at 0.5 from which it is more than a note: the run stores a threshold of its own."""
WORTH = 0.2
"""The best F1 from which a threshold is worth arguing about."""
FLOOR = (1.5, 0.05)
"""Loss over its floor within which it can hardly fall further, and the least floor that is worth a note."""


def prior_missing(start: Start, plan: Plan) -> list[Finding] | Missing:
    """A fresh detector says "object" almost everywhere."""
    if not plan.scored:
        return Missing("no score is trained")
    if start.score <= FRESH or start.score <= OVER_RATE * start.rate:
        return []
    return [
        Finding(
            "prior-missing",
            "warning",
            "a fresh detector finds objects everywhere",
            {"mean score before step 1": start.score, "at most": FRESH, "base rate": start.rate}
            | {"loss before step 1": start.loss, "of the best constant": start.constant},
            "the last bias is 0, or it was overwritten after it was set: the first steps only unlearn this",
            "set the last bias to -log((1 - p) / p) with a small p",
            plan.change({"head.prior": 0.01}),
            0.95,
            "LibreYOLO#542",
            0,
        )
    ]


def no_better_than_constant(learned: Learned, plan: Plan) -> list[Finding] | Missing:
    """One and the same score everywhere would have as small a loss: the scores say nothing."""
    if learned.objects < OBJECTS:
        return Missing(f"{learned.objects} objects were probed, {OBJECTS} are needed")
    if plan.steps is not None and plan.steps < SHORT:
        return Missing(f"{plan.steps} steps are too few to have learned anything: {SHORT} are needed")
    share = (learned.constant - learned.loss) / (learned.constant - learned.floor)
    if share >= LEARNED or learned.precision >= RANKED:
        return []
    return [
        Finding(
            "no-better-than-constant",
            "error",
            "scores are no better than one constant everywhere",
            {"share learned": share, "at least": LEARNED, "loss": learned.loss, "of a constant": learned.constant}
            | {"of the targets": learned.floor, "precision of cells": learned.precision, "at least, of that": RANKED},
            "the background outweighs the objects, the rate is off, or inference sees other inputs than training",
            "divide the loss by objects and start at a small prior; compare training and inference on one batch",
            plan.change({"loss.per": "objects", "head.prior": 0.01}),
            0.9,
            "Lin et al. 2017 (focal loss), section 4.1",
        )
    ]


def gradient_share(pull: Pull, plan: Plan) -> list[Finding] | Missing:
    """Negatives pull at the scores so much harder that positives hardly count."""
    whole = pull.positive + pull.negative
    if not whole:
        return Missing("no gradient reaches the scores")
    share = pull.positive / whole
    if share >= PULLED:
        return []
    return [
        Finding(
            "gradient-share",
            "warning",
            "almost all of the first gradient comes from background",
            {"share of positive cells": share, "at least": PULLED},
            "cells of background outnumber positive ones, and the loss does not weigh them down",
            "use focal loss or soft labels divided by objects, and a small prior",
            plan.change({"loss.name": "penalty_reduced_focal", "loss.per": "objects", "head.prior": 0.01}),
            0.8,
            "Lin et al. 2017 (focal loss), section 3",
            0,
        )
    ]


def half_threshold(steps: Steps, plan: Plan) -> list[Finding] | Missing:
    """At the customary 0.5 far less is found than at the threshold chosen on the same frames."""
    known = [v for v in steps.validations if v.half is not None and v.score is not None]
    if not known:
        return Missing("F1 at 0.5 is not recorded")
    last = known[-1]
    best, half = last.score or 0.0, last.half or 0.0
    unfinished = plan.steps is not None and last.step < plan.steps
    if best < WORTH or half >= KEPT * best or unfinished:
        return []
    return [
        Finding(
            "threshold-half",
            "warning" if half < HALF_OF * best else "note",
            "0.5 is not where this detector's scores divide",
            {"F1 at 0.5": half, "at least": KEPT * best, "best F1": best, "at": last.threshold},
            "scores are ranked well and lie low: they are not calibrated to 0.5",
            f"use the validated threshold {last.threshold:.3f} (it is stored with the weights), or soft labels"
            if last.threshold is not None
            else "validate the threshold and store it with the weights",
            plan.change({"target.label": "gaussian", "loss.name": "penalty_reduced_focal"}),
            0.9,
            "FCOS#24",
            last.step,
        )
    ]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """How the stored threshold does, and how well scores rank cells (None: not known)."""

    operating: Operating
    precision: float | None


def _thresholds(evidence: Evidence) -> Thresholds | Missing:
    operating, learned = evidence.probe.operating, evidence.probe.learned
    judged = UNPROBED if isinstance(evidence.outcome, Missing) else evidence.outcome.operating
    if not isinstance(judged, Missing):
        operating = judged  # the run's own judgement has seen every frame of a split, the probe a few
    if isinstance(operating, Missing):
        return judged if operating is UNPROBED and isinstance(judged, Missing) else operating
    return Thresholds(operating, None if isinstance(learned, Missing) else learned.precision)


def stored_threshold(given: Thresholds, plan: Plan) -> list[Finding] | Missing:
    """At the stored threshold far less is found than scores allow."""
    operating = given.operating
    if operating.objects < 10:
        return Missing(f"{operating.objects} objects were judged, 10 are needed")
    ranked = operating.best_f1 > 0.05 or (given.precision or 0.0) >= RANKED  # else it is not the threshold's fault
    silent = ranked and operating.silent is not None and operating.silent > 0.9
    poor = operating.best_f1 >= WORTH and operating.f1 < KEPT * operating.best_f1
    if not silent and not poor:
        return []
    return [
        Finding(
            "threshold-off",
            "warning",
            "nothing passes the stored threshold" if silent else "the stored threshold does not suit the scores",
            {"stored": operating.threshold, "F1 there": operating.f1, "at least": KEPT * operating.best_f1}
            | {"best F1": operating.best_f1, "at": operating.best_threshold, "images without any": operating.silent},
            "the threshold was set by custom or on other frames, not by the best F1 on validation",
            "choose the threshold on validation frames",
            plan.change({"decode.operating": "best_f1", "decode.threshold": 0.001}),
            0.85,
            "FCOS#24",
        )
    ]


def entropy_floor(learned: Learned, plan: Plan) -> list[Finding] | Missing:
    """The loss stands on the floor that soft targets leave: it cannot fall, and need not."""
    ratio = learned.loss / learned.floor if learned.floor > 0 else float("inf")
    if learned.floor < FLOOR[1] or ratio > FLOOR[0]:
        return []
    return [
        Finding(
            "entropy-floor",
            "note",
            "the loss has reached the entropy of its soft targets",
            {"loss": learned.loss, "floor": learned.floor, "loss over floor": ratio, "at most": FLOOR[0]},
            "cross-entropy with targets between 0 and 1 never reaches 0 (0.57 is normal for centerness)",
            "judge by the validation figure, not by the loss",
            {},
            0.9,
            "FCOS#66",
        )
    ]


HALF = Rule("threshold-half", lambda e: e.steps, half_threshold)
SCORE_RULES = (
    Rule("prior-missing", lambda e: e.probe.start, prior_missing),
    Rule("no-better-than-constant", lambda e: e.probe.learned, no_better_than_constant),
    Rule("gradient-share", lambda e: e.probe.pull, gradient_share),
    Rule("threshold-off", _thresholds, stored_threshold),
    Rule("entropy-floor", lambda e: e.probe.learned, entropy_floor),
)
