"""Weights of a CLIP from a file: what is accepted, and one line for what is not."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from boresight.core.errors import UserError

_WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Keys under which training scripts keep the weights beside other things."""

_PREFIXES = ("module.", "_orig_mod.")
"""What data-parallel training and torch.compile put before every name."""

_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")
"""Numbers that OpenAI's files carry among the weights; the architecture knows them."""


_UNREADABLE = (
    *(RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError),
    *(AssertionError, MemoryError, struct.error, zipfile.BadZipFile),
)
"""What torch and safetensors are known to raise for damaged files."""


def is_torchscript(path: Path) -> bool:
    """Whether the file is a TorchScript archive: a zip with code in it, not only tensors."""
    try:
        if not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") or "/code/" in name for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, struct.error, NotImplementedError):
        return False  # damaged: reading it says so


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a file: safetensors, or a pickle of tensors read with ``weights_only=True``.

    A state dict alone, or under ``state_dict``, ``model`` or ``model_state_dict``; a prefix ``module.`` that every name
    has is taken off. Raises UserError, one line that names the file, for anything else.
    """
    if path.is_dir():
        raise UserError(f"weights={path}: a folder; name the file in it")
    if not path.is_file():
        raise UserError(f"weights={path}: no such file")
    held = _read(path)
    for key in _WRAPPERS:
        if isinstance(held, dict) and isinstance(held.get(key), dict):
            held = held[key]
    if not isinstance(held, dict) or not held:
        raise UserError(f"weights={path}: holds {type(held).__name__}, not a state dict (names and tensors)")
    held = {k: v for k, v in held.items() if k not in _NOT_WEIGHTS}
    odd = [k for k, v in held.items() if not isinstance(v, Tensor) or not isinstance(k, str)]
    if odd or not held:
        raise UserError(
            f"weights={path}: no state dict found; it must be the whole file or lie under one of {_WRAPPERS},"
            f" but {odd[0] if odd else 'nothing'!r} is no tensor"
        )
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in held):
            held = {name.removeprefix(prefix): value for name, value in held.items()}
    return held


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, *_UNREADABLE) as error:
            raise UserError(f"weights={path}: damaged or no safetensors file ({_line(error)})") from error
    if is_torchscript(path):
        raise UserError(
            f"weights={path}: a TorchScript archive, which holds a program and not only weights; where you trust it:"
            f" torch.save(torch.jit.load('{path.name}').state_dict(), 'weights.pt'), then give weights.pt"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise UserError(
            f"weights={path}: holds more than tensors, or is no checkpoint; it is read as weights only:"
            " save its state_dict alone (torch.save(model.state_dict(), ...))"
        ) from error
    except _UNREADABLE as error:
        raise UserError(f"weights={path}: cannot be read ({_line(error)})") from error


def check_pickle(path: Path) -> None:
    """Read a file as weights only before a library does that may not insist on it (timm before 2025).

    Raises UserError, one line that names the file, for a pickle that holds more than tensors. Safetensors and numpy
    files cannot.
    """
    if path.suffix not in (".safetensors", ".npz", ".npy"):
        _read(path)


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def fit_weights(model: nn.Module, state: dict[str, Tensor], *, architecture: str, source: str) -> None:
    """Load ``state`` into an open_clip ``model``; names and shapes must be exactly those of the architecture.

    Values of any float type are taken (fp16 files become the model's type). Raises UserError naming both shapes, or the
    first name missing or not known, or a value that is not finite.
    """
    state = _in_open_clip_form(model, state)
    expected = model.state_dict()
    for name, want in expected.items():
        if name in state and state[name].shape != want.shape:
            have = list(state[name].shape)
            raise _misfit(architecture, source, f"`{name}` is {have} in the file and {list(want.shape)} in the model")
    missing = [name for name in expected if name not in state]
    extra = [name for name in state if name not in expected]
    if missing or extra:
        first = f"`{missing[0]}` is missing in the file" if missing else f"`{extra[0]}` in the file is not in the model"
        raise _misfit(architecture, source, f"{first} ({len(missing)} missing, {len(extra)} too many)")
    bad = next((n for n, v in state.items() if v.is_floating_point() and not v.isfinite().all()), None)
    if bad is not None:
        raise UserError(f"weights={source}: `{bad}` holds values that are not finite; the file is of no use")
    model.load_state_dict(state)


def _misfit(architecture: str, source: str, what: str) -> UserError:
    return UserError(f"weights={source} do not fit {architecture}: {what}; name the architecture they were made for")


def _in_open_clip_form(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What open_clip's own loader does to names and scalars, without its silent resizing of positions."""
    from open_clip.model import convert_to_custom_text_state_dict

    state = dict(state)
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = dict(convert_to_custom_text_state_dict(state))
    expected = model.state_dict()
    for name in ("logit_scale", "logit_bias"):  # a scalar in some files, [1] in others
        if name in state and name in expected and state[name].numel() == expected[name].numel() == 1:
            state[name] = state[name].reshape(expected[name].shape)
    old = "text.transformer.embeddings.position_ids"  # written by transformers before 4.31, a constant
    if old not in expected:
        state.pop(old, None)
    return state
