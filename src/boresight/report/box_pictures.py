"""Pictures of scenes with boxes: whole images as runs see them, and crops of what went wrong.

A picture is a small JPEG; the page draws the marks over it in the pixel frame of the scene, so that they stay sharp at
any size and can be switched off one kind at a time.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import batched_nms, box_iou

from boresight.core.types import Scene

LONGEST = 640
"""Longest side of a stored picture, pixels: larger images are reduced, the marks stay exact."""
CROP_PIXELS = 192
AROUND = 2.2
"""Side of a crop in units of the longer side of what it shows."""
LEAST_CROP = 48
DRAWN = 60
"""Places with false alarms, duplicates or wrong classes drawn in one view at most, the surest ones."""
ERRORS = ("false_alarm", "duplicate", "wrong_class")
ORDER = ("ignored", "wrong_class", "duplicate", "false_alarm", "missed", "hit")
"""From the lowest to the highest, so that many errors do not hide a hit."""
SAME = 0.9
"""IoU from which two boxes are one place to the eye."""

Row = Mapping[str, Any]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class BoxMark:
    """A box to draw: ``kind`` decides its look, ``name`` stands beside it, ``text`` says everything."""

    kind: str
    box: Box
    name: str
    text: str


@dataclass(frozen=True)
class BoxPicture:
    """A picture whose marks lie in the frame ``view``: ``(left, top, width, height)``, scene pixels."""

    data: str
    view: tuple[float, float, float, float]
    marks: tuple[BoxMark, ...] = ()
    caption: tuple[str, ...] = ()
    label: str = ""


@dataclass(frozen=True)
class SceneView:
    """One image as one run sees it; ``key`` names the stored picture, ``counts`` says what was found."""

    key: str
    name: str
    run: str
    width: int
    height: int
    marks: tuple[BoxMark, ...]
    counts: str


def jpeg(image: Tensor, longest: int) -> str:
    """An image ``[C, H, W]`` with values in 0..255, one channel or more, as a JPEG in a data URI.

    Sides beyond ``longest`` pixels are reduced to it; of more than three channels the first three are shown.
    """
    shown = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    pixels = shown.float().clamp(0, 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    picture = Image.fromarray(pixels)
    picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=84, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def row_box(row: Row) -> Box:
    """The box of a row of ``matches.parquet``, xyxy, pixel frame."""
    return (row["x0"], row["y0"], row["x1"], row["y1"])


def in_words(row: Row) -> str:
    """A row in words: what it is, its class, its score, its overlap."""
    parts = [f"{str(row['kind']).replace('_', ' ')}: {row['class']}"]
    if row.get("score") is not None:
        parts.append(f"score {row['score']:.3f}")
    if row.get("iou") is not None:
        parts.append(f"IoU {row['iou']:.2f}")
    return ", ".join(parts)


def row_mark(row: Row, more: int = 0) -> BoxMark:
    """The mark of a detection or a miss that stands for ``more`` others of its kind in the same place."""
    score = "" if row.get("score") is None else f" {row['score']:.2f}"
    others = f" (and {more} more here)" if more else ""
    extra = f" +{more}" if more else ""
    return BoxMark(row["kind"], row_box(row), f"{row['class']}{score}{extra}", in_words(row) + others)


def truth_marks(scene: Scene, classes: Sequence[str]) -> list[BoxMark]:
    """Marks of the truth; none where it is unknown."""
    if scene.boxes is None or scene.labels is None:
        return []
    crowd = [False] * len(scene.boxes) if scene.ignore is None else scene.ignore.tolist()
    marks = []
    for (x0, y0, x1, y1), label, region in zip(scene.boxes.tolist(), scene.labels.tolist(), crowd, strict=True):
        kind, words = ("dont_care", "need not be found") if region else ("truth", "truth")
        name = classes[label]
        marks.append(BoxMark(kind, (x0, y0, x1, y1), name, f"{words}: {name}"))
    return marks


_COUNTED = {
    "hit": ("hit", "hits"),
    "missed": ("missed", "missed"),
    "wrong_class": ("wrong class", "wrong class"),
    "false_alarm": ("false alarm", "false alarms"),
    "duplicate": ("duplicate", "duplicates"),
}


def counted(rows: Sequence[Row]) -> str:
    """How many of each kind, in words."""
    kinds = [r["kind"] for r in rows]
    parts = [f"{kinds.count(k)} {words[kinds.count(k) != 1]}" for k, words in _COUNTED.items() if k in kinds]
    return ", ".join(parts) or "nothing found"


def stacked(rows: Sequence[Row], iou: float = SAME) -> list[tuple[Row, int]]:
    """Rows, the surest first, each with the number of less sure ones in its place, which are left out.

    One box is often emitted for many classes; drawn over each other they would hide the image.
    """
    left = sorted(rows, key=lambda r: -r["score"])
    overlap = box_iou(*[torch.tensor([row_box(r) for r in left], dtype=torch.float64).reshape(-1, 4)] * 2)
    kept: dict[int, int] = {}
    for i in range(len(left)):
        same = next((k for k in kept if overlap[k, i] >= iou), None)
        if same is None:
            kept[i] = 0
        else:
            kept[same] += 1
    return [(left[i], more) for i, more in kept.items()]


def scene_marks(scene: Scene, rows: Sequence[Row], classes: Sequence[str]) -> tuple[list[BoxMark], int]:
    """What is drawn over an image, hits last, and how many places with errors are left out beyond ``DRAWN``."""
    errors = [p for kind in ERRORS for p in stacked([r for r in rows if r["kind"] == kind])]
    errors.sort(key=lambda p: -p[0]["score"])
    left_out = max(0, len(errors) - DRAWN)
    drawn = errors[:DRAWN] + [(r, 0) for r in rows if r["kind"] not in ERRORS]
    marks = sorted((row_mark(*p) for p in drawn), key=lambda m: ORDER.index(m.kind))
    return truth_marks(scene, classes) + marks, left_out


def scene_view(scene: Scene, key: str, run: str, rows: Sequence[Row], classes: Sequence[str]) -> SceneView:
    """An image with its truth and the rows of one run in it."""
    marks, left_out = scene_marks(scene, rows, classes)
    counts = counted(rows) + (f" ({left_out} places with less sure errors are not drawn)" if left_out else "")
    height, width = scene.size
    return SceneView(key, scene.name, run, width, height, tuple(marks), counts)


def whole_scene(scene: Scene) -> BoxPicture:
    """The image alone."""
    height, width = scene.size
    return BoxPicture(jpeg(scene.image, LONGEST), (0, 0, width, height), label=f"image {scene.name}")


def crop_window(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """``(left, top, width, height)`` of a square part around a box, moved into the image of ``(height, width)``.

    It is larger than the box by ``AROUND`` and at least ``LEAST_CROP`` pixels; no larger than the image.
    """
    x0, y0, x1, y1 = box
    height, width = size
    side = max(LEAST_CROP, math.ceil(AROUND * max(x1 - x0, y1 - y0)))
    wide, tall = min(side, width), min(side, height)
    left, top = ((x0 + x1 - wide) / 2, (y0 + y1 - tall) / 2)
    return max(0, min(round(left), width - wide)), max(0, min(round(top), height - tall)), wide, tall


def crop_of(scene: Scene, row: Row, classes: Sequence[str]) -> BoxPicture:
    """The part of an image around an error, with the error and the truth marked."""
    left, top, wide, tall = crop_window(row_box(row), scene.size)

    def near(mark: BoxMark) -> bool:
        x0, y0, x1, y1 = mark.box
        return x1 > left and y1 > top and x0 < left + wide and y0 < top + tall

    truth = [m for m in truth_marks(scene, classes) if near(m)]
    caption = (_headline(scene, row, classes), *_numbers(row), scene.name)
    part = scene.image[:, top : top + tall, left : left + wide]
    marks = (*truth, row_mark(row))
    return BoxPicture(jpeg(part, CROP_PIXELS), (left, top, wide, tall), marks, caption, ", ".join(caption))


def _headline(scene: Scene, row: Row, classes: Sequence[str]) -> str:
    """The class; of a box of the wrong class also the right one."""
    if row["kind"] == "wrong_class" and scene.labels is not None and 0 <= row["object"] < len(scene.labels):
        return f"{row['class']} (is: {classes[int(scene.labels[row['object']])]})"
    return str(row["class"])


def _numbers(row: Row) -> tuple[str, ...]:
    if row.get("score") is None:
        x0, y0, x1, y1 = row_box(row)
        return (f"{x1 - x0:.0f} x {y1 - y0:.0f} px",)
    return (f"score {row['score']:.3f}, IoU {row['iou']:.2f}",)


def worst(rows: Sequence[Row], kind: str) -> list[Row]:
    """The rows of a kind, worst first: detections by falling score, missed objects by falling size."""

    def size(row: Row) -> float:
        return float((row["x1"] - row["x0"]) * (row["y1"] - row["y0"]))

    own = [r for r in rows if r["kind"] == kind]
    return sorted(own, key=lambda r: -size(r) if kind == "missed" else -r["score"])


def one_a_place(rows: Sequence[Row], iou: float = 0.5) -> list[Row]:
    """Detections, best first, without those that overlap a better one of the same image, whatever their classes.

    A gallery would else show one place many times: a box is often emitted for several classes.
    """
    if not rows:
        return []
    numbers = {name: i for i, name in enumerate(dict.fromkeys(r["image"] for r in rows))}
    boxes = torch.tensor([row_box(r) for r in rows], dtype=torch.float64)
    scores = torch.arange(len(rows), 0, -1, dtype=torch.float64)  # the order given, also among equal scores
    images = torch.tensor([numbers[r["image"]] for r in rows])
    return [rows[i] for i in batched_nms(boxes, scores, images, iou).tolist()]
