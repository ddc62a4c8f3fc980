"""System D: dim point targets with Gaussian soft labels that may change as training runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image

from boresight.core.device import sent
from boresight.core.grid import cell_centres
from boresight.core.types import DenseOutput, DenseTargets, Detections, Scene
from boresight.detectors.detector import Detector
from boresight.losses.classification import CellLoss
from boresight.losses.reduce import Per, divisor, reduce_cells
from boresight.losses.regression import offset_l1
from boresight.targets.gaussian import Kernel, coarser_targets, point_targets
from boresight.targets.schedule import TRUNCATION, Schedule

IGNORED_LOGIT = -20.0
"""What a score loss reads at cells it must not count: the easiest of negatives, finite in any loss."""


@dataclass(frozen=True)
class PointAssigner:
    """Makes the targets of a moment: a schedule says how wide, a kernel says what shape.

    Attributes:
        schedule: progress to label.
        kernel: sigma to kernel.
        offset_reach: see :func:`boresight.targets.gaussian.point_targets`.
    """

    schedule: Schedule
    kernel: Callable[[float], Kernel]
    offset_reach: int = 1

    def __call__(self, scenes: Sequence[Scene], output: DenseOutput, progress: float) -> DenseTargets:
        """Targets for every level of ``output``; what lies outside the images is ignored."""
        unlabelled = [s.name for s in scenes if s.points is None]
        if unlabelled:
            raise ValueError(f"{unlabelled[0]} has no point truth: unknown is not empty, training needs it")
        _check_inside(scenes)
        sigma = self.schedule(progress).sigma
        _, classes, rows, columns = output.logits.shape
        fine = point_targets(
            [s.points for s in scenes if s.points is not None],
            classes=classes,
            rows=rows,
            columns=columns,
            stride=output.stride,
            kernel=self.kernel(sigma),
            reach=int(TRUNCATION * sigma + 0.5) + 1,
            offset_reach=self.offset_reach,
            device=output.logits.device,
        )
        fine = replace(fine, ignore=fine.ignore | _outside(output))
        coarser = tuple(coarser_targets(fine, int(level.stride // output.stride)) for level in output.coarser)
        return replace(fine, coarser=coarser)


def _check_inside(scenes: Sequence[Scene]) -> None:
    """Raise ValueError naming the first scene with a point outside its frame: padding would swallow it silently."""
    known = [(s, s.points.xy) for s in scenes if s.points is not None]
    parts = [((xy >= 0) & (xy <= torch.tensor(s.size[::-1], device=xy.device))).all() for s, xy in known]
    if parts and not bool(torch.stack(parts).all()):
        scene, xy = known[[bool(p) for p in parts].index(False)]
        height, width = scene.size
        raise ValueError(f"{scene.name} has a point outside its {width} x {height} px: {xy.tolist()}")


def _outside(output: DenseOutput) -> Tensor:
    """``[B, C, H, W]`` bool: cells that lie wholly in the padding. A cell cut by the frame's edge can hold a target."""
    if not output.sizes:
        return torch.zeros_like(output.logits, dtype=torch.bool)
    rows, columns = output.logits.shape[-2:]
    centre = cell_centres(rows, columns, output.stride, device=output.logits.device)
    end = sent(torch.tensor([(w, h) for h, w in output.sizes]), centre.device)[:, None, None]
    return (centre - output.stride / 2 >= end).any(-1)[:, None].expand_as(output.logits)


@dataclass(frozen=True)
class PointCriterion:
    """The loss of scores and places.

    Attributes:
        cell_loss: score loss of single cells.
        schedule: gives the weight of the positive part at a moment.
        per: what the score loss is divided by.
        offset: weight of the place.
        auxiliary: weight of each coarser level's score loss.
    """

    cell_loss: CellLoss
    schedule: Schedule
    per: Per = "objects"
    offset: float = 0.2
    auxiliary: float = 0.25

    def __call__(self, output: DenseOutput, targets: DenseTargets, progress: float) -> dict[str, Tensor]:
        """Loss terms ``cls``, ``offset`` and, with coarser levels, ``auxiliary``."""
        weight = self.schedule(progress).weight
        terms = {"cls": self._scores(output, targets, weight), "offset": self.offset * _offset(output, targets)}
        if output.coarser:
            parts = [self._scores(o, t, weight) for o, t in zip(output.coarser, targets.coarser, strict=True)]
            terms["auxiliary"] = self.auxiliary * torch.stack(parts).sum()
        return terms

    def _scores(self, output: DenseOutput, targets: DenseTargets, weight: float) -> Tensor:
        # a loss that mines hard negatives must not spend them on cells of which nothing is known
        logits = output.logits.float().masked_fill(targets.ignore, IGNORED_LOGIT)
        cell = self.cell_loss(logits, targets.score, targets.positive, weight)
        return reduce_cells(cell, ~targets.ignore, targets.normaliser, self.per)


