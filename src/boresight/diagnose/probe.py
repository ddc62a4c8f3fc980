"""What a detector shows when it is asked on a few scenes: one frozen answer a question, or `Missing` with a reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from boresight.core.emission import Missing

UNPROBED = Missing("the detector was not probed")


@dataclass(frozen=True, slots=True)
class Start:
    """A detector before its first step.

    Attributes:
        score: mean emitted score over all cells of which something is known.
        rate: share of those cells that are positive.
        loss: of the terms that depend on scores, on one batch.
        constant: the same with the one score everywhere that suits the batch best.
    """

    score: float
    rate: float
    loss: float
    constant: float


@dataclass(frozen=True, slots=True)
class Learned:
    """How much of what scores can learn has been learned: the loss terms that depend on scores, targets held fixed.

    Attributes:
        loss: with the scores as they are.
        constant: with the one score everywhere that suits the batch best.
        floor: with the targets themselves as scores; soft targets leave an entropy.
        objects: in the batch.
        precision: average precision of positive cells among all, ranked by score; a constant reaches their share.
    """

    loss: float
    constant: float
    floor: float
    objects: int
    precision: float


@dataclass(frozen=True, slots=True)
class Pull:
    """Size of the loss's gradient to the scores, summed over positive cells and over all others, before step 1."""

    positive: float
    negative: float


@dataclass(frozen=True, slots=True)
class Level:
    """Cells of one level that is supervised: its stride in pixels, its cells, and how many are positive."""

    stride: float
    cells: int
    positives: int


@dataclass(frozen=True, slots=True)
class Spread:
    """How positives are shared among objects: counts of objects, of those with none, the median and the most of one."""

    objects: int
    without: int
    median: float
    most: int


@dataclass(frozen=True, slots=True)
class Reach:
    """Objects an image as its file holds them, and as the targets hold them, for the same whole images."""

    held: tuple[int, ...]
    reached: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Parity:
    """One batch in training and in inference.

    Attributes:
        stuck: modules that stay in training mode after ``eval()``.
        companions: largest change of a logit when an image is seen alone instead of in the batch, in inference, over
            the spread of the logits.
        train, eval: loss of the batch in training mode (dropout off) and in inference mode.
        repeats: largest change of a logit when the same image is seen again in inference, over the spread.
    """

    stuck: tuple[str, ...]
    companions: float
    train: float
    eval: float
    repeats: float = 0.0


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """Truth written into an output as the targets ask for it, and decoded.

    Attributes:
        objects: that a positive cell stands for.
        apart: of their positive cells, the share that lies more than three cells beside the object it must emit.
        lost: of the objects, those that no detection lies near.
        shift_x, shift_y: median displacement of the others, pixels.
    """

    objects: int
    apart: float
    lost: int
    shift_x: float
    shift_y: float


@dataclass(frozen=True, slots=True)
class PaddingShift:
    """By how many cells the score map of an image moves when a larger image shares its batch; ``pad``: cells added."""

    x: int
    y: int
    pad: int


@dataclass(frozen=True, slots=True)
class Offset:
    """Where detections lie against the truth that they find: means over ``n`` pairs and their errors, pixels."""

    n: int
    x: float
    y: float
    error_x: float
    error_y: float
    stride: float


@dataclass(frozen=True, slots=True)
class Activation:
    """The largest activation of a forward pass, and the module that gave it."""

    largest: float
    module: str


@dataclass(frozen=True, slots=True)
class Averaged:
    """Loss on validation scenes in inference, of the raw weights and of the averaged ones."""

    raw: float
    averaged: float


@dataclass(frozen=True, slots=True)
class Operating:
    """How well detections do at the stored threshold, and at the best one, on the same images.

    Attributes:
        objects: that count.
        threshold, f1: the stored one.
        best_threshold, best_f1: in hindsight.
        silent: share of the images with objects in which nothing passes the stored threshold; None: not known.
    """

    objects: int
    threshold: float
    f1: float
    best_threshold: float
    best_f1: float
    silent: float | None = None


@dataclass(frozen=True, slots=True)
class AbsentPeaks:
    """Peaks of the class map over an image, medians over the classes that are absent from it and over those present."""

    absent: float
    present: float
    pairs: int


