"""What moves coarse boxes: it looks at one, moves it, and looks again; or the reference, which looks once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from boresight.core.device import sent
from boresight.core.relative import (
    absolute,
    enlarged,
    ordered,
    relative,
    turned_boxes,
    turned_maps,
    upright_boxes,
    upright_edges,
)
from boresight.core.types import Proposals, Scene
from boresight.features.encoder import FeatureMaps
from boresight.features.roi import ImagePyramid, roi_grids
from boresight.heads.refiner import Look, ReferenceHead, RefineHead, Trunk


@dataclass(frozen=True, slots=True)
class Sight:
    """All coarse boxes of a batch, one image after the other, and what can be seen of their images.

    Attributes:
        maps: frozen features of each image; empty: none are read.
        images: of the batch.
        boxes: ``[N, 4]`` coarse boxes.
        labels: ``[N]`` their classes, -1 unknown.
        turns: ``[N]`` the orientation in which each is shown.
        counts: boxes of each image.
        limits: ``[N, 4]`` the far corner of each box's image, twice.
    """

    maps: list[FeatureMaps]
    images: ImagePyramid
    boxes: Tensor
    labels: Tensor
    turns: Tensor
    counts: tuple[int, ...]
    limits: Tensor

    @classmethod
    def of(cls, scenes: Sequence[Scene], maps: list[FeatureMaps]) -> Sight:
        """Raises ValueError for a scene without coarse boxes (None), or with boxes that are not finite."""
        given = [_proposals(scene) for scene in scenes]
        boxes = torch.cat([p.boxes.float() for p in given])
        turns = [torch.zeros_like(p.labels) if p.turns is None else p.turns for p in given]
        size = torch.tensor([(s.size[1], s.size[0]) * 2 for s in scenes], dtype=torch.float32)
        counts = tuple(len(p) for p in given)
        limits = sent(size.repeat_interleave(torch.tensor(counts), dim=0), boxes.device)
        images = ImagePyramid([s.image for s in scenes])
        return cls(maps, images, boxes, torch.cat([p.labels for p in given]), torch.cat(turns), counts, limits)

    def reduced(self, trunk: Trunk) -> list[FeatureMaps]:
        """Maps with the channels that a head reads."""
        few = trunk.reduced([m.levels for m in self.maps]) if self.maps else []
        return [FeatureMaps(tuple(levels), m.extents) for levels, m in zip(few, self.maps, strict=True)]

    def pooled(self, maps: Sequence[FeatureMaps], windows: Tensor, grid: int) -> list[Tensor]:
        """Every level of maps of the images inside of the windows, each as its orientation shows it."""
        if not maps:
            return []
        return [turned_maps(level, self.turns) for level in roi_grids(maps, windows.split(self.counts), grid)]

    @torch.no_grad()
    def patches(self, windows: Tensor, grid: int) -> Tensor:
        """The pixels inside of the windows, each as its orientation shows it."""
        return turned_maps(self.images.grids(windows.split(self.counts), grid), self.turns)


def _proposals(scene: Scene) -> Proposals:
    if scene.proposals is None:
        raise ValueError(f"{scene.name} has no coarse boxes (None) to start from")
    if not bool(scene.proposals.boxes.isfinite().all()):
        raise ValueError(f"{scene.name}: a coarse box is not finite")
    return scene.proposals


@dataclass(frozen=True, slots=True)
class Move:
    """One step of all boxes. ``[N, ...]`` as in :class:`DenseOutput`; qualities and decision are logits."""

    start: Tensor
    boxes: Tensor
    decision: Tensor
    start_quality: Tensor | None = None
    quality: Tensor | None = None
    edges: Tensor | None = None
    window: Tensor | None = None


class Refiner(Protocol):
    """Moves boxes: a module."""

    def __call__(self, sight: Sight) -> list[Move]:
        """Every step in order; the last one's boxes are those that are emitted."""
        ...


class Looking(nn.Module):
    """Looks at a box, moves it, looks again.

    Args:
        heads: one shared by all steps, or one a step.
        steps: how often a box moves.
        context: side of the window over that of the box.
        least: smallest side of a window, pixels.
        decide: what a box is replaced for: the learned ``confidence`` that it got better, or its ``gain`` in predicted
            IoU, that of the refined box less that of the coarse one.

    After the last step the box is looked at once more: how well it fits is judged by what is seen there, not by what
    was hoped for.
    """

    def __init__(
        self,
        heads: Sequence[RefineHead],
        *,
        steps: int,
        context: float,
        least: float = 12.0,
        decide: Literal["confidence", "gain"] = "confidence",
    ) -> None:
        super().__init__()
        self.decide = decide
        if len(heads) not in (1, steps):
            raise ValueError(f"{steps} steps need one head, or {steps}; got {len(heads)}")
        self.heads = nn.ModuleList(heads)
        self.steps, self.context, self.least = steps, context, least

    def forward(self, sight: Sight) -> list[Move]:
        """See :class:`Refiner`."""
        box, looks, moves = sight.boxes, [], []
        maps = [sight.reduced(head.trunk) for head in self.heads]  # type: ignore[arg-type]
        for step in range(self.steps + 1):
            window = enlarged(box, self.context, self.least)
            k = min(step, len(self.heads) - 1)
            look = self._look(self.heads[k], sight, maps[k], box, window)  # type: ignore[arg-type]
            looks.append(look)
            if step < self.steps:
                found = absolute(upright_boxes(look.boxes, sight.turns), window)
                found = ordered(found.clamp(min=0).minimum(sight.limits))
                edges = None if look.edges is None else upright_edges(look.edges, sight.turns)
                moves.append(Move(box, found, torch.zeros_like(found[:, 0]), edges=edges, window=window))
                box = found.detach()
        decision = self._decision(looks[0], looks[-1], sight.boxes, box)
        return [
            replace(m, start_quality=looks[i].quality, quality=looks[i + 1].quality, decision=decision)
            for i, m in enumerate(moves)
        ]

    def _decision(self, first: Look, last: Look, start: Tensor, found: Tensor) -> Tensor:
        if self.decide == "gain":  # -1..1 as a share, as a logit
            return ((1 + last.quality.sigmoid() - first.quality.sigmoid()) / 2).detach().logit(eps=1e-6)
        head: RefineHead = self.heads[-1]  # type: ignore[assignment]
        return head.decision(first, last, start, found)

    def _look(self, head: RefineHead, sight: Sight, maps: Sequence[FeatureMaps], box: Tensor, window: Tensor) -> Look:
        patch = sight.patches(window, 4 * head.grid) if head.pixels else None
        side = box[:, 2:] - box[:, :2]
        size = torch.where((sight.turns >> 2 & 1).bool()[:, None], side.flip(-1), side)
        shares = turned_boxes(relative(box, window), sight.turns)
        return head(sight.pooled(maps, window, head.grid), patch, shares, size, sight.labels)


class Reference(nn.Module):
    """The reference: one step, from the features inside of the box."""

    def __init__(self, head: ReferenceHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, sight: Sight) -> list[Move]:
        """See :class:`Refiner`."""
        found = sight.boxes + self.head(sight.pooled(sight.maps, sight.boxes, self.head.grid))
        found = ordered(found.clamp(min=0).minimum(sight.limits))
        return [Move(sight.boxes, found, torch.zeros_like(found[:, 0]))]
