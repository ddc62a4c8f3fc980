"""AP50 of other detectors trained from scratch on the same images for the same CPU time.

    pip install -e ".[bench]" -c constraints.txt
    python benchmarks/peers.py aerial-maritime --minutes 10 --peer fcos --peer yolo --out peers.json

Torchvision's FCOS (ResNet-18 with a feature pyramid) and the smallest Ultralytics model are given the training images
of a study, one thread and so many minutes of CPU time; then all are judged on the test images by the same evaluator as
ours. The time of a run of ours stands in its `done.json` (`seconds`, on one thread).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from boresight.core.types import Detections, Scene
from boresight.evaluate.detection import coco_figures
from boresight.run.boxes import box_splits
from boresight.run.config_text import BoxDataSettings
from boresight.run.recipe import Splits

SIDE = 640


def splits_of(name: str) -> Splits:
    root = Path(os.environ.get("BORESIGHT_DATA", "../shared/data")) / name
    return box_splits(BoxDataSettings(source="coco", root=str(root), train="train", test="test", val_share=0.12))


def as_detections(boxes: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor) -> Detections:
    order = scores.argsort(descending=True)[:100]
    cell = torch.full((len(order),), -1)
    return Detections(boxes[order].float(), scores[order].float(), labels[order].long(), cell)


def fcos(splits: Splits, budget: float, seed: int) -> list[Detections]:
    """torchvision's FCOS on a ResNet-18, from scratch, AdamW, random crops and mirrors as ours."""
    import numpy as np
    from torchvision.models.detection import FCOS
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    from boresight.data.box_augment import BoxAugment

    torch.manual_seed(seed)
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5)
    model = FCOS(backbone, num_classes=len(splits.classes), min_size=320, max_size=SIDE)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    view, rng = BoxAugment(crop=320, scale=(0.7, 1.4), positive_share=0.8), np.random.default_rng(seed)
    began, steps = time.process_time(), 0
    model.train()
    while time.process_time() - began < budget:
        scenes = [view(splits.train[int(rng.integers(len(splits.train)))], rng) for _ in range(4)]
        share = min(1.0, (time.process_time() - began) / budget)
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * min(1.0, (steps + 1) / 50) * (1 - 0.95 * share)
        losses = model([s.image.float() / 255 for s in scenes], [_target(s) for s in scenes])
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        steps += 1
    print(f"fcos: {steps} steps of 4 crops in {time.process_time() - began:.0f} s CPU", flush=True)
    model.eval()
    model.transform.min_size = (SIDE,)
    with torch.inference_mode():
        every = [model([splits.test[i].image.float() / 255])[0] for i in range(len(splits.test))]
    return [as_detections(d["boxes"], d["scores"], d["labels"]) for d in every]


def _target(scene: Scene) -> dict[str, torch.Tensor]:
    assert scene.boxes is not None
    assert scene.labels is not None
    keep = torch.ones(len(scene.boxes), dtype=torch.bool) if scene.ignore is None else ~scene.ignore
    return {"boxes": scene.boxes[keep], "labels": scene.labels[keep]}


def yolo(splits: Splits, budget: float, seed: int) -> list[Detections]:
    """The smallest Ultralytics detector from scratch, its own training recipe, stopped when the time is used."""
    from PIL import Image
    from ultralytics import YOLO  # type: ignore[import-not-found]

    from boresight.data.convert import convert

    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        convert({"train": _Named(splits.train, splits), "val": _Named(splits.val, splits)}, root, "yolo")
        model = YOLO("yolo11n.yaml")
        # `time` is wall time in hours; one thread on a core of its own makes it CPU time
        model.train(
            data=str(next(root.glob("*.yaml"))),
            time=budget / 3600,
            epochs=1000,
            imgsz=SIDE,
            batch=8,
            device="cpu",
            workers=0,
            seed=seed,
            val=False,
            plots=False,
            verbose=False,
            project=folder,
            name="run",
        )
        found = []
        for i in range(len(splits.test)):
            picture = Image.fromarray(splits.test[i].image.permute(1, 2, 0).numpy())
            (result,) = model.predict(
                picture, imgsz=SIDE, conf=0.001, iou=0.5, max_det=100, device="cpu", verbose=False
            )
            found.append(as_detections(result.boxes.xyxy, result.boxes.conf, result.boxes.cls))
    return found


class _Named:
    """Frames with the classes of the splits, as a converter wants them."""

    def __init__(self, frames: Any, splits: Splits) -> None:
        self.frames, self.classes, self.names = frames, splits.classes, frames.names

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Scene:
        return self.frames[index]


PEERS: dict[str, Callable[[Splits, float, int], list[Detections]]] = {"fcos": fcos, "yolo": yolo}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=["aerial-maritime", "airbus-dev"])
    parser.add_argument("--minutes", type=float, default=10.0, help="CPU time of a training")
    parser.add_argument("--peer", action="append", choices=list(PEERS), help="(default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    splits = splits_of(args.data)
    truth = [splits.test[i] for i in range(len(splits.test))]
    results = {}
    for name in args.peer or PEERS:
        began = time.process_time()
        found = PEERS[name](splits, 60 * args.minutes, args.seed)
        figures = coco_figures(truth, found, splits.classes)
        results[name] = {"ap50": figures.ap50, "ap": figures.ap, "cpu_seconds": round(time.process_time() - began)}
        print(f"{args.data} {name}: AP50 {figures.ap50:.3f}, AP {figures.ap:.3f}", flush=True)
    if args.out:
        args.out.write_text(json.dumps({"data": args.data, "seed": args.seed, **results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
