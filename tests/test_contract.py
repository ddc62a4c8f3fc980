"""The contract, over every detector: what the loop, the evaluators and the diagnosis rely on.

A new detector joins by one more entry in ``CASES``; nothing below names one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from boresight.core.grid import unravel_cell
from boresight.core.types import DenseOutput, DenseTargets, Detections, Points, Proposals, Scene
from boresight.detectors.box_looks import Looking, Reference
from boresight.detectors.box_refiner import BoxRefiner, RefineCriterion, Refiner
from boresight.detectors.detector import Detector
from boresight.features.clip import FrozenClip
from boresight.features.clip_load import load_clip
from boresight.features.encoder import FeatureMaps
from boresight.features.feature_store import MemoryStore
from boresight.features.stored_maps import StoredMaps
from boresight.heads.refiner import ReferenceHead, RefineHead
from boresight.run.config import EncoderSettings, HeadSettings, PointSettings, TargetSettings
from boresight.run.config_refine import RefineSettings
from boresight.run.config_text import LocaliseSettings, TextSettings
from boresight.run.parse import settings_from
from boresight.run.point import point_detector
from boresight.run.refine import box_refiner
from boresight.run.text import text_detector
from boresight.targets.jitter import jitter


@dataclass(frozen=True)
class Case:
    """A detector and the scenes it can read.

    ``scene(seed, size, count)`` makes a labelled scene with ``count`` well separated objects, some of them near the far
    borders; ``unknown(scene)`` takes its truth away, ``outside(scene)`` moves an object out of the image;
    ``truth(scene)`` are the boxes and labels that must be found. ``score`` is what the detector emits: the sigmoid of
    the logits, or what it makes of them and of other maps. ``on_grid``: cells lie on a grid over the image; those of a
    refiner are the coarse boxes of the scene.
    """

    build: Callable[[], Detector]
    scene: Callable[[int, tuple[int, int], int], Scene]
    unknown: Callable[[Scene], Scene]
    outside: Callable[[Scene], Scene]
    truth: Callable[[Scene], tuple[Tensor, Tensor]]
    score: Callable[[Any, DenseOutput], Tensor] = lambda detector, output: output.logits.sigmoid()
    on_grid: bool = True


def small_point(classes: int = 2, peak: str = "unit", **head) -> Detector:
    settings = PointSettings(
        encoder=EncoderSettings(widths=(4, 6, 8, 8), channels=8),
        head=HeadSettings(**head),
        target=TargetSettings(peak=peak),  # type: ignore[arg-type]
    )
    return point_detector(settings, classes)


def point_scene(seed: int, size: tuple[int, int], count: int) -> Scene:
    """Noise with bright points; one in three is a don't-care, one lies in the last pixel of the image."""
    random = torch.Generator().manual_seed(seed)
    height, width = size
    spots = [(x + 0.0, y + 0.0) for y in range(6, height - 12, 24) for x in range(6, width - 12, 24)][
        : max(0, count - 1)
    ]
    xy = torch.tensor(spots).reshape(-1, 2) + 4 * torch.rand(len(spots), 2, generator=random)
    xy = torch.cat((xy, torch.tensor([[width - 0.4, height - 0.3]]))) if count else xy
    image = torch.randn(1, height, width, generator=random)
    for x, y in xy.long().tolist():
        image[0, min(y, height - 1), min(x, width - 1)] += 15
    labels, ignore = torch.arange(len(xy)) % 2, torch.arange(len(xy)) % 3 == 1
    return Scene(image, f"frame {seed}", points=Points.of(xy, labels=labels, ignore=ignore))


def point_truth(scene: Scene) -> tuple[Tensor, Tensor]:
    points = scene.points.select(~scene.points.ignore)
    return torch.cat((points.xy, points.xy), dim=-1), points.labels


POINT = {
    "scene": point_scene,
    "unknown": lambda scene: replace(scene, points=None),
    "outside": lambda scene: replace(scene, points=replace(scene.points, xy=scene.points.xy + scene.size[1])),
    "truth": point_truth,
}


@cache
def shipped_clip() -> FrozenClip:
    return load_clip("boresight-aerial")


def small_text(kind: type = TextSettings, **groups) -> Callable[[], Detector]:
    """How to build one, with the encoder that comes with the package: settings and encoder are read once."""
    groups["encoder"] = {"widths": [4, 6, 8, 8], "channels": 8}
    groups["head"] = {"width": 8, "embed": 8, "depth": 1, "side": 2.0}
    # the recipe's own threshold would leave a fresh detector silent, and the tests of what is said without a word
    groups["decode"] = {"threshold": 1e-6}
    settings = cache(lambda: settings_from(kind, groups, origin="the test"))

    def build() -> Detector:
        with mock.patch("boresight.run.text_parts.load_clip", return_value=shipped_clip()):
            return text_detector(settings(), ("ship", "storage tank"))

    return build


