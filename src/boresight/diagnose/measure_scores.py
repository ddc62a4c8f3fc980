"""Asks a detector about its scores: how they start, what they have learned, and what pulls at them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from boresight.core.emission import Missing
from boresight.core.types import DenseOutput, DenseTargets, Scene
from boresight.diagnose.asked import Asked, in_mode, perfect_logits, total
from boresight.diagnose.probe import AbsentPeaks, Learned, Level, Pull, Spread, Start

Score = Callable[[DenseOutput], Tensor]
"""An output to what is emitted, ``[B, C, H, W]`` in [0, 1]."""

CONSTANTS = torch.linspace(-14.0, 3.0, 35)
"""Logits among which the best constant is looked for: scores of a millionth up to 0.95, in steps of a factor of 1.6."""


def raw_score(output: DenseOutput) -> Tensor:
    """The score of a detector that multiplies nothing in."""
    return output.logits.float().sigmoid()


@torch.no_grad()
def start(detector: Asked, scenes: Sequence[Scene], score: Score = raw_score) -> Start | Missing:
    """How a detector begins; ask it before it is trained. `Missing` where its cells are coarse boxes."""
    with in_mode(detector, training=False):
        output = detector(scenes)
        if output.counts:
            return Missing("cells are coarse boxes, most of them positive by design")
        targets = detector.assign(output, scenes)
        terms = _score_terms(detector, output, targets)
        if not terms:
            return Missing("no score is trained: other scores leave the loss as it is")
        known = ~targets.ignore
        emitted = float(score(output)[known].mean())
        rate = float(targets.positive[known].float().mean())
        loss = _part(detector, output, targets, terms)
        return Start(emitted, rate, loss, _constant(detector, output, targets, terms))


@torch.no_grad()
def learned(detector: Asked, scenes: Sequence[Scene]) -> Learned | Missing:
    """How far scores have come between the best constant and what the targets ask for.

    `Missing` where the scenes hold no object, where no score is trained, and where cells are coarse boxes.
    """
    with in_mode(detector, training=False):
        output = detector(scenes)
        if output.counts:
            return Missing("cells are coarse boxes: the logits decide, they do not find")
        targets = detector.assign(output, scenes)
        objects = int(targets.counted.sum())
        if not objects:
            return Missing("the scenes that were probed hold no object")
        terms = _score_terms(detector, output, targets)
        if not terms:
            return Missing("no score is trained: other scores leave the loss as it is")
        now, constant = _part(detector, output, targets, terms), _constant(detector, output, targets, terms)
        perfect = (perfect_logits(targets), torch.where(targets.positive, 12.0, -14.0))
        floor = min(_part(detector, replace(output, logits=logits), targets, terms) for logits in perfect)
        return Learned(now, constant, floor, objects, _precision(output.logits, targets))


def _precision(logits: Tensor, targets: DenseTargets) -> float:
    """Average precision of positive cells among all cells of which something is known, ranked by score."""
    known = ~targets.ignore
    order = logits[known].float().argsort(descending=True, stable=True)
    hit = targets.positive[known][order].double()
    rank = torch.arange(1, len(hit) + 1, device=hit.device)
    return float(((hit.cumsum(0) / rank) * hit).sum() / hit.sum().clamp(min=1))


def _everywhere(output: DenseOutput, logit: float) -> DenseOutput:
    """The output with one logit everywhere on the level that emits."""
    return replace(output, logits=torch.full_like(output.logits, logit))


def _score_terms(detector: Asked, output: DenseOutput, targets: DenseTargets) -> tuple[str, ...]:
    """Names of the loss terms that depend on the scores that are emitted: those that change when these do."""
    low, high = (detector.loss(_everywhere(output, logit), targets) for logit in (-6.0, 2.0))
    return tuple(name for name in low if float(low[name]) != float(high[name]))


def _part(detector: Asked, output: DenseOutput, targets: DenseTargets, terms: Sequence[str]) -> float:
    """The sum of these terms."""
    losses = detector.loss(output, targets)
    return sum(float(losses[name]) for name in terms)


def _constant(detector: Asked, output: DenseOutput, targets: DenseTargets, terms: Sequence[str]) -> float:
    """The least sum of these terms that one score everywhere reaches."""
    return min(_part(detector, _everywhere(output, c), targets, terms) for c in CONSTANTS.tolist())


def pull(detector: Asked, scenes: Sequence[Scene]) -> Pull | Missing:
    """The gradient to the scores that are emitted, split into positive and other cells. `Missing` without any."""
    with in_mode(detector, training=False), torch.enable_grad():
        output = detector(scenes)
        if output.counts:
            return Missing("cells are coarse boxes, most of them positive by design")
        targets = detector.assign(output, scenes)
        loss = total(detector, output, targets)
        asked = output.logits.requires_grad and loss.requires_grad
        gradient = torch.autograd.grad(loss, output.logits, allow_unused=True)[0] if asked else None
    if gradient is None:
        return Missing("no gradient reaches the scores: no score is trained")
    if not bool(targets.positive.any()):
        return Missing("the scenes that were probed have no positive cell")
    size = gradient.abs()
    return Pull(float(size[targets.positive].sum()), float(size[~targets.positive].sum()))


@torch.no_grad()
def levels_and_spread(detector: Asked, scenes: Sequence[Scene]) -> tuple[tuple[Level, ...] | Missing, Spread | Missing]:
    """Positive cells of every level, and how they are shared among the objects that count."""
    with in_mode(detector, training=False):
        output = detector(scenes)
        targets = detector.assign(output, scenes)
    each = targets.positives_per_object()[targets.counted].float()
    shared: Spread | Missing = Missing("the scenes that were probed hold no object")
    if len(each):
        shared = Spread(len(each), int((each == 0).sum()), float(each.median()), int(each.max()))
    if output.counts:
        return Missing("cells are coarse boxes, on no level"), shared
    every = [(output, targets), *zip(output.coarser, targets.coarser, strict=True)]
    return tuple(Level(o.stride, t.positive.numel(), int(t.positive.sum())) for o, t in every), shared


@torch.no_grad()
def peaks(detector: Asked, scenes: Sequence[Scene]) -> AbsentPeaks | Missing:
    """Peaks of the class map where its class is, and where it is known not to be."""
    absent, present = [], []
    with in_mode(detector, training=False):
        for scene in scenes:
            output = detector([scene])
            if output.cam is None:
                return Missing("there is no class map")
            if scene.labels is None:
                continue
            top = output.cam[0].float().amax((1, 2)).cpu()
            here = torch.zeros(len(top), dtype=torch.bool)
            here[scene.labels.cpu()] = True
            known = torch.ones_like(here) if scene.exhaustive is None else scene.exhaustive.cpu()
            present += top[here].tolist()
            absent += top[~here & known].tolist()
    if not absent or not present:
        return Missing("in the scenes that were probed no class is absent, or none present")
    middle = [float(torch.tensor(values).median()) for values in (absent, present)]
    return AbsentPeaks(middle[0], middle[1], len(absent))
