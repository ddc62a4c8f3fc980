"""Torchvision is the oracle: the replayed raw output is its own forward, the pairs are those its own training makes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.transform import resize_boxes

from boresight.core.emission import Missing
from boresight.core.errors import UserError
from boresight.core.types import Scene
from boresight.decode.replay import replay, select
from boresight.detectors.foreign_scene import objects_only
from boresight.detectors.foreign_torchvision import torchvision_source

CLASSES = ("boat", "car", "dock")
SIZES = [(90, 130), (150, 70), (201, 333)]


def anchors(*sizes, ratios=(0.5, 1.0, 2.0)):
    return AnchorGenerator(sizes, (ratios,) * len(sizes))


@pytest.fixture(scope="module")
def build(tiny_pyramid, rescaled):
    """A model of each kind by name, its weights drawn by a seed."""

    def ssd(steps=None, **more):
        backbone = tiny_pyramid()
        backbone.out_channels = [32] * 3
        return SSD(backbone, DefaultBoxGenerator([[2], [2, 3], [2]], steps=steps), (96, 128), 4, **more)

    points = anchors((8,), (16,), (32,), ratios=(1.0,))
    boxes = anchors((16, 24), (32, 48), (64, 96))
    side = {"min_size": 96, "max_size": 160}
    kinds = {
        "fcos": lambda **more: FCOS(tiny_pyramid(), 3, **{**side, "anchor_generator": points, **more}),
        "retinanet": lambda **more: RetinaNet(tiny_pyramid(), 3, **{**side, "anchor_generator": boxes, **more}),
        "ssd": ssd,
        "rpn": lambda **more: FasterRCNN(
            tiny_pyramid(),
            3,
            rpn_anchor_generator=boxes,
            **{**side, "rpn_pre_nms_top_n_test": 200, "rpn_post_nms_top_n_test": 120, **more},
        ),
    }
    return lambda kind, seed=0, **more: rescaled(kinds[kind](**more), seed).eval()


def source_of(model):
    return torchvision_source(model, () if isinstance(model, FasterRCNN) else CLASSES)


def own_detections(model, scene):
    """What the model itself returns: boxes, scores, labels counted as the classes are."""
    if not isinstance(model, FasterRCNN):
        found = model([scene.image / 255])[0]
        return found["boxes"], found["scores"], found["labels"] - int(isinstance(model, SSD))
    images, _ = model.transform([scene.image / 255])
    heard = []
    original = model.rpn.filter_proposals
    model.rpn.filter_proposals = lambda *given: heard.append(original(*given)) or heard[-1]
    model.rpn(images, model.backbone(images.tensors))
    (boxes,), (scores,) = heard[0]
    return resize_boxes(boxes, images.image_sizes[0], scene.size), scores, torch.zeros(len(boxes)).long()


KINDS = ["fcos", "retinanet", "ssd", "rpn"]


# ---------------------------------------------------------------- what is emitted


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_the_replayed_output_is_the_models_own(kind, seed, size, build, scene_of, same_detections):
    model, scene = build(kind, seed), scene_of(*size, seed)
    source = source_of(model)
    emission = source.emit(scene)
    selected = select(emission, source.decoding)
    assert int((~selected.kept).sum()) > 50  # else the replay had nothing to do
    same_detections(selected.found(), *own_detections(model, scene), least=100)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_limits_of_levels_and_classes_are_followed(kind, build, scene_of, same_detections):
    """So few candidates a level (SSD: a class) that all limits are reached before the last one."""
    few = {"rpn_pre_nms_top_n_test": 40} if kind == "rpn" else {"topk_candidates": 40}
    model, scene = build(kind, 0, **few), scene_of()
    source = source_of(model)
    selected = select(source.emit(scene), source.decoding)
    assert 2 * 40 < len(selected.slot) <= 3 * 40
    same_detections(selected.found(), *own_detections(model, scene), least=60)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_a_float_image_is_the_same_as_its_bytes(kind, build, scene_of):
    source, scene = source_of(build(kind)), scene_of()
    one, two = source.emit(scene), source.emit(replace(scene, image=scene.image.float()))
    assert torch.equal(one.scores, two.scores)
    assert torch.equal(one.boxes, two.boxes)


def test_cells_of_fcos_lie_at_multiples_of_the_stride(build):
    """64 x 64 shown at 128 x 128: strides 8, 16, 32 there, half of that here; torchvision has no half pixel."""
    model = build("fcos", min_size=128, max_size=128)
    emission = source_of(model).emit(Scene(torch.zeros(3, 64, 64), "black"))
    assert emission.level.bincount().tolist() == [256, 64, 16]
    assert emission.strides[[0, 256, 320]].tolist() == [4, 8, 16]
    assert emission.centres[[0, 1, 16, 256 + 9]].tolist() == [[0, 0], [4, 0], [0, 4], [8, 8]]


def test_padding_is_emitted_and_undone(build):
    """48 x 80 is shown as it is, padded to 64 x 96: 8 x 12 cells, of which the last rows and columns lie outside."""
    model = build("fcos", min_size=48, max_size=80)
    emission = source_of(model).emit(Scene(torch.zeros(3, 48, 80), "black"))
    assert emission.level.bincount().tolist() == [96, 24, 6]
    assert emission.centres[95].tolist() == [88, 56]


def test_default_boxes_have_the_centre_of_their_cell(build):
    """SSD stretches: 48 x 128 becomes 128 x 96 (its size is width, height): strides 8 are 3 down and 10.67 across."""
    model = build("ssd")
    emission = source_of(model).emit(Scene(torch.zeros(3, 48, 128), "black"))
    assert emission.level.bincount().tolist() == [16 * 12 * 4, 8 * 6 * 6, 4 * 3 * 4]
    torch.testing.assert_close(
        emission.centres[[0, 3, 4, 48]], torch.tensor([[16 / 3, 1.5]] * 2 + [[16, 1.5], [16 / 3, 4.5]])
    )
    assert float(emission.strides[0]) == pytest.approx((3 * 32 / 3) ** 0.5)


def test_default_boxes_may_have_steps_of_their_own(build):
    """At 7 pixels where the map would have 8: cell (0, 1) lies at 10.5 of the input, 96 pixels for 96."""
    model = build("ssd", steps=[7, 16, 32])
    emission = source_of(model).emit(Scene(torch.zeros(3, 128, 96), "black"))
    torch.testing.assert_close(emission.centres[[0, 4]], torch.tensor([[3.5, 3.5], [10.5, 3.5]]))
    assert emission.strides[[0, -1]].tolist() == [7, 32]


def test_anchors_of_a_cell_lie_in_one_place(build, scene_of):
    emission = source_of(build("retinanet")).emit(scene_of(96, 160))
    assert emission.cells == (12 * 20 + 6 * 10 + 3 * 5) * 6
    assert len(emission.centres[:6].unique(dim=0)) == 1
    assert emission.level.unique().tolist() == [0, 1, 2]


# ---------------------------------------------------------------- what was trained


def trained_by(model, scene):
    """``[N]``: the object of each anchor, as the model's own training has it (transform included), by listening in."""
    heard = []
    kept = torch.arange(len(scene.boxes)) if scene.ignore is None else (~scene.ignore).nonzero()[:, 0]
    if isinstance(model, FasterRCNN):
        matcher = model.rpn.proposal_matcher

        def matching(quality):
            heard.append(matcher(quality))
            return heard[-1]

        matching.BELOW_LOW_THRESHOLD, matching.BETWEEN_THRESHOLDS = -1, -2
        model.rpn.proposal_matcher = matching
    else:
        owner = model if isinstance(model, SSD) else model.head
        original = owner.compute_loss

        def compute_loss(targets, output, boxes, matched):
            heard.append(matched[0])
            return original(targets, output, boxes, matched)

        owner.compute_loss = compute_loss
    target = {"boxes": scene.boxes[kept], "labels": scene.labels[kept] + int(isinstance(model, SSD))}
    model.train()([scene.image / 255], [target])
    matched = heard[0]
    return torch.where(matched < 0, matched, kept[matched.clamp(min=0)])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_pairs_are_those_of_the_models_own_training(kind, size, build, scene_of):
    model, scene = build(kind), replace(scene_of(*size, 3), ignore=torch.tensor([False, True, False, False]))
    source = source_of(model)
    pairs = source.supervise(source.emit(scene), scene)
    matched = trained_by(model, scene)
    assert pairs.cell.tolist() == (matched >= 0).nonzero()[:, 0].tolist()
    assert pairs.object.tolist() == matched[matched >= 0].tolist()
    assert set(pairs.object.tolist()) == {0, 2, 3}
    assert bool(pairs.positive.all())
    assert not pairs.by_prediction


