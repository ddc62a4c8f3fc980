"""Data sets that lead out of their folder, disguise a file or hold numbers beyond sense: one line, no harm."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boresight.core.errors import UserError
from boresight.data.boxes import open_boxes
from boresight.data.coco_columns import read_found, read_truth
from boresight.data.convert import convert
from boresight.data.points import open_points
from boresight.data.rgb_image import read_rgb

OUT = [
    "../secret.png",
    "/etc/passwd",
    "a/../../secret.png",
    "..\\secret.png",
    "C:\\secret.png",
    "\\\\host\\share\\a.png",
]
NO_NAMES = ["a\0.png", "\ud800.png", "x" * 300 + ".png", "d/" * 2000 + "a.png"]


def refused(read: Callable[[], Any], *words: str) -> None:
    with pytest.raises(UserError) as caught:
        read()
    line = str(caught.value)
    assert line.encode().decode().splitlines() == [line]
    assert all(word in line for word in words), line


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """``data`` with an image, beside a file that is none of its business."""
    (tmp_path / "data" / "images").mkdir(parents=True)
    for place in ("data/images/a.png", "secret.png"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / place)
    return tmp_path / "data"


def coco(root: Path, image: dict[str, Any] | None = None, note: dict[str, Any] | None = None) -> Path:
    content = {
        "images": [{"id": 1, "file_name": "a.png"} | (image or {})],
        "categories": [{"id": 1, "name": "ship"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2]} | (note or {})],
    }
    (root / "train.json").write_text(json.dumps(content))
    return root / "train.json"


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*OUT, *NO_NAMES])
@pytest.mark.parametrize("read", [open_boxes, open_points])
def test_an_image_of_a_coco_file(root: Path, name: str, read: Any) -> None:
    coco(root, {"file_name": name})
    refused(lambda: read(root, "train"), "train.json", "leads out" if name in OUT else "no name that a file can have")


@pytest.mark.parametrize("name", [n for n in (*OUT, *NO_NAMES) if n.isprintable()])
def test_an_image_of_a_table(root: Path, name: str) -> None:
    (root / "points.csv").write_text(f"image,x,y\n{name},1,1\n", encoding="utf-8")
    refused(lambda: open_points(root), "points.csv:2")


@pytest.mark.parametrize("name", [n.removesuffix(".png") for n in (*OUT, *NO_NAMES) if n.isprintable()])
def test_a_stem_of_a_voc_list(root: Path, name: str) -> None:
    (root / "Annotations").mkdir()
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "ImageSets" / "Main" / "train.txt").write_text(name + "\n")
    refused(lambda: open_boxes(root, "train"), "train.txt", "entry `")


@pytest.mark.parametrize("name", [n for n in (*OUT[:3], *NO_NAMES) if n.isprintable()])
def test_an_image_of_a_yolo_list(root: Path, name: str) -> None:
    (root / "data.yaml").write_text("train: list.txt\nnames: [ship]\n")
    (root / "list.txt").write_text(name + "\n")
    refused(lambda: open_boxes(root, "train"), "list.txt", "entry `", "leads out of the data set")


@pytest.mark.parametrize("text", ["train: ..", "train: ../../x", "path: /\ntrain: .", "path: ..\ntrain: data/images"])
def test_a_yolo_header_may_lead_out_only_where_it_is_given_itself(root: Path, text: str) -> None:
    (root.parent.parent / "x").mkdir(exist_ok=True)
    (root / "data.yaml").write_text(f"{text}\nnames: [ship]\n")
    refused(lambda: open_boxes(root, "train"), "data.yaml", "leads out of", "give the file itself if that is meant")
    if text.endswith("images"):
        assert len(open_boxes(root / "data.yaml", "train")) == 1


def test_what_is_converted_stays_in_its_folder(root: Path) -> None:
    coco(root)
    frames = open_boxes(root, "train")
    for split in ("../../out", "/tmp/out", "a\\b", ""):
        refused(lambda split=split: convert({split: frames}, root.parent / "new", "coco"), "split")  # type: ignore[misc]
    assert sorted(p.name for p in root.parent.iterdir()) == ["data", "secret.png"]


# --- files that are not what they are named --------------------------------------------------------------------------


def test_a_link_that_disguises_a_file(root: Path) -> None:
    (root.parent / "id_rsa").write_text("a key")
    (root / "images" / "a.png").unlink()
    (root / "images" / "a.png").symlink_to(root.parent / "id_rsa")
    refused(lambda: read_rgb(root / "images" / "a.png"), "a.png: is a link to", "id_rsa")
    (root / "data.yaml").write_text("train: images\nnames: [ship]\n")
    (root / "labels").mkdir()
    (root / "labels" / "a.txt").symlink_to(root.parent / "id_rsa")
    refused(lambda: open_boxes(root, "train"), "labels/a.txt: is a link to", "id_rsa")


def test_annotations_that_are_a_link_or_a_pipe(root: Path) -> None:
    (root / "Annotations").mkdir()
    (root / "images").rename(root / "JPEGImages")
    (root / "JPEGImages" / "a.png").rename(root / "JPEGImages" / "a.jpg")
    (root.parent / "id_rsa").write_text("a key")
    (root / "Annotations" / "a.xml").symlink_to(root.parent / "id_rsa")
    (root / "labels.txt").write_text("ship\n")
    refused(lambda: open_boxes(root, kind="voc")[0], "a.xml: is a link to")
    (root / "Annotations" / "a.xml").unlink()
    os.mkfifo(root / "Annotations" / "a.xml")  # reading it would wait for ever
    refused(lambda: open_boxes(root, kind="voc")[0], "a.xml: cannot be read (it is no regular file)")


# --- numbers ---------------------------------------------------------------------------------------------------------

BEYOND = 10**400


@pytest.mark.parametrize("key", ["bbox", "segmentation"])
def test_a_number_beyond_all_floats(root: Path, key: str) -> None:
    note = {"bbox": [BEYOND, 1, 2, 2]} if key == "bbox" else {"bbox": None, "segmentation": [[BEYOND, 1, 2, 2, 3, 3]]}
    file = coco(root, note=note)
    refused(lambda: open_boxes(root, "train")[0], "train.json", "annotation 1")
    refused(lambda: read_truth(file), "train.json", "annotation 0")
    if key == "bbox":
        refused(lambda: open_points(root, "train"), "train.json", "annotation 1")


@pytest.mark.parametrize("value", [2**70, True, 1.0, "1", None])
def test_ids_that_are_none(root: Path, value: object) -> None:
    file = coco(root, {"id": value})
    for read in (lambda: open_boxes(root, "train"), lambda: open_points(root, "train"), lambda: read_truth(file)):
        refused(read, "train.json", "images[0]")


@pytest.mark.parametrize("value", [-1, True, 2**40, 1e400])
def test_sizes_that_are_none(root: Path, value: object) -> None:
    coco(root, {"width": value, "height": 8})
    refused(lambda: open_boxes(root, "train"), "width and height of image 1 must be whole numbers")


def test_keys_that_stand_there_twice(root: Path) -> None:
    file = coco(root)
    file.write_text(file.read_text().replace('"file_name": "a.png"', '"file_name": "a.png", "file_name": "b.png"'))
    for read in (lambda: open_boxes(root, "train"), lambda: open_points(root, "train"), lambda: read_truth(file)):
        refused(read, "train.json", "the key 'file_name' twice")


@pytest.mark.parametrize("entry", [{"score": BEYOND}, {"image_id": 2**70}, {"bbox": [1, 2, 3, "4"]}, {"score": "high"}])
def test_results_beyond_sense(root: Path, entry: dict[str, Any]) -> None:
    truth = read_truth(coco(root))
    found = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5} | entry
    (root / "found.json").write_text(json.dumps([found]))
    refused(lambda: read_found(root / "found.json", truth), "found.json: detection 0")


@pytest.mark.parametrize("label", ["100000", "999999999999", "9" * 5000])
def test_a_table_does_not_make_a_class_of_every_number(root: Path, label: str) -> None:
    (root / "points.csv").write_text(f"image,x,y,label\na.png,1,1,{label}\n")
    refused(lambda: open_points(root), "points.csv: class", "is above 99999")


def test_a_crowd_is_0_or_1(root: Path) -> None:
    coco(root, note={"iscrowd": "false"})
    refused(lambda: open_points(root, "train"), "annotation 1: iscrowd `false` is neither 0 nor 1")
