"""Settings of a run: frozen dataclasses with a line for every key.

Settings stop at the recipe (:mod:`boresight.run.recipes`): heads and losses take plain arguments. Reading them is the
business of :mod:`boresight.run.parse`. This module must stay free of torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Level = Literal["p1", "p2", "p3", "p4"]


@dataclass(frozen=True)
class DataSettings:
    """Which frames.

    Attributes:
        source: `skyfield` makes frames; `sirst` is a folder of images and masks, `csv` a table of points, `coco` boxes
            (their centres are taken); `auto` looks at what lies in `root`.
        root: the folder; `$NAME` is read from the environment.
        train: split of the training frames (a name under `root`/splits, or a file of names); empty: every frame.
        val: split that chooses threshold and best checkpoint; empty: `val_share` of the training frames is held out.
        test: split that `evaluate` judges by default; `*`: all frames in `root`; empty: the validation frames.
        val_share: share of the training frames held out, by frame, the same for the same `seed`.
        seed: of the held-out share and of made frames (not of the training: that is `train.seed`).
        preset: skyfield: `white`, `easy`, `default` or `hard`.
        frames: skyfield: training frames.
        val_frames: skyfield: validation frames.
        test_frames: skyfield: test frames.
        height: skyfield: pixels.
        width: skyfield: pixels.
        on_problem: `stop` refuses data with problems (`boresight data check` lists them), `drop` leaves them out.
        oversample: how many times a frame with targets is seen for each time one without is.
        cache_mb: decoded frames kept in memory.
    """

    source: Literal["skyfield", "sirst", "csv", "coco", "auto"] = "skyfield"
    root: str = ""
    train: str = ""
    val: str = ""
    test: str = ""
    val_share: float = 0.2
    seed: int = 0
    preset: str = "default"
    frames: int = 200
    val_frames: int = 50
    test_frames: int = 100
    height: int = 480
    width: int = 640
    on_problem: Literal["stop", "drop"] = "stop"
    oversample: int = 1
    cache_mb: int = 1024


@dataclass(frozen=True)
class AugmentSettings:
    """Training views; see `boresight.data.augment.PointAugment`.

    Attributes:
        crop: side of the square view, pixels; 0 trains on whole frames.
        positive_share: share of the crops that are placed to hold a target.
        scale: smallest and largest zoom-out of the window.
        flip: all eight orientations.
        gain: largest relative change of contrast (log).
        shift: largest change of level, in spreads of the frame.
        noise: largest added noise, in spreads of the frame.
        paste: chance to add a target taken from another training frame.
    """

    crop: int = 128
    positive_share: float = 0.75
    scale: tuple[float, float] = (1.0, 1.0)
    flip: bool = True
    gain: float = 0.0
    shift: float = 0.0
    noise: float = 0.0
    paste: float = 0.0


@dataclass(frozen=True)
class EncoderSettings:
    """What makes the features.

    Attributes:
        name: `small` is built in (about 0.1 M parameters); any other name is a timm backbone.
        widths: `small`: channels at strides 2, 4, 8 and 16.
        channels: channels of every level of the pyramid.
        pretrained: timm: load its weights.
        weights: timm: a file of weights.
    """

    name: str = "small"
    widths: tuple[int, int, int, int] = (16, 24, 32, 40)
    channels: int = 24
    pretrained: bool = False
    weights: str | None = None


@dataclass(frozen=True)
class HeadSettings:
    """What reads the features.

    Attributes:
        level: the level that emits detections; p1 is stride 2, p2 stride 4, p3 stride 8, p4 stride 16.
        mode: `single` level; `fused` with the coarse level (it says where, `level` exactly where); `coarse_to_fine`:
            the coarse level proposes, `level` answers in windows around the proposals.
        coarse: the level that proposes.
        auxiliary: levels that learn a score map of their own and emit nothing.
        proposals: `coarse_to_fine`: windows an image.
        window: `coarse_to_fine`: their reach in coarse cells.
        attention: none, channel, spatial or both.
        deformable: a deformable convolution in the head.
        prior: the score of a fresh head everywhere.
    """

    level: Level = "p2"
    mode: Literal["single", "fused", "coarse_to_fine"] = "single"
    coarse: Level = "p4"
    auxiliary: tuple[Level, ...] = ("p3", "p4")
    proposals: int = 32
    window: int = 1
    attention: Literal["none", "channel", "spatial", "both"] = "none"
    deformable: bool = False
    prior: float = 0.01


@dataclass(frozen=True)
class TargetSettings:
    """What the score map should be.

    Attributes:
        label: `gaussian` at the real-valued place, `hard` one pixel, or the `legacy` table.
        peak: `unit` sets the nearest cell to 1; `physical` keeps the sampled value (for qfl and bce).
        schedule: of sigma: `fixed`, `steps` (at the breaks), `linear` or `cosine` from the first sigma to the last.
        sigma: `fixed`: cells.
        window: `fixed`: give the window (3, 4 or 5 cells) instead of sigma (0.8, 1.0, 1.2).
        sigmas: the other schedules: one more than there are breaks.
        breaks: `steps`: shares of progress.
        constant_mass: weight positives by (1 / sigma)^2, so that a schedule of sigma is not one of weight.
        class_weight: weight of positives at the start and at the end, in a straight line between.
        class_weight_cap: and never above this.
        offset_reach: cells this near a target's own learn its place as well.
    """

    label: Literal["gaussian", "hard", "legacy"] = "gaussian"
    peak: Literal["unit", "physical"] = "unit"
    schedule: Literal["fixed", "steps", "linear", "cosine"] = "fixed"
    sigma: float = 1.0
    window: Literal[3, 4, 5] | None = None
    sigmas: tuple[float, ...] = (1.2, 1.0, 0.8)
    breaks: tuple[float, ...] = (0.3, 0.7)
    constant_mass: bool = False
    class_weight: tuple[float, float] = (1.0, 1.0)
    class_weight_cap: float = 10.0
    offset_reach: int = 1


@dataclass(frozen=True)
class LossSettings:
    """How far the output is from the target.

    Attributes:
        name: `penalty_reduced_focal`, `focal`, `quality_focal`, `bce`, `weighted_bce` or `ohem`.
        per: divide the score loss by `objects` or (the known failure) by `cells`.
        offset: weight of the place.
        auxiliary: weight of each auxiliary level.
        positive_weight: `weighted_bce`.
        focal_alpha: `focal`.
        focal_gamma: `focal`.
        ohem_ratio: `ohem`: negatives for each positive.
    """

    name: Literal["penalty_reduced_focal", "focal", "quality_focal", "bce", "weighted_bce", "ohem"] = (
        "penalty_reduced_focal"
    )
    per: Literal["objects", "cells"] = "objects"
    offset: float = 0.2
    auxiliary: float = 0.25
    positive_weight: float = 50.0
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    ohem_ratio: float = 3.0


@dataclass(frozen=True)
class DecodeSettings:
    """From a score map to points.

    Attributes:
        refine: place in the cell: predicted `offset`, `parabola` through the log-scores, or `none`.
        top_k: peaks an image at most.
        window: cells; a peak is the largest of its window x window neighbourhood.
        tolerance: pixels within which a detection is right.
        mirrors: average the score map over the four mirrored views of a frame (four times the work).
    """

    refine: Literal["offset", "parabola", "none"] = "offset"
    top_k: int = 100
    window: int = 3
    tolerance: float = 3.0
    mirrors: bool = False


@dataclass(frozen=True)
class TrainSettings:
    """The loop.

    Attributes:
        steps: optimiser steps.
        batch: frames a step, over all processes together.
        learning_rate: the largest.
        warmup: steps from 0 to the largest.
        final: the last rate, as a share of the largest (cosine between).
        weight_decay: of AdamW.
        clip: largest gradient norm.
        accumulate: forward passes a step.
        ema: decay of the averaged weights that are judged and kept; 0 keeps the raw ones.
        precision: `no`, `bf16` or `fp16` autocast.
        validate_every: steps between judgements on the validation frames; 0: at the end alone.
        checkpoint_every: steps between states that a stopped run continues from.
        seed: of weights, order and views.
        init: a run, or its checkpoint, whose weights the training begins from where they fit; empty: from the seed.
        threads: CPU threads; 0 leaves torch's choice. Digits depend on it.
        workers: processes that load frames; 0 loads in the loop.
        trackers: any of tensorboard, wandb, mlflow, trackio (installed by you).
    """

    steps: int = 1000
    batch: int = 16
    learning_rate: float = 2e-3
    warmup: int = 50
    final: float = 0.02
    weight_decay: float = 1e-2
    clip: float = 5.0
    accumulate: int = 1
    ema: float = 0.998
    precision: Literal["no", "bf16", "fp16"] = "no"
    validate_every: int = 200
    checkpoint_every: int = 200
    seed: int = 0
    init: str = ""
    threads: int = 0
    workers: int = 0
    trackers: tuple[str, ...] = ()


@dataclass(frozen=True)
class PointSettings:
    """Everything that decides a run of the point-target detector."""

    data: DataSettings = field(default_factory=DataSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    head: HeadSettings = field(default_factory=HeadSettings)
    target: TargetSettings = field(default_factory=TargetSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    decode: DecodeSettings = field(default_factory=DecodeSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    detector: Literal["point"] = "point"
