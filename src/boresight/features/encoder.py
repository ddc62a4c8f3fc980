"""What a frozen image encoder is to everything above it: images in, feature maps out, and a hash of all that made them.

An encoder is a plain object and no ``nn.Module``: held by a detector it is neither in ``parameters()`` nor in
``state_dict()``, and no optimiser can reach it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from boresight.core.device import sent

LIBRARIES = ("torch", "timm", "transformers", "open_clip")
"""Keys of `FrozenEncoder.about` that hold a library's version."""


@dataclass(frozen=True, slots=True)
class FeatureMaps:
    """Frozen features of one image, at one or several resolutions.

    Attributes:
        levels: each ``[D, h, w]``, floating point, from fine to coarse.
        extents: ``[L, 2]`` float32, ``(height, width)`` in pixels of the image that the map of each level covers: cell
            ``(i, j)`` of ``h x w`` covers ``[j W / w, (j + 1) W / w] x [i H / h, (i + 1) H / h]``, pixel frame. It may
            reach beyond the image at the bottom and at the right, where the encoder padded it.
    """

    levels: tuple[Tensor, ...]
    extents: Tensor

    def __post_init__(self) -> None:
        shapes = [list(level.shape) for level in self.levels]
        if not shapes or any(len(s) != 3 for s in shapes) or self.extents.shape != (len(shapes), 2):
            raise ValueError(
                f"FeatureMaps need levels [D,h,w] and extents [L,2], got {shapes}, {list(self.extents.shape)}"
            )

    def tensors(self) -> dict[str, Tensor]:
        """As named tensors, the form in which a store keeps them."""
        return {"extents": self.extents} | {f"level{i}": level for i, level in enumerate(self.levels)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> FeatureMaps:
        """Inverse of :meth:`tensors`; KeyError for a missing name."""
        return cls(tuple(tensors[f"level{i}"] for i in range(len(tensors) - 1)), tensors["extents"])

    def to(self, device: torch.device | str) -> FeatureMaps:
        """On another device."""
        return FeatureMaps(tuple(sent(v, device) for v in self.levels), sent(self.extents, device))


class FrozenEncoder(Protocol):
    """An image encoder that is never trained.

    Attributes:
        name: as the user gave it.
        about: everything that decides the features, as plain JSON: classes, versions of libraries, hash of weights and
            buffers, output layers, input size, resizing, padding, normalisation, types, version of the extraction code.
        channels: of every level, from fine to coarse.
        strides: of every level, pixels of an image a cell, where the encoder takes an image at its own scale; nominal
            (of the encoder's input) where it resizes images.
        calls: images encoded so far. A second epoch on stored features adds none.
        notes: sentences for the user.
    """

    name: str
    about: dict[str, Any]
    channels: tuple[int, ...]
    strides: tuple[float, ...]
    calls: int
    notes: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """Hash of ``about``: equal for equal features."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        ...

    def identity(self) -> str:
        """Hash of the weights as they are now and of the settings, whatever the versions of libraries.

        What was trained on these features relies on it: an upgrade moves features by rounding and makes the store
        compute them again, but no checkpoint worthless.
        """
        ...

    def to(self, device: torch.device | str) -> FrozenEncoder:
        """Move to a device; returns itself."""
        ...

    def encode(self, images: Sequence[Tensor]) -> list[FeatureMaps]:
        """Features of images ``[3, H, W]`` of raw pixels 0..255, uint8 or float, of any sizes, on this device."""
        ...


def weights_hash(module: nn.Module) -> str:
    """Hash of names, types, shapes and bytes of all parameters and buffers, kept in checkpoints or not; 32 hex digits.

    The same on every device.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted([*module.named_parameters(), *module.named_buffers()]):
        held = value.detach().cpu().contiguous()
        digest.update(f"{name} {held.dtype} {tuple(held.shape)};".encode())
        digest.update(held.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def fingerprint_of(about: Mapping[str, Any]) -> str:
    """Hash of a description in plain JSON, whatever the order of its keys: 32 hex digits."""
    return hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=16).hexdigest()
