"""Finds what is asked for in images of any size; writes COCO JSON, a table, overlays, and GeoJSON where it can."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from boresight.core.errors import UserError
from boresight.core.types import Detections, Scene
from boresight.data.image_files import image_files
from boresight.data.raster import Raster
from boresight.detectors.text_query import TextQuery
from boresight.run.boxes import query_texts
from boresight.run.found_boxes import find_boxes
from boresight.run.predict import forget_features, load_trained
from boresight.run.record import RunFolder
from boresight.run.tighten import Tightener
from boresight.run.tiles import BOXES_SHARE, shared
from boresight.run.windows import detect_windows, tighten_windows


def predict_boxes(
    run: RunFolder,
    images: Sequence[str],
    out: Path,
    *,
    queries: Sequence[str] = (),
    threshold: float | None = None,
    overlays: Path | None = None,
    which: str = "last",
    window: int = 1024,
    refiner: RunFolder | None = None,
    refine_threshold: float | None = None,
    quiet: bool = True,
) -> dict[str, Any]:
    """Find ``queries`` (the trained classes when there are none) in images.

    Writes ``out`` (COCO results; ``image_id`` counts the images from 1 in the order of their names, ``category_id`` the
    queries from 1), a CSV of the same name with names instead of numbers, and, beside them, GeoJSON for images with a
    georeference.

    Args:
        run: a run of ``text`` or ``localise``.
        images: files, folders or patterns.
        out: where the results go.
        queries: what to look for; ``a|b`` are synonyms. The name of a trained class stands for the query that it was
            trained with.
        threshold: instead of the one chosen on validation.
        overlays: a folder for pictures with boxes.
        which: the checkpoint.
        window: images larger than this are looked at in overlapping windows of that side, pixels; TIFF files of more
            than 67 million pixels are also read so.
        refiner: a run of `refine` that tightens what was found, and scores it by how well it is thought to fit.
        refine_threshold: confidence from which it replaces a box, instead of its own.
        quiet: no progress.

    Raises UserError for an image that training would refuse as well, and for a run that takes no queries.
    """
    image_files(list(images))  # a path that leads nowhere is told before anything is loaded
    trained = load_trained(run, which)
    detector, names = trained.detector, tuple(queries) or trained.checkpoint.classes
    if not isinstance(detector, TextQuery):
        raise UserError(f"{run.root}: a run of `{trained.checkpoint.detector}` finds points and takes no queries")
    classes = trained.checkpoint.classes
    asked = dict(zip(classes, query_texts(classes, trained.settings.data.queries), strict=True))
    detector.ask([asked.get(name, name) for name in names])  # a trained class by its name is asked as it was trained
    threshold = trained.checkpoint.threshold if threshold is None else threshold
    tightener = Tightener.of(refiner, threshold=refine_threshold) if refiner is not None else None
    forget_features(detector)
    if tightener is not None:
        forget_features(tightener.detector)

    overlap = shared(window, detector.divisor, BOXES_SHARE)

    def find(pixels: np.ndarray | Raster, name: str, number: int) -> Detections:
        picture = pixels if isinstance(pixels, Raster) else Scene(torch.from_numpy(pixels), name, number)
        kept = detect_windows(detector, picture, window=window, overlap=overlap, step=detector.divisor, least=threshold)
        if tightener is None:
            return kept
        if isinstance(picture, Raster):
            return tighten_windows(tightener, picture, kept, names, window=window, margin=overlap)
        return tightener.detections(picture, kept, names)

    told = find_boxes(find, images, out, names=names, overlays=overlays, quiet=quiet)
    refined = {"refined_by": str(refiner.root)} if refiner is not None else {}
    return {**told, **refined, "threshold": threshold}
