"""An exported refiner at work with numpy: coarse boxes to those that stand in the end. Does without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from boresight.core.errors import UserError
from boresight.core.found import Found
from boresight.run.onnx_model import OnnxModel


@dataclass(frozen=True)
class Tightened:
    """Coarse boxes of one image after refinement, in their order.

    Attributes:
        boxes: ``[M, 4]`` those that stand in the end.
        replaced: ``[M]`` bool, which are refined ones.
        confidence: ``[M]`` in [0, 1] that the refined box is the better one.
        expected: ``[M]`` predicted IoU with the object of what stands, or None where the refiner predicts none.
    """

    boxes: np.ndarray
    replaced: np.ndarray
    confidence: np.ndarray
    expected: np.ndarray | None


def tighten(
    model: OnnxModel, pixels: np.ndarray, boxes: np.ndarray, labels: np.ndarray, threshold: float | None = None
) -> Tightened:
    """Refine the coarse boxes of one image.

    A box is replaced where the confidence reaches the threshold and the refined one has an area.

    Args:
        model: of ``refine``, with its features inside or none.
        pixels: ``[3, H, W]`` in 0..255.
        boxes: ``[M, 4]`` xyxy, pixels.
        labels: ``[M]`` that index the classes of the refiner, -1 for any other class.
        threshold: instead of the one chosen on validation.

    Raises UserError for a model of another system, and for one that needs features.
    """
    if model.system != "refine":
        raise UserError(f"{model.path}: holds a `{model.system}`; to refine boxes give a file of a run of `refine`")
    if model.about["features"] == "given":
        raise UserError(f"{model.path}: its graph needs frozen features; export the run with --features inside")
    least = model.threshold if threshold is None else threshold
    coarse = boxes.astype(np.float32)
    if not len(coarse):
        none = np.zeros(0, dtype=np.float32)
        return Tightened(coarse, np.zeros(0, dtype=bool), none, none if "quality" in model.about["outputs"] else None)
    named = {"labels": labels.astype(np.int64)} if model.about["named"] else {}
    owner = np.zeros(len(coarse), dtype=np.int64)
    found = model.run(image=pixels[None].astype(np.float32), coarse=coarse, owner=owner, **named)
    moved, confidence = found["boxes"], found["scores"]
    replaced = (confidence >= least) & np.all(moved[:, 2:] > moved[:, :2], axis=-1)
    stands = np.where(replaced[:, None], moved, coarse)
    expected = np.where(replaced, found["quality"], found["start_quality"]) if "quality" in found else None
    return Tightened(stands, replaced, confidence, expected)


def tightened_detections(
    model: OnnxModel, pixels: np.ndarray, found: Found, names: Sequence[str], threshold: float | None = None
) -> Found:
    """Detections of another model with tighter boxes, scored by how well they are thought to fit; best first.

    Args:
        model, pixels, threshold: as for :func:`tighten`.
        found: with labels that index ``names``.
        names: classes of the other model.
    """
    place = {name: i for i, name in enumerate(model.classes)}
    labels = np.array([place.get(name, -1) for name in names], dtype=np.int64)[found.labels]
    result = tighten(model, pixels, found.boxes, labels, threshold)
    power, scores = model.about["decode"]["rescore"], found.scores.astype(np.float32)
    if result.expected is not None and power:
        scores = scores ** np.float32(1 - power) * np.clip(result.expected, 0, None) ** np.float32(power)
    order = np.argsort(-scores, kind="stable")
    return Found(result.boxes[order], scores[order], found.labels[order], found.cell[order])
