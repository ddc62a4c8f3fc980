"""Settings of the box refiner; see :mod:`boresight.run.config`. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from boresight.run.config import TrainSettings
from boresight.run.config_text import BoxDataSettings


@dataclass(frozen=True)
class RefineDataSettings(BoxDataSettings):
    """See `BoxDataSettings`.

    Attributes:
        sample_ratio: share of the training images that is used, the same for the same `seed` (`--fast`: 0.1).
        max_images: of what is left, so many (`--debug`: 100); 0: all.
    """

    sample_ratio: float = 1.0
    max_images: int = 0


@dataclass(frozen=True)
class CoarseSettings:
    """The boxes to start from: true ones moved to a known IoU, or those of a detector.

    Attributes:
        train_low: smallest IoU of a moved box in training (uniform between the two).
        train_high: largest; up to 1, so that it is learned to leave a good box alone.
        low: smallest IoU of a moved box on validation and test images (uniform between the two, the same every time).
        high: largest.
        per_image: moved boxes a training image.
        copies: moved boxes an object on test images.
        val_copies: and on validation images, where few good boxes would make the choice of the confidence a chance.
        train_file: a detector's COCO results on the training images; empty: moved boxes alone.
        val_file: on the validation images; empty: those of `train_file`, which holds them too where they were held out.
        test_file: on the test images; empty: moved boxes.
        real_share: share of the training images that show the boxes of `train_file`.
        min_score: boxes of the files that score less are left out.
        match_iou: a box of a file stands for the object of its class that it overlaps most, from this IoU on.
    """

    train_low: float = 0.1
    train_high: float = 1.0
    low: float = 0.2
    high: float = 0.9
    per_image: int = 8
    copies: int = 1
    val_copies: int = 16
    train_file: str = ""
    val_file: str = ""
    test_file: str = ""
    real_share: float = 0.5
    min_score: float = 0.01
    match_iou: float = 0.1


@dataclass(frozen=True)
class RefineAugmentSettings:
    """Training views of boxes. Frozen features are read once; each box is shown in an orientation of its own.

    Attributes:
        turn: all eight orientations.
        gain: largest relative change of contrast (log), of the pixels.
        shift: largest change of level, in grey values.
        colour: largest relative change of a colour channel (log).
    """

    turn: bool = True
    gain: float = 0.1
    shift: float = 10.0
    colour: float = 0.0


@dataclass(frozen=True)
class FeatureSettings:
    """The frozen encoder and where its features are kept.

    Attributes:
        name: `boresight-aerial` comes with the package; `sam:` (SAM, HQ-SAM, SAM 2, EdgeTAM), `timm:` or `clip:` with a
            name, hub id or folder; `mobile-sam` or `squeezenet` with `weights`; or `none` (pixels alone).
        weights: a file.
        levels: of the encoder's levels these (2 is stride 4, 3 is stride 8, ...); empty: its default.
        layers: clip: blocks counted from the end.
        size: side to which images are brought for the encoder, pixels; 0: its default.
        window: clip: side of the overlapping windows in which an image is read; 0: the whole at once.
        precision: of the encoder: `fp32`, `fp16` or `bf16`.
        store: where features are kept: `memory`, or `disk` (`store_folder`).
        storage: disk: `fp32`, `fp16`, `bf16`, or `int8` (a scale for each channel).
        store_mb: the most that is kept, megabytes; disk: 0 is no limit.
        store_folder: disk: a folder shared by runs.
        batch: images encoded together.
    """

    name: str = "boresight-aerial"
    weights: str | None = None
    levels: tuple[int, ...] = ()
    layers: tuple[int, ...] = (1, 3)
    size: int = 0
    window: int = 0
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    store: Literal["memory", "disk"] = "memory"
    storage: Literal["fp32", "fp16", "bf16", "int8"] = "fp16"
    store_mb: int = 4096
    store_folder: str = ""
    batch: int = 1


@dataclass(frozen=True)
class RefineHeadSettings:
    """What looks at a box.

    Attributes:
        kind: `looking`, or the `reference` (features on a grid of 7, four layers, 50 pixels at most).
        steps: how often a box moves.
        shared: one head for all steps, or one a step.
        grid: cells a side of the window that is looked at.
        width: channels, a multiple of 16.
        depth: 3x3 blocks.
        context: side of the window over that of the box.
        pixels: read the image itself beside the frozen features.
        regression: a distribution for each of the `edges`, or plain `deltas`.
        class_input: the class of the coarse box enters.
        dropout: chance in training that a channel of what is read is left out (few images are learned by heart).
        reach: `reference`: pixels that an edge can move.
    """

    kind: Literal["looking", "reference"] = "looking"
    steps: int = 2
    shared: bool = True
    grid: int = 12
    width: int = 64
    depth: int = 3
    context: float = 2.0
    pixels: bool = True
    regression: Literal["edges", "deltas"] = "edges"
    class_input: bool = False
    dropout: float = 0.0
    reach: float = 50.0


@dataclass(frozen=True)
class RefineLossSettings:
    """Weights of the terms; each is the mean over objects of the mean over their coarse boxes and steps.

    Attributes:
        l1: distance of the edges, relative to the object's size.
        iou: of 1 - GIoU.
        edges: of the edges' distributions.
        quality: of the predicted IoU.
        decision: of which box is better.
        unmatched: weight in the quality's term of a coarse box that stands for no object.
    """

    l1: float = 0.5
    iou: float = 2.0
    edges: float = 0.5
    quality: float = 1.0
    decision: float = 0.5
    unmatched: float = 0.25


@dataclass(frozen=True)
class RefineDecodeSettings:
    """Which boxes are replaced.

    Attributes:
        decide: a box is replaced for the learned `confidence` that it got better, or for its `gain` in predicted IoU.
        operating: `best`: the confidence from which a box is replaced is the one with the best mean IoU on the
            validation images that harms few of the good boxes; `all`: every box is.
        harm: `best`: of the boxes that start above an IoU of 0.8, at most this share may end lower; of validation boxes
            an upper bound (90 %, by image) is held to it.
        rescore: power of the predicted IoU in the scores of refined detections (the rest is the detector's own).
    """

    decide: Literal["confidence", "gain"] = "confidence"
    operating: Literal["best", "all"] = "best"
    harm: float = 0.04
    rescore: float = 0.5


@dataclass(frozen=True)
class RefineTrainSettings(TrainSettings):
    """The loop (see `TrainSettings`), with the defaults of box refinement."""

    steps: int = 600
    batch: int = 8
    learning_rate: float = 2e-3
    clip: float = 1.0
    validate_every: int = 200
    checkpoint_every: int = 200
    ema: float = 0.99


BASELINE: dict[str, Any] = {
    "head": {"kind": "reference", "steps": 1, "pixels": False},
    "augment": {"turn": False, "gain": 0.0, "shift": 0.0},
    "loss": {"l1": 1.0, "iou": 1.0},
    "decode": {"operating": "all", "rescore": 0.0},
    "train": {"learning_rate": 5e-5, "warmup": 0, "final": 1.0, "ema": 0.0},
}
"""The reference: offsets of at most 50 pixels, a constant rate of 5e-5; every box is replaced."""


@dataclass(frozen=True)
class RefineSettings:
    """Everything that decides a run of the box refiner."""

    recipe: Literal["boresight", "baseline"] = "boresight"
    data: RefineDataSettings = field(default_factory=RefineDataSettings)
    coarse: CoarseSettings = field(default_factory=CoarseSettings)
    augment: RefineAugmentSettings = field(default_factory=RefineAugmentSettings)
    features: FeatureSettings = field(default_factory=FeatureSettings)
    head: RefineHeadSettings = field(default_factory=RefineHeadSettings)
    loss: RefineLossSettings = field(default_factory=RefineLossSettings)
    decode: RefineDecodeSettings = field(default_factory=RefineDecodeSettings)
    train: RefineTrainSettings = field(default_factory=RefineTrainSettings)
    detector: Literal["refine"] = "refine"

    RECIPES: ClassVar[dict[str, dict[str, Any]]] = {"boresight": {}, "baseline": BASELINE}
