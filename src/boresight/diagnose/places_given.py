"""Localisation alone: a detector is told where each object lies, and judged by the boxes that it emits there."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from boresight.core.boxes import centerness
from boresight.core.emission import Decoding, Emission, Missing, Source, Supervision
from boresight.core.types import Scene
from boresight.diagnose.truth import Truth


class PlacesGiven:
    """A source whose scores are put aside: in the channel of an object's class its cells speak, the most central first.

    What is asked is whether the cell in the middle of an object boxes it. No prediction enters the answer to *where*
    and *what*, so that a detector without a score of its own (system B) can be audited like any other.

    Args:
        source: the detector; its cells have places, else ValueError at the first image.
        reason: why its own scores are not asked.
    """

    def __init__(self, source: Source, reason: str) -> None:
        self.source, self.reason = source, reason
        self.classes = tuple(source.classes)
        self.decoding: Decoding | None = None if source.decoding is None else replace(source.decoding, threshold=0.0)

    def emit(self, scene: Scene) -> Emission:
        """See :class:`~boresight.core.emission.Source`."""
        emission = self.source.emit(scene).to("cpu")
        scores = central(emission, Truth.of(scene, emission.classes))
        return replace(emission, scores=scores, found=None, given=self.reason)

    def supervise(self, emission: Emission, scene: Scene) -> Supervision | Missing:
        """See :class:`~boresight.core.emission.Source`."""
        return self.source.supervise(emission, scene)


def central(emission: Emission, truth: Truth) -> Tensor:
    """``[C, N]``: how central each cell lies in an object of the class, that of the object's most central cell being 1.

    By centre-ness (FCOS, Tian et al. 2019, eq. 3), which is 0 outside of objects; for an object that holds no cell the
    nearest speaks. Raises ValueError for cells without places.
    """
    holds = truth.holds(emission)
    if holds is None or emission.centres is None:
        raise ValueError("cells have no place: where an object lies cannot be told them")
    scores = torch.zeros(emission.scores.shape)
    if not len(truth) or not emission.cells:
        return scores
    points = emission.centres.float()
    near = centerness(truth.boxes[None].expand(len(points), -1, -1), points[:, None].expand(-1, len(truth), -1))
    near = torch.where(holds, near.clamp(min=1e-3), 0.0)
    near = near / near.max(0).values
    for label in truth.labels.unique().tolist():
        scores[label] = near[:, truth.labels == label].max(1).values
    return scores
