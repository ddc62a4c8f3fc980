"""Losses on the score map, each a function of logits and targets that returns the loss of every cell.

All take ``logits``, ``score`` (soft target in [0, 1]) and ``positive`` (bool, the cells that stand for an object) of
one shape, and ``weight``, what their positive part counts (the share ``score`` of a cell for losses with soft targets,
the whole cell for the others). They return that shape, without reduction: what to divide by is the detector's decision
(:func:`boresight.losses.reduce.reduce_cells`). Positives come as a mask, never from ``score == 1``: a sub-pixel
Gaussian peaks below 1, and that comparison would silently find no positive at all.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class CellLoss(Protocol):
    """A loss of single cells."""

    def __call__(self, logits: Tensor, score: Tensor, positive: Tensor, weight: float = 1.0) -> Tensor:
        """The loss of every cell, in the shape of ``logits``."""
        ...


def bce(logits: Tensor, score: Tensor, positive: Tensor, weight: float = 1.0) -> Tensor:
    """Binary cross-entropy with soft targets."""
    return -(weight * score * F.logsigmoid(logits) + (1 - score) * F.logsigmoid(-logits))


def weighted_bce(positive_weight: float) -> CellLoss:
    """Cross-entropy whose positive part counts ``positive_weight`` times."""

    def loss(logits: Tensor, score: Tensor, positive: Tensor, weight: float = 1.0) -> Tensor:
        return bce(logits, score, positive, weight * positive_weight)

    return loss


def focal(alpha: float = 0.25, gamma: float = 2.0) -> CellLoss:
    """Focal loss (Lin et al. 2017, eq. 5) on hard labels: the cells in ``positive`` are 1, all others 0."""

    def loss(logits: Tensor, score: Tensor, positive: Tensor, weight: float = 1.0) -> Tensor:
        p = logits.sigmoid()
        hit = -alpha * (1 - p) ** gamma * F.logsigmoid(logits)
        miss = -(1 - alpha) * p**gamma * F.logsigmoid(-logits)
        return torch.where(positive, weight * hit, miss)

    return loss


def penalty_reduced_focal(alpha: float = 2.0, beta: float = 4.0) -> CellLoss:
    """Penalty-reduced focal loss (CornerNet, Law & Deng 2018, eq. 1): near a target negatives count ``(1-y)^beta``."""

    def loss(logits: Tensor, score: Tensor, positive: Tensor, weight: float = 1.0) -> Tensor:
        p = logits.sigmoid()
        hit = -((1 - p) ** alpha) * F.logsigmoid(logits)
        miss = -((1 - score) ** beta) * p**alpha * F.logsigmoid(-logits)
        return torch.where(positive, weight * hit, miss)

    return loss


def quality_focal(beta: float = 2.0) -> CellLoss:
    """Quality focal loss (Li et al. 2020, GFL, eq. 3): cross-entropy with soft targets, times ``|y - p|^beta``."""

    def loss(logits: Tensor, score: Tensor, positive: Tensor, weight: float = 1.0) -> Tensor:
        return (score - logits.sigmoid()).abs() ** beta * bce(logits, score, positive, weight)

    return loss


def varifocal(alpha: float = 0.75, gamma: float = 2.0) -> CellLoss:
    """Varifocal loss (Zhang et al. 2021, eq. 2): positives weigh their target, negatives ``alpha p^gamma``.

    A positive with a target of 0 (its box overlaps nothing yet) has no loss at all.
    """

    def loss(logits: Tensor, score: Tensor, positive: Tensor, weight: float = 1.0) -> Tensor:
        miss = -alpha * logits.sigmoid() ** gamma * F.logsigmoid(-logits)
        return torch.where(positive, score * bce(logits, score, positive, weight), miss)

    return loss


def matchability(gamma: float = 1.5) -> CellLoss:
    """Matchability-aware loss (Huang et al. 2025, DEIM, section 3.3); ``score`` is ``IoU^gamma`` already.

    ``-(q^gamma log p + (1 - q^gamma) log(1 - p))`` on positives of IoU q, so that a badly boxed one is pushed down as
    well; ``-p^gamma log(1 - p)`` on all others.
    """

    def loss(logits: Tensor, score: Tensor, positive: Tensor, weight: float = 1.0) -> Tensor:
        miss = -(logits.sigmoid() ** gamma) * F.logsigmoid(-logits)
        return torch.where(positive, bce(logits, score, positive, weight), miss)

    return loss


def ohem(ratio: float = 3.0, *, floor: int = 16) -> CellLoss:
    """Cross-entropy on the positives and on the hardest negatives, ``ratio`` for each positive of the batch.

    ``floor`` negatives are kept when the batch has fewer targets, so that empty frames still teach the background
    (online hard example mining, Shrivastava et al. 2016). The selection needs no host synchronisation.
    """

    def loss(logits: Tensor, score: Tensor, positive: Tensor, weight: float = 1.0) -> Tensor:
        cell = bce(logits, score, positive, weight)
        wanted = (ratio * positive.sum()).clamp(min=floor)
        hardness = torch.where(positive, -torch.inf, cell.detach()).flatten()
        rank = torch.empty_like(hardness, dtype=torch.long)
        rank[hardness.argsort(descending=True)] = torch.arange(len(hardness), device=logits.device)
        chosen = positive | ((rank < wanted).view_as(positive) & ~positive)
        return torch.where(chosen, cell, 0.0)

    return loss
