"""The systems that can be trained: plain constructors from settings to parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import numpy as np
from torch import nn

from boresight.core.errors import UserError, did_you_mean
from boresight.core.types import Detections, Points, Scene
from boresight.data.augment import PointAugment
from boresight.decode.peaks import decode_points
from boresight.detectors.detector import Detector
from boresight.detectors.gaussian_point import GaussianPoint, PointAssigner, PointCriterion
from boresight.evaluate.ladder import best_threshold
from boresight.evaluate.points import evaluate_points
from boresight.features.pyramid import SmallPyramid, TimmPyramid
from boresight.heads.point import PointHead
from boresight.losses import classification
from boresight.losses.classification import CellLoss
from boresight.run.config import EncoderSettings, LossSettings, PointSettings, TargetSettings
from boresight.run.frames import point_splits
from boresight.run.recipe import Frames, Judgement, Recipe, View
from boresight.targets import gaussian, schedule
from boresight.targets.gaussian import Kernel
from boresight.targets.schedule import Schedule


def _level(name: str) -> int:
    return int(name[1:])


def point_detector(settings: PointSettings, classes: int) -> GaussianPoint:
    """The point-target detector that the settings describe."""
    head = settings.head
    level, auxiliary = _level(head.level), tuple(_level(k) for k in head.auxiliary if _level(k) > _level(head.level))
    encoder = point_encoder(settings.encoder, finest=level)
    needed = {level, *auxiliary} | ({_level(head.coarse)} if head.mode != "single" else set())
    if missing := sorted(needed - set(encoder.channels)):  # type: ignore[arg-type]
        has = ", ".join(f"p{k}" for k in sorted(encoder.channels))  # type: ignore[arg-type]
        raise UserError(
            f"encoder `{settings.encoder.name}` has levels {has}, not p{missing[0]}: change head.level or its helpers"
        )
    if head.mode != "single" and _level(head.coarse) <= level:
        raise UserError(f"`head.coarse` = {head.coarse}: must be coarser than head.level = {head.level}")
    planned = label_schedule(settings.target)
    return GaussianPoint(
        encoder,
        PointHead(
            encoder.channels,  # type: ignore[arg-type]
            classes=classes,
            level=level,
            coarse=_level(head.coarse),
            auxiliary=auxiliary,
            mode=head.mode,
            proposals=head.proposals,
            window=head.window,
            attention=head.attention,
            deformable=head.deformable,
            prior=head.prior,
        ),
        PointAssigner(planned, label_kernel(settings.target), settings.target.offset_reach),
        PointCriterion(
            cell_loss(settings.loss), planned, settings.loss.per, settings.loss.offset, settings.loss.auxiliary
        ),
        partial(
            decode_points, top_k=settings.decode.top_k, refine=settings.decode.refine, window=settings.decode.window
        ),
        mirrors=settings.decode.mirrors,
    )


def point_encoder(settings: EncoderSettings, *, finest: int) -> nn.Module:
    """The built-in pyramid, or one on a timm backbone."""
    if settings.name == "small":
        return SmallPyramid(settings.widths, settings.channels, finest=finest)
    return TimmPyramid(
        settings.name,
        pretrained=settings.pretrained,
        weights=settings.weights,
        channels=settings.channels,
        finest=finest,
    )


def label_schedule(target: TargetSettings) -> Schedule:
    """The schedule of sigma and positive weight."""
    first, last = target.sigmas[0], target.sigmas[-1]
    planned = {
        "fixed": lambda: schedule.fixed(schedule.WINDOW_SIGMA[target.window] if target.window else target.sigma),
        "steps": lambda: schedule.steps(target.sigmas, target.breaks),
        "linear": lambda: schedule.linear(first, last),
        "cosine": lambda: schedule.cosine(first, last),
    }[target.schedule]()
    if target.constant_mass:
        planned = schedule.with_constant_mass(planned)
    if target.class_weight != (1.0, 1.0):
        planned = schedule.with_weight_ramp(planned, *target.class_weight, cap=target.class_weight_cap)
    return planned


def label_kernel(target: TargetSettings) -> Callable[[float], Kernel]:
    """Sigma to the shape of the label."""
    if target.label == "gaussian":
        return partial(_gaussian, peak=target.peak)
    kernel = gaussian.hard_kernel if target.label == "hard" else gaussian.legacy_kernel
    return partial(_constant, kernel)


def _gaussian(sigma: float, peak: Literal["unit", "physical"]) -> Kernel:
    return gaussian.gaussian_kernel(sigma, peak)


def _constant(kernel: Kernel, sigma: float) -> Kernel:
    return kernel


def cell_loss(loss: LossSettings) -> CellLoss:
    """The loss of single cells."""
    return {
        "bce": classification.bce,
        "weighted_bce": classification.weighted_bce(loss.positive_weight),
        "focal": classification.focal(loss.focal_alpha, loss.focal_gamma),
        "penalty_reduced_focal": classification.penalty_reduced_focal(),
        "quality_focal": classification.quality_focal(),
        "ohem": classification.ohem(loss.ohem_ratio),
    }[loss.name]


def point_view(settings: PointSettings) -> View:
    """Training views, with a donor frame for pasted targets."""
    a = settings.augment
    augment = PointAugment(
        crop=a.crop,
        positive_share=a.positive_share,
        scale=a.scale,
        flip=a.flip,
        gain=a.gain,
        shift=a.shift,
        noise=a.noise,
        paste=a.paste,
    )

    def view(frames: Frames, index: int, rng: np.random.Generator) -> Scene:
        donor = frames[int(rng.integers(len(frames)))] if a.paste else None
        return augment(frames[index], rng, donor)

    return view


def truth_points(scenes: Sequence[Scene]) -> list[Points]:
    """The point truth of scenes; ValueError names the first without."""
    unknown = [s.name for s in scenes if s.points is None]
    if unknown:
        raise ValueError(f"{unknown[0]} has no point truth")
    return [s.points for s in scenes if s.points is not None]


def judge_points(settings: PointSettings, scenes: Sequence[Scene], found: Sequence[Detections]) -> Judgement:
    """Choose the threshold of the best F1 on these frames."""
    truth, tolerance = truth_points(scenes), settings.decode.tolerance
    threshold = best_threshold(truth, found, tolerance)
    report = evaluate_points(
        truth, found, sizes=[s.size for s in scenes], threshold=threshold, tolerance=tolerance, bootstrap=0
    ).to_dict()
    keys = ("f1", "f1_at_half", "pd_at_0.1_false_alarms_per_frame", "pd_at_1_false_alarms_per_frame", "rmse")
    figures: dict[str, float | None] = {k: report[k] for k in keys}
    figures["false_alarms_per_frame"] = report["false_alarms_per_frame"]
    return Judgement(score=report["f1"] or 0.0, name="F1", threshold=threshold, figures=figures)


def _splits(settings: PointSettings):  # type: ignore[no-untyped-def]
    return point_splits(settings.data)


def _build(settings: PointSettings, classes: int) -> Detector:
    return point_detector(settings, classes)


POINT = Recipe("point", PointSettings, _build, _splits, point_view, judge_points)
RECIPES = (POINT,)


def recipe(name: str) -> Recipe:
    """The recipe of that name; UserError with its neighbour when there is none."""
    for known in RECIPES:
        if known.name == name:
            return known
    names = [r.name for r in RECIPES]
    raise UserError(f"detector `{name}`: not known{did_you_mean(name, names)}; known: {', '.join(names)}")
