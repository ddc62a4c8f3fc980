"""Soft labels for point targets, rendered at the target's real-valued place.

A label centred on an integer cell, or filling an even window that has no centre cell, is biased by up to half a cell.
Here the Gaussian is centred on ``u = x / s - 0.5`` itself and takes every cell within 2.146 sigma, so an even window
needs no special case. Labels of several targets merge by maximum; a cell learns the place of the target nearest to it.

Two scatters do the work for the whole batch, and the result does not depend on the order of points: of equally near
targets the one further down, then further right, is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from boresight.core.device import sent
from boresight.core.grid import nearest_cell, pixel_to_cell
from boresight.core.types import DenseTargets, Points
from boresight.targets.schedule import TRUNCATION

Peak = Literal["unit", "physical"]
Kernel = Callable[[Tensor, Tensor], Tensor]
"""Takes ``offset [K, S, 2]`` (cell minus target, cells, real) and ``step [K, S, 2]`` (cell minus nearest cell, whole)
and returns the label ``[K, S]``, 0 outside the label."""


def gaussian_kernel(sigma: float, peak: Peak = "unit") -> Kernel:
    """``exp(-d^2 / 2 sigma^2)`` within 2.146 sigma of the real-valued place.

    ``peak="unit"`` sets the nearest cell to 1, as penalty-reduced focal expects (CornerNet, CenterNet).
    ``peak="physical"`` leaves the sampled value, down to 0.68 for sigma 0.8, for losses with soft targets (QFL, BCE).
    """

    def kernel(offset: Tensor, step: Tensor) -> Tensor:
        square = offset.square().sum(-1)
        value = torch.exp(-square / (2 * sigma**2)) * (square <= (TRUNCATION * sigma) ** 2)
        return torch.where((step == 0).all(-1), 1.0, value) if peak == "unit" else value

    return kernel


def hard_kernel(offset: Tensor, step: Tensor) -> Tensor:
    """1 on the nearest cell, nothing elsewhere: the one-pixel label."""
    return (step == 0).all(-1).to(offset.dtype)


def legacy_kernel(offset: Tensor, step: Tensor) -> Tensor:
    """A table seen in the wild: centre 1, 0.30 beside it, 0.15 on the diagonal. No Gaussian of sigma 0.8 to 1.2."""
    table = torch.tensor([1.0, 0.30, 0.15], device=offset.device, dtype=offset.dtype)
    near = step.abs().amax(-1) <= 1
    return torch.where(near, table[step.abs().sum(-1).clamp(max=2).long()], 0.0)


@dataclass(frozen=True)
class _Batch:
    """The points of a batch, one after the other, on the CPU: few numbers, and no step waits for a GPU to have them."""

    xy: Tensor  # [M, 2]
    image: Tensor  # [M] long
    label: Tensor  # [M] long
    ignore: Tensor  # [M] bool


def _concatenate(points: Sequence[Points]) -> _Batch:
    if not points:
        points = [Points.of([])]  # so that an empty batch has tensors of the right shapes
    counts = torch.tensor([len(p) for p in points])
    return _Batch(
        torch.cat([p.xy for p in points]).cpu(),
        torch.repeat_interleave(torch.arange(len(points)), counts),
        torch.cat([p.labels for p in points]).cpu(),
        torch.cat([p.ignore for p in points]).cpu(),
    )


def _by_place(uv: Tensor) -> Tensor:
    """Indices that sort places ``[N, 2]`` by row, then by column."""
    by_column = uv[:, 0].argsort(stable=True)
    return by_column[uv[by_column, 1].argsort(stable=True)]


def _square(reach: int) -> Tensor:
    """Whole steps ``[S, 2]`` of the square of cells within ``reach`` of a cell."""
    side = torch.arange(-reach, reach + 1)
    return torch.cartesian_prod(side, side)


def _scatter_argmax(value: Tensor, owner: Tensor, index: Tensor, size: int, device: torch.device) -> Tensor:
    """``[size]`` long: who brings the largest value to each cell, the higher owner of equal ones; -1 where nobody does.

    Value and owner travel as one 64-bit key, so that no float is compared for equality: non-negative float32 numbers
    order like their bits, so ``bits << 32 | owner`` orders by value and then by owner.
    """
    key = (value.float().contiguous().view(torch.int32).long() << 32) | owner
    best = torch.full((size,), -1, dtype=torch.long, device=device)
    best.scatter_reduce_(0, sent(index, device), sent(key, device), "amax")
    return torch.where(best < 0, -1, best & 0xFFFFFFFF)


def _check_points(batch: _Batch, classes: int, size: tuple[float, float]) -> None:
    """Raise ValueError for a label without a channel and for a point off the map of ``size`` (width, height) pixels."""
    if len(batch.label) and not bool(((batch.label >= 0) & (batch.label < classes)).all()):
        raise ValueError(f"labels must lie in 0..{classes - 1}, got {batch.label.min()}..{batch.label.max()}")
    off = ~((batch.xy >= 0) & (batch.xy <= torch.tensor(size, device=batch.xy.device))).all(-1)
    if bool(off.any()):
        raise ValueError(f"a point lies off the map of {size[0]:g} x {size[1]:g} px: {batch.xy[off][0].tolist()}")


def point_targets(
    points: Sequence[Points],
    *,
    classes: int,
    rows: int,
    columns: int,
    stride: float,
    kernel: Kernel,
    reach: int,
    offset_reach: int = 1,
    device: torch.device | str = "cpu",
) -> DenseTargets:
    """Render the labels of a batch of frames on one map.

    Args:
        points: the truth of each of the B frames. Don't-care points give no positive: the cells under their label are
            ignored instead.
        classes, rows, columns, stride: the map, ``[B, classes, rows, columns]`` with ``stride`` pixels a cell.
        kernel: the label; see :func:`gaussian_kernel`.
        reach: the label is 0 beyond so many cells from the nearest cell.
        offset_reach: cells within this many cells of a target's own learn its place too, because any of them may come
            to be the local peak that is emitted.
        device: of the targets. What is small, the points, is worked out on the CPU.

    Returns:
        DenseTargets. ``positive`` has exactly one cell a target, less those that share a cell.

    Raises:
        ValueError: a label outside ``0..classes - 1``, a point off the map (or not a number).
    """
    device = torch.device(device)
    batch = _concatenate(points)
    _check_points(batch, classes, (columns * stride, rows * stride))
    shape = (len(points), classes, rows, columns)
    uv = pixel_to_cell(batch.xy.float(), stride)
    centre = nearest_cell(uv, rows, columns)
    plane = batch.image * classes + batch.label

    def spread(chosen: Tensor, reach: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Cells around the chosen points: offset, step, flat index, and whether the cell is on the map."""
        step = _square(reach).expand(int(chosen.numel()), -1, -1)
        cell = centre[chosen, None] + step
        inside = (cell >= 0).all(-1) & (cell[..., 0] < columns) & (cell[..., 1] < rows)
        index = (plane[chosen, None] * rows + cell[..., 1]) * columns + cell[..., 0]
        return cell - uv[chosen, None], step, index, inside

    def label_map(chosen: Tensor) -> Tensor:
        offset, step, index, inside = spread(chosen, reach)
        empty = torch.zeros(math.prod(shape), device=device)
        return empty.scatter_reduce_(0, sent(index[inside], device), sent(kernel(offset, step)[inside], device), "amax")

    counted, dim = torch.nonzero(~batch.ignore)[:, 0], torch.nonzero(batch.ignore)[:, 0]
    score = label_map(counted)
    matched, positive = _own_cells(spread, counted, uv, offset_reach, math.prod(shape), device)
    ignore = (label_map(dim) > score) & ~positive  # where the don't-care is the nearer one, nothing is known
    return DenseTargets(
        positive=positive.view(shape),
        matched=matched.view(shape),
        score=score.view(shape),
        ignore=ignore.view(shape),
        objects=sent(torch.cat((batch.xy, batch.xy), dim=-1), device),
        labels=sent(batch.label, device),
        counted=sent(~batch.ignore, device),
        normaliser=torch.full((), float(len(counted)), device=device),
    )


