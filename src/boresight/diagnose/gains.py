"""What AP and F1 would be if one thing were made true, on the raw output, with intervals over resampled images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boresight.core.emission import Missing
from boresight.core.types import Detections, Scene
from boresight.diagnose.audit import Audited
from boresight.diagnose.emitted import INSIDE, SUPERVISED
from boresight.diagnose.likeness import BoxIou, Closeness
from boresight.diagnose.oracles import NEAR
from boresight.evaluate.average_precision import class_steps, mean_ap
from boresight.evaluate.bootstrap import divide, image_weights, percentile_interval
from boresight.evaluate.box_set import BoxSet
from boresight.evaluate.box_threshold import best_f_of, counts_of
from boresight.evaluate.estimate import Drawn
from boresight.evaluate.pairs import Floats, Ints

ENOUGH = 200
"""Boxes that a bucket must hold before anything is said about it."""
IOUS = tuple(np.linspace(0.5, 0.95, 10).round(2).tolist())

LOOSE, SURELY_LOOSE = 0.4, 0.5
"""Shares of AP50: where AP75 is less, boxes are loose (on COCO it is some two thirds, whatever the detector)."""

HEARD = 50
"""Cells of either kind that there must be before their scores are compared: by chance they are 0.2 apart then."""
APART = 0.25
"""Distance of the scores of cells near objects from those of the background, below which the score tells nothing."""

SAYS = {
    "class": "every cell that boxes an object well names it rightly",
    "box": "every box that has to do with an object of its class is that object's box",
    "near_score": "the score of a cell near an object is how well its box fits",
    "score_everywhere": "that, and boxes that touch no object are silent",
    "duplicates": "an object that was found is not found again",
    "misses": "objects that nothing returned overlaps (0.1) need not be found",
    "starved": "objects that no cell is trained for need not be found",
    "score": "the score says how well a box fits, as far as the background alone is not to blame",
    "assignment": "the larger of: of the cells in objects only trained ones speak; starved objects need not be found",
    "trained_cells": "only cells that are trained to box an object may speak",
    "inside_cells": "only cells in an object may speak",
    "background": "boxes that touch no object are silent",
    "threshold": "no score is too low to be returned, and 100 detections an image may be",
}
"""What each oracle makes true."""

ADDITIVE = (
    "each gain is what one repair alone would do: they depend on each other, do not add up, and repairs made after "
    "another gain more or less than they would alone"
)


@dataclass(frozen=True, slots=True)
class Drawing:
    """AP of some detections: at 0.5, at 0.75, over 0.5 to 0.95, with replicates (NaN where no truth was drawn)."""

    ap50: Drawn
    ap75: Drawn
    ap: Drawn

    @property
    def loose(self) -> bool:
        """Whether AP75 is less than 0.4 of AP50, and surely less than half of it."""
        return are_loose(self.ap50, self.ap75)


def are_loose(ap50: Drawn, ap75: Drawn) -> bool:
    """Whether AP75 is less than 0.4 of AP50, and surely less than half of it; False without replicates."""
    span = percentile_interval(divide(ap75.samples, ap50.samples))
    return span is not None and span[1] < SURELY_LOOSE and ap75.value < LOOSE * ap50.value


def drawn(boxes: BoxSet, classes: int, weights: Floats) -> Drawing:
    """AP under the data and under each row of ``weights [R, N]``. Values are NaN without truth."""
    once = np.ones((1, boxes.images))
    values, samples = [], []
    for iou in IOUS:
        steps = class_steps(boxes, iou, classes)
        values.append(float(mean_ap(steps, once)[0]))
        samples.append(mean_ap(steps, weights))
    n = int(boxes.counted.sum())
    at = IOUS.index(0.75)
    return Drawing(
        Drawn(values[0], samples[0], n),
        Drawn(values[at], samples[at], n),
        Drawn(float(np.mean(values)), np.mean(samples, axis=0), n),
    )


@dataclass(frozen=True)
class Gains:
    """AP as it is, and what each oracle adds to it.

    Attributes:
        now: of the detector as it is.
        ap50, ap: gain by oracle, with replicates. That of the ``threshold`` is over the detector as it is, the others
            are over the detector with an open threshold. ``score`` and ``assignment`` are made of several, see
            :func:`score_gain` and :func:`assignment_gain`.
        missing: oracles that cannot be asked, with the reason.
        loose: boxes are loose (see :attr:`Drawing.loose`), and would be if the score chose the best ones near objects.
    """

    now: Drawing
    ap50: dict[str, Drawn]
    ap: dict[str, Drawn]
    missing: dict[str, str]
    loose: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "ap50": asdict(self.now.ap50.estimate()),
            "ap75": asdict(self.now.ap75.estimate()),
            "ap": asdict(self.now.ap.estimate()),
            "gains": {
                name: {
                    "says": SAYS[name],
                    "ap50": asdict(self.ap50[name].estimate()),
                    "ap": asdict(self.ap[name].estimate()),
                }
                for name in self.ap50
            },
            "loose_boxes": self.loose,
            "missing": self.missing,
            "note": ADDITIVE,
        }


def gains(audited: Audited, *, replicates: int = 500, seed: int = 0) -> Gains:
    """AP after each oracle less AP as it is, paired by image."""
    classes = len(audited.classes)
    weights = image_weights(len(audited.scenes), replicates, seed)
    now = drawn(audited.boxes(), classes, weights)
    opened: Drawing | None = None
    loose = now.loose
    ap50: dict[str, Drawn] = {}
    ap: dict[str, Drawn] = {}
    missing: dict[str, str] = {}
    for name, found in audited.oracles.items():
        if isinstance(found, Missing):
            missing[name] = found.reason
            continue
        then = drawn(audited.boxes(found), classes, weights)
        base = opened or now
        ap50[name], ap[name] = then.ap50.minus(base.ap50), then.ap.minus(base.ap)
        if name == "threshold":
            opened = then
        if name == "near_score":
            loose = loose and then.loose
    opened_found = audited.oracles["threshold"]
    if opened is not None and not isinstance(opened_found, Missing):
        excused = {"misses": without_missed(audited, opened_found), "starved": without_starved(audited)}
        for name, scenes in excused.items():
            if scenes is not None:
                then = drawn(audited.boxes(opened_found, scenes), classes, weights)
                ap50[name], ap[name] = then.ap50.minus(opened.ap50), then.ap.minus(opened.ap)
    for table in (ap50, ap):
        for name, made in (
            ("score", score_gain(table)),
            ("assignment", assignment_gain(table, _buckets_hold(audited))),
        ):
            if made is not None:
                table[name] = made
    return Gains(now, ap50, ap, missing, loose)


def score_gain(table: Mapping[str, Drawn]) -> Drawn | None:
    """What the score costs: its ranking near objects alone, or the background with it.

    Once the background is silent, the score still costs what it ranks wrongly near objects. Where that is at least as
    much as the background costs, one fault explains both, and both are the score's. None where it cannot be asked.
    """
    if not {"score_everywhere", "background"} <= table.keys():
        return None
    near = table["score_everywhere"].minus(table["background"])
    return table["score_everywhere"] if near.value >= table["background"].value else near


def _buckets_hold(audited: Audited) -> bool:
    return all(int((audited.rows.bucket == k).sum()) >= ENOUGH for k in (SUPERVISED, INSIDE))


def assignment_gain(table: Mapping[str, Drawn], buckets: bool) -> Drawn | None:
    """The larger of what untrained cells in objects cost, and what objects cost that no cell is trained for.

    ``buckets``: both buckets hold enough boxes to say the first.
    """
    parts = []
    if buckets and {"trained_cells", "inside_cells"} <= table.keys():
        parts.append(table["trained_cells"].minus(table["inside_cells"]))
    if "starved" in table:
        parts.append(table["starved"])
    return max(parts, key=lambda d: d.value, default=None)


def without_starved(audited: Audited) -> list[Scene] | None:
    """The scenes with objects that no cell is trained for as don't-cares; None where that is not known."""
    objects = audited.objects
    if isinstance(audited.supervision, Missing) or bool((objects.positives < 0).any()):
        return None
    first = np.searchsorted(objects.image, np.arange(len(audited.scenes) + 1))
    starved = objects.positives == 0
    spans = zip(audited.scenes, first[:-1], first[1:], strict=True)
    return [_excusing(scene, objects.object[a:b][starved[a:b]]) for scene, a, b in spans]


