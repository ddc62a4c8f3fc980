"""Ultralytics is the oracle: the replayed raw output is its own ``predict``, the pairs are those its own loss makes.

``test_foreign_yolo.py`` runs these in a process of their own: importing Ultralytics changes how PIL opens files.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from boresight.core.emission import Missing
from boresight.core.errors import UserError
from boresight.core.types import Scene
from boresight.decode.replay import replay, select
from boresight.detectors.foreign import adapt
from boresight.detectors.foreign_yolo import Letterbox, yolo_source

SIZES = [(90, 130), (150, 70), (201, 333)]
CONF, SIDE = 0.3, 160


@pytest.fixture(scope="module")
def yolo():
    """A wrapper of a network for three classes, whose random weights say different things at different cells."""
    from ultralytics import YOLO
    from ultralytics.nn.tasks import DetectionModel, yaml_model_load
    from ultralytics.utils import DEFAULT_CFG

    wrapper = YOLO("yolo11n.yaml", verbose=False)

    def build(name="yolo11n", scene=None, seed=0, end2end=False):
        torch.manual_seed(seed)
        layout = yaml_model_load(f"{name}.yaml")
        layout["scales"] = {"n": [0.3, 0.125, 256]}  # depth, width, most channels: a quarter of the smallest
        wrapper.model = net = DetectionModel(layout, nc=3, verbose=False)
        wrapper.predictor = None
        net.args = DEFAULT_CFG
        if scene is not None:
            enliven(net, yolo_source(wrapper, size=SIDE)._letterboxed(scene))
        if end2end:
            net.end2end = True
        return wrapper

    return build


@torch.no_grad()
def enliven(net, picture):
    """Normalise by this picture, then spread what the last layers say: an untrained network says one thing all over."""
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = 1.0
    net.train()(picture.repeat(2, 1, 1, 1))
    head, spread = net.model[-1], {}
    last = [s[-1] for n in ("cv2", "cv3", "one2one_cv2", "one2one_cv3") for s in getattr(head, n, ())]
    hooks = [c.register_forward_hook(lambda m, _, out: spread.update({m: float(out.std())})) for c in last]
    net.eval()(picture)
    for hook in hooks:
        hook.remove()
    direct = head.reg_max == 1
    for conv in last:
        box = conv.out_channels == 4 * head.reg_max
        conv.weight *= (0.5 if box and direct else 1.5) / spread[conv]
        conv.bias.fill_((2.0 if direct else 0.0) if box else -1.0)


def picture_of(scene):
    """As files are read: height, width, BGR."""
    return scene.image.permute(1, 2, 0).flip(-1).contiguous().numpy()


# ---------------------------------------------------------------- what is emitted


@pytest.mark.parametrize(
    ("name", "end2end", "size"),
    [
        *[(name, False, size) for name in ("yolo11n", "yolov8n") for size in SIZES],
        ("yolo26n", False, SIZES[0]),
        ("yolo26n", True, SIZES[0]),
        ("yolov10n", True, SIZES[1]),
    ],
)
def test_the_replayed_output_is_its_own_predict(name, end2end, size, yolo, scene_of, same_detections, monkeypatch):
    """Without fused layers and another memory layout, which move what it says in the fourth digit."""
    scene = scene_of(*size)
    model = yolo(name, scene, end2end=end2end)
    source = adapt(model, size=SIDE, conf=CONF, max_det=60)
    emission = source.emit(scene)
    monkeypatch.setattr(type(model.model), "fuse", lambda net, **_: net)
    how = {"imgsz": SIDE, "conf": CONF, "iou": 0.7, "max_det": 60, "device": "cpu", "verbose": False}
    if hasattr(model.model.args, "channels_last"):
        how["channels_last"] = False
    if end2end:
        how["nms"] = False
    found = model.predict(picture_of(scene), **how)[0].boxes
    selected = select(emission, source.decoding)
    assert int((~selected.kept).sum()) > 30  # else the replay had nothing to do
    same_detections(selected.found(), found.xyxy, found.conf, found.cls.long(), least=40)


def test_the_model_is_shown_another_picture(yolo, scene_of):
    scene = scene_of(*SIZES[0])
    source = adapt(yolo("yolo11n", scene), size=SIDE, conf=CONF)
    before = source.emit(scene).scores
    exchanged = source.through(lambda image: image.flip(0)).emit(scene).scores
    assert torch.equal(exchanged, source.emit(replace(scene, image=scene.image.flip(0))).scores)
    assert not torch.equal(exchanged, before)
    seen = source.through(lambda image: image / 255)._letterboxed(scene)
    assert torch.allclose(seen, source._letterboxed(scene) / 255)
    assert torch.equal(source.emit(scene).scores, before)


@pytest.mark.parametrize(
    "how", [{"multi_label": True}, {"agnostic": True}, {"iou": 0.3, "conf": 0.001, "multi_label": True, "rect": False}]
)
def test_settings_are_followed(how, yolo, scene_of, same_detections):
    from ultralytics.utils.nms import non_max_suppression
    from ultralytics.utils.ops import scale_boxes

    scene, model = scene_of(), yolo("yolov8n")
    how = {"conf": CONF, "iou": 0.7, **how}
    source = yolo_source(model, size=SIDE, **how)
    picture = source._letterboxed(scene)
    enliven(model.model, picture)
    assert picture.shape[-2:] == ((128, 160) if how.pop("rect", True) else (160, 160))
    with torch.no_grad():
        (own,) = non_max_suppression(model.model(picture)[0], how.pop("conf"), how.pop("iou"), **how, nc=3)
    boxes = scale_boxes(picture.shape[2:], own[:, :4].clone(), scene.size)
    found = replay(source.emit(scene), source.decoding)
    same_detections(found, boxes, own[:, 4], own[:, 5].long(), least=20)


@torch.no_grad()
def test_boxes_turned_inside_out_are_returned_as_they_are(yolo, scene_of, same_detections):
    """YOLO26 says distances to the edges outright, and they can be negative."""
    from ultralytics.utils.ops import scale_boxes

    scene = scene_of()
    model = yolo("yolo26n", scene, end2end=True)
    for layers in model.model.model[-1].one2one_cv2:
        layers[-1].bias.fill_(0.0)
    source = yolo_source(model, size=SIDE, conf=CONF)
    picture = source._letterboxed(scene)
    own = model.model.eval()(picture)[0][0]
    own = own[own[:, 4] > CONF]
    assert int((own[:, 2] < own[:, 0]).sum()) > 20
    boxes = scale_boxes(picture.shape[2:], own[:, :4].clone(), scene.size)
    same_detections(replay(source.emit(scene), source.decoding), boxes, own[:, 4], own[:, 5].long())


def test_where_cells_lie(yolo):
    """64 x 128 at half its size: stride 8 is 16 here, with half pixels; a square picture has 16 rows above it."""
    scene, model = Scene(torch.zeros(3, 64, 128), "black"), yolo()
    emission = yolo_source(model, size=64).emit(scene)
    assert emission.level.bincount().tolist() == [32, 8, 2]
    assert emission.strides[[0, 32, 40]].tolist() == [16, 32, 64]
    assert emission.centres[[0, 1, 8, 32]].tolist() == [[8, 8], [24, 8], [8, 24], [16, 16]]
    emission = yolo_source(model, size=64, rect=False).emit(scene)
    assert emission.level.bincount().tolist() == [64, 16, 4]
    assert emission.centres[[0, 16]].tolist() == [[8, -24], [8, 8]]


def test_a_letterbox_on_paper():
    """100 x 33 with a longer side of 64: 33 * 0.64 = 21.12 becomes 21, and 11 of 32 are left, 5 on the left."""
    box = Letterbox.of((100, 33), 64, (64, 32))
    assert box.gain == (21 / 33, 0.64)
    assert box.pad == (5, 0)


# ---------------------------------------------------------------- what was trained


@pytest.mark.parametrize(
    ("name", "end2end", "most"), [("yolo11n", False, 10), ("yolov8n", False, 10), ("yolo26n", True, 1)]
)
def test_pairs_are_those_of_its_own_loss(name, end2end, most, yolo, scene_of):
    """The loss gets the letterboxed picture and boxes as shares of it, as its data loader would give them."""
    scene = replace(scene_of(90, 130, 3), ignore=torch.tensor([False, True, False, False]))
    model = yolo(name, scene, end2end=end2end)
    source = yolo_source(model, size=SIDE)
    pairs = source.supervise(source.emit(scene), scene)

    loss, heard = model.model.init_criterion(), []
    assigner = (loss.one2one if end2end else loss).assigner
    assigner.register_forward_hook(lambda m, given, out: heard.append(out))
    picture, keep = source._letterboxed(scene), ~scene.ignore
    gain, pad = Letterbox.of(scene.size, SIDE, picture.shape[-2:]).frames(scene.boxes)
    boxes = (scene.boxes[keep] * gain + pad) / torch.tensor([160, 128, 160, 128])
    middle, side = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    batch = {"batch_idx": torch.zeros(3), "cls": scene.labels[keep], "bboxes": torch.cat((middle, side), 1)}
    with torch.no_grad():
        loss(model.model(picture), batch)
    *_, chosen, which = (v[0] for v in heard[0])

    assert pairs.cell.tolist() == chosen.nonzero()[:, 0].tolist()
    assert pairs.object.tolist() == torch.tensor([0, 2, 3])[which[chosen]].tolist()
    assert set(pairs.object.tolist()) == {0, 2, 3}
    assert 1 <= max(pairs.object.bincount().tolist()) <= most
    assert pairs.by_prediction
    assert bool(pairs.positive.all())


def test_no_object_no_pair(yolo):
    scene = Scene(torch.zeros(3, 64, 64), "empty", boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    source = yolo_source(yolo(), size=64)
    assert len(source.supervise(source.emit(scene), scene).cell) == 0


def test_a_loss_that_cannot_be_asked_is_missing(yolo, scene_of):
    model, scene = yolo(), scene_of()
    source = yolo_source(model, size=64)
    emission = source.emit(scene)
    model.model.init_criterion = lambda: SimpleNamespace()
    assert source.supervise(emission, scene) == Missing("SimpleNamespace has no `assigner`")
    del model.model.init_criterion, model.model.args
    found = source.supervise(emission, scene)
    assert isinstance(found, Missing)
    assert "DetectionModel cannot make its loss" in found.reason
    assert "'args'" in found.reason


# ---------------------------------------------------------------- classes, and what is refused


def test_names_come_from_the_model_or_from_the_user(yolo, scene_of):
    model, scene = yolo(), scene_of()
    model.model.names = {0: "boat", 1: "car", 2: "dock"}
    whole = adapt(model, size=64)
    assert whole.classes == ("boat", "car", "dock")
    part = adapt(model, ["pier", "ship"], [2, 0], size=64)
    assert part.classes == ("pier", "ship")
    assert torch.equal(part.emit(scene).scores, whole.emit(scene).scores[[2, 0]])
    assert adapt(model.model, size=64).classes == whole.classes  # the network without its wrapper
    with pytest.raises(UserError, match=r"this YOLO knows labels 0..2 and 2 classes are named"):
        adapt(model, ["pier", "ship"])


@pytest.mark.parametrize("training", [True, False])
def test_the_model_stays_as_it_was(training, yolo, scene_of, left_alone):
    scene = scene_of()
    model = yolo("yolo11n", scene)
    want = yolo_source(model, size=SIDE).emit(scene).scores
    model.model.train(training)
    model.model.model[0].train(not training)
    with left_alone(model.model):
        source = adapt(model, size=SIDE)
        emission = source.emit(scene)
        source.supervise(emission, scene)
    assert torch.equal(emission.scores, want)
    assert not emission.boxes.requires_grad


def test_what_does_not_fit_is_refused(yolo, scene_of):
    from ultralytics.nn.tasks import SegmentationModel

    source, scene = yolo_source(yolo(), size=64), scene_of()
    with pytest.raises(ValueError, match=r"scene 0: a detector of RGB images, got an image \[1, 90, 130\]"):
        source.emit(replace(scene, image=scene.image[:1]))
    with pytest.raises(ValueError, match=r"has a label outside 0..2"):
        source.supervise(source.emit(scene), replace(scene, labels=scene.labels + 3))
    with pytest.raises(
        UserError, match=r"Segment is no head of Ultralytics that detects alone, Detect or v10Detect: give"
    ):
        adapt(SegmentationModel("yolo11n-seg.yaml", nc=3, verbose=False))
    for size in (0, 100):
        with pytest.raises(UserError, match=rf"size={size}: give a multiple of 32 pixels"):
            adapt(yolo(), size=size)


def test_without_the_library_the_remedy_is_named(yolo, monkeypatch):
    model = yolo()
    monkeypatch.setitem(sys.modules, "ultralytics.data.augment", None)
    with pytest.raises(UserError, match=r"Ultralytics is not installed here: `pip install ultralytics`"):
        yolo_source(model)