def _offset(output: DenseOutput, targets: DenseTargets) -> Tensor:
    """Distance, in cells, of the emitted place from the target's: mean over an object's cells, sum over objects.

    Divided by the normaliser, so that several processes add up to what one would compute.
    """
    if not len(targets.objects):
        return output.boxes.sum() * 0.0
    taught = (targets.matched >= 0) & ~targets.ignore
    owner = torch.where(taught, targets.matched + 1, 0)  # in front: the cells that nothing is asked of
    cells = torch.zeros(len(targets.objects) + 1, device=owner.device)
    cells = cells.scatter_add_(0, owner.flatten(), torch.ones_like(owner, dtype=cells.dtype).flatten())
    wanted = targets.objects[targets.matched.clamp(min=0), :2]
    distance = offset_l1(output.boxes[..., :2].float(), wanted, output.stride) / cells[owner]
    return torch.where(taught, distance, 0.0).sum() / divisor(targets.normaliser)


class Decoder(Protocol):
    """Turns an output into detections, best first."""

    def __call__(self, output: DenseOutput) -> list[Detections]:
        """One Detections an image."""
        ...


class GaussianPoint(Detector):
    """Finds dim targets of two or three pixels.

    Args:
        encoder: pixels to a pyramid of features (:class:`boresight.features.pyramid.Pyramid`).
        head: a pyramid to a DenseOutput.
        assigner, criterion, decoder: what the output should be, how far it is from that, what was found.
        divisor: images are padded to a multiple of so many pixels (the coarsest stride).
        mirrors: in inference, average the logits over the four mirrored views of a frame: four times the work, a
            steadier ranking. Places in the cell are those of the frame as it is.
    """

    def __init__(
        self,
        encoder: nn.Module,
        head: nn.Module,
        assigner: PointAssigner,
        criterion: PointCriterion,
        decoder: Decoder,
        *,
        divisor: int = 16,
        mirrors: bool = False,
    ) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self.assigner, self.criterion, self.decoder, self.divisor = assigner, criterion, decoder, divisor
        self.mirrors = mirrors

    def forward(self, scenes: Sequence[Scene]) -> DenseOutput:
        """``[1, H, W]`` scenes of any sizes to scores and places of every cell."""
        return replace(self.emit(normalised_batch(scenes, self.divisor)), sizes=tuple(s.size for s in scenes))

    def emit(self, image: Tensor) -> DenseOutput:
        """``[B, 1, H, W]`` normalised pixels, sides multiples of ``divisor``, to scores and places of every cell."""
        output: DenseOutput = self.head(self.encoder(image))
        if self.mirrors and not self.training:
            views = [self.head(self.encoder(image.flip(axes))).logits.flip(axes) for axes in ((-1,), (-2,), (-2, -1))]
            output = replace(output, logits=torch.stack((output.logits, *views)).mean(0))
        return output

    def assign(self, output: DenseOutput, scenes: Sequence[Scene]) -> DenseTargets:
        """Soft labels of this moment of the schedule."""
        return self.assigner(scenes, output, self.progress)

    def loss(self, output: DenseOutput, targets: DenseTargets) -> dict[str, Tensor]:
        """Terms ``cls``, ``offset`` and ``auxiliary``, normalised by objects."""
        return self.criterion(output, targets, self.progress)

    def decode(self, output: DenseOutput) -> list[Detections]:
        """Local peaks of the cells that touch the images; the padding neither gives a peak nor hides one.

        A place beyond the frame's edge (in a cell that the edge cuts) is moved onto the edge.
        """
        found = self.decoder(replace(output, logits=output.logits.masked_fill(_outside(output), -torch.inf)))
        if not output.sizes:
            return found
        return [replace(d, boxes=clip_boxes_to_image(d.boxes, s)) for d, s in zip(found, output.sizes, strict=True)]


def normalised_batch(scenes: Sequence[Scene], divisor: int) -> Tensor:
    """``[B, 1, H, W]``: each frame less its level, over its spread, padded bottom and right by repeating its edge.

    Raises ValueError naming the scene for an image that is not ``[1, H, W]``.
    """
    for s in scenes:
        if s.image.shape[0] != 1:
            raise ValueError(f"{s.name}: point detection reads one channel, got {list(s.image.shape)}")
    height, width = (-(-max(s.size[i] for s in scenes) // divisor) * divisor for i in (0, 1))
    return torch.stack([_padded((s.image.float() - s.level) / s.spread, height, width) for s in scenes])


def _padded(image: Tensor, height: int, width: int) -> Tensor:
    _, h, w = image.shape
    return F.pad(image, (0, width - w, 0, height - h), mode="replicate") if (h, w) != (height, width) else image
