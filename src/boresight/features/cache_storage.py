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
    65,504) stays as it is. ``int8`` gives each channel (the third dimension from the end) of such tensors its own scale
    of 256 steps from its lowest to its highest value, where there are at least three dimensions; others become fp16.
    Tensors named ``extents`` and those that are not floating stay as they are.

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
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ValueError(f"features of {key} are not finite (`{name}`): they are not kept; check the encoder")
        if storage == "fp32" or name == "extents" or not value.is_floating_point() or value.element_size() < 4:
            kept[name] = value
            continue
        if storage == "int8" and value.ndim >= 3:
            kept |= _in_steps(name, value)
            error[name] = _error(value, _from_steps(kept, name, value.dtype))
        else:
            half = value.to(_HALF.get(storage, torch.float16))
            kept[name] = half if bool(half.isfinite().all()) else value
        if kept[name].dtype != value.dtype:
            was[name] = str(value.dtype).removeprefix("torch.")
    notes = {"storage": storage, "dtypes": json.dumps(was, separators=(",", ":"))}
    return kept, notes | ({"error": json.dumps(error)} if error else {})


def restored(kept: Mapping[str, Tensor], notes: Mapping[str, str], *, half: bool = False) -> dict[str, Tensor]:
    """Inverse of :func:`as_stored`; ``half`` leaves half precision as it is, to save the time of turning it back."""
    was = _dtypes(notes.get("dtypes", "{}"))
    if not was:
        return dict(kept)
    out: dict[str, Tensor] = {}
    for name, value in kept.items():
        if name.endswith((_LOW, _STEP)):
            continue
        if name not in was:
            out[name] = value
        elif name + _STEP in kept:
            out[name] = _from_steps(kept, name, getattr(torch, was[name]))
        else:
            out[name] = value if half else value.to(getattr(torch, was[name]))
    return out


@lru_cache(maxsize=64)
def _dtypes(text: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(text)
    return found


def _in_steps(name: str, value: Tensor) -> dict[str, Tensor]:
    low = value.amin((-2, -1), keepdim=True)
    step = (value.amax((-2, -1), keepdim=True) - low) / 255
    step = torch.where(step > 0, step, torch.ones_like(step))
    code = ((value - low) / step).round().clamp(0, 255).to(torch.uint8)
    return {name: code, name + _LOW: low.float().contiguous(), name + _STEP: step.float().contiguous()}


def _from_steps(kept: Mapping[str, Tensor], name: str, dtype: torch.dtype) -> Tensor:
    return (kept[name].float() * kept[name + _STEP] + kept[name + _LOW]).to(dtype)


def _error(value: Tensor, back: Tensor) -> list[float]:
    gap = (back - value).double()
    scale = float(value.double().square().mean().sqrt())
    return [float(gap.square().mean().sqrt()) / scale if scale else 0.0, float(gap.abs().max())]
