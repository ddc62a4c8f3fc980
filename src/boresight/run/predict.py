"""Loads a trained detector, and finds points in images of any size with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from boresight.core.errors import UserError
from boresight.core.types import Detections
from boresight.data.image_files import image_files
from boresight.data.raster import Raster
from boresight.detectors.detector import Detector
from boresight.detectors.gaussian_point import GaussianPoint
from boresight.features.feature_store import MemoryStore
from boresight.run.checkpoint import Checkpoint, check_frozen, load_checkpoint, load_weights
from boresight.run.found_points import find_points
from boresight.run.parse import settings_from
from boresight.run.recipe import Recipe
from boresight.run.recipes import recipe
from boresight.run.record import RunFolder
from boresight.run.tiles import POINTS_SHARE, reach_of, shared
from boresight.run.windows import detect_peaks


@dataclass(frozen=True)
class Trained:
    """A detector with its weights, ready to run.

    Attributes:
        detector: in inference mode.
        settings: of the run.
        checkpoint: with the threshold that was chosen on the validation frames.
    """

    detector: Detector
    settings: Any
    checkpoint: Checkpoint


def load_trained(
    run: RunFolder, which: str = "last", *, expect: str | None = None, kind: Recipe | None = None
) -> Trained:
    """Rebuild the detector of a run from one of its checkpoints (``last`` or ``best``), by ``kind`` or our own recipe.

    Raises:
        UserError: no such checkpoint, a damaged one, or one of another detector (``expect``).
    """
    path = run.checkpoints / f"{which}.safetensors"
    checkpoint = load_checkpoint(path)
    if expect is not None and checkpoint.detector != expect:
        raise UserError(
            f"{path}: a checkpoint of detector `{checkpoint.detector}`, not of `{expect}`; give a run of that kind"
        )
    return rebuilt(checkpoint, path, kind)


def rebuilt(checkpoint: Checkpoint, path: Path, kind: Recipe | None = None) -> Trained:
    """The detector of a checkpoint, by ``kind`` or our own recipe; ``path`` is told in errors.

    Raises UserError for settings, weights or a frozen encoder that do not fit.
    """
    try:
        kind = kind or recipe(checkpoint.detector)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    settings: Any = settings_from(kind.settings, checkpoint.settings, origin=str(path))
    # the checkpoint holds every weight of the encoder: what it began from need not be on this machine
    bare = settings
    if hasattr(settings, "encoder"):
        bare = replace(settings, encoder=replace(settings.encoder, weights=None, pretrained=False))
    detector = kind.build(bare, checkpoint.classes)
    check_frozen(detector, checkpoint, path)
    load_weights(detector, checkpoint, path=path, detector=checkpoint.detector)
    detector.progress = 1.0
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Trained(detector.eval().to(device).to(memory_format=torch.channels_last), settings, checkpoint)


def forget_features(detector: Detector) -> None:
    """From now on keep no frozen features in memory: of images that are seen once they would only pile up."""
    if isinstance(detector.store, MemoryStore):
        detector.store.limit = 0.0


def predict_images(
    run: RunFolder,
    images: Sequence[str],
    out: Path,
    *,
    threshold: float | None = None,
    overlays: Path | None = None,
    which: str = "last",
    window: int = 1024,
    quiet: bool = True,
) -> dict[str, Any]:
    """Find targets in images; write ``out`` (COCO results) and a CSV of the same name, which names the images.

    ``image_id`` counts the images from 1 in the order of their names. An ``out`` ending in ``.csv`` is the table, the
    COCO results then lie beside it.

    Args:
        run: a run of ``point``.
        images: files, folders or patterns.
        out: where the results go.
        threshold: instead of the one chosen on validation.
        overlays: a folder for pictures with what was found.
        which: the checkpoint.
        window: frames larger than this are looked at in overlapping windows of that side, pixels
            (:func:`boresight.run.window_arrays.detect_peaks`), normalised by the brightness of the whole frame; TIFF
            files of more than 67 million pixels are also read so.
        quiet: no progress.
    """
    image_files(list(images))  # a path that leads nowhere is told before anything is loaded
    trained = load_trained(run, which)
    detector, classes = trained.detector, trained.checkpoint.classes
    if not isinstance(detector, GaussianPoint):
        raise UserError(f"{run.root}: a run of `{trained.checkpoint.detector}` does not find points")
    threshold = trained.checkpoint.threshold if threshold is None else threshold
    overlap, reach = shared(window, detector.divisor, POINTS_SHARE), reach_of(trained.settings.decode.window)

    def find(pixels: np.ndarray | Raster, name: str, light: tuple[float, float]) -> Detections:
        size = {"window": window, "overlap": overlap, "step": detector.divisor}
        return detect_peaks(detector, pixels, name, light, reach=reach, **size, least=threshold)

    return find_points(find, images, out, threshold=threshold, classes=classes, overlays=overlays, quiet=quiet)
