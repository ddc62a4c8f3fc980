"""What a frozen encoder says about images, cell by cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from boresight.core.device import sent

_NAMES = ("aligned", "layers", "pooled")


@dataclass(frozen=True, slots=True)
class DenseFeatures:
    """Features of B images of one size, on a map of ``h x w`` cells that share the image evenly between them.

    Cell ``(i, j)`` of an image ``H x W`` covers ``[j W / w, (j + 1) W / w] x [i H / h, (i + 1) H / h]``, pixel frame.

    Attributes:
        aligned: ``[B, D, h, w]`` beside the texts: unit vectors, or the mean of several (layers averaged, windows that
            overlap), so that the product with a text is the mean cosine.
        layers: ``[B, K, h, w]`` raw intermediate features, ``K`` 0 when none was asked for.
        pooled: ``[B, D]`` unit vectors, the image as a whole (with windows: the mean over them, of unit length again).
    """

    aligned: Tensor
    layers: Tensor
    pooled: Tensor

    def __post_init__(self) -> None:
        if self.aligned.ndim != 4 or self.layers.ndim != 4 or self.pooled.shape != self.aligned.shape[:2]:
            shapes = {name: list(value.shape) for name, value in self.tensors().items()}
            raise ValueError(f"DenseFeatures need aligned [B,D,h,w], layers [B,K,h,w], pooled [B,D], got {shapes}")

    def __len__(self) -> int:
        return len(self.aligned)

    def __getitem__(self, index: int | slice) -> DenseFeatures:
        """One image (still with a leading dimension of 1), or several."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"image {index} of {len(self)}")
            index = slice(index % len(self), index % len(self) + 1)
        return DenseFeatures(**{name: value[index] for name, value in self.tensors().items()})

    @property
    def grid(self) -> tuple[int, int]:
        """``(h, w)`` in cells."""
        return int(self.aligned.shape[2]), int(self.aligned.shape[3])

    def tensors(self) -> dict[str, Tensor]:
        """As named tensors, the form in which a store keeps them."""
        return {name: getattr(self, name) for name in _NAMES}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> DenseFeatures:
        """Inverse of :meth:`tensors`; KeyError for a missing name."""
        return cls(**{name: tensors[name] for name in _NAMES})

    @classmethod
    def join(cls, parts: Sequence[DenseFeatures]) -> DenseFeatures:
        """Several of one grid as one batch; ValueError when the grids differ."""
        grids = {part.grid for part in parts}
        if len(grids) != 1:
            raise ValueError(f"features of different grids cannot be one batch: {sorted(grids)}")
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in _NAMES))

    def to(self, device: torch.device | str) -> DenseFeatures:
        """On another device."""
        return DenseFeatures(**{k: sent(v, device) for k, v in self.tensors().items()})
