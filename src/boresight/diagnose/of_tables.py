"""What can be said of detections that come some images at a time: that of :mod:`~boresight.diagnose.of_files`.

Boxes are compared while their images are here. Of a detection 46 bytes are kept, of a truth 8, of an image a byte for
every replicate of the bootstrap; the rest is done class by class. The figures are those of everything at once (sums of
scores differ by rounding). Whether all boxes lie off the same way is asked of images drawn by chance where there are
more than 200,000 boxes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boresight.data.box_tables import Images
from boresight.diagnose.attribution import REPAIRS, attributed
from boresight.diagnose.drawn_images import DrawnImages
from boresight.diagnose.gains import AtThreshold, are_loose
from boresight.diagnose.misplaced import misplaced
from boresight.diagnose.of_files import NEAR, FileDiagnosis, Judged, diagnosis_of
from boresight.diagnose.ranking import reliability, score_bins
from boresight.diagnose.tide import ErrorKinds, error_kinds
from boresight.diagnose.tide_gain import repaired_ap
from boresight.evaluate.average_precision import LIMIT, mean_ap, steps_of
from boresight.evaluate.bootstrap import divide, image_draws
from boresight.evaluate.box_match import Overlaps, best_truth, match_boxes, overlaps
from boresight.evaluate.box_set import BoxSet
from boresight.evaluate.box_threshold import best_f_from
from boresight.evaluate.coco_parts import CocoParts, as_bits
from boresight.evaluate.column import Column
from boresight.evaluate.detection import CocoFigures
from boresight.evaluate.estimate import Drawn
from boresight.evaluate.pairs import Bools, Floats, Ints

BINS = 10
AT_THREE_QUARTERS = 5
"""Place of the IoU 0.75 in :data:`~boresight.evaluate.coco_parts.IOUS`."""
RESCORED: tuple[tuple[str, float | None, tuple[float, ...]], ...] = (
    ("near", None, (0.5, 0.75)),
    ("everywhere", 0.0, (0.5,)),
)
"""Scores that say how well a box near an object fits: name, score of the others (None: their own), IoUs of interest."""
MATCHES = ("now", "75", *(f"{name} {iou}" for name, _, ious in RESCORED for iou in ious))
"""What hits and false alarms are kept of: two bits of ``flags`` each, in this order."""


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
        drawn: keeps some of the images with their boxes.

    Attributes:
        coco: COCO's figures of the same images.
    """

    classes: Sequence[str]
    coco: CocoParts = field(init=False)
    calibration: _Calibration = field(init=False)
    drawn: DrawnImages = field(default_factory=DrawnImages)
    _columns: dict[str, Column] = field(default_factory=lambda: defaultdict(Column), init=False)
    _images: int = field(default=0, init=False)
    _truths: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.coco, self.calibration = CocoParts(self.classes), _Calibration.of(len(self.classes))

    def add(self, part: Images) -> None:
        """Take in some images, whose ids are above all that came before."""
        self.drawn.add(part)
        boxes = _boxes(part)
        pairs = overlaps(boxes)
        counting = pairs.select(boxes.counted[pairs.truth])
        own = boxes.found_label[counting.found] == boxes.truth_label[counting.truth]
        fit = best_truth(counting.select(own), len(boxes.scores))[1]
        self.calibration.add(boxes.found_label, boxes.scores, fit)
        best = boxes.best(LIMIT)
        self._keep_beyond(boxes, pairs)
        self._keep_best(best, pairs if best is boxes else overlaps(best))
        self._put(
            truth_image=(boxes.truth_image + self._images).astype(np.int32),
            truth_label=boxes.truth_label.astype(np.min_scalar_type(len(self.classes))),
            crowd=boxes.crowd,
        )
        self._images, self._truths = self._images + boxes.images, self._truths + len(boxes.crowd)

    def _put(self, **columns: NDArray[Any]) -> None:
        for name, values in columns.items():
            self._columns[name].add(values)

    def _keep_beyond(self, boxes: BoxSet, pairs: Overlaps) -> None:
        """Of the detections that AP does not look at, whether they are hits or false alarms, and where."""
        beyond = ~boxes.among_best(LIMIT)
        if beyond.any():
            match = match_boxes(boxes, 0.5, pairs)
            self._put(
                beyond_score=boxes.scores[beyond],
                beyond_image=(boxes.found_image[beyond] + self._images).astype(np.int32),
                beyond_hit=match.hit[beyond],
                beyond_false=match.false[beyond],
            )

    def _keep_best(self, best: BoxSet, pairs: Overlaps) -> None:
        """Of the detections that AP looks at their errors, and what they are by other scores."""
        hits, false = self.coco.add(best, pairs)
        errors = error_kinds(best, pairs=pairs)
        fit = best_truth(pairs.select(best.counted[pairs.truth]), len(best.scores))[1]
        flags = [errors.hit, errors.false, hits[AT_THREE_QUARTERS], false[AT_THREE_QUARTERS]]
        for _, others, ious in RESCORED:
            told = best.rescored(_rescored(fit, best.scores, others))
            for iou in ious:
                match = match_boxes(told, iou, pairs)
                flags += [match.hit, match.false]
        self._put(
            image=(best.found_image + self._images).astype(np.int32),
            fit=fit,
            kind=errors.kind.astype(np.int8),
            finds=np.where(errors.finds < 0, -1, errors.finds + self._truths).astype(np.int32),
            flags=as_bits(np.stack(flags)),
            unfound=errors.unfound,
            missed=errors.missed,
        )

    def _flags(self, name: str) -> tuple[Bools, Bools]:
        """Hits and false alarms ``[D]`` of one of :data:`MATCHES`."""
        flags, place = self._columns["flags"].whole(), 2 * MATCHES.index(name)
        return (flags >> place & 1).astype(np.bool_), (flags >> place + 1 & 1).astype(np.bool_)

    def diagnosis(self, *, threshold: float | None, replicates: int, seed: int) -> FileDiagnosis:
        """Say what is the matter; nothing can be added afterwards. See :func:`diagnose_parts`."""
        best_at, counts = self._counts(threshold)
        best = self._without_boxes()
        weights = image_draws(best.images, replicates, seed)
        n = int(best.counted.sum())
        drawn = {name: _drawn(_f1(rows, weights), n) for name, rows in counts.items()}
        drawn |= {name: _drawn(values, n) for name, values in self._by_scores(best, weights).items()}
        errors = ErrorKinds(
            self._columns["kind"].whole(),
            *self._flags("now"),
            *(self._columns[name].whole() for name in ("finds", "unfound", "missed")),
        )
        beyond = len(self._columns["beyond_score"].whole())
        told = attributed(
            *(best, errors, repaired_ap(best, errors, len(self.classes), REPAIRS, weights), self.classes),
            beyond=beyond,
            iou=0.5,
            background=0.1,
        )
        loose = are_loose(told.drawn["AP"], drawn["75"]) and are_loose(drawn["near 0.5"], drawn["near 0.75"])
        curves = {name: self.calibration.curve(slice(k, k + 1)) for k, name in enumerate(self.classes)}
        judged = Judged(
            errors=told,
            near_score=drawn["near 0.5"],
            score_everywhere=drawn["everywhere 0.5"],
            ap=self._over_ious(best, weights) if loose else None,
            threshold=AtThreshold(threshold, best_at, drawn.get("f1 given"), drawn["f1 best"]),
            emitted=len(best.scores) + beyond,
            calibration=self.calibration.curve(),
            calibration_by_class={name: curve for name, curve in curves.items() if curve is not None},
            off=misplaced(_boxes(self.drawn.images()), len(self.classes), replicates=replicates, seed=seed),
        )
        return diagnosis_of(judged, self.classes)

    def _counts(self, threshold: float | None) -> tuple[float, dict[str, Ints]]:
        """The threshold of the best F1, and the counts of each image there and at the one that is given."""
        hit, false = self._flags("now")
        found = [self.coco.scores.whole(), self._columns["image"].whole(), hit, false]
        if len(self._columns["beyond_score"].whole()):
            more = (self._columns[f"beyond_{name}"].whole() for name in ("score", "image", "hit", "false"))
            found = [np.concatenate(pair) for pair in zip(found, more, strict=True)]
        score, image, hit, false = found
        truth = self._columns["truth_image"].whole()[~self._columns["crowd"].whole()]
        truths = np.bincount(truth, minlength=self._images)
        best = best_f_from(score, hit, false, len(truth))

        def at(least: float) -> Ints:
            tp, fp = (np.bincount(image[of & (score >= least)], minlength=self._images) for of in (hit, false))
            return np.stack((tp, fp, truths - tp), axis=1)

        given = {} if threshold is None else {"f1 given": at(threshold)}
        return best, {"f1 best": at(best), **given}

    def _without_boxes(self) -> BoxSet:
        """The detections that AP looks at, in their ranks; boxes, cells and what else needs images is gone."""
        score = self.coco.scores.whole()
        rank: NDArray[Any] = np.empty(len(score), np.int32)
        rank[np.argsort(-score, kind="stable")] = np.arange(len(score), dtype=np.int32)
        return BoxSet(
            images=self._images,
            truth_box=np.zeros((0, 4)),
            truth_image=self._columns["truth_image"].whole(),
            truth_object=np.zeros(0, np.int64),
            truth_label=self._columns["truth_label"].whole(),
            crowd=self._columns["crowd"].whole(),
            found_box=np.zeros((0, 4)),
            found_image=self._columns["image"].whole(),
            found_label=self.coco.label.whole(),
            scores=score,
            cell=np.zeros(0, np.int64),
            open=np.zeros(0, np.bool_),
            rank=rank,
        )

    def _by_scores(self, best: BoxSet, weights: NDArray[np.uint8]) -> dict[str, Floats]:
        """AP75, and AP by the score that each of :data:`RESCORED` gives, under each row of ``weights``."""
        classes, fit = len(self.classes), self._columns["fit"].take()
        told = {"75": mean_ap(steps_of(best, *self._flags("75"), classes), weights)}
        for name, others, ious in RESCORED:
            scores = _rescored(fit, best.scores, others)
            for iou in ious:
                steps = steps_of(best, *self._flags(f"{name} {iou}"), classes, scores)
                told[f"{name} {iou}"] = mean_ap(steps, weights)
        return told

    def _over_ious(self, best: BoxSet, weights: NDArray[np.uint8]) -> Drawn:
        """AP over the ten IoUs."""
        steps = (steps_of(best, hits, false, len(self.classes)) for hits, false in self.coco.by_iou())
        return _drawn(np.mean([mean_ap(of_iou, weights) for of_iou in steps], axis=0), int(best.counted.sum()))


def _boxes(part: Images) -> BoxSet:
    return BoxSet.of_arrays(
        part.image_ids,
        (part.truth_box, part.truth_image, part.truth_label),
        (part.found_box, part.found_image, part.found_label),
        part.score,
        crowd=part.crowd,
    )


def _rescored(fit: Floats, scores: Floats, others: float | None) -> Floats:
    """How well a detection near an object fits it, and the score of ``others``: their own where that is None."""
    return np.where(fit >= NEAR, fit, scores if others is None else others)


def _drawn(values: Floats, n: int) -> Drawn:
    """A figure under the rows of :func:`~boresight.evaluate.bootstrap.image_draws`."""
    return Drawn(float(values[0]), values[1:], n)


def _f1(counts: Ints, weights: NDArray[np.uint8]) -> Floats:
    """``[R]`` of counts ``[N, 3]`` under each row of ``weights [R, N]``."""
    each = counts.astype(np.float64)
    tp, fp, fn = np.array([row.astype(np.float64) @ each for row in weights]).T
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
    coco = collected.coco.figures()
    return collected.diagnosis(threshold=threshold, replicates=replicates, seed=seed), coco
