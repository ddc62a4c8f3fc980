"""Runs a trained detector over frames, and writes what it finds as CSV and COCO JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from boresight.core.errors import UserError
from boresight.data.points import image_folder
from boresight.detectors.detector import Detector
from boresight.run.checkpoint import Checkpoint, check_frozen, load_checkpoint, load_weights
from boresight.run.detect import detect
from boresight.run.found_points import draw_points, picture_names, write_points
from boresight.run.parse import settings_from
from boresight.run.recipe import Recipe
from boresight.run.recipes import recipe
from boresight.run.record import RunFolder


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


def predict_images(
    run: RunFolder,
    images: Sequence[str],
    out: Path,
    *,
    threshold: float | None = None,
    overlays: Path | None = None,
    which: str = "last",
    quiet: bool = True,
) -> dict[str, Any]:
    """Find targets in images; write ``out`` (COCO results) and a CSV of the same name, which names the images.

    ``image_id`` counts the images from 1 in the order of their names. An ``out`` ending in ``.csv`` is the table, the
    COCO results then lie beside it.
    """
    frames = image_folder(list(images))
    trained = load_trained(run, which)
    threshold = trained.checkpoint.threshold if threshold is None else threshold
    found = detect(trained.detector, frames, quiet=quiet)
    told = write_points(out, frames.names, found, threshold, trained.checkpoint.classes)
    drawn = []
    if overlays is not None:
        drawn = [overlays / name for name in picture_names(frames.names)]
        for i, picture in enumerate(drawn):
            scene = frames[i]
            draw_points(picture, ((scene.image[0] - scene.level) / scene.spread).numpy(), found[i], threshold)
    return {**told, "overlays": [str(p) for p in drawn]}
