"""COCO files: what becomes a box, a class, an ignored region, an exhaustive class, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from boresight.core.errors import UserError
from boresight.data.boxes import open_boxes
from boresight.data.coco import coco_boxes

Content = dict[str, Any]


def content() -> Content:
    """Two images, categories 7 and 3, a crowd."""
    return {
        "images": [
            {"id": 20, "file_name": "b.png", "width": 30, "height": 20},
            {"id": 10, "file_name": "a.png", "width": 30, "height": 20},
        ],
        "annotations": [
            {"id": 1, "image_id": 10, "category_id": 7, "bbox": [1, 2, 10, 5], "iscrowd": 0},
            {"id": 2, "image_id": 10, "category_id": 3, "bbox": [4.5, 2.25, 3.5, 4]},
            {"id": 3, "image_id": 10, "category_id": 3, "bbox": [0, 0, 30, 20], "iscrowd": 1},
        ],
        "categories": [{"id": 7, "name": "ship"}, {"id": 3, "name": "car"}],
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A COCO folder of two images."""
    (tmp_path / "images").mkdir()
    for seed, name in enumerate("ab"):
        values = np.random.default_rng(seed).integers(0, 255, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(values).save(tmp_path / "images" / f"{name}.png")
    write(tmp_path, content())
    return tmp_path


def write(root: Path, what: object) -> None:
    (root / "train.json").write_text(json.dumps(what))


def test_boxes_classes_ids_and_crowds(root: Path) -> None:
    frames = open_boxes(root, "train")
    assert frames.classes == ("car", "ship")
    assert frames.names == ("b.png", "a.png")
    assert len(frames) == 2
    empty, scene = frames[0], frames[1]
    assert (scene.image_id, empty.image_id) == (10, 20)
    assert scene.boxes.tolist() == [[1, 2, 11, 7], [4.5, 2.25, 8, 6.25], [0, 0, 30, 20]]
    assert scene.labels.tolist() == [1, 0, 0]
    assert scene.ignore.tolist() == [False, False, True]
    assert scene.exhaustive is None
    assert scene.image.dtype == torch.uint8
    assert (scene.boxes.dtype, scene.labels.dtype, scene.ignore.dtype) == (torch.float32, torch.long, torch.bool)
    with Image.open(root / "images" / "a.png") as image:
        assert np.array_equal(scene.image.permute(1, 2, 0).numpy(), np.asarray(image))
    assert empty.boxes.shape == (0, 4)
    assert frames.listing == ()
    assert frames.inspect(1)[1] == ()


def test_exhaustive_classes(root: Path) -> None:
    what = content()
    what["images"][0]["exhaustive_category_ids"] = [7]
    write(root, what)
    frames = open_boxes(root, "train")
    assert frames[0].exhaustive.tolist() == [False, True]
    assert frames[1].exhaustive is None


@pytest.mark.parametrize(
    ("negative", "partial", "expected"),
    [([7], [], [True, True]), ([], [], [True, False]), ([7], [3], [False, True]), ([], [3], [False, False])],
)
def test_the_rule_of_lvis(root: Path, negative: list[int], partial: list[int], expected: list[bool]) -> None:
    """Class 3 is there, class 7 is not: it is known to be absent only if it was looked for."""
    what = content()
    what["annotations"] = what["annotations"][1:2]
    what["images"][1] |= {"neg_category_ids": negative, "not_exhaustive_category_ids": partial}
    write(root, what)
    assert open_boxes(root, "train")[1].exhaustive.tolist() == expected


def test_an_annotation_without_bbox_has_the_box_of_its_polygons(root: Path) -> None:
    what = content()
    what["annotations"] = [
        {"id": 5, "image_id": 10, "category_id": 3, "segmentation": [[1, 2, 5, 3, 4, 9], [8, 4, 9, 5, 8.5, 6]]},
        {"id": 6, "image_id": 10, "category_id": 3, "segmentation": {"counts": [3, 4], "size": [20, 30]}},
    ]
    write(root, what)
    scene, problems = open_boxes(root, "train").inspect(1)
    assert scene is not None
    assert scene.boxes.tolist() == [[1, 2, 9, 9]]
    assert [(p.kind, p.name) for p in problems] == [("bad_row", "a.png")]
    assert "annotation 6" in problems[0].detail


def annotated(**change: object) -> Callable[[Content], None]:
    return lambda what: what["annotations"][0].update(change)


FAULTS: dict[str, tuple[Callable[[Content], None], str, str]] = {
    "no area": (annotated(bbox=[5, 5, 0, 3]), "degenerate_box", "annotation 1: box (5, 5, 5, 8) of `ship` has no area"),
    "negative": (annotated(bbox=[5, 5, -2, 3]), "degenerate_box", "annotation 1"),
    "not finite": (annotated(bbox=[5, 5, float("nan"), 3]), "degenerate_box", "annotation 1"),
    "outside": (annotated(bbox=[25, 5, 6.5, 3]), "box_outside", "annotation 1"),
    "beyond": (annotated(bbox=[30, 5, 0.8, 3]), "degenerate_box", "annotation 1"),
    "category": (annotated(category_id=4), "unknown_category", "annotation 1: category 4"),
    "category as words": (annotated(category_id="7"), "unknown_category", "annotation 1"),
    "three numbers": (annotated(bbox=[5, 5, 3]), "bad_row", "annotation 1: bbox `[5, 5, 3]`"),
    "words": (annotated(bbox=[5, 5, "3", 2]), "bad_row", "annotation 1: `3` is not a number"),
    "crowd": (annotated(iscrowd=2), "bad_row", "annotation 1: iscrowd `2`"),
    "exhaustive": (
        lambda what: what["images"][1].update(exhaustive_category_ids=[3, 8]),
        "unknown_category",
        "image 10: `exhaustive_category_ids` names category 8",
    ),
    "size": (lambda what: what["images"][1].update(width=31), "image_size", "said to be 31x20; its file is 30x20"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_an_image_is_its_problem_and_names_file_and_annotation(root: Path, fault: str) -> None:
    plant, kind, detail = FAULTS[fault]
    what = content()
    plant(what)
    write(root, what)
    frames = open_boxes(root, "train")
    problems = frames.inspect(1)[1]
    assert [p.kind for p in problems] == [kind]
    assert detail in problems[0].detail
    assert problems[0].name == "a.png"
    with pytest.raises(UserError, match=r"train\.json: ") as caught:
        frames[1]
    assert "\n" not in str(caught.value)
    assert frames[0].boxes.shape == (0, 4)


def test_an_annotation_of_an_unknown_image_is_raised_or_kept(root: Path) -> None:
    what = content()
    what["annotations"][0]["image_id"] = 99
    write(root, what)
    with pytest.raises(UserError, match="annotation 1: image 99 is not listed"):
        open_boxes(root, "train")
    assert [p.kind for p in open_boxes(root, "train", audit=True).listing] == ["unknown_image"]


def test_boxes_a_little_over_the_border_are_clipped_with_a_remark(root: Path) -> None:
    what = content()
    what["annotations"][0]["bbox"] = [-0.5, 2, 31.5, 5]
    write(root, what)
    frames = open_boxes(root, "train")
    assert frames[1].boxes[0].tolist() == [0, 2, 30, 7]
    (problem,) = frames.inspect(1)[1]
    assert (problem.kind, problem.severity) == ("box_clipped", "info")
    assert "1 px" in problem.detail
    assert "annotation 1" in problem.detail


def test_boxes_refer_to_stored_pixels(root: Path) -> None:
    """An EXIF orientation is not applied; a file whose sizes are those of the turned image is told so."""
    exif = Image.Exif()
    exif[274] = 6
    values = np.zeros((20, 30, 3), np.uint8)
    values[:10] = 200
    Image.fromarray(values).save(root / "images" / "a.png", exif=exif)
    scene = open_boxes(root, "train")[1]
    assert scene.size == (20, 30)
    assert scene.image[0, :10].eq(200).all()
    what = content()
    what["images"][1] |= {"width": 20, "height": 30}
    write(root, what)
    with pytest.raises(UserError, match="whose EXIF orientation 6 is not applied: save the image upright"):
        open_boxes(root, "train")[1]


def test_gray_images_are_repeated_and_deep_ones_refused(root: Path) -> None:
    gray = np.random.default_rng(0).integers(0, 255, (20, 30), dtype=np.uint8)
    Image.fromarray(gray).save(root / "images" / "a.png")
    assert all(np.array_equal(channel, gray) for channel in open_boxes(root, "train")[1].image.numpy())
    Image.fromarray(gray > 100).save(root / "images" / "a.png")
    assert open_boxes(root, "train")[1].image.unique().tolist() == [0, 255]
    Image.fromarray(gray.astype(np.uint16)).save(root / "images" / "a.png")
    with pytest.raises(UserError, match="more than 8 bits"):
        open_boxes(root, "train")[1]


@pytest.mark.parametrize("where", ["plain", "instances", "roboflow", "split folder", "beside", "nested"])
def test_where_files_may_lie(root: Path, where: str) -> None:
    table, images = root / "train.json", root / "images"
    moved: dict[str, tuple[str, str]] = {
        "plain": ("train.json", "images"),
        "instances": ("annotations/instances_train.json", "images/train"),
        "roboflow": ("train/_annotations.coco.json", "train"),
        "split folder": ("annotations/train.json", "train"),
        "beside": ("train.json", "."),
        "nested": ("train.json", "images/deep"),
    }
    to_table, to_images = moved[where]
    content_ = table.read_text().replace(
        '"file_name": "', '"file_name": "deep/' if where == "nested" else '"file_name": "'
    )
    table.unlink()
    (root / to_table).parent.mkdir(exist_ok=True, parents=True)
    (root / to_table).write_text(content_)
    (root / to_images).mkdir(exist_ok=True, parents=True)
    for image in list(images.glob("*.png")):
        image.rename(root / to_images / image.name)
    frames = open_boxes(root, "train")
    assert frames[1].boxes.shape == (3, 4)
    assert frames.unused == frozenset()


def test_images_of_one_photo_are_a_group(root: Path) -> None:
    what = content()
    what["images"][0]["source_photo"] = "p1"
    what["images"][1]["file_name"] = "a.rf.123.png"
    write(root, what)
    assert open_boxes(root, "train").groups == ("source_photo p1", "a")


def test_one_file_with_lists_of_names(root: Path) -> None:
    (root / "train.json").rename(root / "all.json")
    (root / "test.txt").write_text("a\n")
    frames = open_boxes(root, "test")
    assert frames.names == ("a.png",)
    assert {path.name for path in frames.unused} == {"b.png"}
    (root / "test.txt").write_text("a\nz\n")
    with pytest.raises(UserError, match=r"`z`, which all\.json does not list"):
        open_boxes(root, "test")


BROKEN: dict[str, tuple[Callable[[Content], object], str]] = {
    "no list": (lambda what: what.pop("annotations"), "no list `annotations`"),
    "no id": (lambda what: what["images"][0].pop("id"), r"images\[0\] must be an object with a whole number `id`"),
    "no name": (lambda what: what["images"][0].pop("file_name"), "image 20 has no `file_name`"),
    "category twice": (lambda what: what["categories"][0].update(id=3), "category 3 is listed twice"),
    "name twice": (lambda what: what["categories"][0].update(name="car"), "two classes are named `car`"),
    "no categories": (lambda what: what["categories"].clear(), "lists no categories"),
    "image twice": (lambda what: what["images"][0].update(file_name="a.png"), r"lists image 10 \(`a.png`\) twice"),
    "leads out": (lambda what: what["images"][0].update(file_name="../b.png"), "leads out of the image folder"),
    "width": (lambda what: what["images"][0].update(width="30"), "width and height of image 20"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_file_of_another_form_is_refused_in_one_line(root: Path, fault: str) -> None:
    plant, message = BROKEN[fault]
    what = content()
    plant(what)
    write(root, what)
    with pytest.raises(UserError, match=message) as caught:
        open_boxes(root, "train")
    assert "\n" not in str(caught.value)
    assert "train.json" in str(caught.value)


def test_a_missing_image_is_named(root: Path) -> None:
    (root / "images" / "a.png").unlink()
    with pytest.raises(UserError, match=r"images/a\.png: no such image file"):
        open_boxes(root, "train")[1]


def test_folders_may_be_given(root: Path) -> None:
    frames = coco_boxes(root / "train.json", [root / "elsewhere", root / "images"])
    assert frames[1].image_id == 10
