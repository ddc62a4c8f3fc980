"""What feature maps and images show inside of boxes, as square grids (RoIAlign, He et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torchvision.ops import roi_align

from boresight.features.encoder import FeatureMaps


def roi_grids(maps: Sequence[FeatureMaps], windows: Sequence[Tensor], grid: int) -> list[Tensor]:
    """Pool every level of B images inside of their windows.

    Args:
        maps: of each image.
        windows: ``[M_b, 4]`` xyxy of each image, pixel frame.
        grid: cells a side.

    Returns:
        For each level ``[sum M_b, D, grid, grid]`` float32, image after image. Each cell is the mean of four places of
        the map under it; what lies beyond the map counts 0.
    """
    levels = range(len(maps[0].levels))
    return [_pooled([(m.levels[k], m.extents[k]) for m in maps], windows, grid) for k in levels]


class ImagePyramid:
    """Images, and the same reduced by 2, 4, ... as far as that is asked for.

    A window of many pixels is read off a reduced image, so that its cells average what lies under them without a visit
    to every pixel.

    Args:
        images: ``[3, H, W]`` each, raw pixels 0..255.
    """

    def __init__(self, images: Sequence[Tensor]) -> None:
        self._levels = [[(image.float() / 127.5 - 1) for image in images]]

    def grids(self, windows: Sequence[Tensor], grid: int) -> Tensor:
        """``[sum M_b, 3, grid, grid]`` float32 in about -1..1; beyond the image lies 0, its middle grey.

        Args:
            windows: ``[M_b, 4]`` xyxy of each image, pixel frame.
            grid: cells a side.
        """
        steps = [(w[:, 2:] - w[:, :2]).amax(1) / grid for w in windows]
        depth = [step.clamp(min=1).log2().floor().clamp(max=DEEPEST).long() for step in steps]
        every = torch.cat(depth)
        out = torch.zeros((len(every), 3, grid, grid), device=every.device)
        for k in sorted(set(every.tolist())):
            maps = [(image, _extent(image, 2**k)) for image in self._level(k)]
            out[every == k] = _pooled(maps, [w[d == k] for w, d in zip(windows, depth, strict=True)], grid)
        return out

    def _level(self, k: int) -> list[Tensor]:
        while len(self._levels) <= k:
            self._levels.append([_halved(image) for image in self._levels[-1]])
        return self._levels[k]


DEEPEST = 4


def _halved(image: Tensor) -> Tensor:
    return avg_pool2d(image[None], 2, ceil_mode=True, count_include_pad=False)[0]


def _extent(image: Tensor, stride: int) -> Tensor:
    return stride * torch.tensor(image.shape[-2:], dtype=torch.float32, device=image.device)


SAMPLES = 2
"""Places a side at which each cell reads the map."""


def _pooled(maps: Sequence[tuple[Tensor, Tensor]], windows: Sequence[Tensor], grid: int) -> Tensor:
    cells = [_in_cells(box, level, extent) for (level, extent), box in zip(maps, windows, strict=True)]
    if len({level.shape for level, _ in maps}) == 1:
        return _read(torch.stack([level.float() for level, _ in maps]), cells, grid)
    # maps of different sizes are read one by one: in a padded batch the border would depend on the neighbours
    return torch.cat([_read(level.float()[None], [c], grid) for (level, _), c in zip(maps, cells, strict=True)])


def _read(maps: Tensor, cells: list[Tensor], grid: int) -> Tensor:
    return roi_align(maps, cells, grid, sampling_ratio=SAMPLES, aligned=True)


def _in_cells(boxes: Tensor, level: Tensor, extent: Tensor) -> Tensor:
    """Pixels to cells of the map, both counted from the outer corner."""
    rows, columns = level.shape[-2:]
    scale = torch.stack((columns / extent[1], rows / extent[0])).to(boxes.device).repeat(2)
    return boxes.float() * scale
