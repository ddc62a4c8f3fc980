"""Faults of places, weights and speed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from boresight.core.types import Scene
from boresight.detectors import gaussian_point
from boresight.detectors.frozen_maps import FrozenMaps
from boresight.features.feature_store import MemoryStore
from boresight.run.optimise import MovingAverage
from planted.tiny import LONG, SHORT, TWICE, Fault, built, patched, replaced, with_settings, with_views, within


def _shifted(scene: Scene, count: int) -> Scene:
    """Labels half a cell to the right and down, as an even window put on whole cells leaves them."""
    assert scene.points is not None
    height, width = scene.size
    end = torch.tensor([width, height]) - 0.01
    return replace(scene, points=replace(scene.points, xy=(scene.points.xy + 2).minimum(end)))


def _halved(decode: Callable[..., Any]) -> Callable[..., Any]:
    """Boxes in the pixels of an image of half the size."""
    return lambda self, output: [replace(d, boxes=d.boxes / 2) for d in decode(self, output)]


def _top_left(image: Tensor, height: int, width: int) -> Tensor:
    _, h, w = image.shape
    return nn.functional.pad(image, (width - w, 0, height - h, 0), mode="replicate")


def _turned(xy: Tensor, stride: float) -> Tensor:
    """Pixels to cells, columns and rows exchanged."""
    return xy.flip(-1) / stride - 0.5


class _Stuck(nn.BatchNorm2d):
    """Batch normalisation that no one can switch to inference."""

    def train(self, mode: bool = True) -> _Stuck:
        return super().train(True)


class _Stale(nn.BatchNorm2d):
    """Batch normalisation with the running statistics of other images, which nothing updates."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=0.0)
        self.running_mean.fill_(0.5)  # type: ignore[union-attr]
        self.running_var.fill_(16.0)  # type: ignore[union-attr]


def _scaled(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    def built(settings: Any, classes: tuple[str, ...]) -> nn.Module:
        detector = build(settings, classes)
        with torch.no_grad():
            for module in detector.modules():
                if isinstance(module, nn.Conv2d):
                    module.weight.mul_(1e5)
        return detector

    return built


def _thawed(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """A frozen backbone that somebody thawed again."""

    def built(settings: Any, classes: tuple[str, ...]) -> nn.Module:
        detector = build(settings, classes)
        for module in detector.modules():
            if getattr(module, "frozen", None) is True:
                module.frozen = False  # type: ignore[assignment]
        return detector.requires_grad_(True)

    return built


class _SlowAverage(MovingAverage):
    """An average that reaches back to the first step from the start."""

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        torch._foreach_lerp_(list(self.module.parameters()), list(model.parameters()), 1e-4)
        self.n_averaged += 1


def _worn_encoder(stack: ExitStack) -> None:
    """Every look at the frozen encoder's hash finds it changed by training."""
    count = itertools.count()
    stack.enter_context(patch.object(FrozenMaps, "fingerprint", property(lambda self: f"{next(count):032x}")))


def _new_keys(stack: ExitStack) -> None:
    """An image's key is made of when it was asked for."""
    count = itertools.count()
    stack.enter_context(patch("boresight.features.frozen.image_key", lambda image: f"{next(count):032x}"))


def _small_store(stack: ExitStack) -> None:
    """Room for about three images of eight."""
    stack.enter_context(patch("boresight.run.text_parts.MemoryStore", lambda megabytes: MemoryStore(0.2)))


def _tired(scene: Scene, gain: float, shift: float, noise: float, rng: Any) -> Scene:
    time.sleep(0.02)
    return scene


NORM = "boresight.features.pyramid.nn.BatchNorm2d"

PLACES = (
    Fault(
        "coarse",
        "a level of stride 16 without a place in the cell",
        "point",
        ("level-too-coarse",),
        with_settings("point", SHORT | {"head.level": "p4", "decode.refine": "none"}),
    ),
    Fault(
        "half the pixels",
        "boxes are decoded at half the size",
        "point",
        ("geometry-round-trip",),
        within(gaussian_point.GaussianPoint, "decode", _halved, "point", SHORT),
    ),
    Fault(
        "rows for columns",
        "targets exchange rows and columns",
        "point",
        ("geometry-round-trip",),
        patched(replaced("boresight.targets.gaussian.pixel_to_cell", _turned), "point", SHORT),
    ),
    Fault(
        "wrong side",
        "images are padded at the top and left",
        "point",
        ("padding-shift",),
        patched(replaced("boresight.detectors.gaussian_point._padded", _top_left), "point", LONG),
    ),
    Fault(
        "half a cell",
        "training labels lie half a cell beside their targets",
        "point",
        ("labels-shifted",),
        with_settings("point", LONG, recipe=with_views("point", _shifted)),
    ),
)
WEIGHTS = (
    Fault(
        "stuck",
        "batch normalisation stays in training mode",
        "point",
        ("train-eval-parity",),
        patched(replaced(NORM, _Stuck), "point", SHORT),
    ),
    Fault(
        "stale statistics",
        "running statistics are those of other images",
        "point",
        ("train-eval-parity",),
        patched(replaced(NORM, _Stale), "point", LONG),
    ),
    Fault(
        "long average",
        "an average over 10,000 steps that does not start short",
        "point",
        ("ema-behind",),
        patched(replaced("boresight.run.train.MovingAverage", _SlowAverage), "point", LONG),
    ),
    Fault(
        "out of half",
        "weights 100,000 times too large",
        "point",
        ("fp16-overflow",),
        with_settings("point", SHORT, recipe=built("point", _scaled)),
    ),
    Fault(
        "thawed",
        "a frozen backbone is thawed and trained",
        "text",
        ("frozen-weights-moved",),
        with_settings(
            "text",
            TWICE | {"encoder.name": "squeezenet", "encoder.frozen": True},
            recipe=built("text", _thawed),
            as_written=True,
        ),
    ),
    Fault(
        "tuned encoder",
        "the frozen language-image encoder is written to in training",
        "text",
        ("frozen-hash-changed",),
        patched(_worn_encoder, "text", TWICE),
    ),
)
SPEED = (
    Fault(
        "slow view",
        "a change of brightness takes 20 ms",
        "point",
        ("loader-bound",),
        patched(replaced("boresight.data.augment.brightened", _tired), "point", {"augment.noise": 0.1}),
    ),
    Fault(
        "key of the hour",
        "the key of an image is new every time",
        "text",
        ("cache-key-unstable",),
        patched(_new_keys, "text", TWICE, probe=False),
    ),
    Fault(
        "small store",
        "the store holds three of eight images",
        "text",
        ("cache-hits-low",),
        patched(_small_store, "text", TWICE, probe=False),
    ),
)
