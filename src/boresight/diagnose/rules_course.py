"""Rules over the course of a training: does the loss jump, does it fall to nothing, does the validation go with it?"""

from __future__ import annotations

import numpy as np

from boresight.core.emission import Missing
from boresight.diagnose.finding import Finding
from boresight.diagnose.plan import Plan
from boresight.diagnose.rule import Rule
from boresight.diagnose.steps import Floats, Steps, middle

EARLY = 20
"""Steps that must be there before anything is said of a course."""
JUMP = 5.0
"""A later loss over the first ones. The worst of 208 finished runs of all systems had 3.8."""
PER_IMAGE = 5e-3
"""Learning rate over images a step. Ours are 1e-4 to 1e-3; Adam moves a weight by about the rate in every step."""
OPTIMUM = (0.5, 4.0)
"""Score loss over that of the base rate, within which little but the base rate has been learned: it falls towards 1."""
AGAIN = 1.5
"""Learning rate over the least since it first fell."""
NOTHING = 0.02
"""A figure that is as good as zero."""
FALL = 0.85
"""Of the best figure; what lies below, twice running, is no noise of a few hundred objects."""


def learning_rate_high(steps: Steps, plan: Plan) -> list[Finding] | Missing:
    """The loss jumps to a multiple of where it began, or the rate is far beyond what is usual for so few images."""
    if steps.loss is None or len(steps) < EARLY:
        return Missing(f"fewer than {EARLY} losses are recorded")
    rate = plan.learning_rate
    each = rate / plan.batch if rate and plan.batch else None
    jump, at = _jump(steps.loss, steps.objects)
    jumped = jump > JUMP
    if not jumped and (each is None or each <= PER_IMAGE):
        return []
    return [
        Finding(
            "learning-rate-high",
            "warning",
            "the loss jumped to a multiple of where it began" if jumped else "the learning rate is unusually high",
            {
                "loss over its first": jump,
                "at most": JUMP,
                "learning rate per image": each,
                "at most, of that": PER_IMAGE,
            },
            "the learning rate is too high for the batch: rates are given for a number of images a step",
            "lower the rate in proportion to the images a step, or warm up longer",
            plan.change({"train.learning_rate": rate / 10 if rate else None}),
            0.8 if jumped else 0.5,
            "mmdetection#4229",
            int(steps.step[at]),
        )
    ]


def _jump(loss: Floats, objects: Floats | None) -> tuple[float, int]:
    """The largest loss over the first, and where it stands.

    A loss per object jumps when a batch has few objects, its sum when it has many: the smaller of both jumps counts.
    """
    ways = [loss] if objects is None else [loss, loss * np.maximum(objects, 1)]
    ratios = [values / values[0] for values in ways if values[0] > 0]
    if not ratios:
        return 0.0, 0
    jump = np.nan_to_num(np.min(ratios, axis=0), nan=0.0, posinf=0.0)
    return float(jump.max()), int(jump.argmax())


def background_trap(steps: Steps, plan: Plan) -> list[Finding] | Missing:
    """The score loss has come down to that of the base rate, and nothing is found."""
    term = next((t for t in steps.terms if t.name == "cls"), None)
    scores = [v for v in steps.validations if v.score is not None]
    if term is None or not scores or not plan.scored:
        return Missing("it needs the score's loss term `loss_cls` and a judgement on validation frames")
    last = scores[-1]
    zero = last.half if last.half is not None else last.score
    unfinished = plan.steps is not None and last.step < plan.steps
    if zero is None or zero > NOTHING or (unfinished and len(scores) < 2):
        return []
    ratio = _over_base_rate(steps, term.values, plan)
    fallen = middle(term.values[-50:]) / max(middle(term.values[:3]), 1e-12)
    trapped = OPTIMUM[0] <= ratio <= OPTIMUM[1] if ratio is not None else fallen < 0.1 and last.score == 0
    if not trapped:
        return []
    rate = None if steps.positive_rate is None else middle(steps.positive_rate)
    grave = (last.score or 0.0) < 0.2
    figures = {"score loss over the base rate's": ratio, "at most": OPTIMUM[1], "positive rate": rate}
    return [
        Finding(
            "background-trap",
            "error" if grave else "warning",
            "the small score loss is that of saying `background` everywhere",
            figures | {"score loss over its start": fallen, "F1 at 0.5 or score": zero, "score": last.score},
            "the loss is a mean over cells, almost all of which are background",
            "divide the loss by objects, use focal or soft labels, and validate the threshold",
            plan.change({"loss.per": "objects", "loss.name": "penalty_reduced_focal", "target.label": "gaussian"}),
            0.95 if ratio is not None else 0.6,
            "boresight quickstart: one-pixel labels, cross-entropy over all cells",
            last.step,
        )
    ]


