"""What is measured on every object of an image, from one forward pass; the maps themselves are not kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from boresight.evaluate.box_errors import COLUMNS, READINGS, box_errors
from boresight.evaluate.cam_diagnostics import cam_reach, pooled_class
from boresight.evaluate.dense_image import DenseImage, Objects
from boresight.evaluate.floors import FLOORS, cam_box, concentric_boxes, mean_size_boxes, random_boxes
from boresight.evaluate.pairs import Floats, Ints
from boresight.evaluate.selection import (
    CHANNEL_RUNGS,
    RUNGS,
    AtRandom,
    ByScore,
    Selection,
    assigned,
    climb,
    read_channel,
)
from boresight.evaluate.subsample import CELL_COUNTS, best_of_drawn

EMITTERS = ("detector", *FLOORS)


@dataclass(frozen=True, slots=True)
class ObjectRecords:
    """One row an object; NaN where something does not exist.

    Attributes:
        image: ``[O]`` index of the image.
        label: ``[O]``.
        side_cells: ``[O]`` root of the area over the stride.
        ladder: ``[O, 6, 6]`` IoU by ``EMITTERS`` and ``RUNGS``.
        wrong: ``[O, 5]`` IoU at ``CHANNEL_RUNGS`` in the channel of another class.
        curve: ``[O, 2, 9, 2]`` of the detector and of random boxes, by ``CELL_COUNTS``: best IoU, chance of 0.5.
        errors: ``[O, 2, 6]`` by ``READINGS`` and ``COLUMNS``.
        mirror: ``[O]`` the class that the scores inside the true box speak for.
        reach: ``[O]`` the largest value of the class map inside.
    """

    image: Ints
    label: Ints
    side_cells: Floats
    ladder: Floats
    wrong: Floats
    curve: Floats
    errors: Floats
    mirror: Ints
    reach: Floats

    @classmethod
    def join(cls, parts: Sequence[ObjectRecords]) -> ObjectRecords:
        """The records of several images, one after the other."""

        def column(name: str, dtype: type, *shape: int) -> Any:
            return np.concatenate([np.zeros((0, *shape), dtype), *(getattr(p, name) for p in parts)])

        return cls(
            image=column("image", np.int64),
            label=column("label", np.int64),
            side_cells=column("side_cells", np.float64),
            ladder=column("ladder", np.float64, len(EMITTERS), len(RUNGS)),
            wrong=column("wrong", np.float64, len(CHANNEL_RUNGS)),
            curve=column("curve", np.float64, 2, len(CELL_COUNTS), 2),
            errors=column("errors", np.float64, len(READINGS), len(COLUMNS)),
            mirror=column("mirror", np.int64),
            reach=column("reach", np.float64),
        )


@dataclass(frozen=True)
class Emitted:
    """The boxes ``[C, N, 4]`` and scores ``[C, N]`` of an image: what the next image's objects are asked of."""

    size: tuple[int, int]
    grid: tuple[int, int]
    field: Tensor
    score: Tensor


def measure(
    image: DenseImage,
    objects: Objects,
    number: int,
    *,
    prior: Tensor,
    previous: Emitted | None,
    rule: Selection,
    generator: torch.Generator,
) -> ObjectRecords:
    """Measure the objects of one image.

    Args:
        image: the raw output, on the CPU.
        objects: of the image.
        number: index of the image.
        prior: ``[M, 2]`` sizes of training boxes, pixels.
        previous: another image's output of the same grid and size, or None.
        rule: how boxes are selected.
        generator: of everything drawn.
    """
    score, field = image.score.flatten(1).float(), image.field()
    random = _shared(random_boxes(prior, score.shape[1], image.size, generator), image)
    shape = (len(objects), len(EMITTERS), len(RUNGS))
    ladder = np.full(shape, np.nan)
    ladder[:, 0] = climb(objects, field, ByScore(score), rule)
    ladder[:, 1:] = _floors(image, objects, random, prior, previous, rule, generator)
    side = (objects.boxes[:, 2:] - objects.boxes[:, :2]).prod(dim=1).sqrt() / image.stride
    curve, errors = _every_cell(objects, field, random, image.stride)
    cam = None if image.cam is None else image.cam.flatten(1)
    return ObjectRecords(
        image=np.full(len(objects), number, np.int64),
        label=objects.labels.numpy(),
        side_cells=side.double().numpy(),
        ladder=ladder,
        wrong=_wrong_channel(objects, field, score, rule, generator),
        curve=curve,
        errors=errors,
        mirror=pooled_class(score, objects),
        reach=np.full(len(objects), np.nan) if cam is None else cam_reach(cam, objects),
    )


