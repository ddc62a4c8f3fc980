"""Rules over the targets of one batch, as the assigner made them."""

from __future__ import annotations

from boresight.core.emission import Missing
from boresight.diagnose.finding import Finding
from boresight.diagnose.plan import Plan
from boresight.diagnose.probe import Level, Reach, Spread
from boresight.diagnose.rule import Rule

FEW = 20
"""Objects from which shares among them are worth saying."""
RATES = (1e-6, 0.3)
"""Share of a level's cells that are positive."""
UNEVEN = 50.0
"""The most cells of one object over the median."""


def level_rates(levels: tuple[Level, ...], plan: Plan) -> list[Finding] | Missing:
    """A level without positives, or with hardly anything else."""
    if not any(level.positives for level in levels):
        return Missing("the scenes that were probed have no positive cell")
    found = []
    for level in levels:
        rate = level.positives / max(1, level.cells)
        if RATES[0] <= rate <= RATES[1]:
            continue
        starved, many = rate < RATES[0], "too many" if level.positives else "no"
        found.append(
            Finding(
                "positive-rate-of-level",
                "warning",
                f"the level of stride {level.stride:g} has {many} positive cells",
                {"positive rate": rate, "at least": RATES[0], "at most": RATES[1], "stride": level.stride},
                "no object is assigned to it" if starved else "labels cover whole stretches of the map",
                "leave the level out, or assign to it" if starved else "narrow the labels",
                plan.change({} if starved else {"target.sigma": 1.0, "assign.centre": 1.5, "assign.rule": "tal"}),
                0.8,
                "Lin et al. 2017 (focal loss), section 3",
            )
        )
    return found


def uneven(spread: Spread, plan: Plan) -> list[Finding] | Missing:
    """A few objects own almost every positive cell."""
    if plan.proposals or spread.objects < FEW:
        return Missing("cells are coarse boxes" if plan.proposals else f"{spread.objects} objects, {FEW} are needed")
    ratio = spread.most / max(spread.median, 1.0)
    if ratio <= UNEVEN:
        return []
    return [
        Finding(
            "positives-uneven",
            "note",
            "a few objects own almost all positive cells",
            {"most cells of one object over the median": ratio, "at most": UNEVEN},
            "every cell inside of an object is positive, so that large ones outweigh small ones",
            "share the weight among an object's cells, or take the best few of each",
            plan.change({"assign.rule": "tal"}),
            0.6,
            "AdelaiDet#18",
        )
    ]


def truncated(reach: Reach, plan: Plan) -> list[Finding] | Missing:
    """An image's file holds more objects than its targets: they were cut off at a number."""
    pairs = [(h, r) for h, r in zip(reach.held, reach.reached, strict=True) if h]
    if not pairs:
        return Missing("the images that were probed hold no object")
    lost = sum(h - r for h, r in pairs if h > r)
    if not lost:
        return []
    cap = max(r for _, r in pairs)
    capped = all(r == min(h, cap) for h, r in pairs)
    return [
        Finding(
            "targets-truncated",
            "error",
            f"targets hold at most {cap} objects of an image"
            if capped
            else "objects are lost on the way to the targets",
            {"objects of the files": sum(h for h, _ in pairs), "in the targets": sum(r for _, r in pairs)}
            | {"lost, at most": 0},
            "a fixed number of labels an image" if capped else "labels are dropped between file and targets",
            "raise the number of labels an image, or pack them one after the other",
            {},
            0.95 if capped and lost > 1 else 0.8,
            "YOLOX#1550",
        )
    ]


ASSIGNED_RULES = (
    Rule("positive-rate-of-level", lambda e: e.probe.levels, level_rates),
    Rule("positives-uneven", lambda e: e.probe.spread, uneven),
    Rule("targets-truncated", lambda e: e.probe.reach, truncated),
)
