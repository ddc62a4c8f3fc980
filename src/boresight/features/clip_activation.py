"""GELU or QuickGELU: which of the two a CLIP was trained with, and how much it matters.

The weights of both kinds have the same names and shapes: a wrong choice gives no error, only somewhat worse features.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _feed_forward(model: nn.Module) -> list[Any]:
    """The feed-forward parts of all transformer blocks of an open_clip model, in both towers."""
    from open_clip.transformer import CustomResidualAttentionBlock, ResidualAttentionBlock

    return [m.mlp for m in model.modules() if isinstance(m, ResidualAttentionBlock | CustomResidualAttentionBlock)]


@contextmanager
def _with(model: nn.Module, quick: bool) -> Iterator[None]:
    """The model with the given activation; as it was afterwards."""
    from open_clip.transformer import QuickGELU

    parts = _feed_forward(model)
    before = [part.gelu for part in parts]
    try:
        for part in parts:
            part.gelu = QuickGELU() if quick else nn.GELU()
        yield
    finally:
        for part, activation in zip(parts, before, strict=True):
            part.gelu = activation


def _probe(size: tuple[int, int]) -> Tensor:
    """One smooth picture with noise, the same every time, normalised pixels ``[1, 3, H, W]``."""
    y = torch.linspace(-1.5, 1.5, size[0])[:, None]
    x = torch.linspace(-1.5, 1.5, size[1])[None]
    picture = torch.stack((x + 0 * y, y + 0 * x, torch.sin(3 * x) * torch.cos(3 * y)))
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    return (picture + 0.3 * noise)[None]


@torch.no_grad()
def activation_difference(model: Any, tokens: Tensor) -> tuple[float, float]:
    """How far the choice moves the embeddings: ``|e_gelu - e_quickgelu|`` of unit vectors, in [0, 2].

    Args:
        model: an open_clip model in eval mode.
        tokens: ``[T, L]`` tokenised texts.

    Returns:
        The distance for one fixed picture, and the mean distance for the texts. A ResNet tower has no such activation:
        its picture gives 0.
    """
    size = model.visual.image_size
    picture = _probe(tuple(size) if isinstance(size, list | tuple) else (size, size))
    found = []
    for quick in (False, True):
        with _with(model, quick):
            image = F.normalize(model.encode_image(picture), dim=-1)
            text = F.normalize(model.encode_text(tokens), dim=-1)
        found.append((image, text))
    (image_a, text_a), (image_b, text_b) = found
    return float((image_a - image_b).norm(dim=-1).mean()), float((text_a - text_b).norm(dim=-1).mean())