def without_missed(audited: Audited, found: Sequence[Detections]) -> list[Scene]:
    """The scenes with objects as don't-cares that no detection has to do with, of whatever class."""
    like = BoxIou() if audited.reach is None else Closeness(audited.reach)
    scenes = []
    for scene, detections in zip(audited.scenes, found, strict=True):
        assert scene.boxes is not None
        near = like(detections.boxes, scene.boxes.cpu()) >= NEAR
        scenes.append(_excusing(scene, (~near.any(0)).nonzero()[:, 0]))
    return scenes


def _excusing(scene: Scene, objects: Tensor | Ints) -> Scene:
    """The scene with some of its objects as don't-cares."""
    assert scene.boxes is not None
    ignore = torch.zeros(len(scene.boxes), dtype=torch.bool) if scene.ignore is None else scene.ignore.clone()
    ignore[objects] = True
    return replace(scene, ignore=ignore)


@dataclass(frozen=True)
class AtThreshold:
    """F1 at the threshold in use, and at the one that suits these images best (a little too good: it was chosen here).

    Attributes:
        threshold: in use; None where there is none.
        best: the threshold of the best F1.
        f1: at ``threshold``, None without one.
        best_f1: at ``best``.
    """

    threshold: float | None
    best: float
    f1: Drawn | None
    best_f1: Drawn

    @property
    def lost(self) -> Drawn | None:
        """What the threshold alone costs."""
        return None if self.f1 is None else self.best_f1.minus(self.f1)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        figures = {"f1": self.f1, "best_f1": self.best_f1, "lost": self.lost}
        told = {name: None if d is None else asdict(d.estimate()) for name, d in figures.items()}
        return {"threshold": self.threshold, "best_threshold": self.best, **told}


