"""Any frozen image encoder by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from boresight.core.errors import UserError, did_you_mean
from boresight.features.encoder import FrozenEncoder

FORMS = ("boresight-aerial", "squeezenet", "sam:", "timm:", "clip:", "mobile-sam")
"""What a name is, or begins with."""

LAYERS = (1, 3)
"""Blocks of a CLIP, counted from the end, that are read where none are named."""

_READ = {
    "squeezenet": ("levels", "size"),
    "timm": ("levels", "size"),
    "clip": ("layers", "size", "window"),
    "mobile-sam": ("precision",),
    "sam": ("precision",),
}
"""Kind of encoder to the settings that it reads beside ``weights`` and ``batch``; another that is given is an error."""


def load_encoder(
    name: str,
    weights: str | None = None,
    *,
    levels: Sequence[int] = (),
    layers: Sequence[int] = LAYERS,
    size: int = 0,
    window: int = 0,
    precision: Literal["fp32", "fp16", "bf16"] = "fp32",
    batch: int = 1,
) -> FrozenEncoder:
    """Load and freeze an image encoder. Nothing is ever random: an encoder without weights is an error.

    Args:
        name: ``boresight-aerial`` (comes with the package), ``squeezenet``, ``sam:`` and a hub id or folder of SAM,
            HQ-SAM, SAM 2 or EdgeTAM (such a folder may stand alone), ``timm:`` and a model name, ``clip:`` and any
            name of open_clip, ``mobile-sam``.
        weights: a file; of ``clip:`` also a tag.
        levels: ``squeezenet`` and ``timm:``: 2 is stride 4, 3 is stride 8, and so on; empty: 3 and 4.
        layers: of a CLIP: blocks counted from the end.
        size: of a CLIP the short side, of ``squeezenet`` and ``timm:`` the long side to which images are brought,
            pixels; 0: as they are.
        window: of a CLIP: side of the windows in which an image is read; 0: the whole at once.
        precision: ``sam:`` and ``mobile-sam``: in which the network computes.
        batch: images of one size that are encoded together.

    Raises UserError for a name that is none, for a setting that the encoder does not read, and for what cannot be
    loaded.
    """
    kind, rest = _kind(name)
    if kind == "sam" and weights is not None:
        raise UserError(f"features.weights={weights}: a SAM is named by its folder or hub id alone; leave it out")
    given = {"levels": bool(levels), "layers": tuple(layers) != LAYERS, "size": size != 0, "window": window != 0}
    given["precision"] = precision != "fp32"
    if unread := [key for key, is_given in given.items() if is_given and key not in _READ[kind]]:
        raise UserError(
            f"features.{unread[0]}: features.name={name} does not read it, leave it out;"
            f" it reads {', '.join(_READ[kind])}"
        )
    if kind == "squeezenet":
        from boresight.features.frozen_backbones import SqueezeEncoder

        return SqueezeEncoder(weights, levels or (3, 4), size=size, batch=batch)
    if kind == "clip":
        from boresight.features.clip_load import load_clip
        from boresight.features.frozen_backbones import ClipEncoder

        return ClipEncoder(load_clip(rest, weights), layers, size=size, window=window, batch=batch)
    if kind == "timm":
        from boresight.features.timm_frozen import load_timm

        return load_timm(rest, weights, levels or (3, 4), size=size, batch=batch)
    if kind == "mobile-sam":
        from boresight.features.mobile_sam import load_mobile_sam

        return load_mobile_sam(weights, precision=precision, batch=batch)
    from boresight.features.samhq import load_sam

    return load_sam(rest, precision=precision, batch=batch)


def _kind(name: str) -> tuple[str, str]:
    """Key of ``_READ``, and what the loader of that kind is to be given; UserError for a name that is none."""
    from boresight.features.samhq import sam_folder

    kind, _, rest = name.partition(":")
    if name in ("squeezenet", "mobile-sam") or (kind in ("clip", "timm", "sam") and rest):
        return kind, rest
    if name == "boresight-aerial":
        return "clip", name
    if Path(name).expanduser().is_dir() and sam_folder(name):
        return "sam", name
    near = did_you_mean(name, FORMS) or f"; give {', '.join(f'{f}NAME' if f.endswith(':') else f for f in FORMS)}"
    raise UserError(f"features.name={name}: no encoder{near}")
