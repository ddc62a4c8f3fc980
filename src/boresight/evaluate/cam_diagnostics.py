"""What the frozen class map can and cannot do for localisation, before any box is read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from boresight.core.types import Scene
from boresight.evaluate.box_set import truth_of
from boresight.evaluate.dense_image import DenseImage, Objects
from boresight.evaluate.estimate import Estimate
from boresight.evaluate.pairs import Floats, Ints

CAM_THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5)


@dataclass(frozen=True)
class Ceiling:
    """The share of objects that a score bounded by the class map (a product with it) can bring above a threshold."""

    threshold: float
    recall: Estimate


@dataclass(frozen=True)
class CamReport:
    """Class maps against truth; pairs are (image, class in it).

    Attributes:
        pairs: number of pairs.
        pointing: share of pairs whose peak lies in a box of the class (Zhang et al. 2016, sec. 4.2, without margin;
            the centre of the cell is the peak).
        energy: mean share of the map's positive sum that lies in boxes of the class (Wang et al. 2020, sec. 4.2).
        area: mean share of the cells that lie there: what a blind peak and a flat map get.
        ceiling: see :class:`Ceiling`, at ``CAM_THRESHOLDS``.
    """

    pairs: int
    pointing: Estimate
    energy: Estimate
    area: Estimate
    ceiling: tuple[Ceiling, ...]


def cam_pairs(cam: Tensor, scene: Scene, objects: Objects, image: DenseImage) -> Floats:
    """Return ``[P, 3]`` (pointing, energy, area) of the classes in an image.

    ``cam`` is ``[C, N]``. Don't-care boxes of a class count as its boxes. Energy is NaN where no value is positive.
    """
    (boxes,), (labels,) = truth_of([scene])
    boxes, labels = boxes.to(cam.device).float(), labels.to(cam.device)
    points = image.centres()
    rows = []
    for name in objects.labels.unique().tolist():
        own = boxes[labels == name]
        inside = ((points > own[:, None, :2]) & (points < own[:, None, 2:])).all(dim=-1).any(dim=0)
        inside |= objects.inside[objects.labels == name].any(dim=0)
        positive = cam[name].float().clamp(min=0)
        energy = positive[inside].sum() / positive.sum() if bool(positive.any()) else torch.tensor(torch.nan)
        rows.append([float(inside[cam[name].argmax()]), float(energy), float(inside.float().mean())])
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, 3).numpy()


def cam_reach(cam: Tensor, objects: Objects) -> Floats:
    """Return the largest value of its class map inside each object, ``[m]``."""
    own = cam[objects.labels].float().masked_fill(~objects.inside, -torch.inf)
    return own.amax(dim=1).double().cpu().numpy() if len(objects) else np.zeros(0)


def pooled_class(score: Tensor, objects: Objects) -> Ints:
    """The mirror test: the class whose mean score inside the *true* box is highest, ``[m]`` (of equal ones the first).

    ``score`` is ``[C, N]``.
    """
    inside = objects.inside.double()
    pooled = inside @ score.double().T / inside.sum(dim=1, keepdim=True)
    return np.asarray(pooled.argmax(dim=1).cpu(), np.int64)
