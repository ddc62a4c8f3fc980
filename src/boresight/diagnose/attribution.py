"""Where the AP of any detector goes: what each kind of error costs, how sure that is, and how far costs add up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from boresight.diagnose.tide import KINDS, MISS, ErrorKinds, error_kinds
from boresight.diagnose.tide_gain import FALSE_NEGATIVES, FALSE_POSITIVES, NOTHING, Repair, repaired_ap
from boresight.evaluate.average_precision import LIMIT
from boresight.evaluate.bootstrap import divide, image_weights
from boresight.evaluate.box_set import BoxSet
from boresight.evaluate.estimate import Drawn, Estimate
from boresight.evaluate.pairs import Floats, Ints

SPECIAL = ("FalsePos", "FalseNeg")
EVERY = range(len(KINDS))
REPAIRS = (
    *(NOTHING, FALSE_POSITIVES, FALSE_NEGATIVES),
    *(Repair.of(k) for k in EVERY),
    *(Repair.of(*(other for other in EVERY if other != k)) for k in EVERY),
)
"""What is made true in turn: nothing, the special errors, each kind alone, and all but each."""
WORTH_SAYING = 5e-4
"""AP. Half of a tenth of a point: below that two figures are printed alike."""


@dataclass(frozen=True, slots=True)
class Gain:
    """What one kind of error costs, in AP from 0 to 1.

    Attributes:
        kind: one of :data:`~boresight.diagnose.tide.KINDS` or :data:`SPECIAL`.
        count: how many there are.
        alone: AP with this kind repaired and nothing else, less AP: dAP of TIDE.
        last: 1 less AP with the five other kinds repaired: what is left for this one. None for the special ones.
    """

    kind: str
    count: int
    alone: Estimate
    last: Estimate | None


@dataclass(frozen=True, slots=True)
class ClassErrors:
    """The errors of one class. A detection counts for the class that it says, a missed truth for its own.

    Attributes:
        name: of the class.
        truths: that count.
        found: detections.
        ap: 0 to 1, None without truth.
        counts: how many of each kind, in the order of :data:`~boresight.diagnose.tide.KINDS`.
        alone: how much higher *this class's* AP is with each kind repaired in all classes, None without truth. Their
            mean over the classes with truth is :attr:`Gain.alone`.
    """

    name: str
    truths: int
    found: int
    ap: float | None
    counts: tuple[int, ...]
    alone: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Attribution:
    """Where the AP goes. AP and gains are from 0 to 1, with 95 % intervals over resampled images; None without truth.

    Attributes:
        iou, background: the thresholds.
        images, truths: how many; crowds are no truths.
        found: detections looked at, the 100 best of each class in each image.
        beyond: detections that are not among them.
        hits: detections that took a truth.
        excused: detections that are neither hit nor error.
        ap: AP at ``iou``, that of COCO.
        kinds: the six kinds.
        special: tidecv's special errors: no false alarm, and nothing unfound.
        sum_alone: the sum of the gains of the six kinds, each repaired alone.
        together: the gain of repairing all six, which leaves an AP of 1.
        order: how much this depends on the order of repairs, in words; empty where it does not.
        per_class: every class, those without truth or detections included.
        drawn: ``AP`` and the gain of each kind alone, with their replicates.
    """

    iou: float
    background: float
    images: int
    truths: int
    found: int
    beyond: int
    hits: int
    excused: int
    ap: Estimate
    kinds: tuple[Gain, ...]
    special: tuple[Gain, ...]
    sum_alone: float | None
    together: float | None
    order: str
    per_class: tuple[ClassErrors, ...]
    drawn: dict[str, Drawn] = field(default_factory=dict, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON without the replicates; kinds and classes by name."""
        plain = asdict(replace(self, drawn={}))
        del plain["drawn"]
        for name in ("kinds", "special"):
            plain[name] = {gain.pop("kind"): gain for gain in plain[name]}
        for row in plain["per_class"]:
            row |= {name: dict(zip(KINDS, row[name], strict=True)) for name in ("counts", "alone")}
        plain["per_class"] = {row.pop("name"): row for row in plain["per_class"]}
        return plain


def attribute_errors(
    boxes: BoxSet,
    classes: Sequence[str],
    *,
    iou: float = 0.5,
    background: float = 0.1,
    replicates: int = 200,
    seed: int = 0,
) -> Attribution:
    """Say what each kind of error of a detector costs.

    Args:
        boxes: truth and detections, pixel frame.
        classes: the name of each label.
        iou, background: see :func:`~boresight.diagnose.tide.error_kinds`.
        replicates, seed: of the bootstrap by image; 0 leaves intervals out. Nothing is matched again for them.

    Raises ``ValueError`` for thresholds out of range, labels that are no class, boxes or scores that are not finite.
    """
    boxes.check_finite()
    for owner, labels in (("a truth", boxes.truth_label), ("a detection", boxes.found_label)):
        _check_labels(owner, labels, len(classes))
    best = boxes.best(LIMIT)
    errors = error_kinds(best, iou=iou, background=background)
    weights = np.concatenate((np.ones((1, best.images)), image_weights(best.images, replicates, seed)))
    ap = repaired_ap(best, errors, len(classes), REPAIRS, weights)
    beyond = len(boxes.scores) - len(best.scores)
    return attributed(best, errors, ap, classes, beyond=beyond, iou=iou, background=background)


