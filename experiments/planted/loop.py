"""Faults of the loop around the detector: what is trained, by which rate, how it is stored, loaded and asked."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from boresight.core.types import Scene
from boresight.decode.boxes import BoxDecoder
from boresight.decode.fusion import Fusion
from boresight.detectors.gaussian_point import GaussianPoint
from boresight.detectors.text_query import BoxAssigner, TextQuery
from boresight.features.pyramid import SmallPyramid
from boresight.run import optimise, predict
from boresight.run.optimise import MovingAverage
from planted.tiny import LONG, SHORT, TWICE, Fault, built, patched, replaced, with_settings, within


def _frozen_head(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """A head that does not ask for a gradient, as a copied line leaves it."""

    def made(settings: Any, classes: tuple[str, ...]) -> nn.Module:
        detector: Any = build(settings, classes)
        detector.head.requires_grad_(False)
        return detector

    return made


def _encoder_alone(groups: Callable[..., Any]) -> Callable[..., Any]:
    """The optimiser is given the encoder's parameters alone."""
    return lambda model, decay: groups(model.encoder, decay)


def _restarted(share: Callable[..., float]) -> Callable[..., float]:
    """From the middle on the schedule counts from 0 again."""
    return lambda step, **plan: share(step - plan["steps"] // 2 if step >= plan["steps"] // 2 else step, **plan)


class _Never(MovingAverage):
    """An average with a decay of 1."""

    def update_parameters(self, model: nn.Module) -> None:
        self.n_averaged += 1


def _bias_reset(load: Callable[..., None]) -> Callable[..., None]:
    """After loading, the biases of the head are set to those of a fresh one."""

    def loaded(model: Any, *args: Any, **more: Any) -> None:
        load(model, *args, **more)
        with torch.no_grad():
            for name, value in model.named_parameters():
                if name.startswith("head") and name.endswith("bias"):
                    value.fill_(-4.6)

    return loaded


def _noisy(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Dropout by a function that is not told that this is inference."""

    def dropped(self: Any, image: Tensor) -> Any:
        found = forward(self, image)
        return {k: nn.functional.dropout(v, 0.3, training=True) for k, v in found.items()}

    return dropped


def _double_stride(forward: Callable[..., Any]) -> Callable[..., Any]:
    """In inference boxes are decoded with twice the stride."""

    def scaled(self: Any, scenes: Any) -> Any:
        output = forward(self, scenes)
        return output if self.training else replace(output, boxes=output.boxes * 2)

    return scaled


def _no_level(forward: Callable[..., Any]) -> Callable[..., Any]:
    """In inference the level of a frame is not taken off it."""

    def seen(self: Any, scenes: list[Scene]) -> Any:
        if not self.training:
            scenes = [replace(s, level=0.0) for s in scenes]
        return forward(self, scenes)

    return seen


def _twice(score: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The sigmoid of what is a probability."""
    return lambda self, output: score(self, output).sigmoid()


def _squeezed(call: Callable[..., Any]) -> Callable[..., Any]:
    """The decoder takes probabilities for logits."""
    return lambda self, output, score, sizes: call(self, output, score.sigmoid(), sizes)


def _drawn(score: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Scores are drawn at random."""
    return lambda self, output: torch.rand_like(score(self, output))


SMALL = 300.0
"""Square pixels: two of five objects of the tiny scenes are smaller."""


def _large_alone(call: Callable[..., Any]) -> Callable[..., Any]:
    """Objects below the median size have no positive cell."""

    def assign(self: Any, output: Any, score: Tensor, scenes: Any, progress: float) -> Any:
        targets = call(self, output, score, scenes, progress)
        side = (targets.objects[:, 2:] - targets.objects[:, :2]).prod(1)
        if not len(side):
            return targets
        small = (side < SMALL)[targets.matched.clamp(min=0)] & (targets.matched >= 0)
        return replace(
            targets,
            positive=targets.positive & ~small,
            matched=targets.matched.masked_fill(small, -1),
            score=targets.score.masked_fill(small, 0.0),
        )

    return assign


def _moved(call: Callable[..., Any]) -> Callable[..., Any]:
    """The objects of the targets lie off by a third of their size."""

    def assign(self: Any, output: Any, score: Tensor, scenes: Any, progress: float) -> Any:
        moved = [replace(s, boxes=_off(s.boxes)) for s in scenes]
        return call(self, output, score, moved, progress)

    return assign


def _off(boxes: Tensor) -> Tensor:
    side = (boxes[:, 2:] - boxes[:, :2]) * 0.35
    return boxes + torch.cat((side, side), 1)


def _no_suppression(stack: ExitStack) -> None:
    """Nothing is suppressed, whatever the settings say."""
    plain = BoxDecoder._one

    def one(self: BoxDecoder, *given: Any) -> Any:
        return plain(replace(self, nms=1.0), *given)

    stack.enter_context(patch.object(BoxDecoder, "_one", one))


LEARNED = LONG | {"train.steps": 200, "data.frames": 24, "data.val_frames": 24}
LEARNED |= {"encoder.channels": 24, "head.width": 24}
"""Enough to find most objects."""
RATE = "boresight.run.optimise.rate_share"

OPTIMISER = (
    Fault(
        "no rate",
        "the learning rate is 0 in every step",
        "point",
        ("weights-still",),
        patched(replaced(RATE, lambda step, **plan: 0.0), "point", SHORT),
    ),
    Fault(
        "crawl",
        "a learning rate of 1e-8",
        "text",
        ("weights-still",),
        with_settings("text", LONG | {"train.learning_rate": 1e-8}),
    ),
    Fault(
        "frozen head",
        "the head does not ask for a gradient",
        "point",
        ("weights-still",),
        with_settings("point", SHORT, recipe=built("point", _frozen_head)),
    ),
    Fault(
        "forgotten head",
        "the optimiser has the parameters of the encoder alone",
        "text",
        ("weights-still",),
        within(optimise, "parameter_groups", _encoder_alone, "text", TWICE),
    ),
    Fault(
        "heavy decay",
        "a weight decay of 100",
        "point",
        ("weight-decay-high",),
        with_settings("point", {"train.weight_decay": 100.0}),
    ),
    Fault(
        "schedule anew",
        "the schedule begins again in the middle",
        "point",
        ("schedule-restarted",),
        within(optimise, "rate_share", _restarted, "point", LONG),
    ),
    Fault(
        "hundredfold",
        "a learning rate 100 times the usual one, clipped",
        "text",
        ("learning-rate-high",),
        with_settings("text", LONG | {"train.learning_rate": 0.2}),
    ),
    Fault(
        "average of the start",
        "averaged weights with a decay of 1",
        "point",
        ("ema-behind",),
        patched(replaced("boresight.run.train.MovingAverage", _Never), "point", LONG),
    ),
    Fault(
        "no weight",
        "both box terms have a weight of 0",
        "text",
        ("loss-term-zero",),
        with_settings("text", {"loss.l1": 0.0, "loss.giou": 0.0}),
    ),
)
USE = (
    Fault(
        "bias anew",
        "the head's biases are set again after loading",
        "point",
        ("reload-differs",),
        within(predict, "load_weights", _bias_reset, "point", LONG),
    ),
    Fault(
        "dropout stays on",
        "dropout by a function that does not know of inference",
        "point",
        ("train-eval-parity",),
        within(SmallPyramid, "forward", _noisy, "point", SHORT),
    ),
    Fault(
        "double stride",
        "in inference boxes are decoded with twice the stride",
        "localise",
        ("train-eval-parity",),
        within(TextQuery, "forward", _double_stride, "localise", LONG),
    ),
    Fault(
        "no level",
        "inference does not take the level off a frame, training does",
        "point",
        ("train-eval-parity",),
        within(GaussianPoint, "forward", _no_level, "point", LONG),
    ),
    Fault(
        "sigmoid twice",
        "the emitted score is the sigmoid of a probability",
        "text",
        ("prior-missing",),
        within(Fusion, "score", _twice, "text", TWICE),
    ),
    Fault(
        "sigmoid twice, after training",
        "the same in what is returned alone",
        "text",
        ("scores-squeezed",),
        within(BoxDecoder, "__call__", _squeezed, "text", TWICE),
    ),
    Fault(
        "no suppression",
        "nothing is suppressed",
        "text",
        ("duplicates-kept",),
        patched(_no_suppression, "text", LEARNED),
    ),
    Fault(
        "drawn scores",
        "returned scores are drawn at random",
        "text",
        (),
        within(Fusion, "score", _drawn, "text", LEARNED),
        word="score",
    ),
    Fault(
        "small ones dropped",
        "small objects have no positive cell",
        "text",
        ("objects-without-positives",),
        within(BoxAssigner, "__call__", _large_alone, "text", {}),
    ),
    Fault(
        "moved targets",
        "boxes of the targets lie a third of their size beside the objects",
        "text",
        (),
        within(BoxAssigner, "__call__", _moved, "text", LEARNED),
        word="box",
    ),
)
