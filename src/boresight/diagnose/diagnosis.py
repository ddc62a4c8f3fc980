"""Everything that is said of a detector, from the rows of its audit: figures for JSON, tables and the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from boresight.core.emission import Missing
from boresight.diagnose.audit import Audited
from boresight.diagnose.consistency import bucket_tables, by_distance, gap
from boresight.diagnose.displacement import displacement
from boresight.diagnose.emitted import INSIDE, NOWHERE, SUPERVISED, UNPLACED, EmittedRows
from boresight.diagnose.finding import Finding
from boresight.diagnose.gains import HEARD, Gains, at_threshold, for_the_verdict, gains
from boresight.diagnose.misplaced import Misplaced, misplaced
from boresight.diagnose.misplaced import finding as misplaced_finding
from boresight.diagnose.ranking import calibration, correlations, regret
from boresight.diagnose.rules_inputs import Forms, forms, not_as_trained
from boresight.diagnose.verdict import Verdict, judge
from boresight.evaluate.box_match import match_boxes
from boresight.evaluate.estimate import Resampler
from boresight.evaluate.pairs import Bools

SIZES = {"small": (0.0, 32.0), "medium": (32.0, 96.0), "large": (96.0, np.inf)}
"""Root of the area, pixels, as COCO cuts it."""
SCHEMA = 1


@dataclass(frozen=True)
class Diagnosis:
    """What is the matter.

    Attributes:
        verdict: one word, and what it rests on.
        figures: all tables, plain JSON.
        findings: of health rules.
        audited: the rows.
        gains: with replicates.
    """

    verdict: Verdict
    figures: dict[str, Any]
    audited: Audited
    gains: Gains
    findings: Sequence[Finding] = field(default_factory=tuple)

    def to_dict(self) -> dict[str, Any]:
        """For ``diagnosis.json``."""
        return {
            "diagnosis_schema": SCHEMA,
            "verdict": self.verdict.to_dict(),
            "findings": [f.to_dict() for f in self.findings],
            **self.figures,
        }


def diagnose(
    audited: Audited,
    *,
    threshold: float | None = None,
    findings: Sequence[Finding] = (),
    replicates: int = 500,
    seed: int = 0,
) -> Diagnosis:
    """Say everything that the rows say.

    Args:
        audited: from :func:`boresight.diagnose.audit.audit`.
        threshold: in use for single detections; None where there is none. Not asked where scores were given.
        findings: of health rules; those of inputs that are not as trained, and of boxes that all lie off the same way,
            are added.
        replicates, seed: of the bootstrap by image.
    """
    rows, objects = audited.rows, audited.objects
    images = len(audited.scenes)
    draw = Resampler(rows.image, images, replicates, seed)
    of_objects = Resampler(objects.image, images, replicates, seed)
    hit, ignored = judged(audited)
    attributed = gains(audited, replicates=replicates, seed=seed)
    by_threshold = at_threshold(audited.boxes(), None if "scores" in audited.missing else threshold, draw.weights)
    counts = _counts(audited)
    apart = None if "scores" in audited.missing else audited.loudness.separation(HEARD)
    shown = forms(audited.inputs, len(audited.classes), replicates=replicates, seed=seed)
    table = for_the_verdict(attributed, by_threshold, apart)
    verdict = judge(
        table if isinstance(shown, Missing) else table | {"inputs": shown.gains[shown.best.name]},
        ap50=attributed.now.ap50.estimate(),
        counts=counts,
        findings=findings,
        figures=audited.metrics,
        shown=None if isinstance(shown, Missing) else shown.best.shown,
    )
    off = misplaced(audited.boxes(), len(audited.classes), replicates=replicates, seed=seed)
    figures: dict[str, Any] = {
        "images": images,
        "classes": list(audited.classes),
        "likeness": audited.likeness,
        "metrics": list(audited.metrics),
        "assigner_looks_at_predictions": _looks(audited),
        "missing": audited.missing | attributed.missing,
        "counts": counts,
        "buckets": bucket_tables(rows, hit, ignored, draw),
        "gap": _gaps(rows, draw),
        "by_distance": by_distance(rows, draw),
        "displacement": _displacement(audited, draw),
        "ranking": {**regret(objects, of_objects), **correlations(rows, draw), "separation": apart},
        "calibration": _calibrations(audited, rows.kept & ~ignored),
        "attribution": attributed.to_dict(),
        "inputs": {"missing": shown.reason} if isinstance(shown, Missing) else shown.to_dict(),
        "misplaced": {"missing": off.reason} if isinstance(off, Missing) else off.to_dict(),
        "threshold": by_threshold.to_dict(),
        "per_class": _per_class(audited, hit, ignored, of_objects),
    }
    return Diagnosis(verdict, figures, audited, attributed, (*findings, *_found(verdict, shown, off)))


def _found(verdict: Verdict, shown: Forms | Missing, off: Misplaced | Missing) -> Iterator[Finding]:
    """What the audit itself found."""
    if verdict.repair == "inputs" and not isinstance(shown, Missing):
        yield not_as_trained(shown)
    if not isinstance(off, Missing) and off.told:
        yield misplaced_finding(off)


def judged(audited: Audited) -> tuple[Bools, Bools]:
    """``[D]`` rows that took an object by COCO's rule, and rows that are excused; False for suppressed ones."""
    match = match_boxes(audited.boxes())
    kept = np.flatnonzero(audited.rows.kept)
    hit, ignored = (np.zeros(len(audited.rows), bool) for _ in range(2))
    hit[kept], ignored[kept] = match.hit, match.ignored
    return hit, ignored


