"""Trains torchvision's FCOS from random weights, briefly, and keeps the weights in one file.

`fcos_resnet50_fpn(weights=None, weights_backbone=None)` has BatchNorm that learns; with pretrained weights it has a
frozen one, which does not train from scratch. :func:`build` composes the same parts, so that a smaller body can be had
for a test.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import cos, pi
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from boresight.core.errors import Failure
from boresight.core.types import Scene
from boresight.run.record import write_atomic

WARM_UP = 0.05
"""Share of the training in which the learning rate rises."""
DECAY = 0.05
MOST = 5.0
"""Norm to which gradients are clipped."""
ZOOM = (0.75, 0.875, 1.0, 1.125, 1.25)
"""An image is shown at one of these shares of ``--size`` in training, by torchvision's own transform."""


@dataclass(frozen=True)
class Plan:
    """One training.

    Attributes:
        data: name of the data set.
        backbone: of torchvision, ``resnet50`` or a smaller one.
        steps, batch: how many steps, of how many images.
        size: shorter side of an image as the network sees it, pixels.
        seed: of the weights and of what is drawn.
        lr: the highest learning rate, of AdamW.
        seconds: the training ends after so many at the latest, and its learning rate with it; 0: by steps alone.
    """

    data: str
    backbone: str = "resnet50"
    steps: int = 2000
    batch: int = 8
    size: int = 512
    seed: int = 0
    lr: float = 5e-4
    seconds: float = 0.0


