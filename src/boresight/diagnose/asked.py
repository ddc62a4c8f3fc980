"""The detector as the probes of training health see it, and how it is asked without being changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from boresight.core.types import DenseOutput, DenseTargets, Detections, Scene


class Asked(Protocol):
    """A module that emits a dense output, says what it should have been, how far it is from that, and what is found."""

    training: bool

    def __call__(self, scenes: Sequence[Scene], /) -> DenseOutput:
        """Scenes to boxes and logits for every class and cell."""
        ...

    def assign(self, output: DenseOutput, scenes: Sequence[Scene]) -> DenseTargets:
        """What every class and cell should have emitted."""
        ...

    def loss(self, output: DenseOutput, targets: DenseTargets) -> dict[str, Tensor]:
        """Loss terms; their sum is minimised."""
        ...

    def decode(self, output: DenseOutput) -> list[Detections]:
        """What is found in each scene."""
        ...

    def train(self, mode: bool = True) -> Any:
        """Switch between training and inference."""
        ...

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """All its modules with their names."""
        ...

    def buffers(self) -> Iterator[Tensor]:
        """What it holds beside parameters."""
        ...


@contextmanager
def in_mode(detector: Asked, *, training: bool) -> Iterator[None]:
    """Within, the detector is in that mode; afterwards modes and buffers (running statistics) are as they were."""
    before = [(module, module.training) for _, module in detector.named_modules()]
    kept = [buffer.clone() for buffer in detector.buffers()]
    try:
        detector.train(training)
        yield
    finally:
        for module, mode in before:
            module.training = mode
        for buffer, value in zip(detector.buffers(), kept, strict=True):
            buffer.copy_(value)


def total(detector: Asked, output: DenseOutput, targets: DenseTargets) -> Tensor:
    """The loss, a scalar."""
    return torch.stack([term.float() for term in detector.loss(output, targets).values()]).sum()


@torch.no_grad()
def inference_loss(detector: Asked, scenes: Sequence[Scene]) -> float:
    """The loss of a batch in inference mode."""
    with in_mode(detector, training=False):
        output = detector(scenes)
        return float(total(detector, output, detector.assign(output, scenes)))


def perfect_logits(targets: DenseTargets) -> Tensor:
    """Logits that say exactly what the targets ask for; soft labels stay soft."""
    return targets.score.float().clamp(1e-6, 1 - 1e-6).logit()
