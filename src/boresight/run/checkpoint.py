"""Weights for use: one safetensors file with what is needed to rebuild the detector and apply it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from boresight.core.errors import UserError, did_you_mean
from boresight.detectors.detector import Detector
from boresight.run.record import write_atomic

FORMAT = "boresight-weights-1"


@dataclass(frozen=True)
class Checkpoint:
    """Weights and what goes with them.

    Attributes:
        weights: parameters and buffers by name.
        detector: the recipe's name.
        settings: resolved settings, nested.
        classes: class names.
        threshold: operating point chosen on the validation frames.
        step: optimiser steps done.
        figures: what the validation frames said.
        frozen: hash of every frozen encoder that the weights were trained on, by name; they are not kept here.
    """

    weights: dict[str, Tensor]
    detector: str
    settings: dict[str, Any]
    classes: tuple[str, ...]
    threshold: float
    step: int
    figures: dict[str, float | None]
    frozen: dict[str, str] = field(default_factory=dict)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write atomically. The metadata lies in the file's header and can be read without the weights."""
    from safetensors.torch import save

    fields = ("detector", "settings", "classes", "threshold", "step", "figures", "frozen")
    about = {name: getattr(checkpoint, name) for name in fields}
    weights = {k: v.detach().cpu().contiguous() for k, v in checkpoint.weights.items()}
    metadata = {"format": FORMAT, "boresight": json.dumps(about)}

    def write(partial: Path) -> None:
        # not `save_file`: its errors are no OSError, and the file could be read by its owner alone
        partial.write_bytes(save(weights, metadata=metadata))

    write_atomic(path, write)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; UserError names the file when it is missing, damaged or not ours."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; the run has saved none yet: continue it with --resume")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError, OverflowError, MemoryError) as error:
        raise UserError(f"{path}: damaged or not a safetensors file ({error}); use another checkpoint") from error
    if metadata.get("format") != FORMAT:
        raise UserError(
            f"{path}: not a checkpoint of this program (format {metadata.get('format')!r}, want {FORMAT!r})"
        )
    try:
        about = json.loads(metadata["boresight"])
        checkpoint = Checkpoint(weights=weights, **about | {"classes": tuple(about["classes"])})
        _check_kinds(checkpoint)
        return checkpoint
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UserError(f"{path}: its header cannot be understood ({error}); use another checkpoint") from error


def _check_kinds(checkpoint: Checkpoint) -> None:
    """Raise TypeError or ValueError for an attribute that is not of its kind: JSON holds anything under any name."""
    kinds = {"detector": str, "settings": dict, "threshold": (int, float), "step": int, "figures": dict, "frozen": dict}
    for name, kind in kinds.items():
        if not isinstance(getattr(checkpoint, name), kind):  # type: ignore[arg-type]
            raise TypeError(f"`{name}` is {getattr(checkpoint, name)!r}")
    if not all(isinstance(name, str) for name in checkpoint.classes):
        raise TypeError(f"`classes` are {checkpoint.classes!r}")
    if not math.isfinite(checkpoint.threshold):
        raise ValueError(f"`threshold` is {checkpoint.threshold}")


def check_frozen(detector: Detector, checkpoint: Checkpoint, path: Path) -> None:
    """UserError when a frozen encoder is not the one that the weights were trained on."""
    for name, have in detector.frozen.items():
        want = checkpoint.frozen.get(name)
        if want != have:
            raise UserError(
                f"{path}: trained on the frozen encoder `{name}` with hash {str(want)[:12]}, this one has {have[:12]}: "
                f"set {name}.name and {name}.weights to the encoder it was trained on"
            )


def load_weights(model: nn.Module, checkpoint: Checkpoint, *, path: Path, detector: str) -> None:
    """Put the weights into ``model``.

    Raises:
        UserError: the checkpoint is of another detector, or a name or shape does not fit; the first misfit is shown.
    """
    if checkpoint.detector != detector:
        raise UserError(
            f"{path}: a checkpoint of detector `{checkpoint.detector}`, not of `{detector}`; give a run of that kind"
        )
    have, want = checkpoint.weights, model.state_dict()
    for name in want:
        if name not in have:
            raise UserError(f"{path}: weight `{name}` is missing{did_you_mean(name, have)}: made with other settings")
        if have[name].shape != want[name].shape:
            shapes = f"{list(have[name].shape)}, the settings ask for {list(want[name].shape)}"
            raise UserError(f"{path}: weight `{name}` has shape {shapes}: made with other settings")
    if extra := [name for name in have if name not in want]:
        raise UserError(f"{path}: weight `{extra[0]}` has no place in the detector: made with other settings")
    model.load_state_dict(have)
