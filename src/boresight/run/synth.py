"""Writes made frames to a folder that ``data.source: csv`` reads back."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from boresight.core.errors import UserError
from boresight.data.sky_settings import preset
from boresight.data.skyfield import Skyfield
from boresight.run.progress import Progress
from boresight.run.record import write_atomic


def write_skyfield(root: Path, *, preset_name: str, count: int, seed: int, quiet: bool = True) -> dict[str, Any]:
    """Write ``images/*.png`` (16-bit, raw values) and ``points.csv`` (``image,x,y,snr,flux,ignore``; pixel frame).

    The table is written last, so a folder with a table is whole. Raises UserError when the folder holds one already.
    """
    sky = preset(preset_name)
    table = root / "points.csv"
    if table.exists():
        raise UserError(f"{table}: exists already; choose another folder, or remove it")
    frames = Skyfield(sky, count=count, seed=seed)
    rows = []
    with Progress(count, label="data synth", quiet=quiet) as bar:
        for i in range(count):
            scene = frames[i]
            picture = Image.fromarray(scene.image[0].numpy().astype(np.uint16))
            name = f"{scene.name}.png"
            write_atomic(root / "images" / name, lambda p, picture=picture: picture.save(p, format="PNG"))  # type: ignore[misc]
            points = scene.points
            assert points is not None
            assert points.snr is not None
            assert points.flux is not None
            columns = zip(
                points.xy.tolist(), points.snr.tolist(), points.flux.tolist(), points.ignore.tolist(), strict=True
            )
            rows += [[name, f"{x:.4f}", f"{y:.4f}", f"{s:.3f}", f"{f:.2f}", int(g)] for (x, y), s, f, g in columns]
            bar.step(1)

    def write(partial: Path) -> None:
        with open(partial, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["image", "x", "y", "snr", "flux", "ignore"], *rows])

    write_atomic(table, write)
    return {"root": str(root), "frames": count, "targets": len(rows), "preset": preset_name, "seed": seed}
