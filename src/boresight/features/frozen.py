"""The one place through which frozen features go: computed once for an image, read from a store ever after."""

from __future__ import annotations

import hashlib
import weakref
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from boresight.core.types import Scene
from boresight.features.clip import FrozenClip
from boresight.features.dense import DenseFeatures
from boresight.features.dense_methods import DEFAULT
from boresight.features.feature_store import DiskStore, FeatureStore, MemoryStore, Named
from boresight.features.resample import resampled, resampled_batch

__all__ = [
    "DiskStore",
    "FeatureStore",
    "FrozenFeatures",
    "MemoryStore",
    "image_key",
    "resampled",
    "resampled_batch",
]

_remembered: dict[int, tuple[weakref.ref[Tensor], int, str]] = {}


def image_key(image: Tensor) -> str:
    """Hash of an image's shape, type and bytes: 32 hex digits.

    A tensor object that lives on is hashed once; writing into it with torch is noticed (not through another library
    that shares its memory).
    """
    version = -1 if image.is_inference() else image._version
    found = _remembered.get(id(image))
    if found is not None and found[0]() is image and found[1] == version and version >= 0:
        return found[2]
    held = image.detach().cpu().contiguous()
    digest = hashlib.blake2b(f"{held.dtype} {tuple(held.shape)};".encode(), digest_size=16)
    digest.update(held.reshape(-1).view(torch.uint8).numpy().data)
    key = digest.hexdigest()
    place = id(image)

    def forget(reference: weakref.ref[Tensor]) -> None:
        if place in _remembered and _remembered[place][0] is reference:
            del _remembered[place]

    _remembered[place] = (weakref.ref(image, forget), version, key)
    return key


class FrozenFeatures:
    """Features of scenes by ``clip``, through ``store``.

    A view of a scene (a crop, a mirror image: ``scene.view``) gets the features of its *source*; reading them in the
    frame of the view is :func:`boresight.features.resample.resampled`. So no augmentation costs a pass of the encoder.

    Args:
        clip: the encoder.
        store: keeps the features; the key holds the encoder's fingerprint, these settings and the image's hash.
        method, average, size, window, overlap, layers: as for :meth:`boresight.features.clip.FrozenClip.encode`.
        batch: images of one size that are encoded together.
    """

    def __init__(
        self,
        clip: FrozenClip,
        store: FeatureStore,
        *,
        method: str = DEFAULT,
        average: int = 1,
        size: int | None = None,
        window: int | None = None,
        overlap: float = 0.5,
        layers: Sequence[int] = (),
        batch: int = 8,
    ) -> None:
        self.clip, self.store, self.batch = clip, store, batch
        self.method, self.average, self.size = method, average, size
        self.window, self.overlap, self.layers = window, overlap, tuple(layers)
        settings = repr((method, average, size, window, float(overlap), self.layers))
        self._prefix = f"{clip.fingerprint}-{hashlib.blake2b(settings.encode(), digest_size=8).hexdigest()}"

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenFeatures:
        return self  # a copy of a detector reads the same store

    def key(self, image: Tensor) -> str:
        """Under which the features of this image are kept."""
        return f"{self._prefix}-{image_key(image)}"

    def __call__(self, scenes: Sequence[Scene]) -> list[DenseFeatures]:
        """Features of each scene's source image, each with a leading dimension of 1, on the encoder's device."""
        images = [(scene.view.source if scene.view is not None else scene).image for scene in scenes]
        keys = [self.key(image) for image in images]
        by_key = dict(zip(keys, images, strict=True))  # two views of one source are one item
        fresh = self._computed({key: image for key, image in by_key.items() if key not in self.store})

        def compute(key: str) -> Named:
            if key in fresh:
                return fresh.pop(key)
            return self._encode([by_key[key]])[0]  # the store had promised it, and its file was damaged

        kept = {key: DenseFeatures.from_tensors(self.store.get(key, partial(compute, key))) for key in by_key}
        return [kept[key].to(self.clip.device) for key in keys]

    def _computed(self, missing: dict[str, Tensor]) -> dict[str, Named]:
        """Features of the missing images, those of equal size together."""
        groups: dict[tuple[int, ...], list[str]] = defaultdict(list)
        for key, image in missing.items():
            groups[tuple(image.shape)].append(key)
        found: dict[str, Named] = {}
        for keys in groups.values():
            for start in range(0, len(keys), self.batch):
                part = keys[start : start + self.batch]
                found.update(zip(part, self._encode([missing[key] for key in part]), strict=True))
        return found

    def _encode(self, images: Sequence[Tensor]) -> list[Named]:
        features = self.clip.encode(
            torch.stack(list(images)),
            method=self.method,
            average=self.average,
            size=self.size,
            window=self.window,
            overlap=self.overlap,
            layers=self.layers,
        )
        return [features[i].tensors() for i in range(len(images))]
