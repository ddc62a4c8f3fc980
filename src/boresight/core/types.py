"""The frozen dataclasses that pass between folders, and nothing else does.

Coordinates are in the pixel frame of the original image (see :mod:`boresight.core.grid`). Points travel as boxes of
size zero, so that every detector has one output type. Every class checks its shapes at the door.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

from boresight.core.device import sent


def _check(owner: str, name: str, value: Tensor, shape: tuple[int | None, ...]) -> None:
    """Raise ``ValueError`` unless ``value`` has ``shape`` (None: any size)."""
    fits = value.ndim == len(shape) and all(want in (None, have) for want, have in zip(shape, value.shape, strict=True))
    if not fits:
        wanted = "[" + ", ".join("*" if s is None else str(s) for s in shape) + "]"
        raise ValueError(f"{owner}.{name} must have shape {wanted}, got {list(value.shape)}")


def _moved(value: Any, device: torch.device | str) -> Any:
    if isinstance(value, Tensor):
        return sent(value, device)
    if isinstance(value, tuple):
        return tuple(_moved(v, device) for v in value)
    return value.to(device) if isinstance(value, _OnDevice) else value


class _OnDevice:
    """Gives a dataclass ``.to(device)``, which moves every tensor in it."""

    def to(self, device: torch.device | str) -> Self:
        moved = {f.name: _moved(getattr(self, f.name), device) for f in fields(self)}  # type: ignore[arg-type]
        return replace(self, **moved)  # type: ignore[type-var]


@dataclass(frozen=True, slots=True)
class Points(_OnDevice):
    """Point truth of one frame.

    Attributes:
        xy: ``[N, 2]`` float, pixel frame.
        labels: ``[N]`` long, class indices from 0.
        ignore: ``[N]`` bool. A don't-care target (too dim to demand): finding it is no false alarm, missing it no miss.
        snr: ``[N]`` float or None, matched-filter signal to noise ratio.
        flux: ``[N]`` float or None, total signal (electrons where the source knows them).
        mask: ``[H, W]`` int32 or None, the pixels of each target: 0 is background, ``k`` belongs to point ``k - 1``.
    """

    xy: Tensor
    labels: Tensor
    ignore: Tensor
    snr: Tensor | None = None
    flux: Tensor | None = None
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        _check("Points", "xy", self.xy, (None, 2))
        n = len(self.xy)
        for name in ("labels", "ignore", "snr", "flux"):
            if (value := getattr(self, name)) is not None:
                _check("Points", name, value, (n,))
        if self.mask is not None:
            _check("Points", "mask", self.mask, (None, None))

    def __len__(self) -> int:
        return len(self.xy)

    @classmethod
    def of(cls, xy: Tensor | Sequence[Sequence[float]], **more: Tensor | None) -> Points:
        """Points of class 0 that all count, from coordinates alone; other fields may be given by name."""
        given = torch.as_tensor(xy, dtype=torch.float32)
        given = given if given.numel() else given.reshape(0, 2)
        more.setdefault("labels", torch.zeros(len(given), dtype=torch.long, device=given.device))
        more.setdefault("ignore", torch.zeros(len(given), dtype=torch.bool, device=given.device))
        return cls(given, **more)  # type: ignore[arg-type]

    def select(self, keep: Tensor) -> Points:
        """The points that ``keep`` (bool ``[N]`` or long indices) names. The mask is dropped: its numbers change."""
        columns = {n: getattr(self, n) for n in ("xy", "labels", "ignore", "snr", "flux")}
        return Points(**{n: None if v is None else v[keep] for n, v in columns.items()})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class View:
    """How the image of a scene was cut from that of another: what is known of the source can be looked up.

    Frozen features are computed once for a source and read through this map, so that crops, mirrors and zooms of
    one image cost nothing more. It stays where the source is when the scene moves to a device.

    Attributes:
        source: the scene as the file or generator gives it.
        to_source: ``[2, 3]`` float32, pixel frame of the view to pixel frame of the source: ``p = A @ (x, y, 1)``.
    """

    source: Scene
    to_source: Tensor

    def __post_init__(self) -> None:
        _check("View", "to_source", self.to_source, (2, 3))


@dataclass(frozen=True, slots=True)
class Proposals(_OnDevice):
    """Coarse boxes of one image, from which a refiner starts.

    Attributes:
        boxes: ``[M, 4]`` float xyxy, pixel frame.
        labels: ``[M]`` long classes, -1 where unknown.
        scores: ``[M]`` float in [0, 1], of whatever found them.
        matched: ``[M]`` long, the row of ``Scene.boxes`` that each stands for, -1 for none; None: unknown.
        turns: ``[M]`` long in 0..7, the orientation in which a training view shows each (bit 0 mirrors x, bit 1 mirrors
            y, bit 2 then transposes); None: upright.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    matched: Tensor | None = None
    turns: Tensor | None = None

    def __post_init__(self) -> None:
        _check("Proposals", "boxes", self.boxes, (None, 4))
        for name in ("labels", "scores", "matched", "turns"):
            if (value := getattr(self, name)) is not None:
                _check("Proposals", name, value, (len(self.boxes),))

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True, slots=True)
class Scene(_OnDevice):
    """One image and what is known about it.

    Attributes:
        image: ``[C, H, W]`` float32 or uint8, raw values as the sensor or file gives them (nothing normalised).
        name: the file name or a name made from the index; identifies the image in every table.
        image_id: the COCO image id.
        points: point truth, or None when unknown (unknown is not "no targets").
        boxes: ``[N, 4]`` float xyxy truth boxes, or None when unknown.
        labels: ``[N]`` long classes of ``boxes``.
        ignore: ``[N]`` bool, boxes that say "something is here that does not count" (COCO's ``iscrowd``): finding them
            is no false alarm, missing them no miss. None: every box counts.
        exhaustive: ``[C]`` bool, the classes of which *every* object of this image is labelled; of the others an
            unlabelled one may be there, so that silence is not a negative. None: all classes.
        view: where the image was cut from, when it is a view of another scene.
        proposals: coarse boxes to be refined, or None when there are none to start from.
        level, spread: brightness of the whole frame (see :func:`frame_brightness`). A crop keeps its frame's values,
            so that training on crops and inference on frames see the same normalised pixels.
    """

    image: Tensor
    name: str
    image_id: int = 0
    points: Points | None = None
    boxes: Tensor | None = None
    labels: Tensor | None = None
    level: float = 0.0
    spread: float = 1.0
    ignore: Tensor | None = None
    exhaustive: Tensor | None = None
    view: View | None = None
    proposals: Proposals | None = None

    def __post_init__(self) -> None:
        _check("Scene", "image", self.image, (None, None, None))
        if self.boxes is not None:
            _check("Scene", "boxes", self.boxes, (None, 4))
            if self.labels is None or len(self.labels) != len(self.boxes):
                raise ValueError(f"Scene.labels must have one entry a box ({len(self.boxes)}), got {self.labels}")
            if self.ignore is not None:
                _check("Scene", "ignore", self.ignore, (len(self.boxes),))

    @property
    def size(self) -> tuple[int, int]:
        """``(height, width)`` in pixels."""
        return int(self.image.shape[-2]), int(self.image.shape[-1])

    def without_pixels(self) -> Scene:
        """The scene with an image that has its size and takes no memory."""
        return replace(self, image=self.image.new_zeros(()).expand(self.image.shape), view=None)


