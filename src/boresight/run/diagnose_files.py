"""Diagnoses anybody's detector from two COCO files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boresight.diagnose.coco_files import coco_files
from boresight.diagnose.of_files import FileDiagnosis, diagnose_boxes
from boresight.run.record import write_json


@dataclass(frozen=True)
class Told:
    """A diagnosis and what it is about."""

    diagnosis: FileDiagnosis
    about: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """For ``diagnosis.json``."""
        return self.about | self.diagnosis.to_dict()


def diagnose_files(
    annotations: Path, predictions: Path, *, threshold: float | None = None, out: Path | None = None
) -> Told:
    """Diagnose detections against truth; images are not read.

    Args:
        annotations: COCO truth.
        predictions: COCO results.
        threshold: the score from which detections are used; None: AP alone is judged.
        out: where the JSON goes; None: nowhere.

    Raises UserError, one line, for files that cannot be used.
    """
    files = coco_files(annotations, predictions)
    found = diagnose_boxes(files.boxes, files.classes, threshold=threshold)
    told = Told(found, {"annotations": str(annotations), "predictions": str(predictions)})
    if out is not None:
        write_json(out, told.to_dict())
    return told


def summary(told: Told) -> str:
    """For a person at a terminal."""
    d, e, f = told.diagnosis, told.diagnosis.attribution, told.diagnosis.figures
    lines = [
        f"{d.verdict.word.upper()}: {d.verdict.sentence}",
        f"  overturned by: {d.verdict.overturn}",
        f"  {e.images} images, {e.truths} objects, {len(f['classes'])} classes, {f['counts']['emitted']} detections; "
        f"AP50 {e.ap}",
        "",
        "  error       count   AP50 if repaired alone   if repaired last",
    ]
    for gain in (*e.kinds, *e.special):
        last = "" if gain.last is None else f"{gain.last.value or 0.0:+.3f}"
        span = "" if gain.alone.interval is None else " [{:+.3f}, {:+.3f}]".format(*gain.alone.interval)
        lines.append(f"  {gain.kind:<10}{gain.count:>7}   {gain.alone.value or 0.0:+.3f}{span:<18}{last:>14}")
    if e.order:
        lines += ["", f"  {e.order}"]
    curve = f["calibration"]["all"]
    if curve is not None:
        lines += ["", f"  score less IoU: {curve['bias']:+.3f} on average, expected error {curve['error']:.3f}"]
    t = f["threshold"]
    lines.append(f"  best F1 {t['best_f1']['value'] or 0.0:.3f} at score {t['best_threshold']:.3f}")
    lines += [f"  MISSING {name}: {reason}" for name, reason in f["missing"].items()]
    return "\n".join(lines)


def last_line(told: Told) -> dict[str, Any]:
    """The figures for one line on a terminal."""
    d, e = told.diagnosis, told.diagnosis.attribution
    return {
        **told.about,
        "verdict": d.verdict.to_dict(),
        "images": e.images,
        "counts": d.figures["counts"],
        "ap50": e.ap.value,
        "errors": {g.kind: {"count": g.count, "dap50": g.alone.value} for g in (*e.kinds, *e.special)},
        "gains": d.figures["gains"],
        "missing": d.figures["missing"],
        "findings": [],
    }
