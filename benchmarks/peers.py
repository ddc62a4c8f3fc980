"""AP50 of other detectors trained from scratch on the same images for the same CPU time.

    pip install -e ".[bench]" -c constraints.txt
    python benchmarks/peers.py aerial-maritime --minutes 10 --peer fcos --peer yolo --out peers.json

Torchvision's FCOS (ResNet-18 with a feature pyramid) and the smallest Ultralytics model are given the training images
of a study, one thread and so many minutes of CPU time (decoding images included, judging not); then all are judged on
the test images by the same evaluator as ours. FCOS sees the views that ours sees, in the same precision (bfloat16) and
at the same scale; Ultralytics follows its own recipe. What a run of ours took stands in its `done.json`
(`cpu_seconds`), what its frozen features took is computed once: see docs/studies/real.md.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from boresight.core.types import Detections, Scene
from boresight.data.box_augment import BoxAugment
from boresight.evaluate.detection import coco_figures
from boresight.run.boxes import box_splits
from boresight.run.config_text import BoxDataSettings
from boresight.run.engine import keep_freed_memory
from boresight.run.recipe import Splits

SIDE = 640
STUDIES = {"aerial-maritime": "maritime", "airbus-dev": "airbus"}


@dataclass(frozen=True)
class ViewOf:
    """What a study of ours trains on."""

    crop: int
    scale: tuple[float, float]
    positive_share: float
    gain: float
    colour: float
    shrink: int

    @classmethod
    def of(cls, data: str) -> ViewOf:
        file = Path(__file__).parents[1] / "experiments" / f"{STUDIES[data]}.yaml"
        base = yaml.safe_load(file.read_text(encoding="utf-8"))["base"]
        shrink = base["encoder"].get("shrink", 1)
        return cls(**base["augment"] | {"scale": tuple(base["augment"]["scale"])}, shrink=shrink)

    def augment(self) -> BoxAugment:
        return BoxAugment(self.crop, self.positive_share, self.scale, gain=self.gain, shift=10.0, colour=self.colour)


def splits_of(name: str) -> Splits:
    root = Path(os.environ.get("BORESIGHT_DATA", "../shared/data")) / name
    return box_splits(BoxDataSettings(source="coco", root=str(root), train="train", test="test", val_share=0.12))


def as_detections(boxes: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor) -> Detections:
    order = scores.argsort(descending=True)[:100]
    cell = torch.full((len(order),), -1)
    return Detections(boxes[order].float(), scores[order].float(), labels[order].long(), cell)


def fcos(splits: Splits, budget: float, seed: int, view: ViewOf) -> tuple[list[Detections], dict[str, float]]:
    """torchvision's FCOS on a ResNet-18, from scratch, AdamW, crops, mirrors and scale as ours."""
    import numpy as np
    from torchvision.models.detection import FCOS
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    torch.manual_seed(seed)
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5)
    # what ours sees is brought to 1 / shrink of its size: here by the model itself, crops and whole images alike
    model = FCOS(backbone, num_classes=len(splits.classes), min_size=view.crop // view.shrink, max_size=10_000)
    for part in (model.backbone, model.head):
        part.forward = _half(part.forward)  # type: ignore[method-assign]
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    augment, rng = view.augment(), np.random.default_rng(seed)
    began, steps = time.process_time(), 0
    model.train()
    while time.process_time() - began < budget:
        scenes = [augment(splits.train[int(rng.integers(len(splits.train)))], rng) for _ in range(4)]
        share = min(1.0, (time.process_time() - began) / budget)
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * min(1.0, (steps + 1) / 50) * (1 - 0.95 * share)
        losses = model([s.image.float() / 255 for s in scenes], [_target(s) for s in scenes])
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        steps += 1
    told = {"steps": steps, "images": 4 * steps, "train_cpu_seconds": round(time.process_time() - began)}
    model.eval()
    model.transform.min_size = (min(splits.test[0].size) // view.shrink,)
    with torch.inference_mode():
        every = [model([splits.test[i].image.float() / 255])[0] for i in range(len(splits.test))]
    return [as_detections(d["boxes"], d["scores"], d["labels"]) for d in every], told


def _half(forward: Callable[..., Any]) -> Callable[..., Any]:
    """The convolutions in bfloat16, what comes out of them in float32: boxes and losses need its digits."""

    def call(*given: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            found = forward(*given)
        return type(found)((name, value.float()) for name, value in found.items())

    return call


def _target(scene: Scene) -> dict[str, torch.Tensor]:
    assert scene.boxes is not None
    assert scene.labels is not None
    keep = torch.ones(len(scene.boxes), dtype=torch.bool) if scene.ignore is None else ~scene.ignore
    return {"boxes": scene.boxes[keep], "labels": scene.labels[keep]}


def yolo(splits: Splits, budget: float, seed: int, view: ViewOf) -> tuple[list[Detections], dict[str, float]]:
    """The smallest Ultralytics detector from scratch, its own training recipe, stopped when the time is used."""
    from PIL import Image
    from ultralytics import YOLO  # type: ignore[import-not-found]

    from boresight.data.convert import convert

    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        convert({"train": _Named(splits.train, splits), "val": _Named(splits.val, splits)}, root, "yolo")
        model = YOLO("yolo11n.yaml")
        began, seen = time.process_time(), [0]
        model.add_callback("on_train_batch_end", lambda trainer: seen.__setitem__(0, seen[0] + 1))
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
        told = {"steps": seen[0], "images": 8 * seen[0], "train_cpu_seconds": round(time.process_time() - began)}
        found = []
        for i in range(len(splits.test)):
            picture = Image.fromarray(splits.test[i].image.permute(1, 2, 0).numpy())
            (result,) = model.predict(
                picture, imgsz=SIDE, conf=0.001, iou=0.5, max_det=100, device="cpu", verbose=False
            )
            found.append(as_detections(result.boxes.xyxy, result.boxes.conf, result.boxes.cls))
    return found, told


class _Named:
    """Frames with the classes of the splits, as a converter wants them."""

    def __init__(self, frames: Any, splits: Splits) -> None:
        self.frames, self.classes, self.names = frames, splits.classes, frames.names

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Scene:
        return self.frames[index]


PEERS: dict[str, Callable[[Splits, float, int, ViewOf], tuple[list[Detections], dict[str, float]]]] = {
    "fcos": fcos,
    "yolo": yolo,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=["aerial-maritime", "airbus-dev"])
    parser.add_argument("--minutes", type=float, default=10.0, help="CPU time of a training")
    parser.add_argument("--peer", action="append", choices=list(PEERS), help="(default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    splits = splits_of(args.data)
    truth = [splits.test[i] for i in range(len(splits.test))]
    results = {}
    for name in args.peer or PEERS:
        found, told = PEERS[name](splits, 60 * args.minutes, args.seed, ViewOf.of(args.data))
        figures = coco_figures(truth, found, splits.classes)
        results[name] = {"ap50": figures.ap50, "ap": figures.ap, **told}
        print(f"{args.data} {name} seed {args.seed}: AP50 {figures.ap50:.3f}, AP {figures.ap:.3f}; {told}", flush=True)
    if args.out:
        args.out.write_text(json.dumps({"data": args.data, "seed": args.seed, **results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
