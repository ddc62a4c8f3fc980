"""Diagnoses anybody's detector from two COCO files, or from two Parquet tables of any length."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boresight.core.errors import UserError
from boresight.data.box_tables import BoxTables
from boresight.diagnose.coco_files import coco_files
from boresight.diagnose.of_files import FileDiagnosis, diagnose_boxes
from boresight.diagnose.of_tables import diagnose_parts
from boresight.evaluate.detection import CocoFigures


@dataclass(frozen=True)
class Told:
    """A diagnosis and what it is about; COCO's figures where they come with it, as of tables."""

    diagnosis: FileDiagnosis
    about: dict[str, Any]
    coco: CocoFigures | None = None

    def to_dict(self) -> dict[str, Any]:
        """For ``diagnosis.json``."""
        figures = {} if self.coco is None else {"coco": self.coco.to_dict()}
        return self.about | self.diagnosis.to_dict() | figures


def diagnose_files(annotations: Path, predictions: Path, *, threshold: float | None = None) -> Told:
    """Diagnose detections against truth; images are not read.

    Args:
        annotations: COCO truth, or a table of it (``.parquet``, see :mod:`~boresight.data.box_tables`).
        predictions: COCO results, or a table as well. Tables are read some images at a time.
        threshold: the score from which detections are used; None: AP alone is judged.

    Raises UserError, one line, for files that cannot be used.
    """
    about = {"annotations": str(annotations), "predictions": str(predictions)}
    if _are_tables(annotations, predictions):
        tables = BoxTables(annotations, predictions)
        found, coco = diagnose_parts(tables.images(), tables.classes, threshold=threshold)
        return Told(found, about, coco)
    files = coco_files(annotations, predictions)
    return Told(diagnose_boxes(files.boxes, files.classes, threshold=threshold), about)


def _are_tables(*files: Path) -> bool:
    """Whether both are Parquet tables. UserError where one is."""
    tables = [file.suffix.lower() == ".parquet" for file in files]
    if any(tables) and not all(tables):
        raise UserError(f"{files[tables.index(False)]}: the other file is a Parquet table: give two, or two JSON files")
    return all(tables)


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
    lines += [f"  {one.line()}" for one in d.findings]
    if (c := told.coco) is not None:
        shown = {"AP": c.ap, "AP50": c.ap50, "AP75": c.ap75, "small": c.ap_small, "medium": c.ap_medium}
        shown |= {"large": c.ap_large, "AR1": c.ar_1, "AR10": c.ar_10, "AR100": c.ar_100}
        lines.append("  COCO: " + ", ".join(f"{k} {'-' if v is None else f'{v:.3f}'}" for k, v in shown.items()))
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
        **({} if told.coco is None else {"coco": {k: v for k, v in told.coco.to_dict().items() if k != "per_class"}}),
        "errors": {g.kind: {"count": g.count, "dap50": g.alone.value} for g in (*e.kinds, *e.special)},
        "gains": d.figures["gains"],
        "missing": d.figures["missing"],
        "findings": [f.to_dict() for f in d.findings],
    }
