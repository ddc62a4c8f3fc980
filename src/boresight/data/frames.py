"""Frames on disk and their point truth, read one at a time; parts of a source, held out or chosen.

:class:`Frames` decodes an image only when it is asked for one. What is wrong with a frame is a :class:`Problem`:
reading the frame raises the first, :meth:`Frames.inspect` collects them all.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from boresight.core.errors import UserError
from boresight.core.grid import index_to_pixel
from boresight.core.types import Points, Scene, frame_brightness
from boresight.data.image import DataError, Problem, read_image, read_mask, to_gray

T = TypeVar("T")


class FrameSource(Protocol):
    """Frames that are addressed by index, whatever makes them: a folder, a table, a generator."""

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every frame, each unique."""
        ...

    def __len__(self) -> int:
        """The number of frames."""
        ...

    def __getitem__(self, i: int, /) -> Scene:
        """Frame ``i``: a gray image ``[1, H, W]`` with its points. Raises ``UserError`` where it cannot be read."""
        ...

    def truth(self, i: int, /) -> Points | None:
        """The points of frame ``i`` alone, without decoding its image where that can be avoided; None: unknown."""
        ...


@runtime_checkable
class AuditedSource(FrameSource, Protocol):
    """A source of files, which can say what is wrong with each without stopping."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The image file of every frame."""
        ...

    @property
    def listing(self) -> tuple[Problem, ...]:
        """What is wrong with the lists (split file, table) that name the frames."""
        ...

    @property
    def unused(self) -> frozenset[Path]:
        """Image files beside those of the source that are none of its frames."""
        ...

    def inspect(self, i: int, /) -> tuple[Scene | None, tuple[Problem, ...]]:
        """Frame ``i`` where it can be read, and all that is wrong with it."""
        ...


class Row(NamedTuple):
    """One point of a table: ``x, y`` in the pixel frame, and what is known about it (NaN: unknown)."""

    x: float
    y: float
    label: int = 0
    ignore: bool = False
    snr: float = math.nan
    flux: float = math.nan


@dataclass(frozen=True, slots=True)
class Frame:
    """Where one frame comes from.

    Truth is ``rows``, or the components of ``mask``, or unknown where both are None. ``origin`` is the file to blame
    for rows; frames of one ``group`` (a video) are not independent of each other.
    """

    name: str
    image: Path
    image_id: int
    rows: tuple[Row, ...] | None = None
    mask: Path | None = None
    origin: str = ""
    group: str = ""


@dataclass(frozen=True)
class Frames:
    """Frames on disk, read lazily (an :class:`AuditedSource`)."""

    frames: tuple[Frame, ...]
    classes: tuple[str, ...] = ("target",)
    listing: tuple[Problem, ...] = ()
    unused: frozenset[Path] = frozenset()
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(frame.name for frame in self.frames))
        if len(set(self.names)) < len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise ValueError(f"names of frames must be unique, `{twice}` is not")

    @property
    def files(self) -> tuple[Path, ...]:
        """The image file of every frame."""
        return tuple(frame.image for frame in self.frames)

    @property
    def groups(self) -> tuple[str, ...]:
        """What may not be torn apart by a random split: the video of every frame, or its name (:func:`held_out`)."""
        return tuple(frame.group or frame.name for frame in self.frames)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, i: int) -> Scene:
        """Frame ``i``: image ``[1, H, W]`` float32 as stored. Raises ``UserError`` for the first of its problems."""
        scene, problems = self.inspect(i)
        if problems:
            raise DataError(problems[0])
        assert scene is not None
        return scene

    def truth(self, i: int) -> Points | None:
        """The points of frame ``i`` without decoding its image, so points outside of it are not noticed."""
        return _points(self.frames[i])

    def inspect(self, i: int) -> tuple[Scene | None, tuple[Problem, ...]]:
        """Frame ``i`` where it can be read, and all that is wrong with it. The scene may have points outside."""
        frame = self.frames[i]
        image, problems = _attempt(lambda: to_gray(read_image(frame.image)))
        points, more = _attempt(lambda: _points(frame))
        if image is None or more:
            return None, tuple(replace(problem, name=frame.name) for problem in problems + more)
        level, spread = frame_brightness(image)
        scene = Scene(image, frame.name, frame.image_id, points, level=level, spread=spread)
        return scene, tuple(_misfits(scene, frame))


