"""Truths and detections of many images, one after the other: the door through which tensors come in.

All images of a data set are matched in one call: image and label together make the *group* of a point, and points
match only within their group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from boresight.core.types import Detections, Points
from boresight.evaluate.match import PointMatch, match_points
from boresight.evaluate.pairs import Bools, Floats, Ints


@dataclass(frozen=True, slots=True)
class PointSet:
    """The truths and detections of many images, one after the other (numpy; the door to the evaluators).

    Attributes:
        images: number of images, those without truth and detections included.
        truth_xy, found_xy: ``[T, 2]`` and ``[D, 2]`` float64, pixel frame.
        truth_image, found_image: the image of each, from 0.
        truth_group, found_group: image and label in one number; points match within it alone.
        dont_care: ``[T]`` bool.
        snr: ``[T]`` float64, NaN where unknown.
        scores: ``[D]`` in the precision they came in, so that a float32 score of 0.9 passes a threshold of 0.9.
        cell: ``[D]`` the emitting cell, -1 where unknown.
    """

    images: int
    truth_xy: Floats
    truth_image: Ints
    truth_group: Ints
    dont_care: Bools
    snr: Floats
    found_xy: Floats
    found_image: Ints
    found_group: Ints
    scores: Floats
    cell: Ints

    @classmethod
    def of(cls, truth: Sequence[Points], found: Sequence[Detections]) -> PointSet:
        """Gather the images. Raises ``ValueError`` on unequal lengths, coordinates or scores that are not finite."""
        if len(truth) != len(found):
            raise ValueError(f"truth holds {len(truth)} images and found {len(found)}: they must be the same images")
        labels = [_numpy([x.labels for x in side], np.int64) for side in (truth, found)]
        image = [np.repeat(np.arange(len(truth)), [len(x) for x in side]) for side in (truth, found)]
        span = 1 + max((int(x.max()) for x in labels if len(x)), default=0)
        unknown = [torch.full((len(p),), torch.nan) if p.snr is None else p.snr for p in truth]
        made = cls(
            images=len(truth),
            truth_xy=_numpy([p.xy for p in truth], np.float64).reshape(-1, 2),
            truth_image=image[0],
            truth_group=image[0] * span + labels[0],
            dont_care=_numpy([p.ignore for p in truth], np.bool_),
            snr=_numpy(unknown, np.float64),
            found_xy=_numpy([d.xy for d in found], np.float64).reshape(-1, 2),
            found_image=image[1],
            found_group=image[1] * span + labels[1],
            scores=_numpy([d.scores for d in found]),
            cell=_numpy([d.cell for d in found], np.int64),
        )
        for name in ("truth_xy", "found_xy", "scores"):
            if not np.isfinite(getattr(made, name)).all():
                raise ValueError(f"{name} holds values that are not finite")
        return made

    def match(self, tolerance: float) -> PointMatch:
        """Match all detections, whatever their score."""
        groups = {"truth_labels": self.truth_group, "found_labels": self.found_group}
        return match_points(self.truth_xy, self.found_xy, tolerance, dont_care=self.dont_care, **groups)

    def above(self, threshold: float) -> PointSet:
        """The set with the detections of ``score >= threshold`` alone."""
        keep = self.scores >= threshold
        parts = (
            self.found_xy[keep],
            self.found_image[keep],
            self.found_group[keep],
            self.scores[keep],
            self.cell[keep],
        )
        return PointSet(
            self.images, self.truth_xy, self.truth_image, self.truth_group, self.dont_care, self.snr, *parts
        )


def _numpy(tensors: Sequence[torch.Tensor], dtype: type | None = None) -> NDArray[Any]:
    parts = [t.detach().cpu() for t in tensors]
    half = (torch.bfloat16, torch.float16)
    arrays = [(t.float() if t.dtype in half else t).numpy() for t in parts]
    joined = np.concatenate(arrays) if arrays else np.zeros(0, np.float32)
    return joined if dtype is None else joined.astype(dtype)
