"""MobileSAM (Zhang et al. 2023): SAM's embedding from a TinyViT, 16 times cheaper than its ViT-H.

Its encoder is timm's ``tiny_vit_5m_224`` whose last stage does not go down a stride, under SAM's neck; the names of its
checkpoints are brought into timm's form here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from boresight.core.errors import UserError
from boresight.features.clip_weights import read_weights
from boresight.features.frozen_backbones import library_version
from boresight.features.sam_square import DTYPES, MEAN, STD, Precision, SquareEncoder

VERSION = 1
"""Raised when the code here computes other features from the same weights."""

_OUTPUTS = 256
"""Channels of SAM's embedding."""

_NOT_USED = ("head.", "norm_head.")
"""The classifier that TinyViT was first trained with; MobileSAM's files still carry it."""


class MobileSamNet(nn.Module):
    """TinyViT 5M to stride 16, and the neck that brings it into the space of SAM's embedding."""

    def __init__(self) -> None:
        super().__init__()
        import timm  # six seconds to import: only who asks for it pays
        from timm.layers import LayerNorm2d

        body = timm.create_model("tiny_vit_5m_224", pretrained=False, num_classes=0)
        body.stages[3].downsample.conv2.conv.stride = (1, 1)
        self.patch_embed, self.stages = body.patch_embed, body.stages
        self.neck = nn.Sequential(
            nn.Conv2d(body.num_features, _OUTPUTS, 1, bias=False),
            LayerNorm2d(_OUTPUTS, eps=1e-6),
            nn.Conv2d(_OUTPUTS, _OUTPUTS, 3, padding=1, bias=False),
            LayerNorm2d(_OUTPUTS, eps=1e-6),
        )

    def forward(self, square: Tensor) -> Tensor:
        """``[B, 3, side, side]`` to ``[B, 256, side / 16, side / 16]``."""
        found: Tensor = self.neck(self.stages(self.patch_embed(square)))
        return found


class MobileSamEncoder(SquareEncoder):
    """MobileSAM's image encoder: one level, SAM's embedding, at stride 16 of the square.

    Args:
        net: with its weights.
        name: as the user gave it.
        side: of the square; MobileSAM was trained at 1024.
        precision: in which the network computes.
        batch: images of one size that are encoded together.
    """

    def __init__(
        self, net: MobileSamNet, *, name: str, side: int = 1024, precision: Precision = "fp32", batch: int = 1
    ) -> None:
        import timm

        self.side, self.precision = side, precision
        about: dict[str, Any] = {"timm": library_version(timm), "precision": precision, "side": side}
        about |= {"mean": list(MEAN), "std": list(STD), "version": VERSION}
        super().__init__(
            net.to(DTYPES[precision]), name=name, about=about, channels=[_OUTPUTS], strides=[16.0], batch=batch
        )

    def encoded(self, square: Tensor) -> list[Tensor]:
        """See :class:`~boresight.features.sam_square.SquareEncoder`."""
        return [self.module(square)]


def load_mobile_sam(
    weights: str | None, *, side: int = 1024, precision: Precision = "fp32", batch: int = 1
) -> MobileSamEncoder:
    """Load and freeze MobileSAM.

    Args:
        weights: its checkpoint (``mobile_sam.pt``), read as weights only; or that of its image encoder alone.
        side, precision, batch: of :class:`MobileSamEncoder`.

    Raises UserError, one line, for a file that cannot be read or is not MobileSAM's.
    """
    if weights is None:
        raise UserError("features.name=mobile-sam: its features would be random; give features.weights=mobile_sam.pt")
    try:
        held = read_weights(Path(weights).expanduser())
    except UserError as error:
        raise UserError(f"features.{error}") from error
    state = in_timm_form(held)
    with torch.random.fork_rng(devices=[]):  # what is trained later does not depend on which encoder was loaded
        net = MobileSamNet()
    _check(state, net, weights)
    net.load_state_dict(state)
    return MobileSamEncoder(net, name="mobile-sam", side=side, precision=precision, batch=batch)


def in_timm_form(held: dict[str, Tensor]) -> dict[str, Tensor]:
    """The image encoder's weights under timm's names.

    In MobileSAM's files a stage ends with the step down to the next one, in timm a stage begins with it.
    """
    prefix = "image_encoder." if any(name.startswith("image_encoder.") for name in held) else ""
    state = {}
    for name, value in held.items():
        short = name.removeprefix(prefix)
        if not name.startswith(prefix) or short.startswith(_NOT_USED) or short.endswith("attention_bias_idxs"):
            continue
        state[_timm_name(short)] = value
    return state


def _timm_name(name: str) -> str:
    parts = name.split(".")
    if parts[:2] == ["patch_embed", "seq"] and len(parts) > 2:
        parts[1:3] = [{"0": "conv1", "2": "conv2"}.get(parts[2], parts[2])]
    if parts[0] == "layers" and len(parts) > 2:
        parts[0] = "stages"
        if parts[2] == "downsample" and parts[1].isdigit():
            parts[1] = str(int(parts[1]) + 1)
    if len(parts) > 2 and parts[0] != "neck":
        parts[-2] = {"c": "conv", "bn": "bn"}.get(parts[-2], parts[-2])
    return ".".join(parts)


def _check(state: dict[str, Tensor], net: MobileSamNet, file: str) -> None:
    """UserError for the first weight that is missing, of another shape, or of another network."""
    want = net.state_dict()
    where = f"features.weights={file}"
    if missing := [name for name in want if name not in state]:
        raise UserError(f"{where}: no MobileSAM checkpoint, {len(missing)} weights are missing, first `{missing[0]}`")
    if extra := [name for name in state if name not in want]:
        raise UserError(
            f"{where}: no MobileSAM checkpoint, its image encoder has `{extra[0]}`, which MobileSAM has not"
        )
    for name, value in want.items():
        if state[name].shape != value.shape:
            shapes = f"{list(state[name].shape)}, MobileSAM has {list(value.shape)}"
            raise UserError(f"{where}: weight `{name}` has shape {shapes}: weights of another network")
