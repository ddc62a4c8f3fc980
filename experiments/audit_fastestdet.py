"""A detector that somebody else trained and published, as a source of the audit: FastestDet on aerial photos.

    BORESIGHT_DATA=../shared/data python experiments/audit_fastestdet.py aerial-maritime --images 137

Reads `weights/fastestdet-coco.pth` (dog-qiuqiu/FastestDet, BSD-3; 80 classes of COCO, 0.25 M values) and the test
images of a data set under $BORESIGHT_DATA, and prints AP50 of the classes that both know, and how well boxes fit an
object, by where they come from. The network is written here again, from the names and shapes of its parameters.

It has 22 x 22 cells on a picture of 352 x 352. Cell (x, y) moves its box by up to one cell from the *corner* (x, y), so
that this is where the cell lies: no half pixel. The four cells around an object's centre are candidates, of which those
are trained whose box fits better than the mean of all candidates: the assigner looks at predictions.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import box_convert, box_iou

from boresight.core.boxes import aligned_iou
from boresight.core.emission import Decoding, Emission, Missing, Supervision
from boresight.core.types import Scene
from boresight.data.boxes import open_boxes
from boresight.decode.replay import replay, select
from boresight.detectors.foreign_model import above, untouched
from boresight.detectors.foreign_scene import counted, rgb, same_image
from boresight.diagnose.inputs import otherwise
from boresight.diagnose.rules_inputs import forms
from boresight.evaluate.detection import coco_figures

SIDE, CELLS = 352, 22
ALIASES = {"aircraft": "airplane"}  # the data's name of a class of COCO
NAMES = (
    "person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant stop_sign parking_meter "
    "bench bird cat dog horse sheep cow elephant bear zebra giraffe backpack umbrella handbag tie suitcase frisbee "
    "skis snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard tennis_racket bottle wine_glass "
    "cup fork knife spoon bowl banana apple sandwich orange broccoli carrot hot_dog pizza donut cake chair couch "
    "potted_plant bed dining_table toilet tv laptop mouse remote keyboard cell_phone microwave oven toaster sink "
    "refrigerator book clock vase scissors teddy_bear hair_drier toothbrush"
)
COCO = tuple(name.replace("_", " ") for name in NAMES.split())


# ---------------------------------------------------------------- the network


def layer(
    into: int, out: int, size: int = 1, stride: int = 1, *, each: bool = False, relu: bool = True
) -> list[nn.Module]:
    """A convolution (``each``: of every channel by itself), normalised."""
    conv = nn.Conv2d(into, out, size, stride, size // 2, groups=into if each else 1, bias=False)
    return [conv, nn.BatchNorm2d(out), *([nn.ReLU()] if relu else [])]


def depthwise(times: int, out: int | None = None) -> nn.Sequential:
    """Of 96 channels ``times`` 5 x 5, then their mix in ``out``."""
    wide = [part for _ in range(times) for part in layer(96, 96, 5, each=True)]
    return nn.Sequential(*wide, *(layer(96, out, relu=False) if out else []))


class Unit(nn.Module):
    """ShuffleNet V2 (Ma et al. 2018, figure 3 c, d): works on every second channel; on all, where it halves the map."""

    def __init__(self, into: int, out: int, *, halve: bool) -> None:
        super().__init__()
        middle, stride, seen = out // 2, 2 if halve else 1, into if halve else into // 2
        main = layer(seen, middle), layer(middle, middle, 3, stride, each=True, relu=False), layer(middle, out - seen)
        self.branch_main = nn.Sequential(*(part for parts in main for part in parts))
        self.branch_proj = (
            nn.Sequential(*layer(into, into, 3, 2, each=True, relu=False), *layer(into, into)) if halve else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]``."""
        if self.branch_proj is not None:
            return torch.cat((self.branch_proj(x), self.branch_main(x)), 1)
        return torch.cat((x[:, ::2], self.branch_main(x[:, 1::2])), 1)


