"""Box assignment against plain rules, one object at a time: `python benchmarks/assign.py [--rounds 7]`.

The plain rules are what one writes first: a Python loop over images and objects, each object against the whole map in
vectorised torch, then one object a cell. Ours reads and checks the truth, assigns, and makes the maps of targets.
Interleaved rounds in one process on one thread, which keeps the memory that it frees, as a training run does (both have
the good of it). Both must find the same cells for the same objects.

Boxes and scores are those of a detector half trained: around each cell with noise, better near an object's centre.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence

import torch
from rounds import Row, interleaved, row, shown
from torch import Tensor
from torchvision.ops import box_iou, generalized_box_iou

from boresight.core.grid import cell_centres
from boresight.core.types import DenseOutput, Scene
from boresight.run.engine import keep_freed_memory
from boresight.targets import dense
from boresight.targets.assignment import Assigner, Assignment
from boresight.targets.atss import Atss
from boresight.targets.candidates import Objects
from boresight.targets.inside import Inside
from boresight.targets.radius import Radius, disc
from boresight.targets.simota import SimOta
from boresight.targets.tal import Tal

STRIDE = 8.0
Claims = list[tuple[Tensor, Tensor]]
"""For each object of an image: flat cells that it takes, and its priority at each."""


class Plain:
    """The map of one image and its centres."""

    def __init__(self, output: DenseOutput, score: Tensor) -> None:
        self.output, self.score = output, score
        _, self.classes, self.rows, self.columns = output.logits.shape
        self.centres = cell_centres(self.rows, self.columns, STRIDE).view(-1, 2)

    def boxes(self, image: int, label: int) -> Tensor:
        return self.output.boxes[image, label].reshape(-1, 4)

    def inside(self, box: Tensor) -> Tensor:
        held = ((self.centres > box[:2]) & (self.centres < box[2:])).all(-1)
        if not held.any():
            held[self.away(box).argmin()] = True
        return held

    def away(self, box: Tensor) -> Tensor:
        return (self.centres - (box[:2] + box[2:]) / 2).norm(dim=-1)


def radius(p: Plain, image: int, box: Tensor, label: int) -> tuple[Tensor, Tensor]:
    giou = generalized_box_iou(box[None], p.boxes(image, label))[0]
    best = int(giou.argmax())
    if giou[best] <= 0.3:
        return torch.zeros(0, dtype=torch.long), torch.zeros(0)
    row, column, cells = best // p.columns, best % p.columns, []
    for dx, dy in disc(1.5).tolist():
        if 0 <= row + dy < p.rows and 0 <= column + dx < p.columns:
            cells.append((row + dy) * p.columns + column + dx)
    index = torch.tensor(cells)
    return index, giou[index]


def inside(p: Plain, image: int, box: Tensor, label: int) -> tuple[Tensor, Tensor]:
    index = p.inside(box).nonzero()[:, 0]
    return index, -((box[2] - box[0]) * (box[3] - box[1])).expand(len(index))


def atss(p: Plain, image: int, box: Tensor, label: int) -> tuple[Tensor, Tensor]:
    near = p.away(box).sort(stable=True).indices[:9]
    xy = p.centres[near]
    iou = box_iou(box[None], torch.cat((xy - 20, xy + 20), dim=-1))[0]
    held = ((xy > box[:2]) & (xy < box[2:])).all(-1)
    chosen = held & (iou >= iou.mean() + iou.std() - 1e-6)
    chosen = chosen if chosen.any() else torch.arange(9) == 0
    return near[chosen], iou[chosen]


def tal(p: Plain, image: int, box: Tensor, label: int) -> tuple[Tensor, Tensor]:
    iou = box_iou(box[None], p.boxes(image, label))[0]
    metric = torch.where(p.inside(box), p.score[image, label].flatten() * iou**6, 0.0)
    best, cell = metric.topk(13)
    if best[0] <= 0:
        cell, best = p.away(box).argmin()[None], torch.ones(1)
    return cell[best > 0], iou[cell[best > 0]]


def simota(p: Plain, image: int, box: Tensor, label: int) -> tuple[Tensor, Tensor]:
    offset = (p.centres - (box[:2] + box[2:]) / 2).abs() / STRIDE
    held, near = ((p.centres > box[:2]) & (p.centres < box[2:])).all(-1), (offset < 2.5).all(-1)
    index = (held | near).nonzero()[:, 0]
    iou = box_iou(box[None], p.boxes(image, label)[index])[0]
    wanted = torch.zeros(len(index), p.classes)
    wanted[:, label] = 1
    given = p.score[image].flatten(1)[:, index].T
    entropy = torch.nn.functional.binary_cross_entropy(given, wanted, reduction="none").sum(1)
    cost = entropy - 3 * (iou + 1e-8).log() + torch.where((held & near)[index], 0.0, 1e5)
    k = max(1, int(iou.topk(min(10, len(iou))).values.sum()))
    cell = cost.topk(min(k, len(cost)), largest=False).indices
    return index[cell], -cost[cell]


Rule = Callable[[Plain, int, Tensor, int], tuple[Tensor, Tensor]]


def plain(rule: Rule, output: DenseOutput, score: Tensor, scenes: list[Scene]) -> Tensor:
    """``[B, C, H, W]`` owners: each object's cells in turn, a cell's box to the best of those that want it."""
    p = Plain(output, score)
    shared = output.boxes.stride(1) == 0
    matched = torch.full((len(scenes), p.classes, p.rows * p.columns), -1)
    number = 0
    for image, scene in enumerate(scenes):
        planes = 1 if shared else p.classes
        best = torch.full((planes, p.rows * p.columns), -math.inf)
        owner = torch.full((planes, p.rows * p.columns), -1)
        for box, label in zip(scene.boxes, scene.labels.tolist(), strict=True):
            cell, priority = rule(p, image, box, label)
            plane = 0 if shared else label
            wins = cell[priority > best[plane, cell]]
            best[plane, wins] = priority[priority > best[plane, cell]]
            owner[plane, wins] = number
            number += 1
        begin = number - len(scene.boxes)
        for plane in range(planes):
            cell = (owner[plane] >= 0).nonzero()[:, 0]
            matched[image, scene.labels[owner[plane, cell] - begin], cell] = owner[plane, cell]
    return matched.view(output.logits.shape)


def owners(found: Assignment, like: Tensor) -> Tensor:
    """The same map from our answer."""
    c = found.candidates
    matched = torch.full((like.numel() + 1,), -1)
    return matched.scatter_(0, torch.where(found.positive, c.flat, like.numel()), c.object)[:-1].view(like.shape)


def batch(
    side: int, *, shared: bool, classes: int = 20, counts: Sequence[int] | None = None
) -> tuple[DenseOutput, Tensor, list[Scene]]:
    """8 images of 10 to 60 objects, or images of so many; sides of 16 to 160 px."""
    random = torch.Generator().manual_seed(side)
    pixels = side * STRIDE
    scenes = []
    images = 8 if counts is None else len(counts)
    for i in range(images):
        n = int(torch.randint(10, 61, (1,), generator=random)) if counts is None else counts[i]
        half = 8 * 10 ** torch.rand(n, 2, generator=random)
        centre = half + (pixels - 2 * half) * torch.rand(n, 2, generator=random)
        labels = torch.randint(0, classes, (n,), generator=random)
        image = torch.zeros(3, 1, 1).expand(3, int(pixels), int(pixels))
        scenes.append(Scene(image, str(i), boxes=torch.cat((centre - half, centre + half), -1), labels=labels))
    xy = cell_centres(side, side, STRIDE)
    planes = 1 if shared else classes
    reach = torch.exp(2.5 + 0.5 * torch.randn(images, planes, side, side, 4, generator=random))
    boxes = torch.cat((xy - reach[..., :2], xy + reach[..., 2:]), dim=-1)
    for i, s in enumerate(scenes):  # cells in an object box it, the better the nearer they are to its centre
        for box, label in zip(s.boxes, s.labels.tolist(), strict=True):
            held = ((xy > box[:2]) & (xy < box[2:])).all(-1)
            noise = ((xy - (box[:2] + box[2:]) / 2).norm(dim=-1, keepdim=True) * 0.3 + 1)[held]
            noisy = box + noise * torch.randn(int(held.sum()), 4, generator=random)
            boxes[i, 0 if shared else label][held] = noisy
    boxes = boxes.expand(images, classes, side, side, 4)
    score = torch.rand(images, classes, side, side, generator=random) * 0.98 + 0.01
    return DenseOutput(score.logit(), boxes, STRIDE), score, scenes


RULES: dict[str, tuple[Assigner, Rule]] = {
    "radius": (Radius(), radius),
    "inside": (Inside(), inside),
    "atss": (Atss(), atss),
    "tal": (Tal(until=0.0), tal),
    "simota": (SimOta(), simota),
}


TARGETS = {"radius": ">= 6", "atss": ">= 5", "simota": ">= 5"}
"""What is asked of a rule beside its formula written plainly; TAL and `inside` have other peers (`assign_peers.py`)."""


def rows(rounds: int = 7) -> list[Row]:
    """Every rule on every map."""
    torch.set_num_threads(1)
    keep_freed_memory()
    made = []
    for side in (56, 112):
        for shared in (True, False):
            output, score, scenes = batch(side, shared=shared)
            kind = "one box a cell" if shared else "a box for each class"
            for name, (ours, theirs) in RULES.items():
                work = f"{name}, B 8, C 20, {side}x{side}, {kind}"
                made.append(compared(work, TARGETS.get(name, ""), ours, theirs, output, score, scenes, rounds))
    return made


def compared(
    work: str,
    target: str,
    ours: Assigner,
    theirs: Rule,
    output: DenseOutput,
    score: Tensor,
    scenes: list[Scene],
    rounds: int,
) -> Row:
    """The loop beside ours, which reads the truth and makes the maps of targets as well."""

    def mine() -> Tensor:
        objects = Objects.of(scenes, output.logits.shape[1])
        found = ours(output, score, objects)
        return dense.dense_targets(output, found, objects, scenes, score=dense.aligned).matched

    times = interleaved({"peer": lambda: plain(theirs, output, score, scenes), "ours": mine}, rounds)
    have, want = times["ours"].answer, times["peer"].answer
    assert torch.equal(have, want), f"{work}: {int((have != want).sum())} cells differ"
    return row(work, "its formula in a loop", times, target, f"{int((have >= 0).sum())} positives, equal")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    shown(rows(**vars(parser.parse_args())))
