"""What a refiner did to coarse boxes: IoU before and after, who gained, who lost, and whether it knew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from boresight.core.boxes import aligned_iou
from boresight.core.types import Scene
from boresight.evaluate.bootstrap import wilson_upper
from boresight.evaluate.estimate import Estimate, Resampler
from boresight.evaluate.pairs import Bools, Floats, Ints

GOOD = 0.8
"""IoU above which a coarse box is good, so that making it worse is harm."""

CHANGED = 1e-6
"""A change of the IoU by less is rounding."""

BEFORE_BINS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0 + 1e-9)
SIZE_BINS = {"small": (0.0, 32.0), "medium": (32.0, 96.0), "large": (96.0, float("inf"))}
"""Square root of the object's area, pixels: COCO's bounds."""


@dataclass(frozen=True)
class Refined:
    """Coarse boxes that stand for an object that counts, of many images, and what became of them.

    Attributes:
        images: number of images.
        image: ``[N]`` the image of each, from 0.
        label: ``[N]`` class of the object.
        side: ``[N]`` square root of the object's area, pixels.
        before, after: ``[N]`` IoU with the object of the coarse box and of the box that stands in the end.
        moved: ``[N]`` IoU of the refined box, taken or not.
        replaced: ``[N]`` bool.
        expected_before, expected_moved: ``[N]`` predicted IoU of the coarse and of the refined box, or None.
    """

    images: int
    image: Ints
    label: Ints
    side: Floats
    before: Floats
    after: Floats
    moved: Floats
    replaced: Bools
    expected_before: Floats | None = None
    expected_moved: Floats | None = None

    @property
    def expected(self) -> Floats | None:
        """``[N]`` predicted IoU of the box that stands in the end."""
        if self.expected_before is None or self.expected_moved is None:
            return None
        return np.where(self.replaced, self.expected_moved, self.expected_before)


@dataclass(frozen=True)
class Outcome:
    """What a refiner made of the coarse boxes of one image. Rows are coarse boxes, on the CPU.

    Attributes:
        moved: ``[M, 4]`` refined boxes.
        boxes: ``[M, 4]`` those that stand in the end.
        replaced: ``[M]`` bool.
        start_quality, quality: ``[M]`` predicted IoU of coarse and refined boxes, or None.
    """

    moved: Tensor
    boxes: Tensor
    replaced: Tensor
    start_quality: Tensor | None = None
    quality: Tensor | None = None


def judged_rows(scene: Scene) -> Tensor:
    """``[M]`` bool: the coarse boxes of a scene that stand for an object that counts."""
    assert scene.proposals is not None
    assert scene.proposals.matched is not None
    owner = scene.proposals.matched
    use = owner >= 0
    if scene.ignore is not None and len(scene.ignore):
        use = use & ~scene.ignore[owner.clamp(min=0)]
    return use


def refined(scenes: Sequence[Scene], outcomes: Sequence[Outcome]) -> Refined:
    """Gather what can be judged: the coarse boxes that stand for an object that counts (``Proposals.matched``).

    Raises ValueError where the owners of coarse boxes or the truth are unknown.
    """
    columns: dict[str, list[Any]] = {name: [] for name in ("image", "label", "side", "before", "after", "moved")}
    columns |= {name: [] for name in ("replaced", "start", "quality")}
    for i, (scene, out) in enumerate(zip(scenes, outcomes, strict=True)):
        proposals = scene.proposals
        if proposals is None or proposals.matched is None or scene.boxes is None or scene.labels is None:
            raise ValueError(f"scene `{scene.name}`: coarse boxes, their owners or the truth are unknown")
        use = judged_rows(scene)
        owner = proposals.matched[use]
        truth = scene.boxes[owner].double().reshape(-1, 4)
        columns["image"].append(np.full(len(owner), i))
        columns["label"].append(scene.labels[owner].numpy())
        columns["side"].append((truth[:, 2:] - truth[:, :2]).prod(1).sqrt().numpy())
        for name, boxes in (("before", proposals.boxes), ("after", out.boxes), ("moved", out.moved)):
            columns[name].append(aligned_iou(boxes[use].double(), truth).numpy())
        columns["replaced"].append(out.replaced[use].numpy())
        for name, quality in (("start", out.start_quality), ("quality", out.quality)):
            if quality is not None:
                columns[name].append(quality[use].double().numpy())
    empty = np.zeros(0)
    joined = {k: np.concatenate(v) if v else empty for k, v in columns.items()}
    known = len(joined["quality"]) == len(joined["image"]) and bool(columns["quality"])
    return Refined(
        images=len(scenes),
        image=joined["image"].astype(np.int64),
        label=joined["label"].astype(np.int64),
        side=joined["side"],
        before=joined["before"],
        after=joined["after"],
        moved=joined["moved"],
        replaced=joined["replaced"].astype(bool),
        expected_before=joined["start"] if known else None,
        expected_moved=joined["quality"] if known else None,
    )


def choose_confidence(score: Floats, before: Floats, moved: Floats, harm: float, image: Ints | None = None) -> float:
    """The score from which a box should be replaced.

    Of all cuts that most likely lower at most the share ``harm`` of the boxes above an IoU of 0.8, the one of the best
    mean IoU; above 1 (nothing is replaced) where none helps. Most likely: an upper bound of the share holds (90 %, one
    side), since the best of many cuts on few boxes looks better than it is; or no good box at all is lowered. The bound
    is Wilson's, or, where boxes of one image share their fate, that of the images' means (the larger of both).

    Args:
        score: ``[N]`` confidence that the refined box is the better one.
        before, moved: ``[N]`` IoU of the coarse and of the refined box.
        harm: in [0, 1].
        image: ``[N]`` the image of each box; None: they are independent.
    """
    order = np.argsort(-score, kind="stable")
    gain = (moved - before)[order]
    good = before[order] > GOOD
    lowered = (gain < -CHANGED) & good
    hurt = np.cumsum(lowered)
    bound = wilson_upper(hurt, int(good.sum()))
    if image is not None and good.any():
        bound = np.maximum(bound, clustered_upper(lowered[good], image[order][good])[np.cumsum(good) - 1])
    total = np.cumsum(gain)
    last = np.append(np.diff(score[order]) != 0, True)  # equal scores are taken together
    fine = last & ((hurt == 0) | (bound <= harm)) & (total > 0)
    if not fine.any():
        return 1.0 + 1e-6
    best = int(np.argmax(np.where(fine, total, -np.inf)))
    return float(score[order][best])


def clustered_upper(hit: Bools, image: Ints, z: float = 1.2816) -> Floats:
    """``[N]`` upper bound of the share of hits of all N, after each of them in turn (90 %, one side).

    Boxes of one image are no independent draws: the spread is that of the images' sums, by the linearised ratio
    (Cochran 1977, eq. 6.13). 1 with fewer than two images.
    """
    _, place = np.unique(image, return_inverse=True)
    m, n = int(place.max(initial=-1)) + 1, len(hit)
    if m < 2:
        return np.ones(n)
    size = np.bincount(place, minlength=m).astype(np.float64)
    sums = np.cumsum(hit[:, None] & (place[:, None] == np.arange(m)), axis=0)
    share = sums.sum(axis=1) / n
    spread = ((sums - share[:, None] * size) ** 2).sum(axis=1) * m / (m - 1)
    return np.minimum(share + z * np.sqrt(spread) / n, 1.0)


def refinement_figures(
    data: Refined, classes: Sequence[str], *, replicates: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """All that is said of a refinement, plain for JSON; intervals are 95 % bootstrap intervals by image."""
    draw = Resampler(data.image, data.images, replicates, seed)
    gain = data.after - data.before
    good = data.before > GOOD
    plain: dict[str, Estimate] = {
        "iou_before": draw.estimate(data.before),
        "iou_after": draw.estimate(data.after),
        "iou_gain": draw.estimate(gain),
        "iou_all_replaced": draw.estimate(data.moved),
        "iou_best_of_both": draw.estimate(np.maximum(data.before, data.moved)),
        "improved_share": draw.estimate(gain > CHANGED),
        "harmed_share": draw.estimate(gain < -CHANGED, good),
        "harmed_share_all": draw.estimate(gain < -CHANGED),
        "replaced_share": draw.estimate(data.replaced),
    }
    groups = {
        "by_iou": {
            f"{low:.1f}-{min(high, 1):.1f}": (data.before >= low) & (data.before < high) for low, high in _bins()
        },
        "by_size": {name: (data.side >= a) & (data.side < b) for name, (a, b) in SIZE_BINS.items()},
        "by_class": {name: data.label == k for k, name in enumerate(classes)},
    }
    return {
        "boxes": len(data.image),
        "images": data.images,
        **{name: e.value for name, e in plain.items()},
        "intervals": {name: e.interval for name, e in plain.items()},
        **{name: {key: _group(data, where) for key, where in parts.items()} for name, parts in groups.items()},
        "calibration": calibration(data),
    }


def _bins() -> list[tuple[float, float]]:
    return list(pairwise(BEFORE_BINS))


def _group(data: Refined, where: Bools) -> dict[str, Any]:
    n = int(where.sum())
    if not n:
        return {"n": 0, "before": None, "after": None, "improved": None, "harmed": None, "replaced": None}
    gain = (data.after - data.before)[where]
    return {
        "n": n,
        "before": float(data.before[where].mean()),
        "after": float(data.after[where].mean()),
        "improved": float((gain > CHANGED).mean()),
        "harmed": float((gain < -CHANGED).mean()),
        "replaced": float(data.replaced[where].mean()),
    }


def calibration(data: Refined, bins: int = 10) -> dict[str, Any] | None:
    """How far the predicted IoU is from the one that is reached; None where none is predicted.

    ``error`` is the expected calibration error (Guo et al. 2017, eq. 3, with IoU in the place of accuracy): the mean
    over boxes of the distance between predicted and reached IoU, averaged in bins of the prediction. ``mean_distance``
    is that of single boxes, ``correlation`` Pearson's.
    """
    expected = data.expected
    if expected is None or not len(expected):
        return None
    place = np.minimum((expected * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, weights=v, minlength=bins) for v in (expected, data.after)]
    rows = [
        {"low": k / bins, "n": int(n), "expected": float(a / n), "reached": float(b / n)}
        for k, (n, a, b) in enumerate(zip(count, *sums, strict=True))
        if n
    ]
    spread = min(float(np.std(expected)), float(np.std(data.after)))
    return {
        "error": float(np.abs(sums[0] - sums[1]).sum() / count.sum()),
        "mean_distance": float(np.abs(expected - data.after).mean()),
        "correlation": float(np.corrcoef(expected, data.after)[0, 1]) if spread > 0 else None,
        "bins": rows,
    }


def per_image_sums(data: Refined) -> dict[str, list[float]]:
    """Sums an image, from which any mean over resampled images is made: boxes, IoU before and after."""
    sums = {"boxes": None, "iou_before": data.before, "iou_after": data.after}
    return {name: np.bincount(data.image, weights=v, minlength=data.images).tolist() for name, v in sums.items()}
