"""How a model that is not ours is used: it is left as it was, and its labels are told from ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from boresight.core.errors import UserError

PROTOCOL = "give it `emit` and `supervise`: boresight.core.emission.Source, docs/diagnose-any-detector.md"
"""What to do with a model that has no adapter."""


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Inference without gradients, after which every module has its mode and torch its random state again."""
    modes = [(module, module.training) for module in model.modules()]
    devices = {p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"}
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=sorted(devices)):
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def above(threshold: float) -> float:
    """The least float32 over ``threshold``: for detectors that want scores over it, where a Decoding says at least."""
    return float(torch.nextafter(torch.tensor(threshold, dtype=torch.float32), torch.tensor(torch.inf)))


def labels_of(
    classes: Sequence[str], labels: Sequence[int] | None, channels: int, *, starts: Sequence[int], owner: str
) -> list[int]:
    """Which of its labels a model has for each of the classes.

    Args:
        classes: names, in the order of ``Scene.labels``.
        labels: the model's label of each; None: they follow each other from one of ``starts`` to its last label.
        channels: labels that the model knows, from 0.
        starts: labels that can be the first of an object (1 where 0 can be the background).
        owner: the model, as errors call it.

    Raises UserError where they do not fit, with the numbers.
    """
    if not classes:
        raise UserError(f"{owner}: classes is empty; give the names of the classes, in the order of Scene.labels")
    if labels is None:
        fits = [s for s in starts if channels - s == len(classes)]
        if not fits:
            raise UserError(
                f"{owner} knows labels {min(starts)}..{channels - 1} and {len(classes)} classes are named: "
                "give labels=, its label of each class"
            )
        return list(range(fits[0], channels))
    given = [int(k) for k in labels]
    if len(given) != len(classes) or len(set(given)) != len(given):
        raise UserError(f"{owner}: labels must be {len(classes)} different numbers, one a class, got {given}")
    if not min(starts) <= min(given) <= max(given) < channels:
        raise UserError(f"{owner} knows labels {min(starts)}..{channels - 1}, got labels={given}")
    return given