def _over_base_rate(steps: Steps, cls: Floats, plan: Plan) -> float | None:
    """Score loss over that of a constant output at the base rate; None where the loss is no plain cross-entropy."""
    mass, positives, rate = steps.positive_mass, steps.positives, steps.positive_rate
    if plan.score_loss != "bce" or mass is None or positives is None or rate is None:
        return None
    use = np.flatnonzero((positives > 0) & (rate > 0))[-50:]
    if not len(use):
        return None
    cells = positives[use] / rate[use]
    share = np.clip(mass[use] / cells, 1e-12, 0.5)
    optimum = -(share * np.log(share) + (1 - share) * np.log1p(-share))
    if plan.per == "objects" and steps.objects is not None:
        optimum = optimum * cells / np.maximum(steps.objects[use], 1)
    return middle(cls[use] / optimum)


def diverge(steps: Steps, plan: Plan) -> list[Finding] | Missing:
    """The validation's figure falls while the training loss still falls."""
    scores = [(v.step, v.score) for v in steps.validations if v.score is not None]
    if steps.loss is None or len(scores) < 3:
        return Missing(f"{len(scores)} judgements with a figure, 3 are needed")
    best = int(np.argmax([s for _, s in scores]))
    after = [s for _, s in scores[best + 1 :]]
    top, last = scores[best][1], scores[-1][1]
    if len(after) < 2 or max(after[-2:]) > FALL * top or top - last < 0.03:
        return []
    at = np.searchsorted(steps.step, [scores[best][0], scores[-1][0]])
    width = max(5, len(steps) // 20)
    then, now = (middle(steps.loss[max(0, k - width) : k + 1]) for k in at)
    if not now < 0.95 * then:
        return []
    return [
        Finding(
            "loss-and-score-diverge",
            "warning",
            f"{plan.score} falls while the loss still falls",
            {f"best {plan.score}": top, f"last {plan.score}": last, "at least": FALL * top, "loss then": then}
            | {"loss now": now},
            "the training frames are learned by heart, or training and judging do not see the same thing",
            "stop at the best step (checkpoints/best), augment more, or compare the two pipelines on one batch",
            plan.change({"train.steps": scores[best][0]}),
            0.75,
            "EfficientDet-PyTorch#296",
            scores[best][0],
        )
    ]


def schedule_restarted(steps: Steps, plan: Plan) -> list[Finding] | Missing:
    """The learning rate rises again after it had fallen."""
    rate = steps.learning_rate
    if rate is None or len(steps) < EARLY or not np.isfinite(rate).all():
        return Missing(f"fewer than {EARLY} learning rates are recorded")
    low = np.minimum.accumulate(np.where(np.maximum.accumulate(rate) > rate, rate, np.inf))  # least since it first fell
    again = np.flatnonzero(rate > AGAIN * low)
    if not len(again):
        return []
    at = int(again[0])
    return [
        Finding(
            "schedule-restarted",
            "warning",
            "the learning rate rises again after it had fallen",
            {"rate over the least before": float(rate[at] / low[at]), "at most": AGAIN, "rate": float(rate[at])},
            "the run was continued and its schedule began anew, or it was planned for other steps",
            "save and load the schedule with the weights and the optimiser, or make it a function of the step alone",
            {},
            0.8,
            "a resumed run whose loss jumps",
            int(steps.step[at]),
        )
    ]


COURSE_RULES: tuple[Rule[Steps], ...] = (
    Rule("learning-rate-high", lambda e: e.steps, learning_rate_high),
    Rule("schedule-restarted", lambda e: e.steps, schedule_restarted),
    Rule("background-trap", lambda e: e.steps, background_trap),
    Rule("loss-and-score-diverge", lambda e: e.steps, diverge),
)
