"""How features are kept: as computed, in half precision, or in eight bits with a measured error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

Storage = Literal["fp32", "fp16", "bf16", "int8"]

STORAGES: tuple[Storage, ...] = ("fp32", "fp16", "bf16", "int8")
_HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}
_LOW, _STEP = ".low", ".step"


def as_stored(key: str, item: Mapping[str, Tensor], storage: Storage) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors as they are kept, and notes that say how to turn them back.

    ``fp16`` and ``bf16`` round floating tensors of 32 bits and more; one with a value that fp16 cannot hold (beyond
    65,504) stays as it is. ``int8`` gives each channel (the third dimension from the end) of floating tensors of three
    dimensions and more its own 256 steps from its lowest to its highest value; others become fp16. Tensors named
    ``extents`` and those that are not floating stay as they are.

    Returns:
        Contiguous tensors on the CPU, and notes: ``storage``, ``dtypes`` (of what was changed) and, for ``int8``,
        ``error``: relative root mean square and largest error of each tensor.

    Raises ValueError for features that are not finite: they would be wrong for ever.
    """
    kept: dict[str, Tensor] = {}
    was: dict[str, str] = {}
    error: dict[str, list[float]] = {}
    for name, value in item.items():
        value = value.detach().cpu().contiguous()
        if value.is_floating_point() and not _finite(value):
            raise ValueError(f"features of {key} are not finite (`{name}`): they are not kept; check the encoder")
        parts = {name: value}
        if storage != "fp32" and name != "extents" and value.is_floating_point() and value.numel():
            parts = _smaller(name, value, storage)
        kept |= parts
        if parts[name].dtype != value.dtype:
            was[name] = str(value.dtype).removeprefix("torch.")
        if len(parts) > 1:
            error[name] = _error(value, _from_steps(parts, name, value.dtype))
    if len(kept) != len(item) + 2 * len(error):
        raise ValueError(f"names of tensors of {key} that end in `{_LOW}` or `{_STEP}` are in the way: {sorted(item)}")
    notes = {"storage": storage, "dtypes": json.dumps(was, separators=(",", ":"))}
    return kept, notes | ({"error": json.dumps(error)} if error else {})


def restored(kept: Mapping[str, Tensor], notes: Mapping[str, str], *, half: bool = False) -> dict[str, Tensor]:
    """Inverse of :func:`as_stored`; ``half`` leaves half precision as it is, to save the time of turning it back."""
    was = _dtypes(notes.get("dtypes", "{}"))
    if not was:
        return dict(kept)
    out: dict[str, Tensor] = {}
    steps = {name for name in was if kept[name].dtype == torch.uint8}
    companions = {name + end for name in steps for end in (_LOW, _STEP)}
    for name, value in kept.items():
        if name in companions:
            continue
        if name not in was:
            out[name] = value
        elif name in steps:
            out[name] = _from_steps(kept, name, getattr(torch, was[name]))
        else:
            out[name] = value if half else value.to(getattr(torch, was[name]))
    return out


@lru_cache(maxsize=64)
def _dtypes(text: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(text)
    return found


def _smaller(name: str, value: Tensor, storage: Storage) -> dict[str, Tensor]:
    """A floating tensor in fewer bits, unless it has too few already or would not be finite in them."""
    if storage == "int8" and value.ndim >= 3:
        parts = _in_steps(name, value)
        return parts if _finite(_from_steps(parts, name, value.dtype)) else {name: value}
    half = value.to(_HALF.get(storage, torch.float16))
    return {name: half if value.element_size() > 2 and _finite(half) else value}


def _finite(value: Tensor) -> bool:
    """Whether all values are finite. So is their sum then, but for overflow; it is found in a tenth of the time."""
    return bool(value.sum().isfinite()) or bool(value.isfinite().all())


def _in_steps(name: str, value: Tensor) -> dict[str, Tensor]:
    value = value.float()
    low = value.amin((-2, -1), keepdim=True)
    step = (value.amax((-2, -1), keepdim=True) - low) / 255
    step = torch.where(step > 0, step, torch.ones_like(step))
    code = ((value - low) / step).round().clamp(0, 255).to(torch.uint8)
    return {name: code, name + _LOW: low.contiguous(), name + _STEP: step.contiguous()}


def _from_steps(kept: Mapping[str, Tensor], name: str, dtype: torch.dtype) -> Tensor:
    return (kept[name].float() * kept[name + _STEP] + kept[name + _LOW]).to(dtype)


def _error(value: Tensor, back: Tensor) -> list[float]:
    gap = (back - value).double()
    scale = float(value.double().square().mean().sqrt())
    return [float(gap.square().mean().sqrt()) / scale if scale else 0.0, float(gap.abs().max())]
