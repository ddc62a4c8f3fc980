"""Tightens the boxes of a COCO file with a trained refiner; everything else in the file stays as it was."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from boresight.core.errors import UserError
from boresight.core.files import read_json
from boresight.core.types import Proposals, Scene
from boresight.data.box_frames import BoxFrames, fitted
from boresight.data.coco import coco_boxes
from boresight.data.rgb_image import read_rgb
from boresight.run.progress import Progress
from boresight.run.record import write_text
from boresight.run.tighten import Tightener


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
    content = read_json(file, "COCO annotations")
    ids = Counter(str(a["id"]) for a in content["annotations"] if "id" in a)
    if twice := [i for i, count in ids.items() if count > 1]:
        raise UserError(f"{file}: two annotations have the id {twice[0]}: number them anew")
    try:
        json.dumps(content, allow_nan=False)  # what cannot be written must not be found out after all the work
    except ValueError as error:
        raise UserError(f"{file}: holds a NaN or an infinity, which JSON has not: remove it") from error
    return Sloppy(file, content, frames)


def tighten_all(sloppy: Sloppy, refiner: Tightener, *, quiet: bool = True) -> list[Change]:
    """Refine every box that is whole and no crowd."""
    places, changes = sloppy.places, []
    with Progress(len(sloppy.frames), label="refine", quiet=quiet) as bar:
        for i, frame in enumerate(sloppy.frames.frames):
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