@dataclass(frozen=True)
class Subset:
    """The frames ``indices`` of another source, in that order, with the same protocol."""

    source: FrameSource
    indices: tuple[int, ...]

    def __init__(self, source: FrameSource, indices: Iterable[int]) -> None:
        object.__setattr__(self, "source", source)
        object.__setattr__(self, "indices", tuple(int(i) for i in indices))
        if wrong := [i for i in self.indices if not 0 <= i < len(source)]:
            raise ValueError(f"index {wrong[0]} is outside 0..{len(source) - 1}")

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every frame."""
        return tuple(self.source.names[i] for i in self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> Scene:
        return self.source[self.indices[i]]

    def truth(self, i: int) -> Points | None:
        """The points of frame ``i``."""
        return self.source.truth(self.indices[i])

    @property
    def files(self) -> tuple[Path, ...]:
        """The image file of every frame (a path made of its name where the source has no files)."""
        files = getattr(self.source, "files", None) or tuple(Path(name) for name in self.source.names)
        return tuple(files[i] for i in self.indices)

    @property
    def groups(self) -> tuple[str, ...]:
        """What may not be torn apart by a random split, of every frame."""
        groups = getattr(self.source, "groups", self.source.names)
        return tuple(groups[i] for i in self.indices)

    @property
    def listing(self) -> tuple[Problem, ...]:
        """What is wrong with the lists of the whole source."""
        return getattr(self.source, "listing", ())

    @property
    def unused(self) -> frozenset[Path]:
        """Image files of the source that are no frame of this part."""
        return frozenset(getattr(self.source, "unused", ())) | set(getattr(self.source, "files", ())) - set(self.files)

    def inspect(self, i: int) -> tuple[Scene | None, tuple[Problem, ...]]:
        """Frame ``i`` where it can be read, and all that is wrong with it."""
        return inspect(self.source, self.indices[i])


def inspect(source: FrameSource, i: int) -> tuple[Scene | None, tuple[Problem, ...]]:
    """Frame ``i`` of any source where it can be read, and all that is wrong with it: never raises a ``UserError``."""
    if isinstance(source, AuditedSource):
        return source.inspect(i)
    try:
        return source[i], ()
    except DataError as error:
        return None, (error.problem,)
    except UserError as error:
        return None, (Problem("corrupt_image", "error", source.names[i], str(error), "leave the frame out"),)


def held_out(keys: int | Sequence[str], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Split frames into ``(train, validation)``: indices in rising order, with about ``share`` of them held out.

    ``keys`` are the names of the frames, or their groups (:attr:`Frames.groups`): frames with one key stay on one side,
    so that neighbours in a video do not sit on both. A number stands for that many frames named by their index. Keys
    are ordered by a hash of ``(seed, key)`` and held out until ``round(share * n)`` frames are (at least one, never all
    keys): the same on every machine, and adding a frame moves few others. ``share`` 0 holds out nothing. Raises
    ``UserError`` for a share outside [0, 1), or where there are fewer than two keys to part.
    """
    names = [str(i) for i in range(keys)] if isinstance(keys, int) else list(keys)
    if not 0 <= share < 1:
        raise UserError(f"share of held-out frames {share}: give a number from 0 up to, not including, 1")
    if share == 0:
        return list(range(len(names))), []
    order = sorted(set(names), key=lambda key: hashlib.blake2b(f"{seed}:{key}".encode()).digest())
    if len(order) < 2:
        raise UserError(f"cannot hold out {share:g} of {len(order)} independent frames: give more, or a share of 0")
    wanted, count = max(1, round(share * len(names))), 0
    chosen: set[str] = set()
    size = Counter(names)
    for key in order[:-1]:
        if count >= wanted:
            break
        chosen.add(key)
        count += size[key]
    sides = [name in chosen for name in names]
    return [i for i, held in enumerate(sides) if not held], [i for i, held in enumerate(sides) if held]


def _attempt(read: Callable[[], T]) -> tuple[T | None, tuple[Problem, ...]]:
    """Return what ``read`` returns and no problem, or None and the problem that it raised."""
    try:
        return read(), ()
    except DataError as error:
        return None, (error.problem,)


def _points(frame: Frame) -> Points | None:
    """The truth of one frame: its rows, or the components of its mask."""
    if frame.rows is not None:
        table = torch.tensor([[float(v) for v in row] for row in frame.rows], dtype=torch.float64).reshape(
            -1, len(Row._fields)
        )
        x, y, label, ignore, snr, flux = table.unbind(dim=1)
        known = [None if v.isnan().all() else v.float() for v in (snr, flux)]
        return Points(torch.stack((x, y), dim=-1).float(), label.long(), ignore.bool(), snr=known[0], flux=known[1])
    if frame.mask is None:
        return None
    try:
        return mask_points(read_mask(frame.mask))
    except DataError as error:
        if error.problem.kind != "missing_image":
            raise
        detail, remedy = f"no mask for the frame `{frame.name}`", "add the mask (all zeros where there is no target)"
        raise DataError(
            replace(error.problem, kind="mask_missing", detail=detail, remedy=remedy, name=frame.name)
        ) from error


def mask_points(mask: Tensor) -> Points:
    """Turn a mask ``[H, W]`` bool into one point for each 8-connected component, with ``Points.mask`` filled.

    A point is the plain mean of the centres of its pixels, in the pixel frame (half-pixel centres). Components are
    numbered in the order in which a scan by rows first meets them.
    """
    components, n = ndimage.label(mask.numpy(), structure=np.ones((3, 3), dtype=bool))
    rows, columns = np.nonzero(components)
    owner = components[rows, columns] - 1
    sums = np.stack([np.bincount(owner, weights=at, minlength=n) for at in (columns, rows)], axis=-1)
    centroids = sums / np.maximum(np.bincount(owner, minlength=n), 1)[:, None]
    return Points.of(
        index_to_pixel(torch.from_numpy(centroids)).float(), mask=torch.from_numpy(components.astype(np.int32))
    )


def _misfits(scene: Scene, frame: Frame) -> Iterator[Problem]:
    """Truth that does not fit its image: a mask of another size, points outside."""
    if (points := scene.points) is None:
        return
    height, width = scene.size
    if points.mask is not None and points.mask.shape != (height, width):
        theirs = f"is {points.mask.shape[1]}x{points.mask.shape[0]}, its image {width}x{height}"
        yield Problem(
            "mask_size", "error", str(frame.mask), theirs, "save the mask at the size of the image", name=frame.name
        )
        return
    yield from outside(scene, frame.origin or str(frame.image))


def outside(scene: Scene, file: str) -> Iterator[Problem]:
    """Yield a problem for every point that lies outside of the image of its scene (borders belong to the image)."""
    if scene.points is None:
        return
    height, width = scene.size
    for x, y in scene.points.xy.tolist():
        if not (0 <= x <= width and 0 <= y <= height):
            detail = f"point ({x:g}, {y:g}) lies outside of `{scene.name}` ({width}x{height})"
            yield Problem("point_outside", "error", file, detail, "correct the point or remove it", name=scene.name)
