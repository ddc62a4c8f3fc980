"""The square that models of the SAM family read: how an image is laid into it, and what of the image a map covers.

Preprocessing is the models' own, done here in torch: the long side is brought to the model's size and the rest padded
at the bottom and the right, or both sides are (SAM 2, which does not keep the shape). Cells that see padding alone are
cut off; what each map covers of the image is kept beside it to the fraction of a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from boresight.features.encoder import FeatureMaps
from boresight.features.frozen_backbones import FrozenModule, split_maps

Precision = Literal["fp32", "fp16", "bf16"]
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, of pixels in [0, 1]: the whole family was trained with them."""


@dataclass(frozen=True)
class SamGeometry:
    """Where the pixels of an image lie in the square that a model reads. Both frames count from the outer corner.

    Attributes:
        image: ``(height, width)`` of the image.
        shown: ``(height, width)`` of the image in the square, whole pixels; the rest is padding.
        side: of the square.
    """

    image: tuple[int, int]
    shown: tuple[int, int]
    side: int

    @classmethod
    def of(cls, height: int, width: int, side: int, *, keep_shape: bool) -> SamGeometry:
        """The long side fills the square, or (``keep_shape`` False) both do."""
        if not keep_shape:
            return cls((height, width), (side, side), side)
        scale = side / max(height, width)
        return cls((height, width), (max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))), side)

    @property
    def scales(self) -> tuple[float, float]:
        """Square pixels an image pixel, down and across; they differ by the rounding of :attr:`shown`."""
        return self.shown[0] / self.image[0], self.shown[1] / self.image[1]

    def to_input(self, boxes: Tensor) -> Tensor:
        """``[N, 4]`` xyxy boxes of the image in the square."""
        down, across = self.scales
        return boxes * boxes.new_tensor([across, down, across, down])

    def to_image(self, boxes: Tensor) -> Tensor:
        """Inverse of :meth:`to_input`."""
        down, across = self.scales
        return boxes / boxes.new_tensor([across, down, across, down])


class SquareEncoder(FrozenModule):
    """An encoder that reads a square of fixed size.

    Attributes:
        side: of the square, pixels.
        precision: in which the network computes, whatever autocast is on around it; maps are float32.
    """

    side: int
    precision: Precision = "fp32"

    @property
    def keep_shape(self) -> bool:
        """Whether images keep their shape and are padded; else both sides are brought to the square's."""
        return True

    def geometry(self, height: int, width: int) -> SamGeometry:
        """Where an image of that size lies in the square."""
        return SamGeometry.of(height, width, self.side, keep_shape=self.keep_shape)

    def pixels(self, images: Tensor) -> Tensor:
        """``[B, 3, H, W]`` raw pixels 0..255 to ``[B, 3, side, side]`` as the model wants them, float32."""
        place = self.geometry(*images.shape[-2:])
        x = images.float()
        if place.shown != place.image:
            x = F.interpolate(x, place.shown, mode="bilinear", antialias=True, align_corners=False)
        mean, std = (x.new_tensor(v)[:, None, None] for v in (MEAN, STD))
        return F.pad((x / 255 - mean) / std, (0, self.side - place.shown[1], 0, self.side - place.shown[0]))

    def maps(self, pixels: Tensor) -> list[FeatureMaps]:
        """See :class:`~boresight.features.frozen_backbones.FrozenModule`."""
        place = self.geometry(*pixels.shape[-2:])
        levels, extents = [], []
        with torch.autocast(pixels.device.type, enabled=False):  # a training in bf16 would store other features
            found = self.encoded(self.pixels(pixels).to(DTYPES[self.precision]))
        for level in found:
            cells = level.shape[-1]
            rows, columns = (-(-shown * cells // self.side) for shown in place.shown)
            levels.append(level[..., :rows, :columns].float())
            down, across = place.scales
            extents.append((rows * self.side / cells / down, columns * self.side / cells / across))
        return split_maps(levels, extents)

    def encoded(self, square: Tensor) -> Sequence[Tensor]:
        """``[B, 3, side, side]`` in the network's type to ``[B, D, h, w]`` of every level, over the whole square."""
        raise NotImplementedError
