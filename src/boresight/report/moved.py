"""Pictures of boxes that moved: the box before, the box after, and the truth where it is known."""

from __future__ import annotations

from collections.abc import Sequence

from boresight.core.types import Scene
from boresight.report.box_pictures import CROP_PIXELS, Box, BoxMark, BoxPicture, crop_window, jpeg

LEGEND = (("truth", "truth"), ("coarse", "before"), ("refined", "after"))


def moved_picture(
    scene: Scene, before: Sequence[float], after: Sequence[float], caption: Sequence[str], truth: Sequence[float] = ()
) -> BoxPicture:
    """The part of an image around a box before and after; all boxes are xyxy in the pixel frame."""
    boxes = [corners(box) for box in (truth, before, after) if len(box)]
    around = (*(min(b[i] for b in boxes) for i in (0, 1)), *(max(b[i] for b in boxes) for i in (2, 3)))
    left, top, wide, tall = crop_window(corners(around), scene.size)
    marks = [BoxMark("truth", corners(truth), "truth", "truth")] if len(truth) else []
    marks += [
        BoxMark("coarse", corners(before), "before", "before"),
        BoxMark("refined", corners(after), "after", "after"),
    ]
    part = scene.image[:, top : top + tall, left : left + wide]
    return BoxPicture(
        jpeg(part, CROP_PIXELS), (left, top, wide, tall), tuple(marks), tuple(caption), ", ".join(caption)
    )


def corners(values: Sequence[float]) -> Box:
    """Four numbers as a box."""
    x0, y0, x1, y1 = (float(v) for v in values)
    return x0, y0, x1, y1
