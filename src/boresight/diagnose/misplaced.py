"""Do all boxes lie off the same way? One shift and one size that hold for all, and what undoing them would gain.

Boxes that are loose each its own way were badly learned; boxes that all lie half a cell to the right were well learned
and drawn in the wrong place. The difference is an average over objects: the first have none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from boresight.core.emission import Missing
from boresight.diagnose.finding import Finding
from boresight.diagnose.verdict import HEALTHY, OBJECTS, WORTH
from boresight.evaluate.average_precision import LIMIT, class_steps, mean_ap
from boresight.evaluate.bootstrap import image_weights
from boresight.evaluate.box_match import match_boxes
from boresight.evaluate.box_set import BoxSet
from boresight.evaluate.estimate import Drawn, Estimate, Resampler
from boresight.evaluate.pairs import Floats

NEAR = 0.3
"""IoU from which a detection is of an object: a shift of half its side leaves 0.33."""
MOVED = 0.03
"""Share of an object's side from which a common shift is worth a look; of its logarithm, a common size twice that."""
STRICT = 0.75
"""IoU at which the gain is told: at 0.5 a box may lie off by a sixth of its side, both ways, and still be a hit."""


@dataclass(frozen=True)
class Misplaced:
    """Boxes less the objects that they are of, over all objects that were found.

    Attributes:
        images: that were looked at.
        x, y: mean distance of the centres, pixels; positive: boxes lie to the right, and below.
        share_x, share_y: the same in shares of the object's width and height.
        width, height: mean ratio of the sides (geometric).
        ap75: as it is.
        gain: what AP75 gains once all boxes are moved back and made as large as their objects are on average; None
            where they lie off by too little to matter.
        way: in which the shift was taken back: ``pixels``, the same for all, or ``shares`` of a box's own size.
    """

    images: int
    x: Estimate
    y: Estimate
    share_x: Estimate
    share_y: Estimate
    width: Estimate
    height: Estimate
    ap75: Estimate
    gain: Estimate | None
    way: str

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)

    @property
    def told(self) -> bool:
        """Whether undoing it gains 0.05 with an interval above 0.02, as a repair must."""
        g = self.gain
        return g is not None and g.interval is not None and (g.value or 0.0) >= HEALTHY and g.interval[0] > WORTH


def misplaced(boxes: BoxSet, classes: int, *, replicates: int = 200, seed: int = 0) -> Misplaced | Missing:
    """Work it out from truth and detections. Missing for points, and where fewer than 50 objects were found."""
    if boxes.reach is not None:
        return Missing("points have no size, and are compared by their distance")
    best = boxes.best(LIMIT)
    match = match_boxes(best, NEAR)
    hit = np.flatnonzero(match.hit)
    if len(hit) < OBJECTS:
        return Missing(f"{len(hit)} objects were found, {OBJECTS} are needed for a mean offset")
    found, truth = _shape(best.found_box[hit]), _shape(best.truth_box[match.truth_of_found[hit]])
    draw = Resampler(best.found_image[hit], best.images, replicates, seed)
    away, shares = found[:, :2] - truth[:, :2], (found[:, :2] - truth[:, :2]) / truth[:, 2:]
    ratio = np.log(found[:, 2:] / truth[:, 2:])  # of an IoU of 0.3, both have an area
    means = [draw.mean(v[:, k]) for v in (away, shares, ratio) for k in (0, 1)]
    x, y, share_x, share_y, wider, higher = means
    weights = image_weights(boxes.images, replicates, seed)
    now = _ap75(best, classes, weights)
    gain, way = None, "pixels"
    if any(_sure(m, MOVED) for m in (share_x, share_y)) or any(_sure(m, 2 * MOVED) for m in (wider, higher)):
        size = np.exp(-np.array([wider.value, higher.value]))
        ways: dict[str, Callable[[Floats], Floats]] = {
            "pixels": lambda shape: shape[:, :2] - [x.value, y.value],
            "shares": lambda shape: shape[:, :2] - shape[:, 2:] * size * [share_x.value, share_y.value],
        }
        undone = {name: _ap75(_moved(best, move, size), classes, weights).minus(now) for name, move in ways.items()}
        way = max(undone, key=lambda name: undone[name].value)
        gain = undone[way].estimate()
    return Misplaced(
        images=boxes.images,
        x=x.estimate(),
        y=y.estimate(),
        share_x=share_x.estimate(),
        share_y=share_y.estimate(),
        width=_exp(wider).estimate(),
        height=_exp(higher).estimate(),
        ap75=now.estimate(),
        gain=gain,
        way=way,
    )


def finding(told: Misplaced) -> Finding:
    """What it says, where :attr:`Misplaced.told`."""
    return Finding(
        "boxes-misplaced",
        "warning",
        f"all boxes lie off the same way: {_way(told)}",
        {
            "AP75 gains if undone": told.gain.value if told.gain else None,
            "less than": HEALTHY,
            "AP75": told.ap75.value,
            "x, px": told.x.value,
            "y, px": told.y.value,
            "width, ratio": told.width.value,
            "height, ratio": told.height.value,
            "objects": told.x.n,
        },
        "half a cell or half a pixel was lost between grid and image, a padding or a resize was not undone, or corners "
        "are counted from 1",
        "encode the truth of one image and decode it again: the boxes must come back",
        {},
        0.9,
        "corners of cells taken for their centres; letterbox and resize undone in the wrong order",
    )


def _way(told: Misplaced) -> str:
    parts = []
    for value, share, (less, more) in (
        (told.x, told.share_x, ("left", "right")),
        (told.y, told.share_y, ("up", "down")),
    ):
        if abs(share.value or 0.0) >= MOVED:
            v = value.value or 0.0
            parts.append(f"{abs(v):.2g} px {more if v > 0 else less} ({abs(share.value or 0.0):.0%} of the object)")
    for name, ratio in (("wide", told.width), ("high", told.height)):
        if abs(np.log(ratio.value or 1.0)) >= 2 * MOVED:
            parts.append(f"{ratio.value:.2f} times as {name}")
    return ", ".join(parts)


def _sure(mean: Drawn, least: float) -> bool:
    """Whether it is at least so far from 0, and surely on that side of it."""
    interval = mean.estimate().interval
    return abs(mean.value) >= least and interval is not None and interval[0] * interval[1] > 0


def _exp(mean: Drawn) -> Drawn:
    return Drawn(float(np.exp(mean.value)), np.exp(mean.samples), mean.n)


def _shape(boxes: Floats) -> Floats:
    """xyxy to centre x, centre y, width, height."""
    return np.hstack(((boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]))


def _moved(boxes: BoxSet, move: Callable[[Floats], Floats], size: Floats) -> BoxSet:
    shape = _shape(boxes.found_box)
    middle, half = move(shape), shape[:, 2:] * size / 2
    return replace(boxes, found_box=np.hstack((middle - half, middle + half)))


def _ap75(boxes: BoxSet, classes: int, weights: Floats) -> Drawn:
    steps = class_steps(boxes, STRICT, classes)
    once = float(mean_ap(steps, np.ones((1, boxes.images)))[0])
    return Drawn(once, mean_ap(steps, weights), int(boxes.counted.sum()))
