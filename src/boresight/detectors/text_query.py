"""System A: boxes for text queries, on the class maps of a frozen language-image encoder.

What is emitted for a class and a cell is one score, put together by a :class:`~boresight.decode.fusion.Fusion` from the
network's score, the frozen class map, the objectness and the quality. What is trained is either that score or, as in
the reference rule, the network's part of it alone: the difference is a key, so that its price can be measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boresight.core.boxes import aligned_iou
from boresight.core.types import DenseOutput, DenseTargets, Detections, Scene
from boresight.decode.boxes import BoxDecoder
from boresight.decode.fusion import Fusion
from boresight.detectors.detector import Detector, Scenes
from boresight.detectors.frozen_maps import FrozenMaps, Maps
from boresight.features.feature_store import FeatureStore, Named
from boresight.losses.boxes import box_loss, boxes_of_cells, cells_to_visit
from boresight.losses.classification import CellLoss, bce
from boresight.losses.reduce import divisor, reduce_cells
from boresight.targets.candidates import Objects
from boresight.targets.dense import ScoreTarget, dense_targets


@dataclass(frozen=True)
class BoxAssigner:
    """Which cells stand for which object, and what their score should be.

    Attributes:
        rule: one of :mod:`boresight.targets` (radius, inside, atss, tal, simota).
        score: the target of a positive cell's score.
        box_cells: which cells' boxes are trained: the ``positive`` ones or all ``inside`` an object.
    """

    rule: Any
    score: ScoreTarget
    box_cells: Literal["positive", "inside"] = "positive"

    @torch.no_grad()
    def __call__(self, output: DenseOutput, score: Tensor, scenes: Sequence[Scene], progress: float) -> DenseTargets:
        """Targets of every class and cell; ``score [B, C, H, W]`` is what is emitted, which some rules look at."""
        objects = Objects.of(scenes, classes=output.logits.shape[1])
        assignment = self.rule(output, score, objects, progress)
        return dense_targets(output, assignment, objects, scenes, score=self.score, box_cells=self.box_cells)


@dataclass(frozen=True)
class TextCriterion:
    """How far the output is from the targets.

    Attributes:
        cell_loss: of single scores.
        on: what the score loss acts on: what is ``emitted``, or the network's ``raw`` part of it.
        fusion: how the emitted score is made.
        cls, l1, giou, objectness, quality: weights of the terms; 0 leaves a term out.
    """

    cell_loss: CellLoss
    on: Literal["raw", "emitted"] = "emitted"
    fusion: Fusion = field(default_factory=Fusion)
    cls: float = 1.0
    l1: float = 0.5
    giou: float = 2.0
    objectness: float = 0.0
    quality: float = 0.0

    def __call__(self, output: DenseOutput, targets: DenseTargets) -> dict[str, Tensor]:
        """Loss terms by name, each a scalar, divided by the number of objects."""
        terms = {}
        if self.cls:
            logits = output.logits.float() if self.on == "raw" else self.fusion.logit(output)
            cell = self.cell_loss(logits, targets.score, targets.positive)
            terms["cls"] = self.cls * reduce_cells(cell, ~targets.ignore, targets.normaliser)
        l1, giou = box_loss(output.boxes, targets, per="objects")
        terms |= {"l1": self.l1 * l1, "giou": self.giou * giou}
        if self.objectness:
            terms["objectness"] = self.objectness * _objectness(output, targets)
        if self.quality:
            terms["quality"] = self.quality * _quality(output, targets)
        return terms


def _objectness(output: DenseOutput, targets: DenseTargets) -> Tensor:
    """Cross-entropy of "a positive cell of any class" over all cells of which something is known."""
    assert output.objectness is not None
    wanted = targets.positive.any(1)
    # where a class may hide unlabelled, nothing is known of the cell as a whole
    known = wanted | ~targets.ignore.any(1)
    logits = output.objectness[:, 0].float()
    return reduce_cells(bce(logits, wanted.float(), wanted), known, targets.normaliser)


def _quality(output: DenseOutput, targets: DenseTargets) -> Tensor:
    """Cross-entropy between the predicted quality and the IoU that the cell's box reaches, over cells with a box."""
    assert output.quality is not None
    if not len(targets.objects):
        return output.quality.sum() * 0.0
    known = ((targets.matched >= 0) & ~targets.ignore).flatten()
    cell = cells_to_visit(known)
    on, owner = known[cell], targets.matched.flatten()[cell].clamp(min=0)
    reached = aligned_iou(boxes_of_cells(output.boxes.detach(), cell).float(), targets.objects[owner])
    quality = output.quality[:, 0].expand_as(targets.matched[:, 0])  # one of a cell, shared by all classes
    place = _without_class(cell, targets.matched.shape)
    loss = F.binary_cross_entropy(quality.flatten()[place].float().clamp(1e-6, 1 - 1e-6), reached, reduction="none")
    count = torch.zeros(len(targets.objects), device=on.device).scatter_add_(0, owner, on.float())
    return (torch.where(on, loss, 0.0) / count.clamp(min=1)[owner]).sum() / divisor(targets.normaliser)


