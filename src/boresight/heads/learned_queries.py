"""What training may add to a query beyond its words."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LearnedQueries(nn.Module):
    """A learned vector for each trained query, added to its text embedding; it starts at zero.

    Names that mean little to a language-image encoder lie close together ("dock" and "jet ski" have a cosine of 0.99 in
    the small encoder that comes with the package): no head can tell apart what it reads as the same. The vector makes
    room between them, as learned prompts do (Zhou et al. 2022, CoOp, section 3.2: class-specific context). A query that
    was never trained has none and is read from its words alone.

    Args:
        count: trained queries.
        dim: of the text embeddings.
    """

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.zeros(count, dim))

    def forward(self, text: Tensor, trained: Tensor) -> Tensor:
        """``[C, dim]`` embeddings and ``[C]`` long, which trained query each is (-1: none), to ``[C, dim]``."""
        known = trained >= 0
        return text + torch.where(known[:, None], self.own[trained.clamp(min=0)], 0.0)
