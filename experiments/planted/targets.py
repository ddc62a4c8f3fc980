"""Faults of what a text-query detector is asked, taught and read by."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from boresight.core.types import Scene
from boresight.decode.boxes import BoxDecoder
from boresight.detectors.frozen_maps import FrozenMaps
from boresight.detectors.text_query import BoxAssigner
from planted.tiny import LONG, TWICE, Fault, patched, replaced, with_settings, with_views, within

SEEN = {"data.frames": 24, "data.val_frames": 24}
LARGE = LONG | SEEN | {"data.height": 160, "data.width": 160, "encoder.channels": 24, "head.width": 24}
"""Scenes large enough for the class maps to say something."""
MANY: dict[str, Any] = {
    "data.kinds": ("aircraft", "vehicle", "storage tank"),
    "data.colours": ("red", "white", "blue"),
}
SPEAKING: dict[str, Any] = LARGE | {"data.kinds": ("aircraft", "ship"), "data.colours": ("red", "white")}
"""Classes that the frozen encoder knows at this size: of others its maps are switched off by their calibration."""


def _without_objects(scene: Scene, count: int) -> Scene:
    """Crops are placed where nothing is."""
    none = torch.zeros(0, dtype=torch.long)
    return replace(scene, boxes=torch.zeros(0, 4), labels=none, ignore=None)


def _rolled(stack: ExitStack) -> None:
    """Each class is asked by the words of the next."""
    asked = FrozenMaps.forward

    def maps(self: Any, *given: Any) -> Any:
        found = asked(self, *given)
        roll = {n: getattr(found, n).roll(1, 1) for n in ("cam", "evidence", "presence")}
        return replace(found, **roll)

    stack.enter_context(patch.object(FrozenMaps, "forward", maps))


def _inverted(asked: Callable[..., Any]) -> Callable[..., Any]:
    """The class map says where the class is not."""

    def maps(self: Any, *given: Any) -> Any:
        found = asked(self, *given)
        return replace(found, cam=1 - found.cam, evidence=-found.evidence, presence=-found.presence)

    return maps


def _anywhere(call: Callable[..., Any]) -> Callable[..., Any]:
    """Positive cells lie half a map beside their objects."""

    def assign(self: Any, output: Any, score: Tensor, scenes: Any, progress: float) -> Any:
        targets = call(self, output, score, scenes, progress)
        way = (targets.positive.shape[2] // 2, targets.positive.shape[3] // 2)
        moved = {n: getattr(targets, n).roll(way, (2, 3)) for n in ("positive", "matched", "score")}
        return replace(targets, **moved)

    return assign


def _half_stride(call: Callable[..., Any]) -> Callable[..., Any]:
    """Boxes are returned in cells of half the stride."""
    return lambda self, output, score, sizes: call(self, replace(output, boxes=output.boxes / 2), score, sizes)


TAUGHT = (
    Fault(
        "empty crops",
        "no training view holds an object",
        "text",
        ("no-objects",),
        with_settings("text", {}, recipe=with_views("text", _without_objects)),
    ),
    Fault(
        "cells elsewhere",
        "positive cells lie half a map beside their objects",
        "text",
        ("geometry-round-trip",),
        within(BoxAssigner, "__call__", _anywhere, "text", TWICE),
    ),
    Fault(
        "half the stride",
        "returned boxes are in pixels of an image of half the size",
        "localise",
        ("geometry-round-trip",),
        within(BoxDecoder, "__call__", _half_stride, "localise", TWICE),
    ),
    Fault(
        "one alone",
        "one box an image is returned",
        "text",
        ("geometry-round-trip",),
        with_settings("text", TWICE | SEEN | {"decode.top_k": 1}),
    ),
    Fault(
        "words of the next",
        "the class maps of a class are those of another",
        "text",
        ("class-maps-exchanged",),
        patched(_rolled, "text", SPEAKING | MANY),
        word="classification",
    ),
    Fault(
        "inverted map",
        "the class map says where the class is not",
        "text",
        ("class-map-inverted",),
        within(FrozenMaps, "forward", _inverted, "text", SPEAKING),
        word="classification",
    ),
    Fault(
        "one key",
        "every image has the same key, so that all have the features of the first",
        "text",
        ("stored-features-differ",),
        patched(replaced("boresight.features.frozen.image_key", lambda image: "0" * 32), "text", LARGE),
        word="classification",
    ),
    Fault(
        "never validated",
        "a fixed threshold of 0.99 on scores that do not reach it",
        "text",
        ("threshold-off",),
        with_settings("text", LONG | {"decode.operating": "fixed", "decode.threshold": 0.99}),
    ),
)
EVERYWHERE = (
    Fault(
        "unknown words",
        "classes that the frozen encoder does not know at this size",
        "text",
        ("class-map-silent",),
        with_settings("text", TWICE | SEEN),
    ),
)
"""What is so of every tiny training of boxes: a rule must name it, but nothing was planted."""
