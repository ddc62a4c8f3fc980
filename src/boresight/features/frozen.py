"""The one place through which frozen features go: computed once for an image, read from a store ever after."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from boresight.core.types import Scene
from boresight.features.clip import FrozenClip
from boresight.features.dense import DenseFeatures
from boresight.features.dense_methods import DEFAULT
from boresight.features.encoder import fingerprint_of
from boresight.features.feature_store import FeatureStore, MemoryStore, Named
from boresight.features.image_hash import image_key

__all__ = [
    "FeatureStore",
    "FrozenFeatures",
    "MemoryStore",
    "image_key",
]


class FrozenFeatures:
    """Features of scenes by ``clip``, through ``store``.

    A view of a scene (a crop, a mirror image: ``scene.view``) gets the features of its *source*; reading them in the
    frame of the view is :func:`boresight.features.resample.OnGrid`. So no augmentation costs a pass of the encoder.

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
        about = {
            "encoder": clip.name,
            "weights": clip.fingerprint,
            "method": str(method),
            "average": average,
            "size": size,
            "window": window,
            "overlap": float(overlap),
            "layers": list(self.layers),
        }
        self.recipe = fingerprint_of({k: v for k, v in about.items() if k != "encoder"})  # a name decides nothing
        store.describe(self.recipe, about)

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenFeatures:
        return self  # a copy of a detector reads the same store

    def key(self, image: Tensor) -> str:
        """Under which the features of this image are kept."""
        return f"{self.recipe}-{image_key(image)}"

    def __call__(self, scenes: Sequence[Scene]) -> list[DenseFeatures]:
        """Features of each scene's source image, each with a leading dimension of 1, on the encoder's device."""
        images = [(scene.view.source if scene.view is not None else scene).image for scene in scenes]
        keys = [self.key(image) for image in images]
        by_key = dict(zip(keys, images, strict=True))  # two views of one source are one item

        def compute(missing: list[str]) -> list[Named]:
            found = self._computed({key: by_key[key] for key in missing})
            return [found[key] for key in missing]

        items = self.store.get_many(list(by_key), compute, batch=self.batch)
        kept = {key: DenseFeatures.from_tensors(item) for key, item in zip(by_key, items, strict=True)}
        return [kept[key].to(self.clip.device) for key in keys]

    def stored_and_fresh(self, scene: Scene) -> tuple[Named, Named]:
        """Features of a whole image by name: as the store gives them, and as the encoder makes them now."""
        [fresh] = self._encode([scene.image])
        return self([scene])[0].tensors(), fresh

    def _computed(self, missing: dict[str, Tensor]) -> dict[str, Named]:
        """Features of the missing images, those of equal size together."""
        groups: dict[tuple[int, ...], list[str]] = defaultdict(list)
        for key, image in missing.items():
            groups[tuple(image.shape)].append(key)
        found: dict[str, Named] = {}
        for keys in groups.values():
            found.update(zip(keys, self._encode([missing[key] for key in keys]), strict=True))
        return found

    def _encode(self, images: Sequence[Tensor]) -> list[Named]:
        with torch.autocast(self.clip.device.type, enabled=False):  # a training in bf16 would store other features
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
