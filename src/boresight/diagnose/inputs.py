"""Is a detector given the pictures that it was trained on? Some images are shown to it in other forms as well.

No output tells a wrong box from the box of a wrong picture: colours exchanged or a range 255 times too large cost
class, box and score alike, and every repair of the output looks good. The detector itself knows: shown the form that it
was trained on, it does better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from boresight.core.emission import Emission, Missing, Source
from boresight.core.types import Detections, Scene
from boresight.diagnose.selecting import chosen, opened
from boresight.diagnose.truth import Truth

Look = Callable[[Tensor], Tensor]
"""An image ``[3, H, W]`` float32 in 0..255, RGB, to what stands in its place: the same shape, any range."""

IMAGES = 64
"""Images that are shown otherwise at most; only those with objects are."""
OBJECTS = 100
"""Objects in them after which no other is shown."""
CANNOT = "the source cannot show its model another picture (`through`)"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, by which most backbones are normalised."""


def _per_channel(values: tuple[float, ...], like: Tensor) -> Tensor:
    return like.new_tensor(values)[:, None, None]


def _normalised(image: Tensor) -> Tensor:
    return (image / 255 - _per_channel(MEAN, image)) / _per_channel(STD, image) * 255


def _not_normalised(image: Tensor) -> Tensor:
    return (image / 255 * _per_channel(STD, image) + _per_channel(MEAN, image)) * 255


@dataclass(frozen=True, slots=True)
class Form:
    """Another form of the same picture.

    Attributes:
        name: short.
        look: makes it.
        shown: what the detector does better on, as in "on images ...".
        cause: what brings it about.
        remedy: what to change.
    """

    name: str
    look: Look
    shown: str
    cause: str
    remedy: str


FORMS = (
    Form(
        "bgr",
        lambda image: image.flip(0),
        "with red and blue exchanged",
        "it was trained on BGR (OpenCV) and is given RGB, or the other way round",
        "give it the channels in the order of its training: exchange them once, where the file is read",
    ),
    Form(
        "divided",
        lambda image: image / 255,
        "divided by 255",
        "it was trained on 0..1 and is given 0..255",
        "divide by 255 before the image is normalised",
    ),
    Form(
        "multiplied",
        lambda image: image * 255,
        "multiplied by 255",
        "images are divided by 255 twice, or it was trained on 0..255",
        "divide by 255 in one place alone",
    ),
    Form(
        "normalised",
        _normalised,
        "normalised by ImageNet's mean and deviation",
        "it was trained on normalised images and is given them as they are",
        "subtract the mean of its training and divide by the deviation",
    ),
    Form(
        "not normalised",
        _not_normalised,
        "from which one normalisation is taken away",
        "images are normalised twice, before the model and in it, or it was trained without",
        "normalise in one place alone",
    ),
    Form(
        "inverted",
        lambda image: 255 - image,
        "whose bright is dark",
        "it was trained on white-hot images and is given black-hot ones, or on negatives",
        "give it images of the polarity of its training",
    ),
)
"""What is tried, the commonest mistakes first."""


@runtime_checkable
class Through(Protocol):
    """A source whose model can be shown its images in another form."""

    def through(self, look: Look) -> Source | Missing:
        """The same detector, which sees every image through ``look``; itself stays as it is. Missing: it cannot."""
        ...


@dataclass(frozen=True)
class Otherwise:
    """What a detector returns of some images, its threshold opened, in every form.

    Attributes:
        scenes: the images, without their pixels.
        as_is: as it is given them.
        shown: by :attr:`Form.name`.
    """

    scenes: list[Scene]
    as_is: list[Detections]
    shown: dict[str, list[Detections]]


class Showing:
    """Shows images to a source in every form until it has shown enough."""

    def __init__(self, source: Source, wanted: bool = True) -> None:
        self.source = source
        self.forms: dict[str, Source] = {}
        self.missing = Missing(CANNOT if wanted else "it was not asked for")
        if wanted and isinstance(source, Through):
            for form in FORMS:
                other = source.through(form.look)
                if isinstance(other, Missing):
                    self.missing = other
                else:
                    self.forms[form.name] = other
        self.objects = 0
        self.found = Otherwise([], [], {name: [] for name in self.forms})

    def add(self, scene: Scene, emission: Emission, truth: Truth) -> None:
        """Show one image, whose emission as it is given is known; not where it holds no object or enough are shown."""
        if not self.forms or not len(truth) or self.full:
            return
        self.objects += len(truth)
        self.found.scenes.append(scene.without_pixels())
        self.found.as_is.append(_returned(self.source, emission))
        for name, source in self.forms.items():
            self.found.shown[name].append(_returned(source, source.emit(scene).to("cpu")))

    @property
    def full(self) -> bool:
        """Whether enough was shown."""
        return len(self.found.scenes) >= IMAGES or self.objects >= OBJECTS

    def told(self) -> Otherwise | Missing:
        """What came of it."""
        return self.found if self.forms else self.missing


def otherwise(source: Source, scenes: Iterable[Scene]) -> Otherwise | Missing:
    """Show a detector the first of some images with objects in every form. Raises ValueError as an audit does."""
    showing = Showing(source)
    for scene in scenes if showing.forms else ():
        truth = Truth.of(scene, len(source.classes))
        if len(truth):
            showing.add(scene, source.emit(scene).to("cpu"), truth)
        if showing.full:
            break
    return showing.told()


def _returned(source: Source, emission: Emission) -> Detections:
    """Detections with an open threshold; none of numbers that are none, which a strange picture may lead to."""
    if not bool(torch.isfinite(emission.scores).all() and torch.isfinite(emission.boxes).all()):
        none = torch.zeros(0, dtype=torch.long)
        return Detections(emission.boxes.new_zeros(0, 4), emission.scores.new_zeros(0), none, none)
    return chosen(source, emission, None if source.decoding is None else opened(source.decoding)).found()
