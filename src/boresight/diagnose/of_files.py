"""What can be said of a detector from its detections alone: errors, score and threshold. Cells are Missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from boresight.core.emission import Missing
from boresight.diagnose.attribution import Attribution, attribute_errors
from boresight.diagnose.finding import Finding
from boresight.diagnose.gains import IOUS, AtThreshold, are_loose, at_threshold, score_gain, with_threshold
from boresight.diagnose.misplaced import Misplaced, finding, misplaced
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
        findings: boxes that all lie off the same way.
    """

    verdict: Verdict
    attribution: Attribution
    figures: dict[str, Any]
    findings: tuple[Finding, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For ``diagnosis.json``."""
        return {
            "diagnosis_schema": 1,
            "verdict": self.verdict.to_dict(),
            "findings": [f.to_dict() for f in self.findings],
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
    near, everywhere = _score_drawings(boxes, len(classes), weights)
    loose = _loose(boxes, len(classes), errors.drawn["AP"], weights)
    fit = _fit(boxes, own=True)
    judged = Judged(
        errors=errors,
        near_score=near,
        score_everywhere=everywhere,
        ap=_mean([_ap_at(boxes, iou, len(classes), weights) for iou in IOUS]) if loose else None,
        threshold=at_threshold(boxes, threshold, weights),
        emitted=len(boxes.scores),
        calibration=calibration(boxes.scores, fit, np.ones(len(boxes.scores), bool)),
        calibration_by_class={
            name: calibration(boxes.scores, fit, boxes.found_label == k)
            for k, name in enumerate(classes)
            if (boxes.found_label == k).any()
        },
        off=misplaced(boxes, len(classes), replicates=replicates, seed=seed),
    )
    return diagnosis_of(judged, classes)


@dataclass(frozen=True)
class Judged:
    """What a diagnosis of detections is made of.

    Attributes:
        errors: TIDE's kinds.
        near_score, score_everywhere: AP50 if the score were how well a box fits, see :mod:`~boresight.diagnose.gains`.
        ap: AP over the ten IoUs where boxes are loose, else None.
        threshold: F1 at the one in use, and at the best.
        emitted: detections.
        calibration, calibration_by_class: of the score; None without detections.
        off: whether all boxes lie off the same way.
    """

    errors: Attribution
    near_score: Drawn
    score_everywhere: Drawn
    ap: Drawn | None
    threshold: AtThreshold
    emitted: int
    calibration: dict[str, Any] | None
    calibration_by_class: dict[str, dict[str, Any] | None]
    off: Misplaced | Missing


def diagnosis_of(judged: Judged, classes: Sequence[str]) -> FileDiagnosis:
    """The verdict and the figures, once everything is judged."""
    errors, ap50, off = judged.errors, judged.errors.drawn["AP"], judged.off
    gains = {word: errors.drawn[kind] for kind, word in WORDS.items()}
    gains |= {"near_score": judged.near_score.minus(ap50), "score_everywhere": judged.score_everywhere.minus(ap50)}
    if (score := score_gain(gains)) is not None:
        gains["score"] = score
    if judged.ap is not None:
        gains["box"] = gains["box"].plus(ap50.minus(judged.ap))
    counts = {"objects": errors.truths, "emitted": judged.emitted}
    verdict = judge(with_threshold(gains, judged.threshold), ap50=errors.ap, counts=counts)
    figures = {
        "images": errors.images,
        "classes": list(classes),
        "counts": counts,
        "missing": dict.fromkeys(("buckets", "displacement", "regret", "assignment"), NO_CELLS),
        "loose_boxes": judged.ap is not None,
        "gains": {name: asdict(drawn.estimate()) for name, drawn in gains.items()},
        "misplaced": {"missing": off.reason} if isinstance(off, Missing) else off.to_dict(),
        "threshold": judged.threshold.to_dict(),
        "calibration": {"all": judged.calibration, "by_class": judged.calibration_by_class},
    }
    findings = (finding(off),) if not isinstance(off, Missing) and off.told else ()
    return FileDiagnosis(verdict, errors, figures, findings)


def _fit(boxes: BoxSet, *, own: bool) -> Floats:
    """``[D]`` overlap with the truth, of its class or of any, that each detection fits best."""
    pairs = overlaps(boxes)
    counting = pairs.select(boxes.counted[pairs.truth])
    if own:
        same = boxes.found_label[counting.found] == boxes.truth_label[counting.truth]
        counting = counting.select(same)
    return best_truth(counting, len(boxes.scores))[1]


def _score_drawings(boxes: BoxSet, classes: int, weights: Floats) -> tuple[Drawn, Drawn]:
    """AP50 if the score were how well a box fits any object: of boxes near objects alone, and of all boxes."""
    best, fit = _near(boxes)
    near, everywhere = (
        _ap_at(best.rescored(np.where(fit >= NEAR, fit, others)), 0.5, classes, weights)
        for others in (best.scores, 0.0)
    )
    return near, everywhere


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
