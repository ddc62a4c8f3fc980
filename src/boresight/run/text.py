"""The text-query detector, and its localisation alone: from settings to parts, and what is said of a trained one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from boresight.core.errors import UserError
from boresight.core.types import Detections, Scene
from boresight.data.box_augment import BoxAugment
from boresight.decode.boxes import BoxDecoder
from boresight.decode.fusion import Fusion
from boresight.detectors.detector import Detector
from boresight.detectors.frozen_maps import FrozenMaps, Similarity
from boresight.detectors.gt_class import GtClass
from boresight.detectors.text_query import BoxAssigner, TextCriterion, TextQuery
from boresight.evaluate.average_precision import ap_interval
from boresight.evaluate.box_match import box_table
from boresight.evaluate.box_threshold import best_f_threshold, per_image_counts
from boresight.evaluate.detection import base_novel, classification_accuracy, coco_figures
from boresight.evaluate.presence import best_scores, presence_auc, present_classes
from boresight.features import clip_text
from boresight.features.class_maps import similarity
from boresight.features.clip_load import load_clip
from boresight.features.clip_text import TextEncoder
from boresight.features.frozen import DiskStore, FeatureStore, FrozenFeatures, MemoryStore
from boresight.features.pyramid import SmallPyramid, TimmPyramid
from boresight.features.rgb import NormalisedRgb, SqueezePyramid
from boresight.heads.learned_queries import LearnedQueries
from boresight.heads.text_query import TextQueryHead
from boresight.losses import classification
from boresight.losses.classification import CellLoss
from boresight.run.boxes import box_splits, query_texts
from boresight.run.config_text import (
    AssignSettings,
    BoxLossSettings,
    ClipSettings,
    ImageEncoderSettings,
    TextSettings,
)
from boresight.run.detect import detect
from boresight.run.frames import expanded
from boresight.run.recipe import Examination, Frames, Judgement, Recipe, Request, View
from boresight.run.results import box_results, shown
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


def text_detector(settings: TextSettings, classes: tuple[str, ...]) -> TextQuery:
    """The detector that the settings describe, asked for the classes."""
    scored = settings.detector == "text"
    s, head = settings.supervise, settings.head
    maps = frozen_maps(settings.clip, query_texts(classes, settings.data.queries))
    encoder = image_encoder(settings.encoder, stride=head.stride)
    inside = settings.decode.fusion == "learned"
    fusion = Fusion(
        settings.decode.fusion if scored else "raw",
        settings.decode.map_weight,
        quality=s.quality,
        objectness=s.objectness and scored,
    )
    query_head = TextQueryHead(
        settings.encoder.channels,
        maps.features.clip.channels(settings.clip.layers),
        maps.text.shape[1],
        width=head.width,
        embed=head.embed,
        depth=head.depth,
        stride=head.stride,
        box=head.box,
        learned_fusion=inside,
        score=scored,
        quality=s.quality > 0,
        objectness=fusion.objectness,
        prior=head.prior,
        side=head.side,
    )
    loss = settings.loss
    criterion = TextCriterion(
        score_loss(settings.assign, loss),
        on="emitted" if s.emitted else "raw",
        fusion=fusion,
        cls=loss.cls,
        l1=loss.l1,
        giou=loss.giou,
        objectness=loss.objectness if fusion.objectness else 0.0,
        quality=loss.quality if s.quality > 0 else 0.0,
    )
    decode = settings.decode
    decoder = BoxDecoder(decode.threshold if scored else 0.0, decode.nms, decode.top_k, trained_reach=s.trained_reach)
    assigner = BoxAssigner(
        rule(settings.assign), score_target(settings.assign), "inside" if s.inside_boxes else "positive"
    )
    kind = TextQuery if scored else GtClass
    divisor = max(16 * settings.encoder.shrink, head.stride)
    learned = LearnedQueries(len(classes), maps.text.shape[1]) if head.learn_queries else None
    return kind(maps, encoder, query_head, assigner, criterion, fusion, decoder, divisor=divisor, learned=learned)


def frozen_maps(settings: ClipSettings, queries: Sequence[str]) -> FrozenMaps:
    """The frozen encoder's side."""
    clip = load_clip(settings.name, settings.weights, activation=settings.activation)
    store: FeatureStore = MemoryStore(settings.store_mb)
    if settings.store == "disk":
        if not settings.store_folder:
            raise UserError("`clip.store_folder` is empty: name the folder in which features are kept on disk")
        store = DiskStore(Path(settings.store_folder))
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
    if settings.name in ("small", "squeezenet") and finest not in BUILT_IN[settings.name]:
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
    )
    if finest not in body.channels:
        has = ", ".join(str(2**k * shrink) for k in sorted(body.channels))
        raise UserError(f"encoder `{settings.name}` has strides {has}, not {stride}: change head.stride")
    if settings.frozen:
        body.body.requires_grad_(False)
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


def text_view(settings: TextSettings) -> View:
    """Training views."""
    a = settings.augment
    augment = BoxAugment(
        crop=a.crop,
        positive_share=a.positive_share,
        scale=a.scale,
        flip=a.flip,
        gain=a.gain,
        shift=a.shift,
        colour=a.colour,
        min_visible=a.min_visible,
    )

    def view(frames: Frames, index: int, rng: np.random.Generator) -> Scene:
        return augment(frames[index], rng)

    return view