@dataclass(frozen=True, slots=True)
class MapFit:
    """Where the frozen class maps point.

    Of a class in an image the map *points* at its objects by the chance that a cell in one of them lies above a cell in
    no object: 1 always, 0.5 by chance, 0 the other way round.

    Attributes:
        pairs: of an image and a class that it holds.
        own: mean over the pairs of how the class's own map points at its objects.
        lead: the same of the maps of other classes, one for each class, less that: the exchange that does best on one
            half of the images, judged on the other half. None with one class.
        own_error, lead_error: standard errors of these means.
        flat: share of the pairs whose map is the same everywhere in the image.
        exchange: the class whose map points best at it, by class, in the exchange that does best on all images.
    """

    pairs: int
    own: float
    own_error: float
    lead: float | None
    lead_error: float | None
    flat: float
    exchange: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stored:
    """Frozen features as the store gives them, against what the encoder makes of the same images now.

    Attributes:
        images: that were compared.
        differ: largest norm of the difference over that of what the encoder makes.
        name: of that image.
    """

    images: int
    differ: float
    name: str


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds an image of one part of loading it, and the settings that would spare it (``group.name`` to value)."""

    part: str
    seconds: float
    spare: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Moved:
    """Weights that were to stay as they are: how many tensors, how many of them moved, and the one that moved most."""

    part: str
    tensors: int
    moved: int
    worst: str
    change: float


@dataclass(frozen=True, slots=True)
class Course:
    """How far the weights of one part have come.

    Attributes:
        part: first two names of its parameters.
        tensors: parameters.
        asked: that are to be trained.
        still: of those, the ones that are as they were before the first step.
        change: norm of the change over that of the weights, the larger of before and after.
    """

    part: str
    tensors: int
    asked: int
    still: int
    change: float


@dataclass(frozen=True, slots=True)
class Reload:
    """The weights as they were stored and as they are used, and the validation figure of both.

    Attributes:
        tensors: stored.
        changed: that are others after loading and inference.
        worst: the one that changed most.
        stored: main figure of the validation when the weights were stored; None where it was undefined.
        now: the same figure on the same images; None where there are too many of them to be judged in passing.
    """

    tensors: int
    changed: int
    worst: str
    stored: float | None = None
    now: float | None = None


@dataclass(frozen=True, slots=True)
class Returned:
    """What is returned for validation images.

    Attributes:
        count: detections, at any score.
        low, high: their least and largest score.
        used: detections at the stored threshold or above.
        twins: of those, the ones that a better one of their class covers (IoU above 0.6; of points half the tolerance).
    """

    count: int
    low: float
    high: float
    used: int
    twins: int


@dataclass(frozen=True, slots=True)
class Probe:
    """The answers."""

    start: Start | Missing = UNPROBED
    learned: Learned | Missing = UNPROBED
    pull: Pull | Missing = UNPROBED
    levels: tuple[Level, ...] | Missing = UNPROBED
    spread: Spread | Missing = UNPROBED
    reach: Reach | Missing = UNPROBED
    parity: Parity | Missing = UNPROBED
    round_trip: RoundTrip | Missing = UNPROBED
    padding: PaddingShift | Missing = UNPROBED
    offset: Offset | Missing = UNPROBED
    activation: Activation | Missing = UNPROBED
    averaged: Averaged | Missing = UNPROBED
    operating: Operating | Missing = UNPROBED
    peaks: AbsentPeaks | Missing = UNPROBED
    maps: MapFit | Missing = UNPROBED
    stored: Stored | Missing = UNPROBED
    costs: tuple[Cost, ...] | Missing = UNPROBED
    moved: tuple[Moved, ...] | Missing = UNPROBED
    course: tuple[Course, ...] | Missing = UNPROBED
    reload: Reload | Missing = UNPROBED
    returned: Returned | Missing = UNPROBED

    @classmethod
    def refused(cls, reason: str) -> Probe:
        """Nothing could be asked, for this reason."""
        return cls(**{f.name: Missing(reason) for f in fields(cls)})
