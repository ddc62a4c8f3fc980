"""Faults of the loss and of what is asked of the detector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from boresight.core.types import Points, Scene
from boresight.detectors import gaussian_point
from boresight.losses.classification import bce
from planted.tiny import (
    LONG,
    SHORT,
    TWICE,
    Fault,
    built,
    patched,
    replaced,
    with_frames,
    with_settings,
    with_views,
    within,
)


def _without_objects(scene: Scene) -> Scene:
    if scene.points is not None:
        return replace(scene, points=Points.of([]))
    none = torch.zeros(0, dtype=torch.long)
    made = replace(scene, boxes=torch.zeros(0, 4), labels=none, ignore=None)
    if made.proposals is not None:
        made = replace(made, proposals=type(made.proposals)(torch.zeros(0, 4), none, torch.zeros(0), none))
    return made


def _tiny(scene: Scene, count: int) -> Scene:
    """In the 14th step, boxes of a thousandth of a pixel, as a wrong division leaves them."""
    if not 56 <= count < 60 or scene.boxes is None:
        return scene
    middle = (scene.boxes[:, :2] + scene.boxes[:, 2:]) / 2
    return replace(scene, boxes=torch.cat((middle, middle + 1e-3), dim=-1))


def _infinite(scene: Scene, count: int) -> Scene:
    """From the 30th view on one pixel is infinite."""
    if count < 30:
        return scene
    image = scene.image.clone()
    image[0, 3, 3] = torch.inf
    return replace(scene, image=image)


def _giant(scene: Scene, count: int) -> Scene:
    """One object that fills the image, among several of 5 pixels."""
    height, width = scene.size
    small = torch.tensor([[8.0 * i + 4, 8.0 * i + 4, 8.0 * i + 9, 8.0 * i + 9] for i in range(8)])
    boxes = torch.cat((torch.tensor([[0.0, 0.0, width, height]]), small))
    return replace(scene, boxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.long), ignore=None)


def _two(assign: Callable[..., Any]) -> Callable[..., Any]:
    """Targets of the first two objects of an image: an array of fixed length has room for no more."""

    def truncated(self: Any, output: Any, scenes: Sequence[Scene]) -> Any:
        first = [replace(s, points=s.points.select(torch.arange(min(2, len(s.points))))) for s in scenes]  # type: ignore[union-attr, arg-type]
        return assign(self, output, first)

    return truncated


def _in_pixels(boxes: Tensor, wanted: Tensor) -> Tensor:
    return (boxes - wanted).abs().sum(-1)


def _bce(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Scores by plain cross-entropy, whatever their targets."""

    def built(settings: Any, classes: tuple[str, ...]) -> nn.Module:
        detector: Any = build(settings, classes)
        detector.criterion = replace(detector.criterion, cell_loss=bce)
        return detector

    return built


def _coarse_without(plain: Callable[..., Any]) -> Callable[..., Any]:
    def targets(fine: Any, factor: int) -> Any:
        made = plain(fine, factor)
        return replace(made, positive=torch.zeros_like(made.positive)) if factor > 2 else made

    return targets


HARD = {"target.label": "hard", "loss.name": "bce", "loss.per": "cells"}
SPARSE = {"data.height": 128, "data.width": 160, "augment.crop": 96, "augment.positive_share": 0.0}

LOSSES = (
    Fault(
        "background",
        "one-pixel labels and cross-entropy averaged over all cells",
        "point",
        ("background-trap",),
        with_settings("point", HARD | SPARSE | LONG, probe=False),
    ),
    Fault(
        "calibration",
        "the same on crops full of targets: ranking is learned, and 0.5 finds nothing",
        "point",
        ("threshold-half",),
        with_settings("point", HARD | LONG, probe=False),
    ),
    Fault(
        "bias of zero",
        "a fresh head says 0.5 everywhere",
        "point",
        ("prior-missing", "first-step-shock"),
        with_settings("point", SPARSE | SHORT | {"head.prior": 0.5}),
    ),
    Fault(
        "no weighing",
        "cross-entropy over cells, a fresh head at 0.5",
        "point",
        ("gradient-share",),
        with_settings("point", HARD | SPARSE | SHORT | {"head.prior": 0.5}),
    ),
    Fault(
        "far too fast",
        "a learning rate of 3 for four images, no clip",
        "point",
        ("learning-rate-high", "no-better-than-constant"),
        with_settings("point", LONG | {"train.learning_rate": 3.0, "train.clip": 0.0}),
    ),
    Fault(
        "a box without size",
        "one batch of boxes of a thousandth of a pixel, no clip",
        "localise",
        ("gradient-explosion",),
        with_settings("localise", {"train.clip": 0.0}, recipe=with_views("localise", _tiny), probe=False),
    ),
    Fault(
        "tight clip",
        "a clip of 0.001",
        "point",
        ("clip-always-active",),
        with_settings("point", {"train.clip": 1e-3}, probe=False),
    ),
    Fault(
        "dead sensor",
        "one frame holds an infinite value",
        "point",
        ("non-finite-loss",),
        with_settings("point", {}, recipe=with_views("point", _infinite)),
    ),
    Fault(
        "pixels",
        "the distance of edges in pixels",
        "localise",
        ("loss-out-of-range",),
        patched(replaced("boresight.losses.boxes.box_l1", _in_pixels), "localise", TWICE, probe=False),
    ),
    Fault(
        "soft floor",
        "cross-entropy with soft targets, learned as far as it goes",
        "text",
        ("entropy-floor",),
        with_settings(
            "text", LONG | {"assign.rule": "inside", "assign.score": "centerness"}, recipe=built("text", _bce)
        ),
    ),
)
TARGETS = (
    Fault(
        "no class map",
        "every label is dropped on the way",
        "point",
        ("no-objects",),
        with_settings("point", {}, recipe=with_frames("point", _without_objects), probe=False),
    ),
    Fault(
        "nothing taught",
        "the same of a refiner",
        "refine",
        ("zero-loss", "no-objects"),
        with_settings("refine", TWICE, recipe=with_views("refine", lambda scene, count: _without_objects(scene))),
    ),
    Fault(
        "limit out of reach",
        "only cells whose box overlaps by 1 are positive",
        "text",
        ("no-positives", "objects-without-positives", "positives-per-object"),
        with_settings("text", TWICE | {"assign.rule": "radius", "assign.min_giou": 1.0}),
    ),
    Fault(
        "empty level",
        "the coarsest level is supervised and never assigned",
        "point",
        ("positive-rate-of-level",),
        within(gaussian_point, "coarser_targets", _coarse_without, "point", SHORT),
    ),
    Fault(
        "one giant",
        "every cell inside is positive, and one object fills the image",
        "text",
        ("positives-uneven",),
        with_settings("text", TWICE | {"assign.rule": "inside", "head.stride": 4}, recipe=with_views("text", _giant)),
    ),
    Fault(
        "truncated",
        "targets hold two objects of an image",
        "point",
        ("targets-truncated",),
        within(gaussian_point.GaussianPoint, "assign", _two, "point", SHORT),
    ),
)
