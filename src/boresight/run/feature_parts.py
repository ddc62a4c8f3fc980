"""The frozen encoder and the store that feature settings name."""

from __future__ import annotations

from boresight.core.errors import UserError
from boresight.features.cache import FeatureCache
from boresight.features.cache_audit import clear
from boresight.features.cache_disk import recipe_of
from boresight.features.encoder import FrozenEncoder
from boresight.features.encoders import load_encoder
from boresight.features.feature_store import FeatureStore, MemoryStore
from boresight.run.config_refine import FeatureSettings
from boresight.run.frames import expanded


def frozen_encoder(settings: FeatureSettings) -> FrozenEncoder:
    """The encoder, loaded and frozen."""
    weights = None if settings.weights is None else str(expanded(settings.weights, "features.weights"))
    return load_encoder(
        settings.name,
        weights,
        levels=settings.levels,
        layers=settings.layers,
        size=settings.size,
        window=settings.window,
        precision=settings.precision,
        batch=settings.batch,
    )


def feature_store(settings: FeatureSettings) -> FeatureStore:
    """Where frozen features are kept."""
    return MemoryStore(settings.store_mb) if settings.store == "memory" else disk_store(settings)


def disk_store(settings: FeatureSettings) -> FeatureCache:
    """The store in the folder that is named; UserError where none is."""
    if not settings.store_folder:
        raise UserError("`features.store_folder` is empty: name the folder in which features are kept on disk")
    folder = expanded(settings.store_folder, "features.store_folder")
    return FeatureCache(folder, limit_mb=settings.store_mb, storage=settings.storage)


def forget(settings: FeatureSettings) -> int:
    """Take away what the store on disk holds of this encoder in this storage; how many items went."""
    store = disk_store(settings)
    recipe = recipe_of(frozen_encoder(settings).fingerprint, settings.storage)
    return clear(store.folder, recipe=recipe).items if (store.folder / "items" / recipe).is_dir() else 0