def test_anchors_between_the_thresholds_are_trained_for_nothing(build, scene_of):
    model, scene = build("retinanet", fg_iou_thresh=0.6, bg_iou_thresh=0.3), scene_of()
    source = source_of(model)
    pairs = source.supervise(source.emit(scene), scene)
    between = (trained_by(model, scene) == -2).nonzero()[:, 0]
    assert len(between) > 10
    assert not set(between.tolist()) & set(pairs.cell.tolist())


def test_an_object_that_fits_no_anchor_has_its_best_one(build):
    """2 x 2 pixels: IoU 4 / 256 with the nearest anchors of 16 x 16."""
    scene = Scene(torch.zeros(3, 96, 96), "dot", boxes=torch.tensor([[47.0, 47, 49, 49]]), labels=torch.tensor([1]))
    source = source_of(build("retinanet", min_size=96, max_size=96))
    assert len(source.supervise(source.emit(scene), scene).cell) >= 1


def test_centre_sampling_on_paper(build):
    """24 x 24 about (32, 32), shown as it is: at stride 8, points less than 12 from the centre and in the box: 3 x 3.

    None at strides 16 and 32, which take objects that reach beyond 64 pixels.
    """
    scene = Scene(torch.zeros(3, 96, 96), "box", boxes=torch.tensor([[20.0, 20, 44, 44]]), labels=torch.tensor([1]))
    source = source_of(build("fcos", min_size=96, max_size=96))
    emission = source.emit(scene)
    pairs = source.supervise(emission, scene)
    assert emission.centres[pairs.cell].tolist() == [[x, y] for y in (24, 32, 40) for x in (24, 32, 40)]
    assert pairs.object.tolist() == [0] * 9


