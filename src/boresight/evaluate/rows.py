"""What every detection is and which truths are missed, as rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from boresight.core.types import Detections, Points
from boresight.evaluate.gather import PointSet

ErrorKind = Literal["hit", "duplicate", "false_alarm", "ignored"]


@dataclass(frozen=True, slots=True)
class DetectionRow:
    """One detection and what it is: a row of ``matches.parquet``.

    ``object`` is the matched truth's row within its image, -1 for none; ``distance`` (pixels) is None with it. A
    ``duplicate`` lies within tolerance of a truth that another detection took; ``ignored`` lies on a don't-care truth.
    """

    image: int
    cell: int
    score: float
    x: float
    y: float
    distance: float | None
    object: int
    kind: ErrorKind


@dataclass(frozen=True, slots=True)
class MissedRow:
    """One truth that counts and was not found; ``object`` is its row within its image."""

    image: int
    object: int
    x: float
    y: float
    snr: float | None


def match_table(
    truth: Sequence[Points], found: Sequence[Detections], *, threshold: float = 0.0, tolerance: float = 3.0
) -> tuple[list[DetectionRow], list[MissedRow]]:
    """Return a row for every detection of ``score >= threshold`` and one for every truth missed by them.

    ``image`` is the index into ``truth``; rows are in order of image, then as given. Pixel frame.
    """
    points = PointSet.of(truth, found).above(threshold)
    match = points.match(tolerance)
    start = np.cumsum([0, *(len(p) for p in truth)])
    kind = np.select([match.hit, match.ignored, match.duplicate], ["hit", "ignored", "duplicate"], "false_alarm")
    place = np.where(match.hit, match.truth_of_found - start[points.found_image], -1)
    rows = [
        DetectionRow(image, cell, score, x, y, distance if number >= 0 else None, number, sort)
        for image, cell, score, (x, y), distance, number, sort in zip(
            points.found_image.tolist(),
            points.cell.tolist(),
            points.scores.tolist(),
            points.found_xy.tolist(),
            match.distance.tolist(),
            place.tolist(),
            kind.tolist(),
            strict=True,
        )
    ]
    missed = []
    for number in np.flatnonzero(match.missed):
        image, snr = int(points.truth_image[number]), float(points.snr[number])
        x, y = points.truth_xy[number].tolist()
        missed.append(MissedRow(image, int(number - start[image]), x, y, snr if np.isfinite(snr) else None))
    return rows, missed
