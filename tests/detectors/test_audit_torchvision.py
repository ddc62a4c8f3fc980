"""``experiments/audit_torchvision.py``: it runs whole on made images, and each mistake is the one that users make."""

from __future__ import annotations

import json
import pickle
import sys
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models.detection import fcos_resnet50_fpn

from boresight.data.boxes import open_boxes
from boresight.decode.replay import replay
from boresight.detectors.foreign_torchvision import torchvision_source
from boresight.diagnose.plant import FAULTS

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))

import audit_torchvision as script
from torchvision_fcos.judging import REPAIRS, Job, Judge, Recorded
from torchvision_fcos.made import write_made
from torchvision_fcos.misuse import MISUSES
from torchvision_fcos.training import Labelled, Plan, build, kept, losses_of, rate

CLASSES = ("red", "green", "blue")
PLAN = Plan("coloured", "resnet18", steps=2, batch=2, size=64)
BY_NAME = {mistake.name: mistake for mistake in MISUSES}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Coloured rectangles on noise, the last image of each split without one, as COCO."""
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("data")
    (root / "coloured" / "images").mkdir(parents=True)
    for split, count in {"train": 5, "test": 4}.items():
        images, boxes = [], []
        for i in range(count):
            pixels, name = rng.integers(90, 140, (60, 80, 3)).astype(np.uint8), f"{split}{i}.png"
            for k in range(3 if i < count - 1 else 0):
                x, y, w, h = (int(n) for n in (*rng.integers(0, 30, 2), *rng.integers(14, 30, 2)))
                pixels[y : y + h, x : x + w, k] = 250
                boxes.append({"id": len(boxes) + 1, "image_id": i + 1, "category_id": k + 1, "bbox": [x, y, w, h]})
                boxes[-1] |= {"area": w * h, "iscrowd": 0}
            Image.fromarray(pixels).save(root / "coloured" / "images" / name)
            images.append({"id": i + 1, "file_name": name, "width": 80, "height": 60})
        names = [{"id": k + 1, "name": name} for k, name in enumerate(CLASSES)]
        table = {"images": images, "annotations": boxes, "categories": names}
        (root / "coloured" / f"{split}.json").write_text(json.dumps(table))
    return root


@pytest.fixture(scope="module")
def model(rescaled):
    """Its output varies from cell to cell, and so does the statistics of what it normalises."""
    model = rescaled(build(3, PLAN, score_thresh=0.0), gain=0.5).eval()
    for name, value in model.named_buffers():
        if name.endswith("running_mean"):
            value.fill_(0.1)
    return model


def detections(model, image):
    with torch.no_grad():
        return model([image])[0]


def same(one, two):
    assert len(one["scores"]) == len(two["scores"]) > 10
    for key, value in one.items():
        torch.testing.assert_close(value, two[key], rtol=1e-3, atol=1e-3)


# ---------------------------------------------------------------- the whole of it


def test_it_trains_audits_plants_and_says_so(made, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BORESIGHT_DATA", str(made))
    plan = ["--backbone", "resnet18", "--steps", "2", "--batch", "2", "--size", "64", "--device", "cpu"]
    assert script.main(["coloured", *plan, "--replicates", "20", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    for words in ("step 2 of 2", "AP50", "supervised", "regret", "displacement", "MISSING places", "| fault |"):
        assert words in said
    told = json.loads((tmp_path / "fcos.json").read_text())
    assert (told["schema_version"], told["diagnosis_schema"]) == (1, 1)
    assert (told["images"], told["counts"]["objects"]) == (4, 9)
    faults = json.loads((tmp_path / "faults.json").read_text())["faults"]
    assert [f["name"] for f in faults][len(FAULTS) :] == [mistake.name for mistake in MISUSES]
    assert all(f["expected"] and f["verdict"] and set(REPAIRS) <= f["gains"].keys() for f in faults)
    detr = json.loads((tmp_path / "detr.json").read_text())
    assert set(detr["missing"]) == {"places", "control", "inside_cells"}
    assert detr["assigner_looks_at_predictions"]

    file, fresh = tmp_path / "fcos.safetensors", build(3, PLAN)
    assert kept(file, fresh, replace(PLAN, seed=1)) is None
    assert kept(file, fresh, PLAN)["steps"] == 2  # the same command again only audits
    assert float(fresh.backbone.body.bn1.running_mean.abs().sum()) > 0


def test_made_images_are_the_same_for_a_seed(tmp_path):
    one, two = (open_boxes(write_made(tmp_path / name, {"train": 6}), "train") for name in ("a", "b"))
    assert one.classes == CLASSES
    for i in range(6):
        assert torch.equal(one[i].image, two[i].image)
        assert 1 <= len(one[i].boxes) <= 4
        for box, label in zip(one[i].boxes.long().tolist(), one[i].labels.tolist(), strict=True):
            inside = one[i].image[:, box[1] : box[3], box[0] : box[2]].float().mean((1, 2))
            assert int(inside.argmax()) == label
            assert float(inside.max()) > 190


def test_it_is_the_model_that_torchvision_builds():
    with torch.device("meta"):
        theirs = fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3)
        ours = build(3, Plan("made"))
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    assert [type(m) for m in ours.modules()] == [type(m) for m in theirs.modules()]
    assert all(p.requires_grad for p in ours.parameters())


# ---------------------------------------------------------------- the training


def test_the_losses_are_the_models_own(model, scene_of):
    labelled = [Labelled.of(scene_of(60, 80, seed), torch.device("cpu")) for seed in (0, 1)]
    images = [one.image.float() / 255 for one in labelled]
    targets = [{"boxes": one.boxes, "labels": one.labels} for one in labelled]
    training = deepcopy(model).train()
    with torch.no_grad():
        ours = losses_of(training, images, targets, None)
        theirs = training(images, targets)
    assert {k: float(v) for k, v in ours.items()} == {k: float(v) for k, v in theirs.items()}


def test_a_mirrored_view_shows_the_same_objects(scene_of):
    """Every object is painted with its label: it must be found under its box, whatever was mirrored."""
    scene = scene_of(60, 80, 0)
    image = torch.zeros(3, 60, 80)
    x0, y0, x1, y1 = boxes = scene.boxes[:1].round()[0].long().tolist()
    image[:, y0:y1, x0:x1] = 200
    labelled = Labelled(image.byte(), torch.tensor([boxes]).float(), torch.tensor([2]))
    seen = set()
    for seed in range(12):
        pixels, target = labelled.view(torch.Generator().manual_seed(seed))
        x0, y0, x1, y1 = target["boxes"][0].long().tolist()
        assert pixels[:, y0:y1, x0:x1].min() > 0.5
        assert int((pixels[0] > 0).sum()) == (y1 - y0) * (x1 - x0)
        seen.add((x0, y0))
    assert len(seen) == 4


def test_the_learning_rate_rises_and_falls():
    shares = [rate(k / 100) for k in range(101)]
    assert 0 < shares[0] < 0.05
    assert max(shares) == pytest.approx(1.0)
    assert shares[-1] == pytest.approx(0.0, abs=1e-9)
    assert all(a >= b for a, b in pairwise(shares[6:]))


# ---------------------------------------------------------------- each mistake is the one that users make


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("normalised twice", lambda image, m, s: (image - m) / s),
        ("0..255", lambda image, m, s: image * 255),
        ("BGR", lambda image, m, s: image.flip(0)),
    ],
)
def test_what_goes_in(name, given, model, scene_of):
    image = scene_of(60, 80).image / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (model.transform.image_mean, model.transform.image_std))
    wanted = detections(model, given(image, mean, std))
    same(detections(BY_NAME[name].on(model), image), wanted)
    assert not torch.allclose(wanted["scores"], detections(model, image)["scores"], atol=1e-3)


def test_in_train_mode_it_takes_the_statistics_of_the_image(model, scene_of):
    image = scene_of(60, 80).image / 255
    wrong, wanted = BY_NAME["train mode"].on(model), deepcopy(model)
    for part in wanted.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.train()
    same(detections(wrong, image), detections(wanted, image))
    assert torch.equal(model.backbone.body.bn1.running_mean, torch.full((64,), 0.1))  # the model itself stays


def test_heads(model, scene_of):
    scene = scene_of(60, 80)

    def emitted(name):
        return torchvision_source(BY_NAME[name].on(model), CLASSES).emit(scene)

    right = torchvision_source(model, CLASSES).emit(scene)
    torch.testing.assert_close(emitted("labels").scores, right.scores.roll(1, 0))
    half = right.centres.repeat(1, 2) + (right.boxes[0] - right.centres.repeat(1, 2)) / 2
    torch.testing.assert_close(emitted("half distances").boxes[0], half, rtol=1e-4, atol=1e-3)
    alone, drawn = emitted("no centerness").scores, emitted("any centerness").scores
    assert bool((alone >= right.scores - 1e-6).all())
    assert float((drawn / alone).std()) > 0.05


def test_boxes_that_stay_in_pixels_of_the_resized_image(model, scene_of):
    """60 x 80 is shown at 64 x 85."""
    mistake, scene = BY_NAME["resized boxes"], scene_of(60, 80)
    right = torchvision_source(model, CLASSES).emit(scene)
    torch.testing.assert_close(mistake.emission(model, right).boxes, right.boxes * 64 / 60)


def test_what_selects_is_followed(model, scene_of):
    scene = scene_of(60, 80)
    emission = torchvision_source(model, CLASSES).emit(scene)
    for name in ("score_thresh 0.2", "nms_thresh 0.99", "nms_thresh 0.1", "3 detections"):
        wrong = BY_NAME[name].on(model)
        found = replay(emission, torchvision_source(wrong, CLASSES).decoding)
        own = detections(wrong, scene.image / 255)
        assert len(found) == len(own["scores"])
        torch.testing.assert_close(found.scores, own["scores"], rtol=0, atol=1e-5)


def test_a_recording_can_be_sent(model, scene_of):
    scenes = [scene_of(60, 80, seed) for seed in (0, 1)]
    scenes = [replace(s, image_id=i + 1) for i, s in enumerate(scenes)]
    recorded = Recorded.of(torchvision_source(model, CLASSES), scenes)
    judge, job = (
        Judge([s.without_pixels() for s in scenes], replicates=5),
        Job("box", "planted", "", "box", recorded, "box"),
    )
    sent = pickle.dumps((judge, job))
    assert len(sent) < 1_000_000  # without pixels
    again = pickle.loads(sent)
    assert again[0](again[1]) == judge(job)
