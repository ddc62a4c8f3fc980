"""Rules over labels beside their image: boxes that are none, twins, and labels that lie on nothing."""

from __future__ import annotations

from boresight.core.emission import Missing
from boresight.diagnose.finding import Finding
from boresight.diagnose.images import LabelForm, Placed
from boresight.diagnose.plan import Plan
from boresight.diagnose.rule import Rule

NO_BOXES = (0.01, 0.1)
"""Share of boxes without area or outside of the image: a warning, an error."""
TWINS = 0.02
"""Share of the objects that have a twin."""
FEW = 20
"""Objects from which a share is worth saying."""
BETTER = 0.6
"""Share of the objects of which another reading fits better, surely (two standard errors below). Of the labels of four
real data sets and of made scenes it was 0.4 at the most, of labels read wrongly 0.7 and more."""
NOWHERE = 0.65
"""Share of the objects that differ from their surroundings more than the same box elsewhere, surely (two standard
errors above). Real labels had 0.76 and more, any place has 0.5."""
LESS = 0.15
"""The same share of another split less that of this one: of two real splits it was 0.05 at the most."""
SURE = 4.0
"""Standard errors of that difference."""
MANY = 40
"""Objects from which it is said that labels lie on nothing."""


def invalid(forms: tuple[LabelForm, ...], plan: Plan) -> list[Finding] | Missing:
    """Boxes without area or outside of their image."""
    found = []
    for form in forms:
        share = (form.empty + form.outside) / form.objects
        if share <= NO_BOXES[0]:
            continue
        found.append(
            Finding(
                "labels-invalid",
                "error" if share > NO_BOXES[1] else "warning",
                f"{share:.0%} of the labels of `{form.name}` are no boxes in their image",
                {"share": share, "at most": NO_BOXES[0], "without area": form.empty, "outside": form.outside},
                "x, y, width, height are read as two corners, or coordinates belong to an image of another size",
                "look at the labels of one image; say in which form and for which size coordinates are given",
                {},
                0.95,
                "COCO has x, y, width, height; VOC has two corners",
            )
        )
    return found


def twins(forms: tuple[LabelForm, ...], plan: Plan) -> list[Finding] | Missing:
    """Objects are labelled twice."""
    known = [form for form in forms if form.objects >= FEW]
    if not known:
        return Missing(f"no split that was looked at holds {FEW} objects")
    return [
        Finding(
            "labels-twice",
            "warning",
            f"{form.twins / form.objects:.0%} of the objects of `{form.name}` are labelled twice",
            {"share": form.twins / form.objects, "at most": TWINS, "objects": form.objects},
            "two files of labels were joined, or one was read twice",
            "keep one of two boxes of a class that are nearly the same: suppression drops the other as a miss",
            {},
            0.9,
            "two annotators, one file",
        )
        for form in known
        if form.twins / form.objects > TWINS
    ]


def off_objects(placed: tuple[Placed, ...], plan: Plan) -> list[Finding] | Missing:
    """Labels lie on nothing that differs from its surroundings, or would if they were read in another way."""
    best = max(placed, key=lambda each: each.elsewhere)
    return [one for each in placed if (one := _off(each, best)) is not None]


def _off(placed: Placed, best: Placed) -> Finding | None:
    other = placed.compared >= FEW and placed.better - 2 * _error(placed.better, placed.compared) > BETTER
    own, least = _error(placed.elsewhere, placed.objects), NOWHERE
    nowhere = placed.elsewhere + 2 * own < NOWHERE
    if best.elsewhere - placed.elsewhere > max(
        LESS, SURE * (own**2 + _error(best.elsewhere, best.objects) ** 2) ** 0.5
    ):
        nowhere, least = True, best.elsewhere - LESS
    nowhere = nowhere and placed.objects >= MANY
    if not other and not nowhere:
        return None
    of = "training views" if placed.name == "views" else f"`{placed.name}`"
    return Finding(
        "labels-off-objects",
        "error" if other else "warning",
        f"labels of {of} fit the image if they are read as: {placed.other}"
        if other
        else f"labels of {of} lie on nothing that differs from its surroundings",
        {"share that fits better so": placed.better, "at most": BETTER, "objects": placed.objects}
        | {"share that fits better than elsewhere": placed.elsewhere, "at least": least},
        "image and labels are not turned, scaled or read by the same rule"
        if other
        else "labels belong to other images, or lie beside their objects; or objects cannot be told by eye",
        "draw the labels of one image upon it; move pixels and labels with one map",
        {},
        0.9 if other else 0.6,
        "an image that was mirrored while its boxes were not",
    )


def _error(share: float, count: int) -> float:
    """Standard error of a share, never 0."""
    return float((max(share * (1 - share), 0.01) / max(1, count)) ** 0.5)


TRUTH_RULES = (
    Rule("labels-invalid", lambda e: e.images.labels, invalid),
    Rule("labels-twice", lambda e: e.images.labels, twins),
    Rule("labels-off-objects", lambda e: e.images.placed, off_objects),
)
