"""Two numbers that turn raw class maps into probabilities, the same for every query, fitted on training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from boresight.core.errors import UserError
from boresight.features.class_maps import calibrated

RIDGE = 1e-3
"""Penalty on the standardised slope, against the infinite slope of cases that a threshold separates completely."""

STEPS = 50
"""Newton steps at most; about six are needed."""


@dataclass(frozen=True)
class Calibration:
    """``sigmoid(a (S - b))`` for maps and for the presence of a class in an image.

    One pair serves all queries, so that it can be asked of classes which were not there when it was fitted.

    Attributes:
        a, b: of map cells: steepness, and the similarity at which the answer is one half.
        presence_a, presence_b: of whole images. A steepness of 0 gives one half everywhere: nothing is known.
    """

    a: float
    b: float
    presence_a: float = 0.0
    presence_b: float = 0.0

    def map(self, raw: Tensor) -> Tensor:
        """Raw class maps of any shape to [0, 1]."""
        return calibrated(raw, self.a, self.b)

    def presence(self, cosine: Tensor) -> Tensor:
        """Cosines of images with queries, ``[B, C]``, to [0, 1]."""
        return calibrated(cosine, self.presence_a, self.presence_b)


def fit_calibration(
    maps: Sequence[Tensor],
    masks: Sequence[Tensor],
    presence: Sequence[Tensor] | Tensor | None = None,
    present: Sequence[Tensor] | Tensor | None = None,
    *,
    known: Sequence[Tensor] | None = None,
    balanced: bool = True,
) -> Calibration:
    """Fit by logistic regression on cells inside and outside objects, all classes together.

    Args:
        maps: of each training image ``[C, h, w]`` raw class maps.
        masks: of each ``[C, h, w]`` bool, the cells inside objects of the class.
        presence: of each ``[C]``, the cosine of the whole image with the class; None leaves presence unknown.
        present: of each ``[C]`` bool, the classes it holds. None: those with a cell in ``masks`` (an object smaller
            than a cell may have none).
        known: of each ``[C]`` bool, the classes of which every object is labelled (others are not counted outside
            their objects: unknown is not negative). None: all.
        balanced: weigh inside and outside alike, so that one half lies where both are equally likely *for equal
            numbers of cells*. False keeps their frequency: true probabilities, nearly all far below one half.

    Returns:
        The calibration; presence is unknown where only one answer was seen. Where the maps do not point at the objects
        (a slope that is not positive) the steepness is 0: such a map says nothing, and is never turned over.

    Raises ValueError for shapes that differ, and UserError when no cell, or every cell, lies inside an object.
    """
    if len(maps) != len(masks) or any(m.shape != k.shape for m, k in zip(maps, masks, strict=True)):
        raise ValueError(f"maps and masks must have the same shapes, got {_shapes(maps)} and {_shapes(masks)}")
    trusted = [torch.ones(len(m), dtype=torch.bool) if known is None else known[i].cpu() for i, m in enumerate(maps)]
    cells = [k.bool().cpu() | t[:, None, None] for k, t in zip(masks, trusted, strict=True)]
    values = torch.cat([m.detach().cpu()[use] for m, use in zip(maps, cells, strict=True)])
    inside = torch.cat([k.bool().cpu()[use] for k, use in zip(masks, cells, strict=True)])
    if not 0 < int(inside.sum()) < len(inside):
        raise UserError(
            f"class maps cannot be calibrated: {int(inside.sum())} of {len(inside)} cells lie inside an object;"
            " with objects smaller than cells, encode the images larger (clip.size) or in windows"
        )
    a, b = _logistic(values, inside, balanced)
    if presence is None:
        return Calibration(a, b)
    held = [k.flatten(1).any(dim=1).cpu() for k in masks] if present is None else [p.bool().cpu() for p in present]
    use = [p | t for p, t in zip(held, trusted, strict=True)]
    cosine = torch.cat([p.detach().cpu()[u] for p, u in zip(presence, use, strict=True)])
    there = torch.cat([p[u] for p, u in zip(held, use, strict=True)])
    if not 0 < int(there.sum()) < len(there):  # every class in every image, say: absence was never seen
        return Calibration(a, b)
    return Calibration(a, b, *_logistic(cosine, there, balanced))


def _shapes(tensors: Sequence[Tensor]) -> list[list[int]]:
    return [list(t.shape) for t in tensors[:3]]


def _logistic(values: Tensor, truth: Tensor, balanced: bool) -> tuple[float, float]:
    """``(a, b)`` of ``sigmoid(a (x - b))`` for ``values [N]`` and ``truth [N]``, which holds both answers."""
    x, y = values.double(), truth.double()
    positive = float(y.sum())
    mean, spread = float(x.mean()), float(x.std(correction=0))
    if spread <= 1e-9 * max(abs(mean), 1e-9):  # a constant tells nothing
        return 0.0, 0.0
    design = torch.stack(((x - mean) / spread, torch.ones_like(x)), dim=1)
    weight = torch.full_like(x, 1 / len(y))
    if balanced:
        weight = torch.where(truth.bool(), 0.5 / positive, 0.5 / (len(y) - positive)).to(x.dtype)
    slope, offset = _newton(design, y, weight).tolist()
    if slope <= 0:
        return 0.0, 0.0
    return slope / spread, mean - offset / slope * spread


def _newton(design: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Coefficients ``[2]`` that maximise the weighted likelihood less ``RIDGE / 2 slope^2``."""
    ridge = torch.diag(design.new_tensor([RIDGE, 1e-9]))
    theta = design.new_zeros(2)

    def cost(t: Tensor) -> Tensor:
        z = design @ t
        return (weight * (torch.nn.functional.softplus(z) - y * z)).sum() + 0.5 * t @ ridge @ t

    for _ in range(STEPS):
        p = torch.sigmoid(design @ theta)
        gradient = design.T @ (weight * (p - y)) + ridge @ theta
        if float(gradient.norm()) < 1e-10:
            break
        curvature = design.T @ (design * (weight * p * (1 - p))[:, None]) + ridge
        step, scale = torch.linalg.solve(curvature, gradient), 1.0
        while scale > 1e-4 and bool(cost(theta - scale * step) > cost(theta)):  # a full step can overshoot
            scale /= 2
        theta = theta - scale * step
    return theta
