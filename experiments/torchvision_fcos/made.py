"""Made images for a detector that must train in minutes on a CPU: coloured rectangles on noise, as COCO files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from boresight.run.record import write_json

CLASSES = ("red", "green", "blue")
SIZE = (120, 160)
"""Rows and columns."""


def write_made(root: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """Write ``images/`` and a COCO file for each split into ``root``, the same for the same seed; returns ``root``.

    Images hold up to four rectangles of 16 to 55 px that do not overlap; the class is the colour.
    """
    rng = np.random.default_rng(seed)
    (root / "images").mkdir(parents=True, exist_ok=True)
    for split, count in counts.items():
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for i in range(1, count + 1):
            pixels, boxes = _image(rng)
            name = f"{split}{i}.png"
            Image.fromarray(pixels).save(root / "images" / name)
            images.append({"id": i, "file_name": name, "height": SIZE[0], "width": SIZE[1]})
            for label, x, y, w, h in boxes:
                row = {"id": len(annotations) + 1, "image_id": i, "category_id": label + 1, "iscrowd": 0}
                annotations.append(row | {"bbox": [x, y, w, h], "area": w * h})
        names = [{"id": k + 1, "name": name} for k, name in enumerate(CLASSES)]
        write_json(root / f"{split}.json", {"images": images, "annotations": annotations, "categories": names})
    return root


def _image(rng: np.random.Generator) -> tuple[Any, list[tuple[int, int, int, int, int]]]:
    """``[H, W, 3]`` uint8 and its boxes: label, x, y, width, height."""
    rows, columns = SIZE
    pixels = rng.integers(90, 140, (rows, columns, 3)).astype(np.uint8)
    boxes: list[tuple[int, int, int, int, int]] = []
    for _ in range(int(rng.integers(2, 5))):
        w, h = (int(n) for n in rng.integers(16, 56, 2))
        x, y, label = int(rng.integers(0, columns - w)), int(rng.integers(0, rows - h)), int(rng.integers(len(CLASSES)))
        if any(x < u + c and u < x + w and y < v + d and v < y + h for _, u, v, c, d in boxes):
            continue
        colour = np.full(3, 60)
        colour[label] = 220
        pixels[y : y + h, x : x + w] = colour + rng.integers(-20, 20, (h, w, 3))
        boxes.append((label, x, y, w, h))
    return pixels, boxes
