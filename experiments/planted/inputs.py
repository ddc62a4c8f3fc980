"""Faults of images and labels: one pipeline reads them in another way than the other, or labels are wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boresight.core.types import Points, Scene
from boresight.run.recipe import Splits
from planted.tiny import (
    SYSTEMS,
    TWICE,
    Changed,
    Fault,
    with_frames,
    with_settings,
    with_splits,
    with_views,
)

SEEN = {"data.frames": 24, "data.val_frames": 24}
"""Enough images to look at."""


def _boxes(change: Callable[[Tensor, float, float], Tensor]) -> Callable[[Scene], Scene]:
    """Boxes (of points: their places) of a scene, given with its width and height, changed."""

    def changed(scene: Scene, count: int = 0) -> Scene:
        height, width = scene.size
        if scene.points is not None:
            xy = change(torch.cat((scene.points.xy, scene.points.xy), 1), width, height)[:, :2]
            return replace(scene, points=replace(scene.points, xy=xy))
        assert scene.boxes is not None
        return replace(scene, boxes=change(scene.boxes, width, height))

    return changed


def _whole(boxes: Tensor, width: float, height: float) -> Tensor:
    """Boxes in the image and with area, so that the training goes through."""
    end = boxes.new_tensor([width, height])
    low = boxes[:, :2].clamp(min=0).minimum(end - 2)
    return torch.cat((low, torch.maximum(boxes[:, 2:].minimum(end), low + 1)), 1)


def _corner_and_size(boxes: Tensor, width: float, height: float) -> Tensor:
    return _whole(torch.cat((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), 1), width, height)


def _raw_corner_and_size(boxes: Tensor, width: float, height: float) -> Tensor:
    return torch.cat((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), 1)


def _half_outside(scene: Scene) -> Scene:
    """Every second image of another size than its labels."""
    assert scene.boxes is not None
    away = scene.image_id % 2
    return replace(scene, boxes=scene.boxes + 0.8 * max(scene.size) * away)


def _mirrored(scene: Scene, count: int) -> Scene:
    """The pixels of every view are mirrored, its labels are not."""
    return replace(scene, image=scene.image.flip(-1), view=None)


def _twins(scene: Scene) -> Scene:
    """Every object is listed twice."""
    if scene.points is not None:
        p = scene.points
        both = {n: torch.cat((v, v)) for n in ("xy", "labels", "ignore") if (v := getattr(p, n)) is not None}
        return replace(scene, points=Points(**both))
    assert scene.boxes is not None
    assert scene.labels is not None
    ignore = None if scene.ignore is None else torch.cat((scene.ignore, scene.ignore))
    twice = torch.cat((scene.boxes, scene.boxes))
    return replace(scene, boxes=twice, labels=torch.cat((scene.labels, scene.labels)), ignore=ignore)


def _without_class(scene: Scene) -> Scene:
    """The labels of the first class are lost."""
    assert scene.boxes is not None
    assert scene.labels is not None
    keep = scene.labels != 0
    return replace(
        scene,
        boxes=scene.boxes[keep],
        labels=scene.labels[keep],
        ignore=None if scene.ignore is None else scene.ignore[keep],
    )


def _leaked(splits: Splits) -> Splits:
    """A third of the validation images are training images."""
    few = len(splits.val) // 3

    class Mixed(Changed):
        def __getitem__(self, index: int) -> Scene:
            return splits.train[index] if index < few else self.frames[index]

    return replace(splits, val=Mixed(splits.val, lambda scene: scene))


def _other_labels(splits: Splits) -> Splits:
    """The labels of training images are those of the next image."""
    frames = splits.train

    class Moved(Changed):
        def __getitem__(self, index: int) -> Scene:
            mine, next_ = self.frames[index], self.frames[(index + 1) % len(self.frames)]
            return replace(mine, boxes=next_.boxes, labels=next_.labels, ignore=next_.ignore, points=next_.points)

    return replace(splits, train=Moved(frames, lambda scene: scene))


def _of_floats(change: Callable[[Tensor], Tensor]) -> Callable[[Scene], Scene]:
    return lambda scene: replace(scene, image=change(scene.image.float()))


def _cached_at_zero(scene: Scene) -> Scene:
    """A cache that was never filled gives black images."""
    return replace(scene, image=torch.zeros_like(scene.image))


def _one_seed(system: str) -> Any:
    """The recipe whose views are made with the same generator every time."""
    recipe = SYSTEMS[system][0]

    def view(settings: Any) -> Any:
        plain = recipe.view(settings)
        return lambda frames, index, rng: plain(frames, index, np.random.default_rng(0))

    return replace(recipe, view=view)


IMAGENET = (torch.tensor([123.7, 116.3, 103.5])[:, None, None], torch.tensor([58.4, 57.1, 57.4])[:, None, None])

IMAGES = (
    Fault(
        "blue for red",
        "validation images are read as BGR",
        "text",
        ("channels-exchanged",),
        with_settings("text", SEEN | TWICE, recipe=with_frames("text", _of_floats(lambda i: i.flip(0)), "val")),
    ),
    Fault(
        "shares of 255",
        "validation images hold 0..1, training images 0..255",
        "text",
        ("inputs-differ",),
        with_settings("text", TWICE, recipe=with_frames("text", _of_floats(lambda i: i / 255), "val")),
    ),
    Fault(
        "normalised twice",
        "ImageNet's mean and deviation are taken off validation images before the detector does",
        "localise",
        ("inputs-differ",),
        with_settings(
            "localise",
            TWICE,
            recipe=with_frames("localise", _of_floats(lambda i: (i - IMAGENET[0]) / IMAGENET[1]), "val"),
        ),
    ),
    Fault(
        "raw views",
        "training views hold 0..1, frames 0..255",
        "text",
        ("inputs-differ",),
        with_settings(
            "text", TWICE, recipe=with_views("text", lambda s, n: replace(s, image=s.image.float() / 255, view=None))
        ),
    ),
    Fault(
        "black",
        "validation images come black from their cache",
        "text",
        ("inputs-differ",),
        with_settings("text", TWICE, recipe=with_frames("text", _cached_at_zero, "val")),
    ),
    Fault(
        "leak",
        "a third of the validation images are training images",
        "point",
        ("split-leak",),
        with_settings("point", TWICE, recipe=with_splits("point", _leaked)),
    ),
    Fault(
        "one seed",
        "every view is made with the same seed",
        "text",
        ("views-repeat",),
        with_settings("text", TWICE, recipe=_one_seed("text")),
    ),
)
TRUTH = (
    Fault(
        "corner and size",
        "x, y, width, height are read as two corners",
        "localise",
        ("labels-off-objects",),
        with_settings(
            "localise", SEEN | TWICE, recipe=with_frames("localise", _boxes(_corner_and_size), "train", "val")
        ),
    ),
    Fault(
        "inside out",
        "the same of validation boxes, which nothing checks",
        "text",
        ("labels-invalid",),
        with_settings("text", TWICE, recipe=with_frames("text", _boxes(_raw_corner_and_size), "val")),
    ),
    Fault(
        "y before x",
        "x and y of validation boxes are exchanged",
        "text",
        ("labels-off-objects",),
        with_settings(
            "text", SEEN | TWICE, recipe=with_frames("text", _boxes(lambda b, w, h: b[:, [1, 0, 3, 2]]), "val")
        ),
    ),
    Fault(
        "points y before x",
        "x and y of points are exchanged, in training and validation",
        "point",
        ("labels-off-objects",),
        with_settings(
            "point",
            SEEN | TWICE,
            recipe=with_frames("point", _boxes(lambda b, w, h: _whole(b[:, [1, 0, 3, 2]], w, h)), "train", "val"),
        ),
    ),
    Fault(
        "half the size",
        "boxes belong to images of half the size",
        "refine",
        ("labels-off-objects",),
        with_settings(
            "refine", SEEN | TWICE, recipe=with_frames("refine", _boxes(lambda b, w, h: b / 2), "train", "val")
        ),
    ),
    Fault(
        "mirror",
        "views are mirrored, their boxes are not",
        "text",
        ("labels-off-objects",),
        with_settings("text", SEEN | TWICE, recipe=with_views("text", _mirrored)),
    ),
    Fault(
        "next image",
        "training images have the labels of the next image",
        "text",
        ("labels-off-objects",),
        with_settings("text", SEEN | TWICE, recipe=with_splits("text", _other_labels)),
    ),
    Fault(
        "out of sight",
        "half of the validation boxes lie outside of the image",
        "text",
        ("labels-invalid",),
        with_settings("text", SEEN | TWICE, recipe=with_frames("text", _half_outside, "val")),
    ),
    Fault(
        "twins",
        "every object is labelled twice",
        "text",
        ("labels-twice",),
        with_settings("text", TWICE, recipe=with_frames("text", _twins, "train", "val")),
    ),
    Fault(
        "lost class",
        "all labels of one class are lost",
        "text",
        ("class-without-objects",),
        with_settings("text", {}, recipe=with_frames("text", _without_class)),
    ),
)
