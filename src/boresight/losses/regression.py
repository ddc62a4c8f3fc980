"""Losses on what a cell says of an object's place."""

from __future__ import annotations

from torch import Tensor


def offset_l1(predicted_xy: Tensor, target_xy: Tensor, stride: float) -> Tensor:
    """L1 distance in cells, so that the loss has no unit: ``|dx| + |dy|`` over the stride.

    Both are ``[..., 2]`` in the pixel frame; returns ``[...]``.
    """
    return (predicted_xy - target_xy).abs().sum(-1) / stride
