"""System C: coarse boxes and frozen features in, tighter boxes out.

A refiner is a dense detector whose cells are coarse boxes: cell ``(0, m, 0)`` is that of coarse box ``m``. It emits
there where the object lies, and how sure it is that this is better than the coarse box: with ``decode`` followed by
:func:`settled` a box is replaced only where it is sure enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from boresight.core.types import DenseOutput, DenseTargets, Detections, Proposals, Scene
from boresight.detectors.box_looks import Move, Refiner, Sight
from boresight.detectors.detector import Detector
from boresight.features.encoder import FeatureMaps
from boresight.features.feature_store import FeatureStore, Named
from boresight.features.stored_maps import StoredMaps
from boresight.losses.boxes import box_loss
from boresight.losses.refine import decision_loss, edge_loss, quality_loss, shared_weight
from boresight.targets.proposals import proposal_targets


def _check_device(scene: Scene, device: torch.device) -> None:
    boxes = device if scene.proposals is None else scene.proposals.boxes.device
    if (scene.image.device, boxes) != (device, device):
        there = f"the image is on {scene.image.device}, its coarse boxes on {boxes}, the refiner on {device}"
        raise ValueError(f"{scene.name}: {there}: move the scene to the refiner")


@dataclass(frozen=True)
class RefineCriterion:
    """How far the boxes are from their objects. Weights of the terms; 0 leaves a term out.

    Attributes:
        l1: distance of the edges, relative to the object.
        iou: of 1 - GIoU.
        edges: of the edges' distributions.
        quality: of the predicted IoU of every box that was looked at.
        decision: of which box is better.
        unmatched: weight, in the quality's term, of a coarse box that stands for no object.
    """

    l1: float = 0.5
    iou: float = 2.0
    edges: float = 0.5
    quality: float = 1.0
    decision: float = 0.5
    unmatched: float = 0.25

    def __call__(self, output: DenseOutput, targets: DenseTargets) -> dict[str, Tensor]:
        """Loss terms by name, each a scalar: the mean over objects of the mean over their coarse boxes and steps."""
        steps = [*zip(output.coarser, targets.coarser, strict=True), (output, targets)]
        terms: dict[str, list[Tensor]] = {}
        for one, wanted in steps:
            weight = shared_weight(wanted)
            l1, iou = box_loss(one.boxes, wanted, per="objects")
            terms.setdefault("l1", []).append(self.l1 * l1)
            terms.setdefault("iou", []).append(self.iou * iou)
            if one.edges is not None and self.edges:
                terms.setdefault("edges", []).append(self.edges * edge_loss(one, wanted, weight))
            if one.quality is not None and self.quality:
                terms.setdefault("quality", []).append(self.quality * self._quality(one, wanted, weight))
        mean = {name: torch.stack(values).mean() for name, values in terms.items()}
        if output.quality is not None and self.decision:
            mean["decision"] = self.decision * decision_loss(
                output.logits, targets.score, shared_weight(targets), targets.normaliser
            )
        return mean

    def _quality(self, output: DenseOutput, targets: DenseTargets, weight: Tensor) -> Tensor:
        assert output.quality is not None
        assert output.start_quality is not None
        assert targets.iou is not None
        assert targets.start_iou is not None
        alone = (targets.matched < 0) & ~targets.ignore
        weight = torch.where(alone, self.unmatched, weight)
        both = ((output.quality, targets.iou), (output.start_quality, targets.start_iou))
        return torch.stack([quality_loss(_logit(q), iou, weight, targets.normaliser) for q, iou in both]).mean()


def _logit(share: Tensor) -> Tensor:
    return share.float().logit(eps=1e-6)


class BoxRefiner(Detector):
    """Refines the coarse boxes of scenes (``Scene.proposals``).

    Args:
        features: frozen maps of scenes; None where the refiner reads pixels alone.
        refiner: moves boxes.
        criterion: the loss.
        match_iou: IoU from which a coarse box stands for an object, where the scene does not say for which.
    """

    def __init__(
        self, features: StoredMaps | None, refiner: Refiner, criterion: RefineCriterion, *, match_iou: float = 0.1
    ) -> None:
        super().__init__()
        self.features, self.refiner, self.criterion = features, refiner, criterion
        self.match_iou = match_iou

    @property
    def frozen(self) -> dict[str, str]:
        """Identity of the encoder of the frozen features."""
        return {} if self.features is None else {"features": self.features.encoder.identity()}

    @property
    def store(self) -> FeatureStore | None:
        """Of the frozen encoder's features."""
        return None if self.features is None else self.features.store

    @property
    def remarks(self) -> tuple[str, ...]:
        """Of the frozen encoder."""
        return () if self.features is None else self.features.encoder.notes

    def stored_and_fresh(self, scene: Scene) -> tuple[Named, Named] | None:
        """Of the frozen encoder."""
        return None if self.features is None else self.features.stored_and_fresh(scene)

    def forward(self, scenes: Sequence[Scene]) -> DenseOutput:
        """Scenes with coarse boxes to a box and a decision for each: ``[B, 1, M, 1, ...]``, M the most of an image."""
        device = next(self.parameters()).device
        for scene in scenes:
            _check_device(scene, device)
        maps: list[FeatureMaps] = []
        if self.features is not None:
            if self.features.encoder.device != device:
                self.features.encoder.to(device)
            maps = self.features(scenes)
        sight = Sight.of(scenes, maps)
        sizes = tuple(s.size for s in scenes)
        return _dense(self.refiner(sight), sight.counts, sizes)

    def assign(self, output: DenseOutput, scenes: Sequence[Scene]) -> DenseTargets:
        """For which object each coarse box stands, how well its boxes fit, and whether the emitted one is better."""
        return proposal_targets(output, scenes, self.match_iou)

    def loss(self, output: DenseOutput, targets: DenseTargets) -> dict[str, Tensor]:
        """Terms ``l1``, ``iou`` and, where the head gives them, ``edges``, ``quality`` and ``decision``."""
        return self.criterion(output, targets)

    def decode(self, output: DenseOutput) -> list[Detections]:
        """The refined box of every coarse box, with the share of confidence that it is the better one; label 0."""
        return [self._one(output, i, count) for i, count in enumerate(output.counts)]

    def _one(self, output: DenseOutput, image: int, count: int) -> Detections:
        score, order = output.logits[image, 0, :count, 0].sigmoid().sort(descending=True, stable=True)
        return Detections(output.boxes[image, 0, order, 0], score, torch.zeros_like(order), order)


