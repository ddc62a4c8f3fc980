"""What a run's settings plan, in the words of training health."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boresight.diagnose.plan import Plan
from boresight.run.parse import flatten


def plan_of(settings: Any, monitor: str) -> Plan:
    """The plan behind the settings of any system.

    Args:
        settings: a settings dataclass; a key that a system does not have is not known.
        monitor: name of the figure that says how far training has come.
    """
    flat = flatten(settings)
    system = str(flat.get("detector", ""))
    level = flat.get("head.level")
    points = "decode.tolerance" in flat
    return Plan(
        system=system,
        score=monitor,
        steps=flat.get("train.steps"),
        batch=flat.get("train.batch"),
        learning_rate=flat.get("train.learning_rate"),
        warmup=flat.get("train.warmup"),
        clip=flat.get("train.clip"),
        ema=flat.get("train.ema"),
        precision=flat.get("train.precision"),
        score_loss=flat.get("loss.name", flat.get("assign.score")),
        per=flat.get("loss.per", "objects"),
        prior=flat.get("head.prior"),
        stride=float(2 ** int(level[1:])) if level else flat.get("head.stride"),
        tolerance=flat.get("decode.tolerance"),
        places=not points or flat.get("decode.refine") == "offset",
        proposals="coarse.match_iou" in flat,
        weight_decay=flat.get("train.weight_decay"),
        augmented=_augmented(flat),
        frozen=bool(flat.get("encoder.frozen")) or "coarse.match_iou" in flat,
        scored=system != "localise" and "coarse.match_iou" not in flat,
        keys=tuple(flat),
    )


def _augmented(flat: Mapping[str, Any]) -> bool | None:
    """Whether a view is changed at random; None where nothing is known of views."""
    known = {key: value for key, value in flat.items() if key.startswith("augment.")}
    if not known:
        return None
    still = ("augment.positive_share", "augment.min_visible", "augment.scale", "augment.whole", "augment.crop")
    return any(bool(value) for key, value in known.items() if key not in still)
