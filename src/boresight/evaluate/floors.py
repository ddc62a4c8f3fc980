"""Chance floors: what the ladder gives when the boxes know nothing of the image.

The oracle over all cells takes the best of ``N`` boxes, so it grows with ``N`` even for boxes without content. Laid
anywhere in the frame, with sides log-uniform in 0.04 to 0.44 of it and aspects log-normal (sd 0.68), objects and boxes
alike, they reach mean IoU and accuracy at 0.5 of .24/.08 for 7² boxes, .48/.48 for 28², .59/.71 for 56² and .76/.98 for
224². A box of such a size centred on the object stays at mean IoU .27, whatever the grid. A figure says something only
by how far it lies above its floor.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from scipy.ndimage import label as connected
from torch import Tensor

from boresight.core.grid import cell_centres
from boresight.core.types import Scene
from boresight.evaluate.box_set import crowd_of, truth_of
from boresight.evaluate.pairs import Floats

# Boxes that know nothing of the image.
CONTENT_FREE = ("random", "mean_size", "untrained", "shuffled")
# The class map alone, boxed: it knows the image but nothing was trained. It has a `gt_class` rung only.
FLOORS = (*CONTENT_FREE, "cam_box")
# The class map counts as "on" above this share of its peak.
CAM_LEVEL = 0.5
EIGHT = np.ones((3, 3), np.int64)


def check_prior(prior: Tensor) -> Tensor:
    """Return the training box sizes as float32. Raises ``ValueError`` unless ``[M, 2]``, ``M >= 1``, all positive."""
    if prior.ndim != 2 or prior.shape[1] != 2 or not len(prior):
        raise ValueError(
            f"prior must hold (width, height) of training boxes, [M, 2] with M >= 1, got {list(prior.shape)}"
        )
    if not bool((torch.isfinite(prior) & (prior > 0)).all()):
        raise ValueError("prior holds sizes that are not positive")
    return prior.detach().float().cpu()


def training_sizes(scenes: Iterable[Scene]) -> Tensor:
    """The prior: widths and heights of the boxes that count, ``[M, 2]`` pixels."""
    parts = []
    for scene in scenes:
        (boxes,), _ = truth_of([scene])
        parts.append((boxes[:, 2:] - boxes[:, :2]).float()[~crowd_of(scene).to(boxes.device)].cpu())
    return check_prior(torch.cat(parts) if parts else torch.zeros(0, 2))


def prior_sizes(prior: Tensor, count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Draw ``count`` sizes ``(width, height)`` from training boxes, ``[count, 2]`` pixels, no larger than the image."""
    frame = torch.tensor([size[1], size[0]], dtype=torch.float32)
    return prior[torch.randint(len(prior), (count,), generator=generator)].minimum(frame)


def random_boxes(prior: Tensor, count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Boxes of the training sizes laid anywhere in the image, ``[count, 4]`` xyxy pixels.

    ``prior`` is ``[M, 2]`` (width, height) in pixels, ``size`` the image's ``(height, width)``.
    """
    sides = prior_sizes(prior, count, size, generator)
    frame = torch.tensor([size[1], size[0]], dtype=torch.float32)
    corner = torch.rand(count, 2, generator=generator) * (frame - sides)
    return torch.cat((corner, corner + sides), dim=1)


def concentric_boxes(truth: Tensor, prior: Tensor, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Boxes of the training sizes centred on the truth boxes ``[m, 4]``: what the centre alone is worth, ``[m, 4]``.

    Stricter than a box at the centre of the object's cell, and the same for every grid.
    """
    sides = prior_sizes(prior, len(truth), size, generator)
    centre = (truth[:, :2] + truth[:, 2:]) / 2
    return torch.cat((centre - sides / 2, centre + sides / 2), dim=1)


def mean_size_boxes(prior: Tensor, rows: int, columns: int, stride: float) -> Tensor:
    """The mean training size at the centre of every cell, ``[rows * columns, 4]`` xyxy pixels."""
    centre, half = cell_centres(rows, columns, stride).flatten(0, 1), prior.mean(dim=0) / 2
    return torch.cat((centre - half, centre + half), dim=1)


def cam_box(cam: Tensor, stride: float, size: tuple[int, int]) -> Tensor | None:
    """The box of the region around the peak of a class map.

    The region is the 8-connected component, above half the peak, that holds the peak (the first of equal ones).

    Args:
        cam: ``[H, W]``.
        stride: pixels a cell.
        size: ``(height, width)`` of the image, pixels.

    Returns ``[4]`` xyxy, pixel frame, on the CPU; None where no value is positive.
    """
    values = cam.detach().float().cpu().numpy()
    if not values.size or values.max() <= 0:
        return None
    parts, _ = connected(values > CAM_LEVEL * values.max(), EIGHT)
    rows, columns = np.nonzero(parts == parts.flat[values.argmax()])
    edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    limit = [size[1], size[0], size[1], size[0]]
    return torch.tensor([min(e * stride, n) for e, n in zip(edges, limit, strict=True)], dtype=torch.float32)


def skill(value: Floats | float, floor: Floats | float) -> Floats:
    """``(x - floor) / (1 - floor)``: 0 at the floor, 1 when perfect; NaN where the floor is perfect itself."""
    x, low = np.broadcast_arrays(np.asarray(value, np.float64), np.asarray(floor, np.float64))
    # A floor that rounding left a hair below 1 leaves no room to be better either.
    return np.divide(x - low, 1 - low, out=np.full(x.shape, np.nan), where=1 - low > 1e-9)
