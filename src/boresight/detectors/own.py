"""Our own dense box detectors as sources of an audit (:mod:`boresight.core.emission`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from boresight.core.emission import Decoding, Emission, Missing, Supervision
from boresight.core.grid import cell_centres
from boresight.core.types import DenseOutput, DenseTargets, Scene
from boresight.decode.boxes import beyond
from boresight.detectors.detector import Detector
from boresight.detectors.text_query import TextQuery


class Watched:
    """What our sources share: one pass a scene, and our assigner's word on it.

    Args:
        detector: in which mode it is does not matter, and is not changed.
        classes: names, in the order of its channels.
    """

    def __init__(self, detector: Detector, classes: Sequence[str]) -> None:
        self._watched, self.classes = detector, tuple(classes)
        self._last: tuple[str, DenseOutput] | None = None

    @property
    def by_prediction(self) -> bool:
        """Whether the assigner looks at what is emitted."""
        raise NotImplementedError

    def output(self, scene: Scene) -> DenseOutput:
        """What the detector emits in inference; it is kept until the next scene."""
        detector, training = self._watched, self._watched.training
        detector.eval()
        try:
            found: DenseOutput = detector([scene.to(next(detector.parameters()).device)])
        finally:
            detector.train(training)
        self._last = (scene.name, found)
        return found

    @property
    def last(self) -> DenseOutput:
        """The output that is kept. ValueError where there is none."""
        if self._last is None:
            raise ValueError("no scene was emitted for yet")
        return self._last[1]

    @torch.no_grad()
    def supervise(self, emission: Emission, scene: Scene) -> Supervision | Missing:
        """See :class:`~boresight.core.emission.Source`; of the scene that was emitted for last, else ValueError."""
        if self._last is None or self._last[0] != scene.name:
            raise ValueError(f"scene `{scene.name}` must be emitted for before its cells are judged")
        targets = self._watched.assign(self._last[1], [scene])
        matched, positive = (v[0].flatten(1).cpu() for v in (targets.matched, targets.positive))
        channel, cell = (matched >= 0).nonzero(as_tuple=True)
        rows = rows_of(targets, scene)
        if isinstance(rows, Missing):
            return rows
        row = rows[matched[channel, cell]]
        return Supervision(cell, row, positive[channel, cell], by_prediction=self.by_prediction)


def rows_of(targets: DenseTargets, scene: Scene) -> Tensor | Missing:
    """``[M]`` long: the row of ``Scene.boxes`` of every object of the targets of one image.

    Assigners put objects that do not count behind the others. `Missing` where theirs are not the scene's: an assigner
    that loses objects is a fault that the rules of training health name, and the audit must live to tell.
    """
    assert scene.boxes is not None
    ignore = torch.zeros(len(scene.boxes), dtype=torch.bool) if scene.ignore is None else scene.ignore.cpu()
    counted = targets.counted.cpu()
    rows = torch.full((len(counted),), -1)
    for mine, theirs in ((~ignore, counted), (ignore, ~counted)):
        if int(mine.sum()) == int(theirs.sum()):
            rows[theirs] = mine.nonzero()[:, 0]
    if bool((rows < 0).any()) or not torch.equal(targets.objects.cpu().float(), scene.boxes.cpu().float()[rows]):
        return Missing(f"the objects of the targets are not those of the scene (first in `{scene.name}`)")
    return rows


class OwnSource(Watched):
    """A trained :class:`TextQuery` in inference, and what its own assigner says of every cell."""

    def __init__(self, detector: TextQuery, classes: Sequence[str]) -> None:
        super().__init__(detector, classes)
        self.detector = detector
        d = detector.decoder
        self.decoding: Decoding | None = Decoding(
            threshold=d.threshold,
            before_nms=d.before_nms,
            per="class" if d.per_class else "image",
            nms=d.nms,
            top_k=d.top_k,
            limit="class" if d.per_class else "image",
        )

    @property
    def by_prediction(self) -> bool:
        """See :class:`Watched`."""
        return bool(self.detector.assigner.rule.by_prediction)

    @torch.no_grad()
    def emit(self, scene: Scene) -> Emission:
        """See :class:`~boresight.core.emission.Source`. Cells in the padding are silent, and lie beyond the image."""
        return emission_of(self.detector, self.output(scene), scene.size)


def emission_of(detector: TextQuery, output: DenseOutput, size: tuple[int, int]) -> Emission:
    """The raw output for the one image of a batch. Boxes that all classes share stay one."""
    score = detector.fusion.score(output).float()
    score = score.masked_fill(beyond(output, [size]), 0.0)
    if detector.decoder.trained_reach:
        score = torch.where(detector.decoder.like_trained(output), score, 0.0)
    _, rows, columns = score.shape[1:]
    boxes = output.boxes[0].flatten(1, 2)
    shared = len(boxes) > 1 and boxes.stride(0) == 0
    cells = rows * columns
    return Emission(
        boxes=boxes[:1] if shared else boxes,
        scores=score[0].flatten(1),
        size=size,
        centres=cell_centres(rows, columns, output.stride, device=score.device).flatten(0, 1),
        strides=torch.full((cells,), float(output.stride), device=score.device),
    )
