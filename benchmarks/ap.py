"""COCO's AP beside pycocotools and hotcoco: `python benchmarks/ap.py [--images 5000] [--found 303357] [--rounds 3]`.

80 classes, detections of every kind of error (`errors.py`). Each works on one thread and is given the truth and the
detections as it reads them, before the clock runs: ours scenes and detections, the others their own tables. The twelve
figures of each must agree to 1e-6. Interleaved rounds in one process; pycocotools takes a minute a round.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAYON_NUM_THREADS", "1")

import argparse
import contextlib
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from errors import synthetic
from rounds import Row, interleaved, row, shown

from boresight.core.types import Detections, Scene
from boresight.evaluate.detection import SUMMARY, coco_figures

CLASSES = 80


def scenes(truth: Path, found: Path) -> tuple[list[Scene], list[Detections], list[str]]:
    """The same as scenes and detections."""
    content, results = json.loads(truth.read_text()), json.loads(found.read_text())
    objects: dict[int, list[Any]] = {i["id"]: [] for i in content["images"]}
    boxes: dict[int, list[Any]] = {i["id"]: [] for i in content["images"]}
    for a in content["annotations"]:
        objects[a["image_id"]].append((*a["bbox"], a["category_id"] - 1, a["iscrowd"]))
    for d in results:
        boxes[d["image_id"]].append((*d["bbox"], d["category_id"] - 1, d["score"]))

    def split(rows: list[Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 6)
        return torch.cat((table[:, :2], table[:, :2] + table[:, 2:4]), 1), table[:, 4].long(), table[:, 5]

    image = torch.zeros(1, 1, 1).expand(1, 640, 640)
    made, judged = [], []
    for number in objects:
        xyxy, labels, crowd = split(objects[number])
        made.append(Scene(image, str(number), number, boxes=xyxy, labels=labels, ignore=crowd.bool()))
        xyxy, labels, score = split(boxes[number])
        judged.append(Detections(xyxy, score, labels, torch.full_like(labels, -1)))
    return made, judged, [c["name"] for c in content["categories"]]


def peers(truth: Path, found: Path) -> dict[str, Callable[[], list[float]]]:
    """The twelve figures by pycocotools and by hotcoco."""
    import hotcoco
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def with_(load: Any, evaluator: Any, read: str) -> Callable[[], list[float]]:
        with contextlib.redirect_stdout(io.StringIO()):
            data = load(str(truth))
            results = getattr(data, read)(str(found))

        def judge() -> list[float]:
            with contextlib.redirect_stdout(io.StringIO()):
                one = evaluator(data, results, "bbox")
                one.evaluate()
                one.accumulate()
                one.summarize()
            return [float(v) for v in one.stats]

        return judge

    return {
        "pycocotools": with_(COCO, COCOeval, "loadRes"),
        "hotcoco": with_(hotcoco.COCO, hotcoco.COCOeval, "load_res"),
    }


def rows(rounds: int = 3, images: int = 5000, found: int = 303_357) -> list[Row]:
    """Ours beside each of them."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        files = synthetic(Path(place), images, CLASSES, found, 0)
        given = scenes(*files)
        others = peers(*files)

        def ours() -> list[float]:
            figures = coco_figures(*given)
            return [getattr(figures, name) for name, *_ in SUMMARY]

        times = interleaved(others | {"ours": ours}, rounds)
    made = []
    for name, target, share in (("pycocotools", ">= 50", False), ("hotcoco", "<= 3", True)):
        worst = max(abs(a - b) for a, b in zip(times[name].answer, times["ours"].answer, strict=True))
        assert worst < 1e-6, f"{name} says otherwise: {times[name].answer}, {times['ours'].answer}"
        pair = {"peer": times[name], "ours": times["ours"]}
        work = f"COCO AP, {images} images, {found} detections"
        made.append(row(work, name, pair, target, f"12 figures within {worst:.0e}", share=share))
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--found", type=int, default=303_357)
    shown(rows(**vars(parser.parse_args())))
