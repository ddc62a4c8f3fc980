"""Heads that move a coarse box onto its object, from what frozen features and pixels show around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boresight.core.boxes import aligned_iou
from boresight.core.relative import ordered

Regression = Literal["edges", "deltas"]


@dataclass(frozen=True, slots=True)
class Look:
    """What a head says after one look at N boxes. Boxes are in shares of the window that was looked at.

    Attributes:
        boxes: ``[N, 4]`` where the object is thought to lie.
        edges: ``[N, 4, K]`` logits of each edge's place, or None.
        quality: ``[N]`` logit of the IoU of the box that was *looked at* with its object.
        memory: ``[N, E]`` what is known of it, for the decision.
    """

    boxes: Tensor
    edges: Tensor | None
    quality: Tensor
    memory: Tensor


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    # normalised by group: a batch of boxes is no batch of images, and processes must agree without talking
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.GroupNorm(8, outputs),
        nn.SiLU(inplace=True),
    )


class Trunk(nn.Module):
    """Frozen features and pixels of a window to one map of it.

    Args:
        channels: of every frozen level; empty: none is read.
        grid: cells a side, even.
        width: channels of the map; a multiple of 16.
        pixels: also read the image itself, at four times the grid's resolution: frozen features are too coarse to say
            where a small object ends.
        depth: 3x3 blocks.
        dropout: chance in training that a channel of what is read is left out.
    """

    def __init__(
        self, channels: Sequence[int], *, grid: int, width: int, pixels: bool, depth: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if not channels and not pixels:
            raise ValueError("a trunk needs features or pixels to read")
        self.levels = nn.ModuleList(nn.Conv2d(c, width // 2, 1) for c in channels)  # see `reduced`
        self.norms = nn.ModuleList(nn.GroupNorm(8, width // 2) for _ in channels)
        self.stem = (
            nn.Sequential(_conv(3, width // 4 * 2, 5, 2), _conv(width // 4 * 2, width, 3, 2)) if pixels else None
        )
        inputs = len(channels) * (width // 2) + (width if pixels else 0) + 3
        self.first = _conv(inputs, width)
        self.drop = nn.Dropout2d(dropout)
        self.blocks = nn.ModuleList(_conv(width, width) for _ in range(depth - 1))
        ramp = (torch.arange(grid) + 0.5) / grid
        self.register_buffer("ramp", ramp, persistent=False)

    ramp: Tensor

    def reduced(self, levels: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        """Frozen maps ``[D, h, w]`` of each image (outside) and level (inside) to maps of ``width / 2`` channels.

        Once an image, before windows are cut out of it: a convolution of 1x1 may as well come first, and pooling then
        has few channels to read.
        """
        want = [conv.in_channels for conv in self.levels]
        for image in levels:
            if (have := [len(level) for level in image]) != want:
                raise ValueError(f"the frozen maps have {have} channels, the head reads {want}")
        columns = [_each(conv, maps) for conv, maps in zip(self.levels, zip(*levels, strict=True), strict=True)]
        return [list(image) for image in zip(*columns, strict=True)]

    def reduced_batch(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """:meth:`reduced` of ``[B, D, h, w]`` maps of every level: those of images of one size."""
        return [conv(_soft(level.float())) for conv, level in zip(self.levels, levels, strict=True)]

    def forward(self, pooled: Sequence[Tensor], patch: Tensor | None, box: Tensor) -> Tensor:
        """``[N, width / 2, G, G]`` of each reduced level, ``[N, 3, 4G, 4G]`` pixels and the box ``[N, 4]``."""
        parts = [F.silu(norm(x)) for norm, x in zip(self.norms, pooled, strict=True)]
        if self.stem is not None:
            parts.append(self.stem(patch))
        read = self.drop(torch.cat(parts, dim=1))
        x = self.first(torch.cat((read, self._place(box)), dim=1))
        for block in self.blocks:
            x = x + block(x)
        return x

    def _place(self, box: Tensor) -> Tensor:
        """``[N, 3, G, G]``: x and y of each cell from -1 to 1 across the box, and whether it lies in it."""
        side = (box[:, 2:] - box[:, :2]).clamp(min=1e-3)
        x, y = (2 * (self.ramp - box[:, i, None]) / side[:, i, None] - 1 for i in (0, 1))
        grid = len(self.ramp)
        across = x[:, None, None].expand(-1, 1, grid, -1), y[:, None, :, None].expand(-1, 1, -1, grid)
        inside = (across[0].abs() < 1) & (across[1].abs() < 1)
        return torch.cat((*(v.clamp(-3, 3) for v in across), inside.to(x.dtype)), dim=1)


def _each(conv: nn.Module, maps: Sequence[Tensor]) -> list[Tensor]:
    """A convolution of maps that may differ in size."""
    if len({m.shape for m in maps}) == 1:
        return list(conv(_soft(torch.stack([m.float() for m in maps]))))
    return [conv(_soft(m.float()[None]))[0] for m in maps]


def _soft(x: Tensor) -> Tensor:
    """Features whose few large values would drown the rest: sign(x) log(1 + |x|)."""
    return x.sign() * x.abs().log1p()


class EdgeProfiles(nn.Module):
    """Where each edge lies: a distribution over places along its axis, from the map projected onto that axis.

    An edge is sharp across and long along: what lies along it is gathered first (mean and largest), as in SABL (Wang et
    al. 2020), and its place is the mean of a distribution (Li et al. 2020, generalised focal loss, eq. 7). The
    distribution starts as a bell around the coarse edge and is corrected from there.
    """

    def __init__(self, width: int, grid: int, bins: int) -> None:
        super().__init__()
        self.gather = nn.Conv2d(width, width, 1)
        self.along = nn.Sequential(nn.Conv1d(2 * width, width, 3, padding=1), nn.SiLU(inplace=True))
        self.fine = nn.Sequential(nn.Conv1d(width, width, 3, padding=1), nn.SiLU(inplace=True))
        self.out = nn.Conv1d(width, 2, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]
        self.spread = nn.Parameter(torch.tensor(0.08).log())
        self.register_buffer("places", (torch.arange(bins) + 0.5) / bins, persistent=False)

    places: Tensor

    def forward(self, features: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
        """``[N, W, G, G]`` and the coarse box ``[N, 4]`` to logits ``[N, 4, K]`` and the box ``[N, 4]``."""
        x = self.gather(features)
        near_far = [self._profile(torch.cat((x.mean(dim), x.amax(dim)), dim=1)) for dim in (2, 3)]
        net = torch.stack((near_far[0][:, 0], near_far[1][:, 0], near_far[0][:, 1], near_far[1][:, 1]), dim=1).float()
        bell = -(((self.places - box[..., None]) / self.spread.exp()) ** 2) / 2
        logits = bell + net
        return logits, (logits.softmax(-1) * self.places).sum(-1)

    def _profile(self, x: Tensor) -> Tensor:
        x = self.along(x)
        x = F.interpolate(x, size=len(self.places), mode="linear", align_corners=False)
        return self.out(self.fine(x))


class Deltas(nn.Module):
    """Plain regression: how far each edge moves, in sides of the coarse box, within one side.

    The last layer starts at 0, so that the first answer is the coarse box itself.
    """

    def __init__(self, width: int, grid: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Conv2d(width, 32, 1), nn.SiLU(inplace=True), nn.Flatten(), nn.Linear(32 * grid * grid, 128), nn.SiLU()
        )
        self.out = nn.Linear(128, 4)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, features: Tensor, box: Tensor) -> Tensor:
        """``[N, W, G, G]`` and the coarse box ``[N, 4]`` to the box ``[N, 4]``."""
        side = (box[:, 2:] - box[:, :2]).repeat(1, 2)
        return box + torch.tanh(self.out(self.mlp(features))).float() * side


def _zeroed(inputs: int, hidden: int) -> nn.Sequential:
    """Two layers to one number that starts at 0."""
    last = nn.Linear(hidden, 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), last)


class RefineHead(nn.Module):
    """Looks at a box, says where the object lies and how well the box that it looked at fits.

    Args:
        channels: of every frozen level.
        grid: cells a side of what is pooled in the window.
        width: channels.
        depth: 3x3 blocks.
        pixels: read the image as well.
        regression: a distribution for each ``edges``, or plain ``deltas``.
        classes: number of classes whose name enters (0: none does); other labels are a class unknown.
        decides: can say which of two boxes is better; of several heads the last one does.
        dropout: see :class:`Trunk`.
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        grid: int = 12,
        width: int = 64,
        depth: int = 3,
        pixels: bool = True,
        regression: Regression = "edges",
        classes: int = 0,
        decides: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.grid, self.pixels, self.classes = grid, pixels, classes
        self.trunk = Trunk(channels, grid=grid, width=width, pixels=pixels, depth=depth, dropout=dropout)
        self.named = nn.Embedding(classes + 1, width) if classes else None
        if self.named is not None:
            nn.init.zeros_(self.named.weight)
        self.edges = EdgeProfiles(width, grid, 2 * grid) if regression == "edges" else None
        self.deltas = Deltas(width, grid) if regression == "deltas" else None
        self.sum_up = nn.Sequential(nn.Linear(4 * width + 14, 2 * width), nn.SiLU())
        self.quality = nn.Linear(2 * width, 1)
        self.decide = _zeroed(4 * width + 7, width) if decides else None

    def forward(
        self, pooled: Sequence[Tensor], patch: Tensor | None, box: Tensor, size: Tensor, labels: Tensor
    ) -> Look:
        """One look.

        Args:
            pooled: ``[N, width / 2, G, G]`` of every frozen level, reduced by :meth:`Trunk.reduced`.
            patch: ``[N, 3, 4 G, 4 G]`` pixels, or None.
            box: ``[N, 4]`` what is looked at, in shares of the window.
            size: ``[N, 2]`` width and height of the box, pixels.
            labels: ``[N]`` long, -1 unknown.
        """
        x = self.trunk(pooled, patch, box)
        if self.named is not None:
            known = torch.where(labels < self.classes, labels + 1, 0)
            x = x + self.named(known)[:, :, None, None]
        if self.edges is not None:
            edges, found = self.edges(x, box)
            spread = _spread(edges.detach(), self.edges.places)
        else:
            assert self.deltas is not None
            edges, found = None, self.deltas(x, box)
            spread = torch.zeros_like(box)
        found = ordered(found)
        memory = self.sum_up(torch.cat((self._summary(x, box), spread, _place(box, found.detach(), size)), dim=-1))
        return Look(found, edges, self.quality(memory)[:, 0].float(), memory)

    def decision(self, first: Look, last: Look, start: Tensor, found: Tensor) -> Tensor:
        """``[N]`` logit that ``found`` (the box of the last look) fits better than ``start`` (that of the first).

        Both are ``[N, 4]`` boxes in one frame; no gradient reaches what was looked at and the boxes. Raises ValueError
        for a head that does not decide.
        """
        if self.decide is None:
            raise ValueError("this head was built with decides=False")
        start, found = start.detach(), found.detach()
        side = (start[:, 2:] - start[:, :2]).clamp(min=1e-3).repeat(1, 2)
        moved = ((found - start) / side).clamp(-3, 3)
        both = torch.stack((first.quality, last.quality), dim=-1).detach()
        known = torch.cat((first.memory, last.memory), dim=-1).detach()
        return self.decide(torch.cat((known, moved, aligned_iou(start, found)[:, None], both), dim=-1).to(known.dtype))[
            :, 0
        ].float()

    def _summary(self, x: Tensor, box: Tensor) -> Tensor:
        """``[N, 4 W]``: mean inside of the box, mean and largest of the window, and the difference in to out."""
        x = x.float()
        ramp = self.trunk.ramp
        inside = ((ramp > box[:, 0, None]) & (ramp < box[:, 2, None]))[:, None, None, :]
        inside = inside & ((ramp > box[:, 1, None]) & (ramp < box[:, 3, None]))[:, None, :, None]
        weight = inside.float()
        mean = x.mean((2, 3))
        within = (x * weight).sum((2, 3)) / weight.sum((2, 3)).clamp(min=1)
        return torch.cat((within, mean, x.amax((2, 3)), within - mean), dim=-1)


