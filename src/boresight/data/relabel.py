"""A source whose classes are put in another order, or left out: base classes first, novel ones after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from boresight.core.types import Scene


class Relabelled:
    """The frames of ``source`` with their labels in the order of ``classes``.

    Objects of classes that are not named are unknown to the reader: their boxes are dropped. An image that held one is
    still what it was, so it may show objects that nobody asks for.

    Args:
        source: frames with ``classes``.
        classes: names, each one of the source's.
    """

    def __init__(self, source: Any, classes: Sequence[str]) -> None:
        self.source, self.classes = source, tuple(classes)
        place = {name: i for i, name in enumerate(classes)}
        self._new = torch.tensor([place.get(name, -1) for name in source.classes], dtype=torch.long)
        self._old = torch.tensor([tuple(source.classes).index(name) for name in classes], dtype=torch.long)

    @property
    def names(self) -> Sequence[str]:
        """The source's names."""
        return self.source.names

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Scene:
        scene: Scene = self.source[index]
        exhaustive = None if scene.exhaustive is None else scene.exhaustive[self._old]
        if scene.boxes is None or scene.labels is None:
            return replace(scene, exhaustive=exhaustive)
        labels = self._new[scene.labels]
        keep = labels >= 0
        return replace(
            scene,
            boxes=scene.boxes[keep],
            labels=labels[keep],
            ignore=_kept(scene.ignore, keep),
            exhaustive=exhaustive,
        )


def _kept(values: Tensor | None, keep: Tensor) -> Tensor | None:
    return None if values is None else values[keep]
