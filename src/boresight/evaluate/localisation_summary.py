"""How the figures of the localisation report come out of the records of all objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from boresight.evaluate.estimate import Drawn, Estimate, Resampler
from boresight.evaluate.floors import CONTENT_FREE, FLOORS, skill
from boresight.evaluate.localisation_report import (
    CellPoint,
    ClassReading,
    Floor,
    Gap,
    Mirror,
    Plain,
    Rung,
    WrongChannel,
)
from boresight.evaluate.object_records import EMITTERS, ObjectRecords
from boresight.evaluate.pairs import Floats
from boresight.evaluate.selection import CHANNEL_RUNGS, RUNGS
from boresight.evaluate.subsample import CELL_COUNTS

HISTOGRAM_BINS = 20


def reached(iou: Floats, least: float) -> Floats:
    """1 where ``iou >= least``, 0 where not, NaN where unknown."""
    return np.where(np.isnan(iou), np.nan, iou >= least)


def skill_of(value: Drawn, floor: Drawn) -> Drawn:
    """Skill of a figure against its floor, replicate by replicate."""
    return Drawn(float(skill(value.value, floor.value)), skill(value.samples, floor.samples), min(value.n, floor.n))


@dataclass(frozen=True)
class RungDraws:
    """A rung before it is summarised: figures with their replicates (``floors`` in the order of ``FLOORS``)."""

    name: str
    iou: Drawn
    acc: Drawn
    floor_iou: tuple[Drawn, ...]
    floor_acc: tuple[Drawn, ...]

    def strongest(self, floors: Sequence[Drawn]) -> int | None:
        """Index of the highest content-free floor, None where there is none."""
        known = [k for k in range(len(CONTENT_FREE)) if np.isfinite(floors[k].value)]
        return max(known, key=lambda k: floors[k].value, default=None)

    @property
    def skill_acc(self) -> Drawn:
        """Skill at IoU 0.5 against the strongest content-free floor; undefined without any."""
        k = self.strongest(self.floor_acc)
        nothing = Drawn(float("nan"), np.full_like(self.acc.samples, np.nan), 0)
        return nothing if k is None else skill_of(self.acc, self.floor_acc[k])

    def summary(self) -> Rung:
        """The rung of the report."""
        floors = tuple(
            Floor(name, i.estimate(), a.estimate(), skill_of(self.iou, i).estimate(), skill_of(self.acc, a).estimate())
            for name, i, a in zip(FLOORS, self.floor_iou, self.floor_acc, strict=True)
            if i.n
        )
        by_iou, by_acc = self.strongest(self.floor_iou), self.strongest(self.floor_acc)
        return Rung(
            self.name,
            self.iou.estimate(),
            self.acc.estimate(),
            floors,
            None if by_iou is None else FLOORS[by_iou],
            None if by_acc is None else FLOORS[by_acc],
            Estimate(None, 0, None) if by_iou is None else skill_of(self.iou, self.floor_iou[by_iou]).estimate(),
            self.skill_acc.estimate(),
        )


def draw_ladder(records: ObjectRecords, resampler: Resampler) -> tuple[RungDraws, ...]:
    """Average every rung of every emitter."""
    rungs = []
    for k, name in enumerate(RUNGS):
        iou = [resampler.mean(records.ladder[:, e, k]) for e in range(len(EMITTERS))]
        acc = [resampler.mean(reached(records.ladder[:, e, k], 0.5)) for e in range(len(EMITTERS))]
        rungs.append(RungDraws(name, iou[0], acc[0], tuple(iou[1:]), tuple(acc[1:])))
    return tuple(rungs)


def gaps(ladder: Sequence[RungDraws]) -> tuple[Gap, ...]:
    """The named differences of rungs; see :class:`Gap`."""
    at = {r.name: r for r in ladder}
    steps = (
        ("classification", "predicted_class", "gt_class"),
        ("ranking", "gt_class", "one_to_one"),
        ("ranking_at_centre", "gt_class", "gt_centre"),
    )
    found = [
        Gap(
            name, *(getattr(at[b], kind).minus(getattr(at[a], kind)).estimate() for kind in ("iou", "acc", "skill_acc"))
        )
        for name, a, b in steps
    ]
    last = at["one_to_one"]
    rest = (last.iou.below_one(), last.acc.below_one(), last.skill_acc.below_one())
    return (*found, Gap("regression", *(d.estimate() for d in rest)))


def plain(records: ObjectRecords, classes: Sequence[str], resampler: Resampler) -> Plain:
    """The plain metric over all objects and by class."""
    best, scored, centre = (records.ladder[:, 0, RUNGS.index(n)] for n in ("oracle", "gt_class", "gt_centre"))
    own = []
    for k, name in enumerate(classes):
        mine = records.label == k
        figures = (best, reached(best, 0.5), reached(scored, 0.5), centre)
        own.append(ClassReading(name, int(mine.sum()), *(resampler.estimate(f, mine) for f in figures)))
    acc_30, acc_50, acc_70 = (resampler.estimate(reached(best, t)) for t in (0.3, 0.5, 0.7))
    histogram = np.histogram(best, bins=HISTOGRAM_BINS, range=(0.0, 1.0))[0]
    return Plain(resampler.estimate(best), acc_30, acc_50, acc_70, tuple(histogram.tolist()), tuple(own))


def cell_curve(records: ObjectRecords, resampler: Resampler) -> tuple[CellPoint, ...]:
    """The oracle against the number of cells; numbers that no image has are left out."""
    points = []
    for k, cells in enumerate(CELL_COUNTS):
        (iou, acc), (floor_iou, floor_acc) = (
            [resampler.mean(records.curve[:, who, k, what]) for what in (0, 1)] for who in (0, 1)
        )
        if iou.n:
            drawn = (iou, acc, floor_iou, floor_acc, skill_of(iou, floor_iou), skill_of(acc, floor_acc))
            points.append(CellPoint(cells, *(d.estimate() for d in drawn)))
    return tuple(points)


def wrong_channel(records: ObjectRecords, resampler: Resampler) -> tuple[WrongChannel, ...]:
    """The control at every rung of one channel; empty where there is one class."""
    if np.isnan(records.wrong).all():
        return ()
    rows = []
    for k, name in enumerate(CHANNEL_RUNGS):
        own, other = (resampler.mean(x) for x in (records.ladder[:, 0, k + 1], records.wrong[:, k]))
        rows.append(WrongChannel(name, own.estimate(), other.estimate(), own.minus(other).estimate()))
    return tuple(rows)


def mirror(records: ObjectRecords, classes: int, resampler: Resampler) -> Mirror:
    """The mirror test over all objects."""
    confusion = np.bincount(records.label * classes + records.mirror, minlength=classes**2).reshape(classes, classes)
    each, total = confusion.sum(axis=1), int(confusion.sum())
    right = confusion.diagonal()[each > 0] / each[each > 0]
    return Mirror(
        resampler.estimate(records.mirror == records.label),
        float(right.mean()) if len(right) else None,
        1 / classes,
        float(each.max()) / total if total else None,
        tuple(tuple(row) for row in confusion.tolist()),
    )
