"""Every coarse box of a refiner at every confidence, for the image browser: from ``matches.parquet``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from boresight.core.types import Scene
from boresight.evaluate.refinement import CHANGED, GOOD
from boresight.report.image_set import Box, ImageSet, Mark, bare, counted_boxes
from boresight.report.live import LiveTable, live_table
from boresight.report.reading import FrameStore, RunData

Row = Mapping[str, Any]
SIDES = ("x0", "y0", "x1", "y1")


def refined_sets(run: RunData, store: FrameStore) -> tuple[list[ImageSet], list[str]]:
    """The images that the run was judged on, and notes."""
    if run.evaluation is None or not run.matches:
        return [], [f"{run.name}: not evaluated yet, so there is no image to look at."]
    splits, frames = store.splits(run), store.frames(run)
    if isinstance(splits, str) or isinstance(frames, str):
        return [], [f"{run.name}: {frames}"]
    classes = splits.classes + splits.novel
    scenes = {s.name: s for s in bare(frames, min(int(run.evaluation.get("frames", len(frames))), len(frames)))}
    rows = [r for r in run.matches if r["image"] in scenes]
    threshold = float(run.evaluation["threshold"])
    counted = [_counts(scenes[r["image"]], r) for r in rows]
    label = {name: k for k, name in enumerate(classes)}
    marks: dict[str, list[Mark]] = {}
    for row, counts in zip(rows, counted, strict=True):
        marks.setdefault(row["image"], []).append(_mark(row, counts, label))
    table = refined_table([r for r, c in zip(rows, counted, strict=True) if c], label, threshold)
    truths = {name: counted_boxes(scene) for name, scene in scenes.items()}
    stored = {k: run.evaluation[k] for k in ("iou_before", "iou_after") if run.evaluation.get(k) is not None}
    made = ImageSet(
        run, run.split, "refined", threshold, classes, frames, list(scenes), table, marks, truths, stored or None,
        notes=_agreed(table, threshold, stored),
    )  # fmt: skip
    return [made], []


def _counts(scene: Scene, row: Row) -> bool:
    """The coarse box stands for an object that counts."""
    owner = row["object"]
    if owner < 0 or scene.boxes is None or owner >= len(scene.boxes):
        return False
    return scene.ignore is None or not bool(scene.ignore[owner])


def _box(row: Row, kind: str) -> Box:
    x0, y0, x1, y1 = (float(row[f"{kind}_{side}"]) for side in SIDES)
    return x0, y0, x1, y1


def solid(row: Row) -> bool:
    """The refined box has an area: one without never replaces."""
    x0, y0, x1, y1 = _box(row, "moved")
    return x1 > x0 and y1 > y0


def _mark(row: Row, counts: bool, label: Mapping[str, int]) -> Mark:
    told = {"fit": row["iou_before"], "fit_refined": row["iou_moved"], "object": row["object"]}
    if not counts:
        told = {"fit": None, "fit_refined": None, "object": -1}
    name = row["class"]
    return Mark(
        _box(row, "coarse"),
        float(row["confidence"]),
        -1 if name is None else label.get(name, -1),
        "hit" if counts else "ignored",
        refined=_box(row, "moved") if solid(row) else None,
        **told,
    )


def refined_table(rows: Sequence[Row], label: Mapping[str, int], threshold: float) -> LiveTable:
    """What replacing each box changes: the sum of IoUs, and how many are replaced, better, and worse though good."""
    before, moved = (np.array([r[f"iou_{k}"] for r in rows], np.float64) for k in ("before", "moved"))
    takes = np.array([solid(r) for r in rows], bool)
    gain = np.where(takes, moved - before, 0.0)
    good = before > GOOD
    steps = {
        "replaced": takes.astype(np.int64),
        "gain": gain,
        "improved": (gain > CHANGED).astype(np.int64),
        "harmed": ((gain < -CHANGED) & good).astype(np.int64),
    }
    labels = np.array([label.get(r["class"], 0) for r in rows], np.int64)

    def by_class(values: np.ndarray | None) -> np.ndarray:
        return np.bincount(labels, weights=values, minlength=len(label))

    totals = {
        "boxes": by_class(None),
        "before": by_class(before),
        "good": by_class(good.astype(float)).astype(np.int64),
    }
    score = np.array([r["confidence"] for r in rows], np.float32)
    return live_table(score, labels, steps, totals, threshold)


def _agreed(table: LiveTable, threshold: float, stored: Mapping[str, float]) -> list[str]:
    """A sentence where the stored figures are not those of the table."""
    boxes = float(table.totals["boxes"].sum())
    if not boxes or "iou_after" not in stored:
        return []
    after = (float(table.totals["before"].sum()) + table.at(threshold)["gain"]) / boxes
    if abs(after - stored["iou_after"]) < 1e-6:
        return []
    told = f"mean IoU {stored['iou_after']:.4f} stored and {after:.4f} counted"
    return [f"The figures are not those of the evaluation ({told}): files have changed since; evaluate again."]
