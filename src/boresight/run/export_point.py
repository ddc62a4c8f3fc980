"""The point-target detector as a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from boresight.core.types import Scene
from boresight.detectors.gaussian_point import GaussianPoint
from boresight.run.config import DecodeSettings
from boresight.run.export_graph import Graph, whole_cells


class PointGraph(Graph):
    """Frames and their brightness to scores and places.

    Args:
        detector: trained, in inference mode.
        decode: how its output is read.
    """

    def __init__(self, detector: GaussianPoint, decode: DecodeSettings) -> None:
        super().__init__()
        self.inputs = {"image": {0: "batch", 2: "height", 3: "width"}, "level": {0: "batch"}, "spread": {0: "batch"}}
        self.outputs = ("logits", "scores", "boxes")
        self.detector, self.decode = detector, decode
        self.stride = float(2 ** int(detector.head.level))  # type: ignore[arg-type]

    def forward(self, image: Tensor, level: Tensor, spread: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``[B, 1, H, W]`` raw frames, their means and deviations ``[B]``, to the maps of all ``h x w`` cells.

        Returns ``logits`` and ``scores`` ``[B, C, h, w]``, and ``boxes`` of size zero ``[B, 1, h, w, 4]``.
        """
        pixels = (image - level[:, None, None, None]) / spread[:, None, None, None]
        output = self.detector.emit(whole_cells(pixels, self.detector.divisor))
        return output.logits, output.logits.sigmoid(), output.boxes[:, :1].contiguous()

    def feed(self, scenes: Sequence[Scene]) -> tuple[Tensor, ...]:
        """See :class:`Graph`."""
        brightness = torch.tensor([(s.level, s.spread) for s in scenes], dtype=torch.float32)
        return torch.stack([s.image.float() for s in scenes]), brightness[:, 0], brightness[:, 1]

    def expected(self, scenes: Sequence[Scene]) -> dict[str, Tensor]:
        """See :class:`Graph`."""
        output = self.detector(scenes)
        return {"scores": output.logits.sigmoid(), "boxes": output.boxes[:, :1]}

    def scale(self, expected: dict[str, Tensor]) -> Tensor:
        """The stride: a place is found within a cell."""
        return torch.full_like(expected["boxes"][..., :1], self.stride)

    def about(self) -> dict[str, Any]:
        """See :class:`Graph`."""
        decode = {"top_k": self.decode.top_k, "refine": self.decode.refine, "window": self.decode.window}
        return {"stride": self.stride, "divisor": self.detector.divisor, "decode": decode}