def box_scene(seed: int, size: tuple[int, int], count: int) -> Scene:
    """Bright boxes of about 16 px on noise; one in three is a crowd, one ends in the last pixel of the image."""
    random = torch.Generator().manual_seed(seed)
    height, width = size
    spots = [(x, y) for y in range(2, height - 14, 24) for x in range(2, width - 30, 24)][: max(0, count - 1)]
    sides = 12 + 6 * torch.rand(len(spots), 2, generator=random)
    corner = torch.tensor(spots, dtype=torch.float32).reshape(-1, 2) + 2 * torch.rand(len(spots), 2, generator=random)
    boxes = torch.cat((corner, corner + sides), dim=-1)
    last = torch.tensor([[max(0.0, width - 13.5), max(0.0, height - 12.2), width, height]])
    boxes = torch.cat((boxes, last)) if count else boxes
    image = 40 * torch.rand(3, height, width, generator=random)
    for x0, y0, x1, y1 in boxes.long().tolist():
        image[0, y0:y1, x0:x1] += 180
    labels, ignore = torch.arange(len(boxes)) % 2, torch.arange(len(boxes)) % 3 == 1
    return Scene(image.to(torch.uint8), f"frame {seed}", seed, boxes=boxes, labels=labels, ignore=ignore)


TEXT = {
    "scene": box_scene,
    "unknown": lambda scene: replace(scene, boxes=None, labels=None, ignore=None),
    "outside": lambda scene: replace(scene, boxes=scene.boxes + scene.size[1]),
    "truth": lambda scene: (scene.boxes[~scene.ignore], scene.labels[~scene.ignore]),
    "score": lambda detector, output: detector.fusion.score(output),
}


def small_refiner(**head) -> Detector:
    settings = settings_from(
        RefineSettings,
        {"features": {"name": "none"}, "head": {"grid": 4, "width": 16, "depth": 1} | head},
        origin="the test",
    )
    return box_refiner(settings, ("ship", "storage tank"))


class TwoLevels:
    """A frozen encoder of two levels with known features: means of blocks of pixels."""

    name, about, fingerprint, notes = "two levels", {}, "0" * 32, ()
    channels, strides, calls = (3, 6), (4.0, 8.0), 0
    device = torch.device("cpu")

    def to(self, device):
        self.device = torch.device(device)
        return self

    def identity(self) -> str:
        return self.fingerprint

    def encode(self, images: Sequence[Tensor]) -> list[FeatureMaps]:
        self.calls += len(images)
        return [self._maps(image) for image in images]

    def _maps(self, image: Tensor) -> FeatureMaps:
        fine = functional.avg_pool2d(image.float()[None] / 255, 4, ceil_mode=True)[0]
        coarse = functional.avg_pool2d(fine[None], 2, ceil_mode=True)[0]
        extents = [(4.0 * fine.shape[1], 4.0 * fine.shape[2]), (8.0 * coarse.shape[1], 8.0 * coarse.shape[2])]
        return FeatureMaps((fine, torch.cat((coarse, -coarse))), torch.tensor(extents)).to(self.device)


def refiner_on_features(refiner: Callable[[], Refiner]) -> Detector:
    maps = StoredMaps(TwoLevels(), MemoryStore(10))
    return BoxRefiner(maps, refiner(), RefineCriterion())


def looking() -> Looking:
    heads = [RefineHead((3, 6), grid=4, width=16, depth=2, classes=2, decides=last) for last in (False, True)]
    return Looking(heads, steps=2, context=2.0)


def coarse_scene(seed: int, size: tuple[int, int], count: int) -> Scene:
    """A scene of boxes with a coarse box for each that counts, and one for a crowd where there is one."""
    scene = box_scene(seed, size, count)
    rows = torch.cat(((~scene.ignore).nonzero()[:, 0], scene.ignore.nonzero()[:1, 0]))
    generator = torch.Generator().manual_seed(seed)
    boxes = jitter(scene.boxes[rows], torch.full((len(rows),), 0.6), generator, size=size)
    turns = torch.arange(len(rows)) % 8
    proposals = Proposals(boxes, scene.labels[rows], torch.full((len(rows),), 0.5), matched=rows, turns=turns)
    return replace(scene, proposals=proposals)


