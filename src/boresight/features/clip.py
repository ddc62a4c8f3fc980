"""A frozen CLIP: images and texts to features, with its preprocessing, its fingerprint and a count of its work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from boresight.core.errors import UserError
from boresight.features.clip_tower import Tower, TowerOutput, tower_of, unit
from boresight.features.clip_windows import Mosaic, encoded_size, window_cells, window_starts
from boresight.features.dense import DenseFeatures
from boresight.features.dense_methods import DEFAULT, Method

EXTRACTION_VERSION = 1
"""Raised when the code computes other features from the same weights, so that stored ones are not taken for them."""


@dataclass(frozen=True)
class Preprocess:
    """What a CLIP wants done to pixels. It travels with the encoder.

    Attributes:
        mean, std: of each channel, for pixels in [0, 1] (the default is OpenAI's, which nearly all models use).
        size: the square size it was trained at, pixels.
        interpolation: ``bicubic`` or ``bilinear``, always antialiased.
    """

    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    size: int = 224
    interpolation: str = "bicubic"

    def __call__(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """``[B, 3, H, W]`` raw pixels (0..255, any type) resized to ``size`` and normalised, float32."""
        x = image.float()
        if tuple(x.shape[-2:]) != size:
            x = F.interpolate(x, size=size, mode=self.interpolation, antialias=True, align_corners=False)
            x = x.clamp(0, 255)  # bicubic overshoots at edges
        mean, std = (x.new_tensor(v)[:, None, None] for v in (self.mean, self.std))
        return (x / 255 - mean) / std


def _towers(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Both towers' settings with open_clip's defaults filled in, so that leaving one out makes no difference."""
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg

    towers = [asdict(CLIPVisionCfg(**config["vision_cfg"])), asdict(CLIPTextCfg(**config["text_cfg"]))]
    where_from = ("hf_model_pretrained", "timm_model_pretrained", "tokenizer_kwargs")
    return [{k: v for k, v in tower.items() if k not in where_from} for tower in towers]


class FrozenClip:
    """An open_clip model in eval mode that no optimiser can reach.

    It is a plain object and not a ``nn.Module``: held by a detector it is neither in ``parameters()`` nor in
    ``state_dict()``, and a deep copy of the detector (an average of weights, say) shares it.

    Attributes:
        model: the open_clip model.
        name, activation, preprocess, notes: how it was loaded; ``notes`` are sentences for the user.
        tokenizer: open_clip's.
        dim: channels of the space that images and texts share.
        width, patch, depth: of the visual tower (:class:`boresight.features.clip_tower.Tower`).
        calls: image passes so far, one for every image and window. A second epoch on stored features adds none.
        fingerprint: hash of all that decides the features, when loaded; :meth:`measured_fingerprint` says it of now.
    """

    def __init__(
        self,
        model: Any,
        *,
        tokenizer: Any,
        preprocess: Preprocess,
        name: str,
        activation: str,
        config: Mapping[str, Any],
        notes: Sequence[str] = (),
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer, self.preprocess, self.name, self.activation = tokenizer, preprocess, name, activation
        self.config, self.notes = dict(config), tuple(notes)
        self.tower: Tower = tower_of(model.visual)
        self.dim, self.width, self.patch, self.depth = (
            self.tower.dim,
            self.tower.width,
            self.tower.patch,
            self.tower.depth,
        )
        self.calls = 0
        self.fingerprint = self.measured_fingerprint()

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenClip:
        return self

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> FrozenClip:
        """Move to a device; returns itself."""
        self.model.to(device)
        return self

    def measured_fingerprint(self) -> str:
        """Hash of names, types, shapes and bytes of all parameters and buffers now, and of what else decides features.

        The rest is the architecture, the activation, the preprocessing and ``EXTRACTION_VERSION``. 32 hex digits; the
        same on every device. Equal to ``fingerprint`` unless somebody wrote into the model.
        """
        about = (EXTRACTION_VERSION, _towers(self.config), self.activation, asdict(self.preprocess))
        digest = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=16)
        for name, value in sorted([*self.model.named_parameters(), *self.model.named_buffers()]):
            held = value.detach().cpu().contiguous()
            digest.update(f"{name} {held.dtype} {tuple(held.shape)};".encode())
            digest.update(held.reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def channels(self, layers: Sequence[int]) -> int:
        """Channels of ``DenseFeatures.layers`` for these layers."""
        return self.tower.channels(layers)

    @torch.no_grad()
    def encode(
        self,
        image: Tensor,
        *,
        method: str | Method = DEFAULT,
        average: int = 1,
        size: int | None = None,
        window: int | None = None,
        overlap: float = 0.5,
        layers: Sequence[int] = (),
    ) -> DenseFeatures:
        """Dense features of images.

        Args:
            image: ``[B, 3, H, W]`` raw pixels 0..255, uint8 or float, of any size.
            method: how aligned features are read (:mod:`boresight.features.dense_methods`).
            average: from how many of the last layers, averaged.
            size: the short side is resized to this many pixels (the long one in proportion), both rounded up to a
                multiple of ``patch``. None: the image's own size, rounded up. Positions are interpolated to fit.
            window: side in pixels (rounded up to a multiple of ``patch``) of square windows that are encoded one by
                one, for images much larger than those of the training; None: the image at once.
            overlap: share of a window that the next one covers again, in [0, 1). Where windows overlap, their features
                are averaged with weights that fall off towards the borders.
            layers: raw intermediate features wanted: blocks counted from the end, 1 is the last (of a ResNet: stages,
                5 is the stem).

        Returns:
            :class:`DenseFeatures` on this encoder's device. An image's features do not depend on the others in the
            batch.
        """
        if image.ndim != 4 or image.shape[1] != 3 or 0 in image.shape[-2:]:
            raise ValueError(f"image must be [B, 3, H, W], not empty, got {list(image.shape)}")
        height, width = encoded_size(int(image.shape[2]), int(image.shape[3]), size, self.patch)
        pixels = self.preprocess(image.to(self.device), (height, width))
        grid = (height // self.patch, width // self.patch)
        rows, columns, step = window_cells(window, overlap, self.patch, grid)
        starts = [(r, c) for r in window_starts(grid[0], rows, step) for c in window_starts(grid[1], columns, step)]
        if len(starts) == 1:
            return DenseFeatures(*self._pass(pixels, method, average, layers))
        aligned, raw, pooled = Mosaic(grid), Mosaic(grid), []
        for r, c in starts:
            cut = pixels[..., r * self.patch : (r + rows) * self.patch, c * self.patch : (c + columns) * self.patch]
            out = self._pass(cut, method, average, layers)
            aligned.add(out.aligned, r, c)
            raw.add(out.layers, r, c)
            pooled.append(out.pooled)
        return DenseFeatures(aligned.mean(), raw.mean(), unit(torch.stack(pooled).mean(dim=0)))

    def _pass(self, pixels: Tensor, method: str | Method, average: int, layers: Sequence[int]) -> TowerOutput:
        self.calls += len(pixels)
        return self.tower.dense(pixels, method, average, layers)

    @property
    def context_length(self) -> int:
        """Tokens that a text may have, start and end included."""
        return int(self.model.context_length)

    def tokenize(self, texts: Sequence[str], length: int | None = None) -> Tensor:
        """``[T, length]`` token ids (``context_length`` when not given); what is longer is cut by the tokenizer."""
        tokens = self.tokenizer(list(texts), context_length=length or self.context_length)
        return torch.as_tensor(tokens)

    @torch.no_grad()
    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """``[T, context_length]`` token ids to ``[T, D]`` unit vectors; UserError for an id beyond the vocabulary."""
        vocabulary = getattr(self.model, "vocab_size", None)
        if vocabulary is not None and tokens.numel() and int(tokens.max()) >= vocabulary:
            raise UserError(
                f"clip={self.name}: its tokenizer gives id {int(tokens.max())}, its text tower knows {vocabulary}"
                " words; the tokenizer in its configuration is not the one it was trained with"
            )
        return unit(self.model.encode_text(tokens.to(self.device)).float())
