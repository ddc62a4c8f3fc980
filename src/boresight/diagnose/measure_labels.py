"""Looks at the labels of a split, and at how well a stored threshold suits what is found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torchvision.ops import box_iou

from boresight.core.emission import Missing
from boresight.core.types import Detections, Scene
from boresight.diagnose.evidence import ClassLook, Labels, SplitLabels
from boresight.diagnose.probe import Operating, Returned
from boresight.evaluate.box_threshold import best_f_threshold, per_image_counts
from boresight.evaluate.gather import PointSet
from boresight.evaluate.ladder import Ladder, best_threshold

COVERED = 0.6
"""IoU of two boxes of one class from which the worse one is a twin."""


def labels_of(classes: Sequence[str], splits: Mapping[str, tuple[Sequence[str], Iterable[Scene]]]) -> Labels:
    """The labels of splits, each given by its name, its class names (empty: not known) and some of its scenes."""
    read = {name: (tuple(names), _read(scenes)) for name, (names, scenes) in splits.items()}
    sides = [row[0] for _, looks in read.values() for rows in looks.values() for row in rows if len(row) > 1]
    found = tuple(SplitLabels(name, names, *_summary(looks)) for name, (names, looks) in read.items())
    return Labels(tuple(classes), found, float(np.exp(np.median(sides))) if sides else None)


def _read(scenes: Iterable[Scene]) -> dict[int, list[list[float]]]:
    """Of every label the looks of its objects: the logarithm of side and shape and the colour; of points nothing."""
    looks: dict[int, list[list[float]]] = {}
    for scene in scenes:
        if scene.points is not None:
            for label in scene.points.labels.tolist():
                looks.setdefault(label, []).append([])
        if scene.boxes is None or scene.labels is None:
            continue
        for label, box in zip(scene.labels.tolist(), scene.boxes.tolist(), strict=True):
            looks.setdefault(label, []).append(_look(scene, box))
    return looks


def _look(scene: Scene, box: Sequence[float]) -> list[float]:
    height, width = scene.size
    wide, high = max(box[2] - box[0], 1e-3), max(box[3] - box[1], 1e-3)
    x0, y0 = (min(max(int(v), 0), end - 1) for v, end in zip(box[:2], (width, height), strict=True))
    x1, y1 = max(int(box[2]), x0 + 1), max(int(box[3]), y0 + 1)
    colour = scene.image[:, y0:y1, x0:x1].float().mean((1, 2)) / 255
    return [0.5 * float(np.log(wide * high)), float(np.log(wide / high)), *colour.tolist()]


def _summary(looks: Mapping[int, list[list[float]]]) -> tuple[dict[int, int], dict[int, ClassLook]]:
    counts = {label: len(rows) for label, rows in sorted(looks.items())}
    seen: dict[int, ClassLook] = {}
    for label, rows in sorted(looks.items()):
        table = np.array(rows, dtype=np.float64)
        if table.size:
            seen[label] = ClassLook(len(rows), tuple(table.mean(0).tolist()), tuple(table.std(0).tolist()))
    return counts, seen


def operating(
    scenes: Sequence[Scene], found: Sequence[Detections], threshold: float, *, tolerance: float | None
) -> Operating | Missing:
    """F1 at the stored threshold and at the best one; of points (``tolerance`` in pixels) or of boxes (IoU 0.5)."""
    known = [(s, d) for s, d in zip(scenes, found, strict=True) if (s.points if tolerance else s.boxes) is not None]
    if not known:
        return Missing("the scenes have no truth")
    scenes, found = [s for s, _ in known], [d for _, d in known]
    if tolerance:
        truth = [s.points for s in scenes if s.points is not None]
        ladder = Ladder(PointSet.of(truth, found), tolerance)
        best = best_threshold(truth, found, tolerance)
        counts = [np.stack(ladder.per_image(t), axis=1) for t in (threshold, best)]
    else:
        best = best_f_threshold(scenes, found)
        counts = [per_image_counts(scenes, found, t) for t in (threshold, best)]
    objects = counts[0][:, 0] + counts[0][:, 2]
    if not objects.sum():
        return Missing("the scenes hold no object")
    passing = np.array([bool((d.scores >= threshold).any()) for d in found])
    silent = float((~passing[objects > 0]).mean())
    return Operating(int(objects.sum()), threshold, _f1(counts[0]), best, _f1(counts[1]), silent)


def _f1(counts: np.ndarray) -> float:
    tp, fp, fn = counts.sum(0)
    return float(2 * tp / max(1, 2 * tp + fp + fn))


def returned(
    scenes: Sequence[Scene], found: Sequence[Detections], threshold: float, *, tolerance: float | None
) -> Returned:
    """Range of the scores of what is found, and detections that a better one of their class covers.

    Boxes cover each other from an IoU of 0.6; points (``tolerance`` in pixels) within half the tolerance.
    """
    scores = np.concatenate([d.scores.double().cpu().numpy() for d in found]) if found else np.zeros(0)
    used = twins = 0
    for detections in found:
        keep = detections.scores >= threshold
        boxes, labels = detections.boxes[keep].float().cpu(), detections.labels[keep].cpu()
        near = torch.cdist(boxes[:, :2], boxes[:, :2])
        same = near < tolerance / 2 if tolerance else box_iou(boxes, boxes) > COVERED
        twins += int((same & (labels[:, None] == labels)).tril(-1).any(1).sum())  # the best come first
        used += len(boxes)
    low, high = (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 0.0)
    return Returned(len(scores), low, high, used, twins)
