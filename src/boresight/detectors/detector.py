"""The contract that every detector answers, and that the training loop, evaluators and diagnosis rely on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from boresight.core.types import DenseOutput, DenseTargets, Detections, Scene
from boresight.features.feature_store import FeatureStore, Named


class Scenes(Protocol):
    """Scenes by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Scene: ...


class Detector(nn.Module, ABC):
    """A dense detector: what it emits and what it is trained to emit have the same shape and can be compared.

    The output of :meth:`forward` has one type in training and inference. Every detection of :meth:`decode` names the
    cell that emitted it, and :meth:`assign` says what that cell was trained to say.
    """

    progress: float = 0.0
    """How much of the training is done, in [0, 1]; schedules depend on it. The loop sets it before every step."""

    @property
    def frozen(self) -> dict[str, str]:
        """Hash of every frozen encoder by name; checkpoints record it instead of the encoder's weights."""
        return {}

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a person should know before the training starts, a sentence each, with its remedy."""
        return ()

    @property
    def store(self) -> FeatureStore | None:
        """Where frozen features come from; the loop counts what is found there."""
        return None

    def stored_and_fresh(self, scene: Scene) -> tuple[Named, Named] | None:
        """Frozen features of an image as the store gives them and as the encoder makes them now; None: has none."""
        return None

    def prepare(self, scenes: Scenes) -> None:
        """Look at training scenes before the first step, to set what is measured and not learned."""

    @abstractmethod
    def forward(self, scenes: Sequence[Scene]) -> DenseOutput:
        """Emit boxes and scores for every class and cell of B scenes, which may differ in size."""

    @abstractmethod
    def assign(self, output: DenseOutput, scenes: Sequence[Scene]) -> DenseTargets:
        """Say what every class and cell of ``output`` should have emitted. Raises ValueError without truth.

        The scenes may stay on the CPU while the output lies on a GPU: what depends on the truth alone is worked out
        there, so that nothing has to wait for the GPU.
        """

    @abstractmethod
    def loss(self, output: DenseOutput, targets: DenseTargets) -> dict[str, Tensor]:
        """Weighted, dimensionless loss terms by name, each a scalar; their sum is minimised."""

    @abstractmethod
    def decode(self, output: DenseOutput) -> list[Detections]:
        """What is found in each scene, best first, before any threshold."""
