"""What a page's image browser holds of one run on one split: marks image by image, and the table of its slider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from boresight.core.types import Scene
from boresight.diagnose.emitted import BUCKETS
from boresight.report.live import LiveTable
from boresight.report.reading import RunData
from boresight.run.recipe import Frames

FALSE = ("duplicate", "wrong_class", "false_alarm")
KINDS = ("hit", *FALSE, "ignored")
"""Of detections; a page knows them by their number here."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Mark:
    """One detection.

    Attributes:
        box: xyxy in the pixel frame; of a refiner the coarse one; of size zero for a point.
        score: of a refiner its confidence.
        label: its class, -1 where unknown.
        kind: one of ``KINDS``, as long as everything with a higher score counts.
        fit: overlap (of points closeness) with what decides the kind.
        object: row of the truth that it stands for, -1 for none.
        bucket: number in ``BUCKETS`` of where it comes from, -1 where that is not known.
        lost: how much better a box it drove out would have fitted, 0 where it drove out none.
        changes: ``(score, kind, object, fit)``: what it becomes at thresholds of that score and below, falling; only of
            points, where a lower threshold can give an object to another detection.
        refined: of a refiner, where the box would go.
        fit_refined: and the overlap there.
    """

    box: Box
    score: float
    label: int
    kind: str
    fit: float | None
    object: int
    bucket: int = -1
    lost: float = 0.0
    changes: tuple[tuple[float, str, int, float | None], ...] = ()
    refined: Box | None = None
    fit_refined: float | None = None

    @property
    def tells(self) -> bool:
        """It stands for an object at some threshold, or was diagnosed to drive out a better box."""
        return self.object >= 0 or self.lost > 0 or any(number >= 0 for _, _, number, _ in self.changes)


@dataclass(frozen=True)
class ImageSet:
    """A run on one split.

    Attributes:
        run: the run.
        split: which images.
        kind: ``boxes``, ``points`` or ``refined``.
        threshold: the stored one.
        classes: names of all labels.
        frames: the images of the split; ``names`` are those that were judged.
        names: see ``frames``.
        table: figures of all judged images at every threshold.
        marks: detections by image name, images without any left out.
        truths: by image name, how many objects count.
        stored: the figures that the evaluation recorded at its threshold, None where there is none of this split.
        regret, displacement: by image name, where the run was diagnosed on these images.
        notes: what must be known of it.
    """

    run: RunData
    split: str
    kind: str
    threshold: float
    classes: tuple[str, ...]
    frames: Frames
    names: Sequence[str]
    table: LiveTable
    marks: Mapping[str, Sequence[Mark]]
    truths: Mapping[str, int]
    stored: Mapping[str, float] | None = None
    regret: Mapping[str, float] = field(default_factory=dict)
    displacement: Mapping[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def errors(self, name: str) -> int:
        """False alarms and misses of an image at the stored threshold; of a refiner the boxes that it worsens."""
        threshold = np.float32(self.threshold) if self.table.single else self.threshold
        passed = [m for m in self.marks.get(name, ()) if _number(m.score, self.table.single) >= threshold]
        if self.kind == "refined":
            return sum(m.fit_refined is not None and m.fit is not None and m.fit_refined < m.fit for m in passed)
        hits = sum(m.kind == "hit" for m in passed)
        return sum(m.kind in FALSE for m in passed) + self.truths.get(name, 0) - hits


def _number(value: float, single: bool) -> Any:
    return np.float32(value) if single else value


def chosen_names(sets: Sequence[ImageSet], count: int) -> list[str]:
    """At most ``count`` of the images that all sets are about, in their order.

    Half of them those with the most errors of all sets together, then the first ones with an object or a detection.
    """
    names = sets[0].names
    if len(names) <= count:
        return list(names)
    errors = {n: sum(s.errors(n) for s in sets) for n in names}
    worst = sorted((n for n in names if errors[n]), key=lambda n: -errors[n])[: count // 2]
    kept = set(worst)
    telling = [n for n in names if n not in kept and (sets[0].truths.get(n) or any(s.marks.get(n) for s in sets))]
    kept |= set(telling[: count - len(worst)])
    return [n for n in names if n in kept]


def bare(frames: Frames, count: int) -> list[Scene]:
    """The first ``count`` scenes without their pixels."""
    return [frames[i].without_pixels() for i in range(count)]


def counted_boxes(scene: Scene) -> int:
    """How many boxes of a scene must be found."""
    if scene.boxes is None:
        return 0
    return len(scene.boxes) - (0 if scene.ignore is None else int(scene.ignore.sum()))


def bucket_number(name: str | None) -> int:
    """Its number, -1 for none."""
    return -1 if name is None else BUCKETS.index(name)


def regret_by_image(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean over the objects of each image, from ``objects.parquet``."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if row["regret"] is not None:
            values.setdefault(row["image"], []).append(row["regret"])
    return {name: sum(v) / len(v) for name, v in values.items()}


def displacement_by_image(marks: Mapping[str, Sequence[Mark]]) -> dict[str, float]:
    """The largest loss in each image."""
    lost = {name: max((m.lost for m in own), default=0.0) for name, own in marks.items()}
    return {name: value for name, value in lost.items() if value > 0}


def agreed(table: LiveTable, threshold: float, stored: Mapping[str, float] | None) -> list[str]:
    """A sentence where the table and the stored evaluation do not agree: the files have changed since."""
    if stored is None:
        return []
    now = table.at(threshold)
    pairs = [("hits", now["hit"], stored["tp"]), ("false alarms", now["false"], stored["fp"])]
    if all(a == b for _, a, b in pairs):
        return []
    told = ", ".join(f"{b:.0f} {name} stored and {a:.0f} counted" for name, a, b in pairs)
    return [f"The counts are not those of the evaluation ({told}): data or files have changed since; evaluate again."]
