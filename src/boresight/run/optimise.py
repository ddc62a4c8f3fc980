"""What moves the weights: which of them decay, how the rate changes, and the average that is kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from boresight.run.config import TrainSettings


def optimiser_and_rate(model: nn.Module, settings: TrainSettings) -> tuple[AdamW, LambdaLR]:
    """AdamW for the model's parameters, and what sets its learning rate before each step."""
    optimiser = AdamW(parameter_groups(model, settings.weight_decay), lr=settings.learning_rate)
    share = partial(rate_share, steps=settings.steps, warmup=settings.warmup, final=settings.final)
    return optimiser, LambdaLR(optimiser, share)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weights decay; biases and norm scales (one-dimensional) do not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def rate_share(step: int, *, steps: int, warmup: int, final: float) -> float:
    """Share of the largest learning rate at a step: a function of the step alone, so that any run can be continued.

    It rises linearly, ``(step + 1) / warmup``, to 1 at step ``warmup - 1``, and falls from there along half a cosine to
    ``final`` at step ``steps`` (Loshchilov and Hutter, SGDR, equation 5, without restarts).

    Args:
        step: steps already done, from 0.
        steps: of the whole run; later steps stay at ``final``.
        warmup: steps of the rise; 0 starts at 1.
        final: the last share, in [0, 1].

    Returns:
        A share in (0, 1] (0 when ``final`` is).
    """
    if step < warmup:
        return (step + 1) / warmup
    share = (step - warmup) / max(1, steps - warmup)
    return final + (1 - final) * (1 + math.cos(math.pi * min(1.0, share))) / 2


class MovingAverage(AveragedModel):
    """Exponential average of weights that starts short: decay ``min(decay, (1 + t) / (10 + t))`` at update ``t``.

    Buffers are the model's own. The count of updates stays on the CPU: the base class reads it from the GPU, for which
    every step would wait.

    Args:
        model: what is averaged; it is copied.
        decay: the largest share of the average that stays, in [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model)
        self.decay = decay

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> MovingAverage:
        count = self.n_averaged
        super()._apply(fn, recurse)
        self.n_averaged = count
        return self

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Move the average towards the model; the first time it becomes the model."""
        count = int(self.n_averaged)
        stays = min(self.decay, (1 + count) / (10 + count)) if count else 0.0
        averaged: list[Tensor] = list(self.module.parameters())
        current: list[Tensor] = list(model.parameters())
        torch._foreach_lerp_(averaged, current, 1 - stays)
        for mine, theirs in zip(self.module.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)
        self.n_averaged += 1
