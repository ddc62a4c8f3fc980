"""From dense features and text embeddings to class maps: raw, min-max and calibrated, and the presence of a class."""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor

Redundancy = Literal["queries", "empty"]

SEGEARTH_CLASS_TOKEN = 0.3
"""What ``segearth`` takes off: this share of the image's own cosine with the text."""


class _Features(Protocol):
    """The part of :class:`boresight.features.clip.DenseFeatures` that class maps are made from."""

    @property
    def aligned(self) -> Tensor: ...
    @property
    def pooled(self) -> Tensor: ...


def similarity(
    features: _Features,
    text: Tensor,
    *,
    method: str,
    redundancy: Redundancy = "queries",
    empty: Tensor | None = None,
) -> Tensor:
    """Raw class maps.

    Args:
        features: ``aligned [B, D, h, w]`` and ``pooled [B, D]``.
        text: ``[C, D]`` unit vectors, one a query.
        method: the class map's name. All but ``surgery`` give the map of a query from that query alone.
        redundancy: how ``surgery`` takes off what all queries share. ``"queries"`` compares the queries with each
            other, so that **a map depends on the other queries by definition**; one query falls back to ``"empty"``.
            ``"empty"`` takes off the map of the empty prompt, for any number of queries and with no dependence.
        empty: ``[D]``, the empty prompt (:meth:`boresight.features.clip_text.TextEncoder.empty`); needed for
            ``"empty"`` and for one query of ``surgery``.

    Returns:
        ``[B, C, h, w]``: the cosine, in [-1, 1]; for ``segearth`` less 0.3 times the image's own; for ``surgery`` a
        difference of cosines.
    """
    if text.ndim != 2 or text.shape[1] != features.aligned.shape[1]:
        raise ValueError(f"text must be [C, {features.aligned.shape[1]}], got {list(text.shape)}")
    if method == "surgery":
        if redundancy == "empty" or (
            not torch.compiler.is_exporting() and len(text) == 1
        ):  # open in a graph: 2 or more
            if empty is None:
                raise ValueError("surgery with one query or redundancy='empty' needs the embedding of the empty prompt")
            return _cosine(features.aligned, text - empty)
        return _less_shared(_cosine(features.aligned, text), features.pooled @ text.T)
    cosine = _cosine(features.aligned, text)
    if method == "segearth":
        cosine = cosine - SEGEARTH_CLASS_TOKEN * (features.pooled @ text.T)[:, :, None, None]
    return cosine


def _cosine(aligned: Tensor, text: Tensor) -> Tensor:
    """``[B, D, h, w]`` and ``[C, D]`` to ``[B, C, h, w]``."""
    return torch.einsum("bdhw,cd->bchw", aligned, text)


def _less_shared(s_bchw: Tensor, image_bc: Tensor) -> Tensor:
    """``S_t = w_t s_t - mean_u(w_u s_u)`` with ``w = softmax_t(2 image) / mean``, apart for every image.

    Li et al. 2023, CLIP Surgery, feature surgery.
    """
    weight = (2 * image_bc).softmax(dim=1)
    weight = weight / weight.mean(dim=1, keepdim=True)
    weighted = s_bchw * weight[:, :, None, None]
    return weighted - weighted.mean(dim=1, keepdim=True)


def min_max(maps: Tensor) -> Tensor:
    """Each map ``[..., h, w]`` stretched to [0, 1]; a constant one (to rounding) becomes all zeros.

    For display, and for the baseline: every class, present or absent, gets a peak of exactly 1.
    """
    low, high = maps.amin(dim=(-2, -1), keepdim=True), maps.amax(dim=(-2, -1), keepdim=True)
    spread = high - low
    flat = spread <= 1e-6 * torch.maximum(high.abs(), low.abs())
    return torch.where(flat, torch.zeros_like(maps), (maps - low) / torch.where(flat, torch.ones_like(spread), spread))


def calibrated(maps: Tensor, a: float | Tensor, b: float | Tensor) -> Tensor:
    """``sigmoid(a (S - b))`` in [0, 1], the same function for every query: an absent class can stay dark.

    ``a`` and ``b`` come from :func:`boresight.features.calibrate.fit_calibration`, or are learned.
    """
    return torch.sigmoid(a * (maps - b))


def presence(pooled: Tensor, text: Tensor) -> Tensor:
    """Cosine ``[B, C]`` in [-1, 1] of whole images ``pooled [B, D]`` with queries ``text [C, D]``, all unit vectors."""
    return pooled @ text.T