def judge_boxes(
    settings: TextSettings, classes: tuple[str, ...], scenes: Sequence[Scene], found: Sequence[Detections]
) -> Judgement:
    """AP50 on these images, and the threshold: the reference's own, or that of the best F1."""
    figures = coco_figures(scenes, found, classes)
    decode = settings.decode
    threshold = decode.threshold if decode.operating == "fixed" else best_f_threshold(scenes, found)
    told = {"ap50": figures.ap50, "ap": figures.ap, "ar_100": figures.ar_100}
    return Judgement(score=figures.ap50 or 0.0, name="AP50", threshold=threshold, figures=told)


COLUMNS = {
    "image": "string",
    "image_id": "int64",
    "cell": "int64",
    "class": "string",
    "score": "float64",
    "x0": "float64",
    "y0": "float64",
    "x1": "float64",
    "y1": "float64",
    "iou": "float64",
    "object": "int64",
    "kind": "string",
}
"""``matches.parquet``: a row a detection (hit, duplicate, wrong_class, false_alarm, ignored), one a missed object."""


def examine_boxes(detector: Detector, settings: TextSettings, request: Request) -> Examination:
    """Detect on a split, asked for every class that it knows, and judge by COCO's rules."""
    assert isinstance(detector, TextQuery)
    splits = request.splits
    classes = splits.classes + (splits.novel if request.split == "test" else ())
    detector.ask(query_texts(classes, settings.data.queries))
    frames, indices = request.frames, range(request.count)
    found = detect(detector, frames, indices, quiet=request.quiet)
    scenes = [frames[i] for i in indices]
    figures = box_figures(classes, splits.novel, scenes, found, request)
    ids = [s.image_id for s in scenes]
    predictions = box_results(ids, found, 0.0, range(1, len(classes) + 1))
    rows = box_rows(classes, scenes, found, request.threshold)
    return Examination(figures | {"frozen": detector.frozen}, predictions, rows, COLUMNS)


def box_figures(
    classes: Sequence[str],
    novel: Sequence[str],
    scenes: Sequence[Scene],
    found: Sequence[Detections],
    request: Request,
) -> dict[str, Any]:
    """All figures of box detection."""
    coco = coco_figures(scenes, found, classes)
    parts = base_novel(coco, novel if request.split == "test" else ())
    named = classification_accuracy(scenes, found)
    present, known = present_classes(scenes, len(classes))
    counts = per_image_counts(scenes, found, request.threshold)
    tp, fp, fn = (int(v) for v in counts.sum(0))
    interval = ap_interval(scenes, found, classes, replicates=request.bootstrap)[1] if request.bootstrap else None
    return {
        "threshold": request.threshold,
        **coco.to_dict(),
        "ap50_base": parts.ap50.base,
        "ap50_novel": parts.ap50.novel,
        "ap50_harmonic": parts.ap50.harmonic_mean,
        "ap_base": parts.ap.base,
        "ap_novel": parts.ap.novel,
        "classification_accuracy": named.accuracy,
        "classification_objects": named.n,
        "presence_auc": presence_auc(best_scores(found, len(classes)), present, known).auc,
        "f1": 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else None,
        "false_alarms_per_image": fp / len(scenes),
        "intervals": {"ap50": interval},
        "per_image": dict(zip(("tp", "fp", "fn"), counts.T.tolist(), strict=True)),
    }


def box_rows(
    classes: Sequence[str], scenes: Sequence[Scene], found: Sequence[Detections], threshold: float
) -> list[dict[str, Any]]:
    """Rows of ``matches.parquet``: what each detection was, at the threshold, and what was missed."""
    rows, missed = box_table(scenes, found, threshold=threshold)
    table: list[dict[str, Any]] = []
    for r in rows:
        place = dict(zip(("x0", "y0", "x1", "y1"), r.box, strict=True))
        own = {"cell": r.cell, "class": classes[r.label], "score": r.score, "iou": r.iou, "object": r.object}
        table.append(
            {"image": scenes[r.image].name, "image_id": scenes[r.image].image_id, **own, **place, "kind": r.kind}
        )
    for m in missed:
        place = dict(zip(("x0", "y0", "x1", "y1"), m.box, strict=True))
        own = {"class": classes[m.label], "object": m.object, "kind": "missed"}
        table.append({"image": scenes[m.image].name, "image_id": scenes[m.image].image_id, **own, **place})
    return table


def box_summary(figures: dict[str, Any]) -> str:
    """The figures that matter, for a person."""
    rows = [
        ("AP50", "ap50"),
        ("AP (IoU .50:.95)", "ap"),
        ("AP50 of classes never trained", "ap50_novel"),
        ("named rightly, of objects boxed well", "classification_accuracy"),
        ("presence AUC", "presence_auc"),
        (f"F1 at the threshold {figures['threshold']:.3f}", "f1"),
    ]
    head = f"{figures['split']}: {figures['images']} images, {figures['truths']} objects, IoU 0.5"
    return "\n".join([head, *(f"  {text:<42} {shown(figures, key)}" for text, key in rows)])


TEXT = Recipe(
    name="text",
    settings=TextSettings,
    build=text_detector,
    frames=lambda settings, only: box_splits(settings.data, only),
    view=text_view,
    judge=judge_boxes,
    examine=examine_boxes,
    figures=("ap50", "ap", "ap50_novel", "classification_accuracy", "presence_auc", "f1"),
    monitor="ap50",
    summary=box_summary,
)
