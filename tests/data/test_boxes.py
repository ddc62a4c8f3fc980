"""Which reader opens a folder; the protocol of sources; the real data sets."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch

from boresight.core.errors import UserError
from boresight.data.box_frames import Box, BoxFrame, BoxFrames
from boresight.data.boxes import open_boxes
from boresight.data.frames import AuditedSource, Subset


def test_what_is_no_data_set_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such data set"):
        open_boxes(tmp_path / "nothing", "train")
    with pytest.raises(UserError, match="not a data set of boxes: looked for"):
        open_boxes(tmp_path, "train")
    with pytest.raises(UserError, match=r"kind `coc` of data set: did you mean `coco`\?"):
        open_boxes(tmp_path, "train", kind="coc")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"no COCO \*\.json"):
        open_boxes(tmp_path, "train", kind="coco")
    with pytest.raises(UserError, match=r"no data\.yaml"):
        open_boxes(tmp_path, "train", kind="yolo")
    with pytest.raises(UserError, match="no folder Annotations"):
        open_boxes(tmp_path, "train", kind="voc")


def test_a_split_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    empty = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "x"}]}
    for split in ("train", "test"):
        (tmp_path / f"{split}.json").write_text(json.dumps(empty))
    with pytest.raises(UserError, match=r"no split `tset`: did you mean `test`\?: there are test, train"):
        open_boxes(tmp_path, "tset")
    with pytest.raises(UserError, match="which split is meant"):
        open_boxes(tmp_path)
    with pytest.raises(UserError, match="lists no images"):
        open_boxes(tmp_path, "train")
    assert [p.kind for p in open_boxes(tmp_path, "train", audit=True).listing] == ["empty_split"]


def test_names_are_unique() -> None:
    frame = BoxFrame("a", Path("a.png"), 1, (Box((0, 0, 1, 1), 0),), "x")
    with pytest.raises(ValueError, match="`a` is not"):
        BoxFrames((frame, frame), ("car",))
    with pytest.raises(ValueError, match="`car` is not"):
        BoxFrames((frame,), ("car", "car"))


@pytest.mark.parametrize(
    ("name", "split", "images", "boxes", "crowd"),
    [
        ("aerial-maritime", "train", 371, 1237, 0),
        ("aerial-maritime", "test", 137, 363, 0),
        ("airbus-dev", "train", 550, 5129, 292),
        ("airbus-dev", "test", 150, 1480, 109),
    ],
)
def test_the_real_data(real_data: Path, name: str, split: str, images: int, boxes: int, crowd: int) -> None:
    frames = open_boxes(real_data / name, split)
    assert isinstance(frames, AuditedSource)
    flags = [box.ignore for frame in frames.frames for box in frame.boxes]
    assert (len(frames), flags.count(False), flags.count(True)) == (images, boxes, crowd)
    assert frames.listing == ()
    assert not any(frame.problems for frame in frames.frames)
    assert len(set(frames.groups)) < images
    assert frames.classes == (
        ("boat", "car", "dock", "jetski", "lift") if name == "aerial-maritime" else ("aircraft", "oil-storage-tank")
    )
    part = Subset(frames, range(0, images, images // 3))
    for i in range(len(part)):
        scene, problems = part.inspect(i)
        assert scene is not None
        assert problems == ()
        assert scene.image.shape == ((3, 600, 800) if name == "aerial-maritime" else (3, 640, 640))


def test_each_airbus_tile_is_exhaustive_for_its_own_class(real_data: Path) -> None:
    frames = open_boxes(real_data / "airbus-dev", "test")
    assert {frame.exhaustive for frame in frames.frames} == {(True, False), (False, True)}
    for frame in frames.frames:
        own = ["air", "oil"][frame.exhaustive.index(True)]  # type: ignore[union-attr]
        assert frame.name.startswith(own)
    scene = frames[0]
    assert scene.exhaustive.tolist() == list(frames.frames[0].exhaustive)  # type: ignore[arg-type]


def test_a_source_travels_to_workers(real_data: Path) -> None:
    frames = open_boxes(real_data / "airbus-dev", "test")
    again = pickle.loads(pickle.dumps(frames))
    assert torch.equal(again[3].boxes, frames[3].boxes)
