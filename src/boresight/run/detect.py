"""Runs a detector over frames."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from boresight.core.types import Detections
from boresight.detectors.detector import Detector
from boresight.run.progress import Progress
from boresight.run.recipe import Frames


@torch.inference_mode()
def detect(
    detector: Detector, frames: Frames, indices: Sequence[int] | None = None, *, quiet: bool = True
) -> list[Detections]:
    """What ``detector`` finds in the frames (all, or those of ``indices``), on the CPU, before any threshold.

    Frames are seen one at a time: they may differ in size, and a frame's result never depends on its neighbours.
    """
    detector.eval()
    device = next(detector.parameters()).device
    chosen = range(len(frames)) if indices is None else indices
    found = []
    with Progress(len(chosen), label="detect", quiet=quiet) as bar:
        for i in chosen:
            found.append(detector.decode(detector([frames[i].to(device)]))[0].to("cpu"))
            bar.step(1)
    return found
