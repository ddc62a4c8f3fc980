"""A timm backbone as a frozen encoder, with all of its weights from a checkpoint or not at all.

timm loads a backbone for its features without its classifier, and therefore not strictly: what else a file lacks stays
random, and nobody is told. For features that are kept for ever that is an error.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from boresight.core.errors import UserError
from boresight.features.frozen_backbones import TimmEncoder

_LOCK = threading.Lock()


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
    with torch.random.fork_rng(devices=[]), _loaded_tensors() as loaded:
        encoder = TimmEncoder(name, weights, levels, size=size, batch=batch)
    held = {**dict(encoder.module.named_parameters()), **dict(encoder.module.named_buffers())}
    kept = [k for k in encoder.module.state_dict() if k in held]  # a buffer that no checkpoint keeps is computed
    missing = [k for k in kept if id(held[k]) not in loaded and not k.endswith("num_batches_tracked")]
    if missing:
        source = f"features.weights={weights}" if weights else "its pretrained weights"
        raise UserError(
            f"features.name=timm:{name}: {source}: {len(missing)} of {len(kept)} weights are missing, first"
            f" `{missing[0]}`; they would be random: get a whole checkpoint of this model"
        )
    config: dict[str, Any] = getattr(encoder.module, "pretrained_cfg", None) or {}
    if config.get("fixed_input_size"):
        pixels = "x".join(str(n) for n in config["input_size"][1:])
        raise UserError(
            f"features.name=timm:{name}: it takes images of {pixels} pixels only, and images of all sizes are encoded;"
            " use a convolutional backbone (resnet18, convnext_atto)"
        )
    return encoder


@contextmanager
def _loaded_tensors() -> Iterator[dict[int, Tensor]]:
    """The tensors, by id, that any module took from a state dict in the meantime.

    They are held, so that no other tensor gets the id of one that is gone.
    """
    loaded: dict[int, Tensor] = {}
    usual = nn.Module.load_state_dict

    def watched(self: nn.Module, *args: Any, **more: Any) -> Any:
        result = usual(self, *args, **more)
        found = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        loaded.update({id(v): v for k, v in found.items() if k not in result.missing_keys})
        return result

    with _LOCK:
        nn.Module.load_state_dict = watched  # type: ignore[method-assign]
        try:
            yield loaded
        finally:
            nn.Module.load_state_dict = usual  # type: ignore[method-assign]
