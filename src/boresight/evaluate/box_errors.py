"""How far a box misses its object: centre and size, in strides and relative to the object, by size and by class."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from boresight.evaluate.estimate import Estimate, Resampler
from boresight.evaluate.pairs import Bools, Floats, Ints

# Which box is read: that of the cell at the object's centre, and that of the channel's best cell (an oracle).
READINGS = ("gt_centre", "oracle")
# Edges of the bins of object size, in cells (the root of the area over the stride).
CELL_EDGES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, float("inf"))
COLUMNS = ("iou", "centre_strides", "centre_relative", "size_strides", "size_relative", "size_bias")


@dataclass(frozen=True)
class BoxErrors:
    """Mean errors over objects.

    Attributes:
        iou: with the object.
        centre_strides: distance of the centres, in strides.
        centre_relative: the same over the object's side (root of its area).
        size_strides: mean of the errors of width and height, without sign, in strides.
        size_relative: the same, each relative to the object's width or height.
        size_bias: (side of the box - side of the object) / side of the object: above 0 boxes are too large.
    """

    iou: Estimate
    centre_strides: Estimate
    centre_relative: Estimate
    size_strides: Estimate
    size_relative: Estimate
    size_bias: Estimate


@dataclass(frozen=True)
class SizeBin:
    """Objects whose side is ``low <= side < high`` cells; ``high`` is None for the last bin, which has no end."""

    low: float
    high: float | None
    n: int
    errors: BoxErrors


@dataclass(frozen=True)
class ClassErrors:
    """The objects of one class."""

    name: str
    n: int
    errors: BoxErrors


@dataclass(frozen=True)
class ErrorTable:
    """The errors of one reading (of ``READINGS``): over all objects, by size in cells, by class."""

    reading: str
    overall: BoxErrors
    by_size: tuple[SizeBin, ...]
    per_class: tuple[ClassErrors, ...]


def box_errors(truth: Tensor, boxes: Tensor, overlap: Tensor, stride: float) -> Floats:
    """Return the errors of ``boxes [m, 4]`` against ``truth [m, 4]`` (xyxy, pixels), ``[m, 6]`` in ``COLUMNS``.

    ``overlap`` is ``[m]``, their IoU.
    """
    truth, boxes = truth.double(), boxes.double()
    size, found = truth[:, 2:] - truth[:, :2], boxes[:, 2:] - boxes[:, :2]
    side = size.prod(dim=1).sqrt()
    centre = ((boxes[:, :2] + boxes[:, 2:]) - (truth[:, :2] + truth[:, 2:])).norm(dim=1) / 2
    gap = (found - size).abs()
    columns = (
        overlap.double(),
        centre / stride,
        centre / side,
        gap.mean(dim=1) / stride,
        (gap / size).mean(dim=1),
        found.prod(dim=1).sqrt() / side - 1,
    )
    return torch.stack(columns, dim=1).cpu().numpy()


def error_table(
    reading: str, errors: Floats, side_cells: Floats, labels: Ints, classes: Sequence[str], resampler: Resampler
) -> ErrorTable:
    """Average ``errors [O, 6]`` over all objects, by their side in cells ``[O]`` and by their class ``[O]``."""

    def over(where: Bools | None) -> BoxErrors:
        return BoxErrors(*(resampler.estimate(errors[:, k], where) for k in range(len(COLUMNS))))

    bins = []
    for low, high in itertools.pairwise(CELL_EDGES):
        where = (side_cells >= low) & (side_cells < high)
        bins.append(SizeBin(low, high if np.isfinite(high) else None, int(where.sum()), over(where)))
    own = tuple(ClassErrors(name, int((labels == k).sum()), over(labels == k)) for k, name in enumerate(classes))
    return ErrorTable(reading, over(None), tuple(bins), own)
