"""Every box of a run at every threshold, for the image browser: from what ``evaluate`` and ``diagnose`` wrote.

``matches.parquet`` holds what passes the stored threshold to the digit, ``predictions.json`` the rest, rounded. Both
are matched again by the evaluator's own rule, since a page needs what lies below the threshold as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from boresight.core.types import Detections
from boresight.evaluate.box_match import box_table
from boresight.report.chosen import by_image
from boresight.report.image_set import (
    ImageSet,
    Mark,
    agreed,
    bare,
    bucket_number,
    counted_boxes,
    displacement_by_image,
    regret_by_image,
)
from boresight.report.judged import Opened, lost, of_same_images, run_sets, stored_threshold
from boresight.report.live import live_boxes
from boresight.report.reading import FrameStore, RunData

Row = Mapping[str, Any]
SIDES = ("x0", "y0", "x1", "y1")


def box_sets(run: RunData, store: FrameStore) -> tuple[list[ImageSet], list[str]]:
    """The images of a run of `text` or `localise`, and notes."""
    return run_sets(run, store, _of_evaluation, _of_diagnosis)


def _of_evaluation(run: RunData, opened: Opened) -> ImageSet:
    emissions, objects = of_same_images(run)
    made = judged_boxes(run, opened, _found(run, opened, stored_threshold(run)), emissions)
    counts = (run.evaluation or {}).get("per_image")
    stored = None if counts is None else {key: sum(counts[key]) for key in ("tp", "fp", "fn")}
    return replace(
        made, stored=stored, regret=regret_by_image(objects), notes=agreed(made.table, made.threshold, stored)
    )


def _of_diagnosis(run: RunData, opened: Opened) -> ImageSet:
    label = {name: k for k, name in enumerate(opened.classes)}
    rows = by_image([r for r in run.emissions if r["class"] in label])
    found = [_detections(rows.get(name, []), label) for name in opened.frames.names[: opened.count]]
    return replace(judged_boxes(run, opened, found, run.emissions), regret=regret_by_image(run.objects))


def _found(run: RunData, opened: Opened, threshold: float) -> list[Detections]:
    """What the run found in each judged image."""
    frames, classes = opened.frames, opened.classes
    label = {name: k for k, name in enumerate(classes)}
    exact = by_image([r for r in run.matches if r["kind"] != "missed" and r["class"] in label])
    rest: dict[int, list[Row]] = {}
    for row in run.predictions or ():
        rest.setdefault(row["image_id"], []).append(row)
    found = []
    for i in range(opened.count):
        scene = frames[i]
        known = exact.get(scene.name, [])
        cells = {r["cell"] for r in known}
        below = [
            _as_row(r, classes)
            for r in rest.get(scene.image_id, ())
            if r["cell"] not in cells and r["category_id"] <= len(classes)
        ]
        below = [r for r in below if torch.tensor(r["score"]) < threshold]
        found.append(_detections([*known, *below], label))
    return found


def _as_row(result: Row, classes: Sequence[str]) -> dict[str, Any]:
    """A COCO result as a row of ``matches.parquet``."""
    x, y, w, h = result["bbox"]
    place = dict(zip(SIDES, (x, y, x + w, y + h), strict=True))
    return {"class": classes[result["category_id"] - 1], "score": result["score"], "cell": result["cell"]} | place


def _detections(rows: Sequence[Row], label: Mapping[str, int]) -> Detections:
    return Detections(
        torch.tensor([[r[side] for side in SIDES] for r in rows], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([r["score"] for r in rows], dtype=torch.float32),
        torch.tensor([label[r["class"]] for r in rows], dtype=torch.long),
        torch.tensor([r["cell"] for r in rows], dtype=torch.long),
    )


def judged_boxes(run: RunData, opened: Opened, found: Sequence[Detections], emissions: Sequence[Row]) -> ImageSet:
    """Match everything; ``emissions`` is what a diagnosis says of the cells of these images."""
    told = {(r["image"], r["cell"]): r for r in emissions}
    threshold = stored_threshold(run)
    scenes = bare(opened.frames, len(found))
    rows, _ = box_table(scenes, found)
    marks: dict[str, list[Mark]] = {}
    for row in rows:
        name = scenes[row.image].name
        more = told.get((name, row.cell), {})
        marks.setdefault(name, []).append(
            Mark(
                row.box,
                row.score,
                row.label,
                row.kind,
                row.iou,
                row.object if row.kind == "hit" else -1,
                bucket_number(more.get("bucket")),
                lost(more),
            )
        )
    table = live_boxes(scenes, found, len(opened.classes), threshold)
    return ImageSet(
        run,
        opened.split,
        "boxes",
        threshold,
        opened.classes,
        opened.frames,
        [s.name for s in scenes],
        table,
        marks,
        {s.name: counted_boxes(s) for s in scenes},
        displacement=displacement_by_image(marks),
    )
