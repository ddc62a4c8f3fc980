"""The gallery of displacement: kept boxes beside the better ones that they drove out."""

from __future__ import annotations

from dataclasses import dataclass

from boresight.core.types import Scene
from boresight.report.box_pictures import (
    CROP_PIXELS,
    BoxMark,
    BoxPicture,
    Row,
    crop_window,
    jpeg,
    row_box,
    truth_marks,
)
from boresight.report.reading import FrameStore, RunData

SHOWN = 12


@dataclass(frozen=True)
class DisplacedGallery:
    """Pictures, and a sentence on how many there are or why there are none."""

    note: str
    pictures: tuple[BoxPicture, ...] = ()


def displaced_gallery(run: RunData, store: FrameStore) -> DisplacedGallery:
    """The kept boxes that cost most: of unsupervised cells first, then of supervised ones."""
    rows = [r for r in run.emissions if r.get("displaced_iou") is not None]
    if not rows:
        return DisplacedGallery("No kept box drove out a better one of a supervised cell.")
    found = store.of_diagnosis(run)
    if isinstance(found, str):
        return DisplacedGallery(found)
    frames, classes = found
    index = {name: i for i, name in enumerate(frames.names)}
    rows.sort(key=lambda r: (r["bucket"] == "supervised", r["own_iou"] - r["displaced_iou"]))
    here = [r for r in rows if r["image"] in index]
    pictures = tuple(_picture(frames[index[r["image"]]], r, classes) for r in here[:SHOWN])
    return DisplacedGallery(f"{len(pictures)} of {len(rows)} shown, those of unsupervised cells first.", pictures)


def _picture(scene: Scene, row: Row, classes: tuple[str, ...]) -> BoxPicture:
    better = {
        "x0": row["displaced_x0"],
        "y0": row["displaced_y0"],
        "x1": row["displaced_x1"],
        "y1": row["displaced_y1"],
    }
    kept, other = row_box(row), row_box(better)
    around = (min(kept[0], other[0]), min(kept[1], other[1]), max(kept[2], other[2]), max(kept[3], other[3]))
    left, top, wide, tall = crop_window(around, scene.size)
    said = f"score {row['score']:.3f}, IoU {row['own_iou']:.2f}"
    lost = f"score {row['displaced_score']:.3f}, IoU {row['displaced_iou']:.2f}"
    marks = (
        *(m for m in truth_marks(scene, classes) if _near(m, left, top, wide, tall)),
        BoxMark("displaced", other, "driven out", f"driven out: {lost}"),
        BoxMark("kept", kept, "kept", f"kept: {said}"),
    )
    caption = (f"{row['class']}, {row['bucket']} cell", f"kept: {said}", f"driven out: {lost}", scene.name)
    part = scene.image[:, top : top + tall, left : left + wide]
    return BoxPicture(jpeg(part, CROP_PIXELS), (left, top, wide, tall), marks, caption, ", ".join(caption))


def _near(mark: BoxMark, left: float, top: float, wide: float, tall: float) -> bool:
    x0, y0, x1, y1 = mark.box
    return x1 > left and y1 > top and x0 < left + wide and y0 < top + tall