REFINE = {
    "scene": coarse_scene,
    "unknown": lambda scene: replace(scene, boxes=None, labels=None, ignore=None),
    "outside": lambda scene: replace(scene, boxes=scene.boxes + scene.size[1]),
    "truth": lambda scene: (scene.boxes[~scene.ignore], torch.zeros_like(scene.labels[~scene.ignore])),
    "on_grid": False,
}
EVERY_CELL = {"objectness": True, "inside_boxes": True, "quality": 0.5}
CASES = {
    "point/single": Case(partial(small_point, mode="single"), **POINT),
    "point/single/stride 2": Case(partial(small_point, mode="single", level="p1", peak="physical"), **POINT),
    "point/fused": Case(partial(small_point, mode="fused"), **POINT),
    "point/coarse to fine": Case(partial(small_point, mode="coarse_to_fine", proposals=2), **POINT),
    "point/switches": Case(partial(small_point, attention="both", deformable=True), **POINT),
    "text/boresight": Case(small_text(), **TEXT),
    # the reference leaves an object without a cell where the best box overlaps it too little: here every box will do
    "text/baseline": Case(small_text(recipe="baseline", assign={"min_giou": -1.0}), **TEXT),
    "text/objectness+quality": Case(small_text(supervise=EVERY_CELL), **TEXT),
    "localise": Case(small_text(LocaliseSettings), **TEXT),
    "refine/pixels": Case(small_refiner, **REFINE),
    "refine/deltas": Case(partial(small_refiner, regression="deltas", steps=1), **REFINE),
    "refine/features": Case(partial(refiner_on_features, looking), **REFINE),
    "refine/reference": Case(partial(refiner_on_features, lambda: Reference(ReferenceHead((3, 6)))), **REFINE),
}
every_detector = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
GRIDS = {name: case for name, case in CASES.items() if case.on_grid}
every_detector_on_a_grid = pytest.mark.parametrize("case", GRIDS.values(), ids=GRIDS)


def built(case: Case) -> Detector:
    torch.manual_seed(0)
    return case.build()


def levels(output: DenseOutput) -> list[DenseOutput]:
    return [output, *output.coarser]


def scenes_of(case: Case, kind: str) -> list[Scene]:
    counts = {"some": (3, 2), "one empty": (0, 3), "all empty": (0, 0), "alone": (4,)}[kind]
    return [case.scene(i, (48, 64), n) for i, n in enumerate(counts)]


every_kind = pytest.mark.parametrize("kind", ["some", "one empty", "all empty", "alone"])


def judged(detector: Detector, scenes: Sequence[Scene]) -> tuple[DenseOutput, DenseTargets, dict[str, Tensor]]:
    output = detector(scenes)
    targets = detector.assign(output, scenes)
    return output, targets, detector.loss(output, targets)


# ---------------------------------------------------------------- forward


@every_detector
def test_the_output_is_of_one_type_and_shape_in_training_and_inference(case):
    detector, scenes = built(case), scenes_of(case, "some")
    training, inference = detector.train()(scenes), detector.eval()(scenes)
    assert type(training) is type(inference) is DenseOutput
    assert len(training.coarser) == len(inference.coarser)
    assert training.sizes == inference.sizes == tuple(s.size for s in scenes)
    for one, two in zip(levels(training), levels(inference), strict=True):
        assert one.logits.shape == two.logits.shape
        assert one.boxes.shape == two.boxes.shape == (*one.logits.shape, 4)
        assert one.stride == two.stride
        assert one.logits.dtype == one.boxes.dtype == torch.float32
        assert one.logits.isfinite().all()
        assert one.boxes.isfinite().all()


@every_detector_on_a_grid
@pytest.mark.parametrize("size", [(48, 64), (45, 61), (7, 5), (1, 1)])
def test_the_map_covers_an_image_of_any_size(case, size):
    output = built(case).eval()([case.scene(0, size, 1)])
    for level in levels(output):
        assert level.logits.shape[-2] * level.stride >= size[0]
        assert level.logits.shape[-1] * level.stride >= size[1]


@every_detector
def test_permuting_scenes_permutes_outputs_and_detections(case):
    detector, scenes = built(case).eval(), [case.scene(i, (48, 64), i) for i in range(3)]
    order = [2, 0, 1]
    one, two = detector(scenes), detector([scenes[i] for i in order])
    assert torch.allclose(one.logits[order], two.logits, atol=1e-5)
    assert torch.allclose(one.boxes[order], two.boxes, atol=1e-4)
    found, permuted = detector.decode(one), detector.decode(two)
    for i, have in zip(order, permuted, strict=True):
        assert torch.equal(found[i].cell, have.cell)


