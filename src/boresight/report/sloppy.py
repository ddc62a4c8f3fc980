"""Tightens the boxes of a COCO file, and writes a page of what moved."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from boresight.core.boxes import aligned_iou
from boresight.core.errors import UserError
from boresight.core.types import Scene
from boresight.data.rgb_image import read_rgb
from boresight.report.box_pictures import BoxPicture
from boresight.report.moved import LEGEND, moved_picture
from boresight.report.page import page
from boresight.run.record import RunFolder, write_text
from boresight.run.sloppy import Change, Sloppy, read_sloppy, tighten_all, write_tight
from boresight.run.tighten import Tightener

LARGEST = 36
"""Moves in the gallery at most."""

BINS = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0)


def refine_annotations(
    annotations: Path,
    images: Path,
    out: Path,
    *,
    run: RunFolder,
    threshold: float | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Write a COCO file anew with tighter boxes, and an HTML page of what moved beside it.

    Args:
        annotations: COCO boxes of any origin.
        images: the folder of their images.
        out: the new file; the page has its name with ``.html``.
        run: a run of `refine`.
        threshold: confidence from which a box is replaced, instead of the run's own.
        quiet: no progress.

    Raises UserError, before anything is written, for a file or image that cannot be read, and where ``out`` is
    ``annotations`` itself.
    """
    if out.resolve() == annotations.resolve():
        raise UserError(f"--out {out}: is the file of the annotations itself: name another one")
    sloppy = read_sloppy(annotations, images)
    changes = tighten_all(sloppy, Tightener.of(run, threshold=threshold), quiet=quiet)
    write_tight(sloppy, changes, out)
    report = out.with_suffix(".html")
    write_text(report, moved_page(sloppy, changes, out))
    return {
        "images": len(sloppy.frames),
        "annotations": len(sloppy.content["annotations"]),
        "boxes": len(changes),
        "replaced": sum(c.replaced for c in changes),
        "mean_iou_with_coarse": _mean([overlap(c) for c in changes]),
        "out": str(out),
        "report": str(report),
    }


def overlap(change: Change) -> float:
    """IoU of the box after with the box before."""
    return float(aligned_iou(change.coarse, change.box))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def moved_page(sloppy: Sloppy, changes: Sequence[Change], out: Path) -> str:
    """The page: how many boxes moved and how far, class by class, and the largest moves."""
    moved = sorted((c for c in changes if c.replaced), key=overlap)
    total = len(sloppy.content["annotations"])
    lead = [f"{len(moved)} of {len(changes)} boxes of {sloppy.file.name} were replaced; the others stay to the digit."]
    if total > len(changes):
        lead.append(f"{total - len(changes)} annotations are crowds or faulty boxes and stay as they are.")
    return page(
        "sloppy.html",
        title=f"What moved in {out.name}",
        lead=lead,
        legend=LEGEND[1:],
        classes=_class_rows(sloppy, changes),
        far=_far_rows(moved),
        pictures=[_picture(sloppy, change) for change in moved[:LARGEST]],
        note=f"{min(LARGEST, len(moved))} of {len(moved)} moves, the largest first.",
    )


def _class_rows(sloppy: Sloppy, changes: Sequence[Change]) -> list[list[str]]:
    groups: dict[int, list[Change]] = defaultdict(list)
    for change in changes:
        groups[change.label].append(change)
    rows = []
    for label, own in sorted(groups.items()):
        moved = [c for c in own if c.replaced]
        share = _mean([_area(c) for c in moved])
        iou = _mean([overlap(c) for c in moved])
        told = ["—" if iou is None else f"{iou:.2f}", "—" if share is None else f"{share:.2f}"]
        rows.append([sloppy.frames.classes[label], str(len(own)), str(len(moved)), *told])
    return rows


def _area(change: Change) -> float:
    """Area after over area before."""
    sides = [(box[2:] - box[:2]).prod() for box in (change.box, change.coarse)]
    return float(sides[0] / sides[1])


def _far_rows(moved: Sequence[Change]) -> list[list[str]]:
    ious = [overlap(c) for c in moved]
    return [
        [f"{low:g} to {high:g}", str(sum(low <= v < high or (high == 1.0 and v == 1.0) for v in ious))]
        for low, high in pairwise(BINS)
    ]


def _picture(sloppy: Sloppy, change: Change) -> BoxPicture:
    """The part of the image around a box, with the box before and after."""
    frame = sloppy.frames.frames[change.image]
    name = sloppy.frames.classes[change.label]
    caption = (name, f"IoU {overlap(change):.2f}, sure {change.confidence:.2f}", frame.name)
    scene = Scene(read_rgb(frame.image), frame.name)
    return moved_picture(scene, change.coarse.tolist(), change.box.tolist(), caption)
