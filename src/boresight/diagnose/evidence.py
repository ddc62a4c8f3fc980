"""What is known of a run, each part whole or `Missing` with a reason: the rules of training health judge this alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from boresight.core.emission import Missing
from boresight.diagnose.images import Images
from boresight.diagnose.plan import Plan
from boresight.diagnose.probe import Operating, Probe
from boresight.diagnose.steps import Steps

UNASKED = Missing("nothing of the kind was given")
NO_CURVE = Missing("the evaluation holds no curve")


@dataclass(frozen=True, slots=True)
class ClassTally:
    """A row of `targets.parquet`: what one epoch asked of one class.

    Attributes:
        epoch: from 0.
        name: of the class.
        positives: cells that stood for its objects.
        objects: seen.
        without: of them, those that no cell stood for.
    """

    epoch: int
    name: str
    positives: int
    objects: int
    without: int

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> tuple[ClassTally, ...]:
        """Rows of the table. KeyError for a column that it does not have."""
        counts = ("positives", "objects", "objects_with_none")
        return tuple(cls(int(r["epoch"]), str(r["class"]), *(int(r[c]) for c in counts)) for r in rows)


@dataclass(frozen=True, slots=True)
class FrozenPart:
    """Something that must not move in training, as it was before and as it is after: two hashes."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a finished run says of itself.

    Attributes:
        frozen: parts that must not move.
        evicted: items that the feature store gave up for others; None where there is no store.
        operating: from its judgement, where that holds a curve.
    """

    frozen: tuple[FrozenPart, ...] = ()
    evicted: int | None = None
    operating: Operating | Missing = NO_CURVE


@dataclass(frozen=True, slots=True)
class UnreadKey:
    """A setting that was given and that nothing reads.

    Attributes:
        key: ``group.name``.
        value: as given.
        why: a clause: "no setting has this name", "`loss.name` = bce does not read it".
        known: whether the settings have it at all.
    """

    key: str
    value: str
    why: str
    known: bool


@dataclass(frozen=True, slots=True)
class ClassLook:
    """What objects of one class look like in one split.

    Attributes:
        n: objects.
        mean, spread: of logarithmic width and height and of the colour of the inside (as shares of the image's range).
    """

    n: int
    mean: tuple[float, ...]
    spread: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class SplitLabels:
    """The labels of one split.

    Attributes:
        name: of the split.
        classes: names, in the order of the labels; empty: not known.
        counts: objects by label, of every label that occurs.
        looks: by label, of the labels that occur; empty where it was not looked at.
    """

    name: str
    classes: tuple[str, ...]
    counts: Mapping[int, int]
    looks: Mapping[int, ClassLook] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Labels:
    """The truth of a run.

    Attributes:
        classes: that the detector has a channel for.
        splits: those that were looked at.
        side: median over objects of the side (root of the area), pixels; None for points.
    """

    classes: tuple[str, ...]
    splits: tuple[SplitLabels, ...]
    side: float | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that the rules may look at."""

    plan: Plan = field(default_factory=Plan)
    steps: Steps | Missing = UNASKED
    tallies: tuple[ClassTally, ...] | Missing = UNASKED
    outcome: Outcome | Missing = UNASKED
    unread: tuple[UnreadKey, ...] | Missing = UNASKED
    labels: Labels | Missing = UNASKED
    probe: Probe = field(default_factory=Probe)
    images: Images = field(default_factory=Images)
