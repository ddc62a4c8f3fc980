"""How an assigner decides: the best k candidates of an object, one object a box. Static sizes, no word from the device.

Floats are ordered through their bits, packed with what breaks a tie into one 64-bit key: one sort or one scatter does
the work, the answer does not depend on the order of threads, and no two floats are compared for equality.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from boresight.core.device import sent
from boresight.core.types import DenseOutput
from boresight.targets.candidates import Candidates, MapShape, Objects


@dataclass(frozen=True)
class Assignment:
    """Which candidates are positive, on the device of the output.

    Attributes:
        candidates: K pairs of an object and a cell.
        positive: ``[K]`` bool. A box (:attr:`Candidates.key`) serves one object at most.
        metric: ``[K]`` float32, how well score and box agree with the object, of assigners that choose by it.
    """

    candidates: Candidates
    positive: Tensor
    metric: Tensor | None = None

    def to(self, device: torch.device | str) -> Assignment:
        """The same on ``device``, without waiting for it."""
        metric = None if self.metric is None else sent(self.metric, device)
        return Assignment(self.candidates.to(device), sent(self.positive, device), metric)


class Assigner(Protocol):
    """Decides which cells stand for which object.

    Attributes:
        by_prediction: whether it looks at what is emitted. Where it does, that its cells emit good boxes is no finding.
    """

    by_prediction: ClassVar[bool]

    def __call__(self, output: DenseOutput, score: Tensor, objects: Objects, progress: float = 1.0) -> Assignment:
        """Assign.

        Args:
            output: what the detector emits, any floating type (computed in float32), any device.
            score: ``[B, C, H, W]`` in [0, 1], the score that is emitted, on the same device.
            objects: the truth, on the CPU.
            progress: share of the training that is done, 0..1.
        """
        ...


def ordered(value: Tensor) -> Tensor:
    """Long in ``-2^31..2^31 - 1`` that orders like the float32 ``value``."""
    bits = (value.float() + 0.0).contiguous().view(torch.int32)  # + 0.0: minus zero is zero
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()


def _best_first(metric: Tensor, candidates: Candidates) -> Tensor:
    """``[K]`` long: candidates by object, then by falling metric, then as they stand."""
    return ((candidates.object << 32) | (0x7FFFFFFF - ordered(metric))).argsort(stable=True)


def top_k_per_object(metric: Tensor, candidates: Candidates, k: Tensor | int) -> Tensor:
    """``[K]`` bool: the ``k`` candidates of each object with the largest ``metric [K]``.

    ``k`` is one number or one for each object, ``[M]`` long. Of equal candidates the earlier is taken (the upper row,
    then the column further left). An object with fewer candidates keeps them all.
    """
    order = _best_first(metric, candidates)
    # sorted or not, candidate i belongs to the same object: only within an object does the order change
    rank = torch.arange(len(order), device=order.device) - candidates.of_object(candidates.start)
    chosen = rank < (candidates.of_object(k) if isinstance(k, Tensor) else k)
    return torch.empty_like(chosen).scatter_(0, order, chosen)


def top_values(metric: Tensor, candidates: Candidates, k: int) -> Tensor:
    """``[M, k]``: the largest ``metric [K]`` of each object's candidates, falling, 0 where there are fewer."""
    if not len(candidates):
        return metric.new_zeros(len(candidates.objects), k)
    falling = metric.index_select(0, _best_first(metric, candidates))
    end = torch.cat((candidates.start[1:], candidates.start.new_full((1,), len(falling))))
    place = candidates.start[:, None] + torch.arange(k, device=falling.device)
    return torch.where(place < end[:, None], falling[place.clamp(max=len(falling) - 1)], 0.0)


def resolve(chosen: Tensor, priority: Tensor, key: Tensor, keys: int) -> Tensor:
    """``[K]`` bool: of the ``chosen`` candidates that want the same box, the one with the largest priority.

    Args:
        chosen: ``[K]`` bool.
        priority: ``[K]`` float; of equal ones the earlier candidate wins (the lower object).
        key: ``[K]`` long in ``0..keys - 1``, the box that each wants.
        keys: how many boxes there are.
    """
    order = torch.arange(len(key), device=key.device)
    claim = (ordered(priority) << 32) | (0xFFFFFFFF - order)
    where = torch.where(chosen, key, keys)  # who was not chosen wants a box that nobody has
    lowest = torch.iinfo(torch.int64).min
    best = torch.full((keys + 1,), lowest, device=key.device).scatter_reduce_(0, where, claim, "amax")
    return chosen & (best.index_select(0, where) == claim)


def boxes_of(output: DenseOutput, shape: MapShape, key: Tensor) -> Tensor:
    """``[K, 4]`` float32: the emitted boxes with the keys ``[K]`` (see :attr:`Candidates.key`)."""
    boxes = output.boxes[:, 0] if shape.shared else output.boxes  # never a copy for every class
    return boxes.reshape(-1, 4).index_select(0, key).float()


def boxes_at(output: DenseOutput, candidates: Candidates) -> Tensor:
    """``[K, 4]`` float32: the boxes that the candidates emit."""
    return boxes_of(output, candidates.shape, candidates.key)


def values_at(values: Tensor, candidates: Candidates) -> Tensor:
    """``[K]`` float32: ``values [B, C, H, W]`` at the candidates."""
    return values.reshape(-1).index_select(0, candidates.flat).float()
