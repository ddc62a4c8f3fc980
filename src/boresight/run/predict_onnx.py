"""`boresight predict` with an exported file: the same detections and the same files as with the run. Without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boresight.core.errors import UserError
from boresight.core.found import Found
from boresight.data.raster import Raster
from boresight.run import found_boxes, found_points
from boresight.run.onnx_model import OnnxModel, Queries, find_boxes, peaks, point_maps
from boresight.run.onnx_refine import tightened_detections
from boresight.run.tiles import BOXES_SHARE, POINTS_SHARE, Window, reach_of, shared
from boresight.run.window_arrays import Seen, detect_peaks, detect_windows


def predict_points(
    model: OnnxModel,
    images: Sequence[str],
    out: Path,
    *,
    threshold: float | None = None,
    overlays: Path | None = None,
    window: int = 1024,
    quiet: bool = True,
) -> dict[str, Any]:
    """Find targets in images with a model of ``point``; see :func:`boresight.run.predict.predict_images`."""
    threshold = model.threshold if threshold is None else threshold
    stride, step = float(model.about["stride"]), int(model.about["divisor"])
    overlap, reach = shared(window, step, POINTS_SHARE), reach_of(model.about["decode"]["window"])

    def find(pixels: np.ndarray | Raster, name: str, light: tuple[float, float]) -> Found:
        def detect(part: np.ndarray, place: Window) -> Seen:
            logits, scores, places = point_maps(model, part, light)
            near = place.near(logits.shape[1:], stride, reach)
            found = peaks(model, np.where(near, logits, -np.inf), scores, places, size=part.shape[1:])
            return Seen(found, logits.shape, stride)

        return detect_peaks(detect, pixels, window=window, overlap=overlap, step=step, least=threshold)

    return found_points.find_points(
        find, images, out, threshold=threshold, classes=model.classes, overlays=overlays, quiet=quiet
    )


def predict_boxes(
    model: OnnxModel,
    images: Sequence[str],
    out: Path,
    *,
    queries: Sequence[str] = (),
    threshold: float | None = None,
    overlays: Path | None = None,
    window: int = 1024,
    refiner: OnnxModel | None = None,
    refine_threshold: float | None = None,
    quiet: bool = True,
) -> dict[str, Any]:
    """Find ``queries`` in images with a model of ``text``; see :func:`boresight.run.predict_boxes.predict_boxes`.

    ``refiner`` is a model of ``refine`` that tightens what was found.

    Raises UserError for a query whose embedding is not in the file, for a file that needs features, and for an image
    too large for memory that is to be refined.
    """
    if model.about["features"] != "inside":
        raise UserError(
            f"{model.path}: its graph needs the features of the frozen encoder; to run it on images export the run "
            "with --features inside"
        )
    asked = Queries.of(model, queries)
    threshold = model.threshold if threshold is None else threshold

    stride, step = float(model.about["stride"]), int(model.about["divisor"])
    overlap = shared(window, step, BOXES_SHARE)

    def detect(part: np.ndarray, place: Window) -> Seen:
        return Seen(*find_boxes(model, asked, part), stride)

    def find(pixels: np.ndarray | Raster, name: str, number: int) -> Found:
        kept = detect_windows(detect, pixels, window=window, overlap=overlap, step=step, least=threshold)
        if refiner is None:
            return kept
        if isinstance(pixels, Raster):
            raise UserError(f"{name}: too large to be refined by an exported file; cut it into tiles, or use the runs")
        return tightened_detections(refiner, pixels, kept, asked.names, refine_threshold)

    told = found_boxes.find_boxes(find, images, out, names=asked.names, overlays=overlays, quiet=quiet)
    refined = {"refined_by": str(refiner.path)} if refiner is not None else {}
    return {**told, **refined, "threshold": threshold}
