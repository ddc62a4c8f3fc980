"""Asks about the frozen encoder: do class maps point at their objects, are stored features those of the image?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import rankdata
from torch import Tensor

from boresight.core.emission import Missing
from boresight.core.grid import cell_centres
from boresight.core.types import Scene
from boresight.diagnose.asked import Asked, in_mode
from boresight.diagnose.probe import MapFit, Stored

FLAT = 1e-4
"""A map that varies by less over an image says nothing of where."""


class Remembers(Protocol):
    """A detector that may read frozen features from a store."""

    def stored_and_fresh(self, scene: Scene) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]] | None:
        """As the store gives them, and as the encoder makes them now; None where there are none."""
        ...


@torch.no_grad()
def map_fit(detector: Asked, scenes: Iterable[Scene]) -> MapFit | Missing:
    """How class maps point at objects (:class:`MapFit`). `Missing` without maps, and without an object in a cell."""
    label, image, points, flat = [], [], [], []
    with in_mode(detector, training=False):
        for number, scene in enumerate(scenes):
            output = detector([scene])
            if output.cam is None:
                return Missing("there is no class map")
            if scene.boxes is None or scene.labels is None or not len(scene.boxes):
                continue
            cam = output.cam[0].float().cpu()
            inside = _inside(scene, cam, output.stride)
            spread = cam.flatten(1).amax(1) - cam.flatten(1).amin(1)
            for k in scene.labels.cpu().unique().tolist():
                told = _pointing(cam, inside[k], ~inside.any(0))
                if told is not None:
                    label.append(k)
                    image.append(number)
                    points.append(told)
                    flat.append(float(spread[k] < FLAT))
    if len(points) < 2:
        return Missing("the scenes that were probed hold no object with a cell in it")
    return _fit(torch.tensor(label), torch.tensor(image), torch.stack(points), sum(flat) / len(flat))


def _fit(label: Tensor, image: Tensor, points: Tensor, flat: float) -> MapFit:
    """From how the map of each class points at the objects of a pair, ``[P, C]``."""
    own = points.gather(1, label[:, None])[:, 0]
    mean, error = _mean(own)
    if points.shape[1] < 2:
        return MapFit(len(own), mean, error, None, None, flat)
    lead = torch.zeros(len(own), dtype=torch.float64)
    for half in (0, 1):
        judged = image % 2 == half
        swap = _exchange(label[~judged], points[~judged])
        lead[judged] = (points.gather(1, swap[label][:, None])[:, 0] - own)[judged]
    return MapFit(len(own), mean, error, *_mean(lead), flat, dict(enumerate(_exchange(label, points).tolist())))


def _mean(values: Tensor) -> tuple[float, float]:
    """Mean and standard error."""
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


def _exchange(label: Tensor, points: Tensor) -> Tensor:
    """``[C]``: for each class a map of its own, so that maps point at their objects as well as can be.

    By the Hungarian method on the mean over pairs of each class. A class of which nothing is known keeps its map, where
    no other needs it.
    """
    classes = points.shape[1]
    table = torch.full((classes, classes), 0.0, dtype=torch.float64)
    table.fill_diagonal_(1e-6)
    for k in label.unique().tolist():
        table[k] = points[label == k].mean(0) + table[k]
    return torch.from_numpy(linear_sum_assignment(table.numpy(), maximize=True)[1])


def _inside(scene: Scene, cam: Tensor, stride: float) -> Tensor:
    """``[C, H, W]`` bool: the cell's centre lies in an object of the class."""
    assert scene.boxes is not None
    assert scene.labels is not None
    _, rows, columns = cam.shape
    centre = cell_centres(rows, columns, stride)
    mask = torch.zeros(cam.shape, dtype=torch.bool)
    for box, label in zip(scene.boxes.float().cpu(), scene.labels.tolist(), strict=True):
        mask[label] |= ((centre > box[:2]) & (centre < box[2:])).all(-1)
    return mask


def _pointing(cam: Tensor, here: Tensor, there: Tensor) -> Tensor | None:
    """``[C]``: the chance that a cell of ``here [H, W]`` lies above one of ``there`` (ties count half)."""
    m, n = int(here.sum()), int(there.sum())
    if not m or not n:
        return None
    ranks = torch.from_numpy(rankdata(torch.cat((cam[:, here], cam[:, there]), 1).numpy(), axis=1))
    return (ranks[:, :m].sum(1) - m * (m + 1) / 2) / (m * n)


@torch.no_grad()
def stored(detector: Remembers, scenes: Iterable[Scene]) -> Stored | Missing:
    """Features of whole scenes from the store against those of the encoder. `Missing` where nothing is stored."""
    worst, name, count = 0.0, "", 0
    for scene in scenes:
        both = detector.stored_and_fresh(scene)
        if both is None:
            return Missing("no frozen features are read")
        kept, fresh = both
        count += 1
        for key, value in fresh.items():
            want, have = value.double().cpu(), kept[key].double().cpu()
            apart = float((have - want).norm() / want.norm().clamp(min=1e-12)) if have.shape == want.shape else 1.0
            if apart > worst or not name:
                worst, name = max(worst, apart), scene.name
    return Stored(count, worst, name) if count else Missing("no scene was probed")
