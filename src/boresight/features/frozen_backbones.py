"""Frozen convolutional backbones and CLIP towers as encoders of feature maps (:mod:`boresight.features.encoder`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boresight.core.errors import UserError
from boresight.features.clip import FrozenClip
from boresight.features.encoder import LIBRARIES, FeatureMaps, fingerprint_of, weights_hash
from boresight.features.rgb import FIRES, STAGES, SqueezePyramid

VERSION = 2
"""Raised when the code here computes other features from the same weights."""


class FrozenModule:
    """What encoders around a ``nn.Module`` share: it is frozen, found, moved, and never copied.

    Args:
        module: the network; it is put into inference mode.
        name: as the user gave it.
        about: what decides the features, but for weights and versions, which are added.
        channels, strides: of every level.
        batch: images of one size that are encoded together.
        notes: sentences for the user.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str,
        about: dict[str, Any],
        channels: Sequence[int],
        strides: Sequence[float],
        batch: int = 1,
        notes: Sequence[str] = (),
    ) -> None:
        self.module = module.eval().requires_grad_(False)
        self.name, self.batch, self.notes = name, batch, tuple(notes)
        self.about = {
            "class": type(self).__name__,
            "weights": weights_hash(self.module),
            "torch": library_version(torch),
            **about,
        }
        self.channels, self.strides = tuple(channels), tuple(strides)
        self.calls = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenModule:
        return self

    @property
    def fingerprint(self) -> str:
        """Hash of :attr:`about`."""
        return fingerprint_of(self.about)

    def identity(self) -> str:
        """See :class:`~boresight.features.encoder.FrozenEncoder`."""
        settings = {k: v for k, v in self.about.items() if k not in LIBRARIES}
        return fingerprint_of({**settings, "weights": weights_hash(self.module)})

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return next(self.module.parameters()).device

    def to(self, device: torch.device | str) -> FrozenModule:
        """Move to a device; returns itself."""
        self.module.to(device)
        return self

    @torch.no_grad()
    def encode(self, images: Sequence[Tensor]) -> list[FeatureMaps]:
        """Features of images ``[3, H, W]``, raw pixels 0..255; those of one size ``batch`` at a time.

        Raises ValueError for an image of another form and for features that are not finite.
        """
        for i, image in enumerate(images):
            if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
                raise ValueError(f"image {i} must be [3, H, W], not empty, got {list(image.shape)}")
        found: dict[int, FeatureMaps] = {}
        for size in dict.fromkeys(tuple(image.shape) for image in images):
            same = [i for i, image in enumerate(images) if tuple(image.shape) == size]
            for start in range(0, len(same), self.batch):
                part = same[start : start + self.batch]
                pixels = torch.stack([images[i] for i in part]).to(self.device).float()
                self.calls += len(part)
                with torch.autocast(self.device.type, enabled=False):  # a training in bf16 would store other features
                    found_here = self.maps(pixels)
                for i, maps in zip(part, found_here, strict=True):
                    if not all(bool(level.isfinite().all()) for level in maps.levels):
                        raise ValueError(f"{self.name}: the features of image {i} are not finite")
                    found[i] = maps
        return [found[i] for i in range(len(images))]

    def maps(self, pixels: Tensor) -> list[FeatureMaps]:
        """Features of images of one size, ``[B, 3, H, W]`` float32 in 0..255 on the device."""
        raise NotImplementedError


def library_version(library: Any) -> str:
    """Version of a library without what names its build."""
    return str(library.__version__).split("+")[0]


def split_maps(levels: Sequence[Tensor], extents: Sequence[tuple[float, float]]) -> list[FeatureMaps]:
    """``[B, D, h, w]`` of every level, and what each covers in pixels, to maps of single images."""
    place = torch.tensor(extents, dtype=torch.float32)
    return [FeatureMaps(tuple(level[i].contiguous() for level in levels), place) for i in range(len(levels[0]))]