def _own_cells(
    spread: Callable, counted: Tensor, uv: Tensor, offset_reach: int, size: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """``matched [size]``: the nearest target of every cell near one; ``positive [size]``: the cells targets lie in.

    A target's own cell always wins over a neighbour's offset zone, so that every positive cell learns a target in it.
    """
    offset, step, index, inside = spread(counted, offset_reach)
    own = (step == 0).all(-1)
    closeness = torch.where(own, 3.0, 0.0) + 1 / (1 + offset.square().sum(-1))
    order = _by_place(uv[counted])
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
    ranks = rank[:, None].expand_as(index)[inside]
    winner = _scatter_argmax(closeness[inside], ranks, index[inside], size, device)
    known = torch.cat((order.new_full((1,), -1), counted[order]))  # nobody, -1, picks the first
    matched = sent(known, device)[winner + 1]
    positive = torch.zeros(size, dtype=torch.bool, device=device).index_fill_(0, sent(index[own], device), True)
    return matched, positive


def coarser_targets(fine: DenseTargets, factor: int) -> DenseTargets:
    """The targets of a map ``factor`` times coarser: the maximum of the fine label over the cells it covers."""

    def pool(mask: Tensor) -> Tensor:
        return F.max_pool2d(mask.float(), factor, ceil_mode=True)

    positive = pool(fine.positive) > 0
    return DenseTargets(
        positive=positive,
        matched=torch.full(positive.shape, -1, dtype=torch.long, device=positive.device),
        score=pool(fine.score),
        ignore=(pool(fine.ignore) > 0) & (pool(fine.score) == 0),
        objects=fine.objects,
        labels=fine.labels,
        counted=fine.counted,
        normaliser=fine.normaliser,
    )
