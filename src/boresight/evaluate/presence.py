"""Does the detector know which classes an image holds? The area under the ROC curve, class by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from boresight.core.types import Detections, Scene
from boresight.evaluate.box_set import as_numpy, truth_of
from boresight.evaluate.pairs import Bools, Floats


@dataclass(frozen=True)
class PresenceAuc:
    """ROC AUC of presence.

    Attributes:
        auc: mean over the classes that some images hold and others lack, None when there is no such class.
        per_class: ``C`` entries, None where a class lacks one kind of image.
        present, absent: ``C`` numbers of images of either kind.
    """

    auc: float | None
    per_class: tuple[float | None, ...]
    present: tuple[int, ...]
    absent: tuple[int, ...]


def presence_auc(presence: ArrayLike, present: ArrayLike, known: ArrayLike | None = None) -> PresenceAuc:
    """Return the chance that an image with the class gets a higher presence than one without, ties counted half.

    Args:
        presence: ``[N, C]`` how sure the detector is that image ``n`` holds class ``c``; only its order matters.
        present: ``[N, C]`` bool.
        known: ``[N, C]`` bool, where ``present`` is known (None: everywhere); the rest is left out.

    The statistic of Mann and Whitney (1947). Raises ``ValueError`` when shapes differ or a known presence is NaN.
    """
    score, holds = np.asarray(presence, np.float64), np.asarray(present, np.bool_)
    sure = np.ones_like(holds) if known is None else np.asarray(known, np.bool_)
    if score.ndim != 2 or score.shape != holds.shape or score.shape != sure.shape:
        raise ValueError(f"presence, present and known must be [N, C], got {score.shape}, {holds.shape}, {sure.shape}")
    if np.isnan(score[sure]).any():
        raise ValueError("presence holds NaN where it is judged")
    n_present, n_absent = (holds & sure).sum(axis=0), (~holds & sure).sum(axis=0)
    rank = rankdata(np.where(sure, score, np.nan), axis=0, nan_policy="omit") if len(score) else score
    wins = np.where(holds & sure, rank, 0).sum(axis=0) - n_present * (n_present + 1) / 2
    both = (n_present > 0) & (n_absent > 0)
    auc = np.divide(wins, n_present * n_absent, out=np.full(len(wins), np.nan), where=both)
    return PresenceAuc(
        float(auc[both].mean()) if both.any() else None,
        tuple(float(a) if np.isfinite(a) else None for a in auc),
        tuple(n_present.tolist()),
        tuple(n_absent.tolist()),
    )


def best_scores(found: Sequence[Detections], classes: int) -> Floats:
    """Return each image's best score of each class, ``[N, C]``: what stands for presence where none is emitted.

    A class of which nothing was found gets 0. Raises ``ValueError`` for a label outside ``0..classes - 1``.
    """
    labels, scores = as_numpy([d.labels for d in found], np.int64), as_numpy([d.scores for d in found], np.float64)
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"labels {labels.min()}..{labels.max()} do not lie in 0..{classes - 1}")
    best = np.zeros((len(found), classes))
    np.maximum.at(best, (np.repeat(np.arange(len(found)), [len(d) for d in found]), labels), scores)
    return best


def present_classes(truth: Sequence[Scene], classes: int) -> tuple[Bools, Bools]:
    """Return ``(present, known)``, each ``[N, C]`` bool.

    A class is present where a box of it is, a don't-care box included. Presence is known where the class is, or where
    it is exhaustively labelled. Raises ``ValueError`` for a scene whose boxes are unknown.
    """
    present = np.zeros((len(truth), classes), np.bool_)
    known = np.ones((len(truth), classes), np.bool_)
    for row, (scene, labels) in enumerate(zip(truth, truth_of(truth)[1], strict=True)):
        present[row, labels.cpu().numpy()] = True
        if scene.exhaustive is not None:
            known[row] = scene.exhaustive.cpu().numpy().astype(np.bool_)
    return present, known | present