def frame_brightness(image: Tensor) -> tuple[float, float]:
    """Return ``(level, spread)`` of a frame: its mean and its standard deviation (1 for a constant frame)."""
    values = image.double()
    if values.numel() and values.min() == values.max():  # a rounded mean would leave a spread that is tiny but not zero
        return float(values.flatten()[0]), 1.0
    return float(values.mean()), float(values.std(correction=0))


@dataclass(frozen=True, slots=True)
class DenseOutput(_OnDevice):
    """What a detector emits for every class and cell, the same in training and inference.

    Attributes:
        logits: ``[B, C, H, W]`` float.
        boxes: ``[B, C, H, W, 4]`` float xyxy, pixel frame (a class-agnostic head expands with a stride-0 view; a point
            head emits boxes of size zero).
        stride: pixels a cell.
        quality: ``[B, C, H, W]`` or None, predicted localisation quality in [0, 1].
        cam: ``[B, C, H, W]`` or None, class map in [0, 1] of a frozen encoder.
        objectness: ``[B, C, H, W]`` or None, logits of "an object of some class is here".
        presence: ``[B, C]`` or None, how much the whole image speaks for each class, in [0, 1].
        sizes: ``(height, width)`` of each image before it was padded into the batch: nothing lies beyond. Empty: the
            map ends where the image ends.
        start: ``[B, C, H, W, 4]`` xyxy or None, the boxes that a refiner started from.
        start_quality: ``[B, C, H, W]`` or None, predicted localisation quality of ``start`` in [0, 1].
        edges: ``[B, C, H, W, 4, K]`` or None, logits of where each edge lies, on K places of the ``window``.
        window: ``[B, C, H, W, 4]`` xyxy or None, what a refiner looked at: place ``k`` lies ``(k + 0.5) / K`` across.
        counts: of a refiner, how many coarse boxes each image has: cell ``(0, m, 0)`` is that of coarse box ``m``,
            whatever lies beyond is padding, and ``stride`` is 0. Empty: cells lie on a grid over the image.
        coarser: outputs of further levels that are supervised as well, in order of growing stride (of a refiner: of the
            steps before the last, in their order).
    """

    logits: Tensor
    boxes: Tensor
    stride: float
    quality: Tensor | None = None
    cam: Tensor | None = None
    objectness: Tensor | None = None
    presence: Tensor | None = None
    sizes: tuple[tuple[int, int], ...] = ()
    coarser: tuple[DenseOutput, ...] = ()
    start: Tensor | None = None
    start_quality: Tensor | None = None
    edges: Tensor | None = None
    window: Tensor | None = None
    counts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check("DenseOutput", "logits", self.logits, (None,) * 4)
        shape = tuple(self.logits.shape)
        _check("DenseOutput", "boxes", self.boxes, (*shape, 4))
        for name in ("quality", "cam", "objectness", "start_quality"):
            if (value := getattr(self, name)) is not None:
                _check("DenseOutput", name, value, shape)
        for name in ("start", "window"):
            if (value := getattr(self, name)) is not None:
                _check("DenseOutput", name, value, (*shape, 4))
        if self.edges is not None:
            _check("DenseOutput", "edges", self.edges, (*shape, 4, None))
        if self.presence is not None:
            _check("DenseOutput", "presence", self.presence, shape[:2])