def test_proposals_take_truth_of_any_class(build, scene_of):
    source, scene = source_of(build("rpn")), scene_of(classes=3)
    emission = source.emit(scene)
    assert source.classes == ("object",)
    assert set(source.supervise(emission, replace(scene, labels=scene.labels + 7)).object.tolist()) == {0, 1, 2, 3}
    alike = objects_only(replace(scene, exhaustive=torch.tensor([True, False, True])))
    assert alike.labels.tolist() == [0, 0, 0, 0]
    assert alike.exhaustive.tolist() == [False]
    assert objects_only(replace(scene, exhaustive=torch.ones(3).bool())).exhaustive.tolist() == [True]


@pytest.mark.parametrize("kind", KINDS)
def test_no_object_no_pair(kind, build):
    scene = Scene(torch.zeros(3, 96, 96), "empty", boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    source = source_of(build(kind))
    assert len(source.supervise(source.emit(scene), scene).cell) == 0


def test_images_of_other_sizes_in_between_do_not_matter(build, scene_of):
    source, one, two = source_of(build("fcos")), scene_of(90, 130), scene_of(150, 70)
    first = source.emit(one)
    want = source.supervise(first, one)
    source.emit(two)
    assert torch.equal(source.supervise(first, one).cell, want.cell)


# ---------------------------------------------------------------- labels


def test_with_one_output_more_the_first_is_an_unused_background(tiny_pyramid, rescaled, scene_of, same_detections):
    points = anchors((8,), (16,), (32,), ratios=(1.0,))
    model = rescaled(FCOS(tiny_pyramid(), 4, min_size=96, max_size=160, anchor_generator=points)).eval()
    model.head.classification_head.cls_logits.bias.data[0] = -40.0  # as a training leaves it
    source, scene = torchvision_source(model, CLASSES), scene_of()
    assert source.labels == [1, 2, 3]
    with torch.no_grad():
        own = model([scene.image / 255])[0]
    same_detections(replay(source.emit(scene), source.decoding), own["boxes"], own["scores"], own["labels"] - 1)


def test_labels_may_be_named(build, scene_of):
    model, scene = build("retinanet"), scene_of()
    whole = torchvision_source(model, CLASSES).emit(scene)
    part = torchvision_source(model, ("dock", "boat"), labels=[2, 0]).emit(scene)
    assert torch.equal(part.scores, whole.scores[[2, 0]])


@pytest.mark.parametrize(
    ("kind", "classes", "labels", "message"),
    [
        ("fcos", ("a", "b", "c", "d"), None, r"FCOS knows labels 0..2 and 4 classes are named: give labels="),
        ("ssd", ("a", "b", "c", "d"), None, r"SSD knows labels 1..3 and 4 classes are named"),
        ("ssd", ("a", "b"), [0, 1], r"SSD knows labels 1..3, got labels=\[0, 1\]"),
        ("retinanet", ("a", "b"), [0, 3], r"RetinaNet knows labels 0..2, got labels=\[0, 3\]"),
        ("retinanet", ("a", "b"), [1, 1], r"labels must be 2 different numbers, one a class, got \[1, 1\]"),
        ("retinanet", ("a", "b"), [1], r"labels must be 2 different numbers"),
        ("fcos", (), None, r"FCOS: classes is empty"),
        ("rpn", ("a", "b"), None, r"RPN of a Faster R-CNN knows labels 0..0 and 2 classes are named"),
    ],
)
def test_labels_that_do_not_fit_are_refused(kind, classes, labels, message, build):
    with pytest.raises(UserError, match=message):
        torchvision_source(build(kind), classes, labels)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_the_model_is_shown_another_picture(kind, build, scene_of):
    source, scene = source_of(build(kind)), scene_of()
    before = source.emit(scene)
    exchanged = source.through(lambda image: image.flip(0)).emit(scene)
    assert torch.equal(exchanged.scores, source.emit(replace(scene, image=scene.image.flip(0))).scores)
    assert not torch.equal(exchanged.scores, before.scores)
    assert torch.equal(source.emit(scene).scores, before.scores)  # the source itself sees what it saw
    darker = source.through(lambda image: image / 255).emit(scene)
    model = build(kind)
    model.transform.image_mean = [255 * m for m in model.transform.image_mean]
    model.transform.image_std = [255 * s for s in model.transform.image_std]
    torch.testing.assert_close(darker.scores, source_of(model).emit(scene).scores)


# ---------------------------------------------------------------- the model stays, wrong inputs are refused


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_model_stays_as_it_was(kind, training, build, scene_of, left_alone):
    model, scene = build(kind).train(training), scene_of()
    model.backbone.down[0].eval()  # a part that its owner froze
    reference = torchvision_source(build(kind), () if kind == "rpn" else CLASSES).emit(scene)
    with left_alone(model):
        source = source_of(model)
        emission = source.emit(scene)
        source.supervise(emission, scene)
    assert torch.equal(emission.scores, reference.scores)  # in inference mode, whatever the mode was
    assert not emission.scores.requires_grad


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(1, 9, 9), r"gray: a detector of RGB images, got an image \[1, 9, 9\]"),
        (torch.zeros(4, 9, 9), r"got an image \[4, 9, 9\]"),
        (torch.zeros(3, 0, 9), r"got an image \[3, 0, 9\]"),
        (torch.full((3, 9, 9), 0.5), r"gray: pixels lie in 0..1; Scene.image holds raw values, 0..255"),
        (torch.tensor([0.5, 1.0]).expand(3, 9, 2), r"pixels lie in 0..1"),
        (torch.full((3, 9, 9), -1.0), r"pixels must lie in 0..255, got -1..-1"),
        (torch.full((3, 9, 9), 4095.0), r"pixels must lie in 0..255, got 4095..4095"),
        (torch.full((3, 9, 9), torch.nan), r"pixels must lie in 0..255"),
    ],
)
def test_an_image_that_is_not_rgb_is_refused(image, message, build):
    with pytest.raises(ValueError, match=message):
        source_of(build("fcos")).emit(Scene(image, "gray"))


