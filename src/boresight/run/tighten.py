"""A trained refiner at work: on coarse boxes of any origin, say the detections of another run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from boresight.core.types import Detections, Proposals, Scene
from boresight.evaluate.refinement import Outcome
from boresight.run.outcomes import Tightened, rescored, tightened
from boresight.run.predict import Trained, load_trained
from boresight.run.record import RunFolder


class Tightener:
    """A refiner with its weights and the confidence that was chosen on its validation images.

    Args:
        trained: a run of ``refine``.
        threshold: instead of the one chosen on validation.
    """

    def __init__(self, trained: Trained, threshold: float | None = None) -> None:
        self.detector, self.settings = trained.detector, trained.settings
        self.classes = trained.checkpoint.classes
        self.threshold = trained.checkpoint.threshold if threshold is None else threshold

    @classmethod
    def of(cls, run: RunFolder, which: str = "last", threshold: float | None = None) -> Tightener:
        """Of a run folder; UserError for one of another system."""
        return cls(load_trained(run, which, expect="refine"), threshold)

    @torch.inference_mode()
    def __call__(self, scene: Scene, proposals: Proposals) -> Tightened:
        """Refine the coarse boxes of an image. Labels are those of :attr:`classes`, -1 for any other class."""
        device = next(self.detector.parameters()).device
        if not len(proposals):
            none = torch.zeros(0)
            return Tightened(Outcome(proposals.boxes, proposals.boxes, none.bool(), none, none), none)
        output = self.detector([replace(scene, proposals=proposals).to(device)])
        found = self.detector.decode(output)[0].to("cpu")
        return tightened(output, found, proposals, self.threshold)

    def detections(self, scene: Scene, found: Detections, names: Sequence[str]) -> Detections:
        """Detections of another detector with tighter boxes, scored by how well they are thought to fit; best first.

        Args:
            scene: the image.
            found: with labels that index ``names``.
            names: classes of the other detector.
        """
        place = {name: i for i, name in enumerate(self.classes)}
        labels = torch.tensor([place.get(name, -1) for name in names], dtype=torch.long)[found.labels]
        result = self(scene, Proposals(found.boxes, labels, found.scores)).outcome
        scores = rescored(found.scores, result, self.settings.decode.rescore)
        order = scores.argsort(descending=True, stable=True)
        return Detections(result.boxes[order], scores[order], found.labels[order], found.cell[order])
