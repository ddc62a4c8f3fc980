"""Any frozen image encoder by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from boresight.core.errors import UserError, did_you_mean
from boresight.features.encoder import FrozenEncoder

FORMS = ("boresight-aerial", "squeezenet", "sam:", "timm:", "clip:")
"""What a name is, or begins with."""


def load_encoder(
    name: str,
    weights: str | None = None,
    *,
    levels: Sequence[int] = (),
    layers: Sequence[int] = (1, 3),
    size: int = 0,
    window: int = 0,
    precision: Literal["fp32", "fp16", "bf16"] = "fp32",
    batch: int = 1,
) -> FrozenEncoder:
    """Load and freeze an image encoder. Nothing is ever random: an encoder without weights is an error.

    Args:
        name: ``boresight-aerial`` (comes with the package), ``squeezenet``, ``sam:`` and a hub id or folder of SAM,
            HQ-SAM or SAM 2 (such a folder may stand alone), ``timm:`` and a model name, ``clip:`` and any name of
            open_clip.
        weights: a file; of ``clip:`` also a tag.
        levels: ``squeezenet`` and ``timm:``: 2 is stride 4, 3 is stride 8, and so on; empty: 3 and 4.
        layers: of a CLIP: blocks counted from the end.
        size: of a CLIP the short side, of ``squeezenet`` and ``timm:`` the long side to which images are brought,
            pixels; 0: as they are.
        window: of a CLIP: side of the windows in which an image is read; 0: the whole at once.
        precision: ``sam:``: in which the network computes.
        batch: images of one size that are encoded together.

    Raises UserError for a name that is none, and for what cannot be loaded.
    """
    kind, _, rest = name.partition(":")
    if name == "squeezenet":
        from boresight.features.frozen_backbones import SqueezeEncoder

        return SqueezeEncoder(weights, levels or (3, 4), size=size, batch=batch)
    if name == "boresight-aerial" or (kind == "clip" and rest):
        from boresight.features.clip_load import load_clip
        from boresight.features.frozen_backbones import ClipEncoder

        return ClipEncoder(load_clip(rest or name, weights), layers, size=size, window=window, batch=batch)
    if kind == "timm" and rest:
        from boresight.features.frozen_backbones import TimmEncoder

        return TimmEncoder(rest, weights, levels or (3, 4), size=size, batch=batch)
    from boresight.features.samhq import load_sam, sam_folder

    if (kind == "sam" and rest) or (Path(name).is_dir() and sam_folder(name)):
        if weights is not None:
            raise UserError(f"features.weights={weights}: a SAM is named by its folder or hub id alone; leave it out")
        return load_sam(rest if kind == "sam" and rest else name, precision=precision, batch=batch)
    near = did_you_mean(name, FORMS) or f"; give {', '.join(f'{f}NAME' if f.endswith(':') else f for f in FORMS)}"
    raise UserError(f"features.name={name}: no encoder{near}")
