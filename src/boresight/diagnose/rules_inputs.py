"""What a detector gains on pictures in other forms: one that does better on another was trained on that.

As a repair it competes with those of the output: where labels are exchanged, red and blue exchanged can repair some of
it (classes may be colours), and the true class repairs more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from boresight.core.emission import Missing
from boresight.core.types import Detections
from boresight.diagnose.finding import Finding
from boresight.diagnose.inputs import FORMS, Form, Otherwise
from boresight.diagnose.verdict import HEALTHY, OBJECTS, WORTH
from boresight.evaluate.average_precision import class_steps, mean_ap
from boresight.evaluate.bootstrap import image_weights
from boresight.evaluate.box_set import BoxSet
from boresight.evaluate.estimate import Drawn


@dataclass(frozen=True)
class Forms:
    """AP50 of some images as they are given, and what each other form adds to it, threshold opened.

    Attributes:
        images: how many were shown.
        as_is: AP50.
        gains: by form, with replicates.
    """

    images: int
    as_is: Drawn
    gains: Mapping[str, Drawn]

    @property
    def best(self) -> Form:
        """The form that gains most, or of those within 0.02 of it the first of :data:`FORMS`: a commoner mistake."""
        known = [f for f in FORMS if f.name in self.gains]
        most = max(self.gains[f.name].value for f in known)
        return next(f for f in known if self.gains[f.name].value >= most - WORTH)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        gains = {name: asdict(gain.estimate()) for name, gain in self.gains.items()}
        return {"images": self.images, "ap50": asdict(self.as_is.estimate()), "gains": gains}


def forms(shown: Otherwise | Missing, classes: int, *, replicates: int = 500, seed: int = 0) -> Forms | Missing:
    """AP50 in every form, paired by image. Missing without forms, and under 50 objects."""
    if isinstance(shown, Missing):
        return shown
    weights = image_weights(len(shown.scenes), replicates, seed)
    as_is = _ap50(shown, shown.as_is, classes, weights)
    if as_is.n < OBJECTS:
        return Missing(f"{as_is.n} objects were shown in other forms, {OBJECTS} are needed")
    gains = {name: _ap50(shown, found, classes, weights).minus(as_is) for name, found in shown.shown.items()}
    return Forms(len(shown.scenes), as_is, gains)


def _ap50(shown: Otherwise, found: Sequence[Detections], classes: int, weights: np.ndarray) -> Drawn:
    boxes = BoxSet.of(shown.scenes, found, None)
    steps = class_steps(boxes, 0.5, classes)
    once = np.ones((1, boxes.images))
    return Drawn(float(mean_ap(steps, once)[0]), mean_ap(steps, weights), int(boxes.counted.sum()))


def not_as_trained(told: Forms) -> Finding:
    """What a verdict of *data* rests on, where the best form decided it."""
    form, gain = told.best, told.gains[told.best.name].estimate()
    return Finding(
        "inputs-not-as-trained",
        "error",
        f"the detector does better on images {form.shown}",
        {
            "AP50 gains": gain.value,
            "less than": HEALTHY,
            "at least, 95 %": None if gain.interval is None else gain.interval[0],
            "AP50 as it is given them": told.as_is.value,
            "images": told.images,
        },
        form.cause,
        form.remedy,
        {},
        0.95,
        "cv2.imread gives BGR; ToTensor divides by 255 and so may the model",
    )
