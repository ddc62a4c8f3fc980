"""What the images of a run and their labels show before any detector looks at them: one frozen answer a question."""

from __future__ import annotations

from dataclasses import dataclass

from boresight.core.emission import Missing

UNSEEN = Missing("the images were not looked at")


@dataclass(frozen=True, slots=True)
class Pixels:
    """What a detector is given of one split, as it is given (less a frame's level, over its spread, where it has them).

    Attributes:
        name: `train`, `val`, or `views` (training views, changed at random).
        images: looked at.
        mean: of each channel, over the images; then the first channel less the last.
        between: standard deviation of the same from image to image.
        contrast: median over the images of the standard deviation within one, all channels together.
    """

    name: str
    images: int
    mean: tuple[float, ...]
    between: tuple[float, ...]
    contrast: float


@dataclass(frozen=True, slots=True)
class LabelForm:
    """Labels of one split as geometry alone.

    Attributes:
        name: of the split.
        objects: that count.
        empty: boxes without area, or with an edge on the wrong side.
        outside: of which more than half lies outside of the image.
        twins: objects of which an earlier one of the same class and image is nearly the same (IoU above 0.9; of points
            half a pixel).
    """

    name: str
    objects: int
    empty: int
    outside: int
    twins: int


@dataclass(frozen=True, slots=True)
class Placed:
    """Whether labels lie on something: does the inside of a box differ from what surrounds it?

    Attributes:
        name: of the split, or `views`.
        objects: compared.
        elsewhere: share of the objects whose box differs more from its surroundings than the same box elsewhere in the
            image does; 0.5 where labels lie anywhere.
        other: the reading of the coordinates under which boxes differ most often more than as they are labelled.
        better: share of the objects for which that is so.
        compared: objects of that comparison.
    """

    name: str
    objects: int
    elsewhere: float
    other: str
    better: float
    compared: int


@dataclass(frozen=True, slots=True)
class Leak:
    """Validation images that were looked at, those of them that are training images too, pixel by pixel, and one."""

    judged: int
    shared: int
    example: str


@dataclass(frozen=True, slots=True)
class Repeats:
    """Images of which several training views were made, and those of which all views were the same."""

    images: int
    same: int
    views: int


@dataclass(frozen=True, slots=True)
class Images:
    """The answers."""

    pixels: tuple[Pixels, ...] | Missing = UNSEEN
    labels: tuple[LabelForm, ...] | Missing = UNSEEN
    placed: tuple[Placed, ...] | Missing = UNSEEN
    leak: Leak | Missing = UNSEEN
    repeats: Repeats | Missing = UNSEEN
