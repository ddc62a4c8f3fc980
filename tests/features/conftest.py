"""Tiny CLIPs of every supported kind, made by open_clip itself, weights drawn from a seed."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
TOWERS = {
    "tok": {"layers": 3, "width": 32, "head_width": 16, "patch_size": 32, "image_size": 224},
    "avg": {"layers": 7, "width": 32, "head_width": 8, "patch_size": 32, "image_size": 96, "pool_type": "avg"},
    "late": {
        "layers": 3,
        "width": 32,
        "head_width": 16,
        "patch_size": 32,
        "image_size": 96,
        "final_ln_after_pool": True,
    },
    "resnet": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 32, "image_size": 64, "patch_size": None},
}


def settings(kind: str, **more) -> dict:
    """An open_clip model configuration."""
    return {"embed_dim": 24, "vision_cfg": {**TOWERS[kind], **more}, "text_cfg": dict(TEXT)}


def open_clip_model(kind: str, *, seed: int = 0, quick: bool = False, **more):
    """An open_clip model with weights large enough for maps that are not flat."""
    from open_clip.model import CLIP

    config = deepcopy(settings(kind, **more))
    torch.manual_seed(seed)
    model = CLIP(**config, quick_gelu=quick)
    with torch.no_grad():
        for name, value in model.visual.named_parameters():
            if name.endswith(("in_proj_weight", "bn3.weight")):
                value.add_(torch.randn_like(value) * 0.3)
            if name.endswith(("bias", "ln_1.weight", "ln_post.weight")):
                value.add_(torch.randn_like(value) * 0.1)
    return model.eval()


@pytest.fixture(scope="session")
def tiny_model():
    """``tiny_model(kind, seed=0, quick=False, **vision settings)``: an open_clip model."""
    return open_clip_model


@pytest.fixture(scope="session")
def tiny_settings():
    """``tiny_settings(kind, **vision settings)``: its configuration."""
    return settings


@pytest.fixture(scope="session")
def tiny_clip():
    """``tiny_clip(kind, seed=0, **vision settings)``: the same, frozen."""
    import open_clip

    from boresight.features.clip import FrozenClip, Preprocess

    def make(kind: str, *, seed: int = 0, **more) -> FrozenClip:
        return FrozenClip(
            open_clip_model(kind, seed=seed, **more),
            tokenizer=open_clip.tokenize,
            preprocess=Preprocess(),
            name=f"tiny-{kind}",
            activation="gelu",
            config=settings(kind, **more),
        )

    return make
