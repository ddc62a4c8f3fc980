"""Frozen feature maps of scenes, computed once an image and read from a store ever after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from boresight.core.types import Scene
from boresight.features.encoder import FeatureMaps, FrozenEncoder
from boresight.features.feature_store import FeatureStore, Named
from boresight.features.image_hash import image_key


class StoredMaps:
    """Maps of scenes by ``encoder``, through ``store``.

    A view of a scene gets the maps of its *source*: no augmentation costs a pass of the encoder.

    Args:
        encoder: the frozen encoder.
        store: keeps the maps; the key holds the encoder's fingerprint and the image's hash.
        batch: images that are encoded together.
    """

    def __init__(self, encoder: FrozenEncoder, store: FeatureStore, *, batch: int = 1) -> None:
        self.encoder, self.store, self.batch = encoder, store, batch
        store.describe(encoder.fingerprint, {"encoder": encoder.name, **encoder.about})

    def __deepcopy__(self, memo: dict[int, Any]) -> StoredMaps:
        return self  # a copy of a detector reads the same store

    def __call__(self, scenes: Sequence[Scene]) -> list[FeatureMaps]:
        """Maps of each scene's source image, on the encoder's device."""
        images = [(scene.view.source if scene.view is not None else scene).image for scene in scenes]
        keys = [f"{self.encoder.fingerprint}-{image_key(image)}" for image in images]
        by_key = dict(zip(keys, images, strict=True))

        def compute(missing: list[str]) -> list[Named]:
            return [maps.tensors() for maps in self.encoder.encode([by_key[key] for key in missing])]

        kept = dict(zip(by_key, self.store.get_many(list(by_key), compute, batch=self.batch), strict=True))
        found = {key: FeatureMaps.from_tensors(item).to(self.encoder.device) for key, item in kept.items()}
        return [found[key] for key in keys]

    def stored_and_fresh(self, scene: Scene) -> tuple[Named, Named]:
        """Maps of a whole image by name: as the store gives them, and as the encoder makes them now."""
        [fresh] = self.encoder.encode([scene.image])
        return self([scene])[0].tensors(), fresh.tensors()