def _counts(audited: Audited) -> dict[str, int]:
    rows = audited.rows
    buckets = [int((rows.bucket == k).sum()) for k in (SUPERVISED, INSIDE)]
    return {
        "objects": len(audited.objects),
        "emitted": len(rows),
        "kept": int(rows.kept.sum()),
        "supervised": buckets[0],
        "inside": buckets[1],
    }


def _looks(audited: Audited) -> bool | dict[str, str]:
    known = audited.supervision
    return {"missing": known.reason} if isinstance(known, Missing) else known


def _gaps(rows: EmittedRows, draw: Resampler) -> dict[str, Any]:
    return {
        name: gap(rows, bucket, draw)
        for name, bucket in (("own", rows.bucket), ("control", rows.control))
        if (bucket != NOWHERE).any() and not (bucket == UNPLACED).any()
    }


def _displacement(audited: Audited, draw: Resampler) -> dict[str, Any]:
    if isinstance(audited.supervision, Missing):
        return {"missing": audited.supervision.reason}
    if audited.decoding is None or audited.decoding.nms is None:
        return {"missing": "nothing is suppressed, or it is not known by what"}
    return displacement(audited.rows, draw)


def _calibrations(audited: Audited, where: Bools) -> dict[str, Any]:
    """Of kept detections: score against the likeness to an object of its class, over all and by group."""
    rows, objects = audited.rows, audited.objects
    if "scores" in audited.missing:
        return {"all": None, "missing": audited.missing["scores"]}
    side = np.append(objects.side, np.nan)[_object_place(audited)]
    groups = {
        "by_level": {str(k): where & (rows.level == k) for k in np.unique(rows.level)},
        "by_size": {name: where & (side >= a) & (side < b) for name, (a, b) in SIZES.items()},
        "by_class": {name: where & (rows.label == k) for k, name in enumerate(audited.classes)},
    }
    told: dict[str, Any] = {"all": calibration(rows.score, rows.own, where)}
    for group, parts in groups.items():
        told[group] = {name: calibration(rows.score, rows.own, part) for name, part in parts.items() if part.any()}
    return told


def _object_place(audited: Audited) -> np.ndarray:
    """``[D]`` the row of ``objects`` that each detection fits best; -1 for none."""
    rows, objects = audited.rows, audited.objects
    count = np.bincount(objects.image, minlength=len(audited.scenes))
    first = np.cumsum(count) - count
    return np.where(rows.object >= 0, first[rows.image] + rows.object, -1)


def _per_class(audited: Audited, hit: Bools, ignored: Bools, draw: Resampler) -> dict[str, Any]:
    rows, objects = audited.rows, audited.objects
    table = {}
    for k, name in enumerate(audited.classes):
        mine, own = rows.label == k, objects.label == k
        if not mine.any() and not own.any():
            continue
        kept = mine & rows.kept & ~ignored
        lost = objects.best - objects.top
        table[name] = {
            "objects": int(own.sum()),
            "kept": int(kept.sum()),
            "hits": int(hit[kept].sum()),
            "false": int((~hit[kept]).sum()),
            "fit": float(rows.iou[kept & hit].mean()) if (kept & hit).any() else None,
            "regret": asdict(draw.estimate(lost, own & np.isfinite(objects.best))),
            "supervised": float((rows.bucket[kept] == SUPERVISED).mean()) if kept.any() else None,
        }
    return table