class SqueezeEncoder(FrozenModule):
    """SqueezeNet 1.0 (Iandola et al. 2016), its stages at strides 4, 8 and 16, at the image's own scale.

    Args:
        weights: a file with torchvision's parameter names; pixels are BGR less (104, 117, 123), as its weights want.
        levels: of 2, 3 and 4 (256, 512 and 512 channels).
        size: long side to which images are brought, pixels; 0: as they are.

    Raises UserError for weights that do not fit and levels that it does not have.
    """

    def __init__(self, weights: str | None, levels: Sequence[int] = (3, 4), *, size: int = 0, batch: int = 1) -> None:
        if weights is None:
            raise UserError("features.name=squeezenet: its features would be random; give features.weights=FILE")
        wrong = [level for level in levels if level not in STAGES]
        if wrong or not levels:
            raise UserError(f"features.levels={list(levels)}: squeezenet has 2, 3 and 4")
        self.levels, self.size = tuple(sorted(levels)), size
        about = {"levels": list(self.levels), "size": size, "pixels": "bgr - (104, 117, 123)", "version": VERSION}
        super().__init__(
            SqueezePyramid(weights, 8, frozen=True).features,
            name="squeezenet",
            about=about,
            channels=[2 * FIRES[STAGES[level][-1]][2] for level in self.levels],
            strides=[2.0**level for level in self.levels],
            batch=batch,
        )
        self._net = SqueezePyramid(None, 8, frozen=True)
        self._net.features = self.module  # type: ignore[assignment]

    def maps(self, pixels: Tensor) -> list[FeatureMaps]:
        """See :class:`FrozenModule`."""
        height, width = pixels.shape[-2:]
        pixels = brought(pixels, self.size)
        levels = self.stages(pixels)
        return split_maps(levels, _extents((height, width), pixels, levels, self.levels))

    def stages(self, pixels: Tensor) -> list[Tensor]:
        """Raw pixels ``[B, 3, H, W]`` at their own scale to the levels."""
        mean = pixels.new_tensor([104.0, 117.0, 123.0])[:, None, None]
        found = self._net.stages(pixels.flip(1) - mean)
        return [found[level] for level in self.levels]


def brought(pixels: Tensor, size: int) -> Tensor:
    """``[B, 3, H, W]`` in 0..255 with the long side brought to ``size`` pixels (0: as it is), antialiased."""
    height, width = pixels.shape[-2:]
    scale = size / max(height, width) if size else 1.0
    shape = max(1, round(height * scale)), max(1, round(width * scale))
    if shape == (height, width):
        return pixels
    pixels = F.interpolate(pixels, shape, mode="bicubic", antialias=True, align_corners=False)
    return pixels.clamp(0, 255)  # bicubic overshoots at edges


def _extents(
    image: tuple[int, int], shown: Tensor, maps: Sequence[Tensor], levels: Sequence[int]
) -> list[tuple[float, float]]:
    """What maps of whole cells cover, in pixels of the image: a little more than it, where sides are no multiples."""
    down, across = (have / was for have, was in zip(shown.shape[-2:], image, strict=True))
    return [
        (level.shape[-2] * 2**k / down, level.shape[-1] * 2**k / across) for level, k in zip(maps, levels, strict=True)
    ]


