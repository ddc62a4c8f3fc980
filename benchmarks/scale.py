"""Time and memory of what must not outgrow the machine: large images, and data sets of a million images.

    python benchmarks/scale.py predict  [--sides 5000 10000 20000] [--window 1024] [--system text|point]
    python benchmarks/scale.py evaluate [--images 10000 100000 1000000] [--found 20] [--replicates 200]

`predict` draws tiled TIFF files of the given sides, block by block, and looks at them in windows (`boresight predict
RUN image.tif`) with a detector of `text` or `point`, trained for two steps: enough to take its time and memory.
The threshold is 0: everything that the detector says is kept. Images up to 67 megapixels are read whole.
`evaluate` writes two Parquet tables of made truth and detections (`--found` of them an image, 7.3 objects an image, 80
classes) and diagnoses them (`boresight diagnose --annotations a.parquet --predictions d.parquet`).

Every size runs in a process of its own, on one thread. Memory is the most that the process held, less what it held when
the work began (imports, and of `predict` the detector). Made files go to a temporary folder and are removed.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

OBJECTS, CLASSES = 7.3, 80


def memory(field: str) -> float:
    """``VmHWM``, the most that this process has held, or ``VmRSS``, what it holds, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def alone(words: list[str]) -> dict[str, float]:
    """This script in a process of its own; what its last line says."""
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


# --- large images ----------------------------------------------------------------------------------------------------


def draw_tiff(file: Path, side: int) -> None:
    """Water with a ship now and then, drawn block by block."""
    import rasterio
    from rasterio.windows import Window

    rng = np.random.default_rng(side)
    about = {"driver": "GTiff", "width": side, "height": side, "count": 3, "dtype": "uint8", "compress": "deflate"}
    place = {"crs": "EPSG:32631", "transform": rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 4_600_000)}
    with rasterio.open(file, "w", tiled=True, blockxsize=256, blockysize=256, **about, **place) as out:
        for top in range(0, side, 1024):
            for left in range(0, side, 1024):
                tall, wide = min(1024, side - top), min(1024, side - left)
                block = rng.integers(30, 60, (3, tall, wide), dtype=np.uint8)
                y, x = rng.integers(0, max(1, min(tall, wide) - 40), 2)
                block[:, y : y + 12, x : x + 36] = np.array([200, 40, 40], np.uint8)[:, None, None]
                out.write(block, window=Window(left, top, wide, tall))


def trained(folder: Path, system: str) -> Path:
    """A run of that system, two steps long."""
    words = ["--data.frames", "8", "--data.val_frames", "2", "--data.test_frames", "2", "--train.steps", "2"]
    words += ["--train.batch", "2", "--train.validate_every", "0"]
    words += ["--clip.size", "224"] if system == "text" else []
    command = [sys.executable, "-m", "boresight", "train", system, "--runs", str(folder), "--name", "r", "--quiet"]
    subprocess.run([*command, *words], check=True, capture_output=True)
    return folder / "r"


def predict_one(run: Path, image: Path, window: int, system: str) -> dict[str, float]:
    """Predict one image in this process, after a small one that brings everything into memory."""
    from boresight.run.predict import predict_images
    from boresight.run.predict_boxes import predict_boxes
    from boresight.run.record import RunFolder

    find: Any = predict_boxes if system == "text" else predict_images
    small, out = image.with_name("small.tif"), image.with_name("out.json")
    draw_tiff(small, 2 * window)
    find(RunFolder(run), [str(small)], out, window=window, threshold=0.0)
    before, began, cpu = memory("VmHWM"), time.monotonic(), time.process_time()
    told = find(RunFolder(run), [str(image)], out, window=window, threshold=0.0)
    took, used = time.monotonic() - began, time.process_time() - cpu
    more = {"before": before, "peak": memory("VmHWM"), "found": told["detections"]}
    return {"seconds": took, "cpu": used, **more}


def predict(sides: list[int], window: int, system: str) -> None:
    columns = ("side", "megapixels", "file MB", "CPU s", "s", "found", "before MiB", "peak MiB")
    print("".join(f"{name:>12}" for name in columns))
    with tempfile.TemporaryDirectory() as place:
        run = trained(Path(place), system)
        for side in sides:
            image = Path(place) / f"{side}.tif"
            draw_tiff(image, side)
            told = alone(["--predict", str(run), str(image), str(window), system])
            row = (side, side**2 / 1e6, image.stat().st_size / 1e6)
            row += tuple(told[name] for name in ("cpu", "seconds", "found", "before", "peak"))
            print("".join(f"{value:>12.0f}" for value in row), flush=True)
            image.unlink()


# --- large data sets -------------------------------------------------------------------------------------------------


