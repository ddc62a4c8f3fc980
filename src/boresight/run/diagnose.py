"""Diagnoses a run: audits its detector on a split, asks the health rules, writes ``diagnosis.json`` and the tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from boresight.core.emission import Source
from boresight.core.errors import UserError
from boresight.core.types import Scene
from boresight.detectors.detector import Detector
from boresight.detectors.gaussian_point import GaussianPoint
from boresight.detectors.gt_class import GtClass
from boresight.detectors.own import OwnSource
from boresight.detectors.own_points import PointSource, with_points_as_boxes
from boresight.detectors.text_query import TextQuery
from boresight.diagnose.audit import Audited, audit
from boresight.diagnose.diagnosis import Diagnosis, diagnose, judged
from boresight.diagnose.displacement import displaced
from boresight.diagnose.emitted import BUCKETS, EmittedRows
from boresight.diagnose.likeness import BoxIou, Closeness
from boresight.diagnose.places_given import PlacesGiven
from boresight.run.boxes import query_texts
from boresight.run.diagnosed import Diagnosed
from boresight.run.health import run_health
from boresight.run.predict import Trained, load_trained
from boresight.run.progress import Progress
from boresight.run.recipe import Frames, Splits
from boresight.run.recipes import recipe
from boresight.run.record import RunFolder, read_parquet, write_json, write_parquet
from boresight.run.remedies import remedies

COLUMNS = {
    "image": "string",
    "image_id": "int64",
    "cell": "int64",
    "level": "int64",
    "class": "string",
    "score": "float64",
    "x0": "float64",
    "y0": "float64",
    "x1": "float64",
    "y1": "float64",
    "bucket": "string",
    "control_bucket": "string",
    "iou": "float64",
    "own_iou": "float64",
    "object": "int64",
    "distance": "float64",
    "kind": "string",
    "displaced_iou": "float64",
    "displaced_score": "float64",
    "displaced_x0": "float64",
    "displaced_y0": "float64",
    "displaced_x1": "float64",
    "displaced_y1": "float64",
}
"""``emissions.parquet``: a row a detection that the detector returns."""

OBJECT_COLUMNS = {
    "image": "string",
    "image_id": "int64",
    "object": "int64",
    "class": "string",
    "side": "float64",
    "cells": "int64",
    "positives": "int64",
    "best": "float64",
    "top": "float64",
    "regret": "float64",
}
"""``objects.parquet``: a row an object that counts."""


UNSCORED = "it learns no score: class and place of each object are given, and the most central cells speak for it"
"""Why a localiser's scores are not asked."""


def diagnose_run(
    run: RunFolder,
    *,
    split: str = "val",
    limit: int | None = None,
    which: str = "last",
    bootstrap: int = 500,
    quiet: bool = True,
) -> Diagnosed[Diagnosis]:
    """Audit the detector of a run on a split, and write ``diagnosis.json`` and both tables into the run.

    Args:
        run: a trained run of ``point``, ``text`` or ``localise``.
        split: ``val``: what is changed because of a diagnosis must not have seen the test images.
        limit: the first so many images only.
        which: the checkpoint, ``last`` or ``best``.
        bootstrap: image resamples for the intervals.
        quiet: no progress.
    """
    trained = load_trained(run, which)
    kind = recipe(trained.checkpoint.detector)
    splits = kind.frames(trained.settings, split)
    frames: Frames = getattr(splits, split)
    count = len(frames) if limit is None else min(limit, len(frames))
    if count < 1:
        raise UserError(f"--limit {limit}: at least one image must be judged")
    source = source_of(trained, splits, split)
    points = isinstance(source, PointSource)
    likeness = Closeness(trained.settings.decode.tolerance) if points else BoxIou()
    health = run_health(run, probe=True)  # first: it says why, where the audit refuses the images
    try:
        with Progress(count, label="audit", quiet=quiet) as bar:
            audited = audit(source, _scenes(frames, count, points), likeness=likeness, told=lambda done: bar.step(1))
    except ValueError as error:
        grave = "; ".join(f"`{f.id}`: {f.title}" for f in health.findings if f.severity == "error")
        said = f"; the rules of training health say {grave}" if grave else ""
        raise UserError(f"{run.root}: its `{split}` images cannot be audited: {error}{said}") from error
    found = diagnose(audited, threshold=trained.checkpoint.threshold, findings=health.findings, replicates=bootstrap)
    found.figures["calibration"]["by_epoch"] = calibration_by_epoch(run)
    told = Diagnosed(found, remedies(trained.settings, found), health)
    about = {"run": str(run.root), "detector": kind.name, "split": split, "checkpoint": which, "limit": limit}
    write_json(run.diagnosis, about | told.to_dict())
    write_parquet(run.emissions, emission_table(audited), COLUMNS)
    write_parquet(run.objects, object_table(audited), OBJECT_COLUMNS)
    return told


def calibration_by_epoch(run: RunFolder) -> list[dict[str, Any]]:
    """``step``, ``epoch`` and the expected calibration ``error`` at each validation of the training."""
    rows = [row for row in read_parquet(run.metrics) if row.get("val_calibration_error") is not None]
    return [{"step": r["step"], "epoch": r["epoch"], "error": r["val_calibration_error"]} for r in rows]


def _scenes(frames: Frames, count: int, points: bool) -> Iterator[Scene]:
    for i in range(count):
        yield with_points_as_boxes(frames[i]) if points else frames[i]


