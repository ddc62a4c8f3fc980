"""`boresight predict` with an exported file: the same detections and the same files as with the run. Without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boresight.core.errors import UserError
from boresight.core.found import Found
from boresight.data.image import read_pixels
from boresight.data.image_files import image_files
from boresight.data.raster import Raster
from boresight.run import found_boxes
from boresight.run.found_points import draw_points, picture_names, write_points
from boresight.run.onnx_model import OnnxModel, Queries, brightness, find_boxes, find_points
from boresight.run.onnx_refine import tightened_detections
from boresight.run.progress import Progress
from boresight.run.window_arrays import detect_windows


def predict_points(
    model: OnnxModel,
    images: Sequence[str],
    out: Path,
    *,
    threshold: float | None = None,
    overlays: Path | None = None,
    quiet: bool = True,
) -> dict[str, Any]:
    """Find targets in images with a model of ``point``; see :func:`boresight.run.predict.predict_images`."""
    files = image_files(list(images))
    threshold = model.threshold if threshold is None else threshold
    names = [name for name, _ in files]
    found = []
    drawn = [] if overlays is None else [overlays / name for name in picture_names(names)]
    with Progress(len(files), label="detect", quiet=quiet) as bar:
        for i, (_, file) in enumerate(files):
            frame = gray(file)
            found.append(find_points(model, frame))
            if drawn:
                level, spread = brightness(frame)
                draw_points(drawn[i], (frame[0] - level) / spread, found[-1], threshold)
            bar.step(1)
    told = write_points(out, names, found, threshold, model.classes)
    return {**told, "overlays": [str(p) for p in drawn]}


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

    def find(pixels: np.ndarray | Raster, name: str, number: int) -> Found:
        kept = detect_windows(
            lambda part: find_boxes(model, asked, part),
            pixels,
            stride=model.about["stride"],
            window=window,
            overlap=min(256, window // 4),
            least=threshold,
        )
        if refiner is None:
            return kept
        if isinstance(pixels, Raster):
            raise UserError(f"{name}: too large to be refined by an exported file; cut it into tiles, or use the runs")
        return tightened_detections(refiner, pixels, kept, asked.names, refine_threshold)

    told = found_boxes.find_boxes(find, images, out, names=asked.names, overlays=overlays, quiet=quiet)
    refined = {"refined_by": str(refiner.path)} if refiner is not None else {}
    return {**told, **refined, "threshold": threshold}


def gray(file: Path) -> np.ndarray:
    """An image file as ``[1, H, W]`` float32: the mean of its channels."""
    pixels = read_pixels(file)
    return pixels if len(pixels) == 1 else pixels.mean(axis=0, keepdims=True)