def test_black_and_nearly_black_images_are_images(build):
    source = source_of(build("fcos"))
    for value in (0.0, 1.0):
        assert source.emit(Scene(torch.full((3, 64, 64), value), "dark")).cells > 0


def test_truth_that_cannot_be_trained_on_is_refused(build, scene_of):
    source, scene = source_of(build("fcos")), scene_of()
    emission = source.emit(scene)
    with pytest.raises(ValueError, match=r"scene 0 .*has a label outside 0..2"):
        source.supervise(emission, replace(scene, labels=scene.labels + 3))
    with pytest.raises(ValueError, match=r"scene 0 has no box truth"):
        source.supervise(emission, replace(scene, boxes=None))
    with pytest.raises(ValueError, match=r"has no area"):
        source.supervise(emission, replace(scene, boxes=scene.boxes[:, [0, 1, 0, 3]]))


def test_the_emission_of_another_image_or_model_is_refused(build, scene_of):
    source, scene = source_of(build("fcos")), scene_of()
    emission = source.emit(scene)
    with pytest.raises(ValueError, match=r"scene 1 is \(64, 64\) px \(height, width\), the emission is of \(90, 130\)"):
        source.supervise(emission, scene_of(64, 64, 1))
    with pytest.raises(ValueError, match=r"scene 0: 315 cells, but RetinaNet has 1890"):
        source_of(build("retinanet")).supervise(emission, scene)


def test_a_matcher_that_cannot_be_asked_is_missing(build, scene_of):
    class Another(FCOS):
        def compute_loss(self, targets, head_outputs, anchors, num_anchors_per_level):
            return {"classification": anchors[0].sum()}

    scene, fcos, retinanet = scene_of(), build("fcos"), build("retinanet")
    fcos.__class__ = Another
    del retinanet.proposal_matcher
    for model, reason in ((fcos, "Another.compute_loss does not hand"), (retinanet, "no `proposal_matcher`")):
        source = source_of(model)
        found = source.supervise(source.emit(scene), scene)
        assert isinstance(found, Missing)
        assert reason in found.reason


def test_another_model_is_refused():
    with pytest.raises(UserError, match=r"Linear is no FCOS, .*docs/diagnose-any-detector.md"):
        torchvision_source(torch.nn.Linear(1, 1), CLASSES)