def at_threshold(boxes: BoxSet, threshold: float | None, weights: Floats) -> AtThreshold:
    """Judge a threshold under the data and under each row of image weights ``[R, N]``."""
    best = best_f_of(boxes)
    f1 = None if threshold is None else _f1(counts_of(boxes, threshold), weights)
    return AtThreshold(threshold, best, f1, _f1(counts_of(boxes, best), weights))


def _f1(counts: Ints, weights: Floats) -> Drawn:
    tp, fp, fn = (counts[:, k].astype(np.float64) for k in range(3))
    value = float(divide(2 * tp.sum(), (2 * tp + fp + fn).sum()))
    return Drawn(value, divide(2 * (weights @ tp), weights @ (2 * tp + fp + fn)), int((tp + fn).sum()))


def with_threshold(gains: Mapping[str, Drawn], told: AtThreshold) -> dict[str, Drawn]:
    """The gains, that of the threshold being the larger of what it costs in AP50 and in F1."""
    costs = [d for d in (gains.get("threshold"), told.lost) if d is not None]
    return dict(gains) | ({"threshold": max(costs, key=lambda d: d.value)} if costs else {})


def for_the_verdict(gained: Gains, told: AtThreshold, apart: float | None = None) -> dict[str, Drawn]:
    """Gains of AP50, but for three faults that it is blind to.

    That of the threshold is the larger of what it costs in AP50 and in F1; that of the boxes, where they are loose, the
    larger of what they cost in AP50 and in AP. Where scores do not even tell objects from the background (``apart``,
    see :func:`boresight.diagnose.loudness.Loudness.separation`), a loud background is the score's doing.
    """
    table = with_threshold(gained.ap50, told)
    if apart is not None and apart < APART and {"score_everywhere", "background"} <= table.keys():
        table["score"] = table["score_everywhere"]
        del table["background"]
    if gained.loose and "box" in table:
        table["box"] = max((table["box"], gained.ap["box"]), key=lambda d: d.value)
    return table
