"""Random scenes and outputs for box assigners, and the arithmetic of boxes and cells in plain Python."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from boresight.core.types import DenseOutput, Scene
from boresight.targets.candidates import MapShape, Objects


@dataclass(frozen=True)
class Case:
    """A batch with what a detector emitted for it."""

    scenes: list[Scene]
    output: DenseOutput
    score: torch.Tensor

    @property
    def objects(self) -> Objects:
        return Objects.of(self.scenes, self.output.logits.shape[1])

    @property
    def shape(self) -> MapShape:
        return MapShape.of(self.output)

    def run(self, rule, progress=1.0):
        return rule(self.output, self.score, self.objects, progress)

    def alone(self, image: int) -> Case:
        """One image, on a map of its own size."""
        columns, rows = self.shape.ends[image].tolist()
        one = slice(image, image + 1)
        boxes = self.output.boxes[one, :, :rows, :columns]
        output = DenseOutput(
            self.output.logits[one, :, :rows, :columns], boxes, self.output.stride, sizes=self.output.sizes[one]
        )
        return Case([self.scenes[image]], output, self.score[one, :, :rows, :columns])


def scene(boxes, labels=None, *, size=(64, 64), name="a.png", ignore=None, exhaustive=None) -> Scene:
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    labels = torch.zeros(len(boxes), dtype=torch.long) if labels is None else torch.tensor(labels, dtype=torch.long)
    ignore = None if ignore is None else torch.tensor(ignore)
    exhaustive = None if exhaustive is None else torch.tensor(exhaustive)
    image = torch.zeros(3, *size, dtype=torch.uint8)
    return Scene(image, name, boxes=boxes, labels=labels, ignore=ignore, exhaustive=exhaustive)


def truth(random: np.random.Generator, size: tuple[int, int], classes: int, count: int, *, whole: bool) -> Scene:
    """Boxes of all kinds: large, thin, smaller than a cell, over the border, on whole pixels, twice the same."""
    height, width = size
    boxes = []
    for _ in range(count):
        w, h = np.exp(random.uniform(math.log(1.0), math.log(1.2 * max(size)), 2))
        x, y = random.uniform(0, width), random.uniform(0, height)
        box = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
        if whole and random.random() < 0.7:
            box = np.concatenate((np.floor(box[:2] / 4), np.ceil(box[2:] / 4))) * 4
        boxes.append(box.tolist())
        if whole and random.random() < 0.15:
            boxes.append(list(boxes[-1]))
    return scene(boxes, random.integers(0, classes, len(boxes)).tolist(), size=size)


def random_case(seed: int, *, whole: bool = True, images: int | None = None, shared: bool | None = None) -> Case:
    """1 to 3 images of different sizes, 1 to 3 classes, 0 to 6 objects each; ``whole``: ties are likely."""
    random = np.random.default_rng(seed)
    images = int(random.integers(1, 4)) if images is None else images
    classes = int(random.integers(1, 4))
    sizes = [tuple(int(v) for v in random.integers(17, 72, 2)) for _ in range(images)]
    if images > 1:
        sizes[-1] = (24, 40)
    scenes = []
    for i, size in enumerate(sizes):
        count = int(random.integers(0, 7))
        scenes.append(replace(truth(random, size, classes, count, whole=whole), name=f"{i}.png"))
    rows, columns = math.ceil(max(s[0] for s in sizes) / 8), math.ceil(max(s[1] for s in sizes) / 8)
    shared = bool(random.random() < 0.5) if shared is None else shared
    lead = (images, 1 if shared else classes, rows, columns)
    centre = (np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1) + 0.5) * 8
    reach = np.exp(random.normal(2.3, 0.7, (*lead, 4)))
    boxes = np.concatenate((centre - reach[..., :2], centre + reach[..., 2:]), -1)
    far = random.random(lead) < 0.1  # a head may emit anything: boxes elsewhere, inside out, without area
    boxes[far] = random.uniform(-20, 80, (int(far.sum()), 4))
    boxes[random.random(lead) < 0.05] = 30.0
    # some cells box a true object nearly, so that every rule finds something good
    for i, s in enumerate(scenes):
        for box in s.boxes.numpy():
            r, c = random.integers(0, rows), random.integers(0, columns)
            boxes[i, :, r, c] = box + random.normal(0, 1.0, 4)
    boxes = torch.tensor(boxes, dtype=torch.float32).expand(images, classes, rows, columns, 4)
    score = torch.tensor(random.random((images, classes, rows, columns)), dtype=torch.float32)
    return Case(scenes, DenseOutput(score.logit(), boxes, 8.0, sizes=tuple(sizes)), score)


class Plain:
    """Boxes and cells, one at a time, in Python's own floats."""

    @staticmethod
    def area(a):
        return max(0.0, a[2] - a[0]) * max(0.0, a[3] - a[1])

    @staticmethod
    def overlap(a, b):
        wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        return max(0.0, wide) * max(0.0, high)

    @classmethod
    def iou(cls, a, b):
        inter = cls.overlap(a, b)
        return inter / (cls.area(a) + cls.area(b) - inter)

    @classmethod
    def giou(cls, a, b):
        union = cls.area(a) + cls.area(b) - cls.overlap(a, b)
        hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
        return cls.iou(a, b) - (hull - union) / hull

    @staticmethod
    def centre(r, c):
        return (c + 0.5) * 8, (r + 0.5) * 8

    @classmethod
    def inside(cls, box, r, c):
        x, y = cls.centre(r, c)
        return box[0] < x < box[2] and box[1] < y < box[3]

    @classmethod
    def away(cls, box, r, c):
        """Square of the distance between the cell's and the box's centre."""
        x, y = cls.centre(r, c)
        return (x - (box[0] + box[2]) / 2) ** 2 + (y - (box[1] + box[3]) / 2) ** 2

    @classmethod
    def nearest(cls, box, rows, columns):
        """The nearest cell; halfway goes to the higher one, as everywhere in the house."""
        best = min(cls.away(box, r, c) for r in range(rows) for c in range(columns))
        return max((r, c) for r in range(rows) for c in range(columns) if cls.away(box, r, c) == best)

    @staticmethod
    def walk(case):
        """``(object, image, label, box, rows, columns, emitted)``; ``emitted[r][c]`` is the box of the channel."""
        objects, ends = case.objects, case.shape.ends.tolist()
        for m in range(len(objects)):
            i, label = int(objects.image[m]), int(objects.labels[m])
            columns, rows = ends[i]
            yield m, i, label, objects.boxes[m].tolist(), rows, columns, case.output.boxes[i, label].tolist()

    @staticmethod
    def winners(case, claims):
        """``{(image, class, row, column): object}`` from ``[(object, image, class, row, column, priority)]``."""
        best = {}
        for m, i, label, r, c, priority in claims:
            key = (i, r, c) if case.shape.shared else (i, label, r, c)
            rank = (float(np.float32(priority)), -m)
            if key not in best or rank > best[key][0]:
                best[key] = (rank, (i, label, r, c), m)
        return {cell: m for _, cell, m in best.values()}


def owners(assignment):
    """``{(image, class, row, column): object}`` of an assignment."""
    c, on = assignment.candidates, assignment.positive
    rows = zip(*(v[on].tolist() for v in (c.image, c.label, c.row, c.column, c.object)), strict=True)
    listed = [((i, label, r, col), m) for i, label, r, col, m in rows]
    found = dict(listed)
    assert len(found) == len(listed), "a cell is listed twice"
    return found


class Build:
    """What tests make."""

    scene = staticmethod(scene)
    random_case = staticmethod(random_case)
    owners = staticmethod(owners)
    plain = Plain
    Case = Case


@pytest.fixture(scope="session")
def build() -> type[Build]:
    return Build
