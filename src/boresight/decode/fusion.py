"""From what a network says to the one score that is emitted: how raw scores, class maps and qualities are put together.

Everything is done in logarithms: a product of probabilities is a sum, and its gradient is finite where a factor is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from boresight.core.types import DenseOutput

FusionName = Literal["raw", "product", "geometric", "learned"]

FLOOR = 1e-6
"""A class map of 0 counts as this: its logarithm must stay finite."""


@dataclass(frozen=True)
class Fusion:
    """The emitted score of every class and cell.

    Attributes:
        name: ``raw`` takes the network's score as it is, and so does ``learned`` (the class map entered it inside of
            the network); ``product`` is raw x class map; ``geometric`` is ``raw^(1-w) x map^w`` (Kuo et al. 2023,
            F-VLM, eq. 4: the map is that of a frozen encoder).
        weight: ``w`` of ``geometric``.
        quality: exponent of the predicted quality in the score; 0 leaves it out.
        objectness: whether the score is multiplied by the objectness.
    """

    name: FusionName = "learned"
    weight: float = 0.35
    quality: float = 0.0
    objectness: bool = False

    def log_score(self, output: DenseOutput) -> Tensor:
        """``[B, C, H, W]`` logarithm of the emitted score, float32, at most 0. ValueError where a factor is missing."""
        log_p = F.logsigmoid(output.logits.float())
        if self.name in ("product", "geometric"):
            if output.cam is None:
                raise ValueError(f"fusion `{self.name}` needs a class map, the output has none")
            log_map = output.cam.float().clamp(min=FLOOR).log()
            w = self.weight if self.name == "geometric" else 0.0
            log_p = log_p + log_map if self.name == "product" else (1 - w) * log_p + w * log_map
        if self.objectness:
            if output.objectness is None:
                raise ValueError("the score is to be multiplied by the objectness, the output has none")
            log_p = log_p + F.logsigmoid(output.objectness.float())
        if self.quality:
            if output.quality is None:
                raise ValueError("the quality is to enter the score, the output has none")
            log_p = log_p + self.quality * output.quality.float().clamp(min=FLOOR).log()
        return log_p

    def score(self, output: DenseOutput) -> Tensor:
        """``[B, C, H, W]`` the emitted score in [0, 1]."""
        return self.log_score(output).exp()

    def logit(self, output: DenseOutput) -> Tensor:
        """``[B, C, H, W]`` the logit of the emitted score, for losses that act on what is emitted."""
        if self.name in ("raw", "learned") and not self.objectness and not self.quality:
            return output.logits.float()
        log_p = self.log_score(output)
        return log_p - torch.log(-torch.expm1(log_p.clamp(max=-FLOOR)))
