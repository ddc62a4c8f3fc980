"""A frozen CLIP as a module that can be exported: any number of images of any size, no Python loop over windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boresight.features.clip import FrozenClip
from boresight.features.clip_tower import unit
from boresight.features.dense import DenseFeatures
from boresight.features.dense_methods import DEFAULT


class ClipGraph(nn.Module):
    """:meth:`boresight.features.clip.FrozenClip.encode` as a graph whose sizes stay open.

    All windows of all images are cut out by one look-up, encoded as one batch, and put together by one sum.

    Args:
        clip, method, average, size, window, overlap, layers: as for ``encode``.
    """

    def __init__(
        self,
        clip: FrozenClip,
        *,
        method: str = DEFAULT,
        average: int = 1,
        size: int | None = None,
        window: int | None = None,
        overlap: float = 0.5,
        layers: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.visual = clip.model.visual  # held here so that its weights are found; `tower` reads the same module
        self.tower, self.preprocess, self.patch = clip.tower, clip.preprocess, clip.patch
        self.method, self.average, self.size, self.layers = method, average, size, tuple(layers)
        self.side = None if window is None else -(-window // clip.patch)
        self.step = 1 if self.side is None else max(1, round(self.side * (1 - overlap)))

    def forward(self, image: Tensor) -> DenseFeatures:
        """``[B, 3, H, W]`` float in 0..255 to the features of every image."""
        pixels = self._prepared(image)
        if self.side is None:
            return DenseFeatures(*self.tower.dense(pixels, self.method, self.average, self.layers))
        return self._windowed(pixels, self.side)

    def _prepared(self, image: Tensor) -> Tensor:
        """Resized and normalised as :class:`~boresight.features.clip.Preprocess` does, without asking for the size."""
        height, width = image.shape[-2:]
        patch, size = self.patch, self.size
        short = torch.sym_min(height, width)
        rows, columns = (
            (side + patch - 1) // patch if size is None else (side * size + short * patch - 1) // (short * patch)
            for side in (height, width)
        )
        shape: Any = (rows * patch, columns * patch)
        x = F.interpolate(image, size=shape, mode=self.preprocess.interpolation, antialias=True, align_corners=False)
        mean, std = (x.new_tensor(v)[:, None, None] for v in (self.preprocess.mean, self.preprocess.std))
        return (x.clamp(0, 255) / 255 - mean) / std

    def _windowed(self, pixels: Tensor, side: int) -> DenseFeatures:
        batch, patch, device = pixels.shape[0], self.patch, pixels.device
        rows, columns = pixels.shape[2] // patch, pixels.shape[3] // patch
        high: Any = torch.sym_min(side, rows)
        wide: Any = torch.sym_min(side, columns)
        down = (rows - high + self.step - 1) // self.step + 1
        across = (columns - wide + self.step - 1) // self.step + 1
        # window n is number `n - line * across` of its line of windows; all last ones end where the map ends
        number = torch.arange(batch * down * across, device=device)
        owner, line = number // (down * across), number // across
        top = ((line - owner * down) * self.step).clamp(max=rows - high)
        left = ((number - line * across) * self.step).clamp(max=columns - wide)
        row, column = torch.arange(high, device=device), torch.arange(wide, device=device)
        at_row = top[:, None] * patch + torch.arange(high * patch, device=device)
        at_column = left[:, None] * patch + torch.arange(wide * patch, device=device)
        cut = pixels.permute(0, 2, 3, 1)[owner[:, None, None], at_row[:, :, None], at_column[:, None, :]]
        found = self.tower.dense(cut.permute(0, 3, 1, 2), self.method, self.average, self.layers)

        feather = torch.minimum(row + 1, high - row)[:, None] * torch.minimum(column + 1, wide - column)
        feather = feather.to(pixels.dtype)
        place = (owner[:, None, None] * rows + top[:, None, None] + row[:, None]) * columns
        place = (place + left[:, None, None] + column).flatten()
        weight = pixels.new_zeros(batch * rows * columns)
        weight = weight.index_add(0, place, feather.expand(number.shape[0], high, wide).flatten())

        def together(x: Tensor) -> Tensor:
            parts = (x * feather).permute(0, 2, 3, 1).flatten(0, 2)
            total = pixels.new_zeros(batch * rows * columns, x.shape[1]).index_add(0, place, parts)
            return (total / weight[:, None]).view(batch, rows, columns, -1).permute(0, 3, 1, 2)

        pooled = unit(found.pooled.view(batch, down * across, -1).mean(dim=1))
        layers = together(found.layers) if self.layers else pixels.new_zeros(batch, 0, rows, columns)
        return DenseFeatures(together(found.aligned), layers, pooled)
