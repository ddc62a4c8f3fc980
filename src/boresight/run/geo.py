"""Detections as places on the earth, for images that say where they were taken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boresight.core.errors import UserError
from boresight.core.found import Found
from boresight.data.raster import SUFFIXES, opened, tiff_tags

if TYPE_CHECKING:
    from boresight.core.types import Detections

_TAGS = (33550, 33922, 34264)
"""GeoTIFF: pixel scale, tie points, transformation."""


def has_transform(image: Path) -> bool:
    """Whether a TIFF carries a georeference, told from its tags alone."""
    return image.suffix.lower() in SUFFIXES and any(tag in _TAGS for tag in tiff_tags(image))


def geojson(image: Path, found: Detections | Found, names: Sequence[str]) -> dict[str, Any] | None:
    """The detections as GeoJSON polygons in longitude and latitude (WGS 84); None where no place is known.

    A box becomes the polygon of its four corners, counter-clockwise on a map with north up.

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

    features = []
    columns = (found.boxes.tolist(), found.scores.tolist(), found.labels.tolist())
    for (x0, y0, x1, y1), score, label in zip(*columns, strict=True):
        corners = [affine @ p if hasattr(affine, "__matmul__") else affine * p for p in _ring(x0, y0, x1, y1)]
        longitude, latitude = transform(crs, "EPSG:4326", [c[0] for c in corners], [c[1] for c in corners])
        if not all(math.isfinite(v) for v in (*longitude, *latitude)):
            raise UserError(f"{image}: its coordinate system does not reach the box at ({x0:g}, {y0:g}); correct it")
        ring = [[lon, lat] for lon, lat in zip(longitude, latitude, strict=True)]
        about = {"query": names[label], "score": round(score, 6), "bbox_px": [round(v, 2) for v in (x0, y0, x1, y1)]}
        polygon = {"type": "Polygon", "coordinates": [ring]}
        features.append({"type": "Feature", "geometry": polygon, "properties": about})
    return features


def _ring(x0: float, y0: float, x1: float, y1: float) -> list[tuple[float, float]]:
    return [(x0, y1), (x1, y1), (x1, y0), (x0, y0), (x0, y1)]
