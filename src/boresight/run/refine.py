"""The box refiner: from settings to parts, and what is said of a trained one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from boresight.core.errors import UserError
from boresight.core.types import Detections, Scene
from boresight.detectors.box_looks import Looking, Reference
from boresight.detectors.box_refiner import BoxRefiner, RefineCriterion, Refiner, settled
from boresight.evaluate.refinement import Outcome, choose_confidence, refined
from boresight.features.stored_maps import StoredMaps
from boresight.heads.refiner import ReferenceHead, RefineHead
from boresight.run.boxes import box_splits
from boresight.run.coarse import CoarseView, Found, WithCoarse, read_results
from boresight.run.config_refine import FeatureSettings, RefineSettings
from boresight.run.feature_parts import feature_store, frozen_encoder
from boresight.run.frames import expanded
from boresight.run.recipe import Judgement, Recipe, Splits, View
from boresight.run.refine_examine import examine_refined, refine_summary


def stored_maps(settings: FeatureSettings) -> StoredMaps | None:
    """The frozen side; None where the refiner reads pixels alone."""
    if settings.name == "none":
        return None
    return StoredMaps(frozen_encoder(settings), feature_store(settings), batch=settings.batch)


def box_refiner(settings: RefineSettings, classes: tuple[str, ...]) -> BoxRefiner:
    """The refiner that the settings describe."""
    maps = stored_maps(settings.features)
    channels = () if maps is None else maps.encoder.channels
    head, loss, confident = settings.head, settings.loss, settings.decode.decide == "confidence"
    refiner: Refiner
    if head.kind == "reference":
        if not channels:
            raise UserError("`features.name` = none: the reference head reads frozen features alone; name an encoder")
        refiner = Reference(ReferenceHead(channels, reach=head.reach))
    else:
        if not channels and not head.pixels:
            raise UserError("`features.name` = none and `head.pixels` = false: nothing to look at; set one of them")
        refiner = Looking(
            [
                RefineHead(
                    channels,
                    grid=head.grid,
                    width=head.width,
                    depth=head.depth,
                    pixels=head.pixels,
                    regression=head.regression,
                    classes=len(classes) if head.class_input else 0,
                    decides=last and confident,
                    dropout=head.dropout,
                )
                for last in ([True] if head.shared else [False] * (head.steps - 1) + [True])
            ],
            steps=head.steps,
            context=head.context,
            decide=settings.decode.decide,
        )
    decision = loss.decision if confident else 0.0
    criterion = RefineCriterion(loss.l1, loss.iou, loss.edges, loss.quality, decision, loss.unmatched)
    return BoxRefiner(maps, refiner, criterion, match_iou=settings.coarse.match_iou)


def refine_splits(settings: RefineSettings, only: str | None = None) -> Splits:
    """The images of a run; those to be judged come with their coarse boxes."""
    data, coarse = settings.data, settings.coarse
    splits = box_splits(data, only)
    every = splits.classes + splits.novel
    found = {name: _found(getattr(coarse, f"{name}_file"), every, coarse.min_score, name) for name in ("val", "test")}
    if coarse.train_file and not coarse.val_file and not data.val:
        found["val"] = _found(coarse.train_file, every, coarse.min_score, "train")
    order = list(splits.order)
    if data.sample_ratio < 1 or data.max_images:
        count = max(1, round(len(order) * data.sample_ratio))
        count = min(count, data.max_images or count)
        chosen = np.random.default_rng([data.seed, 4]).permutation(len(order))[:count]
        order = [order[i] for i in sorted(chosen.tolist())]
    train = WithCoarse(splits.train, coarse, data.seed)
    many = replace(coarse, copies=coarse.val_copies)
    val = WithCoarse(splits.val, many, data.seed + 1, found["val"])
    test = WithCoarse(splits.test, coarse, data.seed + 2, found["test"])
    return replace(splits, train=train, val=val, test=test, order=order)


def _found(file: str, classes: Sequence[str], min_score: float, name: str) -> Found | None:
    return read_results(expanded(file, f"coarse.{name}_file"), classes, min_score) if file else None


def refine_view(settings: RefineSettings) -> View:
    """Training views."""
    coarse = settings.coarse
    known: dict[str, Found] = {}

    def view(frames: Any, index: int, rng: np.random.Generator) -> Scene:
        bare = frames.frames if isinstance(frames, WithCoarse) else frames
        if coarse.train_file and not known:
            known["train"] = read_results(
                expanded(coarse.train_file, "coarse.train_file"), _class_names(bare), coarse.min_score
            )
        return CoarseView(coarse, settings.augment, known.get("train"))(bare, index, rng)

    return view


def _class_names(frames: Any) -> Sequence[str]:
    while not hasattr(frames, "classes"):
        frames = frames.source
    return frames.classes


def judge_refined(
    settings: RefineSettings, classes: tuple[str, ...], scenes: Sequence[Scene], found: Sequence[Detections]
) -> Judgement:
    """The confidence from which a box is replaced, and the mean IoU with it."""
    moved = [_moved(scene, one) for scene, one in zip(scenes, found, strict=True)]
    data = refined(scenes, moved)
    if not len(data.image):
        return Judgement(score=0.0, name="mean IoU", threshold=0.5, figures={"iou_before": None, "iou_after": None})
    score = _scores(scenes, found)
    decode = settings.decode
    threshold = 0.0
    if decode.operating == "best":
        threshold = choose_confidence(score, data.before, data.moved, decode.harm, data.image)
    after = np.where(score >= threshold, data.moved, data.before)
    figures = {"iou_before": float(data.before.mean()), "iou_after": float(after.mean())}
    figures |= {"iou_all_replaced": float(data.moved.mean())}
    return Judgement(score=figures["iou_after"], name="mean IoU", threshold=threshold, figures=dict(figures))


def _moved(scene: Scene, found: Detections) -> Outcome:
    """Every box replaced."""
    assert scene.proposals is not None
    boxes, replaced = settled(scene.proposals, found, 0.0)
    moved = torch.empty_like(boxes)
    moved[found.cell] = found.boxes
    return Outcome(moved, boxes, replaced)


def _scores(scenes: Sequence[Scene], found: Sequence[Detections]) -> np.ndarray:
    """The confidence of each box that :func:`refined` keeps, in its order."""
    parts = []
    for scene, one in zip(scenes, found, strict=True):
        assert scene.proposals is not None
        assert scene.proposals.matched is not None
        score = torch.empty(len(one))
        score[one.cell] = one.scores
        owner = scene.proposals.matched
        use = owner >= 0
        if scene.ignore is not None and len(scene.ignore):
            use = use & ~scene.ignore[owner.clamp(min=0)]
        parts.append(score[use].double().numpy())
    return np.concatenate(parts) if parts else np.zeros(0)


REFINE = Recipe(
    name="refine",
    settings=RefineSettings,
    build=box_refiner,
    frames=refine_splits,
    view=refine_view,
    judge=judge_refined,
    examine=examine_refined,
    figures=("iou_after", "iou_before", "iou_all_replaced", "improved_share", "harmed_share"),
    monitor="iou_after",
    summary=refine_summary,
)
