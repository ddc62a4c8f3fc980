"""Finds what is asked for in images of any size; writes COCO JSON, a table, overlays, and GeoJSON where it can."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from boresight.core.errors import UserError
from boresight.core.types import Detections, Scene
from boresight.data.points import image_folder
from boresight.data.rgb_image import read_rgb
from boresight.detectors.text_query import TextQuery
from boresight.run.boxes import query_texts
from boresight.run.geo import geojson
from boresight.run.predict import load_trained
from boresight.run.progress import Progress
from boresight.run.record import RunFolder, write_atomic, write_text
from boresight.run.results import box_results
from boresight.run.tighten import Tightener
from boresight.run.windows import detect_windows

COLOURS = ((64, 224, 144), (255, 176, 32), (96, 176, 255), (255, 96, 144), (208, 144, 255), (240, 240, 96))


def split_queries(text: str) -> tuple[str, ...]:
    """``"ship, red aircraft"`` as ``("ship", "red aircraft")``; UserError for an empty one."""
    parts = tuple(part.strip() for part in text.split(","))
    if not all(parts):
        raise UserError(f"--queries `{text}`: an empty query; write them like `ship,red aircraft`")
    return parts


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
        window: images larger than this are read in overlapping windows of that side, pixels.
        refiner: a run of `refine` that tightens what was found, and scores it by how well it is thought to fit.
        refine_threshold: confidence from which it replaces a box, instead of its own.
        quiet: no progress.

    Raises UserError for an image that training would refuse as well, and for a run that takes no queries.
    """
    frames = image_folder(list(images)).frames
    trained = load_trained(run, which)
    detector, names = trained.detector, tuple(queries) or trained.checkpoint.classes
    if not isinstance(detector, TextQuery):
        raise UserError(f"{run.root}: a run of `{trained.checkpoint.detector}` finds points and takes no queries")
    classes = trained.checkpoint.classes
    asked = dict(zip(classes, query_texts(classes, trained.settings.data.queries), strict=True))
    detector.ask([asked.get(name, name) for name in names])  # a trained class by its name is asked as it was trained
    threshold = trained.checkpoint.threshold if threshold is None else threshold
    tightener = Tightener.of(refiner, threshold=refine_threshold) if refiner is not None else None
    found: list[Detections] = []
    geo: list[Path | None] = []
    drawn: list[Path] = []
    pictures = picture_names([f.name for f in frames])
    with Progress(len(frames), label="predict", quiet=quiet) as bar:
        for number, (frame, picture) in enumerate(zip(frames, pictures, strict=True), start=1):
            scene = Scene(read_rgb(frame.image), frame.name, number)
            every = detect_windows(detector, scene, window=window, overlap=min(256, window // 4))
            kept = every.select(every.scores >= threshold)
            found.append(kept if tightener is None else tightener.detections(scene, kept, names))
            geo.append(write_places(frame.image, found[-1], names, out, f"{number}-{Path(frame.name).stem}"))
            if overlays is not None:
                draw(overlays / picture, scene, found[-1], names)
                drawn.append(overlays / picture)
            bar.step(1)
    return {
        "images": len(frames),
        **({"refined_by": str(refiner.root)} if refiner is not None else {}),
        "detections": sum(len(d) for d in found),
        "queries": list(names),
        "threshold": threshold,
        **write_found(out, [f.name for f in frames], found, names),
        "geojson": [str(path) for path in geo if path is not None],
        "overlays": [str(path) for path in drawn],
    }


def write_found(out: Path, images: Sequence[str], found: Sequence[Detections], names: Sequence[str]) -> dict[str, str]:
    """COCO results and a CSV beside them; where each lies, as ``out`` and ``csv``."""
    table, out = out.with_suffix(".csv"), out.with_suffix(".json") if out.suffix.lower() == ".csv" else out
    results = box_results(range(1, len(images) + 1), found, 0.0, range(1, len(names) + 1))
    write_text(out, json.dumps(results, allow_nan=False) + "\n")
    write_csv(table, images, found, names)
    return {"out": str(out), "csv": str(table)}


def picture_names(images: Sequence[str]) -> list[str]:
    """A name for the picture of each image: its own, with the number of the image where two share it."""
    stems = [Path(name).stem for name in images]
    count = Counter(stems)
    return [f"{s}.png" if count[s] == 1 else f"{i}-{s}.png" for i, s in enumerate(stems, start=1)]


def write_places(image: Path, found: Detections, names: Sequence[str], out: Path, suffix: str) -> Path | None:
    """GeoJSON beside ``out`` for a georeferenced image; its path, or None for any other image."""
    if (places := geojson(image, found, names)) is None:
        return None
    path = out.with_name(f"{out.stem}-{suffix}.geojson")
    write_text(path, json.dumps(places, allow_nan=False) + "\n")
    return path


def write_csv(path: Path, images: Sequence[str], found: Sequence[Detections], names: Sequence[str]) -> None:
    """``image,query,score,x0,y0,x1,y1,cell`` with a row a detection; the header stands there when nothing was found."""

    def write(partial: Path) -> None:
        with open(partial, "w", newline="", encoding="utf-8") as file:
            out = csv.writer(file)
            out.writerow(["image", "query", "score", "x0", "y0", "x1", "y1", "cell"])
            for image, d in zip(images, found, strict=True):
                columns = (d.labels.tolist(), d.scores.tolist(), d.boxes.tolist(), d.cell.tolist())
                for label, score, box, cell in zip(*columns, strict=True):
                    out.writerow([image, names[label], f"{score:.6f}", *(f"{v:.2f}" for v in box), cell])

    write_atomic(path, write)


def draw(path: Path, scene: Scene, found: Detections, names: Sequence[str]) -> None:
    """The image with a box, its query and its score for every detection."""
    from PIL import Image, ImageDraw

    picture = Image.fromarray(scene.image.permute(1, 2, 0).numpy())
    pen = ImageDraw.Draw(picture)
    for (x0, y0, x1, y1), label, score in zip(
        found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True
    ):
        colour = COLOURS[label % len(COLOURS)]
        pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=colour, width=2)
        pen.text((x0 + 2, y0 - 11 if y0 > 11 else y1 + 1), f"{names[label]} {score:.2f}", fill=colour)
    write_atomic(path, lambda p: picture.save(p, format="PNG"))
