"""What each kind of error costs: ours beside tidecv and hotcoco, on the same two COCO files, round by round.

    python benchmarks/errors.py [--images 5000] [--classes 80] [--found 150000] [--decimals 2] [--rounds 3] [--seed 0]

tidecv is no dependency: `pip install tidecv`, or unpack its wheel (1.0.1, with seaborn and appdirs) into a folder and
name that in PYTHONPATH. Without it the others are compared alone. Each works on one thread, and seconds are those of
the processor. A round runs each in turn on files that are read already; printed are medians over the rounds. The time
of reading and the most memory held come from a process of its own (beside it what its imports alone hold).

With `--decimals` the scores are rounded: among equal scores tidecv ranks false alarms first in what it has repaired,
and every gain comes out too low. Three objects by hand follow the figures: a false alarm on the border of a crowd,
which covers 0.3 of it. It overlaps no object, so it is background; hotcoco takes the crowd for one and says Loc.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAYON_NUM_THREADS", "1")

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rounds import Row, interleaved, row

Gains = dict[str, float]
Run = Callable[[], Gains]
KINDS = ("AP", "Cls", "Loc", "Both", "Dupe", "Bkg", "Miss", "FalsePos", "FalseNeg")
OBJECTS_AN_IMAGE = 7.3  # as in COCO's validation images


def ours(truth: Path, found: Path, replicates: int = 0) -> Run:
    from boresight.diagnose.attribution import attribute_errors
    from boresight.diagnose.coco_files import coco_files

    files = coco_files(truth, found)

    def run() -> Gains:
        result = attribute_errors(files.boxes, files.classes, replicates=replicates)
        every = {"AP": result.ap} | {g.kind: g.alone for g in (*result.kinds, *result.special)}
        return {kind: 100 * (figure.value or 0.0) for kind, figure in every.items()}

    return run


def tidecv(truth: Path, found: Path) -> Run:
    import matplotlib as mpl

    mpl.use("Agg")
    from tidecv import TIDE, Data

    content, results = json.loads(truth.read_text()), json.loads(found.read_text())
    gt, dt = Data("truth"), Data("found")
    for category in content["categories"]:
        gt.add_class(category["id"], category["name"])
    for image in content["images"]:
        gt.add_image(image["id"], image["file_name"])
    for a in content["annotations"]:
        add = gt.add_ignore_region if a["iscrowd"] else gt.add_ground_truth
        add(a["image_id"], a["category_id"], a["bbox"])
    for d in results:
        dt.add_detection(d["image_id"], d["category_id"], d["score"], d["bbox"])

    def run() -> Gains:
        tide = TIDE()
        done = tide.evaluate(gt, dt, mode=TIDE.BOX)
        return {"AP": done.ap} | {k: v for part in tide.get_all_errors().values() for k, v in part["found"].items()}

    return run


def hotcoco(truth: Path, found: Path) -> Run:
    from hotcoco import COCO, COCOeval

    gt = COCO(str(truth))
    dt = gt.load_res(str(found))

    def run() -> Gains:
        judge = COCOeval(gt, dt, "bbox")
        judge.evaluate()
        told = judge.tide_errors()
        gains = told["delta_ap"] | {"AP": told["ap_base"]}
        return {{"FP": "FalsePos", "FN": "FalseNeg"}.get(k, k): 100 * v for k, v in gains.items()}

    return run


CONTENDERS: dict[str, Callable[[Path, Path], Run]] = {
    "boresight": ours,
    "boresight, 200 replicates": partial(ours, replicates=200),
    "tidecv": tidecv,
    "hotcoco": hotcoco,
}


def synthetic(
    folder: Path, images: int, classes: int, count: int, seed: int, decimals: int | None = None
) -> tuple[Path, Path]:
    """A detector that makes every kind of error, some classes rare, one object in a hundred a crowd."""
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.full(classes, 0.5)) * 0.9 + 0.1 / classes
    n = int(images * OBJECTS_AN_IMAGE)
    image, label = np.sort(rng.integers(images, size=n)), rng.choice(classes, n, p=share)
    size = np.exp(rng.normal(4, 0.7, (n, 2))).clip(6, 400)
    corner = rng.uniform(0, 1, (n, 2)) * (640 - size)
    # Which objects, how far from them, how scored, and whether another class is named.
    parts = [(np.flatnonzero(rng.random(n) < 0.78), 0.08, (5, 2), False)]
    for spread, score, other in ((0.3, (2, 4), False), (0.08, (2, 4), True), (0.1, (2, 3), False), (0.3, (2, 5), True)):
        parts.append((rng.integers(n, size=count // 13), spread, score, other))
    columns = []
    for rows, spread, (a, b), other in parts:
        side = size[rows] * np.exp(rng.normal(0, spread, (len(rows), 2)))
        middle = corner[rows] + size[rows] * (0.5 + rng.normal(0, spread, (len(rows), 2)))
        said = rng.integers(classes, size=len(rows)) if other else label[rows]
        columns.append((image[rows], said, np.hstack((middle - side / 2, side)), rng.beta(a, b, len(rows))))
    stray = count - sum(len(rows) for rows, *_ in parts)
    side = np.exp(rng.normal(4, 0.7, (stray, 2))).clip(6, 400)
    boxes = np.hstack((rng.uniform(0, 640, (stray, 2)) - side / 2, side))
    columns.append(
        (rng.integers(images, size=stray), rng.choice(classes, stray, p=share), boxes, rng.beta(1, 6, stray))
    )
    order = rng.permutation(count)
    found = [np.concatenate(column)[order] for column in zip(*columns, strict=True)]
    if decimals is not None:
        found[3] = found[3].round(decimals)
    truth = (image, label, np.hstack((corner, size)), (rng.random(n) < 0.01).astype(int))
    return written(folder, images, classes, truth, found)


def border_of_a_crowd(folder: Path) -> tuple[Path, Path]:
    none, truth, found = [0, 0], [[0, 0, 50, 50], [335, 300, 60, 50]], [[300, 300, 50, 50], [0, 0, 50, 50]]
    columns = (none, none, truth, [0, 1]), (none, none, found, [0.9, 0.5])
    return written(folder, 1, 1, *(tuple(map(np.array, side)) for side in columns))


def written(folder: Path, images: int, classes: int, truth: Any, found: Any) -> tuple[Path, Path]:
    """Both files, of columns image, label, box (x, y, width, height), and crowd or score."""
    paths = folder / "truth.json", folder / "found.json"
    content = {
        "images": [{"id": i + 1, "file_name": f"{i:06}.jpg", "width": 640, "height": 640} for i in range(images)],
        "categories": [{"id": k + 1, "name": f"class {k}"} for k in range(classes)],
        "annotations": [
            {"id": n, "image_id": i + 1, "category_id": k + 1, "bbox": b, "area": b[2] * b[3], "iscrowd": c}
            for n, (i, k, b, c) in enumerate(zip(*(x.tolist() for x in truth), strict=True), 1)
        ],
    }
    results = [
        {"image_id": i + 1, "category_id": k + 1, "bbox": b, "score": s}
        for i, k, b, s in zip(*(x.tolist() for x in found), strict=True)
    ]
    for path, table in zip(paths, (content, results), strict=True):
        path.write_text(json.dumps(table))
    return paths


def held() -> float:
    """The most memory that this process has held, MiB; what `getrusage` says includes the process that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def alone(name: str, truth: Path, found: Path) -> None:
    """Run one contender in this process, first on next to nothing; print the memory of both as JSON."""
    with tempfile.TemporaryDirectory() as place:
        CONTENDERS[name](*border_of_a_crowd(Path(place)))()
    imports, began = held(), time.process_time()
    run = CONTENDERS[name](truth, found)
    read = time.process_time() - began
    run()
    print(json.dumps({"read_s": read, "imports_mib": imports, "peak_mib": held()}))


