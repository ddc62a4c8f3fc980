"""Pd and Fa as the infrared small-target literature counts them, so that its tables can be compared with ours.

Those protocols judge binary maps. A point detector draws none, so each detection is drawn as a square stamp of a
declared size, and the size is part of every result: Fa grows with its square and says nothing without it. Both the
truth mask and the drawn map are split into 8-connected components in raster order; a truth takes the *first*
remaining prediction whose centroid lies less than 3 px away, not the nearest one. Don't-care and class labels do not
exist there, and every component of the mask counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from boresight.core.errors import UserError
from boresight.core.types import Detections, Points
from boresight.evaluate.gather import PointSet

CENTROID_DISTANCE = 3.0  # strict, in pixels
SPIRE_TOLERANCE = 5.0  # inclusive, in pixels
Mask = NDArray[Any]


@dataclass(frozen=True)
class StampReport:
    """Additive counts of one protocol over a data set.

    Attributes:
        protocol: which code the counts follow.
        stamp: side of the square each detection was drawn as, pixels.
        targets, detected: components of the truth masks, and those of them that were found.
        false_pixels, pixels: predicted pixels counted as false alarms, and all pixels.
    """

    protocol: Literal["basic_irstd", "dnanet_legacy"]
    stamp: int
    targets: int
    detected: int
    false_pixels: int
    pixels: int

    @property
    def pd(self) -> float | None:
        """Share of the targets found; None without targets."""
        return self.detected / self.targets if self.targets else None

    @property
    def fa(self) -> float | None:
        """False pixels over all pixels (tables print it times 1e6); None without pixels."""
        return self.false_pixels / self.pixels if self.pixels else None

    def to_dict(self) -> dict[str, Any]:
        """Counts, ``pd``, ``fa`` and ``fa_e6`` for JSON."""
        fa = self.fa
        counts = {n: getattr(self, n) for n in ("stamp", "targets", "detected", "false_pixels", "pixels", "pd", "fa")}
        return counts | {"fa_e6": None if fa is None else fa * 1e6}


@dataclass(frozen=True)
class SpireReport:
    """F1 with optimal matching at 5 px (inclusive); positions alone, no stamp is drawn."""

    tp: int
    fp: int
    fn: int

    @property
    def f1(self) -> float | None:
        """``2 tp / (2 tp + fp + fn)``, None where nothing exists and nothing is found."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else None

    def to_dict(self) -> dict[str, Any]:
        """Counts and F1 for JSON."""
        return {"tolerance": SPIRE_TOLERANCE, "tp": self.tp, "fp": self.fp, "fn": self.fn, "f1": self.f1}


def draw_stamps(xy: NDArray[np.floating], size: tuple[int, int], stamp: int) -> NDArray[np.bool_]:
    """Return a ``[H, W]`` bool map with a ``stamp`` x ``stamp`` square around the pixel that holds each position.

    ``xy [N, 2]`` is in the pixel frame: pixel ``i`` covers ``[i, i + 1)``, and a point on the far border belongs to the
    last pixel. Squares are clipped at the border and merge where they touch. Raises ``UserError`` for an even or
    non-positive stamp (it has no centre pixel).
    """
    if stamp < 1 or stamp % 2 == 0:
        raise UserError(f"stamp must be an odd number of pixels such as 3, got {stamp}")
    height, width = size
    drawn = np.zeros((height, width), np.bool_)
    centre = np.floor(np.asarray(xy, np.float64).reshape(-1, 2)).astype(np.int64)
    x, y = (centre[:, k].clip(0, limit - 1) for k, limit in ((0, width), (1, height)))
    reach = np.arange(stamp) - stamp // 2
    rows, columns = np.broadcast_arrays((y[:, None] + reach)[:, :, None], (x[:, None] + reach)[:, None, :])
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    drawn[rows[inside], columns[inside]] = True
    return drawn


@dataclass(frozen=True)
class _Components:
    """Centroids ``[K, 2]`` (row, column) and areas ``[K]`` of 8-connected components, in raster order."""

    centroid: NDArray[np.floating]
    area: NDArray[np.int64]


def _components(binary: NDArray[np.bool_]) -> _Components:
    labelled, n = ndimage.label(binary, structure=np.ones((3, 3), np.int8))
    row, column = np.nonzero(labelled)
    number = labelled[row, column] - 1
    area = np.bincount(number, minlength=n)
    sums = [np.bincount(number, weights=x, minlength=n) for x in (row, column)]
    # The labeller numbers by first pixel, row after row, as the published code's does.
    return _Components(np.stack(sums, axis=-1) / np.maximum(area, 1)[:, None], area)


