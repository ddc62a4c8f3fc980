"""Settings that were given and that nothing reads: unknown keys, and keys that another choice switches off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boresight.core.errors import did_you_mean
from boresight.diagnose.evidence import UnreadKey
from boresight.run.parse import flat_keys, flatten, settings_from

READ_WHEN: tuple[tuple[str, str, tuple[Any, ...]], ...] = (
    # of points
    ("loss.positive_weight", "loss.name", ("weighted_bce",)),
    ("loss.focal_alpha", "loss.name", ("focal",)),
    ("loss.focal_gamma", "loss.name", ("focal",)),
    ("loss.ohem_ratio", "loss.name", ("ohem",)),
    ("target.peak", "target.label", ("gaussian",)),
    ("target.sigma", "target.label", ("gaussian",)),
    ("target.sigma", "target.schedule", ("fixed",)),
    ("target.window", "target.label", ("gaussian",)),
    ("target.window", "target.schedule", ("fixed",)),
    ("target.sigmas", "target.schedule", ("steps", "linear", "cosine")),
    ("target.breaks", "target.schedule", ("steps",)),
    ("head.coarse", "head.mode", ("fused", "coarse_to_fine")),
    ("head.proposals", "head.mode", ("coarse_to_fine",)),
    ("head.window", "head.mode", ("coarse_to_fine",)),
    ("data.preset", "data.source", ("skyfield",)),
    # of boxes
    ("assign.radius", "assign.rule", ("radius",)),
    ("assign.min_giou", "assign.rule", ("radius",)),
    ("assign.centre", "assign.rule", ("inside",)),
    ("assign.k", "assign.rule", ("atss", "tal")),
    ("assign.alpha", "assign.rule", ("tal",)),
    ("assign.beta", "assign.rule", ("tal",)),
    ("assign.warmup", "assign.rule", ("tal",)),
    ("assign.gamma", "assign.score", ("mal",)),
    ("loss.focal_alpha", "assign.score", ("hard",)),
    ("loss.focal_gamma", "assign.score", ("hard",)),
    ("loss.objectness", "supervise.objectness", (True,)),
    ("decode.map_weight", "decode.fusion", ("geometric",)),
    ("clip.store_folder", "clip.store", ("disk",)),
    ("data.kinds", "data.source", ("aerial",)),
    ("data.colours", "data.source", ("aerial",)),
    # of the refiner
    ("head.reach", "head.kind", ("reference",)),
    ("head.steps", "head.kind", ("looking",)),
    ("head.depth", "head.kind", ("looking",)),
    ("head.context", "head.kind", ("looking",)),
    ("features.store_folder", "features.store", ("disk",)),
    ("decode.harm", "decode.operating", ("best",)),
    # of all that have an encoder of their own
    ("encoder.widths", "encoder.name", ("small",)),
)
"""A key, the key that it hangs on, and the values of that one for which it is read."""


def unread_keys(kind: type, values: Mapping[str, Any]) -> tuple[UnreadKey, ...]:
    """What of the nested ``values`` nothing reads.

    A known key counts as given where it differs from the default of its recipe: a resolved file names every key.
    """
    given = flat_keys(values)
    known = flatten(kind())
    strange = [k for k in given if k not in known]
    recipe = {"recipe": values["recipe"]} if "recipe" in known and "recipe" in values else {}
    default = flatten(settings_from(kind, recipe, origin="the recipe"))
    found = [UnreadKey(k, str(given[k]), f"no setting has this name{did_you_mean(k, known)}", False) for k in strange]
    for key, other, when in READ_WHEN:
        if key not in known or other not in known or key not in given:
            continue
        chosen = given.get(other, default[other])
        if _plain(given[key]) != _plain(default[key]) and chosen not in when:
            why = f"it is read for `{other}` = {' or '.join(str(w) for w in when)}, which is {chosen}"
            found.append(UnreadKey(key, str(given[key]), why, True))
    return tuple(found)


def pruned(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The nested values without the keys that the settings do not have."""
    known = flatten(kind())
    groups = {k.split(".")[0] for k in known if "." in k}

    def kept(part: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        return {
            k: kept(v, f"{prefix}{k}.") if isinstance(v, Mapping) else v
            for k, v in part.items()
            if prefix + str(k) in known or (not prefix and k in groups and isinstance(v, Mapping))
        }

    return kept(values, "")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