def source_of(trained: Trained, splits: Splits, split: str) -> Source:
    """The detector of a run as the audit sees it. UserError for a refiner, which has no cells of its own."""
    detector: Detector = trained.detector
    if isinstance(detector, GaussianPoint):
        return PointSource(detector, splits.classes)
    if not isinstance(detector, TextQuery):
        raise UserError(
            f"diagnose: a run of `{trained.checkpoint.detector}` emits no cells: it is diagnosed by diagnose_refiner"
        )
    classes = splits.classes + (splits.novel if split == "test" else ())
    detector.ask(query_texts(classes, trained.settings.data.queries))
    own = OwnSource(detector, classes)
    return PlacesGiven(own, UNSCORED) if isinstance(detector, GtClass) else own


def emission_table(audited: Audited) -> list[dict[str, Any]]:
    """A row for each detection that is returned: where it comes from, how it fits, and what it drove out."""
    rows = audited.rows
    hit, ignored = judged(audited)
    lost = displaced(rows)
    better = dict(zip(lost.row.tolist(), lost.better.tolist(), strict=True))
    table = []
    for i in rows.kept.nonzero()[0].tolist():
        scene = audited.scenes[rows.image[i]]
        box = dict(zip(("x0", "y0", "x1", "y1"), rows.box[i].tolist(), strict=True))
        kind = "hit" if hit[i] else "ignored" if ignored[i] else "false"
        table.append(
            {
                "image": scene.name,
                "image_id": scene.image_id,
                "cell": int(rows.slot[i]),
                "level": int(rows.level[i]),
                "class": audited.classes[rows.label[i]],
                "score": float(rows.score[i]),
                **box,
                "bucket": _bucket(int(rows.bucket[i])),
                "control_bucket": _bucket(int(rows.control[i])),
                "iou": float(rows.iou[i]),
                "own_iou": float(rows.own[i]),
                "object": int(rows.object[i]),
                "distance": None if rows.distance[i] != rows.distance[i] else float(rows.distance[i]),
                "kind": kind,
                **(_displaced(rows, better[i]) if i in better else {}),
            }
        )
    return table


def object_table(audited: Audited) -> list[dict[str, Any]]:
    """A row for each object: how well its cells box it, and what its top-scored cell loses (``regret``)."""
    rows = audited.objects
    table = []
    for i in range(len(rows)):
        scene, known = audited.scenes[rows.image[i]], bool(np.isfinite(rows.best[i]))
        best, top = (float(rows.best[i]), float(rows.top[i])) if known else (None, None)
        table.append(
            {
                "image": scene.name,
                "image_id": scene.image_id,
                "object": int(rows.object[i]),
                "class": audited.classes[rows.label[i]],
                "side": float(rows.side[i]),
                "cells": int(rows.cells[i]),
                "positives": None if rows.positives[i] < 0 else int(rows.positives[i]),
                "best": best,
                "top": top,
                "regret": None if best is None or top is None else best - top,
            }
        )
    return table


def _displaced(rows: EmittedRows, i: int) -> dict[str, float]:
    """The better box that was driven out."""
    box = zip(("x0", "y0", "x1", "y1"), rows.box[i].tolist(), strict=True)
    told = {f"displaced_{k}": v for k, v in box}
    return told | {"displaced_iou": float(rows.own[i]), "displaced_score": float(rows.score[i])}


def _bucket(number: int) -> str | None:
    return None if number < 0 else BUCKETS[number]


def summary(told: Diagnosed[Diagnosis]) -> str:
    """For a person at a terminal."""
    d, f = told.diagnosis, told.diagnosis.figures
    counts = f["counts"]
    lines = [
        f"{d.verdict.word.upper()}: {d.verdict.sentence}",
        f"  overturned by: {d.verdict.overturn}",
        f"  {f['images']} images, {counts['objects']} objects, {counts['kept']} detections",
        "",
        f"  {'if one thing were true':<18}{f['metrics'][0] + ' gain':>23}{f['metrics'][1] + ' gain':>25}",
    ]
    ranked = sorted(f["attribution"]["gains"].items(), key=lambda item: -(item[1]["ap50"]["value"] or 0.0))
    lines += [f"  {name:<18}{_figure(g['ap50']):>27}{_figure(g['ap']):>25}" for name, g in ranked]
    lines += ["", f"  ({f['attribution']['note']})"]
    for when in ("before", "after"):
        buckets = f["buckets"].get("own", {}).get(when, {})
        if buckets:
            fit = f"median {f['likeness']}"
            lines += ["", f"  {f'boxes {when} suppression':<22}{'n':>8}  {fit:>18}  false alarms"]
            lines += [
                f"  {name:<22}{b['iou']['n']:>8}  {_plain(b['iou']['median']):>18}  {_plain(b['false']['value']):>12}"
                for name, b in buckets.items()
            ]
    for name, reason in f["missing"].items():
        lines.append(f"  MISSING {name}: {reason}")
    lines += told.closing_lines()
    return "\n".join(lines)


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _figure(estimate: dict[str, Any]) -> str:
    if estimate["value"] is None:
        return "-"
    span = "" if estimate["interval"] is None else " [{:+.3f}, {:+.3f}]".format(*estimate["interval"])
    return f"{estimate['value']:+.3f}{span}"


def last_line(told: Diagnosed[Diagnosis]) -> dict[str, Any]:
    """The figures for one line on a terminal: the verdict and what it rests on."""
    f = told.diagnosis.figures
    return {
        "verdict": told.diagnosis.verdict.to_dict(),
        "images": f["images"],
        "counts": f["counts"],
        "ap50": f["attribution"]["ap50"],
        "ap": f["attribution"]["ap"],
        "gains": {name: g["ap50"] for name, g in f["attribution"]["gains"].items()},
        "regret": f["ranking"]["regret"],
        "missing": f["missing"],
        "findings": [x.to_dict() for x in told.diagnosis.findings],
        "remedies": told.remedies,
    }
