"""Our point detector as a source of an audit. Points travel as boxes of size zero, and peaks stand for suppression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from boresight.core.emission import Decoding, Emission
from boresight.core.grid import cell_centres
from boresight.core.types import Detections, Scene
from boresight.decode.replay import Selected
from boresight.detectors.gaussian_point import GaussianPoint
from boresight.detectors.own import Watched

SAME = 1e-3
"""Pixels. Detections of one class nearer than this are one: only a repaired output has several at one place."""


def with_points_as_boxes(scene: Scene) -> Scene:
    """The scene with its points as boxes of size zero. Raises ValueError where they are unknown."""
    if scene.points is None:
        raise ValueError(f"scene `{scene.name}` has no points (None): what is unknown cannot be judged")
    p = scene.points
    return replace(scene, boxes=torch.cat((p.xy, p.xy), dim=1).float(), labels=p.labels, ignore=p.ignore)


class PointSource(Watched):
    """A trained :class:`GaussianPoint` in inference. ``decoding`` is None: it returns local peaks (`select`)."""

    decoding: Decoding | None = None
    by_prediction = False

    def __init__(self, detector: GaussianPoint, classes: Sequence[str]) -> None:
        super().__init__(detector, classes)
        self.detector = detector

    @torch.no_grad()
    def emit(self, scene: Scene) -> Emission:
        """See :class:`~boresight.core.emission.Source`."""
        output = self.output(scene)
        _, _, rows, columns = output.logits.shape
        n = rows * columns
        boxes = output.boxes[0].flatten(1, 2)
        return Emission(
            boxes=boxes[:1] if len(boxes) > 1 and boxes.stride(0) == 0 else boxes,
            scores=output.logits[0].float().sigmoid().flatten(1),
            size=scene.size,
            centres=cell_centres(rows, columns, output.stride, device=boxes.device).flatten(0, 1),
            strides=torch.full((n,), float(output.stride), device=boxes.device),
        )

    @torch.no_grad()
    def select(self, emission: Emission) -> Selected:
        """Local peaks of the scores, as the detector finds them; of several at one place the best."""
        output = self.last
        shape = output.logits.shape
        boxes = emission.boxes.expand(shape[1], -1, -1).reshape(1, *shape[1:], 4)
        logits = emission.scores.reshape(1, *shape[1:]).logit()  # a score of 0 is -inf, and is no peak
        changed = replace(output, logits=logits.clamp(max=50.0), boxes=boxes, coarser=(), sizes=(emission.size,))
        found = _once(self.detector.decode(changed)[0].to("cpu"))
        own = torch.arange(len(found))
        return Selected(
            found.cell, found.boxes.float(), found.scores.float(), found.labels, torch.ones_like(own).bool(), own
        )


def _once(found: Detections) -> Detections:
    """Without those that lie where a better one of their class does."""
    near = torch.cdist(found.xy, found.xy, compute_mode="donot_use_mm_for_euclid_dist") < SAME
    near &= found.labels[:, None] == found.labels
    return found.select(~near.tril(-1).any(1))
