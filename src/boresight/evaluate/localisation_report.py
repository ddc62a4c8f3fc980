"""The localisation report: what its figures are."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from boresight.evaluate.box_errors import ErrorTable
from boresight.evaluate.cam_diagnostics import CamReport
from boresight.evaluate.estimate import Estimate
from boresight.evaluate.presence import PresenceAuc
from boresight.evaluate.selection import RUNGS
from boresight.evaluate.verdict import Verdict


@dataclass(frozen=True)
class ClassReading:
    """The objects of one class: the best cell of its channel (an oracle), the best-scored boxes, the centre cell."""

    name: str
    n: int
    best_iou: Estimate
    best_acc_50: Estimate
    gt_class_acc_50: Estimate
    gt_centre_iou: Estimate


@dataclass(frozen=True)
class Plain:
    """The plain metric: IoU of the best of all cells in the true class's channel. Never read it without its floors.

    ``histogram`` counts objects in 20 equal bins of IoU over [0, 1].
    """

    mean_iou: Estimate
    acc_30: Estimate
    acc_50: Estimate
    acc_70: Estimate
    histogram: tuple[int, ...]
    per_class: tuple[ClassReading, ...]


@dataclass(frozen=True)
class Floor:
    """One rung climbed by boxes of a chance floor, and the detector's skill against it."""

    name: str
    mean_iou: Estimate
    acc_50: Estimate
    skill_iou: Estimate
    skill_acc_50: Estimate


@dataclass(frozen=True)
class Rung:
    """One rung of the ladder.

    Attributes:
        name: of ``RUNGS``.
        mean_iou, acc_50: plain.
        floors: those of ``FLOORS`` that exist.
        floor_iou, floor_acc_50: the content-free floor that is highest, by name, None where there is none.
        skill_iou, skill_acc_50: against these.
    """

    name: str
    mean_iou: Estimate
    acc_50: Estimate
    floors: tuple[Floor, ...]
    floor_iou: str | None
    floor_acc_50: str | None
    skill_iou: Estimate
    skill_acc_50: Estimate


@dataclass(frozen=True)
class Gap:
    """What one step costs: the difference of two rungs, in mean IoU, accuracy at 0.5, and in skill at 0.5.

    ``classification``: the class given less the class predicted. ``ranking``: any cells, one to one, less the
    best-scored ones. ``ranking_at_centre``: the cell at the centre less the best-scored ones; no overlap chooses, so it
    does not grow with the number of cells. ``regression``: 1 less any cells, one to one.
    """

    name: str
    mean_iou: Estimate
    acc_50: Estimate
    skill_acc_50: Estimate


@dataclass(frozen=True)
class CellPoint:
    """The oracle over ``cells`` cells drawn at random from all, beside random boxes in the same number."""

    cells: int
    mean_iou: Estimate
    acc_50: Estimate
    floor_mean_iou: Estimate
    floor_acc_50: Estimate
    skill_iou: Estimate
    skill_acc_50: Estimate


@dataclass(frozen=True)
class WrongChannel:
    """Mean IoU of the same objects in their own channel and in that of another class; 0 apart: boxes ignore class."""

    rung: str
    own: Estimate
    other: Estimate
    difference: Estimate


@dataclass(frozen=True)
class Mirror:
    """The mirror test: true boxes, predicted class (the highest mean score inside).

    Attributes:
        top_1: share of objects given their class.
        balanced: mean over classes of that share.
        chance: 1 / classes.
        majority: what always saying the most frequent class gets.
        confusion: ``[C][C]`` counts, truth by prediction.
    """

    top_1: Estimate
    balanced: float | None
    chance: float
    majority: float | None
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class LocalisationReport:
    """How well boxes fit when the class is given, with everything needed to trust the figure.

    ``objects`` counts truths that count; ``presence_from`` says whether presence was emitted or is the best score.
    """

    images: int
    objects: int
    classes: tuple[str, ...]
    plain: Plain
    ladder: tuple[Rung, ...]
    gaps: tuple[Gap, ...]
    oracle_against_cells: tuple[CellPoint, ...]
    wrong_channel: tuple[WrongChannel, ...]
    mirror: Mirror
    cam: CamReport | None
    presence: PresenceAuc
    presence_from: str
    errors: tuple[ErrorTable, ...]
    verdict: Verdict

    def rung(self, name: str) -> Rung:
        """One rung by name."""
        return self.ladder[RUNGS.index(name)]

    def to_dict(self) -> dict[str, Any]:
        """The report for JSON; None where undefined, never NaN."""
        return asdict(self)
