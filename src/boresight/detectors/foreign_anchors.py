"""What the detectors of torchvision have in common, as a source: a head on anchors, and a matcher.

The model's own parts are called in the order in which its ``forward`` calls them, up to where it begins to drop things.
Its transform, anchors, box coder and matcher are used as they are, so that a changed setting is followed.

Cells are anchors: several share a place. An anchor's centre is where the model believes its cell to be: torchvision
puts that of cell ``j`` at ``j * stride`` (SSD: ``(j + 0.5) * stride``), and strides are the padded input's size divided
by the map's, rounded down, so that coarse levels need not have powers of two. Both are brought to original pixels;
where that stretches the two axes differently, the stride is their geometric mean. Cells in the padding are emitted too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from boresight.core.emission import Decoding, Emission, Missing, Supervision
from boresight.core.types import Scene
from boresight.detectors.foreign_model import labels_of, untouched
from boresight.detectors.foreign_scene import counted, objects_only, rgb, same_image, trained


@dataclass(frozen=True)
class Anchors:
    """The N anchors that a model has for images of one size.

    Attributes:
        boxes: ``[N, 4]`` xyxy, pixels of the model's input.
        per_level: how many of them each level has.
        strides: of each level, original pixels a cell.
        back: ``[4]``, what boxes of the input are multiplied by to be boxes of the original image.
        size: of the original image.
    """

    boxes: Tensor
    per_level: tuple[int, ...]
    strides: tuple[float, ...]
    back: Tensor
    size: tuple[int, int]

    def each(self, values: Sequence[float]) -> Tensor:
        """``[N]``: a value of each level, for each of its anchors."""
        count = torch.tensor(self.per_level, device=self.boxes.device)
        return torch.as_tensor(values, device=self.boxes.device).repeat_interleave(count)


@dataclass(frozen=True)
class Kind:
    """What differs from model to model.

    Attributes:
        name: as errors call it.
        part: where its head, anchors and matcher are.
        channels: how many labels it scores.
        starts: labels that can be the first of an object.
        agnostic: it has the one class "object", and truth of any class is one to it.
        read: its part, what its head returns and its anchors ``[N, 4]``, to scores ``[N, channels]`` and boxes
            ``[N, 4]`` in pixels of its input.
        match: its part, objects ``[M, 4]`` in pixels of its input and anchors, to ``[N]`` the object of each anchor
            (negative: none), or Missing.
        decoding: how it selects.
    """

    name: str
    part: Callable[[Any], Any]
    channels: Callable[[Any], int]
    starts: tuple[int, ...]
    agnostic: bool
    read: Callable[[Any, Any, Tensor], tuple[Tensor, Tensor]]
    match: Callable[[Any, Tensor, Anchors], Tensor | Missing]
    decoding: Callable[[Any], Decoding]


class AnchorSource:
    """A :class:`~boresight.core.emission.Source`, made by ``torchvision_source``; what it gives lies on the CPU."""

    def __init__(self, model: Any, kind: Kind, classes: Sequence[str], labels: Sequence[int] | None) -> None:
        self.model, self.kind, self.classes = model, kind, tuple(classes)
        self.part = kind.part(model)
        count = kind.channels(self.part)
        self.labels = labels_of(self.classes, labels, count, starts=kind.starts, owner=kind.name)
        self._last: Anchors | None = None
        self._look: Callable[[Tensor], Tensor] | None = None
        with untouched(model):
            self.decoding: Decoding | None = kind.decoding(self.part)

    def emit(self, scene: Scene) -> Emission:
        """See :class:`~boresight.core.emission.Source`. Raises ValueError for an image that is not RGB in 0..255."""
        with untouched(self.model):
            output, anchors = self._run(scene)
            scores, boxes = self.kind.read(self.part, output, anchors.boxes)
        centres = (anchors.boxes[:, :2] + anchors.boxes[:, 2:]) / 2
        return Emission(
            boxes=(boxes * anchors.back).float()[None],
            scores=scores[:, self.labels].T.float().contiguous(),
            size=scene.size,
            centres=(centres * anchors.back[:2]).float(),
            strides=anchors.each(anchors.strides),
            level=anchors.each(range(len(anchors.per_level))),
        ).to("cpu")

    def supervise(self, emission: Emission, scene: Scene) -> Supervision | Missing:
        """See :class:`~boresight.core.emission.Source`: anchors that the model's own matcher gives an object to.

        Anchors between its two thresholds are trained for nothing and belong to no pair. Raises ValueError as
        :func:`~boresight.detectors.foreign_scene.counted` does, and for an emission of another model or image.
        """
        same_image(emission, scene)
        objects, rows = counted(objects_only(scene) if self.kind.agnostic else scene, len(self.classes))
        with untouched(self.model):
            anchors = self._last if self._last is not None and self._last.size == scene.size else self._run(scene)[1]
            if emission.cells != len(anchors.boxes):
                raise ValueError(f"{scene.name}: {emission.cells} cells, but {self.kind.name} has {len(anchors.boxes)}")
            boxes = objects.boxes.to(anchors.boxes) / anchors.back
            none = torch.full((emission.cells,), -1)
            matched = self.kind.match(self.part, boxes, anchors) if len(objects) else none
        if isinstance(matched, Missing):
            return matched
        return trained(matched, rows, by_prediction=False)

    def through(self, look: Callable[[Tensor], Tensor]) -> AnchorSource:
        """See :class:`~boresight.diagnose.inputs.Through`."""
        other = copy(self)
        other._look = look
        return other

    def _run(self, scene: Scene) -> tuple[Any, Anchors]:
        weight = next(self.model.parameters())
        image = rgb(scene).to(weight)
        images, _ = self.model.transform([(image if self._look is None else self._look(image)) / 255])
        features = self.model.backbone(images.tensors)
        maps = [features] if isinstance(features, Tensor) else list(features.values())
        output = self.part.head(maps)
        generator = self.part.anchor_generator
        boxes = generator(images, maps)[0]
        grids = [(int(m.shape[-2]), int(m.shape[-1])) for m in maps]
        old, new = torch.tensor(scene.size), torch.tensor(images.image_sizes[0])
        back = (old.float() / new.float()).flip(0).to(boxes)
        steps = _steps(generator, images.tensors.shape[-2:], grids)
        self._last = Anchors(
            boxes=boxes,
            per_level=tuple(h * w * a for (h, w), a in zip(grids, generator.num_anchors_per_location(), strict=True)),
            strides=tuple(float((y * x * back[0] * back[1]) ** 0.5) for y, x in steps),
            back=back.repeat(2),
            size=scene.size,
        )
        return output, self._last


def _steps(generator: Any, size: Sequence[int], grids: Sequence[tuple[int, int]]) -> list[tuple[float, float]]:
    """Distance of neighbouring cells of each level, down and across, pixels of the model's input."""
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator

    if not isinstance(generator, DefaultBoxGenerator):
        return [(size[0] // h, size[1] // w) for h, w in grids]
    if generator.steps is not None:
        return [(step, step) for step in generator.steps]
    return [(size[0] / h, size[1] / w) for h, w in grids]
