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


Tensors = tuple[Tensor, ...] | list[Tensor]
Average = Callable[[Tensors, Tensors, Tensor | int], None]
"""Moves the averaged tensors, in place, towards the current ones; the last argument counts the updates so far."""


def moving_average(decay: float) -> Average:
    """Exponential average that starts short: decay ``min(decay, (1 + t) / (10 + t))`` at update ``t``.

    For ``multi_avg_fn`` of :class:`torch.optim.swa_utils.AveragedModel`.
    """

    @torch.no_grad()
    def update(averaged: Tensors, current: Tensors, count: Tensor | int) -> None:
        weight = 1 - min(decay, (1 + float(count)) / (10 + float(count)))
        torch._foreach_lerp_(averaged, current, weight)

    return update
