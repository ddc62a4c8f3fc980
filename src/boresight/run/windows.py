"""Looks at large images with a detector, window by window, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torchvision.ops import batched_nms

from boresight.core.found import Found
from boresight.core.types import Detections, Scene
from boresight.data.raster import Raster
from boresight.detectors.detector import Detector
from boresight.run import window_arrays
from boresight.run.tiles import Window
from boresight.run.window_arrays import Detect, Seen


@torch.inference_mode()
def detect_windows(
    detector: Detector,
    scene: Scene | Raster,
    *,
    window: int,
    overlap: int,
    step: int,
    nms: float = 0.5,
    top_k: int = 1000,
    least: float = 0.0,
) -> Detections:
    """The boxes that ``detector`` finds in one image of any size, on the CPU, best first.

    Args:
        detector: in inference mode.
        scene: the image, or one that is read window by window. Windows are moved to the detector's device in turn.
        window, overlap, step, nms, top_k, least: see :func:`boresight.run.window_arrays.detect_windows`; ``step`` is
            the detector's ``divisor``.
    """
    if isinstance(scene, Raster):
        pixels: Any = scene
        detect = _looks(detector, scene.path.name)
    else:
        pixels, detect = scene.image, _looks(detector, scene.name, (scene.level, scene.spread))
    found = window_arrays.detect_windows(
        detect,
        pixels,
        window=window,
        overlap=overlap,
        step=step,
        nms=nms,
        top_k=top_k,
        least=least,
        suppress=_suppress,
    )
    return _detections(found)


@torch.inference_mode()
def detect_peaks(
    detector: Detector,
    pixels: np.ndarray | Raster,
    name: str,
    brightness: tuple[float, float],
    *,
    reach: int,
    window: int,
    overlap: int,
    step: int,
    least: float = 0.0,
) -> Detections:
    """The points that ``detector`` finds in one frame ``[1, H, W]`` of any size, on the CPU, best first.

    Args:
        detector: in inference mode.
        pixels: raw values.
        name: of the frame.
        brightness: ``(level, spread)`` of the whole frame.
        reach: how many cells beside a peak its detector looks at to see that it is one.
        window, overlap, step, least: see :func:`boresight.run.window_arrays.detect_peaks`; ``step`` is the detector's
            ``divisor``.
    """
    detect = _looks(detector, name, brightness, reach)
    return _detections(
        window_arrays.detect_peaks(detect, pixels, window=window, overlap=overlap, step=step, least=least)
    )


def _looks(
    detector: Detector, name: str, brightness: tuple[float, float] = (0.0, 1.0), reach: int | None = None
) -> Detect:
    """What the detector finds in a window, which it sees as a scene of its own.

    With ``reach`` only up to so many cells beside the window's own part.
    """
    device = next(detector.parameters()).device
    level, spread = brightness

    def detect(pixels: Any, place: Window) -> Seen:
        part = f"{name}[{place.rows.start},{place.columns.start}]"
        scene = Scene(torch.as_tensor(pixels), part, level=level, spread=spread)
        output = detector([scene.to(device)])
        _, classes, rows, columns = output.logits.shape
        if reach is not None:
            near = torch.from_numpy(place.near((rows, columns), output.stride, reach)).to(device)
            output = replace(output, logits=output.logits.masked_fill(~near, -torch.inf))
        found = detector.decode(output)[0].to("cpu")
        arrays = Found(found.boxes.numpy(), found.scores.numpy(), found.labels.numpy(), found.cell.numpy())
        return Seen(arrays, (classes, rows, columns), output.stride)

    return detect


def _suppress(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, most: float) -> np.ndarray:
    kept: np.ndarray = batched_nms(*(torch.from_numpy(v) for v in (boxes, scores, labels)), most).numpy()
    return kept


def _detections(found: Found) -> Detections:
    return Detections(*(torch.from_numpy(v) for v in (found.boxes, found.scores, found.labels, found.cell)))


class Tightens(Protocol):
    """What moves the boxes of an image (:class:`~boresight.run.tighten.Tightener`)."""

    def detections(self, scene: Scene, found: Detections, names: Sequence[str]) -> Detections:
        """The detections with tighter boxes, best first."""
        ...


def tighten_windows(
    tightener: Tightens, image: Raster, found: Detections, names: Sequence[str], *, window: int, margin: int
) -> Detections:
    """Tighten the boxes of an image that is read window by window; best first.

    Boxes whose centres lie in one square of ``window`` pixels are tightened together, on a part of the image that holds
    them and ``margin`` pixels around them.
    """
    height, width = image.shape[1:]
    square = ((found.boxes[:, :2] + found.boxes[:, 2:]) / 2 // window).long()
    done = []
    for place in square.unique(dim=0):
        mine = found.select((square == place).all(dim=1))
        left, top = (int(v) for v in (mine.boxes[:, :2].amin(dim=0).floor() - margin).clamp(min=0))
        right, bottom = (int(v) for v in mine.boxes[:, 2:].amax(dim=0).ceil() + margin)
        pixels = image[:, top : min(bottom, height), left : min(right, width)]
        part = Scene(torch.from_numpy(pixels), f"{image.path.name}[{top},{left}]")
        shift = torch.tensor([left, top, left, top], dtype=mine.boxes.dtype)
        tight = tightener.detections(part, replace(mine, boxes=mine.boxes - shift), names)
        done.append(replace(tight, boxes=tight.boxes + shift))
    if not done:
        return found
    every = [torch.cat([getattr(p, name) for p in done]) for name in ("boxes", "scores", "labels", "cell")]
    best = every[1].sort(descending=True, stable=True).indices
    return Detections(*(v[best] for v in every))
