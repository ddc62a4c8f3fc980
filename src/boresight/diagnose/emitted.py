"""One row for every detection that is emitted, and one for every object: the data of the audit.

Everything that the audit says is computed from these rows. They are numbers in arrays, some 80 bytes a row; a data set
of 5,000 images with 1,000 emitted detections each needs 400 MB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from boresight.core.emission import Emission, Missing, Supervision
from boresight.decode.replay import Selected
from boresight.diagnose.likeness import Likeness
from boresight.diagnose.truth import Truth
from boresight.evaluate.pairs import Bools, Floats, Ints

BUCKETS = ("supervised", "inside", "background", "unplaced")
"""Where a detection comes from: a cell whose box is trained; one in an object that is not; one in none; one without a
place (a query that no object was matched to)."""
SUPERVISED, INSIDE, BACKGROUND, UNPLACED = range(4)
NOWHERE = -1
"""The bucket of what nothing can be said about."""


class _Columns:
    """Joins rows of images."""

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """The rows of several images, one after the other. Raises ValueError for none."""
        if not parts:
            raise ValueError("no image to audit")
        return cls(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class EmittedRows(_Columns):
    """Detections that reach suppression, image after image, best first within each.

    Attributes:
        image: index of the image.
        slot: class and cell (see :mod:`boresight.core.emission`), -1 where it is not known.
        label, level: the class; the level of the pyramid, -1 where the cell is not known.
        score: as emitted.
        box: ``[D, 4]`` cut to the image.
        bucket: of :data:`BUCKETS`, :data:`NOWHERE` where the supervision is not known.
        control: the same by an assigner that looks at no prediction.
        iou: likeness to the object that it fits best, whatever their classes; 0 where there is none.
        own: likeness to the object of its class that it fits best.
        object: number of the object of ``iou`` among those of its image that count, -1 for none.
        distance: from the cell's centre to that object's, in strides; NaN where there is no such thing.
        kept: returned by the detector.
        by: row (of this table) of the detection that suppressed it, its own where none did.
    """

    image: Ints
    slot: Ints
    label: Ints
    level: Ints
    score: Floats
    box: Floats
    bucket: Ints
    control: Ints
    iou: Floats
    own: Floats
    object: Ints
    distance: Floats
    kept: Bools
    by: Ints

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True, slots=True)
class ObjectRows(_Columns):
    """Objects that count, image after image: what its cells emit in the channel of its own class.

    Its cells are those in it (the nearest where there is none); of queries, those whose box has a likeness of 0.1.

    Attributes:
        image, object, label: which; ``object`` is the row in ``Scene.boxes``.
        side: root of its area, pixels.
        cells: how many cells it has.
        positives: how many cells are trained for it; -1 where that is not known.
        best: largest likeness among its cells, NaN without cells.
        top: that of the cell with the highest score.
        score: the highest score.
        best_score: the score of the cell with the largest likeness.
        trained: largest likeness among the cells that are trained for it, NaN without.
        anywhere: largest likeness of any slot of its class in the image.
    """

    image: Ints
    object: Ints
    label: Ints
    side: Floats
    cells: Ints
    positives: Ints
    best: Floats
    top: Floats
    score: Floats
    best_score: Floats
    trained: Floats
    anywhere: Floats

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True)
class Seen:
    """What one image was found to be, from one pass over its output."""

    emission: Emission
    truth: Truth
    supervision: Supervision | Missing
    control: Supervision | Missing
    inside: Tensor | None


def trained_slots(seen: Seen, verdict: Supervision | Missing) -> Tensor | None:
    """``[K, N]`` bool: boxes that are trained, by some assigner's verdict; None where there is none."""
    if isinstance(verdict, Missing):
        return None
    boxes = torch.zeros(seen.emission.boxes.shape[:2], dtype=torch.bool)
    if len(boxes) == 1:
        boxes[0, verdict.cell] = True
    else:
        labels = seen.truth.labels[_within(seen.truth, verdict.object)]
        boxes[labels, verdict.cell] = True
    return boxes


def _within(truth: Truth, rows: Tensor) -> Tensor:
    """Rows of a scene as rows of its objects that count. Raises ValueError for one that does not count."""
    size = 1 + max((int(v.max()) for v in (truth.row, rows) if len(v)), default=-1)
    place = torch.full((size,), -1, dtype=torch.long)
    place[truth.row] = torch.arange(len(truth))
    found = place[rows]
    if bool((found < 0).any()):
        raise ValueError(f"a cell is trained for object {int(rows[found < 0][0])}, which does not count")
    return found