@every_detector
def test_a_batch_of_two_equals_twice_a_batch_of_one(case):
    detector, scenes = built(case).eval(), scenes_of(case, "some")
    together, alone = detector(scenes), [detector([s]) for s in scenes]
    for i, one in enumerate(alone):
        _, _, rows, columns = one.logits.shape  # what lies beyond in the batch is padding
        assert torch.allclose(together.logits[i, :, :rows, :columns], one.logits[0], atol=1e-5)
        assert torch.allclose(together.boxes[i, :, :rows, :columns], one.boxes[0], atol=1e-4)


@every_detector
def test_weights_that_are_stored_and_loaded_answer_alike(case):
    one, two = built(case).eval(), case.build().eval()
    scenes = scenes_of(case, "some")
    two.load_state_dict(one.state_dict())
    assert torch.equal(one(scenes).logits, two(scenes).logits)


# ---------------------------------------------------------------- assign and loss


@every_detector
@every_kind
@pytest.mark.parametrize("mode", [True, False], ids=["training", "inference"])
def test_loss_and_gradient_are_finite(case, kind, mode):
    detector = built(case).train(mode)
    for progress in (0.0, 0.5, 1.0):
        detector.progress = progress
        detector.zero_grad()
        output, targets, terms = judged(detector, scenes_of(case, kind))
        assert terms
        assert all(isinstance(n, str) and t.shape == () and t.isfinite() for n, t in terms.items())
        assert all(float(t.detach()) >= 0 for t in terms.values())
        torch.stack(list(terms.values())).sum().backward()
        gradients = {n: p.grad for n, p in detector.named_parameters()}
        assert not [n for n, g in gradients.items() if g is None or not g.isfinite().all()]
        # a loss pulls somewhere; without an object localisation alone has none
        assert any(g.any() for g in gradients.values()) or not any(t.any() for t in terms.values())
        assert float(targets.normaliser) == int(targets.counted.sum())
        assert len(output.coarser) == len(targets.coarser)


@every_detector
@every_kind
def test_targets_have_the_shape_of_the_output_and_agree_with_themselves(case, kind):
    output, targets, _ = judged(built(case), scenes_of(case, kind))
    assert targets.positive.shape == output.logits.shape
    assert ((targets.score >= 0) & (targets.score <= 1)).all()
    assert (targets.matched[targets.positive] >= 0).all()
    assert (targets.matched < max(1, len(targets.objects))).all()
    assert not (targets.positive & targets.ignore).any()
    for level, wanted in zip(output.coarser, targets.coarser, strict=True):
        assert wanted.positive.shape == level.logits.shape


@every_detector
@pytest.mark.parametrize("size", [(48, 64), (45, 61), (46, 62), (47, 63), (33, 49)])
def test_every_object_is_trained_wherever_the_image_ends(case, size):
    """The last object lies in the last pixel: its cell may be cut by the image's edge, but it is no padding."""
    scenes = [case.scene(0, size, 1), case.scene(1, (64, 80), 3)]
    _, targets, _ = judged(built(case), scenes)
    trained = torch.where(targets.positive & ~targets.ignore, targets.matched, -1)
    owners = set(trained[trained >= 0].tolist())
    assert owners == set(targets.counted.nonzero().flatten().tolist())
    assert targets.ignore[0].any()  # what lies beyond the smaller image is unknown


@every_detector
def test_a_scene_without_truth_is_named(case):
    detector, scenes = built(case), scenes_of(case, "some")
    scenes[1] = case.unknown(scenes[1])
    output = detector(scenes)
    assert len(detector.decode(output)) == 2  # to detect it takes none
    with pytest.raises(ValueError, match="frame 1"):
        detector.assign(output, scenes)


@every_detector
def test_a_scene_with_truth_outside_the_image_is_named(case):
    """Even where the batch's padding has a cell for it."""
    detector = built(case)
    scenes = [case.scene(0, (48, 160), 1), case.outside(case.scene(1, (48, 64), 1))]
    with pytest.raises(ValueError, match="frame 1"):
        detector.assign(detector(scenes), scenes)


@every_detector
def test_nothing_given_is_written_to(case):
    detector, scenes = built(case), scenes_of(case, "some")
    before = [s.image.clone() for s in scenes]
    output = detector(scenes)
    logits, boxes = output.logits.detach().clone(), output.boxes.detach().clone()
    targets = detector.assign(output, scenes)
    score, positive = targets.score.clone(), targets.positive.clone()
    detector.loss(output, targets)
    detector.decode(output)
    assert all(torch.equal(s.image, b) for s, b in zip(scenes, before, strict=True))
    assert torch.equal(output.logits, logits)
    assert torch.equal(output.boxes, boxes)
    assert torch.equal(targets.score, score)
    assert torch.equal(targets.positive, positive)


