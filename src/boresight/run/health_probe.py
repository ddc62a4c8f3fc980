"""Builds the detector of a run and asks it what files cannot say: one batch, a few frames, seconds to minutes.

Nothing is written, and nothing is changed but the feature store, which may keep what was asked for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from accelerate.utils import set_seed
from safetensors.torch import load_file

from boresight.core.emission import Missing
from boresight.core.errors import UserError
from boresight.core.types import Detections, Scene
from boresight.detectors.detector import Detector
from boresight.diagnose import measure_maps, measure_places, measure_scores, measure_weights
from boresight.diagnose.evidence import Evidence, Labels
from boresight.diagnose.measure_labels import labels_of, operating, returned
from boresight.diagnose.measure_scores import Score, raw_score
from boresight.diagnose.plan import Plan
from boresight.diagnose.probe import Averaged, Moved, Operating, Probe, Reach, Reload, Returned
from boresight.run.begin import begin_from
from boresight.run.checkpoint import Checkpoint
from boresight.run.detect import detect
from boresight.run.health_images import looked_at
from boresight.run.health_load import load_costs
from boresight.run.order import Views
from boresight.run.predict import load_trained
from boresight.run.recipe import Frames, Recipe, Splits
from boresight.run.record import RunFolder

T = TypeVar("T")

LOOKED_AT = 64
"""Frames of a split whose labels are looked at."""
MAPPED = 24
"""Validation frames whose class maps are looked at."""
REMEMBERED = 3
"""Validation frames whose stored features are made again."""


@dataclass(frozen=True)
class Subject:
    """What is asked.

    Attributes:
        kind: the system.
        settings: of the run.
        plan: the same, as rules see it.
        splits: its frames.
        trained: the weights that are judged and kept.
        fresh: the same detector before its first step, or why it cannot be made.
        raw: the weights that were trained, where an average of them is judged, or why they are not known.
        checkpoint: the weights as they are stored, with the threshold and what the validation said.
        batch: training views, as the first steps saw them.
        frames: whole validation frames.
    """

    kind: Recipe
    settings: Any
    plan: Plan
    splits: Splits
    trained: Detector
    fresh: Detector | Missing
    raw: Detector | Missing
    checkpoint: Checkpoint
    batch: tuple[Scene, ...]
    frames: tuple[Scene, ...]


def probed(
    evidence: Evidence, run: RunFolder, kind: Recipe, settings: Any, *, count: int = 8, judged: int = 64
) -> Evidence:
    """The evidence with all that its detector answers, asked on ``count`` scenes, and ``judged`` for its threshold."""
    try:
        splits = kind.frames(settings, None)
        trained = load_trained(run, kind=kind)
    except UserError as error:
        return replace(evidence, probe=Probe.refused(str(error)))
    detector, plan = trained.detector, evidence.plan
    device = next(detector.parameters()).device
    views = Views(splits.train, splits.order, kind.view(settings), settings.train.seed)
    subject = Subject(
        kind=kind,
        settings=settings,
        plan=plan,
        splits=splits,
        trained=detector,
        fresh=_fresh(kind, settings, splits, device),
        raw=_raw(run, detector, plan),
        checkpoint=trained.checkpoint,
        batch=tuple(views[i].to(device) for i in range(min(count, len(splits.order)))),
        frames=tuple(splits.val[i].to(device) for i in range(min(count, len(splits.val)))),
    )
    images = looked_at(splits, views, first=LOOKED_AT)
    return replace(evidence, probe=ask(subject, judged=judged), labels=_labels(splits), images=images)


def _labels(splits: Splits) -> Labels:
    looked = {"train": (splits.classes, _first(splits.train)), "val": (splits.classes, _first(splits.val))}
    return labels_of(splits.classes, looked)


def _first(frames: Frames) -> Iterator[Scene]:
    return (frames[i] for i in range(min(LOOKED_AT, len(frames))))


def _fresh(kind: Recipe, settings: Any, splits: Splits, device: torch.device) -> Detector | Missing:
    """The detector as the training loop makes it before the first step, from the seed."""
    try:
        set_seed(settings.train.seed)
        detector = kind.build(settings, splits.classes)
        detector.to(device)
        detector.prepare(splits.train)
        if settings.train.init:
            begin_from(settings.train.init, kind, settings, detector, splits.classes)
    except UserError as error:
        return Missing(f"the detector cannot be made afresh: {error}")
    return detector


def _raw(run: RunFolder, trained: Detector, plan: Plan) -> Detector | Missing:
    """The detector with the weights of the last training state."""
    if not plan.ema:
        return Missing("no average of the weights is kept")
    states = run.states()
    file = states[-1] / "model.safetensors" if states else None
    if file is None or not file.is_file():
        return Missing("the training state is gone: the raw weights are not known")
    raw = copy.deepcopy(trained)
    try:
        raw.load_state_dict(load_file(file))
    except RuntimeError as error:
        return Missing(f"the training state does not fit the detector ({str(error).splitlines()[0]})")
    return raw


def score_of(detector: Detector) -> Score:
    """How a detector puts its emitted score together."""
    fusion = getattr(detector, "fusion", None)
    return raw_score if fusion is None else fusion.score


def ask(subject: Subject, *, judged: int = 64) -> Probe:
    """Every question to which the detector has an answer; one that fails is `Missing` with the error's first line."""
    s, batch = subject, subject.batch
    levels, spread = _pair(lambda: measure_scores.levels_and_spread(s.trained, batch))
    found = _answer(lambda: _detected(s, judged))
    offset, threshold = _pair(lambda: _judged(s, found))
    return Probe(
        start=_of(s.fresh, lambda d: measure_scores.start(d, batch, score_of(d))),
        learned=_answer(lambda: measure_scores.learned(s.trained, batch)),
        pull=_of(s.fresh, lambda d: measure_scores.pull(d, batch)),
        levels=levels,
        spread=spread,
        reach=_answer(lambda: _reach(s)),
        parity=_answer(lambda: measure_weights.parity(s.trained, batch)),
        round_trip=_answer(lambda: measure_places.round_trip(s.trained, s.frames)),
        padding=_answer(lambda: measure_places.padding(s.trained, s.frames)),
        offset=offset,
        activation=_answer(lambda: measure_weights.activation(s.trained, batch)),
        averaged=_of(s.raw, lambda d: _averaged(d, s)),
        operating=threshold,
        peaks=_answer(lambda: measure_scores.peaks(s.trained, s.frames)),
        maps=_answer(lambda: measure_maps.map_fit(s.trained, _some(s, MAPPED))),
        stored=_answer(lambda: measure_maps.stored(s.trained, s.frames[:REMEMBERED])),
        costs=_answer(lambda: load_costs(s.kind, s.settings, s.splits)),
        moved=_of(s.fresh, lambda d: frozen_parts(d, s.trained)),
        course=_of(s.fresh, lambda d: measure_weights.course(d, s.trained if isinstance(s.raw, Missing) else s.raw)),
        reload=_answer(lambda: _reload(s, found)),
        returned=_answer(lambda: _returned(s, found)),
    )


