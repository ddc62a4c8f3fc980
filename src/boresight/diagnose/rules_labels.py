"""Rules over labels and settings: class ids, classes that changed places, and keys that nothing reads."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from boresight.core.emission import Missing
from boresight.diagnose.evidence import ClassLook, Labels, SplitLabels, UnreadKey
from boresight.diagnose.finding import Finding
from boresight.diagnose.plan import Plan
from boresight.diagnose.rule import Rule

MANY = 50
"""Objects from which it is odd that the first class has none."""
EACH = 8
"""Objects of a class, in either split, from which its looks are compared."""
APART, TOGETHER = 2.0, 0.5
"""Mean squared distance of two classes' looks over their variances: from the first on they are different things, below
the second they are the same."""


def class_ids(labels: Labels, plan: Plan) -> list[Finding] | Missing:
    """A label has no channel; or labels are counted from 1."""
    known = [s for s in labels.splits if s.counts]
    if not known:
        return Missing("the splits that were looked at hold no label")
    count = len(labels.classes)
    found = []
    for split in known:
        low, high = min(split.counts), max(split.counts)
        outside = sum(n for label, n in split.counts.items() if not 0 <= label < count)
        shifted = low == 1 and high in (count, count - 1) and count > 1 and sum(split.counts.values()) >= MANY
        whole = set(range(1, high + 1)) == set(split.counts)
        if not outside and not (shifted and whole):
            continue
        found.append(
            Finding(
                "class-ids",
                "error" if outside else "warning",
                f"labels of `{split.name}` run from {low} to {high}, channels from 0 to {count - 1}",
                {"labels without a channel": outside, "at most": 0, "lowest label": low, "highest": high}
                | {"classes": count},
                "classes are counted from 1" if low >= 1 else "labels and class names are not of the same list",
                "subtract 1 from every label, or name every class" if low >= 1 else "name every class of the file",
                {},
                0.95 if outside else 0.6,
                "detr#108",
            )
        )
    return found


def permuted(labels: Labels, plan: Plan) -> list[Finding] | Missing:
    """A class of one split looks like another class of the training split."""
    if len(labels.classes) < 2:
        return Missing("there is one class")
    if len(labels.splits) < 2:
        return Missing("one split was looked at, two are needed")
    first, *others = labels.splits
    found, compared = [], 0
    for other in others:
        named = first.classes and other.classes and first.classes != other.classes
        if named:
            compared += 1
            found.append(_named(first, other))
            continue
        both = [k for k in first.looks if _enough(first, k) and _enough(other, k)]
        if len(both) < 2:
            continue
        compared += 1
        found += _swapped(first, other, both, labels.classes)
    return found if compared else Missing(f"fewer than two classes have {EACH} objects in both splits")


def _enough(split: SplitLabels, label: int) -> bool:
    return label in split.looks and split.looks[label].n >= EACH


def _named(first: SplitLabels, other: SplitLabels) -> Finding:
    at = next(
        (i for i, (a, b) in enumerate(zip(first.classes, other.classes, strict=False)) if a != b), len(first.classes)
    )
    names = [(s.classes[at] if at < len(s.classes) else "none") for s in (first, other)]
    return Finding(
        "classes-permuted",
        "error",
        f"class {at} is `{names[0]}` in `{first.name}` and `{names[1]}` in `{other.name}`",
        {f"classes of {first.name}": len(first.classes), f"of {other.name}": len(other.classes)},
        "each split has a list of classes of its own, in its own order",
        "read every split with the class list of the training split",
        {},
        1.0,
        "detr#108",
    )


def _swapped(first: SplitLabels, other: SplitLabels, both: list[int], names: tuple[str, ...]) -> list[Finding]:
    distance = np.array([[_distance(first.looks[a], other.looks[b]) for b in both] for a in both])
    row, column = linear_sum_assignment(distance)
    moved = [
        (int(a), int(b))
        for a, b in zip(row, column, strict=True)
        if a != b and distance[a, b] < TOGETHER and distance[a, a] > APART and distance[b, b] > APART
    ]
    if len(moved) < 2:
        return []
    a, b = moved[0]
    return [
        Finding(
            "classes-permuted",
            "error",
            f"`{names[both[a]]}` of `{first.name}` looks like `{names[both[b]]}` of `{other.name}`",
            {"classes that changed places": len(moved), "at most": 0, "distance as named": float(distance[a, a])}
            | {"as they look": float(distance[a, b])},
            "the splits were labelled or converted with class lists of different order",
            "read every split with the class list of the training split",
            {},
            0.85,
            "detr#108",
        )
    ]


def _distance(one: ClassLook, other: ClassLook) -> float:
    """Mean over the features of the squared gap over the variance; a feature that never varies counts as 5 %."""
    a, b = np.array(one.mean), np.array(other.mean)
    variance = (np.square(one.spread) + np.square(other.spread)) / 2
    return float((np.square(a - b) / np.maximum(variance, 0.05**2)).mean())


def unread_keys(unread: tuple[UnreadKey, ...], plan: Plan) -> list[Finding] | Missing:
    """A setting was given that decides nothing."""
    return [
        Finding(
            "unread-key",
            "note" if k.known else "warning",
            f"nothing reads `{k.key}`",
            {"given": k.value, "keys that nothing reads, at most": 0},
            k.why,
            "take the key out, or set what would read it" if k.known else "correct its name",
            {},
            1.0 if not k.known else 0.9,
            "detectron2#550",
        )
        for k in unread
    ]


LABEL_RULES: tuple[Rule[Labels], ...] = (
    Rule("class-ids", lambda e: e.labels, class_ids),
    Rule("classes-permuted", lambda e: e.labels, permuted),
)
UNREAD = Rule("unread-key", lambda e: e.unread, unread_keys)
