"""Looks for points in image files, whatever finds them, and writes what was found. Does without torch."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from boresight.core.brightness import brightness, brightness_of_parts
from boresight.core.found import Found
from boresight.data.image import stored_pixels
from boresight.data.image_files import image_files
from boresight.data.raster import GrayRaster, Raster, gray, is_large
from boresight.run.geo import write_places
from boresight.run.progress import Progress
from boresight.run.record import write_atomic, write_text
from boresight.run.results import detection_rows, point_results

if TYPE_CHECKING:
    from boresight.core.types import Detections

Finder = Callable[[np.ndarray | Raster, str, tuple[float, float]], "Detections | Found"]
"""Raw values ``[1, H, W]`` of a frame, its name, its level and spread, to what is found there, best first."""

LARGEST_PICTURE = 4096
"""Side in pixels of the picture of an image that is read by windows."""


def find_points(
    finder: Finder,
    images: Sequence[str],
    out: Path,
    *,
    threshold: float,
    classes: Sequence[str],
    overlays: Path | None = None,
    quiet: bool = True,
) -> dict[str, Any]:
    """Run ``finder`` over frames; write COCO results, a table, GeoJSON where it can, and pictures where asked for.

    A TIFF too large for memory is read by windows (:mod:`boresight.data.raster`), twice: for the brightness of the
    whole frame, which is as exact as that of any other, and for what is found. Its picture is a reduced one.
    """
    files = image_files(list(images))
    names = [name for name, _ in files]
    drawn = [] if overlays is None else [overlays / name for name in picture_names(names)]
    found, geo = [], []
    with Progress(len(files), label="detect", quiet=quiet) as bar:
        for i, (name, file) in enumerate(files):
            pixels, light = frame(file)
            found.append(finder(pixels, name, light))
            geo.append(write_places(file, found[-1], classes, out, f"{i + 1}-{Path(name).stem}"))
            if drawn:
                draw_frame(drawn[i], pixels, light, found[-1], threshold)
            bar.step(1)
    told = write_points(out, names, found, threshold, classes)
    return {**told, "geojson": [str(p) for p in geo if p is not None], "overlays": [str(p) for p in drawn]}


def frame(file: Path) -> tuple[np.ndarray | Raster, tuple[float, float]]:
    """Raw values ``[1, H, W]`` of an image file, the mean of its channels, and the level and spread of all of them."""
    if is_large(file):
        raster = GrayRaster(file)
        return raster, brightness_of_parts(raster.squares())
    pixels = gray(stored_pixels(file))
    return pixels, brightness(pixels)


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


def draw_frame(
    path: Path,
    pixels: np.ndarray | Raster,
    light: tuple[float, float],
    found: Detections | Found,
    threshold: float,
) -> None:
    """:func:`draw_points` of raw values whose level and spread are ``light``; of a raster a reduced picture."""
    level, spread = light
    share = 1.0
    if isinstance(pixels, Raster):
        pixels, share = pixels.reduced(LARGEST_PICTURE)
    draw_points(path, (pixels[0] - level) / spread, found, threshold, share)


def draw_points(path: Path, gray: np.ndarray, found: Detections | Found, threshold: float, share: float = 1.0) -> None:
    """A frame ``[H, W]``, in spreads from its level, as a PNG with a ring around every detection of ``threshold``.

    ``share``: pixels of the picture for one of the image.
    """
    from PIL import Image, ImageDraw

    picture = Image.fromarray(np.clip(gray * 40 + 80, 0, 255).astype(np.uint8)).convert("RGB")
    pen = ImageDraw.Draw(picture)
    for (x, y), score in zip((found.xy * share).tolist(), found.scores.tolist(), strict=True):
        if score >= threshold:
            pen.ellipse((x - 7, y - 7, x + 6, y + 6), outline=(64, 224, 144))
            pen.text((x + 8, y - 6), f"{score:.2f}", fill=(64, 224, 144))
    write_atomic(path, lambda p: picture.save(p, format="PNG"))
