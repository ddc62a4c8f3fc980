"""One pass over the raw output of a detector, image by image: the rows, and what every oracle would find."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from boresight.core.emission import Decoding, Emission, Missing, Source, Supervision
from boresight.core.types import Detections, Scene
from boresight.diagnose.control import control
from boresight.diagnose.emitted import EmittedRows, ObjectRows, Seen, emitted_rows, object_rows
from boresight.diagnose.inputs import Otherwise, Showing
from boresight.diagnose.likeness import BoxIou, Closeness, Likeness
from boresight.diagnose.loudness import Loudness
from boresight.diagnose.oracles import OF_SCORES, ORACLES, likeness_of_all, without_duplicates
from boresight.diagnose.selecting import Selects, chosen, opened
from boresight.diagnose.truth import Truth
from boresight.evaluate.box_set import BoxSet


@dataclass(frozen=True)
class Audited:
    """All that is known after the pass.

    Attributes:
        classes: names.
        likeness: name of what boxes are compared by.
        scenes: the images, without their pixels.
        rows, objects: the tables.
        found: what the detector returns, for each image.
        oracles: the same after one thing was made true, by name; Missing where the source cannot tell. In all of them
            the threshold is opened (``threshold`` is that alone), so that what it costs is counted once; with it a
            limit below COCO's 100 detections an image.
        supervision: Missing where it is not known; else whether the assigner looks at predictions.
        decoding: how the detector selects; None where it returned its own detections.
        missing: what the source cannot give, by what it is, with the reason.
        loudness: of cells near objects and in the background.
        inputs: what it returns of some images in other forms; Missing where the source cannot show them.
        reach: of points, the distance in pixels within which one counts as found; None for boxes.
    """

    classes: tuple[str, ...]
    likeness: str
    scenes: list[Scene]
    rows: EmittedRows
    objects: ObjectRows
    found: list[Detections]
    oracles: dict[str, list[Detections] | Missing]
    supervision: bool | Missing
    decoding: Decoding | None
    missing: dict[str, str]
    loudness: Loudness
    inputs: Otherwise | Missing
    reach: float | None = None

    @property
    def metrics(self) -> tuple[str, str]:
        """What the two average precisions are called: one likeness of 0.5, and ten from 0.5 to 0.95."""
        if self.reach is None:
            return "AP50", "AP"
        return f"AP at {self.reach:g} px", f"AP at {0.1 * self.reach:.1g} to {self.reach:g} px"

    def boxes(self, found: Sequence[Detections] | None = None, scenes: Sequence[Scene] | None = None) -> BoxSet:
        """Truth and detections for the evaluators; by default what the detector returns."""
        return BoxSet.of(scenes or self.scenes, self.found if found is None else found, self.reach)


def audit(
    source: Source,
    scenes: Iterable[Scene],
    *,
    likeness: Likeness | None = None,
    inputs: bool = True,
    told: Callable[[int], None] = lambda n: None,
) -> Audited:
    """Audit a detector.

    Args:
        source: gives raw outputs and what they are trained to be.
        scenes: with box truth; each is asked for once, its pixels are not kept.
        likeness: IoU by default.
        inputs: show some images in six other forms as well, where the source can (up to 64 images, until 100 objects
            were shown: see :mod:`boresight.diagnose.inputs`).
        told: hears how many images are done.

    Raises ValueError for no image, unknown truth, labels beyond the classes, and outputs that are not finite.
    """
    like = likeness or BoxIou()
    kept: list[Scene] = []
    rows: list[EmittedRows] = []
    objects: list[ObjectRows] = []
    found: list[Detections] = []
    oracles: dict[str, list[Detections] | Missing] = {name: [] for name in ("threshold", "duplicates", *ORACLES)}
    missing: dict[str, str] = {}
    supervision: bool | Missing = Missing("no image holds an object")
    first, loudness, showing = 0, Loudness(), Showing(source, inputs)
    for number, scene in enumerate(scenes):
        seen = look(source, scene)
        selected = chosen(source, seen.emission)
        rows.append(emitted_rows(seen, selected, number, first, like))
        objects.append(object_rows(seen, number, like))
        found.append(selected.found())
        first += len(rows[-1])
        supervision = _known(seen, supervision, missing)
        likeness_here = likeness_of_all(seen, like)
        loudness.add(seen, likeness_here)
        showing.add(scene, seen.emission, seen.truth)
        _ask_oracles(source, seen, like, likeness_here, oracles)
        kept.append(scene.without_pixels())
        told(number + 1)
    return Audited(
        tuple(source.classes),
        like.name,
        kept,
        EmittedRows.join(rows),
        ObjectRows.join(objects),
        found,
        oracles,
        supervision,
        source.decoding,
        missing,
        loudness,
        showing.told(),
        like.tolerance if isinstance(like, Closeness) else None,
    )


def look(source: Source, scene: Scene) -> Seen:
    """Everything about one image: output, truth, and two verdicts on its cells."""
    emission = source.emit(scene).to("cpu")
    if emission.classes != len(source.classes):
        raise ValueError(
            f"scene `{scene.name}`: {emission.classes} classes are emitted, the source names {len(source.classes)}"
        )
    truth = Truth.of(scene, emission.classes)
    verdict = source.supervise(emission, scene)
    return Seen(
        emission,
        truth,
        verdict if isinstance(verdict, Missing) else counting(verdict.to("cpu"), truth),
        _controlled(emission, truth),
        truth.holds(emission),
    )


def _controlled(emission: Emission, truth: Truth) -> Supervision | Missing:
    """The control's verdict, its objects named by their rows in the scene."""
    verdict = control(emission, truth.boxes)
    return verdict if isinstance(verdict, Missing) else replace(verdict, object=truth.row[verdict.object])