@dataclass(frozen=True, slots=True)
class DenseTargets(_OnDevice):
    """What a detector is trained to emit, cell by cell.

    Attributes:
        positive: ``[B, C, H, W]`` bool, the cells that stand for an object.
        matched: ``[B, C, H, W]`` long, the row of ``objects`` whose box the cell must emit, -1 for none. Every positive
            cell has one; other cells may (their box is trained although their score is not that of an object).
        score: ``[B, C, H, W]`` float in [0, 1].
        ignore: ``[B, C, H, W]`` bool, cells of which nothing is known: no loss there. Unknown is not negative.
        objects: ``[M, 4]`` float xyxy, the truth boxes of the whole batch, one after the other.
        labels: ``[M]`` long, their classes.
        counted: ``[M]`` bool, those that must be found (the others are don't-cares).
        normaliser: float scalar tensor, what sums over cells are divided by: the number of counted objects (with
            several processes, their mean over the processes).
        coarser: the targets of ``DenseOutput.coarser``.
        iou: ``[B, C, H, W]`` float or None, the IoU that the emitted box reaches with its object (without one: with
            whichever object it overlaps most).
        start_iou: the same of ``DenseOutput.start``.
    """

    positive: Tensor
    matched: Tensor
    score: Tensor
    ignore: Tensor
    objects: Tensor
    labels: Tensor
    counted: Tensor
    normaliser: Tensor
    coarser: tuple[DenseTargets, ...] = ()
    iou: Tensor | None = None
    start_iou: Tensor | None = None

    def __post_init__(self) -> None:
        _check("DenseTargets", "positive", self.positive, (None,) * 4)
        for name in ("iou", "start_iou"):
            if (value := getattr(self, name)) is not None:
                _check("DenseTargets", name, value, tuple(self.positive.shape))
        for name in ("matched", "score", "ignore"):
            _check("DenseTargets", name, getattr(self, name), tuple(self.positive.shape))
        _check("DenseTargets", "objects", self.objects, (None, 4))
        for name in ("labels", "counted"):
            _check("DenseTargets", name, getattr(self, name), (len(self.objects),))
        _check("DenseTargets", "normaliser", self.normaliser, ())

    def positives_per_object(self) -> Tensor:
        """``[M]`` long: how many positive cells stand for each object."""
        owner = torch.where(self.positive, self.matched, -1).flatten() + 1  # cells of no object are counted in front
        count = torch.zeros(len(self.objects) + 1, dtype=torch.long, device=owner.device)
        return count.scatter_add_(0, owner, torch.ones_like(owner))[1:]


@dataclass(frozen=True, slots=True)
class Detections(_OnDevice):
    """What is found in one image, best first.

    Attributes:
        boxes: ``[N, 4]`` float xyxy, pixel frame (size zero for points).
        scores: ``[N]`` float in [0, 1].
        labels: ``[N]`` long.
        cell: ``[N]`` long, flat index ``(level, class, row, column)`` of the cell that emitted the detection
            (:func:`boresight.core.grid.flat_cell`), -1 where the source cannot tell.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    cell: Tensor

    def __post_init__(self) -> None:
        _check("Detections", "boxes", self.boxes, (None, 4))
        n = len(self.boxes)
        for name in ("scores", "labels", "cell"):
            _check("Detections", name, getattr(self, name), (n,))

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def xy(self) -> Tensor:
        """``[N, 2]`` box centres: the positions of point detections."""
        return (self.boxes[:, :2] + self.boxes[:, 2:]) / 2

    @classmethod
    def at(cls, xy: Tensor, scores: Tensor, labels: Tensor | None = None, cell: Tensor | None = None) -> Detections:
        """Point detections at ``xy [N, 2]`` with ``scores [N]``."""
        n = len(xy)
        labels = torch.zeros(n, dtype=torch.long, device=xy.device) if labels is None else labels
        cell = torch.full((n,), -1, dtype=torch.long, device=xy.device) if cell is None else cell
        return cls(torch.cat((xy, xy), dim=-1), scores, labels, cell)

    def select(self, keep: Tensor) -> Detections:
        """The detections that ``keep`` (bool ``[N]`` or long indices) names."""
        return Detections(self.boxes[keep], self.scores[keep], self.labels[keep], self.cell[keep])
