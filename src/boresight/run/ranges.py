"""The range of every setting that is a number."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from boresight.core.errors import UserError

_POSITIVE = [
    "data.frames",
    "data.val_frames",
    "data.test_frames",
    "data.height",
    "data.width",
    "data.oversample",
    "encoder.channels",
    "head.proposals",
    "decode.top_k",
    "decode.window",
    "decode.tolerance",
    "train.steps",
    "train.batch",
    "train.accumulate",
    "train.learning_rate",
    "train.checkpoint_every",
    "target.sigma",
    "target.class_weight_cap",
    "loss.positive_weight",
    "head.width",
    "head.embed",
    "head.side",
    "assign.radius",
    "assign.k",
    "clip.average",
    "clip.calibration_frames",
    "clip.store_mb",
    "coarse.train_low",
    "coarse.low",
    "coarse.per_image",
    "coarse.copies",
    "coarse.val_copies",
    "coarse.match_iou",
    "data.sample_ratio",
    "features.batch",
    "head.steps",
    "head.reach",
]
_NOT_NEGATIVE = [
    "augment.crop",
    "augment.whole",
    "augment.gain",
    "augment.shift",
    "augment.noise",
    "target.offset_reach",
    "loss.offset",
    "loss.auxiliary",
    "head.window",
    "train.warmup",
    "train.weight_decay",
    "train.validate_every",
    "train.threads",
    "train.workers",
    "train.clip",
    "data.cache_mb",
    "train.seed",
    "data.seed",
    "loss.focal_gamma",
    "loss.ohem_ratio",
    "augment.colour",
    "head.depth",
    "clip.size",
    "clip.window",
    "assign.centre",
    "assign.alpha",
    "assign.beta",
    "assign.gamma",
    "supervise.trained_reach",
    "supervise.quality",
    "loss.cls",
    "loss.l1",
    "loss.giou",
    "loss.objectness",
    "loss.quality",
    "data.max_images",
    "features.size",
    "features.window",
    "features.store_mb",
    "loss.iou",
    "loss.edges",
    "loss.decision",
    "loss.unmatched",
]
_MAY_BE_NULL = ("encoder.weights", "target.window", "clip.weights", "features.weights")
_SHARE = [
    "augment.positive_share",
    "augment.paste",
    "loss.focal_alpha",
    "train.final",
    "train.ema",
    "data.val_share",
    "head.prior",
    "augment.min_visible",
    "assign.warmup",
    "decode.map_weight",
    "decode.threshold",
    "decode.nms",
    "coarse.train_low",
    "coarse.train_high",
    "coarse.low",
    "coarse.high",
    "coarse.real_share",
    "coarse.min_score",
    "coarse.match_iou",
    "data.sample_ratio",
    "decode.harm",
    "decode.rescore",
]


def check_ranges(flat: Mapping[str, Any]) -> None:
    """Raise UserError for a number outside its range, naming key, value and range. ``flat``: ``{"train.steps": 5}``."""

    def require(key: str, good: bool, wanted: str) -> None:
        if not good:
            raise UserError(f"`{key}` = {flat[key]}: must be {wanted}")

    for key, value in flat.items():
        require(key, value is not None or key in _MAY_BE_NULL, "given: leave the key out for its default")
        if isinstance(value, float):
            require(key, math.isfinite(value), "a finite number")
    for key in set(_POSITIVE) & set(flat):
        require(key, flat[key] > 0, "above 0")
    for key in set(_NOT_NEGATIVE) & set(flat):
        require(key, flat[key] >= 0, "0 or more")
    for key in set(_SHARE) & set(flat):
        require(key, 0 <= flat[key] <= 1, "between 0 and 1")
    if "data.val_share" in flat:
        require("data.val_share", flat["data.val_share"] < 1, "below 1: something must be left to train on")
    if "head.prior" in flat:
        require("head.prior", 0 < flat["head.prior"] < 1, "between 0 and 1, both excluded")
        gamma = flat["loss.focal_gamma"]
        require("loss.focal_gamma", gamma == 0 or gamma >= 1, "0, or 1 or more (between, gradients are not finite)")
        low, high = flat["augment.scale"]
        require("augment.scale", 0 < low <= high, "two numbers, 0 < smallest <= largest")
    if "target.breaks" in flat:
        _check_point(flat, require)
    if "clip.layers" in flat:
        _check_text(flat, require)
    if "coarse.low" in flat:
        _check_refine(flat, require)


def _check_point(flat: Mapping[str, Any], require: Callable[[str, bool, str], None]) -> None:
    require("decode.window", flat["decode.window"] % 2 == 1, "odd: a window around a cell")
    breaks = list(flat["target.breaks"])
    require("target.breaks", breaks == sorted(breaks) and all(0 < b < 1 for b in breaks), "rising, between 0 and 1")
    if flat["target.schedule"] == "steps":
        wanted = f"{len(flat['target.breaks']) + 1} numbers, one more than target.breaks"
        require("target.sigmas", len(flat["target.sigmas"]) == len(flat["target.breaks"]) + 1, wanted)
    require("target.sigmas", len(flat["target.sigmas"]) > 0 and min(flat["target.sigmas"]) > 0, "all above 0")


def _check_refine(flat: Mapping[str, Any], require: Callable[[str, bool, str], None]) -> None:
    require("coarse.train_high", flat["coarse.train_low"] <= flat["coarse.train_high"], "coarse.train_low or more")
    require("coarse.high", flat["coarse.low"] <= flat["coarse.high"], "coarse.low or more")
    require("head.grid", flat["head.grid"] >= 4 and flat["head.grid"] % 2 == 0, "even, 4 or more")
    require("head.width", flat["head.width"] % 16 == 0, "a multiple of 16")
    require("head.depth", flat["head.depth"] >= 1, "1 or more")
    require("head.dropout", 0 <= flat["head.dropout"] < 1, "0 or more, below 1")
    require("head.context", flat["head.context"] > 1, "above 1: an edge is seen from both sides")
    levels = flat["features.levels"]
    require("features.levels", len(set(levels)) == len(levels), "different numbers")


def _check_text(flat: Mapping[str, Any], require: Callable[[str, bool, str], None]) -> None:
    layers = flat["clip.layers"]
    require("clip.layers", all(k >= 1 for k in layers) and len(set(layers)) == len(layers), "different numbers from 1")
    wanted = "`class=query`, say `tank=storage tank|oil tank`"
    require("data.queries", all("=" in q for q in flat["data.queries"]), wanted)
