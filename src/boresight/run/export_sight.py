"""What a refiner sees of a batch of images of one size, with all numbers left open: for its graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from boresight.features.roi import DEEPEST, SAMPLES
from boresight.heads.refiner import Trunk

Level = tuple[Tensor, Any, Any]
"""Maps ``[B, D, h, w]`` and the height and the width in pixels that they cover."""


@dataclass(frozen=True)
class OpenSight:
    """:class:`boresight.detectors.box_looks.Sight` of boxes that name their image, for maps that are one tensor.

    Attributes:
        image: ``[B, 3, H, W]`` in 0..255.
        maps: frozen features, from fine to coarse; empty: none are read.
        boxes, labels: ``[N, 4]`` and ``[N]`` of all images.
        owner: ``[N]`` long, the image of each.
    """

    image: Tensor
    maps: list[Level]
    boxes: Tensor
    labels: Tensor
    owner: Tensor

    @property
    def turns(self) -> Tensor:
        """All upright."""
        return torch.zeros_like(self.owner)

    @property
    def limits(self) -> Tensor:
        """``[N, 4]`` the far corner of the images, twice."""
        zero = torch.zeros_like(self.boxes[:, 0])
        height, width = self.image.shape[-2:]
        return torch.stack((zero + width, zero + height), dim=-1).repeat(1, 2)

    def reduced(self, trunk: Trunk) -> list[Level]:
        """Maps with the channels that a head reads."""
        few = trunk.reduced_batch([level for level, _, _ in self.maps])
        return [(level, height, width) for level, (_, height, width) in zip(few, self.maps, strict=True)]

    def pooled(self, maps: Sequence[Level], windows: Tensor, grid: int) -> list[Tensor]:
        """Every level inside of the windows ``[N, 4]``: ``[N, D, grid, grid]``."""
        return [self._read(level, windows, grid, height, width) for level, height, width in maps]

    def patches(self, windows: Tensor, grid: int) -> Tensor:
        """The pixels inside of the windows: each read off the reduced image that its size asks for."""
        step = (windows[:, 2:] - windows[:, :2]).amax(1) / grid
        depth = step.clamp(min=1).log2().floor().clamp(max=DEEPEST)
        level, out = self.image.float() / 127.5 - 1, None
        for k in range(DEEPEST + 1):
            if k:
                level = _halved(level)
            height, width = level.shape[2] * 2**k, level.shape[3] * 2**k
            seen = self._read(level, windows, grid, height, width)
            out = seen if out is None else torch.where((depth == k)[:, None, None, None], seen, out)
        assert out is not None
        return out

    def _read(self, level: Tensor, windows: Tensor, grid: int, height: Any, width: Any) -> Tensor:
        rows, columns = level.shape[-2:]
        x, y = windows[:, 0::2] * columns / width, windows[:, 1::2] * rows / height
        regions = torch.stack((self.owner.to(x.dtype), x[:, 0], y[:, 0], x[:, 1], y[:, 1]), dim=-1)
        return roi_align(level.float(), regions, grid, sampling_ratio=SAMPLES, aligned=True)


def _halved(image: Tensor) -> Tensor:
    """The mean of 2x2 pixels, at an odd edge of those that are there: the edge repeated has the same mean."""
    height, width = image.shape[-2:]
    even = F.pad(image, (0, (width + 1) // 2 * 2 - width, 0, (height + 1) // 2 * 2 - height), mode="replicate")
    return F.avg_pool2d(even, 2)
