"""From an assignment to targets for every class and cell: scores, boxes, and the cells of which nothing is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from boresight.core.boxes import aligned_iou, centerness
from boresight.core.device import sent
from boresight.core.types import DenseOutput, DenseTargets, Scene
from boresight.targets.assignment import Assignment, boxes_at
from boresight.targets.candidates import MapShape, Objects
from boresight.targets.cells import cells_inside
from boresight.targets.inside import smallest

BoxCells = Literal["positive", "inside"]


@dataclass(frozen=True)
class Fit:
    """What a score target may look at: K candidates, of which the positive ones get a score.

    Attributes:
        assignment: who is positive, and the assigner's metric.
        output: what was emitted.
    """

    assignment: Assignment
    output: DenseOutput

    @cached_property
    def iou(self) -> Tensor:
        """``[K]`` float32: IoU of the emitted box with the object's."""
        candidates = self.assignment.candidates
        return aligned_iou(boxes_at(self.output, candidates), candidates.wanted)


ScoreTarget = Callable[[Fit], Tensor]
"""``[K]`` float32 in [0, 1]: the score that each candidate should have if it is positive."""


def hard(fit: Fit) -> Tensor:
    """1."""
    return torch.ones_like(fit.assignment.positive, dtype=torch.float32)


def centerness_target(fit: Fit) -> Tensor:
    """How near the middle of the object the cell is (FCOS, eq. 3); 0 for a cell outside."""
    candidates = fit.assignment.candidates
    return centerness(candidates.wanted, candidates.xy)


def iou(fit: Fit) -> Tensor:
    """IoU of the emitted box (GFL, Li et al. 2020; VarifocalNet, Zhang et al. 2021)."""
    return fit.iou


def iou_power(gamma: float = 1.5) -> ScoreTarget:
    """``IoU^gamma`` (matchability, Huang et al. 2025, DEIM, section 3.3)."""

    def target(fit: Fit) -> Tensor:
        return fit.iou**gamma

    return target


def aligned(fit: Fit) -> Tensor:
    """``t / max t * max u`` over the positive cells of the object (TOOD, Feng et al. 2021, section 3.2.2).

    t is the assigner's metric, u the IoU; an assigner without a metric is taken at t = u, which leaves u.
    """
    if fit.assignment.metric is None:
        return fit.iou
    best_t, best_u = (_best(v, fit.assignment) for v in (fit.assignment.metric, fit.iou))
    # an object whose every t is 0 has nothing to rank: its score is 0, and so is 0 / 1
    return fit.assignment.metric / torch.where(best_t > 0, best_t, 1.0) * best_u


def _best(value: Tensor, assignment: Assignment) -> Tensor:
    """``[K]``: the largest of the values (at least 0) of the object's positive candidates."""
    candidates = assignment.candidates
    best = torch.zeros(len(candidates.objects), device=value.device)
    value = torch.where(assignment.positive, value, 0.0)
    return candidates.of_object(best.scatter_reduce_(0, candidates.object, value, "amax"))