def _without_class(cell: Tensor, shape: Sequence[int]) -> Tensor:
    """Flat cells of ``[B, C, H, W]`` as flat cells of ``[B, H, W]``."""
    _, classes, rows, columns = shape
    size = rows * columns
    return torch.div(cell, classes * size, rounding_mode="floor") * size + cell % size


class TextQuery(Detector):
    """Finds what the queries ask for.

    Args:
        maps: the frozen encoder's side: queries, class maps, dense features (:class:`FrozenMaps`).
        encoder: raw RGB ``[B, 3, H, W]`` in 0..255 to ``{level: features}``; the level of the head's stride is read.
        head: features to scores and boxes.
        assigner, criterion, fusion, decoder: what the output should be, how far it is from that, what is emitted, what
            is found.
        divisor: images are padded to a multiple of so many pixels (the encoder's coarsest stride).
        learned: adds to the text embeddings what was learned of the trained queries (:class:`LearnedQueries`).
    """

    def __init__(
        self,
        maps: FrozenMaps,
        encoder: nn.Module,
        head: nn.Module,
        assigner: BoxAssigner,
        criterion: TextCriterion,
        fusion: Fusion,
        decoder: BoxDecoder,
        *,
        divisor: int = 16,
        learned: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.maps, self.encoder, self.head = maps, encoder, head
        self.assigner, self.criterion, self.fusion, self.decoder = assigner, criterion, fusion, decoder
        self.divisor, self.learned = divisor, learned

    @property
    def frozen(self) -> dict[str, str]:
        """Hash of the frozen encoder's weights."""
        return {"clip": self.maps.fingerprint}

    @property
    def store(self) -> FeatureStore:
        """Of the frozen encoder's features."""
        return self.maps.features.store

    @property
    def remarks(self) -> tuple[str, ...]:
        """Of the frozen encoder and, unless more than their words is learned, of queries that it takes for one."""
        notes = self.maps.features.clip.notes
        pairs = self.maps.alike() if self.learned is None else []
        if not pairs:
            return notes
        (one, two, cosine), more = pairs[0], len(pairs) - 1
        others = f", and {more} more pair{'s' if more > 1 else ''}," if more else ""
        told = f"`{one}` and `{two}`{others} are nearly one to the frozen text encoder (cosine {cosine:.2f}): "
        return (*notes, told + "set `head.learn_queries`, or say them in other words with `data.queries`")

    def stored_and_fresh(self, scene: Scene) -> tuple[Named, Named]:
        """Of the frozen encoder."""
        return self.maps.features.stored_and_fresh(scene)

    def prepare(self, scenes: Scenes) -> None:
        """Calibrate the class maps on training scenes."""
        self.maps.calibrate(scenes)

    def ask(self, queries: Sequence[str]) -> None:
        """From now on answer these queries (``a|b``: synonyms) instead of the trained classes."""
        self.maps.ask(queries)

    def forward(self, scenes: Sequence[Scene]) -> DenseOutput:
        """RGB scenes of any sizes to a score and a box for every query and cell."""
        features = self.read(padded_batch(scenes, self.divisor))
        frozen = self.maps(scenes, *features.shape[-2:], self.stride)
        text = self.maps.text if self.learned is None else self.learned(self.maps.text, self.maps.trained)
        return replace(self.answer(features, frozen, text), sizes=tuple(s.size for s in scenes))

    @property
    def stride(self) -> float:
        """Pixels a cell."""
        return float(self.head.stride)  # type: ignore[arg-type]

    def read(self, image: Tensor) -> Tensor:
        """``[B, 3, H, W]`` raw pixels, sides multiples of ``divisor``, to features ``[B, D, h, w]`` of every cell."""
        found: Tensor = self.encoder(image)[int(self.stride).bit_length() - 1]
        return found

    def answer(self, features: Tensor, frozen: Maps, text: Tensor) -> DenseOutput:
        """Features and the frozen side on one grid, and queries ``[C, D]``, to a score and a box for each and cell."""
        found = self.head(features, frozen.dense, text, frozen.evidence, frozen.presence)
        shape = found.logits.shape
        return DenseOutput(
            logits=found.logits,
            boxes=found.boxes,
            stride=self.stride,
            quality=None if found.quality is None else found.quality.sigmoid().expand(shape),
            cam=frozen.cam,
            objectness=None if found.objectness is None else found.objectness.expand(shape),
            presence=frozen.presence.sigmoid(),
        )

    def assign(self, output: DenseOutput, scenes: Sequence[Scene]) -> DenseTargets:
        """What every class and cell should have emitted. Scenes may lie on the CPU whatever the output's device."""
        unlabelled = [s.name for s in scenes if s.boxes is None]
        if unlabelled:
            raise ValueError(f"{unlabelled[0]} has no box truth: unknown is not empty, training needs it")
        with torch.no_grad():
            score = self.fusion.score(output)
        return self.assigner(output, score, scenes, self.progress)

    def loss(self, output: DenseOutput, targets: DenseTargets) -> dict[str, Tensor]:
        """Terms ``cls``, ``l1``, ``giou`` and, where used, ``objectness`` and ``quality``."""
        return self.criterion(output, targets)

    def decode(self, output: DenseOutput) -> list[Detections]:
        """Boxes of the best emitted scores, without duplicates, best first."""
        sizes = output.sizes or tuple(_covered(output) for _ in output.logits)
        return self.decoder(output, self.fusion.score(output), sizes)


def _covered(output: DenseOutput) -> tuple[int, int]:
    rows, columns = output.logits.shape[-2:]
    return int(rows * output.stride), int(columns * output.stride)


def padded_batch(scenes: Sequence[Scene], divisor: int) -> Tensor:
    """``[B, 3, H, W]`` float32 in 0..255, padded bottom and right by repeating the edge; ValueError for others."""
    for s in scenes:
        if s.image.shape[0] != 3:
            raise ValueError(f"{s.name}: text queries read RGB, got an image of shape {list(s.image.shape)}")
    height, width = (-(-max(s.size[i] for s in scenes) // divisor) * divisor for i in (0, 1))
    return torch.stack([_padded(s.image.float(), height, width) for s in scenes])


def _padded(image: Tensor, height: int, width: int) -> Tensor:
    _, h, w = image.shape
    return F.pad(image, (0, width - w, 0, height - h), mode="replicate") if (h, w) != (height, width) else image


def without_scores(criterion: TextCriterion) -> TextCriterion:
    """The criterion of localisation alone: boxes (and their quality), no score."""
    return replace(criterion, cls=0.0, objectness=0.0)
