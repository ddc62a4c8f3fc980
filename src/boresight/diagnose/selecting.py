"""What a source returns of an output: as it selects, or with a threshold that hides nothing from AP."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch

from boresight.core.emission import Decoding, Emission, Source
from boresight.decode.replay import Selected, select

LOWEST = 0.001
"""The threshold that hides nothing from AP."""
LIMIT = 100
"""Detections an image that COCO's AP looks at."""


@runtime_checkable
class Selects(Protocol):
    """A source whose selection is no suppression of boxes, so that no :class:`Decoding` can describe it."""

    def select(self, emission: Emission) -> Selected:
        """What it returns of an output, which may be another than its own."""
        ...


def chosen(source: Source, emission: Emission, decoding: Decoding | None = None) -> Selected:
    """What reaches suppression, and what becomes of it: replayed, or the detector's own detections alone.

    Raises ValueError where neither is known.
    """
    if isinstance(source, Selects):
        return source.select(emission)
    if source.decoding is not None:
        return select(emission, decoding or source.decoding)
    if emission.found is None:
        raise ValueError(
            "neither `Source.decoding` nor `Emission.found` is given: what the detector returns is unknown"
        )
    f = emission.found
    own = torch.arange(len(f))
    return Selected(f.cell, f.boxes.float(), f.scores.float(), f.labels, torch.ones_like(own, dtype=torch.bool), own)


def opened(decoding: Decoding) -> Decoding:
    """The same with a threshold that hides nothing from AP, and limits that let as many through as AP looks at."""
    return replace(
        decoding,
        threshold=min(decoding.threshold, LOWEST),
        before_nms=decoding.before_nms and max(decoding.before_nms, 10 * LIMIT),
        top_k=decoding.top_k and max(decoding.top_k, LIMIT),
    )
