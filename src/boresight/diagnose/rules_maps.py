"""Rules over the frozen encoder: what its class maps say of where objects are, and what its store gives back."""

from __future__ import annotations

from boresight.core.emission import Missing
from boresight.diagnose.evidence import Evidence
from boresight.diagnose.finding import Finding
from boresight.diagnose.plan import Plan
from boresight.diagnose.probe import AbsentPeaks, MapFit, Stored
from boresight.diagnose.rule import Rule

PAIRS = 20
"""Pairs of an image and a class that there must be before maps are judged."""
SURE = 3.0
"""Standard errors by which a mean must lie on the wrong side."""
AWAY = 0.4
"""Chance that a cell in an object lies above one outside, below which a map points away from its class."""
AHEAD = 0.1
"""Lead of the maps of other classes, above which maps and classes have been exchanged."""
PEAK = 0.99
"""Peak of a class map over an image that does not show the class."""
DIFFER = 0.1
"""Norm of the difference over the norm: storage in 8 bits is a hundredth, another image is most of the whole."""
MUTE = 0.9
"""Share of flat maps from which the maps say nothing."""


def exchanged(maps: MapFit) -> bool:
    """The maps of other classes, one for each, point better at the objects than their own."""
    return (
        maps.lead is not None
        and maps.lead_error is not None
        and maps.lead >= AHEAD
        and maps.lead - SURE * maps.lead_error > 0.0
    )


def inverted(maps: MapFit) -> bool:
    """Maps are lower in the objects of their class than outside of all objects, and no exchange explains it."""
    return maps.own < AWAY and maps.own + SURE * maps.own_error < 0.5 and not exchanged(maps)


def map_points_away(maps: MapFit, plan: Plan) -> list[Finding] | Missing:
    """The class map is lower in the objects of its class than outside of all objects."""
    if not inverted(maps):
        return []
    return [
        Finding(
            "class-map-inverted",
            "warning",
            "class maps are lower in their objects than outside",
            {"points at them": maps.own, "at least": AWAY, "standard error": maps.own_error, "pairs": maps.pairs},
            "the map is subtracted where it should be added, or the method turns it over (dense CLIP maps often do)",
            "look at the maps: high must be in the object; a calibrated map is never turned over",
            plan.change({"clip.method": "naclip", "clip.map": "calibrated"}),
            0.9,
            "CLIP_Surgery#13; Li et al. 2023, section 3.2: opposite visualisation",
        )
    ]


def maps_exchanged(maps: MapFit, plan: Plan) -> list[Finding] | Missing:
    """The maps of other classes point better at a class's objects than its own does."""
    if maps.lead is None or maps.lead_error is None:
        return Missing("with one class there is no other map")
    if not exchanged(maps):
        return []
    swapped = [f"{k} by {m}" for k, m in maps.exchange.items() if k != m]
    return [
        Finding(
            "class-maps-exchanged",
            "warning",
            "class maps point at the objects of other classes",
            {"lead of the exchanged maps": maps.lead, "less than": AHEAD, "standard error": maps.lead_error}
            | {"pairs": maps.pairs, "class by the map of": ", ".join(swapped[:5])},
            "queries are in another order than the classes, or their words stand for something else",
            "ask each class by its own words, in the order of the classes; find other words where they are confused",
            {},
            0.85,
            "ultralytics#25955: predictions under the words of other classes",
        )
    ]


def _maps(evidence: Evidence) -> MapFit | Missing:
    maps = evidence.probe.maps
    if isinstance(maps, Missing) or maps.pairs >= PAIRS:
        return maps
    return Missing(f"{maps.pairs} pairs of an image and a class were probed, {PAIRS} are needed")


def peaks_of(evidence: Evidence) -> AbsentPeaks | Missing:
    """Peaks of the class maps; `Missing` where these do not point at their classes, which is said instead."""
    maps = _maps(evidence)
    if not isinstance(maps, Missing) and (exchanged(maps) or inverted(maps)):
        return Missing("the class maps do not point at their classes: how high they peak elsewhere is no matter")
    return evidence.probe.peaks


def peak_of_absent(peaks: AbsentPeaks, plan: Plan) -> list[Finding] | Missing:
    """The class map of a class that is not there peaks as high as that of one that is."""
    if peaks.absent < PEAK:
        return []
    return [
        Finding(
            "map-peak-of-absent",
            "warning",
            "the class map peaks at 1 for classes that are not in the image",
            {"median peak, absent": peaks.absent, "less than": PEAK, "present": peaks.present, "pairs": peaks.pairs},
            "each map is stretched to 0..1 by itself, so that it cannot say that a class is absent",
            "use a calibrated map, which knows no other query",
            plan.change({"clip.map": "calibrated"}),
            0.95,
            "Li et al. 2023 (CLIP Surgery): each map is stretched by itself",
        )
    ]


def map_says_nothing(maps: MapFit, plan: Plan) -> list[Finding] | Missing:
    """The class map is the same everywhere."""
    if maps.flat < MUTE:
        return []
    return [
        Finding(
            "class-map-silent",
            "note",
            "the class maps are the same everywhere, so that the frozen encoder says nothing of where a class is",
            {"share of flat maps": maps.flat, "less than": MUTE, "pairs": maps.pairs},
            "on the training images they did not point at the objects, so that calibration has switched them off",
            "encode the images larger or in smaller windows, or ask in words that the encoder knows",
            plan.change({"clip.window": 64}),
            0.8,
            "boresight.features.calibrate: a slope that is not positive is 0",
        )
    ]


def features_differ(kept: Stored, plan: Plan) -> list[Finding] | Missing:
    """The store does not give back what the encoder makes of the image."""
    if kept.differ < DIFFER:
        return []
    return [
        Finding(
            "stored-features-differ",
            "error",
            "stored features are not those that the encoder makes of the image",
            {"difference over size": kept.differ, "less than": DIFFER, "images": kept.images, "of": kept.name},
            "the key leaves out something that decides the features: the image, the weights or the preprocessing",
            "put all of it into the key, and empty the store (`boresight cache clear`)",
            plan.change({"clip.store": "memory"}) or plan.change({"features.store": "memory"}),
            0.95,
            "mlx-vlm PR#1933: a key by name, and the features of the image before",
        )
    ]


MAP_RULES = (
    Rule("class-map-inverted", _maps, map_points_away),
    Rule("class-maps-exchanged", _maps, maps_exchanged),
    Rule("class-map-silent", _maps, map_says_nothing),
    Rule("map-peak-of-absent", peaks_of, peak_of_absent),
    Rule("stored-features-differ", lambda e: e.probe.stored, features_differ),
)
