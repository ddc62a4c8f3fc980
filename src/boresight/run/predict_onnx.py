"""`boresight predict` with an exported file: the same detections and the same files as with the run. Without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from boresight.data.image import read_pixels
from boresight.data.image_files import image_files
from boresight.run.found_points import draw_points, picture_names, write_points
from boresight.run.onnx_model import OnnxModel, brightness, find_points
from boresight.run.progress import Progress


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


def gray(file: Path) -> Any:
    """An image file as ``[1, H, W]`` float32: the mean of its channels."""
    pixels = read_pixels(file)
    return pixels if len(pixels) == 1 else pixels.mean(axis=0, keepdims=True)