class FastestDet(nn.Module):
    """``[B, 3, 352, 352]`` BGR in 0..1 to ``[B, 85, 22, 22]``: logits of objectness, raw box, logits of the classes."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({"first_conv": nn.Sequential(*layer(3, 24, 3, 2))})
        for name, into, count in (("stage2", 24, 4), ("stage3", 48, 8), ("stage4", 96, 4)):
            rest = (Unit(2 * into, 2 * into, halve=False) for _ in range(count - 1))
            self.backbone[name] = nn.Sequential(Unit(into, 2 * into, halve=True), *rest)
        self.SPP = nn.ModuleDict({"Conv1x1": nn.ModuleDict({"conv1x1": nn.Sequential(*layer(336, 96))})})
        self.SPP.update({f"S{times}": depthwise(times) for times in (1, 2, 3)})
        self.SPP["output"] = nn.Sequential(*layer(288, 96, relu=False))
        self.detect_head = nn.ModuleDict({"conv1x1": nn.ModuleDict({"conv1x1": nn.Sequential(*layer(96, 96))})})
        for name, out in (("obj_layers", 1), ("reg_layers", 4), ("cls_layers", len(COCO))):
            self.detect_head[name] = nn.ModuleDict({"conv5x5": depthwise(1, out)})

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = functional.max_pool2d(self.backbone["first_conv"](x), 3, 2, 1)
        fine = self.backbone["stage2"](x)
        middle = self.backbone["stage3"](fine)
        coarse = functional.interpolate(self.backbone["stage4"](middle), scale_factor=2.0)
        x = torch.cat((functional.avg_pool2d(fine, 3, 2, 1), middle, coarse), 1)
        x = self.SPP["Conv1x1"]["conv1x1"](x)  # type: ignore[index]
        x = functional.relu(x + self.SPP["output"](torch.cat([self.SPP[f"S{n}"](x) for n in (1, 2, 3)], 1)))
        x = self.detect_head["conv1x1"]["conv1x1"](x)  # type: ignore[index]
        heads = ("obj_layers", "reg_layers", "cls_layers")
        return torch.cat([self.detect_head[name]["conv5x5"](x) for name in heads], 1)  # type: ignore[index]


# ---------------------------------------------------------------- the source


class FastestDetSource:
    """A :class:`~boresight.core.emission.Source` of all 80 classes; a cell speaks for its best one."""

    def __init__(self, network: FastestDet, threshold: float = 0.001) -> None:
        self.network, self.classes = network, COCO
        self.look: Callable[[Tensor], Tensor] = lambda image: image
        self.decoding: Decoding | None = Decoding(
            above(threshold), before_nms=0, nms=0.45, single=True, top_k=0, least=None, cut="never"
        )

    def emit(self, scene: Scene) -> Emission:
        """Its picture is stretched to 352 x 352, its boxes are shares of it."""
        picture = functional.interpolate(self.look(rgb(scene)).flip(0)[None] / 255, (SIDE, SIDE), mode="bilinear")
        with untouched(self.network):
            output = self.network(picture)[0].flatten(1)
        corners = torch.cartesian_prod(*[torch.arange(CELLS, dtype=torch.float32)] * 2).flip(1)  # x, y, row by row
        boxes = torch.cat(((corners + output[1:3].T.tanh()) / CELLS, output[3:5].T.sigmoid()), 1)
        size = torch.tensor([scene.size[1], scene.size[0]], dtype=torch.float32)
        return Emission(
            boxes=(box_convert(boxes, "cxcywh", "xyxy") * size.repeat(2))[None],
            scores=output[0].sigmoid() * output[5:].softmax(0),
            size=scene.size,
            centres=corners / CELLS * size,
            strides=(size / CELLS).prod().sqrt().expand(CELLS**2),
        )

    def through(self, look: Callable[[Tensor], Tensor]) -> FastestDetSource:
        """See :class:`~boresight.diagnose.inputs.Through`."""
        other = copy(self)
        other.look = look
        return other

    def supervise(self, emission: Emission, scene: Scene) -> Supervision | Missing:
        """As if the image were a batch: the mean that a candidate must beat is that of a batch in its training."""
        same_image(emission, scene)
        objects, rows = counted(scene, len(COCO))
        scale = CELLS / torch.tensor([scene.size[1], scene.size[0]], dtype=torch.float32)
        middle = ((objects.boxes[:, :2] + objects.boxes[:, 2:]) / 2 * scale).long()
        place = middle[:, None] + torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]])
        which, corner = (place < CELLS).all(-1).nonzero(as_tuple=True)
        cell = (place[..., 1] * CELLS + place[..., 0])[which, corner]
        fit = likeness(emission.boxes[0, cell] * scale.repeat(2), objects.boxes[which] * scale.repeat(2))
        order = fit.argsort(descending=True, stable=True)  # an object of the same class that fits better has the cell
        order = order[fit[order] > fit.mean()]
        key = objects.labels[which[order]] * emission.cells + cell[order]
        first = torch.stack([(key == k).nonzero()[0, 0] for k in key.unique()]) if len(key) else order
        chosen = order[first]
        positive = torch.ones(len(chosen), dtype=torch.bool)
        return Supervision(cell[chosen], rows[which[chosen]], positive, by_prediction=True)


def likeness(found: Tensor, wanted: Tensor) -> Tensor:
    """IoU less half the costs of distance and shape (Gevorgyan 2022, SIoU), of aligned boxes ``[P, 4]``, ``[P]``."""
    hull = torch.maximum(found[:, 2:], wanted[:, 2:]) - torch.minimum(found[:, :2], wanted[:, :2])
    apart = ((wanted[:, :2] + wanted[:, 2:] - found[:, :2] - found[:, 2:]) / 2).abs()
    sine = apart / apart.norm(dim=1, keepdim=True).clamp(min=1e-9)
    angle = 2 * sine.prod(1, keepdim=True)  # sin of twice the angle between the line of the centres and an axis
    distance = (1 - torch.exp((angle - 2) * (apart / hull).square())).sum(1)
    one, two = found[:, 2:] - found[:, :2], wanted[:, 2:] - wanted[:, :2]
    shape = (1 - torch.exp(-(one - two).abs() / torch.maximum(one, two))).pow(4).sum(1)
    return aligned_iou(found, wanted) - (distance + shape) / 2


# ---------------------------------------------------------------- data, and what is printed


def in_coco(scene: Scene, names: tuple[str, ...]) -> Scene:
    """Truth of the classes that COCO has too, labelled as COCO does; of the other classes of COCO nothing is known."""
    assert scene.boxes is not None
    assert scene.labels is not None
    place = torch.tensor([COCO.index(ALIASES.get(n, n)) if ALIASES.get(n, n) in COCO else -1 for n in names])
    whole = torch.ones(len(names), dtype=torch.bool) if scene.exhaustive is None else scene.exhaustive
    exhaustive = torch.zeros(len(COCO), dtype=torch.bool)
    exhaustive[place[(place >= 0) & whole]] = True
    keep = place[scene.labels] >= 0
    ignore = None if scene.ignore is None else scene.ignore[keep]
    labels = place[scene.labels][keep]
    return replace(scene, boxes=scene.boxes[keep], labels=labels, ignore=ignore, exhaustive=exhaustive)


def best_fits(source: FastestDetSource, scene: Scene, emission: Emission) -> dict[str, Tensor]:
    """Of the boxes that reach suppression, the IoU with the object that each fits best, by where their cells lie."""
    assert source.decoding is not None
    assert scene.boxes is not None
    assert emission.centres is not None
    selected = select(emission, source.decoding)
    cell = selected.slot % emission.cells
    supervision = source.supervise(emission, scene)
    assert isinstance(supervision, Supervision)
    fit = torch.cat((torch.zeros(len(cell), 1), box_iou(selected.boxes, scene.boxes)), 1).amax(1)
    point, boxes = emission.centres[cell][:, None], scene.boxes
    inside = ((point > boxes[:, :2]) & (point < boxes[:, 2:])).all(-1).any(1)
    trained = torch.isin(cell, supervision.cell)
    return {"trained": fit[trained], "inside an object": fit[~trained & inside], "background": fit[~trained & ~inside]}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=["aerial-maritime", "airbus-dev"])
    parser.add_argument("--images", type=int, default=60)
    args = parser.parse_args()
    root = Path(os.environ.get("BORESIGHT_DATA", "../shared/data"))
    network = FastestDet()
    network.load_state_dict(torch.load(root / "weights" / "fastestdet-coco.pth", "cpu", weights_only=True))
    source = FastestDetSource(network)
    assert source.decoding is not None
    data = open_boxes(root / args.data, "test")
    scenes, found, fits = [], [], []
    for i in range(min(args.images, len(data))):
        scene = in_coco(data[i], data.classes)
        emission = source.emit(scene)
        scenes.append(scene)
        found.append(replay(emission, source.decoding))
        fits.append(best_fits(source, scene, emission))
    figures = coco_figures(scenes, found, COCO)
    for one in figures.per_class:
        if one.n:
            print(f"{one.name}: AP50 {one.ap50:.3f} of {one.n} objects in {len(scenes)} images")
    for name in fits[0]:
        fit = torch.cat([f[name] for f in fits])
        print(f"{name}: {len(fit)} boxes, mean IoU {float(fit.mean()):.3f}")
    told = forms(otherwise(source, (in_coco(data[i], data.classes) for i in range(len(data)))), len(COCO))
    if isinstance(told, Missing):
        print(f"MISSING inputs: {told.reason}")
        return
    print(f"AP50 of {told.images} images {told.as_is.estimate()}; shown otherwise it gains")
    for name, gain in told.gains.items():
        print(f"  {name}: {gain.estimate()}")


if __name__ == "__main__":
    main()
