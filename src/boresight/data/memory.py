"""Keeps decoded frames in memory, up to a limit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

from boresight.core.types import Scene


class _Source(Protocol):
    @property
    def names(self) -> Sequence[str]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Scene: ...


class InMemory:
    """Frames that are read once and then kept, the least recently used given up beyond ``megabytes``."""

    def __init__(self, source: _Source, megabytes: float) -> None:
        self.source, self.limit = source, megabytes * 1e6
        self.kept: OrderedDict[int, Scene] = OrderedDict()
        self.held = 0.0

    @property
    def names(self) -> Sequence[str]:
        """The source's names."""
        return self.source.names

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Scene:
        if index in self.kept:
            self.kept.move_to_end(index)
            return self.kept[index]
        scene = self.source[index]
        self.kept[index] = scene
        self.held += _bytes(scene)
        while self.held > self.limit and len(self.kept) > 1:
            self.held -= _bytes(self.kept.popitem(last=False)[1])
        return scene


def _bytes(scene: Scene) -> int:
    mask = None if scene.points is None else scene.points.mask
    return scene.image.nbytes + (0 if mask is None else mask.nbytes)
