"""Features of a source image read in the frame of a view of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from boresight.core.device import sent
from boresight.core.grid import cell_centres


def resampled(
    features: Tensor,
    size: tuple[int, int],
    to_source: Tensor | None,
    rows: int,
    columns: int,
    stride: float,
) -> Tensor:
    """Read a map bilinearly at the cell centres of a view's grid.

    Args:
        features: ``[D, h, w]`` of the source image; its cells share the image evenly between them.
        size: ``(height, width)`` of the source image in pixels.
        to_source: ``[2, 3]``, pixel frame of the view to pixel frame of the source; None: the view is the source.
        rows, columns: of the grid wanted.
        stride: of that grid, pixels of the view a cell.

    Returns:
        ``[D, rows, columns]``. Beyond the source's outermost cell centres its border values go on.
    """
    return resampled_batch([features], [size], [to_source], rows, columns, stride)[0]


def resampled_batch(
    features: Sequence[Tensor],
    sizes: Sequence[tuple[int, int]],
    to_sources: Sequence[Tensor | None],
    rows: int,
    columns: int,
    stride: float,
) -> Tensor:
    """:func:`resampled` of B images, whose maps may differ in size: ``[B, D, rows, columns]``."""
    if not len(features) == len(sizes) == len(to_sources) or not len(features):
        raise ValueError(f"one size and one map a source is needed: {len(features)}, {len(sizes)}, {len(to_sources)}")
    device = features[0].device
    places = _places(sizes, to_sources, rows, columns, stride, device).to(features[0].dtype)
    if len({f.shape for f in features}) == 1:
        return _read(torch.stack(list(features)), places)
    return torch.cat([_read(f[None], places[i : i + 1]) for i, f in enumerate(features)])


def _read(maps: Tensor, places: Tensor) -> Tensor:
    return F.grid_sample(maps, places, mode="bilinear", padding_mode="border", align_corners=False)


def _places(
    sizes: Sequence[tuple[int, int]],
    to_sources: Sequence[Tensor | None],
    rows: int,
    columns: int,
    stride: float,
    device: torch.device,
) -> Tensor:
    """``[B, rows, columns, 2]`` where the cell centres lie in the source, from -1 to 1 between its outer edges."""
    identity = torch.eye(2, 3)
    maps = torch.stack([identity if t is None else t.detach().float().cpu() for t in to_sources])
    maps = sent(maps, device)
    extent = sent(torch.tensor([(width, height) for height, width in sizes], dtype=torch.float32), device)
    centres = cell_centres(rows, columns, stride, device=device)
    source = torch.einsum("bij,rcj->brci", maps[:, :, :2], centres) + maps[:, None, None, :, 2]
    return 2 * source / extent[:, None, None] - 1
