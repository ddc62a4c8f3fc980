"""What a detector emits, recorded once, and judged as often as faults are planted into it, in several processes."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any, Literal
from unittest.mock import patch

import torch

from boresight.core.emission import Decoding, Emission, Missing, Source, Supervision
from boresight.core.types import Scene
from boresight.diagnose.audit import audit
from boresight.diagnose.diagnosis import diagnose
from boresight.diagnose.inputs import Otherwise, otherwise
from boresight.diagnose.plant import SMALL, Fault, plant
from boresight.evaluate.detection import coco_figures

HARM = 0.05
"""AP50 that a fault must cost before a word is expected for it: less is no repair to the verdict either."""
REPAIRS = ("class", "box", "score", "assignment", "background", "threshold", "duplicates")

PLANTED = Missing("a fault is planted into its output")

Kind = Literal["none", "planted", "misuse"]


@dataclass
class Recorded:
    """A :class:`~boresight.core.emission.Source` without its model, which can be sent to another process.

    Attributes:
        classes, decoding: as those of the source.
        emissions, supervisions: by the name of the image, on the CPU.
        inputs: what it returns of some images in other forms; unknown once something is planted into its output.
    """

    classes: tuple[str, ...]
    decoding: Decoding | None
    emissions: dict[str, Emission]
    supervisions: dict[str, Supervision | Missing]
    inputs: Otherwise | Missing = PLANTED

    @classmethod
    def of(cls, source: Source, scenes: Sequence[Scene]) -> Recorded:
        """Ask a source for everything about each image."""
        emissions, supervisions = {}, {}
        for scene in scenes:
            emission = emissions[scene.name] = source.emit(scene).to("cpu")
            supervisions[scene.name] = source.supervise(emission, scene)
        return cls(tuple(source.classes), source.decoding, emissions, supervisions, otherwise(source, scenes))

    def emitting(
        self, emissions: dict[str, Emission], decoding: Decoding | None, inputs: Otherwise | Missing
    ) -> Recorded:
        """With other outputs of the same cells: who is trained for what does not depend on them."""
        return replace(self, emissions=emissions, decoding=decoding, inputs=inputs)

    def changed(self, change: Callable[[Emission], Emission]) -> Recorded:
        """With every output changed."""
        emissions = {name: change(e) for name, e in self.emissions.items()}
        return replace(self, emissions=emissions, inputs=PLANTED)

    def emit(self, scene: Scene) -> Emission:
        """See :class:`~boresight.core.emission.Source`."""
        return self.emissions[scene.name]

    def supervise(self, emission: Emission, scene: Scene) -> Supervision | Missing:
        """See :class:`~boresight.core.emission.Source`."""
        return self.supervisions[scene.name]


@dataclass(frozen=True)
class Job:
    """One source to be judged.

    Attributes:
        name, kind, what: of the fault.
        expected: the word that it deserves; empty for none.
        source: what is judged.
        fault: planted into it on the way.
        whole: keep the whole diagnosis and COCO's figures.
    """

    name: str
    kind: Kind
    what: str
    expected: str
    source: Recorded
    fault: Fault | None = None
    whole: bool = False


@dataclass(frozen=True)
class Judge:
    """Judges jobs on the same images.

    Attributes:
        scenes: with their truth; pixels are not needed.
        small: objects under so many pixels are starved by that fault.
        replicates: of the bootstrap by image.
    """

    scenes: Sequence[Scene]
    small: float = SMALL
    replicates: int = 500

    def __call__(self, job: Job) -> dict[str, Any]:
        """Its verdict and gains as plain JSON."""
        with patch("boresight.diagnose.plant.SMALL", self.small):
            source: Source = job.source if job.fault is None else plant(job.source, job.fault)
            audited = audit(source, self.scenes)
        if job.fault is None:
            audited = replace(audited, inputs=job.source.inputs)
        found = diagnose(audited, replicates=self.replicates)
        attribution = found.figures["attribution"]
        told = {
            "name": job.name,
            "kind": job.kind,
            "what": job.what,
            "expected": job.expected,
            "verdict": found.verdict.word,
            "sentence": found.verdict.sentence,
            "findings": [f.title for f in found.findings],
            "runner_up": found.verdict.runner_up,
            "clear": found.verdict.clear,
            "ap50": attribution["ap50"],
            "ap": attribution["ap"],
            "gains": {name: gain["ap50"] for name, gain in attribution["gains"].items()},
        }
        if job.whole:
            figures = coco_figures(audited.scenes, audited.found, audited.classes)
            told["coco"] = {"ap": figures.ap, "ap50": figures.ap50, "ap75": figures.ap75}
            told["coco"]["per_class"] = {c.name: {"objects": c.n, "ap50": c.ap50} for c in figures.per_class}
            told["diagnosis"] = found.to_dict()
        return told


def starved_below(scenes: Sequence[Scene]) -> float:
    """Pixels under which a third of the objects lies, and 24 at least: aerial photos may hold no object under 24."""
    boxes = torch.cat([s.boxes for s in scenes if s.boxes is not None])
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1).sqrt()
    return max(SMALL, float(sides.quantile(1 / 3))) if len(sides) else SMALL


def judged(judge: Judge, jobs: Iterable[Job], workers: int) -> Iterator[dict[str, Any]]:
    """Judge jobs as they are made, and give the results as they are done; one worker is this process itself.

    Processes are started anew, because one that is forked from a process with a GPU cannot use torch. What they are
    sent is pickled here: left to the queue, every tensor would take a file descriptor.
    """
    if workers <= 1:
        yield from map(judge, jobs)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), _start, (pickle.dumps(judge),)) as pool:
        waiting = set()
        for job in jobs:
            waiting.add(pool.submit(_work, pickle.dumps(job)))
            for done in {one for one in waiting if one.done()}:
                waiting.remove(done)
                yield done.result()
        yield from (done.result() for done in as_completed(waiting))


_judge: list[Judge] = []


def _start(judge: bytes) -> None:
    torch.set_num_threads(1)
    _judge.append(pickle.loads(judge))


def _work(job: bytes) -> dict[str, Any]:
    return _judge[0](pickle.loads(job))
