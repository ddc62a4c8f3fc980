"""Where the windows of a large image begin. Does without torch."""

from __future__ import annotations


def starts(length: int, window: int, overlap: int, step: int) -> list[int]:
    """Where windows begin along one side: multiples of ``step``, the last window reaches the end.

    Neighbours share at least ``overlap`` pixels. Raises ValueError where that leaves less than a ``step`` to go on.
    """
    if not 0 <= overlap <= window - step:
        raise ValueError(
            f"overlap {overlap} must lie in 0..{window - step}: windows of {window} px, steps of {step} px"
        )
    if length <= window:
        return [0]
    stride = (window - overlap) // step * step
    last = -(-(length - window) // step) * step
    return [*range(0, last, stride), last]