def counting(verdict: Supervision, truth: Truth) -> Supervision:
    """The verdict on objects that count; what is trained for a don't-care is no supervision."""
    keep = torch.isin(verdict.object, truth.row)
    return replace(verdict, cell=verdict.cell[keep], object=verdict.object[keep], positive=verdict.positive[keep])


def _known(seen: Seen, before: bool | Missing, missing: dict[str, str]) -> bool | Missing:
    """Whether the assigner looks at predictions; what is missing is noted once."""
    if seen.inside is None:
        missing.setdefault("places", "cells have no place: inside an object is not told from the background")
    if seen.emission.given is not None:
        missing.setdefault("scores", seen.emission.given)
    if isinstance(seen.control, Missing):
        missing.setdefault("control", seen.control.reason)
    if isinstance(seen.supervision, Missing):
        missing.setdefault("supervision", seen.supervision.reason)
        return seen.supervision if isinstance(before, Missing) else before
    return seen.supervision.by_prediction if len(seen.supervision.cell) or isinstance(before, Missing) else before


def _ask_oracles(
    source: Source,
    seen: Seen,
    likeness: Likeness,
    like: Tensor,
    oracles: dict[str, list[Detections] | Missing],
) -> None:
    if source.decoding is None and not isinstance(source, Selects):
        for name in oracles:
            oracles[name] = Missing("how it selects is not known, so that nothing can be changed before it")
        return
    open_door = None if source.decoding is None else opened(source.decoding)
    for name, answers in oracles.items():
        if isinstance(answers, Missing):
            continue
        if name == "duplicates":
            assert not isinstance(oracles["threshold"], Missing)
            answers.append(without_duplicates(oracles["threshold"][-1], seen.truth, likeness))
            continue
        if name in OF_SCORES and seen.emission.given is not None:
            oracles[name] = Missing(seen.emission.given)
            continue
        changed = ORACLES[name](seen, like) if name in ORACLES else seen.emission
        if isinstance(changed, Missing):
            oracles[name] = changed
        else:
            answers.append(chosen(source, changed, open_door).found())
