"""A detector on paper: a grid of cells with known boxes, scores and supervision; and many images of a made one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from boresight.core.emission import Decoding, Emission, Missing, Supervision
from boresight.core.grid import cell_centres
from boresight.core.types import Scene

STRIDE = 8.0
A, B, C = [0.0, 0.0, 16.0, 16.0], [16.0, 0.0, 32.0, 16.0], [8.0, 16.0, 24.0, 32.0]
"""Three objects on a 4 x 4 grid of cells of 8 pixels; A and C are of class 0, B of class 1."""


def paper_scene() -> Scene:
    return Scene(
        torch.zeros(3, 32, 32), "paper", boxes=torch.tensor([A, B, C]), labels=torch.tensor([0, 1, 0]), image_id=1
    )


@dataclass
class Paper:
    """Cell 0 boxes A exactly, cell 1 speaks louder and boxes three quarters of it; and so on, see `SPOKEN`."""

    classes: tuple[str, ...] = ("a", "b")
    decoding: Decoding | None = field(default_factory=lambda: Decoding(threshold=0.1, nms=0.5))
    trained: tuple[tuple[int, int], ...] = ((0, 0), (2, 1), (9, 2))
    by_prediction: bool = False
    places: bool = True

    SPOKEN = (
        # cell, class, score, box
        (0, 0, 0.6, A),
        (1, 0, 0.9, [0.0, 0.0, 16.0, 12.0]),
        (2, 1, 0.8, B),
        (9, 0, 0.5, C),
        (10, 0, 0.4, [8.0, 16.0, 24.0, 24.0]),
        (15, 1, 0.7, [24.0, 24.0, 32.0, 32.0]),
    )

    def emit(self, scene: Scene) -> Emission:
        boxes, scores = torch.zeros(1, 16, 4), torch.zeros(2, 16)
        for cell, label, score, box in self.SPOKEN:
            boxes[0, cell], scores[label, cell] = torch.tensor(box), score
        centres = cell_centres(4, 4, STRIDE).flatten(0, 1) if self.places else None
        return Emission(boxes, scores, (32, 32), centres, torch.full((16,), STRIDE) if self.places else None)

    def supervise(self, emission: Emission, scene: Scene) -> Supervision | Missing:
        cell, row = (torch.tensor(v, dtype=torch.long) for v in zip(*self.trained, strict=True))
        return Supervision(cell, row, torch.ones(len(cell), dtype=torch.bool), by_prediction=self.by_prediction)


SIDE, CELLS = 128, 16


def made_scenes(count: int, classes: int = 3, seed: int = 0) -> list[Scene]:
    """Images of 128 px with two to five boxes of 16 to 48 px that do not overlap."""
    rng = np.random.default_rng(seed)
    scenes = []
    for k in range(count):
        boxes: list[list[float]] = []
        for _ in range(40):
            w, h = rng.uniform(16, 48, 2)
            x, y = rng.uniform(0, SIDE - w), rng.uniform(0, SIDE - h)
            new = [x, y, x + w, y + h]
            if all(x > b[2] or b[0] > x + w or y > b[3] or b[1] > y + h for b in boxes):
                boxes.append(new)
            if len(boxes) == rng.integers(2, 6):
                break
        labels = torch.tensor(rng.integers(0, classes, len(boxes)))
        scenes.append(
            Scene(torch.zeros(3, SIDE, SIDE), f"made {k}", k + 1, boxes=torch.tensor(boxes).float(), labels=labels)
        )
    return scenes


@dataclass
class Made:
    """A good detector of the made scenes: cells in an object box it, with noise; the score is how well they do.

    Attributes:
        fault: what is planted, see the code.
    """

    fault: str = ""
    classes: tuple[str, ...] = ("a", "b", "c")
    decoding: Decoding | None = field(default_factory=lambda: Decoding(threshold=0.05, nms=0.6))
    seed: int = 0

    def _owner(self, scene: Scene, centres: Tensor) -> Tensor:
        """``[N]`` the object that each cell lies in, -1 for none."""
        inside = ((centres[:, None] > scene.boxes[:, :2]) & (centres[:, None] < scene.boxes[:, 2:])).all(-1)
        owner = torch.where(inside.any(1), inside.long().argmax(1), -1)
        if self.fault == "starved":
            side = (scene.boxes[:, 2:] - scene.boxes[:, :2]).prod(1).sqrt()
            owner[(owner >= 0) & (side[owner.clamp(min=0)] < 28)] = -1
        return owner

    def emit(self, scene: Scene) -> Emission:
        rng = torch.Generator().manual_seed(self.seed * 100_003 + scene.image_id)
        centres = cell_centres(CELLS, CELLS, STRIDE).flatten(0, 1)
        n = len(centres)
        owner = self._owner(scene, centres)
        on = owner >= 0
        noise = torch.randn(n, 4, generator=rng)
        loose = torch.rand(n, generator=rng)
        size = torch.cat((scene.boxes[:, 2:] - scene.boxes[:, :2],) * 2, 1)[owner.clamp(min=0)]
        spread = 0.25
        boxes = scene.boxes[owner.clamp(min=0)] + noise * size * spread * loose[:, None]
        around = torch.cat((centres - 3, centres + 3), 1)
        if self.fault == "box":  # every box of an object lies off by the same third of its size
            boxes = boxes + 0.3 * size
        boxes = torch.where(on[:, None], boxes, around)
        boxes = torch.cat((boxes[:, :2].minimum(boxes[:, 2:] - 1), boxes[:, 2:]), 1)
        fit = torch.where(on, 1 - 0.9 * loose, 0.0) * (0.9 + 0.1 * torch.rand(n, generator=rng))
        quiet = 0.03 * torch.rand(3, n, generator=rng)
        scores = quiet.clone()
        label = scene.labels[owner.clamp(min=0)]
        if self.fault == "class":
            wrong = torch.rand(len(scene.boxes), generator=rng) < 0.6
            label = torch.where(wrong[owner.clamp(min=0)], (label + 1) % 3, label)
        cells = torch.arange(n)
        scores[label[on], cells[on]] = fit[on]
        if self.fault == "score":
            scores = torch.where(scores > quiet, torch.rand(3, n, generator=rng), scores)
            scores[label[on], cells[on]] = torch.rand(int(on.sum()), generator=rng)
            loud = torch.rand(n, generator=rng) < 0.02
            scores[0] = torch.where(loud & ~on, torch.rand(n, generator=rng), scores[0])
        if self.fault == "background":
            loud = (torch.rand(n, generator=rng) < 0.1) & ~on
            scores[0] = torch.where(loud, 0.9 + 0.1 * torch.rand(n, generator=rng), scores[0])
        if self.fault == "unsupervised":
            near = self._near_edge(scene, centres, owner)
            scores[label[near], cells[near]] = 0.95
            boxes[near] = boxes[near] + torch.cat((size[near][:, :2] * 0.45, size[near][:, 2:] * 0.45), 1)
        return Emission(boxes[None], scores.clamp(0, 1), scene.size, centres, torch.full((n,), STRIDE))

    def _near_edge(self, scene: Scene, centres: Tensor, owner: Tensor) -> Tensor:
        """Cells far from the centre of their object: those that a strict assigner does not train."""
        middle = ((scene.boxes[:, :2] + scene.boxes[:, 2:]) / 2)[owner.clamp(min=0)]
        return (owner >= 0) & ((centres - middle).abs().amax(1) > 6)

    def supervise(self, emission: Emission, scene: Scene) -> Supervision | Missing:
        owner = self._owner(scene, emission.centres)
        if self.fault == "unsupervised":
            owner = torch.where(self._near_edge(scene, emission.centres, owner), -1, owner)
        cell = (owner >= 0).nonzero()[:, 0]
        return Supervision(cell, owner[cell], torch.ones(len(cell), dtype=torch.bool), by_prediction=False)


def with_threshold(source: Made, threshold: float) -> Made:
    return replace(source, decoding=replace(source.decoding, threshold=threshold))
