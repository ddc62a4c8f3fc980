"""The point-target system: from settings to parts, and what is said of a trained one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from torch import nn

from boresight.core.errors import UserError
from boresight.core.types import Detections, Points, Scene
from boresight.data.augment import PointAugment
from boresight.decode.peaks import decode_points
from boresight.detectors.detector import Detector
from boresight.detectors.gaussian_point import GaussianPoint, PointAssigner, PointCriterion
from boresight.detectors.own_points import with_points_as_boxes
from boresight.diagnose.likeness import Closeness
from boresight.evaluate.ladder import best_threshold
from boresight.evaluate.points import evaluate_points
from boresight.evaluate.rows import match_table
from boresight.evaluate.stamps import compatibility
from boresight.features.pyramid import SmallPyramid, TimmPyramid
from boresight.heads.point import PointHead
from boresight.losses import classification
from boresight.losses.classification import CellLoss
from boresight.run.calibrated import calibration_error
from boresight.run.config import EncoderSettings, LossSettings, PointSettings, TargetSettings
from boresight.run.frames import point_splits
from boresight.run.processes import detect_together
from boresight.run.recipe import Examination, Frames, Judgement, Recipe, Request, View
from boresight.run.results import detection_rows, point_results, shown
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


def judge_points(
    settings: PointSettings, classes: Sequence[str], scenes: Sequence[Scene], found: Sequence[Detections]
) -> Judgement:
    """Choose the threshold of the best F1 on these frames."""
    truth, tolerance = truth_points(scenes), settings.decode.tolerance
    threshold = best_threshold(truth, found, tolerance)
    report = evaluate_points(
        truth, found, sizes=[s.size for s in scenes], threshold=threshold, tolerance=tolerance, bootstrap=0
    ).to_dict()
    keys = ("f1", "f1_at_half", "pd_at_0.1_false_alarms_per_frame", "pd_at_1_false_alarms_per_frame", "rmse")
    figures: dict[str, float | None] = {k: report[k] for k in keys}
    figures["false_alarms_per_frame"] = report["false_alarms_per_frame"]
    figures["calibration_error"] = point_calibration(scenes, found, len(classes), tolerance)
    return Judgement(score=report["f1"] or 0.0, name="F1", threshold=threshold, figures=figures)


def point_calibration(
    scenes: Sequence[Scene], found: Sequence[Detections], classes: int, tolerance: float
) -> float | None:
    """How far scores are from the closeness that they stand for; see :func:`calibration_error`."""
    boxes = [with_points_as_boxes(scene) for scene in scenes]
    return calibration_error(boxes, found, classes, Closeness(tolerance))


def examine_points(detector: Detector, settings: PointSettings, request: Request) -> Examination:
    """Detect on a split and judge it, with the compatibility modes and counts of every image."""
    frames, indices = request.frames, range(request.count)
    found = detect_together(detector, frames, request.count, quiet=request.quiet)
    scenes = [frames[i] for i in indices]
    truth, tolerance = truth_points(scenes), settings.decode.tolerance
    figures = judge(truth, found, scenes, request.threshold, tolerance, request.bootstrap)
    figures["calibration_error"] = point_calibration(scenes, found, len(request.splits.classes), tolerance)
    ids, names = [s.image_id for s in scenes], [s.name for s in scenes]
    predictions = point_results(detection_rows(names, found, 0.0, image_ids=ids))
    return Examination(figures, predictions, match_rows(scenes, truth, found, request.threshold, tolerance), COLUMNS)


def judge(
    truth: Sequence[Points],
    found: Sequence[Detections],
    scenes: Sequence[Scene],
    threshold: float,
    tolerance: float,
    bootstrap: int,
) -> dict[str, Any]:
    """All figures of the point metrics, the compatibility modes, and counts of every image for paired comparison."""
    sizes = [s.size for s in scenes]
    report = evaluate_points(truth, found, sizes=sizes, threshold=threshold, tolerance=tolerance, bootstrap=bootstrap)
    return {
        **report.to_dict(),
        "compatibility": compatibility(truth, found, threshold=threshold),
        "per_image": per_image_counts(truth, found, threshold, tolerance),
    }


def per_image_counts(
    truth: Sequence[Points], found: Sequence[Detections], threshold: float, tolerance: float
) -> dict[str, list[int]]:
    """``tp``, ``fp`` and ``fn`` of every image at the threshold."""
    rows, missed = match_table(truth, found, threshold=threshold, tolerance=tolerance)
    n = len(truth)
    hits = [r.image for r in rows if r.kind == "hit"]
    false = [r.image for r in rows if r.kind in ("false_alarm", "duplicate")]
    groups = {"tp": hits, "fp": false, "fn": [m.image for m in missed]}
    return {k: np.bincount(np.array(v, dtype=np.int64), minlength=n).tolist() for k, v in groups.items()}


COLUMNS = {
    "image": "string",
    "image_id": "int64",
    "cell": "int64",
    "score": "float64",
    "x": "float64",
    "y": "float64",
    "distance": "float64",
    "object": "int64",
    "snr": "float64",
    "kind": "string",
}
"""``matches.parquet``: a row a detection (kind hit, duplicate, false_alarm, ignored) and a row a missed target."""


def match_rows(
    scenes: Sequence[Scene],
    truth: Sequence[Points],
    found: Sequence[Detections],
    threshold: float,
    tolerance: float,
) -> list[dict[str, Any]]:
    """Rows of ``matches.parquet``: what each detection was, at the threshold, and what was missed."""
    ids, names = [s.image_id for s in scenes], [s.name for s in scenes]
    rows, missed = match_table(truth, found, threshold=threshold, tolerance=tolerance)
    table: list[dict[str, Any]] = []
    for r in rows:
        snr = truth[r.image].snr
        own = {"cell": r.cell, "score": r.score, "distance": r.distance, "object": r.object, "kind": r.kind}
        own["snr"] = float(snr[r.object]) if snr is not None and r.object >= 0 else None
        table.append({"image": names[r.image], "image_id": ids[r.image], "x": r.x, "y": r.y, **own})
    for m in missed:
        place = {"x": m.x, "y": m.y, "object": m.object, "snr": m.snr, "kind": "missed"}
        table.append({"image": names[m.image], "image_id": ids[m.image], **place})
    return table


def point_summary(figures: dict[str, Any]) -> str:
    """The figures that matter, for a person."""
    rows = [
        (f"F1 at the validated threshold {figures['threshold']:.3f}", "f1"),
        ("F1 at 0.5", "f1_at_half"),
        ("Pd at 0.1 false alarms a frame", "pd_at_0.1_false_alarms_per_frame"),
        ("Pd at 1 false alarm a frame", "pd_at_1_false_alarms_per_frame"),
        ("false alarms a frame", "false_alarms_per_frame"),
        ("RMSE of hits, px", "rmse"),
    ]
    counted = f"{figures['frames']} frames, {figures['truths']} targets"
    head = f"{figures['split']}: {counted}, within {figures['tolerance']:g} px"
    return "\n".join([head, *(f"  {text:<42} {shown(figures, key)}" for text, key in rows)])


POINT = Recipe(
    name="point",
    settings=PointSettings,
    build=lambda settings, classes: point_detector(settings, len(classes)),
    frames=lambda settings, only: point_splits(settings.data, only),
    view=point_view,
    judge=judge_points,
    examine=examine_points,
    figures=("f1", "f1_at_half", "pd_at_0.1_false_alarms_per_frame", "pd_at_1_false_alarms_per_frame", "rmse"),
    monitor="f1",
    summary=point_summary,
)