def write_tables(folder: Path, images: int, found: float, seed: int = 0) -> None:
    """Both tables, ten thousand images at a time: detections near objects, of other classes, doubles, and strays."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.full(CLASSES, 0.5)) * 0.9 + 0.1 / CLASSES
    categories = json.dumps([{"id": k + 1, "name": f"class {k}"} for k in range(CLASSES)])
    writers: dict[str, pq.ParquetWriter] = {}

    def write(name: str, columns: dict[str, pa.Array]) -> None:
        table = pa.table(columns).replace_schema_metadata({"categories": categories})
        if name not in writers:
            writers[name] = pq.ParquetWriter(folder / f"{name}.parquet", table.schema)
        writers[name].write_table(table)

    for first in range(0, images, 10_000):
        count = min(10_000, images - first)
        n, m = (rng.poisson(mean * count) for mean in (OBJECTS, found))
        image, label = np.sort(rng.integers(count, size=n)), rng.choice(CLASSES, n, p=share)
        size = np.exp(rng.normal(4, 0.7, (n, 2))).clip(6, 400)
        corner = rng.uniform(0, 1, (n, 2)) * (640 - size)
        near = rng.integers(n, size=m)
        spread = rng.choice((0.05, 0.3), m)[:, None]
        side = size[near] * np.exp(rng.normal(0, 1, (m, 2)) * spread)
        boxes = np.hstack((corner[near] + size[near] * rng.normal(0, 0.5, (m, 2)) * spread, side))
        stray = rng.random(m) < 0.3
        boxes[stray, :2] = rng.uniform(0, 600, (int(stray.sum()), 2))
        said = np.where(rng.random(m) < 0.1, rng.integers(CLASSES, size=m), label[near])
        score = np.where(stray, rng.beta(1, 5, m), rng.beta(4, 2, m))
        order = np.argsort(image[near], kind="stable")
        empty = np.setdiff1d(np.arange(count), image)
        rows = np.argsort(np.append(image, empty), kind="stable")
        none = np.append(np.zeros(n, bool), np.ones(len(empty), bool))[rows]
        truth = np.vstack((np.hstack((corner, size)), np.zeros((len(empty), 4))))[rows]
        columns = {"image_id": pa.array(np.append(image, empty)[rows] + first + 1)}
        columns["category_id"] = pa.array(np.append(label + 1, np.zeros(len(empty), np.int64))[rows], mask=none)
        columns |= {k: pa.array(truth[:, i], mask=none) for i, k in enumerate(("x", "y", "width", "height"))}
        write("a", columns | {"iscrowd": pa.array(rng.random(len(rows)) < 0.01)})
        columns = {"image_id": pa.array(image[near][order] + first + 1), "category_id": pa.array(said[order] + 1)}
        columns |= {k: pa.array(boxes[order, i]) for i, k in enumerate(("x", "y", "width", "height"))}
        write("d", columns | {"score": pa.array(score[order])})
    for writer in writers.values():
        writer.close()


def evaluate_one(folder: Path, replicates: int) -> dict[str, float]:
    """Diagnose both tables in this process."""
    from boresight.data.box_tables import BoxTables
    from boresight.diagnose.of_tables import Parts

    before, began, cpu = memory("VmHWM"), time.monotonic(), time.process_time()
    tables = BoxTables(folder / "a.parquet", folder / "d.parquet")
    parts, found, truths = Parts(tables.classes), 0, 0
    for part in tables.images():
        parts.add(part)
        found, truths = found + len(part.score), truths + len(part.crowd)
    matched, held = time.process_time() - cpu, memory("VmHWM")
    coco = parts.coco.figures()
    told = parts.diagnosis(threshold=None, replicates=replicates, seed=0)
    figures = {"ap": coco.ap, "ap50": told.attribution.ap.value}
    used = {"seconds": time.monotonic() - began, "cpu": time.process_time() - cpu, "matched": matched}
    return {
        **used,
        "before": before,
        "streamed": held,
        "peak": memory("VmHWM"),
        "found": found,
        "truths": truths,
        **figures,
    }


def evaluate(sizes: list[int], found: float, replicates: int) -> None:
    columns = ("images", "truths", "detections", "files MB", "CPU s", "matching", "s", "before MiB", "matched MiB")
    print("".join(f"{name:>13}" for name in (*columns, "peak MiB", "AP", "AP50")))
    for images in sizes:
        with tempfile.TemporaryDirectory() as place:
            write_tables(Path(place), images, found)
            size = sum(file.stat().st_size for file in Path(place).iterdir()) / 1e6
            told = alone(["--evaluate", place, str(replicates)])
        row = (images, told["truths"], told["found"], size)
        row += tuple(told[name] for name in ("cpu", "matched", "seconds", "before", "streamed", "peak"))
        figures = f"{told['ap']:>13.3f}{told['ap50']:>13.3f}"
        print("".join(f"{value:>13.0f}" for value in row) + figures, flush=True)


def main() -> None:
    if sys.argv[1:2] == ["--predict"]:
        return print(json.dumps(predict_one(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), sys.argv[5])))
    if sys.argv[1:2] == ["--evaluate"]:
        return print(json.dumps(evaluate_one(Path(sys.argv[2]), int(sys.argv[3]))))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    works = parser.add_subparsers(dest="work")
    large = works.add_parser("predict")
    large.add_argument("--sides", type=int, nargs="+", default=[5000, 10_000, 20_000])
    large.add_argument("--window", type=int, default=1024)
    large.add_argument("--system", choices=["text", "point"], default="text")
    many = works.add_parser("evaluate")
    many.add_argument("--images", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    many.add_argument("--found", type=float, default=20.0, help="detections an image")
    many.add_argument("--replicates", type=int, default=200)
    args = parser.parse_args()
    if args.work == "predict":
        return predict(args.sides, args.window, args.system)
    if args.work == "evaluate":
        return evaluate(args.images, args.found, args.replicates)
    evaluate([1000, 10_000], 20.0, 50)  # both, small, where everything is run in turn
    return predict([9000], 1024, "text")


if __name__ == "__main__":
    main()
