"""Which of several processes this is, as ``torchrun`` tells it. Does without torch."""

from __future__ import annotations

import os


def rank_of() -> tuple[int, int]:
    """``(rank, processes)``: 0 of 1 where nothing started several."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return rank_of()[0] == 0