def _dense(moves: Sequence[Move], counts: tuple[int, ...], sizes: tuple[tuple[int, int], ...]) -> DenseOutput:
    """The steps as outputs, the last one in front."""
    *before, last = (_step(move, counts, sizes) for move in moves)
    return replace(last, coarser=tuple(before))


def _step(move: Move, counts: tuple[int, ...], sizes: tuple[tuple[int, int], ...]) -> DenseOutput:
    def spread(values: Tensor | None, fill: Tensor) -> Tensor | None:
        """``[N, ...]`` to ``[B, 1, M, 1, ...]``, padded with ``fill``."""
        if values is None:
            return None
        most = max(counts, default=0)
        parts = [
            torch.cat((part, fill.to(part).expand(most - len(part), *part.shape[1:]))) for part in values.split(counts)
        ]
        return torch.stack(parts)[:, None, :, None]

    unit = torch.tensor([0.0, 0.0, 1.0, 1.0])
    zero = torch.zeros(())
    quality = None if move.quality is None else move.quality.sigmoid()
    start_quality = None if move.start_quality is None else move.start_quality.sigmoid()
    logits, boxes = spread(move.decision, zero), spread(move.boxes, unit)
    assert logits is not None
    assert boxes is not None
    return DenseOutput(
        logits=logits,
        boxes=boxes,
        stride=0.0,
        quality=spread(quality, zero),
        sizes=sizes,
        start=spread(move.start, unit),
        start_quality=spread(start_quality, zero),
        edges=spread(move.edges, zero),
        window=spread(move.window, unit),
        counts=counts,
    )


def settled(proposals: Proposals, found: Detections, threshold: float) -> tuple[Tensor, Tensor]:
    """The boxes that stand in the end: refined where the score reaches ``threshold``, coarse elsewhere.

    Returns:
        ``[M, 4]`` boxes and ``[M]`` bool, which were replaced, in the order of the coarse boxes.

    A refined box without area never replaces one. Raises ValueError where ``found`` does not answer these boxes.
    """
    if len(found) != len(proposals):
        raise ValueError(f"{len(proposals)} coarse boxes, {len(found)} answers: they must be of the same image")
    boxes, replaced = proposals.boxes.float().clone(), torch.zeros(len(proposals), dtype=torch.bool)
    solid = (found.boxes[:, 2:] > found.boxes[:, :2]).all(-1)
    take = (found.scores >= threshold) & solid
    boxes[found.cell[take]] = found.boxes[take].to(boxes)
    replaced[found.cell[take].cpu()] = True
    return boxes, replaced
