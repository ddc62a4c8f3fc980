"""The text-query detector, and its localisation alone: from settings to parts, and what is said of a trained one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from boresight.core.types import Detections, Scene
from boresight.data.box_augment import BoxAugment
from boresight.decode.boxes import BoxDecoder
from boresight.decode.fusion import Fusion
from boresight.detectors.detector import Detector
from boresight.detectors.gt_class import GtClass
from boresight.detectors.text_query import BoxAssigner, TextCriterion, TextQuery
from boresight.diagnose.likeness import BoxIou
from boresight.evaluate.average_precision import ap_interval
from boresight.evaluate.box_match import box_table
from boresight.evaluate.box_threshold import best_f_threshold, per_image_counts
from boresight.evaluate.detection import base_novel, classification_accuracy, coco_figures
from boresight.evaluate.presence import best_scores, presence_auc, present_classes
from boresight.heads.learned_queries import LearnedQueries
from boresight.heads.text_query import TextQueryHead
from boresight.run.boxes import box_splits, query_texts
from boresight.run.calibrated import calibration_error
from boresight.run.config_text import (
    TextSettings,
)
from boresight.run.processes import detect_together
from boresight.run.recipe import Examination, Frames, Judgement, Recipe, Request, View
from boresight.run.results import box_results, shown
from boresight.run.text_parts import frozen_maps, image_encoder, rule, score_loss, score_target


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
    decoder = BoxDecoder(
        decode.threshold if scored else 0.0,
        decode.nms,
        decode.top_k,
        trained_reach=s.trained_reach,
        per_class=not scored,
    )
    assigner = BoxAssigner(
        rule(settings.assign), score_target(settings.assign), "inside" if s.inside_boxes else "positive"
    )
    kind = TextQuery if scored else GtClass
    divisor = max(16 * settings.encoder.shrink, head.stride)
    learned = LearnedQueries(len(classes), maps.text.shape[1]) if head.learn_queries else None
    return kind(maps, encoder, query_head, assigner, criterion, fusion, decoder, divisor=divisor, learned=learned)


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
        whole=a.whole,
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
    told["calibration_error"] = calibration_error(scenes, found, len(classes), BoxIou())
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
    found = detect_together(detector, frames, request.count, quiet=request.quiet)
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
        "calibration_error": calibration_error(scenes, found, len(classes), BoxIou()),
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