def build(classes: int, plan: Plan, score_thresh: float = 0.05) -> FCOS:
    """The parts of `fcos_resnet50_fpn` with random weights; label ``k`` is class ``k``.

    Boxes come out of a ReLU: its bias starts at 1 (boxes of two strides) and not at 0, where half of the cells would
    start without a gradient.
    """
    torch.manual_seed(plan.seed)
    backbone = resnet_fpn_backbone(
        backbone_name=plan.backbone,
        weights=None,
        norm_layer=nn.BatchNorm2d,
        trainable_layers=5,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    model = FCOS(backbone, classes, min_size=plan.size, max_size=2 * plan.size, score_thresh=score_thresh)
    nn.init.ones_(model.head.regression_head.bbox_reg.bias)
    return model


# ---------------------------------------------------------------- what a step sees


@dataclass(frozen=True)
class Labelled:
    """An image ``[3, H, W]`` uint8, its boxes ``[N, 4]`` xyxy in its pixels, and their labels ``[N]``."""

    image: Tensor
    boxes: Tensor
    labels: Tensor

    @classmethod
    def of(cls, scene: Scene, device: torch.device) -> Labelled:
        """What counts in a scene, on the device. To torchvision all other pixels are background."""
        assert scene.boxes is not None
        assert scene.labels is not None
        keep = (scene.boxes[:, 2:] > scene.boxes[:, :2]).all(1)
        if scene.ignore is not None:
            keep &= ~scene.ignore
        parts = scene.image.to(torch.uint8), scene.boxes[keep].float(), scene.labels[keep].long()
        return cls(*(part.to(device) for part in parts))

    def view(self, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Mirrored or not, across and down, and at 0.8 to 1.2 of its brightness; pixels in 0..1."""
        across, down, gain = torch.rand(3, generator=generator).tolist()
        height, width = self.image.shape[-2:]
        image, (x0, y0, x1, y1) = self.image, self.boxes.unbind(1)
        if across < 0.5:
            image, x0, x1 = image.flip(2), width - x1, width - x0
        if down < 0.5:
            image, y0, y1 = image.flip(1), height - y1, height - y0
        pixels = (image.float() * ((0.8 + 0.4 * gain) / 255)).clamp(max=1.0)
        return pixels, {"boxes": torch.stack((x0, y0, x1, y1), 1), "labels": self.labels}


def losses_of(
    model: FCOS, images: list[Tensor], targets: list[dict[str, Tensor]], precision: torch.dtype | None
) -> dict[str, Tensor]:
    """The model's own losses, its parts called as its ``forward`` calls them.

    Only the network runs in ``precision`` (None: in that of its weights). Anchors and boxes take the type of what they
    are given, and pixels beyond 256 do not fit into the digits of bfloat16: they are given float32.
    """
    shown, wanted = model.transform(images, targets)
    with torch.autocast(shown.tensors.device.type, precision, enabled=precision is not None):
        maps = list(model.backbone(shown.tensors).values())
        output = model.head(maps)
    maps = [m.float() for m in maps]
    anchors = model.anchor_generator(shown, maps)
    counts = [m.shape[-2] * m.shape[-1] for m in maps]
    return model.compute_loss(wanted, {name: v.float() for name, v in output.items()}, anchors, counts)


# ---------------------------------------------------------------- the training


def rate(progress: float) -> float:
    """Share of the highest learning rate after a share ``progress`` of the training: up a line, down a cosine."""
    if progress < WARM_UP:
        return (progress + 1e-3) / (WARM_UP + 1e-3)
    return 0.5 + 0.5 * cos(pi * (progress - WARM_UP) / (1 - WARM_UP))


def train(model: FCOS, data: Sequence[Labelled], plan: Plan) -> dict[str, Any]:
    """Train the model where its weights are; what is drawn is drawn by ``plan.seed``.

    Returns how many steps were made, in how many seconds, and the last loss that was printed. Raises Failure for a loss
    that is not finite.
    """
    device = data[0].image.device
    precision = torch.bfloat16 if device.type == "cuda" else None
    generator = torch.Generator().manual_seed(plan.seed)
    optimiser = _optimiser(model, plan.lr, device)
    model.transform.min_size = tuple(round(plan.size * zoom / 32) * 32 for zoom in ZOOM)
    model.train()
    began, step, order, told = time.monotonic(), 0, torch.zeros(0, dtype=torch.long), 0.0
    while (progress := _progress(step, time.monotonic() - began, plan)) < 1:
        for group in optimiser.param_groups:
            group["lr"] = plan.lr * rate(progress)
        while len(order) < plan.batch:
            order = torch.cat((order, torch.randperm(len(data), generator=generator)))
        chosen, order = order[: plan.batch].tolist(), order[plan.batch :]
        images, targets = zip(*(data[i].view(generator) for i in chosen), strict=True)
        parts = losses_of(model, list(images), list(targets), precision)
        loss = torch.stack(list(parts.values())).sum()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), MOST)
        optimiser.step()
        step += 1
        if step in (1, 10) or step % max(1, plan.steps // 20) == 0:
            told = _say(step, plan, parts, time.monotonic() - began)
    model.transform.min_size = (plan.size,)
    model.eval()
    return {"steps": step, "seconds": round(time.monotonic() - began, 1), "loss": told}


def _progress(step: int, seconds: float, plan: Plan) -> float:
    by_time = seconds / plan.seconds if plan.seconds else 0.0
    return max(step / plan.steps, by_time)


def _optimiser(model: FCOS, lr: float, device: torch.device) -> torch.optim.AdamW:
    """AdamW; biases and what normalises are not pulled towards zero."""
    every = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in every if p.ndim > 1], "weight_decay": DECAY},
        {"params": [p for p in every if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, fused=device.type == "cuda")


def _say(step: int, plan: Plan, parts: dict[str, Tensor], seconds: float) -> float:
    values = {name: float(v.detach()) for name, v in parts.items()}
    loss = sum(values.values())
    said = ", ".join(f"{name} {v:.3f}" for name, v in values.items())
    print(f"step {step} of {plan.steps}, {seconds:.0f} s: loss {loss:.3f} ({said})", flush=True)
    if not abs(loss) < float("inf"):
        raise Failure(f"step {step}: the loss is {loss}; lower --lr")
    return loss


# ---------------------------------------------------------------- the file


def keep(path: Path, model: FCOS, plan: Plan, told: dict[str, Any]) -> None:
    """Write weights and plan, whole or not at all."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    about = {"plan": json.dumps(asdict(plan)), "told": json.dumps(told)}
    write_atomic(path, lambda partial: save_file(state, partial, metadata=about))


def kept(path: Path, model: FCOS, plan: Plan) -> dict[str, Any] | None:
    """Fill the model with the weights of the same plan, and say how they were trained; None where there are none."""
    if not path.is_file():
        return None
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
    if json.loads(about["plan"]) != asdict(plan):
        return None
    model.load_state_dict(load_file(path))
    model.eval()
    return json.loads(about["told"])