def _spread(edges: Tensor, places: Tensor) -> Tensor:
    """``[N, 4]`` how unsure each edge is: the standard deviation of its distribution, in bins."""
    share = edges.softmax(-1)
    mean = (share * places).sum(-1, keepdim=True)
    return (share * (places - mean) ** 2).sum(-1).clamp(min=1e-12).sqrt() * len(places)


def _place(box: Tensor, found: Tensor, size: Tensor) -> Tensor:
    """``[N, 10]``: how far the edges would move, the box's share of its window, its overlap with where it would go."""
    side = (box[:, 2:] - box[:, :2]).clamp(min=1e-3).repeat(1, 2)
    moved = ((found - box) / side).clamp(-3, 3)
    logs = size.clamp(min=1e-3).log() / 4 - 1
    return torch.cat(
        (moved, box[:, 2:] - box[:, :2], aligned_iou(box, found)[:, None], logs, moved.abs().sum(-1, True)), -1
    )


class ReferenceHead(nn.Module):
    """The reference: the features of the box on a grid, four layers, offsets of at most ``reach`` pixels.

    Hidden 256, 128, 64, dropout 0.2 and 0.1, last layer from a normal of 0.01. It knows no quality: all is believed.
    """

    def __init__(self, channels: Sequence[int], *, grid: int = 7, reach: float = 50.0) -> None:
        super().__init__()
        self.grid, self.reach = grid, reach
        self.mlp = nn.Sequential(
            nn.Linear(sum(channels) * grid * grid, 256),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(256, 128),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Linear(128, 64),
            nn.ReLU(),
            nn.Linear(64, 4),
        )
        nn.init.normal_(self.mlp[8].weight, std=0.01)  # type: ignore[arg-type]
        nn.init.zeros_(self.mlp[8].bias)  # type: ignore[arg-type]

    def forward(self, pooled: Sequence[Tensor]) -> Tensor:
        """``[N, D, G, G]`` of every level to ``[N, 4]`` pixels by which the edges move, within ``-reach..reach``."""
        every = torch.cat([level.flatten(1) for level in pooled], dim=1)
        return torch.tanh(self.mlp(every)).float() * self.reach
