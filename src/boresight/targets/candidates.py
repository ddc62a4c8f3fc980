"""The truth of a batch, and pairs of an object and a cell that may stand for it.

The pairs are a list that is as long as the candidates (:mod:`boresight.targets.cells` makes it), never a table of
objects x cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from boresight.core.device import sent
from boresight.core.grid import cell_to_pixel
from boresight.core.types import DenseOutput, Scene


@dataclass(frozen=True)
class Objects:
    """The boxes of a batch of scenes, one after the other.

    Attributes:
        boxes: ``[M, 4]`` float32 xyxy, pixel frame.
        labels: ``[M]`` long.
        image: ``[M]`` long, the scene that each belongs to, ascending.
        images: how many scenes.
        crowd: the boxes that do not count (``Scene.ignore``), kept apart; None in a crowd itself.
    """

    boxes: Tensor
    labels: Tensor
    image: Tensor
    images: int
    crowd: Objects | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def to(self, device: torch.device | str) -> Objects:
        """The same on ``device``, without waiting for it."""
        boxes, labels, image = (sent(v, device) for v in (self.boxes, self.labels, self.image))
        return Objects(boxes, labels, image, self.images, None if self.crowd is None else self.crowd.to(device))

    def select(self, keep: Tensor | slice) -> Objects:
        """Those that ``keep`` (bool ``[M]``, long, or a slice) names, without a crowd."""
        return Objects(self.boxes[keep], self.labels[keep], self.image[keep], self.images)

    @classmethod
    def of(cls, scenes: Sequence[Scene], classes: int) -> Objects:
        """Read and check the truth of a batch, on the CPU.

        Raises ValueError naming the scene: without box truth; a label outside ``0..classes - 1``; a box that is not
        finite; and, of a box that counts, one without area or wholly outside the image.
        """
        unlabelled = [s.name for s in scenes if s.boxes is None]
        if unlabelled:
            raise ValueError(f"{unlabelled[0]} has no box truth: unknown is not empty, training needs it")
        known = [(s.boxes.cpu(), s.labels.cpu(), s.ignore) for s in scenes]  # type: ignore[union-attr]
        every = cls(
            torch.cat([torch.zeros(0, 4), *(b for b, _, _ in known)]).float(),
            torch.cat([torch.zeros(0, dtype=torch.long), *(v for _, v, _ in known)]),
            torch.repeat_interleave(torch.tensor([len(b) for b, _, _ in known], dtype=torch.long)),
            len(scenes),
        )
        ignored = [torch.zeros(len(b), dtype=torch.bool) if i is None else i.cpu() for b, _, i in known]
        ignore = torch.cat([torch.zeros(0, dtype=torch.bool), *ignored])
        every._check(scenes, classes, ~ignore)
        if not bool(ignore.any()):
            return replace(every, crowd=every.select(slice(0, 0)))
        return replace(every.select(~ignore), crowd=every.select(ignore))

    def _check(self, scenes: Sequence[Scene], classes: int, counted: Tensor) -> None:
        sizes = torch.tensor([s.size[::-1] for s in scenes], dtype=torch.float32).reshape(-1, 2)[self.image]
        outside = ((self.boxes[:, 2:] <= 0) | (self.boxes[:, :2] >= sizes)).any(-1)
        faults = (
            (~self.boxes.isfinite().all(-1), "is not finite"),
            ((self.labels < 0) | (self.labels >= classes), f"has a label outside 0..{classes - 1}"),
            (counted & (self.boxes[:, 2:] <= self.boxes[:, :2]).any(-1), "has no area"),
            (counted & outside, "lies outside its image"),
        )
        if not bool(torch.stack([fault for fault, _ in faults]).any()):
            return
        for fault, words in faults:
            if bool(fault.any()):
                k = int(fault.int().argmax())
                scene, row = scenes[int(self.image[k])], k - int((self.image < self.image[k]).sum())
                box, label = self.boxes[k].tolist(), int(self.labels[k])
                height, width = scene.size
                raise ValueError(f"{scene.name} ({width} x {height} px): box {row}, {box} of class {label}, {words}")


@dataclass(frozen=True)
class MapShape:
    """What the host knows of an output without looking at its values.

    Attributes:
        images, classes, rows, columns, stride: of the map.
        ends: ``[B, 2]`` long on the CPU, ``(columns, rows)`` of each image that are not wholly padding: no cell beyond
            is ever a candidate, so that an image in a padded batch is assigned as it would be alone.
        shared: one box a cell serves all classes (a stride-0 view along the classes, or one class).
    """

    images: int
    classes: int
    rows: int
    columns: int
    stride: float
    ends: Tensor
    shared: bool

    @classmethod
    def of(cls, output: DenseOutput) -> MapShape:
        """Read the shape of an output."""
        images, classes, rows, columns = output.logits.shape
        whole = [(columns, rows)] * images
        cut = [
            (min(columns, math.ceil(w / output.stride)), min(rows, math.ceil(h / output.stride)))
            for h, w in output.sizes
        ]
        ends = torch.tensor(cut or whole, dtype=torch.long).reshape(-1, 2)
        if len(ends) != images:
            raise ValueError(f"the output has {images} images and {len(ends)} sizes")
        shared = classes == 1 or output.boxes.stride(1) == 0
        return cls(images, classes, rows, columns, output.stride, ends, shared)

    @property
    def cells(self) -> int:
        """Cells of one plane."""
        return self.rows * self.columns

    @property
    def keys(self) -> int:
        """Boxes that the map emits: as many objects can be served at once."""
        return self.images * (1 if self.shared else self.classes) * self.cells


@dataclass(frozen=True)
class Candidates:
    """Pairs of an object and a cell, sorted by object.

    Attributes:
        objects: all objects, on the same device.
        shape: the map.
        object: ``[K]`` long, row of ``objects``.
        row, column: ``[K]`` long, the cell.
        start: ``[M]`` long, where the candidates of each object begin.
    """

    objects: Objects
    shape: MapShape
    object: Tensor
    row: Tensor
    column: Tensor
    start: Tensor

    def __len__(self) -> int:
        return len(self.object)

    def to(self, device: torch.device | str) -> Candidates:
        """The same on ``device``, without waiting for it."""
        held = (self.object, self.row, self.column, self.start)
        return Candidates(self.objects.to(device), self.shape, *(sent(v, device) for v in held))

    def of_object(self, values: Tensor) -> Tensor:
        """``values [M, ...]`` of the objects, for each candidate: ``[K, ...]``."""
        return values.index_select(0, self.object)  # several times as fast as ``values[object]``

    @cached_property
    def image(self) -> Tensor:
        """``[K]`` long."""
        return self.of_object(self.objects.image)

    @cached_property
    def label(self) -> Tensor:
        """``[K]`` long, the object's class: its channel."""
        return self.of_object(self.objects.labels)

    @cached_property
    def cell(self) -> Tensor:
        """``[K]`` long, ``row * columns + column``."""
        return self.row * self.shape.columns + self.column

    @cached_property
    def xy(self) -> Tensor:
        """``[K, 2]`` float32, centre of the cell in the pixel frame."""
        return cell_to_pixel(torch.stack((self.column, self.row), dim=-1).float(), self.shape.stride)

    @cached_property
    def wanted(self) -> Tensor:
        """``[K, 4]`` the object's box."""
        return self.of_object(self.objects.boxes)

    @cached_property
    def inside(self) -> Tensor:
        """``[K]`` bool: the cell's centre lies in the object's box, not on its edge."""
        return ((self.xy > self.wanted[:, :2]) & (self.xy < self.wanted[:, 2:])).all(-1)

    @cached_property
    def centre_offset(self) -> Tensor:
        """``[K, 2]`` from the object's centre to the cell's, in strides."""
        return (self.xy - (self.wanted[:, :2] + self.wanted[:, 2:]) / 2) / self.shape.stride

    @cached_property
    def centre_distance(self) -> Tensor:
        """``[K]`` in strides."""
        return self.centre_offset.norm(dim=-1)

    @cached_property
    def flat(self) -> Tensor:
        """``[K]`` long: index into a flattened ``[B, C, H, W]`` map, in the object's channel."""
        plane = self.objects.image * self.shape.classes + self.objects.labels
        return self.of_object(plane * self.shape.cells) + self.cell

    @cached_property
    def key(self) -> Tensor:
        """``[K]`` long in ``0..shape.keys - 1``: the box that would serve the object. It can serve one only."""
        return self.of_object(self.objects.image * self.shape.cells) + self.cell if self.shape.shared else self.flat
