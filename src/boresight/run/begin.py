"""Begins a training from the weights of another run: what has the same name and shape, and means the same, is taken."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from boresight.core.errors import UserError
from boresight.detectors.detector import Detector
from boresight.run.checkpoint import load_checkpoint
from boresight.run.frames import expanded
from boresight.run.recipe import Recipe

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Buffers that are learned; others (queries, calibration) belong to the data and are made anew."""


@dataclass(frozen=True)
class Begun:
    """What a training began from.

    Attributes:
        path: the checkpoint.
        step: steps that its weights were trained for.
        taken: weights that were taken.
        anew: names of those that begin from the seed.
    """

    path: Path
    step: int
    taken: int
    anew: tuple[str, ...]

    def words(self) -> str:
        """For a person."""
        rest = f", {len(self.anew)} begin anew ({', '.join(self.anew[:3])})" if self.anew else ""
        return f"{self.taken} weights are those of {self.path} after {self.step} steps{rest}"

    def to_dict(self) -> dict[str, Any]:
        """For ``environment.json``."""
        return {"path": str(self.path), "step": self.step, "taken": self.taken, "anew": list(self.anew)}


@torch.no_grad()
def begin_from(init: str, kind: Recipe, settings: Any, detector: Detector, classes: tuple[str, ...]) -> Begun:
    """Put the weights of ``init`` (a run folder or a checkpoint) into ``detector``, where they fit.

    A weight is left as the seed made it where the checkpoint has none of its name and shape, and where it belongs to
    classes and those of the checkpoint are others, or in another order.

    Raises:
        UserError: no checkpoint there, or one of another system, or learned on other frozen features, or none fits.
    """
    given = expanded(init, "train.init")
    path = given / "checkpoints" / "last.safetensors" if given.is_dir() else given
    checkpoint = load_checkpoint(path)
    if checkpoint.detector != kind.name:
        raise UserError(f"train.init={path}: a checkpoint of `{checkpoint.detector}`; give one of `{kind.name}`")
    other = [n for n, now in detector.frozen.items() if checkpoint.frozen.get(n, now) != now]
    if other:
        raise UserError(f"train.init={path}: learned on features of another `{other[0]}` encoder; give it the same one")
    own = _of_classes(kind, settings, detector, classes) if checkpoint.classes != classes else set()
    mine = _learned(detector)
    fit = {
        name: value
        for name, value in checkpoint.weights.items()
        if name in mine and value.shape == mine[name].shape and name not in own
    }
    if not fit:
        raise UserError(f"train.init={path}: no weight has the name and shape of one here; give a run of this kind")
    for name, value in fit.items():
        mine[name].copy_(value)
    return Begun(path, checkpoint.step, len(fit), tuple(n for n in mine if n not in fit))


def _learned(detector: Detector) -> dict[str, Tensor]:
    """Parameters, and the statistics of normalisation."""
    buffers = {n: b for n, b in detector.named_buffers() if n.rpartition(".")[2] in STATISTICS}
    return dict(detector.named_parameters()) | buffers


def _of_classes(kind: Recipe, settings: Any, detector: Detector, classes: tuple[str, ...]) -> set[str]:
    """Names of the weights whose shape hangs on the number of classes."""
    state = torch.get_rng_state()
    more = dict(kind.build(settings, (*classes, "another class")).named_parameters())
    torch.set_rng_state(state)
    return {n for n, p in detector.named_parameters() if n in more and more[n].shape != p.shape}
