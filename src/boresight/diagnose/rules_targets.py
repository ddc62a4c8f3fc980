"""Rules over what was asked of the detector: the counts of each step, and `targets.parquet`."""

from __future__ import annotations

import numpy as np

from boresight.core.emission import Missing
from boresight.diagnose.evidence import ClassTally
from boresight.diagnose.finding import Finding
from boresight.diagnose.plan import Plan
from boresight.diagnose.rule import Rule
from boresight.diagnose.steps import Steps

FEW = 20
"""Objects from which a share is worth saying."""
WITHOUT, MOST = 0.1, 0.5
"""Share of objects that no cell stands for: a warning, an error."""
OF_CLASS = 0.4
"""The same of a single class."""
LEAST_EACH = 0.8
"""Positive cells an object; a label of one pixel a target has 1 less those that share a cell."""


def no_objects(steps: Steps, plan: Plan) -> list[Finding] | Missing:
    """No object reaches the targets: the class map is not set, or names other classes."""
    if steps.objects is None or len(steps) < 3:
        return Missing("fewer than 3 counts of objects are recorded")
    whole = steps.epoch is not None and np.nanmax(steps.epoch) >= 1
    if np.nansum(steps.objects) > 0 or not (whole or len(steps) >= FEW):
        return []
    return [
        Finding(
            "no-objects",
            "error",
            "no object has reached the targets",
            {"objects": 0, "more than": 0, "steps": len(steps)},
            "the classes of the settings are not those of the labels, or every label was dropped on the way",
            "compare class names and their numbers with the file; `boresight data check` lists what is dropped",
            {},
            0.95,
            "mmdetection#2744",
            int(steps.step[-1]),
        )
    ]


def no_positives(steps: Steps, plan: Plan) -> list[Finding] | Missing:
    """There are objects, and no cell stands for any."""
    if steps.positives is None or steps.objects is None or len(steps) < 3:
        return Missing("fewer than 3 counts of objects and positive cells are recorded")
    late = slice(max(0, len(steps) - 50), None)
    objects, positives = (float(np.nansum(v[late])) for v in (steps.objects, steps.positives))
    if not objects or positives:
        return []
    return [
        Finding(
            "no-positives",
            "error",
            "objects are there, and not one cell is trained to find them",
            {"objects of the last steps": objects, "positive cells": positives, "more than": 0},
            "the assigner's condition is never met: boxes and cells in different frames, or a limit out of reach",
            "check the boxes' form and scale; loosen the assigner",
            plan.change({"assign.rule": "tal", "assign.min_giou": -1.0}),
            0.95,
            "YOLOX#1199",
            int(steps.step[-1]),
        )
    ]


def without_positives(tallies: tuple[ClassTally, ...], plan: Plan) -> list[Finding] | Missing:
    """Objects that no cell stands for: they are taught as background. (Of coarse boxes, a view shows a sample.)"""
    last = _last_epochs(tallies)
    objects, without = sum(t.objects for t in last), sum(t.without for t in last)
    if objects < FEW:
        return Missing(f"{objects} objects are recorded, {FEW} are needed")
    share, limit = without / objects, MOST if plan.proposals else WITHOUT
    worst, of_worst, many = _worst_class(last)
    if _surely(share, objects) <= limit and _surely(of_worst, many) <= max(OF_CLASS, limit):
        return []
    what = "coarse box" if plan.proposals else "cell"
    figures: dict[str, float | int | str | None] = {"share of objects with none": share, "at most": limit}
    figures |= {"worst class": worst, "share in it": of_worst, "at most, of a class": max(OF_CLASS, limit)}
    return [
        Finding(
            "objects-without-positives",
            "error" if share > MOST and not plan.proposals else "warning",
            f"no {what} stands for {share:.0%} of the objects",
            figures,
            f"objects are smaller than a cell, or no {what} overlaps them enough",
            "show more boxes an image" if plan.proposals else "assign by rank, not by a limit, or on a finer level",
            plan.change({"coarse.per_image": 16} if plan.proposals else {"assign.rule": "tal", "head.stride": 8}),
            0.9,
            "keras-retinanet#1343",
        )
    ]


