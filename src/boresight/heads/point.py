"""The head for point targets: a score map and, for every cell, where in the cell the target lies."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boresight.core.grid import cell_centres
from boresight.core.types import DenseOutput

Mode = Literal["single", "fused", "coarse_to_fine"]
Attention = Literal["none", "channel", "spatial", "both"]

OUTSIDE_LOGIT = -12.0
"""What coarse-to-fine says of cells in no window: a score of 6e-6, below any threshold, finite in any loss."""


def prior_bias(prior: float) -> float:
    """``-log((1 - prior) / prior)`` (Lin et al. 2017, section 4.1): a fresh head answers ``prior`` everywhere."""
    return -math.log((1 - prior) / prior)


class ChannelAttention(nn.Module):
    """Squeeze and excitation (Hu et al. 2018)."""

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        hidden = max(4, channels // reduction)
        self.gate = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.SiLU(), nn.Conv2d(hidden, channels, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to the same shape."""
        return x * self.gate(x.mean((-2, -1), keepdim=True))


class SpatialAttention(nn.Module):
    """The spatial half of CBAM (Woo et al. 2018): a gate from the mean and the maximum over channels."""

    def __init__(self, kernel: int = 7) -> None:
        super().__init__()
        self.gate = nn.Conv2d(2, 1, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to the same shape."""
        summary = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), dim=1)
        return x * self.gate(summary).sigmoid()


class DeformableConv(nn.Module):
    """Modulated deformable convolution (Zhu et al. 2019) by torchvision; it starts as a plain convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        from torchvision.ops import DeformConv2d

        self.conv = DeformConv2d(channels, channels, 3, padding=1)
        self.steer = nn.Conv2d(channels, 27, 3, padding=1)
        nn.init.zeros_(self.steer.weight)
        assert self.steer.bias is not None
        nn.init.zeros_(self.steer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to the same shape, in float32 under autocast too: offsets are places."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            steer = self.steer(x)
            return F.silu(self.conv(x, steer[:, :18], 2 * steer[:, 18:].sigmoid()))


def _branch(channels: int, attention: Attention, deformable: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    if attention in ("channel", "both"):
        layers.append(ChannelAttention(channels))
    if attention in ("spatial", "both"):
        layers.append(SpatialAttention())
    if deformable:
        layers.append(DeformableConv(channels))
    layers += [nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.SiLU(inplace=True)]
    return nn.Sequential(*layers)


class PointHead(nn.Module):
    """Score and place on one level of a pyramid, with the coarser levels as helpers.

    Args:
        channels: channels of the pyramid's levels.
        classes: number of classes, C.
        level: the level that emits detections (stride ``2^level``).
        coarse: the level that proposes, for ``fused`` and ``coarse_to_fine``.
        auxiliary: further levels that learn a score map of their own and emit nothing.
        mode: ``single`` reads ``level`` alone. ``fused`` adds the coarse logits to the fine ones (a product of
            experts: the coarse level says where, the fine one exactly where). ``coarse_to_fine`` keeps the fine logits
            only in windows around the ``proposals`` best coarse cells.
        proposals: windows an image. window: their reach in coarse cells.
        attention, deformable: switches, off by default.
        prior: what a fresh head answers everywhere.
    """

    def __init__(
        self,
        channels: dict[int, int],
        *,
        classes: int = 1,
        level: int = 2,
        coarse: int = 4,
        auxiliary: tuple[int, ...] = (),
        mode: Mode = "single",
        proposals: int = 32,
        window: int = 1,
        attention: Attention = "none",
        deformable: bool = False,
        prior: float = 0.01,
    ) -> None:
        super().__init__()
        extra = set(auxiliary) | ({coarse} if mode != "single" else set())
        missing = ({level} | extra) - set(channels)
        if missing:
            raise ValueError(f"the encoder has levels {sorted(channels)}, the head asks for {sorted(missing)} as well")
        if any(k <= level for k in extra):
            raise ValueError(f"auxiliary and coarse levels must be coarser than level {level}, got {sorted(extra)}")
        self.level, self.coarse, self.mode = level, coarse, mode
        self.extra = tuple(sorted(extra))
        self.proposals, self.window, self.classes = proposals, window, classes
        levels = (level, *self.extra)
        self.branch = nn.ModuleDict({str(k): _branch(channels[k], attention, deformable) for k in levels})
        self.score = nn.ModuleDict({str(k): nn.Conv2d(channels[k], classes, 1) for k in levels})
        self.place = nn.Conv2d(channels[level], 2, 1)
        for layer in self.score.values():
            nn.init.normal_(layer.weight, std=0.01)  # type: ignore[arg-type]
            nn.init.constant_(layer.bias, prior_bias(prior))  # type: ignore[arg-type]
        nn.init.normal_(self.place.weight, std=0.01)
        nn.init.zeros_(self.place.bias)  # type: ignore[arg-type]
        if mode == "fused":  # two summed logits would start at twice the prior's bias
            nn.init.zeros_(self.score[str(level)].bias)  # type: ignore[arg-type]

    def forward(self, features: dict[int, Tensor]) -> DenseOutput:
        """Features of every level to the output of ``level``, that of the other levels in ``coarser``."""
        logits = {}
        for k in (self.level, *self.extra):
            branch = self.branch[str(k)](features[k])
            logits[k] = self.score[str(k)](branch)
            if k == self.level:
                place = self.place(branch)
        if self.mode == "fused":
            up = F.interpolate(
                logits[self.coarse], size=logits[self.level].shape[-2:], mode="bilinear", align_corners=False
            )
            logits[self.level] = logits[self.level] + up
        elif self.mode == "coarse_to_fine":
            inside = self._windows(logits[self.coarse], logits[self.level].shape[-2:])
            logits[self.level] = torch.where(inside, logits[self.level], OUTSIDE_LOGIT)
        coarser = tuple(self._output(logits[k], None, k) for k in self.extra)
        main = self._output(logits[self.level], place, self.level)
        return DenseOutput(main.logits, main.boxes, main.stride, coarser=coarser)

    def _output(self, logits: Tensor, place: Tensor | None, level: int) -> DenseOutput:
        """Logits and the shift from each cell's centre, ``[B, 2, H, W]`` cells, as an output in the pixel frame."""
        b, c, h, w = logits.shape
        stride = 2.0**level
        xy = cell_centres(h, w, stride, device=logits.device).expand(b, h, w, 2)
        if place is not None:
            xy = xy + place.permute(0, 2, 3, 1).float() * stride
        boxes = torch.cat((xy, xy), dim=-1)
        return DenseOutput(logits.float(), boxes[:, None].expand(b, c, h, w, 4), stride)

    def _windows(self, coarse: Tensor, size: torch.Size) -> Tensor:
        """``[B, C, H, W]`` bool of the fine map: within ``window`` coarse cells of one of the best coarse cells."""
        flat = coarse.detach().flatten(2)
        best = flat.topk(min(self.proposals, flat.shape[-1]), dim=-1).indices
        chosen = torch.zeros_like(flat).scatter_(-1, best, 1.0).view_as(coarse)
        grown = F.max_pool2d(chosen, 2 * self.window + 1, stride=1, padding=self.window)
        return F.interpolate(grown, size=size, mode="nearest") > 0