def attributed(
    best: BoxSet,
    errors: ErrorKinds,
    ap: Floats,
    classes: Sequence[str],
    *,
    beyond: int,
    iou: float,
    background: float,
) -> Attribution:
    """:func:`attribute_errors` once it is known which error everything is, and what each of :data:`REPAIRS` does.

    Args:
        best: the detections that AP looks at; their boxes are not.
        errors: of these.
        ap: ``[P, C, 1 + R]`` of :func:`~boresight.diagnose.tide_gain.repaired_ap`, first under the data.
        classes, iou, background: as there.
        beyond: detections that AP does not look at.
    """
    counts = _counts(best, errors, len(classes))
    base, false_pos, false_neg, *rest = (_drawn(row) for row in ap)
    alone, last = rest[: len(KINDS)], rest[len(KINDS) :]
    one = Drawn(1.0, np.ones(ap.shape[-1] - 1), best.images)
    kinds = tuple(
        Gain(kind, int(n), _gain(alone[k], base, n), _gain(one, last[k], n))
        for k, (kind, n) in enumerate(zip(KINDS, counts.sum(axis=0), strict=True))
    )
    totals = (int(errors.false.sum()), int(errors.unfound.sum()))
    special = tuple(
        Gain(kind, n, _gain(value, base, n), None)
        for kind, n, value in zip(SPECIAL, totals, (false_pos, false_neg), strict=True)
    )
    sums = None if np.isnan(base.value) else sum(g.alone.value or 0.0 for g in kinds)
    return Attribution(
        iou=iou,
        background=background,
        images=best.images,
        truths=int(best.counted.sum()),
        found=len(best.scores),
        beyond=beyond,
        hits=int(errors.hit.sum()),
        excused=int((~errors.hit & (errors.kind < 0)).sum()),
        ap=_estimate(base, int(best.counted.sum())),
        kinds=kinds,
        special=special,
        sum_alone=sums,
        together=None if sums is None else 1 - base.value,
        order="" if sums is None else _order(kinds, sums, 1 - base.value),
        per_class=_per_class(best, classes, counts, ap[..., 0]),
        drawn={"AP": base} | {kind: alone[k].minus(base) for k, kind in enumerate(KINDS)},
    )


def _check_labels(owner: str, labels: Ints, classes: int) -> None:
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(f"{owner} has labels {int(labels.min())}..{int(labels.max())}, but classes holds {classes}")


def _drawn(ap: Floats) -> Drawn:
    """The mean over the classes that have truth, of ``[C, 1 + R]``: under the data, then in every replicate."""
    known = np.isfinite(ap)
    mean = divide(np.where(known, ap, 0.0).sum(axis=0), known.sum(axis=0))
    return Drawn(float(mean[0]), mean[1:], 0)


def _gain(after: Drawn, before: Drawn, count: int) -> Estimate:
    return _estimate(after.minus(before), int(count))


def _estimate(drawn: Drawn, n: int) -> Estimate:
    made = drawn.estimate()
    return Estimate(made.value, n, made.interval)


def _counts(boxes: BoxSet, errors: ErrorKinds, classes: int) -> Ints:
    """``[C, 6]`` errors of each kind by class."""
    table = np.zeros((classes, len(KINDS)), np.int64)
    wrong = errors.kind >= 0
    np.add.at(table, (boxes.found_label[wrong], errors.kind[wrong]), 1)
    table[:, MISS] = np.bincount(boxes.truth_label[errors.missed], minlength=classes)
    return table


def _per_class(boxes: BoxSet, classes: Sequence[str], counts: Ints, ap: Floats) -> tuple[ClassErrors, ...]:
    """A row a class; ``ap [P, C]`` in the order of the repairs of :func:`attribute_errors`."""
    truths = np.bincount(boxes.truth_label[boxes.counted], minlength=len(classes)).tolist()
    found = np.bincount(boxes.found_label, minlength=len(classes)).tolist()
    alone = ap[3 : 3 + len(KINDS)] - ap[0]
    return tuple(
        ClassErrors(
            name,
            truths[c],
            found[c],
            float(ap[0, c]) if truths[c] else None,
            tuple(counts[c].tolist()),
            tuple(float(x) if truths[c] else None for x in alone[:, c]),
        )
        for c, name in enumerate(classes)
    )


def _order(kinds: Sequence[Gain], sums: float, together: float) -> str:
    """What is to be said about order, where there is something to be said."""
    gaps = [abs((g.last.value or 0.0) - (g.alone.value or 0.0)) if g.last else 0.0 for g in kinds]
    if max(gaps) < WORTH_SAYING:
        return ""
    widest = kinds[int(np.argmax(gaps))]
    assert widest.last is not None
    return (
        f"The gains do not add up and depend on the order of repairs: alone the six sum to {_points(sums)} points of "
        f"AP, together they are worth {_points(together)}. {widest.kind} differs most: {_points(widest.alone.value)} "
        f"points when it is repaired first, {_points(widest.last.value)} when it is repaired last."
    )


def _points(ap: float | None) -> str:
    return f"{100 * (ap or 0.0):.1f}"
