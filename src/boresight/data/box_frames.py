"""Images on disk and their boxes, read one at a time.

:class:`BoxFrames` is for boxes what :class:`~boresight.data.frames.Frames` is for points: an image is decoded when it
is asked for; reading a frame raises the first of its errors, :meth:`BoxFrames.inspect` collects all that is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch

from boresight.core.errors import UserError, did_you_mean
from boresight.core.types import Points, Scene
from boresight.data.image import DataError, Problem
from boresight.data.rgb_image import orientation_of, read_rgb

OVERHANG = 1.0
"""Pixels by which a box may reach over the border and be clipped (with a remark): tools differ by one pixel."""

_ROUNDING = 0.05  # px: less than that over the border is a rounded number, which needs no remark
_LEAST = 1e-3  # px: a side below that is none; float32 could not hold it far from the corner of a large image


class Box(NamedTuple):
    """One labelled box.

    Attributes:
        xyxy: corners in the pixel frame, or in shares of the image size (:attr:`BoxFrame.relative`).
        label: class index.
        ignore: something is there that does not count.
        where: what to blame in the file: ``annotation 12``, ``line 3``.
    """

    xyxy: tuple[float, float, float, float]
    label: int
    ignore: bool = False
    where: str = "box"


@dataclass(frozen=True, slots=True)
class BoxFrame:
    """Where one image and its boxes come from.

    Attributes:
        name: unique in the source.
        image: its file.
        image_id: the COCO id, or a number from 1.
        boxes: what is labelled.
        origin: the file to blame for the boxes.
        size: ``(width, height)`` as the labels state it, None where they do not.
        relative: the corners of ``boxes`` are shares of the image size.
        exhaustive: for each class, whether every object of it is labelled; None: all classes.
        group: images of one group are not independent of each other.
        problems: what was found wrong while the labels were read.
    """

    name: str
    image: Path
    image_id: int
    boxes: tuple[Box, ...]
    origin: str
    size: tuple[int, int] | None = None
    relative: bool = False
    exhaustive: tuple[bool, ...] | None = None
    group: str = ""
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class BoxFrames:
    """Images with boxes on disk, read lazily (an :class:`~boresight.data.frames.AuditedSource`)."""

    frames: tuple[BoxFrame, ...]
    classes: tuple[str, ...]
    listing: tuple[Problem, ...] = ()
    unused: frozenset[Path] = frozenset()
    names: tuple[str, ...] = field(init=False)
    files: tuple[Path, ...] = field(init=False)
    groups: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(frame.name for frame in self.frames))
        object.__setattr__(self, "files", tuple(frame.image for frame in self.frames))
        object.__setattr__(self, "groups", tuple(frame.group or photo_of(frame.name) for frame in self.frames))
        for what, values in (("names of images", self.names), ("names of classes", self.classes)):
            if len(set(values)) < len(values):
                twice = next(v for v in values if values.count(v) > 1)
                raise ValueError(f"{what} must be unique, `{twice}` is not")

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, i: int) -> Scene:
        """Image ``i``: ``[3, H, W]`` uint8, with its boxes. Raises ``UserError`` for the first of its errors."""
        scene, problems = self.inspect(i)
        if error := next((problem for problem in problems if problem.severity == "error"), None):
            raise DataError(error)
        assert scene is not None
        return scene

    def truth(self, i: int) -> Points | None:
        """None: nothing is known of points."""
        return None

    def inspect(self, i: int) -> tuple[Scene | None, tuple[Problem, ...]]:
        """Image ``i`` where it can be read, and all that is wrong with it. Boxes with an error are left out of it."""
        frame = self.frames[i]
        try:
            image = read_rgb(frame.image)
        except DataError as error:
            return None, tuple(replace(p, name=frame.name) for p in (error.problem, *frame.problems))
        height, width = image.shape[-2:]
        if frame.size not in (None, (width, height)):
            return None, (*frame.problems, _other_size(frame, width, height))
        kept, problems = fitted(frame, width, height, self.classes)
        scene = Scene(
            image,
            frame.name,
            frame.image_id,
            boxes=torch.tensor([box.xyxy for box in kept], dtype=torch.float32).reshape(-1, 4),
            labels=torch.tensor([box.label for box in kept], dtype=torch.long),
            ignore=torch.tensor([box.ignore for box in kept], dtype=torch.bool),
            exhaustive=None if frame.exhaustive is None else torch.tensor(frame.exhaustive, dtype=torch.bool),
        )
        return scene, (*frame.problems, *problems)


def photo_of(name: str) -> str:
    """The photo that an image was made from: Roboflow writes several variants ``<photo>.rf.<hash>`` of one."""
    return name.split(".rf.")[0]


def unique_classes(names: Sequence[str], file: Path | str) -> tuple[str, ...]:
    """The names of the classes. Raises ``UserError`` for one that stands there twice: a query could mean either."""
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise UserError(f"{file}: two classes are named `{twice[0]}`: rename one of them")
    return tuple(names)


def unknown_split(root: Path | str, split: object, there: Iterable[str]) -> UserError:
    """The error that says which splits there are."""
    known = sorted(set(there))
    return UserError(
        f"{root}: no split `{split}`{did_you_mean(str(split), known)}: there are {', '.join(known) or 'none'}"
    )


def fitted(frame: BoxFrame, width: int, height: int, classes: Sequence[str]) -> tuple[list[Box], list[Problem]]:
    """The boxes of a frame in pixels, inside of its image of ``width x height``; and what is wrong with the others.

    A box that reaches over the border by up to :data:`OVERHANG` pixels is clipped, and a remark says so.
    """
    kept: list[Box] = []
    problems: list[Problem] = []
    clipped: list[tuple[float, Box]] = []
    for box in frame.boxes:
        box = _in_pixels(box, width, height) if frame.relative else box
        if found := next(_faults(box, width, height, classes), None):
            kind, detail, remedy = found
            problems.append(Problem(kind, "error", frame.origin, f"{box.where}: {detail}", remedy, name=frame.name))
            continue
        x1, y1, x2, y2 = box.xyxy
        over = max(-x1, -y1, x2 - width, y2 - height)
        if over > _ROUNDING:
            clipped.append((over, box))
        kept.append(box._replace(xyxy=(max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))))
    if clipped:
        worst, box = max(clipped, key=lambda pair: pair[0])
        detail = f"{len(clipped)} boxes of `{frame.name}` reach up to {worst:.2g} px over the border ({box.where})"
        problems.append(
            Problem("box_clipped", "info", frame.origin, detail, "nothing to do: they are clipped", name=frame.name)
        )
    return kept, problems


def _in_pixels(box: Box, width: int, height: int) -> Box:
    x1, y1, x2, y2 = box.xyxy
    return box._replace(xyxy=(x1 * width, y1 * height, x2 * width, y2 * height))


def _faults(box: Box, width: int, height: int, classes: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yield why a box cannot be used: ``(kind, detail, remedy)``."""
    x1, y1, x2, y2 = box.xyxy
    shown = f"box ({x1:g}, {y1:g}, {x2:g}, {y2:g})"
    if not 0 <= box.label < len(classes):
        yield "class_range", f"class {box.label} is not in 0..{len(classes) - 1}", "correct the class or name it"
    elif not all(map(math.isfinite, box.xyxy)):
        yield "degenerate_box", f"{shown} is not finite", "correct the box or remove it"
    elif min(x2 - x1, y2 - y1) < _LEAST:
        yield "degenerate_box", f"{shown} of `{classes[box.label]}` has no area", "correct the box or remove it"
    elif max(-x1, -y1, x2 - width, y2 - height) > OVERHANG:
        detail = f"{shown} of `{classes[box.label]}` reaches out of the image ({width}x{height})"
        yield "box_outside", detail, "correct the box or remove it"
    elif min(min(x2, width) - max(x1, 0), min(y2, height) - max(y1, 0)) < _LEAST:
        yield "degenerate_box", f"{shown} has no area inside of the image ({width}x{height})", "remove it"


def _other_size(frame: BoxFrame, width: int, height: int) -> Problem:
    """The image is not of the size that its labels state."""
    assert frame.size is not None
    turned = orientation_of(frame.image)
    swapped = (
        f", whose EXIF orientation {turned} is not applied" if turned >= 5 and frame.size == (height, width) else ""
    )
    detail = f"`{frame.name}` is said to be {frame.size[0]}x{frame.size[1]}; its file is {width}x{height}{swapped}"
    remedy = "save the image upright" if swapped else "label the image that is there"
    return Problem("image_size", "error", frame.origin, detail, remedy, name=frame.name)
