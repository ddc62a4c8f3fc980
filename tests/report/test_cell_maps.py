"""Maps of cells on a page: as the detector emits them and is trained to, for the classes that an image is about."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from boresight.report import cell_maps as module
from boresight.report.cell_maps import CLASSES, cell_maps
from boresight.report.image_set import ImageSet, Mark
from boresight.report.live import live_table
from boresight.report.reading import read_run
from boresight.run.boxes import box_splits
from boresight.run.config import DataSettings, PointSettings
from boresight.run.config_text import BoxDataSettings, TextSettings
from boresight.run.frames import point_splits
from boresight.run.parse import nested
from boresight.run.point import point_detector
from boresight.run.predict import Trained
from boresight.run.record import RunFolder, write_yaml
from boresight.run.text import text_detector

NO_TABLE = live_table(np.zeros(0), np.zeros(0, np.int64), {}, {}, 0.5)


def cells(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2]))).convert("L"))


def image_set(root, settings, kind, classes, frames, marks) -> ImageSet:
    run = RunFolder(root / "run")
    write_yaml(run.config, nested(settings))
    read = read_run(run, "run", 0)
    return ImageSet(read, "test", kind, 0.5, classes, frames, list(frames.names), NO_TABLE, marks, {})


@pytest.fixture
def points(tmp_path, monkeypatch) -> ImageSet:
    settings = PointSettings(data=DataSettings(preset="white", height=96, width=128, test_frames=3))
    detector = point_detector(settings, 1).eval()
    detector.progress = 1.0
    monkeypatch.setattr(module, "load_trained", lambda run: Trained(detector, settings, None))
    frames = point_splits(settings.data, only="test").test
    return image_set(tmp_path, settings, "points", ("target",), frames, {})


def test_points_have_a_score_map_and_their_soft_label(points):
    made, note = cell_maps(points, points.names, room=1_000_000, seconds=60)
    assert note == ""
    assert sorted(made) == sorted(points.names)
    for i, name in enumerate(points.names):
        maps, truth = made[name], points.frames[i].points
        assert list(maps.by_class) == [0]
        shape = (int(96 / maps.stride), int(128 / maps.stride))
        assert cells(maps.by_class[0][0]).shape == cells(maps.target).shape == shape
        loud = cells(maps.target)[tuple((truth.xy.flip(1) / maps.stride).long().T.numpy())]
        assert (loud > 100).all()


def test_what_has_no_room_is_told(points):
    made, note = cell_maps(points, points.names, room=1, seconds=60)
    assert made == {}
    assert "of only 0 images" in note
    assert "would make the page large" in note
    made, note = cell_maps(points, points.names, room=1_000_000, seconds=1e-6)
    assert len(made) == 1
    assert "--map-seconds" in note
    assert cell_maps(points, points.names, room=1_000_000, seconds=0) == ({}, "")


def test_class_maps_are_those_of_the_objects_and_the_surest_detections(tmp_path, monkeypatch):
    data = BoxDataSettings(test_frames=2, height=128, width=128, kinds=("ship", "vehicle"), colours=("red", "blue"))
    settings = TextSettings(data=data)
    splits = box_splits(data, "test")
    classes = splits.classes + splits.novel
    detector = text_detector(settings, splits.classes).eval()
    monkeypatch.setattr(module, "load_trained", lambda run: Trained(detector, settings, None))
    name = splits.test.names[0]
    marks = {name: [Mark((0, 0, 9, 9), score, label, "false_alarm", 0.0, -1) for score, label in ((0.2, 1), (0.9, 2))]}
    shown = image_set(tmp_path, settings, "boxes", classes, splits.test, marks)
    made, note = cell_maps(shown, [name], room=1_000_000, seconds=60)
    assert note == ""
    own = dict.fromkeys([*splits.test[0].labels.tolist(), 2, 1])
    assert list(made[name].by_class) == list(own)[:CLASSES]
    picture, low, high = made[name].by_class[2]
    with torch.inference_mode():
        cam = detector([splits.test[0]]).cam[0, 2].numpy()
    assert cells(picture).shape == cam.shape
    assert (low, high) == (round(float(cam.min()), 3), round(float(cam.max()), 3))
    shades = cells(picture) / 255 * (high - low) + low
    assert np.abs(shades - cam).max() <= (high - low) / 30 + 1e-3


def test_a_detector_that_cannot_be_loaded_is_named(tmp_path):
    shown = image_set(tmp_path, PointSettings(), "points", ("target",), point_splits(
        DataSettings(preset="white", height=96, width=128, test_frames=1), only="test").test, {})  # fmt: skip
    made, note = cell_maps(shown, shown.names, room=1_000_000, seconds=60)
    assert made == {}
    assert "no class maps and targets, since its detector cannot be loaded" in note
    assert "last.safetensors" in note
