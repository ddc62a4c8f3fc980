"""Runs a trained detector over frames, and writes what it finds as CSV and COCO JSON."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from boresight.core.errors import UserError
from boresight.core.types import Detections
from boresight.data.points import image_folder
from boresight.detectors.detector import Detector
from boresight.run.checkpoint import Checkpoint, check_frozen, load_checkpoint, load_weights
from boresight.run.detect import detect
from boresight.run.parse import settings_from
from boresight.run.recipe import Frames, Recipe
from boresight.run.recipes import recipe
from boresight.run.record import RunFolder, write_atomic, write_text
from boresight.run.results import detection_rows, point_results


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


def write_csv(path: Path, rows: Sequence[dict[str, Any]], classes: Sequence[str]) -> None:
    """``image,x,y,score,class`` with a row a detection; the header stands there when nothing was found."""

    def write(partial: Path) -> None:
        with open(partial, "w", newline="", encoding="utf-8") as file:
            out = csv.writer(file)
            out.writerow(["image", "x", "y", "score", "class"])
            for row in rows:
                place = [f"{row['x']:.3f}", f"{row['y']:.3f}", f"{row['score']:.6f}"]
                out.writerow([row["image"], *place, classes[row["category_id"]]])

    write_atomic(path, write)


def write_coco(path: Path, rows: Sequence[dict[str, Any]], side: float = 3.0) -> None:
    """COCO results: a list of ``image_id, category_id, bbox, score`` (and ``point``), categories counted from 1."""
    write_text(path, json.dumps(point_results(rows, side), allow_nan=False) + "\n")


def draw_overlays(folder: Path, frames: Frames, found: Sequence[Detections], threshold: float) -> list[Path]:
    """Each frame as a PNG, contrast stretched, with a ring around every detection of at least ``threshold``."""
    from PIL import Image, ImageDraw

    written = []
    stems = Counter(Path(name).stem for name in frames.names)
    for i, detections in enumerate(found):
        scene = frames[i]
        gray = ((scene.image[0] - scene.level) / scene.spread * 40 + 80).clamp(0, 255).byte().numpy()
        picture = Image.fromarray(gray).convert("RGB")
        pen = ImageDraw.Draw(picture)
        for (x, y), score in zip(detections.xy.tolist(), detections.scores.tolist(), strict=True):
            if score >= threshold:
                pen.ellipse((x - 7, y - 7, x + 6, y + 6), outline=(64, 224, 144))
                pen.text((x + 8, y - 6), f"{score:.2f}", fill=(64, 224, 144))
        stem = Path(scene.name).stem  # where images share one, their number in the results tells them apart
        path = folder / (f"{stem}.png" if stems[stem] == 1 else f"{i + 1}-{stem}.png")
        write_atomic(path, lambda p, picture=picture: picture.save(p, format="PNG"))  # type: ignore[misc]
        written.append(path)
    return written


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
    rows = detection_rows(frames.names, found, threshold)
    table, out = out.with_suffix(".csv"), out.with_suffix(".json") if out.suffix.lower() == ".csv" else out
    write_coco(out, rows)
    write_csv(table, rows, trained.checkpoint.classes)
    drawn = draw_overlays(overlays, frames, found, threshold) if overlays else []
    return {
        "images": len(frames),
        "detections": len(rows),
        "threshold": threshold,
        "out": str(out),
        "csv": str(table),
        "overlays": [str(p) for p in drawn],
    }
