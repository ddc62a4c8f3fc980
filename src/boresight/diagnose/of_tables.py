"""What can be said of detections that come some images at a time: that of :mod:`~boresight.diagnose.of_files`.

Boxes are compared while their images are here. Of a detection some 60 bytes are kept, of a truth 15; the bootstrap
takes its replicates fifty at a time. The figures are those of everything at once (sums of scores differ by rounding).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boresight.data.box_tables import Images
from boresight.diagnose.attribution import REPAIRS, attributed
from boresight.diagnose.gains import AtThreshold, are_loose
from boresight.diagnose.of_files import NEAR, FileDiagnosis, Judged, diagnosis_of
from boresight.diagnose.ranking import reliability, score_bins
from boresight.diagnose.tide import ErrorKinds, error_kinds
from boresight.diagnose.tide_gain import repaired_ap
from boresight.evaluate.average_precision import LIMIT, ClassSteps, mean_ap, steps_of
from boresight.evaluate.bootstrap import divide, weight_blocks
from boresight.evaluate.box_match import BoxMatch, Overlaps, best_truth, match_boxes, overlaps
from boresight.evaluate.box_set import BoxSet
from boresight.evaluate.box_threshold import best_f_from
from boresight.evaluate.coco_parts import CocoParts
from boresight.evaluate.detection import CocoFigures
from boresight.evaluate.estimate import Drawn
from boresight.evaluate.pairs import Floats, Ints

BINS = 10
AT_THREE_QUARTERS = 5
"""Place of the IoU 0.75 in :data:`~boresight.evaluate.coco_parts.IOUS`."""
RESCORED: tuple[tuple[str, float | None, tuple[float, ...]], ...] = (
    ("near", None, (0.5, 0.75)),
    ("everywhere", 0.0, (0.5,)),
)
"""Scores that say how well a box near an object fits: name, score of the others (None: their own), IoUs of interest."""


@dataclass
class _Calibration:
    """Sums a class and bin of scores: detections, their scores, and how well they fit."""

    count: Floats
    told: Floats
    reached: Floats

    @classmethod
    def of(cls, classes: int) -> _Calibration:
        return cls(*(np.zeros((classes, BINS)) for _ in range(3)))

    def add(self, label: Ints, score: Floats, fit: Floats) -> None:
        place = label * BINS + score_bins(score, BINS)
        for total, values in ((self.count, None), (self.told, score), (self.reached, fit)):
            total += np.bincount(place, values, total.size).reshape(total.shape)

    def curve(self, rows: slice = slice(None)) -> dict[str, Any] | None:
        """As :func:`~boresight.diagnose.ranking.calibration` tells it, of some classes together."""
        return reliability(*(total[rows].sum(axis=0) for total in (self.count, self.told, self.reached)))


@dataclass
class Parts:
    """Collects images.

    Args:
        classes: names.

    Attributes:
        coco: COCO's figures of the same images.
    """

    classes: Sequence[str]
    coco: CocoParts = field(init=False)
    calibration: _Calibration = field(init=False)
    _columns: dict[str, list[NDArray[Any]]] = field(default_factory=dict, init=False)
    _images: int = field(default=0, init=False)
    _truths: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.coco, self.calibration = CocoParts(self.classes), _Calibration.of(len(self.classes))

    def add(self, part: Images) -> None:
        """Take in some images, whose ids are above all that came before."""
        boxes = BoxSet.of_arrays(
            part.image_ids,
            (part.truth_box, part.truth_image, part.truth_label),
            (part.found_box, part.found_image, part.found_label),
            part.score,
            crowd=part.crowd,
        )
        pairs = overlaps(boxes)
        counting = pairs.select(boxes.counted[pairs.truth])
        own = boxes.found_label[counting.found] == boxes.truth_label[counting.truth]
        fit = best_truth(counting.select(own), len(boxes.scores))[1]
        self.calibration.add(boxes.found_label, boxes.scores, fit)
        best = boxes.best(LIMIT)
        self._keep_all(boxes, match_boxes(boxes, 0.5, pairs))
        self._keep_best(best, pairs if best is boxes else overlaps(best))
        self._images, self._truths = self._images + boxes.images, self._truths + len(boxes.crowd)

    def _put(self, **columns: NDArray[Any]) -> None:
        for name, values in columns.items():
            self._columns.setdefault(name, []).append(values)

    def _keep_all(self, boxes: BoxSet, match: BoxMatch) -> None:
        """Of every detection whether it is a hit or a false alarm, and where; of every truth its class."""
        self._put(
            all_score=boxes.scores,
            all_image=(boxes.found_image + self._images).astype(np.int32),
            all_hit=match.hit,
            all_false=match.false,
            truth_image=(boxes.truth_image + self._images).astype(np.int32),
            truth_label=boxes.truth_label.astype(np.int32),
            crowd=boxes.crowd,
        )

    def _keep_best(self, best: BoxSet, pairs: Overlaps) -> None:
        """Of the detections that AP looks at their errors, and what they are by other scores."""
        hits, false = self.coco.add(best, pairs)
        errors = error_kinds(best, pairs=pairs)
        fit = best_truth(pairs.select(best.counted[pairs.truth]), len(best.scores))[1]
        for name, others, ious in RESCORED:
            told = best.rescored(np.where(fit >= NEAR, fit, best.scores if others is None else others))
            for iou in ious:
                match = match_boxes(told, iou, pairs)
                self._put(**{f"{name} {iou} hit": match.hit, f"{name} {iou} false": match.false})
        self._put(
            score=best.scores,
            image=(best.found_image + self._images).astype(np.int32),
            label=best.found_label.astype(np.int32),
            fit=fit,
            kind=errors.kind.astype(np.int8),
            finds=np.where(errors.finds < 0, -1, errors.finds + self._truths).astype(np.int32),
            hit=errors.hit,
            false=errors.false,
            unfound=errors.unfound,
            missed=errors.missed,
            **{"75 hit": hits[AT_THREE_QUARTERS], "75 false": false[AT_THREE_QUARTERS]},
        )

    def _column(self, name: str) -> NDArray[Any]:
        """A whole column, whose parts are let go."""
        return np.concatenate(self._columns.pop(name))

    def diagnosis(self, *, threshold: float | None, replicates: int, seed: int) -> FileDiagnosis:
        """Say what is the matter; nothing can be added afterwards. See :func:`diagnose_parts`."""
        emitted, best_at, counts = self._counts(threshold)
        best = self._without_boxes()
        steps = {"now": self._steps(best, "75"), **self._rescored_steps(best)}
        errors = ErrorKinds(*(self._column(n) for n in ("kind", "hit", "false", "finds", "unfound", "missed")))
        figures: dict[str, list[Floats]] = {name: [] for name in (*steps, *counts)}
        ap: list[Floats] = []
        for weights in chain([np.ones((1, best.images))], weight_blocks(best.images, replicates, seed)):
            ap.append(repaired_ap(best, errors, len(self.classes), REPAIRS, weights))
            for name, of_class in steps.items():
                figures[name].append(mean_ap(of_class, weights))
            for name, rows in counts.items():
                figures[name].append(_f1(rows, weights))
        n = int(best.counted.sum())
        drawn = {name: Drawn(float(v[0][0]), np.concatenate(v[1:] or [np.zeros(0)]), n) for name, v in figures.items()}
        told = attributed(
            *(best, errors, np.concatenate(ap, axis=-1), self.classes),
            beyond=emitted - len(best.scores),
            iou=0.5,
            background=0.1,
        )
        loose = are_loose(told.drawn["AP"], drawn["now"]) and are_loose(drawn["near 0.5"], drawn["near 0.75"])
        curves = {name: self.calibration.curve(slice(k, k + 1)) for k, name in enumerate(self.classes)}
        judged = Judged(
            errors=told,
            near_score=drawn["near 0.5"],
            score_everywhere=drawn["everywhere 0.5"],
            ap=self._over_ious(best, replicates, seed) if loose else None,
            threshold=AtThreshold(threshold, best_at, drawn.get("f1 given"), drawn["f1 best"]),
            emitted=emitted,
            calibration=self.calibration.curve(),
            calibration_by_class={name: curve for name, curve in curves.items() if curve is not None},
        )
        return diagnosis_of(judged, self.classes)

    def _counts(self, threshold: float | None) -> tuple[int, float, dict[str, Ints]]:
        """How many detections there are, the threshold of the best F1, and the counts of each image there and here."""
        score, image, hit, false = (self._column(f"all_{name}") for name in ("score", "image", "hit", "false"))
        truth = np.concatenate(self._columns["truth_image"])[~np.concatenate(self._columns["crowd"])]
        truths = np.bincount(truth, minlength=self._images)
        best = best_f_from(score, hit, false, len(truth))

        def at(least: float) -> Ints:
            tp, fp = (np.bincount(image[of & (score >= least)], minlength=self._images) for of in (hit, false))
            return np.stack((tp, fp, truths - tp), axis=1)

        given = {} if threshold is None else {"f1 given": at(threshold)}
        return len(score), best, {"f1 best": at(best), **given}

    def _without_boxes(self) -> BoxSet:
        """The detections that AP looks at, in their ranks; boxes, cells and what else needs images is gone."""
        score = self._column("score")
        rank = np.empty(len(score), np.int64)
        rank[np.argsort(-score, kind="stable")] = np.arange(len(score))
        return BoxSet(
            images=self._images,
            truth_box=np.zeros((0, 4)),
            truth_image=self._column("truth_image"),
            truth_object=np.zeros(0, np.int64),
            truth_label=self._column("truth_label").astype(np.int64),
            crowd=self._column("crowd"),
            found_box=np.zeros((0, 4)),
            found_image=self._column("image"),
            found_label=self._column("label").astype(np.int64),
            scores=score,
            cell=np.zeros(0, np.int64),
            open=np.zeros(0, np.bool_),
            rank=rank,
        )

    def _steps(self, boxes: BoxSet, name: str) -> list[ClassSteps]:
        return steps_of(boxes, self._column(f"{name} hit"), self._column(f"{name} false"), len(self.classes))

    def _rescored_steps(self, best: BoxSet) -> dict[str, list[ClassSteps]]:
        """Steps by the score that each of :data:`RESCORED` gives."""
        fit = self._column("fit")
        steps: dict[str, list[ClassSteps]] = {}
        for name, others, ious in RESCORED:
            told = _with_scores(best, np.where(fit >= NEAR, fit, best.scores if others is None else others))
            steps |= {f"{name} {iou}": self._steps(told, f"{name} {iou}") for iou in ious}
        return steps

    def _over_ious(self, best: BoxSet, replicates: int, seed: int) -> Drawn:
        """AP over the ten IoUs."""
        values, samples = [], []
        for hits, false in self.coco.by_iou():
            steps = steps_of(best, hits, false, len(self.classes))
            values.append(float(mean_ap(steps, np.ones((1, best.images)))[0]))
            blocks = [mean_ap(steps, weights) for weights in weight_blocks(best.images, replicates, seed)]
            samples.append(np.concatenate(blocks or [np.zeros(0)]))
        return Drawn(sum(values) / len(values), np.mean(samples, axis=0), int(best.counted.sum()))


def _with_scores(best: BoxSet, scores: Floats) -> BoxSet:
    """:meth:`BoxSet.rescored`, in less memory: ranks alone are sorted."""
    rank = np.empty(len(scores), np.int64)
    order = np.argsort(best.rank)
    rank[order[np.argsort(-scores[order], kind="stable")]] = np.arange(len(scores))
    return replace(best, scores=scores, rank=rank)


def _f1(counts: Ints, weights: Floats) -> Floats:
    tp, fp, fn = (weights @ counts[:, k].astype(np.float64) for k in range(3))
    return divide(2 * tp, 2 * tp + fp + fn)


def diagnose_parts(
    parts: Iterable[Images],
    classes: Sequence[str],
    *,
    threshold: float | None = None,
    replicates: int = 200,
    seed: int = 0,
) -> tuple[FileDiagnosis, CocoFigures]:
    """Diagnose images that come in parts, by rising id, and judge them by COCO's figures.

    Args:
        parts: see :class:`~boresight.data.box_tables.BoxTables`.
        classes, threshold, replicates, seed: as of :func:`~boresight.diagnose.of_files.diagnose_boxes`.
    """
    collected = Parts(classes)
    for part in parts:
        collected.add(part)
    return collected.diagnosis(threshold=threshold, replicates=replicates, seed=seed), collected.coco.figures()