@torch.no_grad()
def dense_targets(
    output: DenseOutput,
    assignment: Assignment,
    objects: Objects,
    scenes: Sequence[Scene],
    *,
    score: ScoreTarget,
    box_cells: BoxCells = "positive",
) -> DenseTargets:
    """Write an assignment into maps.

    Ignored are, unless positive: cells whose centre lies in a crowd box, in that class's channel; every cell of a class
    that the scene does not label exhaustively. And always the cells that lie wholly in the padding.

    Args:
        output: one level of ``[B, C, H, W]``.
        assignment: of ``objects``, on the device of the output.
        objects: on the CPU, as read from ``scenes``.
        scenes: only ``exhaustive`` is read.
        score: the score of positive cells; all others get 0.
        box_cells: whose boxes are trained: ``positive`` cells, or also all cells whose centre is ``inside`` an object
            (of several the smallest, positive cells first).

    Returns:
        DenseTargets. ``objects`` holds the objects that count and, behind them, the crowd boxes (``counted`` False).

    Raises:
        ValueError: ``exhaustive`` of a scene has another number of classes; the output has coarser levels.
    """
    if output.coarser:
        raise ValueError(f"box targets are made for one level, the output has {1 + len(output.coarser)}")
    shape, device = MapShape.of(output), output.logits.device
    candidates = assignment.candidates
    size = output.logits.numel()
    place = torch.where(assignment.positive, candidates.flat, size)  # one place more: for those that are not positive
    positive = torch.zeros(size + 1, dtype=torch.bool, device=device).scatter_(0, place, True)[:size]
    matched = torch.full((size + 1,), -1, device=device)
    if box_cells == "inside":
        _also_inside(matched, assignment, objects, shape)
    matched = matched.scatter_(0, place, candidates.object)
    matched[size:].fill_(-1)
    scores = torch.zeros(size + 1, device=device).scatter_(0, place, score(Fit(assignment, output)))
    grid = output.logits.shape
    positive = positive.view(grid)
    crowd = objects.crowd if objects.crowd is not None else objects.select(torch.zeros(0, dtype=torch.long))
    counted = torch.arange(len(objects) + len(crowd)) < len(objects)
    return DenseTargets(
        positive=positive,
        matched=matched[:size].view(grid),
        score=scores[:size].view(grid),
        ignore=_unknown(positive, crowd, scenes, shape),
        objects=sent(torch.cat((objects.boxes, crowd.boxes)), device),
        labels=sent(torch.cat((objects.labels, crowd.labels)), device),
        counted=sent(counted, device),
        normaliser=torch.full((), float(len(objects)), device=device),
    )


def _also_inside(matched: Tensor, assignment: Assignment, objects: Objects, shape: MapShape) -> None:
    """Write into ``matched`` the smallest object around every cell whose box is not a positive cell's."""
    inside = cells_inside(objects, shape, always=False)
    winner = sent(smallest(inside), matched.device)
    inside = inside.to(matched.device)
    taken = torch.zeros(shape.keys + 1, dtype=torch.bool, device=matched.device)
    taken.scatter_(0, torch.where(assignment.positive, assignment.candidates.key, shape.keys), True)
    place = torch.where(winner & ~taken.index_select(0, inside.key), inside.flat, len(matched) - 1)
    matched.scatter_(0, place, inside.object)


def _unknown(positive: Tensor, crowd: Objects, scenes: Sequence[Scene], shape: MapShape) -> Tensor:
    """``[B, C, H, W]`` bool: cells of which nothing is known."""
    device = positive.device
    unknown = torch.zeros_like(positive)
    if len(crowd):
        unknown.view(-1).index_fill_(0, cells_inside(crowd, shape, always=False).to(device).flat, True)
    if any(s.exhaustive is not None for s in scenes):
        unknown |= ~sent(_exhaustive(scenes, shape.classes), device)[:, :, None, None]
    unknown &= ~positive
    whole = torch.tensor([shape.columns, shape.rows])
    if bool((shape.ends < whole).any()):
        column = torch.arange(shape.columns) >= shape.ends[:, :1]
        row = torch.arange(shape.rows) >= shape.ends[:, 1:]
        unknown |= sent(row[:, :, None] | column[:, None, :], device)[:, None]
    return unknown


def _exhaustive(scenes: Sequence[Scene], classes: int) -> Tensor:
    """``[B, C]`` bool on the CPU: classes of which every object is labelled."""
    for s in scenes:
        if s.exhaustive is not None and s.exhaustive.shape != (classes,):
            given = list(s.exhaustive.shape)
            raise ValueError(f"{s.name}: exhaustive must say something of each of {classes} classes, got {given}")
    known = [torch.ones(classes, dtype=torch.bool) if s.exhaustive is None else s.exhaustive.cpu() for s in scenes]
    return torch.stack(known)
