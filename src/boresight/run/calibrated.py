"""How far scores are from what they stand for, at every validation: by epoch it is seen to get better or worse."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from boresight.core.types import Detections, Scene
from boresight.diagnose.likeness import Likeness
from boresight.diagnose.ranking import calibration
from boresight.diagnose.truth import Truth

CROWDED = 0.5
"""A detection that is like a don't-care from this on says nothing of the score; nor does one of a class whose objects
are not all labelled."""


def calibration_error(
    scenes: Sequence[Scene], found: Sequence[Detections], classes: int, likeness: Likeness
) -> float | None:
    """Expected calibration error of scores against the likeness to an object of their class; None without detections.

    Args:
        scenes: with box truth (points as boxes of size zero); pixels are not looked at.
        found: of each scene.
        classes: number of classes.
        likeness: IoU, or closeness of points.
    """
    scores, fits = [np.zeros(0)], [np.zeros(0)]
    for scene, detections in zip(scenes, found, strict=True):
        truth = Truth.of(scene, classes)
        boxes, labels = detections.boxes.cpu(), detections.labels.cpu()
        fit = likeness(boxes, truth.boxes) * (labels[:, None] == truth.labels)
        own = fit.max(1).values if len(truth) else torch.zeros(len(boxes))
        excused = (likeness(boxes, truth.crowd) >= CROWDED).any(1) & (own < CROWDED)
        if scene.exhaustive is not None:
            excused |= ~scene.exhaustive.cpu()[labels] & (own < CROWDED)
        scores.append(detections.scores.cpu()[~excused].double().numpy())
        fits.append(own[~excused].double().numpy())
    score, fit_ = np.concatenate(scores), np.concatenate(fits)
    told = calibration(score, fit_, np.ones(len(score), bool))
    return None if told is None else told["error"]
