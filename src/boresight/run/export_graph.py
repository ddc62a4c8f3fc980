"""What an exported detector is made from: a module of plain tensors, and what the export has to know of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from boresight.core.types import Scene

Axes = dict[str, dict[int, str]]
"""Name of an input to its open axes: which one, and what it counts."""


class Graph(nn.Module, ABC):
    """A detector from plain tensors to plain tensors, for images of one size.

    Attributes:
        inputs: names in the order of ``forward``, with the axes that stay open.
        outputs: names in the order of what ``forward`` returns; ``scores`` and ``boxes`` are among them.
    """

    inputs: Axes
    outputs: tuple[str, ...]

    @abstractmethod
    def feed(self, scenes: Sequence[Scene]) -> tuple[Tensor, ...]:
        """The inputs for scenes of one size."""

    @abstractmethod
    def expected(self, scenes: Sequence[Scene]) -> dict[str, Tensor]:
        """What the detector itself emits for them, by name of the output; not every output has to be there."""

    @contextmanager
    def narrowed(self) -> Iterator[None]:
        """Within, ``feed`` and ``expected`` are of fewer queries, where there are any: their number is open as well."""
        yield

    @contextmanager
    def bare(self) -> Iterator[None]:
        """Within, the graph is made: it holds no tensor whose size could be taken for that of an input."""
        yield

    @abstractmethod
    def scale(self, expected: dict[str, Tensor]) -> Tensor:
        """``[..., 1]`` pixels against which differences of ``boxes`` are held."""

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """What a program that runs the graph has to know, as plain JSON."""


def whole_cells(image: Tensor, divisor: int) -> Tensor:
    """``[B, C, H, W]`` padded bottom and right by repeating the edge, to multiples of ``divisor``; sizes stay open."""
    height, width = image.shape[-2:]
    down, right = ((side + divisor - 1) // divisor * divisor - side for side in (height, width))
    return F.pad(image, (0, right, 0, down), mode="replicate")


def longer_side(boxes: Tensor, least: float) -> Tensor:
    """``[..., 1]``: the longer side of each box ``[..., 4]``, but at least ``least`` pixels."""
    return (boxes[..., 2:] - boxes[..., :2]).amax(-1, keepdim=True).clamp(min=least)
