"""What a refiner's output comes to: which boxes stand in the end, how sure that is, and how they are scored."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from boresight.core.types import DenseOutput, Detections, Proposals
from boresight.detectors.box_refiner import settled
from boresight.evaluate.refinement import Outcome


@dataclass(frozen=True)
class Tightened:
    """Coarse boxes of one image after refinement, in their order, on the CPU.

    Attributes:
        outcome: the boxes, and which of them were replaced.
        confidence: ``[M]`` in [0, 1] that the refined box is the better one.
    """

    outcome: Outcome
    confidence: Tensor

    def __len__(self) -> int:
        return len(self.confidence)


def tightened(output: DenseOutput, found: Detections, proposals: Proposals, threshold: float) -> Tightened:
    """What a refiner's output for one image comes to."""
    boxes, replaced = settled(proposals, found, threshold)
    moved, confidence = torch.empty_like(boxes), torch.empty(len(boxes))
    moved[found.cell], confidence[found.cell] = found.boxes, found.scores
    start_quality = quality = None
    if output.quality is not None:
        first = (output.coarser or (output,))[0]
        assert first.start_quality is not None
        start_quality, quality = first.start_quality[0, 0, :, 0].cpu(), output.quality[0, 0, :, 0].cpu()
    return Tightened(Outcome(moved, boxes, replaced, start_quality, quality), confidence)


def rescored(scores: Tensor, outcome: Outcome, power: float) -> Tensor:
    """``[M]`` scores of detections after refinement: ``score^(1 - power) x predicted IoU^power``."""
    if outcome.quality is None or outcome.start_quality is None or power == 0:
        return scores.float()
    expected = torch.where(outcome.replaced, outcome.quality, outcome.start_quality)
    return scores.float() ** (1 - power) * expected.clamp(min=0) ** power
