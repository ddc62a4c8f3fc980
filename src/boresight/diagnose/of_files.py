"""What can be said of a detector from its detections alone: errors, score and threshold. Cells are Missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from boresight.diagnose.attribution import Attribution, attribute_errors
from boresight.diagnose.gains import IOUS, are_loose, at_threshold, score_gain, with_threshold
from boresight.diagnose.ranking import calibration
from boresight.diagnose.verdict import Verdict, judge
from boresight.evaluate.average_precision import LIMIT, class_steps, mean_ap
from boresight.evaluate.bootstrap import image_weights
from boresight.evaluate.box_match import best_truth, overlaps
from boresight.evaluate.box_set import BoxSet
from boresight.evaluate.estimate import Drawn
from boresight.evaluate.pairs import Floats

WORDS = {"Cls": "class", "Loc": "box", "Bkg": "background"}
"""Kinds of TIDE as repairs of the verdict."""
NEAR = 0.1
NO_CELLS = "detection files do not say which cell emitted a box"


@dataclass(frozen=True)
class FileDiagnosis:
    """What is the matter, as far as files tell.

    Attributes:
        verdict: one word.
        attribution: TIDE's kinds.
        figures: the rest, plain JSON.
    """

    verdict: Verdict
    attribution: Attribution
    figures: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """For ``diagnosis.json``."""
        return {
            "diagnosis_schema": 1,
            "verdict": self.verdict.to_dict(),
            "findings": [],
            "errors": self.attribution.to_dict(),
            **self.figures,
        }


def diagnose_boxes(
    boxes: BoxSet,
    classes: Sequence[str],
    *,
    threshold: float | None = None,
    replicates: int = 200,
    seed: int = 0,
) -> FileDiagnosis:
    """Say what detections alone can say.

    Args:
        boxes: truth and detections.
        classes: names.
        threshold: the score from which detections are used; None: AP alone is judged.
        replicates, seed: of the bootstrap by image.

    The score is judged as on raw outputs, but that a repaired score cannot bring back what was suppressed. Boxes are
    judged by AP50 and, where they are loose (AP75 under 0.4 of it), by AP: with true boxes that is AP50 at every IoU.
    """
    errors = attribute_errors(boxes, classes, replicates=replicates, seed=seed)
    weights = image_weights(boxes.images, replicates, seed)
    gains = {word: errors.drawn[kind] for kind, word in WORDS.items()}
    gains |= _score_gains(boxes, len(classes), errors.drawn["AP"], weights)
    if (score := score_gain(gains)) is not None:
        gains["score"] = score
    ap50 = errors.drawn["AP"]
    loose = _loose(boxes, len(classes), ap50, weights)
    if loose:
        cost = ap50.minus(_mean([_ap_at(boxes, iou, len(classes), weights) for iou in IOUS]))
        gains["box"] = gains["box"].plus(cost)
    told = at_threshold(boxes, threshold, weights)
    counts = {"objects": errors.truths, "emitted": len(boxes.scores)}
    verdict = judge(with_threshold(gains, told), ap50=errors.ap, counts=counts)
    fit = _fit(boxes, own=True)
    figures = {
        "images": boxes.images,
        "classes": list(classes),
        "counts": counts,
        "missing": dict.fromkeys(("buckets", "displacement", "regret", "assignment"), NO_CELLS),
        "loose_boxes": loose,
        "gains": {name: asdict(drawn.estimate()) for name, drawn in gains.items()},
        "threshold": told.to_dict(),
        "calibration": {
            "all": calibration(boxes.scores, fit, np.ones(len(boxes.scores), bool)),
            "by_class": {
                name: calibration(boxes.scores, fit, boxes.found_label == k)
                for k, name in enumerate(classes)
                if (boxes.found_label == k).any()
            },
        },
    }
    return FileDiagnosis(verdict, errors, figures)


def _fit(boxes: BoxSet, *, own: bool) -> Floats:
    """``[D]`` overlap with the truth, of its class or of any, that each detection fits best."""
    pairs = overlaps(boxes)
    counting = pairs.select(boxes.counted[pairs.truth])
    if own:
        same = boxes.found_label[counting.found] == boxes.truth_label[counting.truth]
        counting = counting.select(same)
    return best_truth(counting, len(boxes.scores))[1]


def _score_gains(boxes: BoxSet, classes: int, now: Drawn, weights: Floats) -> dict[str, Drawn]:
    """AP if the score were how well a box fits any object: of all boxes, and of those near an object alone."""
    best, fit = _near(boxes)
    told = {}
    for name, others in (("near_score", best.scores), ("score_everywhere", 0.0)):
        scores = np.where(fit >= NEAR, fit, others)
        told[name] = _ap_at(best.rescored(scores), 0.5, classes, weights).minus(now)
    return told


def _near(boxes: BoxSet) -> tuple[BoxSet, Floats]:
    """The detections that AP looks at, and how well each fits any object."""
    best = boxes.best(LIMIT)
    return best, _fit(best, own=False)


def _loose(boxes: BoxSet, classes: int, now: Drawn, weights: Floats) -> bool:
    """Whether boxes are loose, and would be if the score chose the best ones near objects."""
    if not are_loose(now, _ap_at(boxes, 0.75, classes, weights)):
        return False
    best, fit = _near(boxes)
    chosen = best.rescored(np.where(fit >= NEAR, fit, best.scores))
    return are_loose(*(_ap_at(chosen, iou, classes, weights) for iou in (0.5, 0.75)))


def _mean(drawn: Sequence[Drawn]) -> Drawn:
    value = sum(d.value for d in drawn) / len(drawn)
    return Drawn(value, np.mean([d.samples for d in drawn], axis=0), drawn[0].n)


def _ap_at(boxes: BoxSet, iou: float, classes: int, weights: Floats) -> Drawn:
    steps = class_steps(boxes, iou, classes)
    value = float(mean_ap(steps, np.ones((1, boxes.images)))[0])
    return Drawn(value, mean_ap(steps, weights), int(boxes.counted.sum()))
