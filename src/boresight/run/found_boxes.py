"""Looks for boxes in image files, whatever finds them, and writes what was found. Does without torch."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from boresight.core.errors import UserError
from boresight.core.found import Found
from boresight.data.image_files import image_files
from boresight.data.raster import Raster, open_large
from boresight.data.rgb_image import rgb_pixels
from boresight.run.found_points import LARGEST_PICTURE, picture_names
from boresight.run.geo import write_places
from boresight.run.progress import Progress
from boresight.run.record import write_atomic, write_text
from boresight.run.results import box_results

if TYPE_CHECKING:
    from boresight.core.types import Detections

COLOURS = ((64, 224, 144), (255, 176, 32), (96, 176, 255), (255, 96, 144), (208, 144, 255), (240, 240, 96))

Finder = Callable[[np.ndarray | Raster, str, int], "Detections | Found"]
"""Pixels ``[3, H, W]`` uint8 of an image, its name and its number from 1, to what is found there, best first."""


def split_queries(text: str) -> tuple[str, ...]:
    """``"ship, red aircraft"`` as ``("ship", "red aircraft")``; UserError for an empty one."""
    parts = tuple(part.strip() for part in text.split(","))
    if not all(parts):
        raise UserError(f"--queries `{text}`: an empty query; write them like `ship,red aircraft`")
    return parts


def find_boxes(
    finder: Finder,
    images: Sequence[str],
    out: Path,
    *,
    names: Sequence[str],
    overlays: Path | None = None,
    quiet: bool = True,
) -> dict[str, Any]:
    """Run ``finder`` over images; write COCO results, a table, GeoJSON where it can, and pictures where asked for.

    A TIFF too large for memory is read by windows (:mod:`boresight.data.raster`); its picture is a reduced one.
    """
    files = image_files(list(images))
    found: list[Detections | Found] = []
    geo: list[Path | None] = []
    drawn: list[Path] = []
    pictures = picture_names([name for name, _ in files])
    with Progress(len(files), label="predict", quiet=quiet) as bar:
        for number, ((name, file), picture) in enumerate(zip(files, pictures, strict=True), start=1):
            pixels = open_large(file) or rgb_pixels(file)
            found.append(finder(pixels, name, number))
            geo.append(write_places(file, found[-1], names, out, f"{number}-{Path(name).stem}"))
            if overlays is not None:
                draw(overlays / picture, pixels, found[-1], names)
                drawn.append(overlays / picture)
            bar.step(1)
    return {
        "images": len(files),
        "detections": sum(len(d) for d in found),
        "queries": list(names),
        **write_found(out, [name for name, _ in files], found, names),
        "geojson": [str(path) for path in geo if path is not None],
        "overlays": [str(path) for path in drawn],
    }


def write_found(
    out: Path, images: Sequence[str], found: Sequence[Detections | Found], names: Sequence[str]
) -> dict[str, str]:
    """COCO results and a CSV beside them; where each lies, as ``out`` and ``csv``."""
    table, out = out.with_suffix(".csv"), out.with_suffix(".json") if out.suffix.lower() == ".csv" else out
    results = box_results(range(1, len(images) + 1), found, 0.0, range(1, len(names) + 1))
    write_text(out, json.dumps(results, allow_nan=False) + "\n")
    write_csv(table, images, found, names)
    return {"out": str(out), "csv": str(table)}


def write_csv(path: Path, images: Sequence[str], found: Sequence[Detections | Found], names: Sequence[str]) -> None:
    """``image,query,score,x0,y0,x1,y1,cell`` with a row a detection; the header stands there when nothing was found."""

    def write(partial: Path) -> None:
        with open(partial, "w", newline="", encoding="utf-8") as file:
            out = csv.writer(file)
            out.writerow(["image", "query", "score", "x0", "y0", "x1", "y1", "cell"])
            for image, d in zip(images, found, strict=True):
                columns = (d.labels.tolist(), d.scores.tolist(), d.boxes.tolist(), d.cell.tolist())
                for label, score, box, cell in zip(*columns, strict=True):
                    out.writerow([image, names[label], f"{score:.6f}", *(f"{v:.2f}" for v in box), cell])

    write_atomic(path, write)


def draw(path: Path, pixels: np.ndarray | Raster, found: Detections | Found, names: Sequence[str]) -> None:
    """The image ``[3, H, W]`` uint8 with a box, its query and its score for every detection."""
    from PIL import Image, ImageDraw

    share = 1.0
    if isinstance(pixels, Raster):
        pixels, share = pixels.reduced(LARGEST_PICTURE)
    picture = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    pen = ImageDraw.Draw(picture)
    for (x0, y0, x1, y1), label, score in zip(
        (found.boxes * share).tolist(), found.labels.tolist(), found.scores.tolist(), strict=True
    ):
        colour = COLOURS[label % len(COLOURS)]
        pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=colour, width=2)
        pen.text((x0 + 2, y0 - 11 if y0 > 11 else y1 + 1), f"{names[label]} {score:.2f}", fill=colour)
    write_atomic(path, lambda p: picture.save(p, format="PNG"))