class TimmEncoder(FrozenModule):
    """Any timm backbone with ``features_only``, at the image's own scale or with its long side brought to ``size``.

    Images are padded at the bottom and the right, by repeating the border, to a multiple of the coarsest stride.

    Args:
        name: a timm model name.
        weights: a file (safetensors, or a weights-only pickle); None: timm's own pretrained weights.
        levels: 2 is stride 4, 3 is stride 8, and so on.
        size: long side in pixels; 0: as it is.
        random: allow random weights (for tests of shapes).

    Raises UserError for a name, a file or levels that cannot be used, and for weights that the file lacks.
    """

    def __init__(
        self,
        name: str,
        weights: str | None = None,
        levels: Sequence[int] = (3, 4),
        *,
        size: int = 0,
        batch: int = 1,
        random: bool = False,
    ) -> None:
        import timm  # six seconds to import: only who asks for it pays

        from boresight.features.pyramid import TimmPyramid

        body = TimmPyramid(
            name,
            pretrained=weights is None and not random,
            weights=weights,
            channels=8,
            finest=min(levels, default=0),
            coarsest=max(levels, default=0),
            inputs=3,
            group="features",
        ).body
        found = {
            int(r).bit_length() - 1: c
            for r, c in zip(body.feature_info.reduction(), body.feature_info.channels(), strict=True)
        }
        if missing := [level for level in levels if level not in found]:
            raise UserError(f"features.levels={list(levels)}: {name} has {sorted(found)}, not {missing[0]}")
        self.levels, self.size = tuple(sorted(levels)), size
        self._kept = [sorted(found).index(level) for level in self.levels]
        config = getattr(body, "pretrained_cfg", None) or {}
        self.mean, self.std = (
            tuple(config.get("mean", (0.485, 0.456, 0.406))),
            tuple(config.get("std", (0.229, 0.224, 0.225))),
        )
        about = {
            "timm": library_version(timm),
            "model": name,
            "levels": list(self.levels),
            "size": size,
            "version": VERSION,
        }
        about |= {"mean": list(self.mean), "std": list(self.std)}
        super().__init__(
            body,
            name=f"timm:{name}",
            about=about,
            channels=[found[level] for level in self.levels],
            strides=[2.0**level for level in self.levels],
            batch=batch,
        )

    def maps(self, pixels: Tensor) -> list[FeatureMaps]:
        """See :class:`FrozenModule`."""
        height, width = pixels.shape[-2:]
        pixels = brought(pixels, self.size)
        tall, wide = pixels.shape[-2:]
        step = 2 ** max(self.levels)
        levels = self.stages(F.pad(pixels, (0, -wide % step, 0, -tall % step), mode="replicate"))
        return split_maps(levels, _extents((height, width), pixels, levels, self.levels))

    def stages(self, pixels: Tensor) -> list[Tensor]:
        """Raw pixels ``[B, 3, H, W]``, sides multiples of the coarsest stride, to the levels."""
        mean, std = (pixels.new_tensor(v)[:, None, None] for v in (self.mean, self.std))
        found = self.module((pixels / 255 - mean) / std)
        return [found[k] for k in self._kept]


class ClipEncoder(FrozenModule):
    """The visual tower of a CLIP: raw features of some of its blocks as one map, at the image's own scale.

    Args:
        clip: the model.
        layers: blocks counted from the end, 1 is the last.
        size: short side to which images are brought, pixels; 0: as they are.
        window: side of the overlapping windows in which an image is read; 0: the whole at once.
    """

    def __init__(
        self, clip: FrozenClip, layers: Sequence[int] = (1, 3), *, size: int = 0, window: int = 0, batch: int = 1
    ) -> None:
        if not layers:
            raise UserError("features.layers: empty; name blocks counted from the end, say 1")
        import open_clip

        self.clip, self.layers, self.size, self.window = clip, tuple(sorted(layers)), size, window
        about = {"clip": clip.fingerprint, "layers": list(self.layers), "size": size, "window": window}
        super().__init__(
            clip.model.visual,
            name=clip.name,
            about=about | {"open_clip": library_version(open_clip), "version": VERSION},
            channels=[clip.channels(self.layers)],
            strides=[float(clip.patch)],
            batch=batch,
            notes=clip.notes,
        )

    def to(self, device: torch.device | str) -> ClipEncoder:
        """Move to a device; returns itself."""
        self.clip.to(device)
        return self

    def maps(self, pixels: Tensor) -> list[FeatureMaps]:
        """See :class:`FrozenModule`."""
        found = self.clip.encode(pixels, size=self.size or None, window=self.window or None, layers=self.layers)
        height, width = pixels.shape[-2:]
        return split_maps([found.layers], [(float(height), float(width))])
