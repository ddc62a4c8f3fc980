"""Features of a source image read in the frame of a view of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boresight.core.device import sent
from boresight.core.grid import cell_centres


@dataclass(frozen=True, slots=True)
class OnGrid:
    """Maps of source images, and where the cells of a grid lie in them: read when they are wanted.

    Attributes:
        maps: ``[B, D, h, w]``, or B of ``[1, D, h, w]`` that differ in size.
        places: ``[B, rows, columns, 2]``, x and y from -1 to 1 between the outer edges of the source.
    """

    maps: tuple[Tensor, ...]
    places: Tensor

    @classmethod
    def of(cls, features: Sequence[Tensor], places: Tensor) -> OnGrid:
        """Of B maps ``[D, h, w]``; ValueError unless each has its places."""
        if len(features) != len(places):
            raise ValueError(f"one map a source is needed: {len(features)} maps, {len(places)} sources")
        if len({f.shape for f in features}) == 1:
            return cls((torch.stack(list(features)),), places)
        return cls(tuple(f[None] for f in features), places)

    def read(self, layer: nn.Module | None = None) -> Tensor:
        """``[B, D, rows, columns]``, bilinearly; beyond the outermost cell centres the border values go on.

        ``layer`` is applied to each cell of the source before the grid is read. It must be a convolution of
        one cell: the result is then that of applying it to every cell of the grid, of which there are many more.
        """
        maps = self.maps if layer is None else tuple(layer(m) for m in self.maps)
        if len(maps) == 1:
            return _read(maps[0], self.places)
        return torch.cat([_read(m, p) for m, p in zip(maps, self.places.split(1), strict=True)])


def _read(maps: Tensor, places: Tensor) -> Tensor:
    return F.grid_sample(maps.to(places.dtype), places, mode="bilinear", padding_mode="border", align_corners=False)


def places_of(
    sizes: Sequence[tuple[int, int]],
    to_sources: Sequence[Tensor | None],
    rows: int,
    columns: int,
    stride: float,
    device: torch.device,
) -> Tensor:
    """``[B, rows, columns, 2]`` float32: where cell centres lie in the source, from -1 to 1 between its outer edges.

    Args:
        sizes: ``(height, width)`` of each source image in pixels; the cells of its map share it evenly between them.
        to_sources: ``[2, 3]`` each, pixel frame of the view to pixel frame of the source; None: the view is the source.
        rows, columns: of the grid wanted.
        stride: of that grid, pixels of the view a cell.
        device: of the result.

    Raises ValueError unless every source has a size and a map.
    """
    if len(sizes) != len(to_sources):
        raise ValueError(f"one size and one map a source is needed: {len(sizes)}, {len(to_sources)}")
    identity = torch.eye(2, 3)
    maps = torch.stack([identity if t is None else t.detach().float().cpu() for t in to_sources])
    maps = sent(maps, device)
    extent = sent(torch.tensor([(width, height) for height, width in sizes], dtype=torch.float32), device)
    centres = cell_centres(rows, columns, stride, device=device)
    source = torch.einsum("bij,rcj->brci", maps[:, :, :2], centres) + maps[:, None, None, :, 2]
    return 2 * source / extent[:, None, None] - 1
