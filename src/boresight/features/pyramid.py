"""Feature pyramids: what a head reads, as ``{level: [B, C, H, W]}`` with level ``k`` at stride ``2^k``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Protocol

import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from boresight.core.errors import UserError
from boresight.features.clip_weights import check_pickle
from boresight.features.whole_weights import check_whole, loaded_tensors


class Pyramid(Protocol):
    """What a head asks of an encoder: a module with the channels it gives at every level."""

    channels: dict[int, int]

    def __call__(self, image: Tensor) -> dict[int, Tensor]:
        """``[B, 1, H, W]`` normalised pixels to ``{level: [B, C, ceil(H / 2^level), ceil(W / 2^level)]}``."""
        ...


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, SiLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.SiLU(inplace=True),
    )


class _Residual(nn.Module):
    """Two convolutions around which the input passes unchanged."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x + self.second(self.first(x)))


class TopDown(nn.Module):
    """Feature pyramid network (Lin et al. 2017): coarse levels say what, passed down and added to fine ones."""

    def __init__(self, inputs: dict[int, int], channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleDict({str(k): nn.Conv2d(c, channels, 1) for k, c in inputs.items()})
        self.smooth = nn.ModuleDict({str(k): _conv(channels, channels) for k in inputs})
        self.channels = dict.fromkeys(inputs, channels)

    def forward(self, features: dict[int, Tensor]) -> dict[int, Tensor]:
        """``{level: [B, C_level, H, W]}`` to the same levels and sizes, all with ``channels`` channels."""
        out: dict[int, Tensor] = {}
        above: Tensor | None = None
        for level in sorted(features, reverse=True):
            x = self.lateral[str(level)](features[level])
            if above is not None:
                x = x + F.interpolate(above, size=x.shape[-2:], mode="nearest")
            above = out[level] = self.smooth[str(level)](x)
        return out


class SmallPyramid(nn.Module):
    """The built-in encoder: about 0.1 M parameters, made for targets of two or three pixels.

    The image is folded 2x2 into channels (nothing is thrown away by striding over a target of two pixels) and goes
    through residual stages at strides 2, 4, 8 and 16; a top-down path returns context to the fine levels.

    Args:
        widths: channels of the stages at strides 2, 4, 8, 16.
        channels: channels of every level of the pyramid.
        finest: the finest level to return, 1 (stride 2) or 2 (stride 4).
    """

    def __init__(
        self, widths: Sequence[int] = (16, 24, 32, 40), channels: int = 24, *, finest: int = 1, inputs: int = 1
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), _conv(4 * inputs, widths[0]))
        stages, last = [], widths[0]
        for i, width in enumerate(widths):
            down = [] if i == 0 else [_conv(last, width, stride=2)]
            stages.append(nn.Sequential(*down, _Residual(width)))
            last = width
        self.stages = nn.ModuleList(stages)
        self.finest = finest
        self.top_down = TopDown({i + 1: w for i, w in enumerate(widths) if i + 1 >= finest}, channels)
        self.channels = self.top_down.channels

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        """``[B, inputs, H, W]`` pixels to ``{level: [B, channels, ceil(H / 2^level), ceil(W / 2^level)]}``."""
        height, width = image.shape[-2:]
        if height % 2 or width % 2:  # the fold needs pairs of pixels
            image = F.pad(image, (0, width % 2, 0, height % 2), mode="replicate")
        x = self.stem(image)
        features: dict[int, Tensor] = {}
        for level, stage in enumerate(self.stages, start=1):
            x = stage(x)
            if level >= self.finest:
                features[level] = x
        return self.top_down(features)


def _check_pickle(weights: str, group: str) -> None:
    try:
        check_pickle(Path(weights))
    except UserError as error:
        raise UserError(f"{group}.{error}") from error


class TimmPyramid(nn.Module):
    """Any timm backbone with ``features_only``, under the same top-down path.

    Args:
        name: a timm model name (``resnet18``, ``convnext_atto``, ...).
        pretrained: load timm's weights (needs the network or timm's cache).
        weights: a file with the backbone's weights instead (timm loads it: safetensors, or a weights-only pickle).
        finest, coarsest: levels kept, those of them that the backbone has.
        frozen: the backbone is not trained, its batch statistics included; the path above it is.
        group: of settings to which ``name`` and ``weights`` belong, for messages.

    Raises UserError, one line, for a name, a file or levels that cannot be used, and for weights that the file lacks.
    """

    def __init__(
        self,
        name: str,
        *,
        pretrained: bool = False,
        weights: str | None = None,
        channels: int = 64,
        finest: int = 1,
        coarsest: int = 4,
        inputs: int = 1,
        frozen: bool = False,
        group: str = "encoder",
    ) -> None:
        super().__init__()
        import timm  # six seconds to import: only who asks for it pays

        file = "" if weights is None else f", {group}.weights={weights}"
        if weights is not None and not Path(weights).is_file():
            raise UserError(f"{group}.weights={weights}: no such file")
        try:
            info = timm.create_model(name, features_only=True, in_chans=inputs).feature_info
            strides = info.reduction()
            found = zip(info.out_indices, strides, strict=True)  # some models do not count from 0
            levels = {r.bit_length() - 1: i for i, r in found}
            wanted = sorted(k for k in levels if finest <= k <= coarsest)
            if not wanted:
                raise UserError(f"{group}.name={name} has strides {strides}: none of 2^{finest}..2^{coarsest}")
            if weights is not None:
                _check_pickle(weights, group)
            with loaded_tensors() as loaded:
                self.body = timm.create_model(
                    name,
                    features_only=True,
                    pretrained=pretrained or weights is not None,
                    in_chans=inputs,
                    out_indices=[levels[k] for k in wanted],  # stages beyond would cost time and never get a gradient
                    **({"pretrained_cfg_overlay": {"file": weights}} if weights else {}),
                )
        except (RuntimeError, ValueError, OSError, AttributeError, SafetensorError, UnpicklingError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(f"{group}.name={name}{file}: timm cannot build it ({reason})") from error
        if pretrained or weights is not None:
            check_whole(self.body, loaded, f"{group}.name={name}{file or ': its pretrained weights'}")
        self.top_down = TopDown(dict(zip(wanted, self.body.feature_info.channels(), strict=True)), channels)
        self.channels = self.top_down.channels
        self.frozen = frozen
        if frozen:
            self.body.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> TimmPyramid:
        """Training mode for what is trained: a frozen backbone's batch statistics stay as they are."""
        super().train(mode)
        if self.frozen:
            self.body.eval()
        return self

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        """``[B, inputs, H, W]`` to ``{level: [B, channels, H / 2^level, W / 2^level]}``, rounded as timm does."""
        return self.top_down(dict(zip(self.channels, self.body(image), strict=True)))