def _first_match(truth: _Components, drawn: _Components) -> NDArray[np.bool_]:
    """Return which drawn components some truth takes; each takes the first free one, in raster order."""
    taken = np.zeros(len(drawn.area), np.bool_)
    for centroid in truth.centroid:
        gap = np.linalg.norm(drawn.centroid - centroid, axis=1)
        free = np.flatnonzero(~taken & (gap < CENTROID_DISTANCE))
        if len(free):
            taken[free[0]] = True
    return taken


def _judge(
    protocol: Literal["basic_irstd", "dnanet_legacy"],
    masks: Sequence[Mask],
    positions: Sequence[NDArray[np.floating]],
    stamp: int,
) -> StampReport:
    if len(masks) != len(positions):
        raise ValueError(f"{len(masks)} masks and {len(positions)} images of positions: they must be the same images")
    targets = detected = false_pixels = pixels = 0
    for mask, xy in zip(masks, positions, strict=True):
        truth = _components(np.asarray(mask) > 0)
        drawn = _components(draw_stamps(xy, (mask.shape[0], mask.shape[1]), stamp))
        taken = _first_match(truth, drawn)
        excused = taken if protocol == "basic_irstd" else np.isin(drawn.area, drawn.area[taken])
        targets, detected = targets + len(truth.area), detected + int(taken.sum())
        false_pixels, pixels = false_pixels + int(drawn.area[~excused].sum()), pixels + mask.shape[0] * mask.shape[1]
    return StampReport(protocol, stamp, targets, detected, false_pixels, pixels)


def basic_irstd(masks: Sequence[Mask], positions: Sequence[NDArray[np.floating]], stamp: int) -> StampReport:
    """Count as BasicIRSTD does after its repair: Fa is the area of the predicted components that no truth took.

    Args:
        masks: ``[H, W]`` an image, anything above 0 is target.
        positions: ``[N, 2]`` an image, the detections that passed the threshold, pixel frame.
        stamp: odd side of the square drawn for each, pixels.

    Raises ``ValueError`` on unequal lengths, ``UserError`` on an even stamp.
    """
    return _judge("basic_irstd", masks, positions, stamp)


def dnanet_legacy(masks: Sequence[Mask], positions: Sequence[NDArray[np.floating]], stamp: int) -> StampReport:
    """Count as DNANet's published code does, known fault included; never quote its Fa without saying so.

    That code keeps the *areas* of the matched components and takes every predicted component of the same image with an
    equal area for matched as well. A detector whose blobs are all alike is excused from every false alarm in each
    image where it hits once. (Found in DNANet, MSHNet and SCTransNet; BasicIRSTD repaired it.) Arguments and errors are
    those of :func:`basic_irstd`.
    """
    return _judge("dnanet_legacy", masks, positions, stamp)


def spire(truth: Sequence[Points], found: Sequence[Detections]) -> SpireReport:
    """Count hits, false alarms and misses at 5 px, as SPIRE reports F1; don't-care truths are honoured."""
    match = PointSet.of(truth, found).match(SPIRE_TOLERANCE)
    return SpireReport(int(match.hit.sum()), int(match.false_alarm.sum()), int(match.missed.sum()))


def compatibility(
    truth: Sequence[Points], found: Sequence[Detections], *, threshold: float, stamp: int = 3
) -> dict[str, Any]:
    """Return all compatibility figures at ``score >= threshold``, for JSON.

    Keys: ``threshold``, ``stamp``, ``basic_irstd``, ``dnanet_legacy``, ``spire_5px`` and ``reason``. Where an image has
    no truth mask the two map protocols are None and ``reason`` says why; otherwise ``reason`` is None.
    """
    passed = [d.select(d.scores >= threshold) for d in found]
    result: dict[str, Any] = {"threshold": threshold, "stamp": stamp, "basic_irstd": None, "dnanet_legacy": None}
    result["spire_5px"] = spire(truth, passed).to_dict()
    masks = [p.mask.cpu().numpy() for p in truth if p.mask is not None]
    if without := len(truth) - len(masks):
        return result | {"reason": f"{without} of {len(truth)} images have no truth mask, which Pd and Fa need"}
    positions = [d.xy.detach().cpu().double().numpy() for d in passed]
    for judge in (basic_irstd, dnanet_legacy):
        report = judge(masks, positions, stamp)
        result[report.protocol] = report.to_dict()
    return result | {"reason": None}