def _shared(boxes: Tensor, image: DenseImage) -> Tensor:
    """The same ``[N, 4]`` boxes for every class, cut to the image: ``[C, N, 4]`` without copies."""
    rows, columns = image.grid
    return image.field(boxes.reshape(1, rows, columns, 4).expand(image.classes, -1, -1, -1))


def _floors(
    image: DenseImage,
    objects: Objects,
    random: Tensor,
    prior: Tensor,
    previous: Emitted | None,
    rule: Selection,
    generator: torch.Generator,
) -> Floats:
    """``[m, 5, 6]`` by ``FLOORS`` and ``RUNGS``."""
    floors = np.full((len(objects), len(FLOORS), len(RUNGS)), np.nan)
    blind = AtRandom(image.classes, random.shape[1], generator)
    floors[:, 0] = climb(objects, random, blind, rule)
    same_centre = concentric_boxes(objects.boxes, prior, image.size, generator)
    floors[:, 0, RUNGS.index("gt_centre")] = box_iou(objects.boxes, same_centre).diagonal().double().numpy()
    mean_size = _shared(mean_size_boxes(prior, *image.grid, image.stride), image)
    floors[:, 1] = climb(objects, mean_size, blind, rule)
    if image.untrained is not None:
        floors[:, 2] = climb(objects, image.field(image.untrained), blind, rule)
    if previous is not None:
        floors[:, 3] = climb(objects, previous.field, ByScore(previous.score), rule)
    if image.cam is not None:
        floors[:, 4, RUNGS.index("gt_class")] = _boxed_cam(image, objects)
    return floors


def _boxed_cam(image: DenseImage, objects: Objects) -> Floats:
    """``[m]`` IoU with the box of each class's map: one box a class, so that one object of a class can have it."""
    assert image.cam is not None
    got = np.full(len(objects), np.nan)
    for name in objects.labels.unique().tolist():
        which = (objects.labels == name).nonzero()[:, 0]
        box = cam_box(image.cam[name], image.stride, image.size)
        if box is not None:
            got[which.numpy()] = assigned(objects.overlap(box[None], which))
    return got


def _every_cell(objects: Objects, field: Tensor, random: Tensor, stride: float) -> tuple[Floats, Floats]:
    """The curves ``[m, 2, 9, 2]`` and the errors ``[m, 2, 6]``."""
    curve = np.full((len(objects), 2, len(CELL_COUNTS), 2), np.nan)
    errors = np.full((len(objects), len(READINGS), len(COLUMNS)), np.nan)
    for name in objects.labels.unique().tolist():
        which = (objects.labels == name).nonzero()[:, 0]
        rows, overlap = which.numpy(), objects.overlap(field[name], which)
        curve[rows, 0] = best_of_drawn(overlap)
        curve[rows, 1] = best_of_drawn(objects.overlap(random[name], which))
        for k, cell in enumerate((objects.centre_cell[which], overlap.argmax(dim=1))):
            iou = overlap.gather(1, cell[:, None])[:, 0]
            errors[rows, k] = box_errors(objects.boxes[which], field[name][cell], iou, stride)
    return curve, errors


def _wrong_channel(
    objects: Objects, field: Tensor, score: Tensor, rule: Selection, generator: torch.Generator
) -> Floats:
    """``[m, 5]``: the objects read from the channel of another class, drawn once for each class of the image."""
    got = np.full((len(objects), len(CHANNEL_RUNGS)), np.nan)
    if len(field) < 2:
        return got
    for name in objects.labels.unique().tolist():
        which = (objects.labels == name).nonzero()[:, 0]
        other = (name + 1 + int(torch.randint(len(field) - 1, (1,), generator=generator))) % len(field)
        cells = ByScore(score).within(other, rule.limit)
        overlap = objects.overlap(field[other], which)
        got[which.numpy()] = read_channel(overlap, field[other], cells, objects.centre_cell[which], rule)
    return got
