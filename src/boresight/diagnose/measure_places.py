"""Asks a detector about places: whether truth survives encoding and decoding, and where detections lie against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from boresight.core.emission import Missing
from boresight.core.grid import cell_to_pixel
from boresight.core.types import DenseOutput, DenseTargets, Detections, Scene
from boresight.diagnose.asked import Asked, in_mode, perfect_logits
from boresight.diagnose.probe import Offset, PaddingShift, Reach, RoundTrip

PAD = 32
"""Pixels that the larger image of a batch has more: cells of any stride up to 32 move by whole numbers."""

SAME, OTHER = 0.3, 0.75
"""Mean square of the difference of two score maps, over the variance: below the first they show the same, above the
second they do not. (What lies beside an image changes its border, and in small images much else: up to 0.6 was seen
where nothing had moved, and 1.3 at the least where all had.)"""

FEWEST = 10
"""Pairs of a detection and its truth from which a mean offset is worked out."""


@torch.no_grad()
def round_trip(detector: Asked, scenes: Sequence[Scene]) -> RoundTrip | Missing:
    """Write truth into the output as the targets ask for it, decode, and look for it where it was.

    An object counts as found where a detection of its class overlaps it by half; a point, where one lies within two
    cells. `Missing` where no object has a positive cell.
    """
    shifts: list[Tensor] = []
    beside: list[Tensor] = []
    objects = 0
    with in_mode(detector, training=False):
        for scene in scenes:
            output = detector([scene])
            targets = detector.assign(output, [scene])
            has = (targets.positives_per_object() > 0) & targets.counted
            truth, labels = targets.objects[has], targets.labels[has]
            objects += len(truth)
            beside.append(_beside(output, targets))
            found = detector.decode(_as_asked(output, targets))[0]
            same = None if output.logits.shape[1] == 1 else labels[:, None] == found.labels
            shifts.append(_displacement(truth, found, same, 2 * output.stride))
    if not objects:
        return Missing("no object of the scenes that were probed has a positive cell")
    every = torch.cat(shifts)
    x, y = every.median(0).values.tolist() if len(every) else (0.0, 0.0)
    return RoundTrip(objects, float(torch.cat(beside).float().mean()), objects - len(every), x, y)


def _beside(output: DenseOutput, targets: DenseTargets) -> Tensor:
    """``[K]`` bool of the positive cells: the cell lies more than three cells outside of its object's box."""
    _, _, row, column = torch.nonzero(targets.positive, as_tuple=True)
    if output.counts:  # the cells of coarse boxes lie nowhere
        return torch.zeros_like(row, dtype=torch.bool)
    centre = cell_to_pixel(torch.stack((column, row), dim=-1).float(), output.stride)
    box = targets.objects[targets.matched[targets.positive]].float()
    gap = torch.maximum(box[:, :2] - centre, centre - box[:, 2:]).clamp(min=0)
    return gap.amax(-1) > 3 * output.stride


def _as_asked(output: DenseOutput, targets: DenseTargets) -> DenseOutput:
    """An output that says what the targets ask for, whatever else is multiplied into the score being 1."""
    logits = torch.where(targets.positive, perfect_logits(targets).clamp(min=3.0), perfect_logits(targets))
    boxes = output.boxes.float().clone()
    taught = targets.matched >= 0
    boxes[taught] = targets.objects[targets.matched[taught]].float()
    quality, cam, presence = (
        None if v is None else torch.ones_like(v) for v in (output.quality, output.cam, output.presence)
    )
    sure = None if output.objectness is None else torch.full_like(output.objectness, 12.0)
    return replace(output, logits=logits, boxes=boxes, quality=quality, cam=cam, presence=presence, objectness=sure)


def _displacement(truth: Tensor, found: Detections, same: Tensor | None, reach: float) -> Tensor:
    """``[K, 2]`` detection minus truth, centres in pixels, of the truths that are found."""
    if not len(truth) or not len(found):
        return truth.new_zeros(0, 2)
    middle = (truth[:, :2] + truth[:, 2:]) / 2
    gap = found.xy.to(middle) - middle[:, None]
    if bool((truth[:, 2:] > truth[:, :2]).all()):
        near = -box_iou(truth.float(), found.boxes.to(truth).float())
        limit = -0.5
    else:
        near, limit = gap.norm(dim=-1), reach
    near = near if same is None else torch.where(same, near, torch.inf)
    best = near.argmin(1)
    row = torch.arange(len(truth), device=truth.device)
    return gap[row, best][near[row, best] <= limit].cpu()