def _some(s: Subject, count: int) -> Iterator[Scene]:
    """The first validation frames, where the detector is."""
    device = next(s.trained.parameters()).device
    return (s.splits.val[i].to(device) for i in range(min(count, len(s.splits.val))))


def _answer(question: Callable[[], T | Missing]) -> T | Missing:
    try:
        return question()
    except (ValueError, RuntimeError, UserError) as error:
        return Missing(f"asking it failed: {str(error).splitlines()[0]}")


def _of(detector: Detector | Missing, question: Callable[[Detector], T | Missing]) -> T | Missing:
    return detector if isinstance(detector, Missing) else _answer(lambda: question(detector))


def _pair(question: Callable[[], tuple[Any, Any]]) -> tuple[Any, Any]:
    found = _answer(question)
    return (found, found) if isinstance(found, Missing) else found


@dataclass(frozen=True)
class Found:
    """Validation frames and what was found in each; ``whole``: they are all frames of the split."""

    scenes: list[Scene]
    detections: list[Detections]
    whole: bool


def _detected(s: Subject, judged: int) -> Found | Missing:
    if s.plan.proposals:
        return Missing("boxes are moved, not found")
    indices = range(min(judged, len(s.splits.val)))
    found = detect(s.trained, s.splits.val, indices)
    return Found([s.splits.val[i] for i in indices], found, len(indices) == len(s.splits.val))


def _judged(s: Subject, found: Found | Missing) -> tuple[Any, Operating | Missing]:
    """Where detections on validation frames lie against the truth, and what the stored threshold makes of them."""
    if isinstance(found, Missing):
        return found, found
    scenes, detections, tolerance = found.scenes, found.detections, s.plan.tolerance
    offset = measure_places.offset(scenes, detections, stride=s.plan.stride or 1.0, tolerance=tolerance)
    if not s.plan.scored:
        return offset, Missing("no score is trained, no threshold is chosen")
    return offset, operating(scenes, detections, s.checkpoint.threshold, tolerance=tolerance)


def _returned(s: Subject, found: Found | Missing) -> Returned | Missing:
    if isinstance(found, Missing):
        return found
    return returned(found.scenes, found.detections, s.checkpoint.threshold, tolerance=s.plan.tolerance)


def _reload(s: Subject, found: Found | Missing) -> Reload:
    """The weights in use against the stored ones, and the validation's main figure made again where that is cheap."""
    have = s.trained.state_dict()
    changed = measure_weights.moved("", s.checkpoint.weights, have)
    now = None
    if not isinstance(found, Missing) and found.whole:
        judgement = s.kind.judge(s.settings, s.splits.classes, found.scenes, found.detections)
        now = judgement.figures.get(s.plan.score)
    return Reload(changed.tensors, changed.moved, changed.worst, s.checkpoint.figures.get(s.plan.score), now)


def _averaged(raw: Detector, s: Subject) -> Averaged:
    return measure_weights.averaged(raw, s.trained, s.frames)


def _reach(s: Subject) -> Reach | Missing:
    """Whole training images: as their source holds them, and as the targets do."""
    chosen, held = [], []
    device = next(s.trained.parameters()).device
    for i in range(min(LOOKED_AT, len(s.splits.train))):
        scene = s.splits.train[i]
        count = _count(scene)
        if count:
            chosen.append(scene.to(device))
            held.append(count)
        if len(chosen) == len(s.batch):
            break
    if not chosen:
        return Missing("no training image holds an object")
    return measure_places.reach(s.trained, chosen, held)


def _count(scene: Scene) -> int:
    """Objects of a scene that count."""
    if scene.points is not None:
        return int((~scene.points.ignore).sum())
    if scene.boxes is None:
        return 0
    return len(scene.boxes) if scene.ignore is None else int((~scene.ignore).sum())


def frozen_parts(fresh: Detector, trained: Detector) -> tuple[Moved, ...] | Missing:
    """What was not to be trained, before and after: parameters without gradient and the statistics beside them."""
    names = {
        f"{path}.{name}" if path else name
        for path, module in fresh.named_modules()
        for name in (*module._parameters, *module._buffers)
        if module._parameters and all(p is None or not p.requires_grad for p in module._parameters.values())
    }
    before = {k: v for k, v in fresh.state_dict().items() if k in names}
    if not before:
        return Missing("every weight is trained")
    return (measure_weights.moved("encoder", before, trained.state_dict()),)
