"""Trainable encoders of raw RGB images: pixels in 0..255 to a pyramid of features."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boresight.core.errors import UserError, did_you_mean
from boresight.features import clip_weights
from boresight.features.pyramid import TopDown

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


class NormalisedRgb(nn.Module):
    """Brings raw pixels into the range that an encoder was made for.

    Args:
        body: ``[B, 3, H, W]`` normalised to ``{level: features}``.
        mean, std: of each channel, in grey values.
        bgr: the encoder reads the channels in reverse order (``mean`` and ``std`` are given in its order).
        shrink: 1, 2 or 4: blocks of so many pixels a side are averaged first. Centres stay where they are, the levels
            that come back count from the raw pixels (level 3 of ``body`` is level 4 at a shrink of 2), and objects much
            larger than what the encoder sees at once fit into its view, for a quarter of the time.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        body: nn.Module,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        *,
        bgr: bool = False,
        shrink: int = 1,
    ) -> None:
        super().__init__()
        self.body, self.bgr, self.shrink = body, bgr, shrink
        self.deeper = shrink.bit_length() - 1
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        channels: dict[int, int] = body.channels  # type: ignore[assignment]
        self.channels = {level + self.deeper: count for level, count in channels.items()}

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        """``[B, 3, H, W]`` float in 0..255 to the pyramid of ``body``."""
        image = image.flip(1) if self.bgr else image
        if self.shrink > 1:
            image = F.avg_pool2d(image, self.shrink, ceil_mode=True, count_include_pad=False)
        found: dict[int, Tensor] = self.body((image - self.mean) / self.std)
        return {level + self.deeper: features for level, features in found.items()}


class _Fire(nn.Module):
    """Squeeze by 1x1, expand by 1x1 and 3x3 (Iandola et al. 2016); torchvision's parameter names."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat((self.expand1x1(x), self.expand3x3(x)), dim=1))


FIRES = {
    3: (96, 16, 64),
    4: (128, 16, 64),
    5: (128, 32, 128),
    7: (256, 32, 128),
    8: (256, 48, 192),
    9: (384, 48, 192),
    10: (384, 64, 256),
    12: (512, 64, 256),
}
"""torchvision's ``squeezenet1_0``: index in ``features`` to inputs, squeeze and expand channels."""

STAGES = {2: (3, 4, 5), 3: (7, 8, 9, 10), 4: (12,)}
"""Level to its modules; a pooling of stride 2 stands before each."""


class SqueezePyramid(nn.Module):
    """SqueezeNet 1.0 with ImageNet weights, under a top-down path.

    Convolution and poolings are padded here, unlike in torchvision, so that a feature lies where its pixels are. The
    original loses 11 pixels of the border, and the middle of what a cell sees lies 5.5 pixels from the middle of the
    cell at stride 8. A window of odd length cannot lie on the middle of two pixels: the first convolution is half a
    pixel low, and the poolings, in turn a pixel of theirs high and low, leave 0.5, 1.5 and 2.5 pixels at strides 4, 8
    and 16 (all of one kind would add up to 1.5, 3.5 and 7.5).

    Args:
        weights: a ``.npz`` file or state dict file with torchvision's parameter names; None starts from scratch.
        channels: of every level.
        finest: the finest level to return, 2 (stride 4) or 3 (stride 8).
        frozen: the backbone stays as it was given.
    """

    def __init__(self, weights: str | None, channels: int, *, finest: int = 3, frozen: bool = False) -> None:
        super().__init__()
        self.features = nn.ModuleDict({"0": nn.Conv2d(3, 96, 7, stride=2, padding=3)})
        self.features.update({str(i): _Fire(*sizes) for i, sizes in FIRES.items()})
        self.frozen = frozen
        if weights is not None:
            self._load(weights)
        if frozen:
            self.features.requires_grad_(False)
        outputs = {level: 2 * FIRES[stage[-1]][2] for level, stage in STAGES.items() if level >= finest}
        self.top_down = TopDown(outputs, channels)
        self.channels = self.top_down.channels

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        """``[B, 3, H, W]`` to ``{level: [B, channels, H / 2^level, W / 2^level]}``."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            found = self.stages(image)
        return self.top_down({level: found[level] for level in self.top_down.channels})

    def stages(self, image: Tensor) -> dict[int, Tensor]:
        """What the backbone itself gives at levels 2, 3 and 4 (256, 512 and 512 channels)."""
        x = F.relu(self.features["0"](image))
        found: dict[int, Tensor] = {}
        for level, stage in STAGES.items():
            x = _pooled(x, before=level % 2)
            for i in stage:
                x = self.features[str(i)](x)
            found[level] = x
        return found

    def _load(self, file: str) -> None:
        weights = {k: v for k, v in read_weights(file).items() if k.startswith("features.")}
        want = {f"features.{k}": v for k, v in self.features.state_dict().items()}
        for name, value in want.items():
            if name not in weights:
                raise UserError(f"{file}: weight `{name}` is missing{did_you_mean(name, weights)}")
            if weights[name].shape != value.shape:
                shapes = f"{list(weights[name].shape)}, squeezenet1_0 has {list(value.shape)}"
                raise UserError(f"{file}: weight `{name}` has shape {shapes}: weights of another network")
        self.features.load_state_dict({k.removeprefix("features."): weights[k] for k in want})


def _pooled(x: Tensor, *, before: int) -> Tensor:
    """The largest of 3x3 values (0 or more), stride 2: ``ceil(n / 2)`` windows, the first begins at -before."""
    rows, columns = x.shape[-2:]
    after = 1 - before
    return F.max_pool2d(F.pad(x, (before, after + columns % 2, before, after + rows % 2)), 3, stride=2)


def read_weights(file: str) -> dict[str, Tensor]:
    """Arrays by name from ``.npz``, safetensors or a weights-only pickle; UserError names a file that is not one."""
    path = Path(file)
    if path.suffix != ".npz":
        try:
            return clip_weights.read_weights(path)
        except UserError as error:
            raise UserError(f"encoder.{error}") from error
    if not path.is_file():
        raise UserError(f"encoder.weights={file}: no such file")
    try:
        with path.open("rb") as stream:  # numpy would leave a damaged file open
            arrays = np.load(stream, allow_pickle=False)
            return {k: torch.from_numpy(arrays[k]).float() for k in arrays.files}
    except (
        OSError,
        ValueError,
        EOFError,
        KeyError,
        TypeError,
        AttributeError,
        NotImplementedError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"encoder.weights={file}: cannot be read ({reason})") from error