# ---------------------------------------------------------------- decode


def shapes(output: DenseOutput) -> list[tuple[int, int, int]]:
    return [tuple(level.logits.shape[1:]) for level in levels(output)]  # type: ignore[misc]


@every_detector
def test_every_detection_names_the_cell_that_emitted_it(case):
    detector, scenes = built(case).eval(), [case.scene(0, (45, 61), 2), case.scene(1, (48, 64), 3)]
    with torch.no_grad():
        output = detector(scenes)
    found, scores = detector.decode(output), [case.score(detector, level) for level in levels(output)]
    assert len(found) == len(scenes)
    for i, have in enumerate(found):
        assert type(have) is Detections
        assert len(have)
        assert (have.scores[:-1] >= have.scores[1:]).all()
        assert ((have.scores >= 0) & (have.scores <= 1)).all()
        level, label, row, column = unravel_cell(have.cell, shapes(output))
        assert torch.equal(label, have.labels)
        for k in range(len(have)):
            emitter = levels(output)[int(level[k])]
            at = (i, int(label[k]), int(row[k]), int(column[k]))
            assert float(scores[int(level[k])][at]) == pytest.approx(float(have.scores[k]), abs=1e-6)
            height, width = scenes[i].size
            inside = emitter.boxes[at].clamp(min=0).minimum(torch.tensor([width, height, width, height]))
            assert torch.equal(inside, have.boxes[k])
            assert row[k] * emitter.stride < scenes[i].size[0]  # the cell is of the image, not of the padding
            assert column[k] * emitter.stride < scenes[i].size[1]


def learned(output: DenseOutput, targets: DenseTargets) -> DenseOutput:
    """The output that the targets ask for, where all else that enters a score is sure."""
    nowhere = targets.objects.new_zeros((1, 4))
    taught = (targets.matched >= 0)[..., None]
    boxes = torch.where(taught, torch.cat((targets.objects, nowhere))[targets.matched], output.boxes)
    sure = {"cam": 1.0, "quality": 1.0, "objectness": 30.0}
    maps = {k: torch.full_like(output.logits, v) for k, v in sure.items() if getattr(output, k) is not None}
    return replace(output, logits=targets.score.logit(eps=1e-6), boxes=boxes, **maps)


def perfect(detector: Detector, output: DenseOutput, scenes: Sequence[Scene]) -> DenseOutput:
    """What the detector would emit had it learned exactly what it was asked.

    Learned twice: a target may look at what is emitted (the IoU of the box, say), and of perfect boxes it is another.
    """
    for _ in range(2):
        output = learned(output, detector.assign(output, scenes))
    return output


@every_detector
@pytest.mark.parametrize("size", [(48, 64), (45, 61)])
@pytest.mark.parametrize("mode", [True, False], ids=["training", "inference"])
def test_encoded_truth_decodes_back_to_itself(case, size, mode):
    detector = built(case).train(mode)
    scenes = [case.scene(0, size, 4), case.scene(1, (48, 64), 0), case.scene(2, (48, 64), 3)]
    with torch.no_grad():
        output = detector(scenes)
    found = detector.decode(perfect(detector, output, scenes))
    for scene, have in zip(scenes, found, strict=True):
        have = have.select(have.scores > 0.5)
        boxes, labels = case.truth(scene)
        assert len(have) == len(boxes)
        distance = torch.cdist(have.boxes, boxes) + (have.labels[:, None] != labels) * 99.0
        if len(boxes):
            assert float(distance.min(0).values.max()) < 1e-3
            assert float(distance.min(1).values.max()) < 1e-3


@every_detector
def test_padding_neither_gives_a_detection_nor_hides_one(case):
    """Scores beyond the smaller image are arbitrary: nothing was learned there."""
    detector, scenes = built(case).eval(), [case.scene(0, (45, 61), 1), case.scene(1, (96, 96), 1)]
    with torch.no_grad():
        output = detector(scenes)
    truth = perfect(detector, output, scenes)
    loud = truth.logits.clone()
    rows, columns = (torch.arange(n) * output.stride for n in loud.shape[-2:])
    loud[0][:, (rows >= 45)[:, None] | (columns >= 61)] = 30.0
    have = detector.decode(replace(truth, logits=loud))
    want = detector.decode(truth)
    assert torch.equal(have[0].cell, want[0].cell)
    assert int((have[0].scores > 0.5).sum()) == 1
    assert torch.equal(have[1].cell, want[1].cell)
