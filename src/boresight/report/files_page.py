"""The page of anybody's detections: the diagnosis of two COCO files and, where images are there, what is in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from boresight.core.errors import UserError
from boresight.core.types import Detections
from boresight.data.coco import coco_boxes
from boresight.diagnose.coco_files import CocoFiles, coco_files
from boresight.report.box_tables import Table
from boresight.report.browser import Browser, Making, browser_of
from boresight.report.diagnosis import (
    MAIN,
    REPAIRS,
    DiagnosisPart,
    findings_table,
    gains_panel,
    reliability,
    verdict_sentences,
)
from boresight.report.judged import Opened
from boresight.report.judged_boxes import judged_boxes
from boresight.report.localisation import estimate
from boresight.report.page import page
from boresight.report.reading import RunData
from boresight.run.record import write_text

KINDS = {
    "Cls": "the class is wrong, the box fits",
    "Loc": "the class is right, the box is loose",
    "Both": "class and box are wrong",
    "Dupe": "the object was found before, with a higher score",
    "Bkg": "nothing is there",
    "Miss": "an object that no detection comes near",
    "FalsePos": "all detections that hit nothing",
    "FalseNeg": "all objects that are not found",
}


def write_files_page(
    out: Path, said: Mapping[str, Any], annotations: Path, predictions: Path, images: Path | None = None
) -> Path:
    """Write the page of a diagnosis of two COCO files.

    Args:
        out: the HTML file.
        said: the diagnosis as plain JSON (``Told.to_dict()``).
        annotations, predictions: the files that were diagnosed.
        images: the folder of the images; None: the page has none.

    Returns:
        ``out``.

    Raises:
        UserError: the folder is missing, or an image or a file cannot be read. Nothing is written then.
    """
    used = said["threshold"].get("threshold")
    threshold = float(said["threshold"]["best_threshold"] if used is None else used)
    run = RunData(predictions.name, 0, {"detector": "text"}, None, None, {"threshold": threshold}, None, [], [], [])
    shown = _images(run, annotations, predictions, images)
    write_text(
        out,
        page(
            "files.html",
            title=predictions.name,
            lead=[f"Detections of {predictions.name}, held against the truth of {annotations.name}."],
            browser=shown,
            diagnosed=[_part(run, said)],
            displaced=[None],
        ),
    )
    return out


def _images(run: RunData, annotations: Path, predictions: Path, images: Path | None) -> Browser:
    if images is None:
        return Browser(None, "", ("The images were not given (`--images DIR`), so there are none to look through.",))
    if not images.is_dir():
        raise UserError(f"--images {images}: no such folder: give the folder of the images that {annotations} names")
    frames = coco_boxes(annotations, [images])
    found = _found(coco_files(annotations, predictions))
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long(), torch.zeros(0).long())
    opened = Opened(annotations.name, frames, frames.classes, len(frames))
    made = judged_boxes(run, opened, [found.get(frame.image_id, nothing) for frame in frames.frames], [])
    return browser_of([made], [], Making(map_seconds=0.0))


def _found(files: CocoFiles) -> dict[int, Detections]:
    """Detections by image id. Each counts as a cell of its own: files do not say which emitted it."""
    boxes = files.boxes
    order = np.argsort(boxes.found_image, kind="stable")
    starts = np.flatnonzero(np.diff(boxes.found_image[order], prepend=-1))
    found = {}
    for rows in np.split(order, starts[1:]) if len(order) else ():
        parts = (boxes.found_box[rows].astype(np.float32), boxes.scores[rows], boxes.found_label[rows])
        box, score, label = (torch.from_numpy(np.ascontiguousarray(part)) for part in parts)
        image = int(files.image_ids[boxes.found_image[rows[0]]])
        found[image] = Detections(box, score, label, torch.from_numpy(rows))
    return found


def _part(run: RunData, said: Mapping[str, Any]) -> DiagnosisPart:
    counts, threshold, errors = said["counts"], said["threshold"], said["errors"]
    counted = (
        f"{said['images']} images, {counts['objects']} objects, {len(said['classes'])} classes, {counts['emitted']} "
        f"detections; AP50 {estimate(errors['ap'], 3)}, best F1 {estimate(threshold['best_f1'], 3)} at score "
        f"{threshold['best_threshold']:.3f}."
    )
    gains = {name: (REPAIRS[name], said["gains"].get(name)) for name in MAIN}
    kinds = [
        [
            kind,
            KINDS[kind],
            str(g["count"]),
            estimate(g["alone"], 3),
            "—" if g["last"] is None else estimate(g["last"], 3),
        ]
        for kind, g in (errors["kinds"] | errors["special"]).items()
    ]
    classes = [
        [name, str(c["n"]), f"{c['error']:.3f}", f"{c['bias']:+.3f}"]
        for name, c in said["calibration"]["by_class"].items()
        if c is not None
    ]
    return DiagnosisPart(
        run,
        word=said["verdict"]["word"],
        sentences=(*verdict_sentences(said), counted, errors["order"]),
        panels=(gains_panel(gains, "AP50"), *reliability({**said, "likeness": "IoU"}, run.colour)),
        tables=(
            ("Kinds of error", Table(["Kind", "What", "Count", "AP50 if repaired alone", "if repaired last"], kinds)),
        ),
        more=(("Scores by class", Table(["Class", "Detections", "Expected error", "Score less IoU"], classes)),),
        missing=tuple(f"{name}: {reason}" for name, reason in said["missing"].items()),
        findings=findings_table(said),
    )
