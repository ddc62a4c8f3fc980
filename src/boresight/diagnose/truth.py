"""The truth of one image, as the audit reads it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from boresight.core.emission import Emission
from boresight.core.types import Scene
from boresight.evaluate.box_set import crowd_of, truth_of


@dataclass(frozen=True, slots=True)
class Truth:
    """The M objects of one image that count.

    Attributes:
        boxes: ``[M, 4]`` float32 xyxy, pixel frame.
        labels: ``[M]`` long.
        row: ``[M]`` long, where each stands in ``Scene.boxes``.
        crowd: ``[R, 4]`` regions that excuse.
    """

    boxes: Tensor
    labels: Tensor
    row: Tensor
    crowd: Tensor

    @classmethod
    def of(cls, scene: Scene, classes: int) -> Truth:
        """Raises ValueError for unknown boxes and for labels that the detector has no channel for."""
        (boxes,), (labels,) = truth_of([scene])
        counted = ~crowd_of(scene)
        row = counted.nonzero()[:, 0]
        if len(row) and not 0 <= int(labels[row].min()) <= int(labels[row].max()) < classes:
            span = f"{int(labels[row].min())}..{int(labels[row].max())}"
            raise ValueError(f"scene `{scene.name}` has labels {span}, the detector {classes} classes")
        return cls(boxes.float().cpu()[row], labels.cpu()[row], row, boxes.float().cpu()[~counted])

    def __len__(self) -> int:
        return len(self.labels)

    def holds(self, emission: Emission) -> Tensor | None:
        """``[N, M]`` bool: the cell's centre lies in the object; the nearest cell where none does. None without places.

        Of points, the nearest cell alone.
        """
        if emission.centres is None:
            return None
        points = emission.centres.float()
        if not len(self) or not len(points):
            return torch.zeros(len(points), len(self), dtype=torch.bool)
        inside = ((points[:, None] > self.boxes[:, :2]) & (points[:, None] < self.boxes[:, 2:])).all(-1)
        middle = (self.boxes[:, :2] + self.boxes[:, 2:]) / 2
        nearest = (points[:, None] - middle).square().sum(-1).argmin(0)
        return inside | (torch.nn.functional.one_hot(nearest, len(points)).T.bool() & ~inside.any(0))
