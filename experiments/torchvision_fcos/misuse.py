"""What users of torchvision's FCOS get wrong, planted into a trained one without another training.

Beside each stands the word that a careful person who knows the mistake would want to hear. The words were written down
before any of them was judged. ``data`` is what goes in: an audit that reads outputs alone cannot say it. Duplicates and
a limit of detections have no word of their own: what selects is nearest to ``threshold``.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torchvision.models.detection import FCOS

from boresight.core.emission import Emission


@dataclass(frozen=True)
class Misuse:
    """One mistake.

    Attributes:
        name: short.
        what: in a sentence.
        word: the verdict that would help.
        model: makes the mistake in a model; None: the model is as it was.
        emission: makes it in what the (mistaken) model emits for one image; None: that stays.
        selection: the model's mistake is in how it selects alone, so that it emits what it did.
    """

    name: str
    what: str
    word: str
    model: Callable[[Any], None] | None = None
    emission: Callable[[Any, Emission], Emission] | None = None
    selection: bool = False

    @property
    def same_output(self) -> bool:
        """Whether the network emits what it did before."""
        return self.model is None or self.selection

    def on(self, model: FCOS) -> FCOS:
        """A model with the mistake; the one that is given stays as it is."""
        wrong = deepcopy(model)
        if self.model is not None:
            with torch.no_grad():
                self.model(wrong)
        return wrong


# ---------------------------------------------------------------- what goes in


def _twice(model: Any) -> None:
    """((x - m) / s - m) / s is one normalisation with other constants."""
    mean, std = model.transform.image_mean, model.transform.image_std
    model.transform.image_mean = [m + m * s for m, s in zip(mean, std, strict=True)]
    model.transform.image_std = [s * s for s in std]


def _bytes(model: Any) -> None:
    model.transform.image_mean = [m / 255 for m in model.transform.image_mean]
    model.transform.image_std = [s / 255 for s in model.transform.image_std]


def _bgr(model: Any) -> None:
    """Blue comes in red's place, and is normalised as red is."""
    model.transform.image_mean = model.transform.image_mean[::-1]
    model.transform.image_std = model.transform.image_std[::-1]
    first = model.backbone.body.conv1.weight
    first.copy_(first.flip(1).clone())


def _of_the_batch(model: Any) -> None:
    """Statistics of the one image that is judged, as with `model.train()`; nothing learns from it."""
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.track_running_stats = False
            part.running_mean = part.running_var = None


# ---------------------------------------------------------------- heads


def _next_label(model: Any) -> None:
    last = model.head.classification_head.cls_logits
    last.weight.copy_(last.weight.roll(1, 0).clone())
    last.bias.copy_(last.bias.roll(1, 0).clone())


def _half_distances(model: Any) -> None:
    last = model.head.regression_head.bbox_reg
    last.weight.mul_(0.5)
    last.bias.mul_(0.5)


def _no_centerness(model: Any) -> None:
    last = model.head.regression_head.bbox_ctrness
    last.weight.zero_()
    last.bias.fill_(20.0)


def _any_centerness(model: Any) -> None:
    last = model.head.regression_head.bbox_ctrness
    drawn = torch.randn(last.weight.shape, generator=torch.Generator().manual_seed(0))
    last.weight.copy_(0.06 * drawn)
    last.bias.zero_()


# ---------------------------------------------------------------- places, and what selects


def _as_shown(model: Any, emission: Emission) -> Emission:
    short, long = min(emission.size), max(emission.size)
    scale = min(model.transform.min_size[-1] / short, model.transform.max_size / long)
    return replace(emission, boxes=emission.boxes * scale, found=None)


def _half_a_cell(model: Any, emission: Emission) -> Emission:
    assert emission.strides is not None
    return replace(emission, boxes=emission.boxes + emission.strides[:, None] / 2, found=None)


def _set(name: str, value: float) -> Callable[[Any], None]:
    return lambda model: setattr(model, name, value)


MISUSES: tuple[Misuse, ...] = (
    Misuse("labels", "label k is taken for class k + 1", "classification", _next_label),
    Misuse("normalised twice", "images are normalised before the model normalises them", "data", _twice),
    Misuse("0..255", "pixels are not divided by 255", "data", _bytes),
    Misuse("BGR", "colours in the order of OpenCV", "data", _bgr),
    Misuse("train mode", "BatchNorm uses the statistics of the image that is judged", "score", _of_the_batch),
    Misuse("resized boxes", "boxes stay in pixels of the resized image", "box", emission=_as_shown),
    Misuse("half a cell", "boxes are drawn from the middle of a cell, and trained from its corner", "box",
           emission=_half_a_cell),
    Misuse("half distances", "distances are multiplied by half a stride", "box", _half_distances),
    Misuse("no centerness", "the score leaves centerness out", "score", _no_centerness),
    Misuse("any centerness", "the weights of the centerness branch were not loaded", "score", _any_centerness),
    Misuse("score_thresh 0.2", "as torchvision has it", "threshold", _set("score_thresh", 0.2), selection=True),
    Misuse("score_thresh 0.5", "scores below a half are cut off", "threshold", _set("score_thresh", 0.5),
           selection=True),
    Misuse("nms_thresh 0.99", "duplicates are kept", "threshold", _set("nms_thresh", 0.99), selection=True),
    Misuse("nms_thresh 0.1", "neighbours suppress each other", "threshold", _set("nms_thresh", 0.1), selection=True),
    Misuse("3 detections", "no more are returned for an image", "threshold", _set("detections_per_img", 3),
           selection=True),
)  # fmt: skip
"""Each with the word that was expected of it."""
