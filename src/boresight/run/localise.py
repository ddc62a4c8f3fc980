"""Localisation alone: how it is judged, from raw outputs on the true class's channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boresight.core.types import DenseOutput, Detections, Scene
from boresight.detectors.detector import Detector
from boresight.detectors.text_query import TextQuery
from boresight.evaluate.box_match import overlaps
from boresight.evaluate.box_set import BoxSet
from boresight.evaluate.dense_image import DenseImage
from boresight.evaluate.floors import training_sizes
from boresight.evaluate.localisation import LocalisationStudy
from boresight.run.boxes import box_splits, query_texts
from boresight.run.config_text import LocaliseSettings
from boresight.run.processes import shared
from boresight.run.progress import Progress
from boresight.run.recipe import Examination, Frames, Judgement, Recipe, Request
from boresight.run.results import box_results
from boresight.run.text import COLUMNS, box_figures, box_rows, text_detector, text_view


def reach(scenes: Sequence[Scene], found: Sequence[Detections]) -> float | None:
    """Mean over objects of the best IoU that a detection of the true class reaches; None without objects."""
    boxes = BoxSet.of(scenes, found)
    pairs = overlaps(boxes)
    same = boxes.found_label[pairs.found] == boxes.truth_label[pairs.truth]
    best = np.zeros(len(boxes.truth_label))
    np.maximum.at(best, pairs.truth[same], pairs.iou[same])
    counted = ~boxes.crowd
    return float(best[counted].mean()) if counted.any() else None


def judge_reach(
    settings: LocaliseSettings, classes: tuple[str, ...], scenes: Sequence[Scene], found: Sequence[Detections]
) -> Judgement:
    """How well the emitted boxes reach the objects. No score is trained, so no threshold is chosen: it is 0."""
    value = reach(scenes, found)
    return Judgement(score=value or 0.0, name="mean IoU", threshold=0.0, figures={"mean_iou": value})


def examine_localisation(detector: Detector, settings: LocaliseSettings, request: Request) -> Examination:
    """Everything that one forward pass says of localisation, with its chance floors and a verdict.

    The untrained head, one of the floors, is a fresh one of the same settings on the same frozen features.
    """
    assert isinstance(detector, TextQuery)
    splits = request.splits
    classes = splits.classes + (splits.novel if request.split == "test" else ())
    fresh = _untrained(detector, settings, splits.classes)
    for one in (detector, fresh):
        one.ask(query_texts(classes, settings.data.queries))
    prior = training_sizes(_truths(splits.train))

    def study(first: int) -> LocalisationStudy:
        return LocalisationStudy(
            classes, prior, replicates=max(request.bootstrap, 1), seed=settings.train.seed, first=first
        )

    def emitted(scene: Scene) -> tuple[DenseOutput, DenseImage]:
        there = scene.to(_device(detector))
        output = detector([there])
        return output, DenseImage.of(output, 0, detector.fusion.score(output), scene.size, fresh([there]).boxes)

    @torch.inference_mode()
    def judged(indices: range) -> list[tuple[LocalisationStudy, list[Scene], list[Detections]]]:
        mine, scenes, found = study(indices.start), list[Scene](), list[Detections]()
        if indices and indices.start:
            mine.precede(emitted(request.frames[indices.start - 1])[1])
        with Progress(len(indices), label="localise", quiet=request.quiet) as bar:
            for i in indices:
                scene = request.frames[i]
                output, image = emitted(scene)
                mine.add(image, scene)
                found.append(detector.decode(output)[0].to("cpu"))
                scenes.append(scene.without_pixels())
                bar.step(1)
        return [(mine, scenes, found)]

    whole, scenes, found = study(0), list[Scene](), list[Detections]()
    for part, some, theirs in shared(request.count, judged):
        whole.join(part)
        scenes += some
        found += theirs
    report = whole.report()
    figures = box_figures(classes, splits.novel, scenes, found, request)
    figures |= {"mean_iou": reach(scenes, found), "frozen": detector.frozen, "localisation": report.to_dict()}
    predictions = box_results([s.image_id for s in scenes], found, 0.0, range(1, len(classes) + 1))
    return Examination(figures, predictions, box_rows(classes, scenes, found, request.threshold), COLUMNS)


def _untrained(detector: TextQuery, settings: LocaliseSettings, classes: tuple[str, ...]) -> TextQuery:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.train.seed + 1)
        fresh = text_detector(settings, classes)
    fresh.maps.calibration.copy_(detector.maps.calibration)
    fresh.maps.share(detector.maps)
    return fresh.eval().to(_device(detector))


def _device(detector: TextQuery) -> torch.device:
    text: Tensor = detector.maps.text
    return text.device


def _truths(frames: Frames) -> list[Scene]:
    return [frames[i] for i in range(len(frames))]


def localise_summary(figures: dict[str, Any]) -> str:
    """The verdict and the ladder, for a person."""
    said = figures["localisation"]
    lines = [
        f"{figures['split']}: {said['images']} images, {said['objects']} objects",
        f"  {said['verdict']['sentence']}",
    ]
    return "\n".join(lines)


LOCALISE = Recipe(
    name="localise",
    settings=LocaliseSettings,
    build=text_detector,
    frames=lambda settings, only: box_splits(settings.data, only),
    view=text_view,
    judge=judge_reach,
    examine=examine_localisation,
    figures=("mean_iou", "ap50"),
    monitor="mean_iou",
    summary=localise_summary,
)
