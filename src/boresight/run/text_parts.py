"""The parts that settings of a box detector name: the frozen side, the image encoder, the assigner and the losses."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import nn

from boresight.core.errors import UserError
from boresight.detectors.frozen_maps import FrozenMaps, Similarity
from boresight.features import clip_text
from boresight.features.cache import FeatureCache
from boresight.features.class_maps import similarity
from boresight.features.clip_load import load_clip
from boresight.features.clip_text import TextEncoder
from boresight.features.frozen import FeatureStore, FrozenFeatures, MemoryStore
from boresight.features.pyramid import SmallPyramid, TimmPyramid
from boresight.features.rgb import NormalisedRgb, SqueezePyramid
from boresight.losses import classification
from boresight.losses.classification import CellLoss
from boresight.run.config_text import AssignSettings, BoxLossSettings, ClipSettings, ImageEncoderSettings
from boresight.run.frames import expanded
from boresight.targets import dense
from boresight.targets.atss import Atss
from boresight.targets.dense import ScoreTarget
from boresight.targets.inside import Inside
from boresight.targets.radius import Radius
from boresight.targets.simota import SimOta
from boresight.targets.tal import Tal

BUILT_IN = {"small": (1, 2, 3, 4), "squeezenet": (2, 3, 4)}
"""Levels of the encoders that are ours."""

TEMPLATES = {
    "aerial": clip_text.AERIAL_TEMPLATES,
    "classic": clip_text.CLASSIC_TEMPLATES,
    "plain": clip_text.PLAIN,
}


def frozen_maps(settings: ClipSettings, queries: Sequence[str]) -> FrozenMaps:
    """The frozen encoder's side."""
    clip = load_clip(settings.name, settings.weights, activation=settings.activation)
    store: FeatureStore = MemoryStore(settings.store_mb)
    if settings.store == "disk":
        if not settings.store_folder:
            raise UserError("`clip.store_folder` is empty: name the folder in which features are kept on disk")
        store = FeatureCache(expanded(settings.store_folder, "clip.store_folder"), limit_mb=settings.store_mb)
    features = FrozenFeatures(
        clip,
        store,
        method=settings.method,
        average=settings.average,
        size=settings.size or None,
        window=settings.window or None,
        layers=tuple(sorted(settings.layers)),
        batch=1,  # last digits change with what else is in a batch: a resumed run would not be that of a whole one
    )
    compare: Similarity = partial(similarity, method=settings.method)
    return FrozenMaps(
        features,
        TextEncoder(clip),
        queries,
        compare,
        map_rule=settings.map,
        frames=settings.calibration_frames,
        templates=TEMPLATES[settings.templates],
    )


def image_encoder(settings: ImageEncoderSettings, *, stride: int) -> nn.Module:
    """The trainable encoder of raw pixels, with a level at ``stride``."""
    shrink = settings.shrink
    finest = (stride // shrink).bit_length() - 1
    if settings.name in BUILT_IN and finest not in BUILT_IN[settings.name]:
        has = ", ".join(str(2**k * shrink) for k in BUILT_IN[settings.name])
        raise UserError(f"encoder `{settings.name}` with encoder.shrink {shrink} has strides {has}: change head.stride")
    if settings.name == "small":
        small = SmallPyramid(settings.widths, settings.channels, finest=finest, inputs=3)
        return NormalisedRgb(small, shrink=shrink)
    if settings.name == "squeezenet":
        weights = None if settings.weights is None else str(expanded(settings.weights, "encoder.weights"))
        squeeze = SqueezePyramid(weights, settings.channels, finest=finest, frozen=settings.frozen)
        return NormalisedRgb(squeeze, (104.0, 117.0, 123.0), (1.0, 1.0, 1.0), bgr=True, shrink=shrink)
    body = TimmPyramid(
        settings.name,
        pretrained=settings.pretrained,
        weights=settings.weights,
        channels=settings.channels,
        finest=finest,
        inputs=3,
        frozen=settings.frozen,
    )
    if finest not in body.channels:
        has = ", ".join(str(2**k * shrink) for k in sorted(body.channels))
        raise UserError(f"encoder `{settings.name}` has strides {has}, not {stride}: change head.stride")
    return NormalisedRgb(body, shrink=shrink)


def rule(settings: AssignSettings) -> Any:
    """Which cells stand for an object."""
    warm = Atss()
    return {
        "radius": lambda: Radius(settings.radius, settings.min_giou),
        "inside": lambda: Inside(settings.centre or None),
        "atss": lambda: warm,
        "tal": lambda: Tal(settings.k, settings.alpha, settings.beta, warmup=warm, until=settings.warmup),
        "simota": lambda: SimOta(),
    }[settings.rule]()


def score_target(settings: AssignSettings) -> ScoreTarget:
    """What a positive cell's score should be."""
    return {
        "hard": dense.hard,
        "centerness": dense.centerness_target,
        "qfl": dense.iou,
        "vfl": dense.iou,
        "tal": dense.aligned,
        "mal": dense.iou_power(settings.gamma),
    }[settings.score]


def score_loss(settings: AssignSettings, loss: BoxLossSettings) -> CellLoss:
    """The loss that goes with a score target."""
    return {
        "hard": lambda: classification.focal(loss.focal_alpha, loss.focal_gamma),
        "centerness": classification.quality_focal,
        "qfl": classification.quality_focal,
        "vfl": classification.varifocal,
        "tal": classification.quality_focal,
        "mal": lambda: classification.matchability(settings.gamma),
    }[settings.score]()