def by_itself(name: str, *files: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--alone", name, *map(str, files)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def prepared(truth: Path, found: Path) -> dict[str, Run]:
    """Every contender that is installed, its files read."""
    made = {}
    for name, prepare in CONTENDERS.items():
        try:
            made[name] = prepare(truth, found)
        except ImportError as error:
            print(f"{name}: left out ({error})")
    gc.collect()
    gc.freeze()  # what one of them keeps is not searched for cycles in the time of another
    return made


def compared(gains: dict[str, Gains]) -> None:
    print(f"\n{'points of AP':<28}" + "".join(f"{kind:>9}" for kind in KINDS))
    for name, points in gains.items():
        print(f"{name:<28}" + "".join(f"{points[kind]:9.3f}" for kind in KINDS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--found", type=int, default=150_000)
    parser.add_argument("--decimals", type=int, help="of the scores; as they come without it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--alone", nargs=3, metavar=("NAME", "TRUTH", "FOUND"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        return alone(args.alone[0], *map(Path, args.alone[1:]))
    with tempfile.TemporaryDirectory() as place:
        paths = synthetic(Path(place), args.images, args.classes, args.found, args.seed, args.decimals)
        measured(*paths, args.rounds, f"{args.images} images, {args.classes} classes, {args.found} detections")
        print("\nA false alarm of which a crowd covers 0.3:", end="")
        compared({name: run() for name, run in prepared(*border_of_a_crowd(Path(place))).items()})


def rows(rounds: int = 3, images: int = 5000, classes: int = 80, found: int = 150_000) -> list[Row]:
    """Ours beside tidecv and hotcoco, where they are installed."""
    with tempfile.TemporaryDirectory() as place:
        made = prepared(*synthetic(Path(place), images, classes, found, 0))
        made.pop("boresight, 200 replicates")
        times = interleaved({"ours" if name == "boresight" else name: run for name, run in made.items()}, rounds)
    lines = []
    for name, target in (("tidecv", ">= 20"), ("hotcoco", "")):
        if name in times:
            apart = max(abs(times[name].answer[k] - times["ours"].answer[k]) for k in KINDS[1:7])
            told = f"six dAPs within {apart:.3f} points"
            pair = {"peer": times[name], "ours": times["ours"]}
            lines.append(row(f"error analysis, {images} images, {found} detections", name, pair, target, told))
    return lines


def measured(truth: Path, found: Path, rounds: int, what: str) -> None:
    made = prepared(truth, found)
    seconds: dict[str, list[float]] = {name: [] for name in made}
    gains: dict[str, Gains] = {}
    for _ in range(rounds):
        for name, run in made.items():
            began = time.process_time()
            gains[name] = run()
            seconds[name].append(time.process_time() - began)
    apart = {name: by_itself(name, truth, found) for name in made}
    slow = "tidecv" if "tidecv" in made else "hotcoco"
    print(f"{what}; {rounds} rounds, one thread\n")
    print(f"{'':<28}{'read s':>9}{'run s':>9}{'x faster than ' + slow:>24}{'peak MiB':>10}{'imports MiB':>13}")
    for name, took in seconds.items():
        run, ratio = median(took), median(s / t for s, t in zip(seconds[slow], took, strict=True))
        read, peak, imports = (apart[name][key] for key in ("read_s", "peak_mib", "imports_mib"))
        print(f"{name:<28}{read:9.2f}{run:9.3f}{ratio:24.1f}{peak:10.0f}{imports:13.0f}")
    compared(gains)
    told = {name: {"run_s": median(took)} | apart[name] for name, took in seconds.items()}
    print("\n" + json.dumps({"measured": told, "points": gains}))


if __name__ == "__main__":
    main()
