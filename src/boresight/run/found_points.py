"""Writes points that were found in images: COCO results, a table beside them, pictures. Does without torch."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from boresight.core.found import Found
from boresight.run.record import write_atomic, write_text
from boresight.run.results import detection_rows, point_results

if TYPE_CHECKING:
    from boresight.core.types import Detections


def write_points(
    out: Path, names: Sequence[str], found: Sequence[Detections | Found], threshold: float, classes: Sequence[str]
) -> dict[str, Any]:
    """Write ``out`` (COCO results) and a CSV of the same name; what was found, and where it lies.

    An ``out`` ending in ``.csv`` is the table, the COCO results then lie beside it.
    """
    rows = detection_rows(names, found, threshold)
    table, out = out.with_suffix(".csv"), out.with_suffix(".json") if out.suffix.lower() == ".csv" else out
    write_coco(out, rows)
    write_csv(table, rows, classes)
    return {
        "images": len(names),
        "detections": len(rows),
        "threshold": threshold,
        "out": str(out),
        "csv": str(table),
    }


def write_csv(path: Path, rows: Sequence[dict[str, Any]], classes: Sequence[str]) -> None:
    """``image,x,y,score,class`` with a row a detection; the header stands there when nothing was found."""

    def write(partial: Path) -> None:
        with open(partial, "w", newline="", encoding="utf-8") as file:
            out = csv.writer(file)
            out.writerow(["image", "x", "y", "score", "class"])
            for row in rows:
                place = [f"{row['x']:.3f}", f"{row['y']:.3f}", f"{row['score']:.6f}"]
                out.writerow([row["image"], *place, classes[row["category_id"]]])

    write_atomic(path, write)


def write_coco(path: Path, rows: Sequence[dict[str, Any]], side: float = 3.0) -> None:
    """COCO results: a list of ``image_id, category_id, bbox, score`` (and ``point``), categories counted from 1."""
    write_text(path, json.dumps(point_results(rows, side), allow_nan=False) + "\n")


def picture_names(images: Sequence[str]) -> list[str]:
    """A name for the picture of each image: its own, with the number of the image where two share it."""
    stems = [Path(name).stem for name in images]
    count = Counter(stems)
    return [f"{s}.png" if count[s] == 1 else f"{i}-{s}.png" for i, s in enumerate(stems, start=1)]


def draw_points(path: Path, gray: np.ndarray, found: Detections | Found, threshold: float) -> None:
    """A frame ``[H, W]``, in spreads from its level, as a PNG with a ring around every detection of ``threshold``."""
    from PIL import Image, ImageDraw

    picture = Image.fromarray(np.clip(gray * 40 + 80, 0, 255).astype(np.uint8)).convert("RGB")
    pen = ImageDraw.Draw(picture)
    for (x, y), score in zip(found.xy.tolist(), found.scores.tolist(), strict=True):
        if score >= threshold:
            pen.ellipse((x - 7, y - 7, x + 6, y + 6), outline=(64, 224, 144))
            pen.text((x + 8, y - 6), f"{score:.2f}", fill=(64, 224, 144))
    write_atomic(path, lambda p: picture.save(p, format="PNG"))
