"""Tightens the boxes of a COCO file: with a trained refiner, or with two that learn from the file itself.

Sloppy labels err in every direction, so that a network that is to find the object from many differently wrong boxes
learns where the middle of the errors lies. Each half of the images is refined by a network that has seen the other half
only: no box is judged by one that learned it by heart.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from boresight.core.errors import UserError
from boresight.core.types import Proposals, Scene
from boresight.data.box_frames import BoxFrames, fitted
from boresight.data.coco import coco_boxes
from boresight.data.frames import Subset, held_out
from boresight.data.memory import InMemory
from boresight.data.rgb_image import read_rgb
from boresight.run.coarse import WithCoarse
from boresight.run.config_refine import RefineDataSettings, RefineSettings, RefineTrainSettings
from boresight.run.progress import Progress
from boresight.run.recipe import Splits
from boresight.run.record import RunFolder, write_text
from boresight.run.refine import REFINE
from boresight.run.tighten import Tightener
from boresight.run.train import train

LEAST_IMAGES = 8
"""Below, two halves are too small to learn from."""


@dataclass(frozen=True)
class Sloppy:
    """A COCO file whose boxes are to be tightened.

    Attributes:
        file: where it lies.
        content: the JSON as read; written out again with other boxes.
        frames: its images and boxes.
    """

    file: Path
    content: dict[str, Any]
    frames: BoxFrames

    @property
    def places(self) -> dict[str, int]:
        """Where each annotation stands in the file, by what :class:`~boresight.data.box_frames.Box` calls it."""
        return {
            f"annotation {a['id']}" if "id" in a else f"annotations[{i}]": i
            for i, a in enumerate(self.content["annotations"])
        }


@dataclass(frozen=True)
class Change:
    """What became of one annotation.

    Attributes:
        place: in the list of annotations.
        image: of the frames.
        label: class.
        coarse, box: ``[4]`` xyxy, before and after.
        replaced: whether they differ.
        confidence: that the refined box is the better one.
    """

    place: int
    image: int
    label: int
    coarse: Tensor
    box: Tensor
    replaced: bool
    confidence: float


def read_sloppy(file: Path, images: Path) -> Sloppy:
    """Read a COCO file and check it.

    Raises UserError for a file or an image that cannot be read, and where two annotations share an id.
    """
    if not images.is_dir():
        raise UserError(f"--images {images}: no such folder: give the folder of the images that {file} names")
    frames = coco_boxes(file, [images])
    content = json.loads(file.read_text(encoding="utf-8"))
    ids = [a["id"] for a in content["annotations"] if "id" in a]
    if len(set(ids)) < len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise UserError(f"{file}: two annotations have the id {twice}: number them anew")
    return Sloppy(file, content, frames)


def tighten_all(sloppy: Sloppy, refiners: Sequence[Tightener], *, quiet: bool = True) -> list[Change]:
    """Refine every box that is whole and no crowd; image ``i`` by refiner ``i``."""
    places, changes = sloppy.places, []
    with Progress(len(sloppy.frames), label="refine", quiet=quiet) as bar:
        for i, (frame, refiner) in enumerate(zip(sloppy.frames.frames, refiners, strict=True)):
            image = read_rgb(frame.image)
            height, width = image.shape[-2:]
            kept, _ = fitted(frame, width, height, sloppy.frames.classes)
            boxes = [box for box in kept if not box.ignore]
            known = {name: k for k, name in enumerate(refiner.classes)}
            labels = [known.get(sloppy.frames.classes[box.label], -1) for box in boxes]
            coarse = torch.tensor([box.xyxy for box in boxes], dtype=torch.float32).reshape(-1, 4)
            given = Proposals(coarse, torch.tensor(labels, dtype=torch.long), torch.ones(len(boxes)))
            found = refiner(Scene(image, frame.name, frame.image_id), given)
            for m, box in enumerate(boxes):
                changes.append(
                    Change(
                        place=places[box.where],
                        image=i,
                        label=box.label,
                        coarse=coarse[m],
                        box=found.outcome.boxes[m],
                        replaced=bool(found.outcome.replaced[m]),
                        confidence=float(found.confidence[m]),
                    )
                )
            bar.step(1)
    return changes


def write_tight(sloppy: Sloppy, changes: Sequence[Change], out: Path) -> None:
    """The file anew: a box that was replaced has its old one in ``bbox_before`` and the confidence in ``refined``.

    Everything else stands as it was, annotations that could not be refined included.
    """
    annotations = [dict(a) for a in sloppy.content["annotations"]]
    for change in (c for c in changes if c.replaced):
        x0, y0, x1, y1 = (round(v, 2) for v in change.box.tolist())
        entry = annotations[change.place]
        entry |= {"bbox_before": entry.get("bbox"), "bbox": [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)]}
        entry |= {"refined": round(change.confidence, 4)}
        if "segmentation" not in entry:
            entry["area"] = round((x1 - x0) * (y1 - y0), 2)
    write_text(out, json.dumps(sloppy.content | {"annotations": annotations}, allow_nan=False) + "\n")


def learned_from(sloppy: Sloppy, folder: Path, *, steps: int, quiet: bool = True) -> list[Tightener]:
    """Train two refiners on the boxes of the file, and give each image the one that has not seen it.

    The runs lie in ``folder`` and are continued where they were stopped. Raises UserError for too few images.
    """
    frames = sloppy.frames
    if len(frames) < LEAST_IMAGES:
        raise UserError(
            f"{sloppy.file}: {len(frames)} images are too few to learn from ({LEAST_IMAGES} are needed): give --run"
        )
    halves = held_out(frames.groups, 0.5, 0)
    settings = RefineSettings(
        data=RefineDataSettings(source="coco", root=str(sloppy.file)),
        train=RefineTrainSettings(steps=steps, validate_every=0, warmup=min(50, steps // 4)),
    )
    refiners: dict[int, Tightener] = {}
    for number, (mine, others) in enumerate((halves, halves[::-1])):
        splits = _splits(frames, list(others), settings)
        run = RunFolder(folder / f"half-{number}")
        train(replace(REFINE, frames=_given(splits)), settings, run.root, quiet=quiet)
        refiners |= dict.fromkeys(mine, Tightener.of(run))
    return [refiners[i] for i in range(len(frames))]


def _given(splits: Splits) -> Callable[[Any, str | None], Splits]:
    return lambda settings, only: splits


def _splits(frames: BoxFrames, chosen: list[int], settings: RefineSettings) -> Splits:
    """Training and validation images among the chosen ones, by group."""
    kept, held = held_out([frames.groups[i] for i in chosen], settings.data.val_share, settings.data.seed)
    train_, val = (InMemory(Subset(frames, [chosen[k] for k in part]), settings.data.cache_mb) for part in (kept, held))
    many = replace(settings.coarse, copies=settings.coarse.val_copies)
    judged = WithCoarse(val, many, settings.data.seed + 1)
    return Splits(WithCoarse(train_, settings.coarse, 0), judged, judged, range(len(kept)), frames.classes)
