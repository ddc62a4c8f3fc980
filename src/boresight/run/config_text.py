"""Settings of the text-query detector and of its localisation alone; see :mod:`boresight.run.config`. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from boresight.run.config import TrainSettings


@dataclass(frozen=True)
class BoxDataSettings:
    """Which images, and what is asked of them.

    Attributes:
        source: `aerial` makes scenes; `coco`, `voc` and `yolo` are folders; `auto` looks at what lies in `root`.
        root: the folder; `$NAME` is read from the environment.
        train: split of the training images.
        val: split that chooses threshold and best checkpoint; empty: `val_share` of the training images is held out.
        test: split that `evaluate` judges by default; `*`: all images in `root`; empty: the validation images.
        val_share: share of the training images held out, the same for the same `seed`.
        seed: of the held-out share and of made scenes (not of the training: that is `train.seed`).
        queries: what to ask for a class, `class=query|synonym`; a class that is not named is asked by its own name.
        novel: names of classes that are never trained and asked for in the test alone (`aerial` has its own).
        frames: aerial: training scenes.
        val_frames: aerial: validation scenes.
        test_frames: aerial: test scenes.
        height: aerial: pixels.
        width: aerial: pixels.
        kinds: aerial: of the kinds of objects, these; empty: all.
        colours: aerial: of the colours, these; empty: all.
        classes: aerial: a class for each kind, or for each composition of colour and kind (some are held out).
        on_problem: `stop` refuses data with problems (`boresight data check` lists them), `drop` leaves images out.
        cache_mb: decoded images kept in memory.
    """

    source: Literal["aerial", "coco", "voc", "yolo", "auto"] = "aerial"
    root: str = ""
    train: str = "train"
    val: str = ""
    test: str = "test"
    val_share: float = 0.15
    seed: int = 0
    queries: tuple[str, ...] = ()
    novel: tuple[str, ...] = ()
    frames: int = 400
    val_frames: int = 60
    test_frames: int = 150
    height: int = 256
    width: int = 256
    kinds: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()
    classes: Literal["kinds", "compositions"] = "compositions"
    on_problem: Literal["stop", "drop"] = "stop"
    cache_mb: int = 2048


@dataclass(frozen=True)
class BoxAugmentSettings:
    """Training views; see `boresight.data.box_augment.BoxAugment`. Frozen features are read through the same map.

    Attributes:
        crop: side of the square view, pixels; 0 trains on whole images.
        whole: images with no side above so many pixels are trained on whole.
        positive_share: share of the crops that are placed to hold an object.
        scale: smallest and largest zoom-out of the window.
        flip: all eight orientations.
        gain: largest relative change of contrast (log).
        shift: largest change of level, in grey values.
        colour: largest relative change of a colour channel (log).
        min_visible: a cut object of which less is left is unknown, not background.
    """

    crop: int = 320
    whole: int = 384
    positive_share: float = 0.75
    scale: tuple[float, float] = (1.0, 1.0)
    flip: bool = True
    gain: float = 0.1
    shift: float = 10.0
    colour: float = 0.0
    min_visible: float = 0.25


@dataclass(frozen=True)
class ClipSettings:
    """The frozen language-image encoder and its class maps.

    Attributes:
        name: `boresight-aerial` comes with the package; any open_clip architecture, hub id, folder, or RemoteCLIP name.
        weights: an open_clip tag, or a file.
        activation: of a file: `auto` checks.
        method: how dense features are read: naclip, surgery, vanilla, maskclip, clearclip, sclip, segearth or gem.
        average: class maps of the last so many layers are averaged.
        layers: blocks (counted from the end: 1 is the last) whose features the head reads as well.
        size: short side to which images are brought for the encoder, pixels; 0: as they are.
        window: side of the overlapping windows in which the encoder reads an image; 0: the whole image at once.
        map: what the detector multiplies by: `calibrated` (independent of the other queries), or `min_max`.
        templates: sentences into which a query is put: `aerial`, `classic` or `plain`.
        calibration_frames: training images on which the class map is calibrated.
        store: where frozen features are kept: `memory`, or `disk` (in the run's folder, or `store_folder`).
        store_mb: the most that is kept, megabytes.
        store_folder: disk: a folder shared by runs.
    """

    name: str = "boresight-aerial"
    weights: str | None = None
    activation: Literal["auto", "gelu", "quickgelu"] = "auto"
    method: Literal["naclip", "surgery", "vanilla", "maskclip", "clearclip", "sclip", "segearth", "gem"] = "naclip"
    average: int = 1
    layers: tuple[int, ...] = (1, 3)
    size: int = 0
    window: int = 128
    map: Literal["calibrated", "min_max"] = "calibrated"
    templates: Literal["aerial", "classic", "plain"] = "aerial"
    calibration_frames: int = 64
    store: Literal["memory", "disk"] = "memory"
    store_mb: int = 4096
    store_folder: str = ""


@dataclass(frozen=True)
class ImageEncoderSettings:
    """The encoder that reads the raw image.

    Attributes:
        name: `small` is built in; `squeezenet` reads torchvision's squeezenet1_0 weights; else a timm backbone.
        widths: `small`: channels at strides 2, 4, 8 and 16.
        channels: of what the head reads.
        pretrained: timm: load its weights.
        weights: a file of weights.
        frozen: train what lies above the backbone alone.
        shrink: average blocks of 1, 2 or 4 pixels a side first: for objects far larger than 100 pixels, with
            `head.stride` 16 or 32.
    """

    name: str = "small"
    widths: tuple[int, int, int, int] = (16, 32, 64, 96)
    channels: int = 128
    pretrained: bool = False
    weights: str | None = None
    frozen: bool = False
    shrink: Literal[1, 2, 4] = 1


@dataclass(frozen=True)
class QueryHeadSettings:
    """What reads the features.

    Attributes:
        stride: pixels a cell: 4, 8, 16 or 32.
        width: channels.
        embed: dimensions in which cells and queries are compared.
        depth: blocks of each branch.
        box: one box a cell (`agnostic`), or one for each class and cell (`conditioned`).
        prior: the score of a fresh head everywhere.
        side: side of a fresh head's boxes, in strides.
        learn_queries: learn a vector for each trained query beside its words: for names that the encoder does not know.
    """

    stride: Literal[4, 8, 16, 32] = 8
    width: int = 64
    embed: int = 64
    depth: int = 2
    box: Literal["agnostic", "conditioned"] = "agnostic"
    prior: float = 0.01
    side: float = 4.0
    learn_queries: bool = False


@dataclass(frozen=True)
class AssignSettings:
    """Which cells stand for an object, and what their score should be.

    Attributes:
        rule: `radius` around the best-overlapping cell, centre `inside`, `atss`, `tal` or `simota`.
        score: `hard` (1; focal loss), `centerness`, `qfl`, `vfl`, `tal` (soft, joint) or `mal`.
        radius: `radius`: cells around the best cell.
        min_giou: `radius`: objects whose best cell overlaps less have no positive cell.
        centre: `inside`: only cells within so many strides of the centre; 0: all inside.
        k: `atss` and `tal`: candidates an object.
        alpha: `tal`: exponent of the score.
        beta: `tal`: exponent of the IoU.
        warmup: `tal`: share of the training in which `atss` assigns.
        gamma: `mal`: exponent of the IoU.
    """

    rule: Literal["radius", "inside", "atss", "tal", "simota"] = "tal"
    score: Literal["hard", "centerness", "qfl", "vfl", "tal", "mal"] = "tal"
    radius: float = 1.5
    min_giou: float = 0.3
    centre: float = 0.0
    k: int = 13
    alpha: float = 1.0
    beta: float = 6.0
    warmup: float = 0.15
    gamma: float = 1.5


@dataclass(frozen=True)
class SuperviseSettings:
    """Remedies for cells that speak and were never trained to; each is a switch of its own.

    Attributes:
        emitted: the score loss acts on the score that is emitted, at every class and cell; else on its raw part.
        objectness: predict "an object of some class is here", trained at every cell, and multiply the score by it.
        inside_boxes: train the boxes of all cells inside an object, not of the positive ones alone.
        trained_reach: in inference only cells whose own box is centred within so many strides may speak; 0: all.
        quality: predict the box's IoU and multiply the score by this power of it; 0: not.
    """

    emitted: bool = True
    objectness: bool = False
    inside_boxes: bool = False
    trained_reach: float = 0.0
    quality: float = 0.0


@dataclass(frozen=True)
class BoxLossSettings:
    """Weights of the terms; all are divided by the number of objects.

    Attributes:
        cls: of the score loss.
        l1: distance of the edges, relative to the object's size.
        giou: of 1 - GIoU.
        objectness: where it is predicted.
        quality: where it is predicted.
        focal_alpha: `hard`.
        focal_gamma: `hard`.
    """

    cls: float = 1.0
    l1: float = 0.5
    giou: float = 2.0
    objectness: float = 0.5
    quality: float = 0.5
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0


@dataclass(frozen=True)
class BoxDecodeSettings:
    """From maps to boxes.

    Attributes:
        fusion: `learned` (the class map enters the score inside of the network), `product`, `geometric`, or `raw`.
        map_weight: `geometric`: the class map's share.
        threshold: scores below are dropped before anything else.
        operating: the threshold of single detections: `best_f1` on the validation images, or `fixed` at `threshold`.
        nms: IoU above which of two boxes of one class the lower-scored is dropped.
        top_k: boxes an image at most.
    """

    fusion: Literal["learned", "product", "geometric", "raw"] = "learned"
    map_weight: float = 0.35
    threshold: float = 0.001
    operating: Literal["best_f1", "fixed"] = "best_f1"
    nms: float = 0.5
    top_k: int = 100


@dataclass(frozen=True)
class TextTrainSettings(TrainSettings):
    """The loop (see `TrainSettings`), with the defaults of box detection."""

    steps: int = 600
    batch: int = 8
    validate_every: int = 150
    checkpoint_every: int = 150
    ema: float = 0.99


BASELINE: dict[str, Any] = {
    "clip": {"method": "surgery", "map": "min_max"},
    "assign": {"rule": "radius", "score": "hard"},
    "supervise": {"emitted": False, "objectness": False, "inside_boxes": False, "trained_reach": 0.0, "quality": 0.0},
    "loss": {"l1": 1.0, "giou": 1.0},
    "decode": {"fusion": "product", "threshold": 0.3, "operating": "fixed"},
}
"""The reference rule: argmax and radius, hard targets, raw score x min-max map, a threshold of 0.3."""


@dataclass(frozen=True)
class TextSettings:
    """Everything that decides a run of the text-query detector."""

    recipe: Literal["boresight", "baseline"] = "boresight"
    data: BoxDataSettings = field(default_factory=BoxDataSettings)
    augment: BoxAugmentSettings = field(default_factory=BoxAugmentSettings)
    clip: ClipSettings = field(default_factory=ClipSettings)
    encoder: ImageEncoderSettings = field(default_factory=ImageEncoderSettings)
    head: QueryHeadSettings = field(default_factory=QueryHeadSettings)
    assign: AssignSettings = field(default_factory=AssignSettings)
    supervise: SuperviseSettings = field(default_factory=SuperviseSettings)
    loss: BoxLossSettings = field(default_factory=BoxLossSettings)
    decode: BoxDecodeSettings = field(default_factory=BoxDecodeSettings)
    train: TextTrainSettings = field(default_factory=TextTrainSettings)
    detector: Literal["text", "localise"] = "text"

    RECIPES: ClassVar[dict[str, dict[str, Any]]] = {"boresight": {}, "baseline": BASELINE}


@dataclass(frozen=True)
class LocaliseHeadSettings(QueryHeadSettings):
    """See `QueryHeadSettings`; the true class's channel is trained, so that it must be a channel of its own."""

    box: Literal["agnostic", "conditioned"] = "conditioned"


@dataclass(frozen=True)
class LocaliseAssignSettings(AssignSettings):
    """See `AssignSettings`; no score is trained, so that the rule cannot depend on one."""

    rule: Literal["radius", "inside", "atss", "tal", "simota"] = "inside"
    score: Literal["hard", "centerness", "qfl", "vfl", "tal", "mal"] = "hard"


@dataclass(frozen=True)
class LocaliseSettings(TextSettings):
    """Everything that decides a run of localisation alone: boxes are trained on the true class's channel, no score."""

    head: LocaliseHeadSettings = field(default_factory=LocaliseHeadSettings)
    assign: LocaliseAssignSettings = field(default_factory=LocaliseAssignSettings)
    detector: Literal["text", "localise"] = "localise"
