"""What holds a box refiner back: its boxes, its decision which of them to take, or the confidence that it asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from boresight.diagnose.finding import Finding
from boresight.diagnose.verdict import Verdict, judge
from boresight.evaluate.estimate import Drawn, Resampler
from boresight.evaluate.pairs import Floats
from boresight.evaluate.refinement import Refined, choose_confidence, refinement_figures

SAYS = {
    "box": "every refined box that is taken is its object's box",
    "score": "a refined box is taken where it is the better one, and nowhere else",
    "threshold": "the confidence asked for is the one of the best mean IoU on these images, whatever it harms",
}
"""What each repair makes true; it gains mean IoU."""


@dataclass(frozen=True)
class RefinerDiagnosis:
    """What is the matter with a refiner.

    Attributes:
        verdict: one word: box, score (the decision), threshold, data, healthy, or too few to tell.
        gains: of mean IoU, with replicates.
        figures: plain JSON.
        findings: of health rules.
    """

    verdict: Verdict
    gains: dict[str, Drawn]
    figures: dict[str, Any]
    findings: Sequence[Finding]

    def to_dict(self) -> dict[str, Any]:
        """For ``diagnosis.json``."""
        return {
            "diagnosis_schema": 1,
            "verdict": self.verdict.to_dict(),
            "findings": [f.to_dict() for f in self.findings],
            **self.figures,
        }


def diagnose_refined(
    data: Refined,
    confidence: Floats,
    classes: Sequence[str],
    *,
    findings: Sequence[Finding] = (),
    replicates: int = 500,
    seed: int = 0,
) -> RefinerDiagnosis:
    """Say what more a refiner could do, in mean IoU.

    Args:
        data: coarse boxes that stand for objects, and what became of them.
        confidence: ``[N]`` that the refined box is the better one, in the order of ``data``.
        classes: names.
        findings: of health rules.
        replicates, seed: of the bootstrap by image.
    """
    draw = Resampler(data.image, data.images, replicates, seed)
    best = choose_confidence(confidence, data.before, data.moved, 1.0) if len(confidence) else 1.0
    bold = np.where(confidence >= best, data.moved, data.before)
    gained = {
        "box": np.where(data.replaced, 1 - data.moved, 0.0),
        "score": np.maximum(data.before, data.moved) - data.after,
        "threshold": bold - data.after,
    }
    gains = {name: draw.mean(values) for name, values in gained.items()}
    now = draw.estimate(data.after)
    counts = {"objects": len(data.image), "emitted": len(data.image)}
    verdict = judge(gains, ap50=now, counts=counts, findings=findings, figures=("mean IoU", "mean IoU"))
    told = {name: {"says": SAYS[name], "mean_iou": asdict(drawn.estimate())} for name, drawn in gains.items()}
    figures = {
        "images": data.images,
        "classes": list(classes),
        "counts": counts,
        "gains": told,
        "missing": {"buckets": "a refiner emits a box for each coarse box, not for cells"},
        "refinement": refinement_figures(data, classes, replicates=replicates, seed=seed),
    }
    return RefinerDiagnosis(verdict, gains, figures, tuple(findings))
