"""Detects in images larger than a detector was made for, window by window, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from boresight.core.grid import flat_cell, unravel_cell
from boresight.core.types import Detections, Scene
from boresight.data.raster import Raster
from boresight.detectors.detector import Detector
from boresight.run.tiles import starts


def windows_of(scene: Scene | Raster, window: int, overlap: int, step: int) -> Iterator[tuple[int, int, Scene]]:
    """``(top, left, part)`` of every window; parts are scenes of their own, without truth."""
    height, width = _size(scene)
    for top in starts(height, window, overlap, step):
        for left in starts(width, window, overlap, step):
            yield top, left, _part(scene, slice(top, top + window), slice(left, left + window))


def _size(scene: Scene | Raster) -> tuple[int, int]:
    return scene.shape[1:] if isinstance(scene, Raster) else scene.size


def _part(scene: Scene | Raster, rows: slice, columns: slice) -> Scene:
    """Some rows and columns of an image, as a scene of their own; of a raster nothing else is read."""
    if isinstance(scene, Raster):
        return Scene(torch.from_numpy(scene[:, rows, columns]), f"{scene.path.name}[{rows.start},{columns.start}]")
    name = f"{scene.name}[{rows.start},{columns.start}]"
    return Scene(scene.image[:, rows, columns], name, level=scene.level, spread=scene.spread)


@torch.inference_mode()
def detect_windows(
    detector: Detector,
    scene: Scene | Raster,
    *,
    window: int,
    overlap: int,
    nms: float = 0.5,
    top_k: int = 1000,
    step: int = 16,
    least: float = 0.0,
) -> Detections:
    """What ``detector`` finds in one image of any size, on the CPU, best first.

    The image is read in overlapping windows whose corners are multiples of ``step`` (the detector's ``divisor``, a
    multiple of its stride), so that their cells are cells of the map that the image would have if it was read at once:
    ``cell`` counts there. A box that an inner border of its window cuts is left to the neighbour that sees it whole,
    unless it is too long for their overlap. Doubles are suppressed across windows.

    Args:
        detector: in inference mode.
        scene: the image, or one that is read window by window. Windows are moved to the detector's device in turn.
        window, overlap: pixels.
        nms: IoU above which of two boxes of one class the lower-scored one is dropped.
        top_k: at most so many, for every area of a window that the image has.
        step: pixels.
        least: scores below it are dropped at once: what is above it does not depend on them.
    """
    device = next(detector.parameters()).device
    height, width = _size(scene)
    parts = []
    for top, left, part in windows_of(scene, window, overlap, step):
        output = detector([part.to(device)])
        if step % int(output.stride):
            raise ValueError(f"window corners at multiples of {step} px do not fit cells of {output.stride:g} px")
        found = detector.decode(output)[0].to("cpu")
        shape, stride = tuple(output.logits.shape[1:]), int(output.stride)
        shift = torch.tensor([left, top, left, top], dtype=found.boxes.dtype)
        keep = _whole(found.boxes, (top, left), part.size, (height, width), overlap)
        whole = (-(-height // step) * (step // stride), -(-width // step) * (step // stride))
        cell = _moved(found.cell, shape, (top // stride, left // stride), whole)
        keep &= found.scores >= least
        parts.append(replace(found, boxes=found.boxes + shift, cell=cell).select(keep))
    every = [torch.cat([getattr(p, name) for p in parts]) for name in ("boxes", "scores", "labels", "cell")]
    best = every[1].sort(descending=True, stable=True).indices
    joined = Detections(*(v[best] for v in every))
    limit = top_k * max(1, -(-height * width // window**2))
    return joined.select(batched_nms(joined.boxes, joined.scores, joined.labels, nms)[:limit])


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
        part = _part(image, slice(top, min(bottom, height)), slice(left, min(right, width)))
        shift = torch.tensor([left, top, left, top], dtype=mine.boxes.dtype)
        tight = tightener.detections(part, replace(mine, boxes=mine.boxes - shift), names)
        done.append(replace(tight, boxes=tight.boxes + shift))
    if not done:
        return found
    every = [torch.cat([getattr(p, name) for p in done]) for name in ("boxes", "scores", "labels", "cell")]
    best = every[1].sort(descending=True, stable=True).indices
    return Detections(*(v[best] for v in every))


def _whole(
    boxes: Tensor, corner: tuple[int, int], part: tuple[int, int], whole: tuple[int, int], overlap: int
) -> Tensor:
    """``[N]`` bool: boxes that no inner border of the window cuts, but where they are too long for the overlap.

    A border cuts what comes within a pixel of it, so that a box has to be two pixels shorter than the overlap to lie
    whole in one of two neighbours.
    """
    (top, left), (h, w) = corner, part
    keep = torch.ones(len(boxes), dtype=torch.bool)
    for low, high, start, length, end in ((0, 2, left, w, whole[1]), (1, 3, top, h, whole[0])):
        cut = ((boxes[:, low] <= 1) & (start > 0)) | ((boxes[:, high] >= length - 1) & (start + length < end))
        keep &= ~cut | (boxes[:, high] - boxes[:, low] >= overlap - 2)
    return keep


def _moved(cell: Tensor, shape: tuple[int, int, int], corner: tuple[int, int], whole: tuple[int, int]) -> Tensor:
    """Flat cells of a window's map ``shape``, whose first cell is ``corner``, as those of a map ``whole``."""
    _, label, row, column = unravel_cell(cell, [shape])
    return flat_cell(0, label, row + corner[0], column + corner[1], (shape[0], *whole))
