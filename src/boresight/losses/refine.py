"""Losses of a box refiner: where each edge lies, how well a box fits, and which of two boxes fits better."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from boresight.core.relative import relative
from boresight.core.types import DenseOutput, DenseTargets
from boresight.losses.reduce import divisor


def shared_weight(targets: DenseTargets) -> Tensor:
    """``[B, C, H, W]`` float: each object's weight of 1, shared among the cells that stand for it; 0 elsewhere."""
    taught = targets.positive & ~targets.ignore
    owner = torch.where(taught, targets.matched, -1).flatten() + 1
    count = torch.zeros(len(targets.objects) + 1, device=owner.device).scatter_add_(
        0, owner, torch.ones_like(owner, dtype=torch.float32)
    )
    return torch.where(taught.flatten(), 1 / count[owner], 0.0).view_as(targets.positive)


def edge_loss(output: DenseOutput, targets: DenseTargets, weight: Tensor) -> Tensor:
    """Distribution focal loss (Li et al. 2020, eq. 6): cross-entropy with the two places next to each true edge.

    An edge outside of the window is taken to lie at its border. Mean over the four edges, weighted sum over cells,
    divided by the number of objects: without unit.

    Args:
        output: with ``edges`` ``[B, C, H, W, 4, K]`` and ``window``.
        targets: of the same shape.
        weight: ``[B, C, H, W]``.
    """
    assert output.edges is not None
    assert output.window is not None
    bins = output.edges.shape[-1]
    logits = output.edges.float().log_softmax(-1)
    if not len(targets.objects):
        return logits.sum() * 0.0
    wanted = targets.objects[targets.matched.clamp(min=0)].float()
    place = (relative(wanted, output.window) * bins - 0.5).clamp(0, bins - 1)
    below = place.floor().clamp(max=bins - 2)
    share = place - below
    low = logits.gather(-1, below.long()[..., None])[..., 0]
    high = logits.gather(-1, below.long()[..., None] + 1)[..., 0]
    cell = -((1 - share) * low + share * high).mean(-1)
    return (cell * weight).sum() / divisor(targets.normaliser)


def quality_loss(logits: Tensor, iou: Tensor, weight: Tensor, normaliser: Tensor) -> Tensor:
    """Cross-entropy between a predicted IoU (as logit) and the one that was reached, weighted and per object.

    All but ``normaliser`` are ``[B, C, H, W]``. Its least value is the entropy of the IoU itself, which is taken off: 0
    is a prediction that is right.
    """
    reached = iou.clamp(0, 1)
    inner = reached.clamp(1e-6, 1 - 1e-6)
    entropy = -(inner * inner.log() + (1 - inner) * (1 - inner).log())
    loss = F.binary_cross_entropy_with_logits(logits.float(), reached, reduction="none") - entropy
    return (loss.clamp(min=0) * weight).sum() / divisor(normaliser)


def decision_loss(logits: Tensor, better: Tensor, weight: Tensor, normaliser: Tensor) -> Tensor:
    """Cross-entropy of "the refined box fits better than the coarse one", weighted and per object."""
    loss = F.binary_cross_entropy_with_logits(logits.float(), better, reduction="none")
    return (loss * weight).sum() / divisor(normaliser)