@torch.no_grad()
def reach(detector: Asked, scenes: Sequence[Scene], held: Sequence[int]) -> Reach:
    """How many of an image's objects (``held``, as its file has them) the targets hold, image by image."""
    reached = []
    with in_mode(detector, training=False):
        for scene in scenes:
            targets = detector.assign(detector([scene]), [scene])
            reached.append(int(targets.counted.sum()))
    return Reach(tuple(held), tuple(reached))


@torch.no_grad()
def padding(detector: Asked, scenes: Sequence[Scene]) -> PaddingShift | Missing:
    """By how many cells the score map of an image moves when a larger image shares its batch.

    Of the scenes the one with the liveliest map is taken. `Missing` where that is flat or shows nothing that can be
    found again, and where cells lie on no grid.
    """
    with in_mode(detector, training=False):
        outputs = [detector([scene]) for scene in scenes]
        if outputs[0].counts:
            return Missing("cells are coarse boxes: nothing is padded")
        scene, output = max(
            zip(scenes, outputs, strict=True), key=lambda pair: float(pair[1].logits.float().var(correction=0))
        )
        larger = replace(scene, image=_larger(scene.image), name=f"{scene.name} and {PAD} pixels more", view=None)
        alone, beside = output.logits[0].float(), detector([scene, larger]).logits[0].float()
    rows, columns = alone.shape[-2:]
    whole = float(alone.var(correction=0))
    if whole < 1e-9:
        return Missing("the score map is flat: that it moved could not be seen")
    error = {
        (x, y): float((beside[:, y : y + rows, x : x + columns] - alone).square().mean()) / whole
        for y in range(beside.shape[-2] - rows + 1)
        for x in range(beside.shape[-1] - columns + 1)
    }
    place = min(error, key=lambda at: error[at])
    pad, here, there = beside.shape[-1] - columns, error[0, 0], error[place]
    if here < OTHER:
        return PaddingShift(0, 0, pad)
    if there < SAME and 4 * there < here:
        return PaddingShift(*place, pad)
    return Missing("the score map is nowhere like that of the image alone: whether it moved cannot be seen")


def _larger(image: Tensor) -> Tensor:
    return F.pad(image[None].float(), (0, PAD, 0, PAD), mode="replicate")[0].to(image.dtype)


def offset(
    scenes: Sequence[Scene], found: Sequence[Detections], *, stride: float, tolerance: float | None
) -> Offset | Missing:
    """Mean place of detections against the truth that they find.

    Args:
        scenes: with their truth.
        found: what was detected in each.
        stride: pixels a cell.
        tolerance: of points, pixels: the best-scored detection within twice that is taken. None: of boxes, the one that
            overlaps most, by 0.3 or more.
    """
    gaps = []
    for scene, detections in zip(scenes, found, strict=True):
        truth = _truth(scene)
        if truth is None or not len(truth) or not len(detections):
            continue
        gap = (detections.xy - (truth[:, None, :2] + truth[:, None, 2:]) / 2).cpu()
        if tolerance is None:
            iou = box_iou(truth.float().cpu(), detections.boxes.float().cpu())
            best, limit = iou.argmax(1), iou.amax(1) >= 0.3
        else:
            near = gap.norm(dim=-1) <= 2 * tolerance
            rank = torch.where(near, detections.scores.cpu(), -1.0)
            best, limit = rank.argmax(1), near.any(1)
        gaps.append(gap[torch.arange(len(truth)), best][limit])
    pairs = torch.cat(gaps) if gaps else torch.zeros(0, 2)
    if len(pairs) < FEWEST:
        return Missing(f"{len(pairs)} objects were found, {FEWEST} are needed for a mean offset")
    mean, error = pairs.double().mean(0), pairs.double().std(0) / len(pairs) ** 0.5
    return Offset(len(pairs), float(mean[0]), float(mean[1]), float(error[0]), float(error[1]), stride)


def _truth(scene: Scene) -> Tensor | None:
    """``[N, 4]`` objects that count, points as boxes of size zero."""
    if scene.boxes is not None:
        return scene.boxes if scene.ignore is None else scene.boxes[~scene.ignore]
    if scene.points is None:
        return None
    xy = scene.points.xy[~scene.points.ignore]
    return torch.cat((xy, xy), dim=-1)
