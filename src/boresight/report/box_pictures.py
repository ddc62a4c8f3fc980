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

from boresight.core.types import Scene

LONGEST = 640
"""Longest side of a stored picture, pixels: larger images are reduced, the marks stay exact."""
CROP_PIXELS = 192
AROUND = 2.2
"""Side of a crop in units of the longer side of what it shows."""
LEAST_CROP = 48
DRAWN = 60
"""False alarms, duplicates and wrong classes drawn in one view at most, the surest ones."""
ERRORS = ("false_alarm", "duplicate", "wrong_class")

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


def row_marks(rows: Sequence[Row]) -> list[BoxMark]:
    """Marks of detections and misses."""
    marks = []
    for row in rows:
        score = "" if row.get("score") is None else f" {row['score']:.2f}"
        marks.append(BoxMark(row["kind"], row_box(row), f"{row['class']}{score}", in_words(row)))
    return marks


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


def surest(rows: Sequence[Row], limit: int = DRAWN) -> tuple[list[Row], int]:
    """The rows with at most ``limit`` errors among the detections, the surest ones; and how many are left out."""
    errors = sorted((r for r in rows if r["kind"] in ERRORS), key=lambda r: -r["score"])
    return [r for r in rows if r["kind"] not in ERRORS] + errors[:limit], max(0, len(errors) - limit)


def scene_view(scene: Scene, key: str, run: str, rows: Sequence[Row], classes: Sequence[str]) -> SceneView:
    """An image with its truth and the rows of one run in it."""
    drawn, left_out = surest(rows)
    counts = counted(rows) + (f" (the {DRAWN} surest errors are drawn)" if left_out else "")
    height, width = scene.size
    marks = (*truth_marks(scene, classes), *row_marks(drawn))
    return SceneView(key, scene.name, run, width, height, marks, counts)


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
    marks = (*truth, *row_marks([row]))
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
