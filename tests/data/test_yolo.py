"""YOLO folders: shares of the image, polygons, absent label files, the ways in which a split may be named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from boresight.core.errors import UserError
from boresight.data.boxes import open_boxes


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Images a, b, c of 40x20 for training, c without labels; d for validation."""
    for split, names in (("train", "abc"), ("val", "d")):
        (tmp_path / "images" / split).mkdir(parents=True)
        (tmp_path / "labels" / split).mkdir(parents=True)
        for name in names:
            values = np.random.default_rng(ord(name)).integers(0, 255, (20, 40, 3), dtype=np.uint8)
            Image.fromarray(values).save(tmp_path / "images" / split / f"{name}.png")
    (tmp_path / "labels" / "train" / "a.txt").write_text("1 0.5 0.5 0.25 0.5\n\n0 0.1 0.2 0.3 0.2 0.2 0.8 0.15 0.3\n")
    (tmp_path / "labels" / "train" / "b.txt").write_text("")
    (tmp_path / "labels" / "val" / "d.txt").write_text("0 0.5 0.5 1 1\n")
    header(tmp_path, train="images/train", val="images/val", names=["car", "ship"])
    return tmp_path


def header(root: Path, **keys: Any) -> None:
    (root / "data.yaml").write_text(yaml.safe_dump(keys))


def test_shares_become_pixels_and_polygons_boxes(root: Path) -> None:
    frames = open_boxes(root, "train")
    assert frames.names == ("a.png", "b.png", "c.png")
    assert frames.classes == ("car", "ship")
    scene = frames[0]
    torch.testing.assert_close(scene.boxes, torch.tensor([[15.0, 5, 25, 15], [4, 4, 12, 16]]))
    assert scene.labels.tolist() == [1, 0]
    assert scene.ignore.tolist() == [False, False]
    assert [frame.image_id for frame in frames.frames] == [1, 2, 3]


def test_no_label_file_is_an_image_without_objects_and_is_told(root: Path) -> None:
    frames = open_boxes(root, "train")
    assert frames[2].boxes.shape == (0, 4)
    assert frames.inspect(1)[1] == ()
    assert [(p.kind, p.severity) for p in frames.inspect(2)[1]] == [("missing_label", "info")]


FAULTS = {
    "class": ("2 0.5 0.5 0.1 0.1", "class_range", "line 2: class 2 is not in 0..1"),
    "negative class": ("-1 0.5 0.5 0.1 0.1", "class_range", "line 2"),
    "half a class": ("0.5 0.5 0.5 0.1 0.1", "bad_row", "line 2: class 0.5"),
    "columns": ("0 0.5 0.5 0.1", "bad_row", "line 2: 4 columns"),
    "confidence": ("0 0.5 0.5 0.1 0.1 0.9", "bad_row", "line 2: 6 columns"),
    "words": ("0 0.5 x 0.1 0.1", "bad_row", "line 2: `0 0.5 x 0.1 0.1` is not numbers"),
    "pixels": ("0 20 10 5 5", "box_outside", "line 2"),
    "nan": ("0 0.5 nan 0.1 0.1", "degenerate_box", "line 2"),
    "no area": ("0 0.5 0.5 0 0.1", "degenerate_box", "line 2"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_name_file_and_line(root: Path, fault: str) -> None:
    line, kind, detail = FAULTS[fault]
    (root / "labels" / "train" / "a.txt").write_text(f"1 0.5 0.5 0.25 0.5\n{line}\n")
    frames = open_boxes(root, "train")
    scene, problems = frames.inspect(0)
    assert [p.kind for p in problems] == [kind]
    assert detail in problems[0].detail
    assert Path(problems[0].file) == root / "labels" / "train" / "a.txt"
    assert scene is not None
    assert len(scene.boxes) == 1
    with pytest.raises(UserError, match=r"a\.txt"):
        frames[0]


@pytest.mark.parametrize("form", ["folder", "list of folders", "text", "path", "numbered names", "roboflow"])
def test_the_ways_to_name_a_split(root: Path, form: str, tmp_path: Path) -> None:
    names: Any = ["car", "ship"]
    if form == "list of folders":
        header(root, train=["images/train", "images/val"], names=names)
    elif form == "text":
        (root / "list.txt").write_text("./images/train/a.png\nimages/train/b.png\n")
        header(root, train="list.txt", names=names)
    elif form == "path":
        (root / "conf").mkdir()
        (root / "data.yaml").unlink()
        header(root / "conf", path="..", train="images/train", names=names)
    elif form == "numbered names":
        header(root, train="images/train", names={1: "ship", 0: "car"}, nc=2)
    elif form == "roboflow":
        header(root, train="../images/train", names=names)
    frames = open_boxes(root / "conf" / "data.yaml" if form == "path" else root, "train")
    torch.testing.assert_close(frames[0].boxes[0], torch.tensor([15.0, 5, 25, 15]))
    expected = {"list of folders": 4, "text": 2}.get(form, 3)
    assert len(frames) == expected
    assert frames.names[0] == ("train/a.png" if form == "text" else "a.png")
    assert frames.classes == ("car", "ship")


def test_names_shared_by_two_folders_are_told_apart(root: Path) -> None:
    (root / "images" / "val" / "d.png").rename(root / "images" / "val" / "a.png")
    header(root, train=["images/train", "images/val"], names=["car", "ship"])
    assert open_boxes(root, "train").names == ("images/train/a.png", "b.png", "c.png", "images/val/a.png")


def test_valid_is_val(root: Path) -> None:
    assert open_boxes(root, "valid").names == ("d.png",)


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "no names": ({"train": "images/train"}, "`names` must be a list"),
    "nc": ({"train": "images/train", "names": ["a"], "nc": 2}, "`nc` is 2, but `names` has 1"),
    "numbers": ({"train": "images/train", "names": {1: "a", 2: "b"}}, "must number the classes 0 to 1"),
    "twice": ({"train": "images/train", "names": ["a", "a"]}, "two classes are named `a`"),
    "no splits": ({"names": ["a"]}, "none of train, val, test"),
    "path": ({"path": "nowhere", "train": "images/train", "names": ["a"]}, "`path` nowhere is no folder"),
    "no folder": ({"train": "images/trian", "names": ["a"]}, "no such folder or list"),
    "number": ({"train": 3, "names": ["a"]}, "must be a path"),
    "other split": ({"val": "images/val", "names": ["a"], "test": "x"}, "no split `train`"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_header_that_makes_no_sense_is_refused_in_one_line(root: Path, fault: str) -> None:
    keys, message = BROKEN[fault]
    header(root, **keys)
    with pytest.raises(UserError, match=message) as caught:
        open_boxes(root, "train")
    assert "data.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_yaml_that_is_none(root: Path) -> None:
    (root / "data.yaml").write_text("names: [a\ntrain: }")
    with pytest.raises(UserError, match="not valid YAML") as caught:
        open_boxes(root, "train")
    assert "\n" not in str(caught.value)


def test_a_list_may_not_lead_out_of_the_data_set(root: Path, tmp_path: Path) -> None:
    (root / "list.txt").write_text(f"{tmp_path.parent}/x.png\nimages/train/a.png\nimages/train/a.png\n")
    header(root, train="list.txt", names=["car", "ship"])
    with pytest.raises(UserError, match="leads out"):
        open_boxes(root, "train")
    frames = open_boxes(root, "train", audit=True)
    assert [p.kind for p in frames.listing] == ["bad_entry", "duplicate_entry"]
    assert len(frames) == 1