def _worst_class(tallies: list[ClassTally]) -> tuple[str, float, int]:
    """The class with the largest share of objects with none, that share, and its objects."""
    objects: dict[str, int] = {}
    without: dict[str, int] = {}
    for t in tallies:
        objects[t.name] = objects.get(t.name, 0) + t.objects
        without[t.name] = without.get(t.name, 0) + t.without
    shares = {name: without[name] / count for name, count in objects.items() if count >= FEW}
    worst = max(shares, key=lambda name: shares[name], default="")
    return worst, shares.get(worst, 0.0), objects.get(worst, 0)


def _surely(share: float, count: int) -> float:
    """What a share of ``count`` objects is at least, two standard errors below it."""
    return share - 2 * (share * (1 - share) / max(1, count)) ** 0.5


def positives_per_object(tallies: tuple[ClassTally, ...], plan: Plan) -> list[Finding] | Missing:
    """Fewer than one positive cell an object: most are not taught, or several share one cell."""
    last = _last_epochs(tallies)
    objects = sum(t.objects for t in last)
    if plan.proposals:
        return Missing("cells are coarse boxes: how many an object has is a setting")
    if objects < FEW:
        return Missing(f"{objects} objects are recorded, {FEW} are needed")
    each = sum(t.positives for t in last) / objects
    if each >= LEAST_EACH:
        return []
    return [
        Finding(
            "positives-per-object",
            "error" if each < 0.3 else "warning",
            "an object has less than one positive cell",
            {"positive cells an object": each, "at least": LEAST_EACH},
            "the assigner starves objects, or several of them fall into one cell of a level that is too coarse",
            "choose an assigner with more cells an object, or a finer level",
            plan.change({"assign.rule": "tal", "assign.k": 13, "head.level": "p2"}),
            0.85,
            "Zhang et al. 2020 (ATSS), section 3",
        )
    ]


def _last_epochs(tallies: tuple[ClassTally, ...]) -> list[ClassTally]:
    """The later half of the epochs: what an assigner that looks at predictions has come to."""
    last = max((t.epoch for t in tallies), default=0)
    return [t for t in tallies if t.epoch >= last // 2]


def absent_class(tallies: tuple[ClassTally, ...], plan: Plan) -> list[Finding] | Missing:
    """A class that is trained has not one object."""
    counts: dict[str, int] = {}
    for t in tallies:
        counts[t.name] = counts.get(t.name, 0) + t.objects
    total, need = sum(counts.values()), FEW * len(counts)
    if len(counts) < 2 or total < need:
        return Missing("there is one class" if len(counts) < 2 else f"{total} objects are recorded, {need} are needed")
    none = [name for name, count in counts.items() if not count]
    if not none:
        return []
    return [
        Finding(
            "class-without-objects",
            "warning",
            f"no object of `{none[0]}` was ever seen" + (f", nor of {len(none) - 1} more classes" if none[1:] else ""),
            {"objects": 0, "more than": 0, "classes without": len(none), "of": len(counts), "other objects": total},
            "its labels were lost or have another name, or the split holds none",
            "compare the names of the classes with the file; a class without objects is taught to be nowhere",
            {},
            0.9,
            "detr#108",
        )
    ]


STEP_TARGET_RULES: tuple[Rule[Steps], ...] = (
    Rule("no-objects", lambda e: e.steps, no_objects),
    Rule("no-positives", lambda e: e.steps, no_positives),
)
TALLY_RULES: tuple[Rule[tuple[ClassTally, ...]], ...] = (
    Rule("objects-without-positives", lambda e: e.tallies, without_positives),
    Rule("class-without-objects", lambda e: e.tallies, absent_class),
    Rule("positives-per-object", lambda e: e.tallies, positives_per_object),
)
