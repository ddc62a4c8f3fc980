"""Judges a trained run on a split, at the threshold frozen on its validation frames, and writes the tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from boresight.core.errors import UserError
from boresight.core.types import Detections, Points, Scene
from boresight.evaluate.points import evaluate_points
from boresight.evaluate.rows import match_table
from boresight.evaluate.stamps import compatibility
from boresight.run.detect import detect
from boresight.run.frames import point_splits
from boresight.run.parse import merged, nested, settings_from
from boresight.run.predict import detection_rows, load_trained, write_coco
from boresight.run.recipe import Frames
from boresight.run.recipes import truth_points
from boresight.run.record import RunFolder, write_json, write_parquet

MATCH_COLUMNS = {
    "image": "string",
    "image_id": "int64",
    "cell": "int64",
    "score": "float64",
    "x": "float64",
    "y": "float64",
    "distance": "float64",
    "object": "int64",
    "snr": "float64",
    "kind": "string",
}
"""``matches.parquet``: a row a detection (kind hit, duplicate, false_alarm, ignored) and a row a missed target."""


def evaluate_run(
    run: RunFolder,
    *,
    split: str = "test",
    limit: int | None = None,
    which: str = "last",
    data: dict[str, Any] | None = None,
    bootstrap: int = 1000,
    quiet: bool = True,
) -> dict[str, Any]:
    """Detect on a split and judge it.

    Args:
        run: a trained run.
        split: ``train``, ``val`` or ``test``.
        limit: judge the first so many frames only.
        which: the checkpoint, ``last`` or ``best``.
        data: keys of ``data`` to change (another folder, say); ``evaluation.json`` records them.
        bootstrap: image resamples for the intervals.
        quiet: no progress.

    Returns:
        The figures; also written to ``evaluation.json``, ``predictions.json`` and ``matches.parquet`` in the run.
    """
    trained = load_trained(run, which)
    settings = trained.settings
    if data:
        changed = merged(nested(settings), {"data": data})
        settings = settings_from(type(settings), changed, origin="the changed data settings")
    splits = point_splits(settings.data, only=split)
    frames: Frames = getattr(splits, split)
    count = len(frames) if limit is None else min(limit, len(frames))
    if count < 1:
        raise UserError(f"--limit {limit}: at least one frame must be judged")
    found = detect(trained.detector, frames, range(count), quiet=quiet)
    scenes = [frames[i] for i in range(count)]
    truth, threshold = truth_points(scenes), trained.checkpoint.threshold
    figures = judge(truth, found, scenes, threshold, settings.decode.tolerance, bootstrap)
    about = {"run": str(run.root), "split": split, "checkpoint": which, "frames": count, "limit": limit}
    figures = about | ({"data": data} if data else {}) | figures
    write_tables(run, scenes, truth, found, threshold, settings.decode.tolerance)
    write_json(run.evaluation, figures)
    return figures


def judge(
    truth: Sequence[Points],
    found: Sequence[Detections],
    scenes: Sequence[Scene],
    threshold: float,
    tolerance: float,
    bootstrap: int,
) -> dict[str, Any]:
    """All figures of the point metrics, the compatibility modes, and counts of every image for paired comparison."""
    sizes = [s.size for s in scenes]
    report = evaluate_points(truth, found, sizes=sizes, threshold=threshold, tolerance=tolerance, bootstrap=bootstrap)
    return {
        **report.to_dict(),
        "compatibility": compatibility(truth, found, threshold=threshold),
        "per_image": per_image_counts(truth, found, threshold, tolerance),
    }


def per_image_counts(
    truth: Sequence[Points], found: Sequence[Detections], threshold: float, tolerance: float
) -> dict[str, list[int]]:
    """``tp``, ``fp`` and ``fn`` of every image at the threshold."""
    rows, missed = match_table(truth, found, threshold=threshold, tolerance=tolerance)
    n = len(truth)
    hits = [r.image for r in rows if r.kind == "hit"]
    false = [r.image for r in rows if r.kind in ("false_alarm", "duplicate")]
    groups = {"tp": hits, "fp": false, "fn": [m.image for m in missed]}
    return {k: np.bincount(np.array(v, dtype=np.int64), minlength=n).tolist() for k, v in groups.items()}


def write_tables(
    run: RunFolder,
    scenes: Sequence[Scene],
    truth: Sequence[Points],
    found: Sequence[Detections],
    threshold: float,
    tolerance: float,
) -> None:
    """``predictions.json`` (everything found) and ``matches.parquet`` (what each was, at the threshold)."""
    ids = [s.image_id for s in scenes]
    names = [s.name for s in scenes]
    write_coco(run.predictions, detection_rows(names, found, 0.0, image_ids=ids))
    rows, missed = match_table(truth, found, threshold=threshold, tolerance=tolerance)
    table: list[dict[str, Any]] = []
    for r in rows:
        snr = truth[r.image].snr
        own = {"cell": r.cell, "score": r.score, "distance": r.distance, "object": r.object, "kind": r.kind}
        own["snr"] = float(snr[r.object]) if snr is not None and r.object >= 0 else None
        table.append({"image": names[r.image], "image_id": ids[r.image], "x": r.x, "y": r.y, **own})
    for m in missed:
        place = {"x": m.x, "y": m.y, "object": m.object, "snr": m.snr, "kind": "missed"}
        table.append({"image": names[m.image], "image_id": ids[m.image], **place})
    write_parquet(run.matches, table, MATCH_COLUMNS)


def last_line(figures: dict[str, Any]) -> dict[str, Any]:
    """The figures for one line on a terminal: without curves and single images."""
    return {k: v for k, v in figures.items() if k not in ("curve", "per_image")}
