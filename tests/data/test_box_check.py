"""The audit of boxes: every planted fault is found, a clean data set is silent, and nothing stops at the first."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from boresight.core.errors import UserError
from boresight.core.types import Scene
from boresight.data.box_check import check_boxes, classes_of
from boresight.data.boxes import open_boxes
from boresight.data.check import enforce, without
from boresight.data.frames import Subset
from boresight.data.image import Problem

Content = dict[str, Any]


def content(names: str) -> Content:
    return {
        "images": [{"id": i, "file_name": f"{name}.png", "width": 30, "height": 20} for i, name in enumerate(names)],
        "annotations": [
            {"id": 10 * i + c, "image_id": i, "category_id": c, "bbox": [2 + c, 3, 10, 8]}
            for i in range(len(names))
            for c in (1, 2)
        ],
        "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "ship"}],
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A clean COCO folder: a-c for training, d-e for testing."""
    (tmp_path / "images").mkdir()
    for name in "abcde":
        values = np.random.default_rng(ord(name)).integers(0, 255, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(values).save(tmp_path / "images" / f"{name}.png")
    for split, names in (("train", "abc"), ("test", "de")):
        (tmp_path / f"{split}.json").write_text(json.dumps(content(names)))
    return tmp_path


def audit(root: Path) -> list[Problem]:
    return check_boxes({split: open_boxes(root, split, audit=True) for split in ("train", "test")})


def change(root: Path, plant: Callable[[Content], object], split: str = "train") -> None:
    what = json.loads((root / f"{split}.json").read_text())
    plant(what)
    (root / f"{split}.json").write_text(json.dumps(what))


def boxed(*box: float, number: int = 2) -> Callable[[Path], None]:
    """Give the second image's first annotation another box."""
    return lambda root: change(root, lambda what: what["annotations"][number].update(bbox=list(box)))


def with_annotation(**more: Any) -> Callable[[Path], None]:
    entry = {"id": 99, "image_id": 1, "category_id": 1, "bbox": [3, 3, 10, 8.2]} | more
    return lambda root: change(root, lambda what: what["annotations"].append(entry))


def turned(root: Path) -> None:
    exif = Image.Exif()
    exif[274] = 3
    with Image.open(root / "images" / "b.png") as image:
        image.load()
        image.save(root / "images" / "b.png", exif=exif)


PLANTS: dict[str, tuple[Callable[[Path], object], str, str, str]] = {
    "missing_image": (lambda r: (r / "images" / "b.png").unlink(), "error", "b.png", "b.png"),
    "corrupt_image": (lambda r: (r / "images" / "b.png").write_bytes(b"broken"), "error", "b.png", "b.png"),
    "image_size": (lambda r: change(r, lambda w: w["images"][1].update(width=40)), "error", "b.png", "train.json"),
    "degenerate_box": (boxed(3, 3, 0, 8), "error", "b.png", "train.json"),
    "box_outside": (boxed(25, 3, 10, 8), "error", "b.png", "train.json"),
    "unknown_category": (with_annotation(category_id=5), "error", "b.png", "train.json"),
    "bad_row": (with_annotation(bbox=[1]), "error", "b.png", "train.json"),
    "unknown_image": (with_annotation(image_id=77), "error", "", "train.json"),
    "duplicate_box": (with_annotation(), "warning", "b.png", "b.png"),
    "duplicate_image": (lambda r: shutil.copy(r / "images/a.png", r / "images/b.png"), "error", "b.png", "b.png"),
    "duplicate_image across": (
        lambda r: shutil.copy(r / "images/d.png", r / "images/b.png"),
        "error",
        "b.png",
        "b.png",
    ),
    "split_overlap": (
        lambda r: (
            shutil.copy(r / "images/e.png", r / "images/b.png"),
            change(r, lambda w: w["images"][1].update(file_name="b.png"), "test"),
            (r / "images/e.png").unlink(),
        ),
        "error",
        "b.png",
        "b.png",
    ),
    "turned_image": (turned, "warning", "b.png", "b.png"),
    "box_clipped": (boxed(-0.5, 3, 10, 8), "info", "b.png", "train.json"),
    "tiny_box": (boxed(3, 3, 10, 1.5), "info", "b.png", "b.png"),
    "no_boxes": (
        lambda r: change(r, lambda w: w.update(annotations=w["annotations"][:4])),
        "info",
        "",
        "images",
    ),
    "class_without_boxes": (
        lambda r: change(r, lambda w: [a.update(iscrowd=1) for a in w["annotations"] if a["category_id"] == 2]),
        "warning",
        "",
        "images",
    ),
    "class_names": (
        lambda r: change(r, lambda w: w["categories"][1].update(name="boat"), "test"),
        "error",
        "",
        "images",
    ),
    "unlisted": (lambda r: shutil.copy(r / "README", r / "images" / "z.png"), "info", "", "images"),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_fault_is_found_and_is_the_only_one(root: Path, plant: str) -> None:
    Image.new("RGB", (4, 4)).save(root / "README", format="png")
    assert audit(root) == []
    do, severity, name, file = PLANTS[plant]
    do(root)
    (problem,) = audit(root)
    assert (problem.kind, problem.severity, problem.name) == (plant.split()[0], severity, name)
    assert problem.split == ("" if plant == "unlisted" else "test" if plant == "class_names" else "train")
    assert Path(problem.file).name == file
    assert "\n" not in problem.line()


def test_a_class_out_of_range_in_a_yolo_folder(tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder / "train").mkdir(parents=True)
    for name in "abc":
        values = np.random.default_rng(ord(name)).integers(0, 255, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(values).save(tmp_path / "images" / "train" / f"{name}.png")
    (tmp_path / "labels" / "train" / "a.txt").write_text("1 0.5 0.5 0.5 0.5\n0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: ['7']\n")
    found = {p.kind: p for p in check_boxes({"train": open_boxes(tmp_path, "train")})}
    assert found.keys() == {"class_range", "missing_label", "no_boxes", "one_class", "class_name"}
    assert found["class_range"].severity == "error"
    assert "line 1: class 1 is not in 0..0" in found["class_range"].line()
    assert "(and so in 1 more images)" in found["missing_label"].detail
    assert "2 of 3 images (67%) have no boxes" in found["no_boxes"].detail


def test_splits_that_share_a_photo(root: Path) -> None:
    for split in ("train", "test"):
        change(root, lambda what: what["images"][0].update(source_photo="p"), split)
    (problem,) = audit(root)
    assert (problem.kind, problem.severity) == ("group_overlap", "warning")
    assert "1 groups of images are in the splits `train` and `test`, first `source_photo p`" in problem.detail


def test_errors_stop_or_drop(root: Path) -> None:
    boxed(25, 3, 10, 8)(root)
    problems = audit(root)
    with pytest.raises(UserError, match=r"1 box_outside.*annotation 11: box"):
        enforce(problems)
    frames = open_boxes(root, "train", audit=True)
    kept = without(frames, enforce(problems, "drop", split="train"))
    assert kept.names == ("a.png", "c.png")
    assert classes_of(kept) == ("car", "ship")
    assert len(kept[1].boxes) == 2


def test_splits_of_other_classes_stop_whatever_the_policy(root: Path) -> None:
    PLANTS["class_names"][0](root)
    with pytest.raises(UserError, match="class_names"):
        enforce(audit(root), "drop", split="test")


class Made:
    """Scenes without files."""

    names = ("x", "y")
    classes = ("car", "ship")

    def __init__(self, *boxes: list[float], label: int = 1) -> None:
        self.boxes, self.label = boxes, label

    def __len__(self) -> int:
        return 2

    def __getitem__(self, i: int) -> Scene:
        image = torch.full((3, 20, 30), i, dtype=torch.uint8)
        boxes = torch.tensor([[1.0, 2, 9, 9], [3, 4, 9, 9], *self.boxes])
        return Scene(image, self.names[i], boxes=boxes, labels=torch.tensor([0, 1] + [self.label] * len(self.boxes)))


def test_a_generator_is_looked_at_as_well() -> None:
    assert check_boxes({"train": Made()}) == []
    problems = check_boxes({"train": Made([1.0, 1, 40, 9])})
    assert [(p.kind, p.name, p.severity) for p in problems] == [("box_outside", n, "error") for n in ("x", "y")]
    assert {p.kind for p in check_boxes({"train": Made([1.0, 1, 9, 9], label=5)})} == {"class_range"}
    part = Subset(Made([1.0, 1, 40, 9]), [1])  # type: ignore[arg-type]
    assert [(p.kind, p.name) for p in check_boxes({"train": part})] == [("box_outside", "y")]


def test_nothing_to_learn_from_is_a_warning() -> None:
    class Empty(Made):
        def __getitem__(self, i: int) -> Scene:
            image = torch.full((3, 20, 30), i, dtype=torch.uint8)
            return Scene(image, self.names[i], boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))

    kinds = {(p.kind, p.severity) for p in check_boxes({"train": Empty()})}
    assert kinds == {("no_boxes", "warning"), ("class_without_boxes", "warning")}


def test_progress_is_told(root: Path) -> None:
    told: list[tuple[int, int]] = []
    frames = open_boxes(root, "train")
    check_boxes({"train": frames}, lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_the_real_data_has_no_errors(real_data: Path) -> None:
    frames = open_boxes(real_data / "airbus-dev", "test", audit=True)
    problems = check_boxes({"test": Subset(frames, range(0, len(frames), 3))})
    assert {p.severity for p in problems} <= {"info", "warning"}
    assert {p.kind for p in problems} >= {"no_boxes", "unlisted"}
