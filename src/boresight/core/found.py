"""Detections as numpy arrays, for machines on which a detector runs without torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Found:
    """What is found in one image, best first: :class:`boresight.core.types.Detections` as arrays.

    Attributes:
        boxes: ``[N, 4]`` float xyxy, pixel frame (size zero for points).
        scores: ``[N]`` float in [0, 1].
        labels: ``[N]`` int64.
        cell: ``[N]`` int64, flat index of the cell that emitted the detection, -1 where the source cannot tell.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    cell: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.boxes)
        if self.boxes.shape != (n, 4):
            raise ValueError(f"Found.boxes must have shape [*, 4], got {list(self.boxes.shape)}")
        for name in ("scores", "labels", "cell"):
            if getattr(self, name).shape != (n,):
                raise ValueError(f"Found.{name} must have shape [{n}], got {list(getattr(self, name).shape)}")

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def xy(self) -> np.ndarray:
        """``[N, 2]`` box centres: the positions of point detections."""
        return (self.boxes[:, :2] + self.boxes[:, 2:]) / 2

    @classmethod
    def joined(cls, parts: list[Found]) -> Found:
        """Several, one after the other."""
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in cls.__slots__))

    def select(self, keep: np.ndarray) -> Found:
        """The detections that ``keep`` (bool ``[N]`` or indices) names."""
        return Found(self.boxes[keep], self.scores[keep], self.labels[keep], self.cell[keep])
