"""From a score map to points: local peaks, their sub-pixel place, the best k."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from boresight.core.grid import cell_to_pixel
from boresight.core.types import DenseOutput, Detections

Refine = Literal["offset", "parabola", "none"]


def local_peaks(scores: Tensor, window: int = 3) -> Tensor:
    """``[B, C, H, W]`` bool: the cells that are the maximum of the window around them.

    The window's arg-max is asked for, not its value: of equal neighbours the first is taken, and no float is compared.
    ``window`` must be odd (an even one has no centre): else ValueError.
    """
    if window < 1 or window % 2 == 0:
        raise ValueError(f"the window of a local peak must be an odd number of cells, got {window}")
    _, index = F.max_pool2d(scores, window, stride=1, padding=window // 2, return_indices=True)
    own = torch.arange(scores.shape[-2] * scores.shape[-1], device=scores.device).view(scores.shape[-2:])
    return index == own


def parabola_shift(logits: Tensor) -> Tensor:
    """Sub-cell shift ``[B, C, H, W, 2]`` in cells of the vertex of a parabola through a cell and its neighbours.

    Fitted to the log of the score: a Gaussian is a parabola in its logarithm, so the vertex is exact for one. Clipped
    to half a cell; 0 where the three values do not form a peak or one of them is missing (beyond the border, or -inf:
    a made-up neighbour would push every peak at the border half a cell outwards).
    """
    log_p = F.pad(F.logsigmoid(logits), (1, 1, 1, 1), value=-torch.inf)
    middle = log_p[..., 1:-1, 1:-1]

    def vertex(low: Tensor, high: Tensor) -> Tensor:
        bend = low - 2 * middle + high
        peaked = (bend < 0) & bend.isfinite()
        shift = (low - high) / (2 * torch.where(peaked, bend, -1.0))
        return torch.where(peaked, shift, 0.0).clamp(-0.5, 0.5)

    return torch.stack(
        (vertex(log_p[..., 1:-1, :-2], log_p[..., 1:-1, 2:]), vertex(log_p[..., :-2, 1:-1], log_p[..., 2:, 1:-1])), -1
    )


def decode_points(
    output: DenseOutput, *, top_k: int = 100, refine: Refine = "offset", window: int = 3, min_score: float = 0.0
) -> list[Detections]:
    """Return the best ``top_k`` local peaks of every image, best first.

    Args:
        output: ``boxes`` are points (boxes of size zero).
        top_k: at most so many an image.
        refine: where in its cell a peak lies: ``offset`` takes the predicted place, ``parabola`` the vertex of the
            log-score around the cell, ``none`` the cell's centre.
        window: side, in cells, of the neighbourhood in which a peak must be the largest.
        min_score: drop peaks below; the threshold proper is applied later, when it is known.
    """
    scores = output.logits.sigmoid()
    b, _, h, w = scores.shape
    emitting = local_peaks(output.logits, window) & (output.logits > -torch.inf)
    peaks = torch.where(emitting, scores, -1.0).flatten(1)
    top, cell = peaks.topk(min(top_k, peaks.shape[1]), dim=1)
    column, row = cell % w, cell // w % h
    if refine == "offset":
        xy = output.boxes[..., :2].flatten(1, 3).gather(1, cell[..., None].expand(-1, -1, 2))
    else:
        uv = torch.stack((column, row), -1).to(scores.dtype)
        if refine == "parabola":
            uv = uv + parabola_shift(output.logits).flatten(1, 3).gather(1, cell[..., None].expand(-1, -1, 2))
        xy = cell_to_pixel(uv, output.stride)
    keep = (top >= 0) & (top >= min_score)
    label = cell // (h * w)
    return [Detections.at(xy[i][keep[i]], top[i][keep[i]], label[i][keep[i]], cell[i][keep[i]]) for i in range(b)]
