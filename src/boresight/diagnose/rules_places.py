"""Rules over places: what is lost or moved between truth, cells and detections."""

from __future__ import annotations

from dataclasses import dataclass

from boresight.core.emission import Missing
from boresight.diagnose.evidence import Evidence
from boresight.diagnose.finding import Finding
from boresight.diagnose.plan import Plan
from boresight.diagnose.probe import Offset, PaddingShift, RoundTrip
from boresight.diagnose.rule import Rule

LOST = 0.1
"""Share of the objects that do not survive encoding and decoding. Same-class neighbours may fall to suppression."""
APART = 0.02
"""Share of positive cells that lie more than three cells beside the object that they must emit."""
SHIFT = 0.1
"""Pixels of the median displacement in the round trip."""
PART = 0.25
"""Part of a cell by which detections may lie beside the truth on the average."""
FAR = 0.4
"""The same from which it is an error, where it is sure twice over."""
SURE = 4.0
"""Standard errors from which a mean offset is no chance."""


@dataclass(frozen=True, slots=True)
class Grain:
    """Pixels a cell, the tolerance in pixels (points) or the median side of an object in pixels (boxes)."""

    stride: float
    tolerance: float | None
    side: float | None


def geometry(trip: RoundTrip, plan: Plan) -> list[Finding] | Missing:
    """Truth, written into an output and decoded again, is not where it was."""
    lost, moved = trip.lost / trip.objects, max(abs(trip.shift_x), abs(trip.shift_y))
    limit = SHIFT if plan.places or plan.stride is None else plan.stride / 2
    if lost <= LOST and moved <= limit and trip.apart <= APART:
        return []
    return [
        Finding(
            "geometry-round-trip",
            "error",
            "truth does not survive encoding and decoding",
            {"share lost": lost, "at most": LOST, "cells beside their object": trip.apart, "at most, of those": APART}
            | {"shift x, px": trip.shift_x, "shift y, px": trip.shift_y, "px at most": limit},
            "cells and pixels are converted by different rules, or the decoder drops what it should keep",
            "use one pair of functions for both ways, and test it on truth alone",
            plan.change({"decode.top_k": 100, "decode.nms": 0.5}) if lost > LOST else {},
            0.95,
            "LibreYOLO PR#197",
        )
    ]


def padding_moves(shift: PaddingShift, plan: Plan) -> list[Finding] | Missing:
    """What an image shows moves when a larger image shares its batch: it was padded on the wrong side."""
    if not shift.x and not shift.y:
        return []
    return [
        Finding(
            "padding-shift",
            "error",
            "padding moves what is found",
            {"cells in x": shift.x, "cells in y": shift.y, "at most": 0, "cells of padding": shift.pad},
            "images are padded at the top or left, and boxes are not moved with them",
            "pad at the bottom and right, or move the boxes by the same amount, in training and inference alike",
            {},
            0.95,
            "LibreYOLO PR#197",
        )
    ]


def shifted(offset: Offset, plan: Plan) -> list[Finding] | Missing:
    """Detections lie beside the truth, all on the same side."""
    pairs = ((offset.x, offset.error_x), (offset.y, offset.error_y))
    if not any(abs(mean) > PART * offset.stride and abs(mean) > SURE * error for mean, error in pairs):
        return []
    return [
        Finding(
            "labels-shifted",
            "error" if any(abs(m) > FAR * offset.stride and abs(m) > 2 * SURE * e for m, e in pairs) else "warning",
            "detections lie beside the truth, all on the same side",
            {"mean x, px": offset.x, "mean y, px": offset.y, "at most": PART * offset.stride, "objects": offset.n}
            | {"error of the mean, px": max(e for _, e in pairs)},
            "labels and pixels differ by a part of a cell: half-pixel centres, an even window, or a resize",
            "use u = (x + 0.5) / s - 0.5 in encoding and its inverse in decoding; check the labels of one image",
            {},
            0.85,
            "windows of an even number of cells, put on whole cells",
        )
    ]


def coarse_level(grain: Grain, plan: Plan) -> list[Finding] | Missing:
    """A cell is so large that the level cannot say where, or cannot tell two objects apart."""
    if grain.tolerance is not None:
        error = grain.stride / 2 * 2**0.5  # from the middle of a cell to its corner
        bad = grain.stride > 2 * grain.tolerance if plan.places else error > grain.tolerance
        limit = 2 * grain.tolerance if plan.places else grain.tolerance * 2**0.5
        what = "a cell is larger than the tolerance allows"
    elif grain.side is not None:
        bad, limit, what = grain.stride > 2 * grain.side, 2 * grain.side, "a cell is larger than most objects"
    else:
        return Missing("neither a tolerance nor the size of objects is known")
    if not bad:
        return []
    return [
        Finding(
            "level-too-coarse",
            "error" if grain.stride > 2 * limit else "warning",
            what,
            {"stride, px": grain.stride, "at most": limit, "tolerance, px": grain.tolerance, "side, px": grain.side},
            "the level that emits has too few cells: neighbours share one, and places come from its middle",
            "emit from a finer level" + ("" if plan.places else ", or predict the place in the cell"),
            plan.change({"head.level": "p2", "head.stride": 8} | ({} if plan.places else {"decode.refine": "offset"})),
            0.9,
            "docs/studies/levels.md",
        )
    ]


def _grain(evidence: Evidence) -> Grain | Missing:
    plan, labels = evidence.plan, evidence.labels
    if plan.stride is None:
        return Missing("the stride of the level that emits is not known")
    return Grain(plan.stride, plan.tolerance, None if isinstance(labels, Missing) else labels.side)


PLACE_RULES = (
    Rule("geometry-round-trip", lambda e: e.probe.round_trip, geometry),
    Rule("padding-shift", lambda e: e.probe.padding, padding_moves),
    Rule("labels-shifted", lambda e: e.probe.offset, shifted),
)
COARSE = Rule("level-too-coarse", _grain, coarse_level)
