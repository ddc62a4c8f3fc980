"""Detections as places on the earth, for images that say where they were taken."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boresight.core.errors import UserError
from boresight.core.found import Found
from boresight.data.raster import SUFFIXES, opened, tiff_tags
from boresight.run.record import write_text

if TYPE_CHECKING:
    from boresight.core.types import Detections

_TAGS = (33550, 33922, 34264)
"""GeoTIFF: pixel scale, tie points, transformation."""


def has_transform(image: Path) -> bool:
    """Whether a TIFF carries a georeference, told from its tags alone."""
    return image.suffix.lower() in SUFFIXES and any(tag in _TAGS for tag in tiff_tags(image))


def geojson(image: Path, found: Detections | Found, names: Sequence[str]) -> dict[str, Any] | None:
    """The detections as GeoJSON in longitude and latitude (WGS 84); None where no place is known.

    A box becomes the polygon of its four corners, counter-clockwise on a map with north up, a point (a box of size
    zero) a point. Their properties are the name (``query`` of a box, ``class`` of a point), the score and the pixels.

    Raises UserError when the image has a georeference and rasterio is not installed, when it names no coordinate
    system or one that cannot be turned into longitude and latitude, and when a box lies where that system does not
    reach.
    """
    if not has_transform(image):
        return None
    with opened(image) as file:
        if file.crs is None:
            raise UserError(
                f"{image}: has a transform and no coordinate system; assign one, or save it as a plain TIFF"
            )
        return {"type": "FeatureCollection", "features": _features(image, file.transform, file.crs, found, names)}


def _features(
    image: Path, affine: Any, crs: Any, found: Detections | Found, names: Sequence[str]
) -> list[dict[str, Any]]:
    from rasterio.warp import transform

    boxes = found.boxes.tolist()
    rings = [[(x0, y0)] if (x0, y0) == (x1, y1) else _ring(x0, y0, x1, y1) for x0, y0, x1, y1 in boxes]
    there = [affine @ p if hasattr(affine, "__matmul__") else affine * p for ring in rings for p in ring]
    if not there:
        return []
    places = zip(*transform(crs, "EPSG:4326", *(list(axis) for axis in zip(*there, strict=True))), strict=True)
    features = []
    for box, ring, score, label in zip(boxes, rings, found.scores.tolist(), found.labels.tolist(), strict=True):
        outline = [list(next(places)) for _ in ring]
        if not all(math.isfinite(v) for place in outline for v in place):
            x, y = box[:2]
            raise UserError(f"{image}: its coordinate system does not reach the box at ({x:g}, {y:g}); correct it")
        geometry: dict[str, Any] = {"type": "Polygon", "coordinates": [outline]}
        about = {"query": names[label], "score": round(score, 6), "bbox_px": [round(v, 2) for v in box]}
        if len(ring) == 1:
            geometry = {"type": "Point", "coordinates": outline[0]}
            about = {"class": names[label], "score": round(score, 6), "point_px": [round(v, 3) for v in box[:2]]}
        features.append({"type": "Feature", "geometry": geometry, "properties": about})
    return features


def write_places(image: Path, found: Detections | Found, names: Sequence[str], out: Path, suffix: str) -> Path | None:
    """GeoJSON beside ``out`` for a georeferenced image; its path, or None for any other image."""
    if (places := geojson(image, found, names)) is None:
        return None
    path = out.with_name(f"{out.stem}-{suffix}.geojson")
    write_text(path, json.dumps(places, allow_nan=False) + "\n")
    return path


def _ring(x0: float, y0: float, x1: float, y1: float) -> list[tuple[float, float]]:
    return [(x0, y1), (x1, y1), (x1, y0), (x0, y0), (x0, y1)]
