"""A timm backbone as a frozen encoder, with all of its weights from a checkpoint or not at all.

What a file lacks would stay random (:mod:`boresight.features.whole_weights`): in features that are kept for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from boresight.core.errors import UserError
from boresight.features.frozen_backbones import TimmEncoder


def load_timm(
    name: str, weights: str | None = None, levels: Sequence[int] = (3, 4), *, size: int = 0, batch: int = 1
) -> TimmEncoder:
    """Load and freeze a timm backbone.

    Args:
        name: a timm model name.
        weights: a file (safetensors, or a weights-only pickle); None: timm's own pretrained weights.
        levels, size, batch: of :class:`~boresight.features.frozen_backbones.TimmEncoder`.

    Raises UserError, one line, for what cannot be used: a name, a file, levels, a checkpoint that lacks a weight of the
    backbone, and a model that takes images of one size only.
    """
    with torch.random.fork_rng(devices=[]):
        encoder = TimmEncoder(name, weights, levels, size=size, batch=batch)
    config: dict[str, Any] = getattr(encoder.module, "pretrained_cfg", None) or {}
    if config.get("fixed_input_size"):
        pixels = "x".join(str(n) for n in config["input_size"][1:])
        raise UserError(
            f"features.name=timm:{name}: it takes images of {pixels} pixels only, and images of all sizes are encoded;"
            " use a convolutional backbone (resnet18, convnext_atto)"
        )
    return encoder
