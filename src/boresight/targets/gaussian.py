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


@dataclass(frozen=True)
class Around:
    """The S x S cells around each of K targets, column by column and row by row: they broadcast to ``[K, S, S]``.

    Attributes:
        dx, dy: ``[K, 1, S]`` and ``[K, S, 1]`` float, cell minus target, in cells.
        step_x, step_y: ``[1, 1, S]`` and ``[1, S, 1]`` long, cell minus the target's nearest cell.
    """

    dx: Tensor
    dy: Tensor
    step_x: Tensor
    step_y: Tensor

    @property
    def square(self) -> Tensor:
        """``[K, S, S]`` squared distance, cells."""
        return self.dx.square() + self.dy.square()

    @property
    def own(self) -> Tensor:
        """``[1, S, S]`` bool: the nearest cell."""
        return (self.step_x == 0) & (self.step_y == 0)


Kernel = Callable[[Around], Tensor]
"""The cells around targets to the label ``[K, S, S]``, 0 outside of it."""


def gaussian_kernel(sigma: float, peak: Peak = "unit") -> Kernel:
    """``exp(-d^2 / 2 sigma^2)`` within 2.146 sigma of the real-valued place.

    ``peak="unit"`` sets the nearest cell to 1, as penalty-reduced focal expects (CornerNet, CenterNet).
    ``peak="physical"`` leaves the sampled value, down to 0.68 for sigma 0.8, for losses with soft targets (QFL, BCE).
    """

    def kernel(around: Around) -> Tensor:
        square = around.square
        value = torch.exp(-square / (2 * sigma**2)) * (square <= (TRUNCATION * sigma) ** 2)
        return value.masked_fill_(around.own, 1.0) if peak == "unit" else value

    return kernel


def hard_kernel(around: Around) -> Tensor:
    """1 on the nearest cell, nothing elsewhere: the one-pixel label."""
    return around.own.to(around.dx.dtype).expand(len(around.dx), -1, -1)


def legacy_kernel(around: Around) -> Tensor:
    """A table seen in the wild: centre 1, 0.30 beside it, 0.15 on the diagonal. No Gaussian of sigma 0.8 to 1.2."""
    table = torch.tensor([1.0, 0.30, 0.15], device=around.dx.device, dtype=around.dx.dtype)
    x, y = around.step_x.abs(), around.step_y.abs()
    near = (x <= 1) & (y <= 1)
    return torch.where(near, table[(x + y).clamp(max=2)], 0.0).expand(len(around.dx), -1, -1)


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


def _by_place(xy: Tensor) -> Tensor:
    """Indices that sort places ``[N, 2]``, none negative, by row, then by column: their bits order as they do."""
    x, y = (xy.float() + 0.0).contiguous().view(torch.int32).long().unbind(-1)  # + 0.0: minus zero is zero
    return ((y << 32) | x).argsort(stable=True)


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
    where = _Places.of(batch, shape, stride)
    counted, dim = torch.nonzero(~batch.ignore)[:, 0], torch.nonzero(batch.ignore)[:, 0]
    near = where.around(counted, max(reach, offset_reach))
    score = _label_map(near.within(reach), kernel, where.cells, device)
    matched, positive = _own_cells(near.within(offset_reach), batch.xy[counted], counted, where.cells, device)
    if len(dim):  # where the don't-care is the nearer one, nothing is known
        ignore = (_label_map(where.around(dim, reach), kernel, where.cells, device) > score) & ~positive
    else:
        ignore = torch.zeros_like(positive)
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


@dataclass(frozen=True)
class _Near:
    """Cells around K points, and the flat place of each on the map, ``[K, S, S]`` long: its last and one, if off it."""

    around: Around
    place: Tensor

    def within(self, reach: int) -> _Near:
        """Those within ``reach`` cells alone."""
        spare = (self.place.shape[-1] - 1) // 2 - reach
        if not spare:
            return self
        a, cut = self.around, slice(spare, -spare)
        inner = Around(a.dx[..., cut], a.dy[:, cut], a.step_x[..., cut], a.step_y[:, cut])
        return _Near(inner, self.place[:, cut, cut])


@dataclass(frozen=True)
class _Places:
    """Where the points of a batch lie on a map, on the CPU.

    Attributes:
        uv: ``[M, 2]`` cell frame, real.
        centre: ``[M, 2]`` long, the nearest cell.
        plane: ``[M]`` long, which image and class.
        shape: of the map, ``(B, C, H, W)``.
    """

    uv: Tensor
    centre: Tensor
    plane: Tensor
    shape: tuple[int, int, int, int]

    @classmethod
    def of(cls, batch: _Batch, shape: tuple[int, int, int, int], stride: float) -> _Places:
        _, classes, rows, columns = shape
        uv = pixel_to_cell(batch.xy.float(), stride)
        return cls(uv, nearest_cell(uv, rows, columns), batch.image * classes + batch.label, shape)

    @property
    def cells(self) -> int:
        return math.prod(self.shape)

    def around(self, chosen: Tensor, reach: int) -> _Near:
        """The cells around the chosen points."""
        _, _, rows, columns = self.shape
        side = torch.arange(-reach, reach + 1)
        step_x, step_y = side.view(1, 1, -1), side.view(1, -1, 1)
        x, y = (self.centre[chosen, i].view(-1, 1, 1) + step for i, step in enumerate((step_x, step_y)))
        row = (self.plane[chosen].view(-1, 1, 1) * rows + y) * columns
        row = torch.where((y >= 0) & (y < rows), row, self.cells)
        place = (row + torch.where((x >= 0) & (x < columns), x, self.cells)).clamp_(max=self.cells)
        u, v = (self.uv[chosen, i].view(-1, 1, 1) for i in (0, 1))
        return _Near(Around(x - u, y - v, step_x, step_y), place)


def _label_map(near: _Near, kernel: Kernel, cells: int, device: torch.device) -> Tensor:
    """``[cells]`` float32: the labels of the points, merged by maximum."""
    label = torch.zeros(cells + 1, device=device)  # one more: what lies off the map goes there
    values = kernel(near.around).reshape(-1)
    return label.scatter_reduce_(0, sent(near.place.flatten(), device), sent(values, device), "amax")[:-1]


def _own_cells(near: _Near, xy: Tensor, counted: Tensor, cells: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """``matched [cells]``: the nearest target of every cell near one; ``positive [cells]``: the cells targets lie in.

    A target's own cell always wins over a neighbour's offset zone, so that every positive cell learns a target in it.
    Closeness and rank travel as one 64-bit key, so that no float is compared for equality: non-negative float32 numbers
    order like their bits, so ``bits << 32 | rank`` orders by closeness and then by rank.
    """
    around, place = near.around, near.place
    closeness = around.own * 3.0 + 1 / (1 + around.square)
    order = _by_place(xy)
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
    bits = closeness.float().contiguous().view(torch.int32).long()
    key = sent(((bits << 32) | rank.view(-1, 1, 1)).flatten(), device)
    owner = sent(counted.view(-1, 1, 1).expand_as(place).flatten(), device)
    cell = sent(place.flatten(), device)
    best = torch.full((cells + 1,), -1, dtype=torch.long, device=device).scatter_reduce_(0, cell, key, "amax")
    won = torch.where(best.index_select(0, cell) == key, cell, cells)
    matched = torch.full((cells + 1,), -1, dtype=torch.long, device=device).scatter_(0, won, owner)[:-1]
    positive = torch.zeros(cells, dtype=torch.bool, device=device)
    middle = place.shape[-1] // 2
    return matched, positive.index_fill_(0, sent(place[:, middle, middle], device), True)


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
