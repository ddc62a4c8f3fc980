"""System B: the text-query detector with classification taken out, to tell where its trouble lies.

The frozen encoder stays as it is and no score is learned: the boxes are trained on the channel of the true class, and
judged there. What the channel's own score (the class map) is worth shows when it is asked to choose among the boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from boresight.core.types import DenseOutput, DenseTargets, Scene
from boresight.detectors.text_query import TextQuery, without_scores


class GtClass(TextQuery):
    """Localisation alone; the arguments are those of :class:`TextQuery`, the head learns no score.

    Raises ValueError for a head that learns one.
    """

    def __init__(self, *parts: Any, **more: Any) -> None:
        super().__init__(*parts, **more)
        if getattr(self.head, "score", None) is not None:
            raise ValueError("a head that learns a score cannot judge localisation alone: build it with score=False")
        self.criterion = without_scores(self.criterion)

    def assign(self, output: DenseOutput, scenes: Sequence[Scene]) -> DenseTargets:
        """The cells of the true class's channel that must box each object."""
        return super().assign(output, scenes)
