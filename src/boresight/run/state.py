"""The training state of a run on the disk: what accelerate keeps, and beside it parts of ours, read as weights only."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from safetensors import SafetensorError

from boresight.core.errors import UserError

_UNREADABLE = (
    *(OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, EOFError, ArithmeticError),
    *(AssertionError, MemoryError, UnpicklingError, SafetensorError, struct.error, zipfile.BadZipFile),
)
"""What torch, safetensors, accelerate and the optimisers are known to raise for files that are not as they were."""


class Part(Protocol):
    """Something that can be saved beside weights and optimiser."""

    def state_dict(self) -> dict[str, Any]:
        """Numbers, text and tensors by name."""
        ...

    def load_state_dict(self, state: dict[str, Any], /) -> object:
        """Take them up again."""
        ...


def save_parts(folder: Path, parts: Sequence[Part]) -> None:
    """Write the parts into the folder of a state."""
    for i, part in enumerate(parts):
        torch.save(part.state_dict(), _file(folder, i))


def load_state(accelerator: Accelerator, folder: Path, parts: Sequence[Part]) -> None:
    """Continue from the state in a folder. Nothing in it can run code: every pickle is read as weights only.

    That is why the parts are not given to accelerate, which reads what it was given as any pickle.

    Raises UserError that names the folder where a file is missing, damaged, of other settings, or holds more than
    numbers, text and tensors.
    """
    try:
        accelerator.load_state(str(folder))
        for i, part in enumerate(parts):
            part.load_state_dict(torch.load(_file(folder, i), map_location="cpu", weights_only=True))
    except _UNREADABLE as error:
        raise UserError(
            f"{folder}: the training state cannot be read ({str(error).splitlines()[0] if str(error) else error!r}); "
            "remove it to continue from the one before, or to begin anew"
        ) from error


def _file(folder: Path, number: int) -> Path:
    return folder / f"part-{number}.pt"
