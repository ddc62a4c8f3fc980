"""Figures at every threshold: the table from which a page counts anew when its slider moves.

A figure at a threshold is a total and the sum of steps over all rows whose score reaches it: each detection adds a hit
or a false alarm (of points the exact change that it makes, see :func:`boresight.evaluate.steps.count_steps`), each
refined box its gain. That holds for all judged images, not only for those that a page has room to show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boresight.core.types import Detections, Points, Scene
from boresight.evaluate.box_match import match_boxes
from boresight.evaluate.box_set import BoxSet
from boresight.evaluate.gather import PointSet
from boresight.evaluate.ladder import Ladder

ROWS = 25_000
"""Rows of a page at most; a longer table is counted at fewer thresholds."""
LEVELS = 1000
FEWEST_LEVELS = 50


@dataclass(frozen=True)
class LiveTable:
    """Rows by falling score.

    Attributes:
        score: ``[K]``, in single precision where ``single``: a page must then compare in it as well, so that what
            passes a threshold there passes it in the evaluation.
        label: ``[K]`` classes.
        steps: ``[K]`` what each row changes, by the name of the figure.
        totals: of each label (first axis), what holds before any row counts, by name.
        single: see ``score``.
        grid: the thresholds at which the table is exact, rising; empty: all.
    """

    score: NDArray[np.floating]
    label: NDArray[np.int64]
    steps: Mapping[str, NDArray[Any]]
    totals: Mapping[str, NDArray[Any]]
    single: bool = True
    grid: tuple[float, ...] = ()

    def at(self, threshold: float) -> dict[str, float]:
        """The sums of the steps at a threshold, over all classes: what the page shows there."""
        kind = np.float32 if self.single else np.float64
        passed = self.score.astype(kind) >= kind(threshold)
        return {name: float(step[passed].sum()) for name, step in self.steps.items()}

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "score": [_short(s, self.single) for s in self.score],
            "label": self.label.tolist(),
            "steps": {name: _plain(step) for name, step in self.steps.items()},
            "totals": {name: _plain(total) for name, total in self.totals.items()},
            "single": self.single,
            "grid": list(self.grid),
        }


def _short(score: Any, single: bool) -> float:
    """The shortest decimal that is this number in its precision."""
    return float(str(np.float32(score))) if single else float(score)


def _plain(values: NDArray[Any]) -> list[Any]:
    return [round(v, 7) if isinstance(v, float) else v for v in values.tolist()]


def live_table(
    score: NDArray[np.floating],
    label: NDArray[np.int64],
    steps: Mapping[str, NDArray[Any]],
    totals: Mapping[str, NDArray[Any]],
    threshold: float,
    *,
    single: bool = True,
) -> LiveTable:
    """Sort the rows, leave out those that change nothing, and thin them where there are too many.

    A thinned table is exact at the thresholds of its ``grid``, ``threshold`` among them.
    """
    changing = np.any([step != 0 for step in steps.values()], axis=0) if len(score) else np.zeros(0, bool)
    order = np.flatnonzero(changing)[np.argsort(-score[changing], kind="stable")]
    score, label = score[order], label[order]
    steps = {name: step[order] for name, step in steps.items()}
    if len(score) <= ROWS:
        return LiveTable(score, label, steps, totals, single)
    kind = np.float32 if single else np.float64
    classes = 1 + int(label.max())
    wanted = max(FEWEST_LEVELS, min(LEVELS, ROWS // classes))
    grid = np.unique(np.append(score[np.linspace(0, len(score) - 1, wanted).round().astype(int)], kind(threshold)))
    level = np.searchsorted(grid, score, side="right") - 1
    cell = np.where(level < 0, 0, level) * classes + label
    kept = np.unique(cell)[::-1]
    sums = {n: _exact(np.bincount(cell, weights=s)[kept], s) for n, s in steps.items()}
    return LiveTable(
        grid[kept // classes], kept % classes, sums, totals, single, tuple(_short(g, single) for g in grid)
    )


def _exact(sums: NDArray[Any], like: NDArray[Any]) -> NDArray[Any]:
    return sums if np.issubdtype(like.dtype, np.floating) else sums.astype(np.int64)


def live_boxes(scenes: Sequence[Scene], found: Sequence[Detections], classes: int, threshold: float) -> LiveTable:
    """Hits and false alarms of boxes at IoU 0.5. The greedy rule chooses best first: one matching holds them all."""
    return live_box_set(BoxSet.of(scenes, found), classes, threshold)


def live_box_set(boxes: BoxSet, classes: int, threshold: float, *, single: bool = True) -> LiveTable:
    """:func:`live_boxes` of a data set that is gathered already."""
    match = match_boxes(boxes)
    steps = {"hit": match.hit.astype(np.int64), "false": match.false.astype(np.int64)}
    truths = np.bincount(boxes.truth_label[boxes.counted], minlength=classes)
    return live_table(boxes.scores, boxes.found_label, steps, {"truths": truths}, threshold, single=single)


def live_points(
    truth: Sequence[Points], found: Sequence[Detections], classes: int, threshold: float, tolerance: float
) -> LiveTable:
    """Hits and false alarms of points within ``tolerance`` pixels."""
    ladder = Ladder(PointSet.of(truth, found), tolerance)
    steps = {"hit": ladder.hits, "false": ladder.false}
    labels = _joined([d.labels.numpy() for d in found])
    counted = _joined([p.labels[~p.ignore].numpy() for p in truth])
    truths = np.bincount(counted, minlength=classes)
    return live_table(ladder.points.scores, labels, steps, {"truths": truths}, threshold)


def _joined(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
