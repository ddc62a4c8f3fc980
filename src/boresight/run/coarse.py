"""Coarse boxes for the images of a run: true ones moved to a known IoU, or those of a detector's results file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boresight.core.errors import UserError
from boresight.core.files import read_json
from boresight.core.types import Proposals, Scene, View
from boresight.data.box_augment import recoloured
from boresight.run.config_refine import CoarseSettings, RefineAugmentSettings
from boresight.run.recipe import Frames
from boresight.targets.jitter import jitter
from boresight.targets.proposals import best_owner

Found = Mapping[int, Proposals]
"""Coarse boxes by image id."""


def read_results(path: Path, classes: Sequence[str], min_score: float = 0.0) -> dict[int, Proposals]:
    """A detector's COCO results: coarse boxes by ``image_id``, best first; category ``k + 1`` is ``classes[k]``.

    Raises UserError that names the file, the entry and what is wrong with it.
    """
    content = read_json(path, "a file of COCO results")
    if not isinstance(content, list):
        raise UserError(f"{path}: COCO results are a list of detections, got {type(content).__name__}")
    rows: dict[int, list[tuple[float, list[float], int]]] = defaultdict(list)
    for number, entry in enumerate(content):
        image, box, label, score = _entry(path, number, entry, len(classes))
        if score >= min_score:
            rows[image].append((score, box, label))
    return {image: _as_proposals(sorted(found, key=lambda r: -r[0])) for image, found in rows.items()}


def _entry(path: Path, number: int, entry: Any, classes: int) -> tuple[int, list[float], int, float]:
    try:
        x, y, width, height = (float(v) for v in entry["bbox"])
        image, label = int(entry["image_id"]), int(entry["category_id"]) - 1
        score = float(entry.get("score", 1.0))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        wanted = "image_id, category_id, bbox [x, y, width, height] and score"
        raise UserError(f"{path}: entry {number} lacks a number ({error}): it needs {wanted}") from error
    if not np.isfinite([x, y, width, height, score]).all() or min(width, height) <= 0:
        box = f"[{x:g}, {y:g}, {width:g}, {height:g}]"
        raise UserError(f"{path}: entry {number} has the box {box}, without area or not finite: remove or correct it")
    if not 0 <= label < classes:
        raise UserError(f"{path}: entry {number} has category_id {label + 1}: the data has 1 to {classes}")
    return image, [x, y, x + width, y + height], label, score


def _as_proposals(rows: Sequence[tuple[float, list[float], int]]) -> Proposals:
    return Proposals(
        torch.tensor([box for _, box, _ in rows]).reshape(-1, 4),
        torch.tensor([label for _, _, label in rows], dtype=torch.long),
        torch.tensor([score for score, _, _ in rows]),
    )


def no_proposals() -> Proposals:
    """None in an image."""
    return Proposals(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0))


def owned(scene: Scene, proposals: Proposals, match_iou: float) -> Scene:
    """The scene with coarse boxes of a detector, each with the object that it stands for."""
    return replace(scene, proposals=replace(proposals, matched=best_owner(scene, proposals, match_iou)))


def moved_boxes(scene: Scene, rows: Tensor, iou: Tensor, generator: torch.Generator) -> Proposals:
    """True boxes ``rows [M]`` of a scene, moved to the overlaps ``iou [M]``."""
    assert scene.boxes is not None
    assert scene.labels is not None
    boxes = jitter(scene.boxes[rows], iou, generator, size=scene.size)
    return Proposals(boxes, scene.labels[rows], torch.ones(len(rows)), matched=rows)


def counted_rows(scene: Scene) -> Tensor:
    """Rows of the boxes that count."""
    assert scene.boxes is not None
    every = torch.arange(len(scene.boxes))
    return every if scene.ignore is None else every[~scene.ignore]


@dataclass(frozen=True)
class WithCoarse:
    """Frames to be judged, with the same coarse boxes every time.

    Attributes:
        frames: with truth.
        settings: the range of the IoU.
        seed: of the moved boxes; an image has its own whatever the others.
        found: a detector's boxes instead; an image that it names not has none.
    """

    frames: Frames
    settings: CoarseSettings
    seed: int
    found: Found | None = None

    @property
    def names(self) -> Sequence[str]:
        """The frames' names."""
        return self.frames.names

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Scene:
        scene, s = self.frames[index], self.settings
        if self.found is not None:
            return owned(scene, self.found.get(scene.image_id, no_proposals()), s.match_iou)
        rng = np.random.default_rng([self.seed, 3, index])
        rows = counted_rows(scene).repeat_interleave(s.copies)
        iou = torch.from_numpy(rng.uniform(s.low, s.high, len(rows)))
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        return replace(scene, proposals=moved_boxes(scene, rows, iou, generator))


@dataclass(frozen=True)
class CoarseView:
    """A training view: the image as it is, with coarse boxes drawn anew.

    Attributes:
        settings: how boxes move.
        augment: orientations and colours.
        found: a detector's boxes by image id, which ``settings.real_share`` of the views show.
    """

    settings: CoarseSettings
    augment: RefineAugmentSettings
    found: Found | None = None

    def __call__(self, frames: Frames, index: int, rng: np.random.Generator) -> Scene:
        """See :data:`boresight.run.recipe.View`."""
        scene, s = frames[index], self.settings
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        real = self.found is not None and rng.random() < s.real_share
        if real:
            assert self.found is not None
            every = self.found.get(scene.image_id, no_proposals())
            chosen = torch.from_numpy(np.sort(rng.permutation(len(every))[: s.per_image]))
            taken = Proposals(every.boxes[chosen], every.labels[chosen], every.scores[chosen])
            scene = owned(scene, taken, s.match_iou)
        else:
            rows = _drawn(counted_rows(scene), s.per_image, rng)
            iou = torch.from_numpy(rng.uniform(s.train_low, s.train_high, len(rows)))
            scene = replace(scene, proposals=moved_boxes(scene, rows, iou, generator))
        return self._seen(scene, rng)

    def _seen(self, scene: Scene, rng: np.random.Generator) -> Scene:
        a, proposals = self.augment, scene.proposals
        assert proposals is not None
        if a.turn:
            turns = torch.from_numpy(rng.integers(8, size=len(proposals)))
            scene = replace(scene, proposals=replace(proposals, turns=turns))
        if not (a.gain or a.shift or a.colour):
            return scene
        view = View(scene, torch.eye(2, 3))  # other colours, but the frozen features of the image as it is
        gain, shift = float(np.exp(rng.uniform(-a.gain, a.gain))), float(rng.uniform(-a.shift, a.shift))
        channels = np.exp(rng.uniform(-a.colour, a.colour, size=len(scene.image)))
        return replace(recoloured(scene, gain, shift, tuple(channels.tolist())), view=view)


def _drawn(rows: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """``count`` of the rows, each as often as any other or once more; none of none."""
    if not len(rows):
        return rows
    whole, rest = divmod(count, len(rows))
    more = rng.permutation(len(rows))[:rest]
    return torch.cat((rows.repeat(whole), rows[torch.from_numpy(np.sort(more))]))