def emitted_rows(seen: Seen, selected: Selected, image: int, first: int, likeness: Likeness) -> EmittedRows:
    """The rows of one image.

    Args:
        seen: the image.
        selected: which of its slots reached suppression, and what became of them.
        image: its index.
        first: number of rows before these (``by`` counts them).
        likeness: how boxes are compared with objects.
    """
    emission, truth = seen.emission, seen.truth
    like = likeness(selected.boxes, truth.boxes)
    none = torch.zeros(len(selected.slot), 1)
    same = selected.labels[:, None] == truth.labels
    iou, object_ = torch.cat((none, like), 1).max(1)
    own = torch.cat((none, like.masked_fill(~same, 0.0)), 1).max(1).values
    cell = selected.slot % emission.cells
    known = selected.slot >= 0
    level = torch.zeros_like(cell) if emission.level is None else torch.where(known, emission.level[cell], -1)
    return EmittedRows(
        image=np.full(len(cell), image),
        slot=selected.slot.numpy(),
        label=selected.labels.numpy(),
        level=level.numpy(),
        score=selected.scores.double().numpy(),
        box=selected.boxes.double().numpy().reshape(-1, 4),
        bucket=_buckets(seen, seen.supervision, selected),
        control=_buckets(seen, seen.control, selected),
        iou=iou.double().numpy(),
        own=own.double().numpy(),
        object=object_.numpy() - 1,
        distance=_distance(emission, truth, cell, torch.where(known, object_ - 1, -1)),
        kept=selected.kept.numpy(),
        by=selected.by.numpy() + first,
    )


def _buckets(seen: Seen, verdict: Supervision | Missing, selected: Selected) -> Ints:
    trained = trained_slots(seen, verdict)
    if trained is None:
        return np.full(len(selected.slot), NOWHERE)
    cell = selected.slot % seen.emission.cells
    supervised = trained[selected.labels if len(trained) > 1 else selected.labels * 0, cell]
    if seen.inside is None:
        outside = torch.full_like(cell, UNPLACED)
    else:
        outside = torch.where(seen.inside.any(1)[cell], INSIDE, BACKGROUND)
    known = selected.slot >= 0
    return torch.where(known, torch.where(supervised, SUPERVISED, outside), NOWHERE).numpy()


def _distance(emission: Emission, truth: Truth, cell: Tensor, object_: Tensor) -> Floats:
    if emission.centres is None or emission.strides is None or not len(truth):
        return np.full(len(cell), np.nan)
    middle = (truth.boxes[:, :2] + truth.boxes[:, 2:]) / 2
    away = (emission.centres[cell].float() - middle[object_.clamp(min=0)]).norm(dim=-1) / emission.strides[cell]
    return torch.where(object_ >= 0, away, torch.nan).double().numpy()


def object_rows(seen: Seen, image: int, likeness: Likeness, least: float = 0.1) -> ObjectRows:
    """The rows of one image; ``least`` is the likeness from which a query belongs to an object."""
    emission, truth = seen.emission, seen.truth
    m = len(truth)
    labels = truth.labels
    score = emission.scores[labels].float()
    like = _own_channel(emission, truth, likeness)
    mine = like >= least if seen.inside is None else seen.inside.T
    trained = _trained_for(seen)

    def best(values: Tensor, where: Tensor) -> Tensor:
        return (
            torch.where(where.any(1), values.masked_fill(~where, -1.0).max(1).values, torch.nan)
            if m
            else values.new_zeros(0)
        )

    def at(values: Tensor, by: Tensor) -> Tensor:
        if not m:
            return values.new_zeros(0)
        place = by.masked_fill(~mine, -1.0).argmax(1, keepdim=True)
        return torch.where(mine.any(1), values.gather(1, place)[:, 0], torch.nan)

    column: dict[str, Any] = {
        "image": torch.full((m,), image),
        "object": truth.row,
        "label": labels,
        "side": (truth.boxes[:, 2:] - truth.boxes[:, :2]).prod(1).sqrt().double(),
        "cells": mine.sum(1),
        "positives": torch.full((m,), -1) if trained is None else trained.sum(1),
        "best": best(like, mine),
        "top": at(like, score),
        "score": best(score, mine),
        "best_score": at(score, like),
        "trained": like.new_full((m,), torch.nan) if trained is None else best(like, trained),
        "anywhere": best(like, torch.ones_like(mine)),
    }
    return ObjectRows(**{k: (v.double() if v.is_floating_point() else v).numpy() for k, v in column.items()})


def _own_channel(emission: Emission, truth: Truth, likeness: Likeness) -> Tensor:
    """``[M, N]``: likeness of each object with what the channel of its class emits at each cell."""
    if not len(truth):
        return torch.zeros(0, emission.cells)
    channel = truth.labels if len(emission.boxes) > 1 else truth.labels * 0
    return torch.stack(
        [
            likeness(clip_boxes_to_image(emission.boxes[c].float(), emission.size), truth.boxes[i : i + 1])[:, 0]
            for i, c in enumerate(channel.tolist())
        ]
    )


def _trained_for(seen: Seen) -> Tensor | None:
    """``[M, N]`` bool: the cell's box is trained for the object."""
    if isinstance(seen.supervision, Missing):
        return None
    which = torch.zeros(len(seen.truth), seen.emission.cells, dtype=torch.bool)
    which[_within(seen.truth, seen.supervision.object), seen.supervision.cell] = True
    return which
