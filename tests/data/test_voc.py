"""VOC folders: pixels counted from 1, difficult objects, lists, and XML that is not trusted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boresight.core.errors import UserError
from boresight.data.boxes import open_boxes

OBJECT = (
    "<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>"
    "<ymax>{}</ymax></bndbox></object>"
)


def xml(*objects: tuple[object, ...], size: tuple[int, int] = (30, 20), before: str = "") -> str:
    inside = "".join(OBJECT.format(*entry) for entry in objects)
    return f"{before}<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{inside}</annotation>"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Images a, b (train) and c (test); only c shows a boat."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    for seed, name in enumerate("abc"):
        values = np.random.default_rng(seed).integers(0, 255, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(values).save(tmp_path / "JPEGImages" / f"{name}.jpg")
    (tmp_path / "Annotations" / "a.xml").write_text(xml(("ship", 0, 1, 1, 30, 20), ("car", 1, 5, 6, 9, 11)))
    (tmp_path / "Annotations" / "b.xml").write_text(xml())
    (tmp_path / "Annotations" / "c.xml").write_text(xml(("boat", 0, 2, 3, 4.5, 5)))
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("a  1\nb -1\n")
    (tmp_path / "ImageSets" / "Main" / "test.txt").write_text("c\n")
    return tmp_path


def test_pixels_count_from_one_and_the_last_one_belongs_to_the_box(root: Path) -> None:
    frames = open_boxes(root, "train")
    assert frames.names == ("a.jpg", "b.jpg")
    assert frames.classes == ("boat", "car", "ship")
    scene = frames[0]
    assert scene.boxes.tolist() == [[0, 0, 30, 20], [4, 5, 9, 11]]
    assert scene.labels.tolist() == [2, 1]
    assert scene.ignore.tolist() == [False, True]
    assert frames[1].boxes.shape == (0, 4)
    assert {path.name for path in frames.unused} == {"c.jpg"}
    assert open_boxes(root, "test")[0].boxes.tolist() == [[1, 2, 4.5, 5]]
    assert open_boxes(root, "test").classes == frames.classes
    assert len(open_boxes(root)) == 3


def test_files_that_count_from_zero_are_clipped_with_a_remark(root: Path) -> None:
    (root / "Annotations" / "a.xml").write_text(xml(("ship", 0, 0, 0, 30, 20)))
    scene, problems = open_boxes(root, "train").inspect(0)
    assert scene is not None
    assert scene.boxes.tolist() == [[0, 0, 30, 20]]
    assert [p.kind for p in problems] == ["box_clipped"]


FAULTS = {
    "outside": (xml(("ship", 0, 1, 1, 32, 20)), "box_outside", "object 1"),
    "no area": (xml(("ship", 0, 6, 1, 5, 20)), "degenerate_box", "object 1"),
    "size": (xml(size=(20, 30)), "image_size", "20x30"),
    "no number": (xml(("ship", 0, 1, 1, "x", 20)), "bad_row", "object 1: bndbox"),
    "no name": (xml(("", 0, 1, 1, 3, 20)), "bad_row", "object 1: has no name"),
    "difficult": (xml(("ship", "yes", 1, 1, 3, 20)), "bad_row", "object 1: difficult `yes`"),
    "not XML": ("<annotation>", "bad_label", "is not XML"),
    "doctype": (xml(before='<!DOCTYPE a [<!ENTITY b "c">]>'), "bad_label", "has a DOCTYPE"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_name_file_and_object(root: Path, fault: str) -> None:
    text, kind, detail = FAULTS[fault]
    (root / "Annotations" / "a.xml").write_text(text)
    frames = open_boxes(root, "train")
    problems = frames.inspect(0)[1]
    assert [p.kind for p in problems] == [kind]
    assert detail in problems[0].detail
    assert (problems[0].name, Path(problems[0].file).name) == ("a.jpg", "a.xml")
    with pytest.raises(UserError, match=r"a\.xml"):
        frames[0]


def test_a_doctype_is_refused_in_any_encoding(root: Path) -> None:
    text = '<?xml version="1.0" encoding="UTF-16"?>' + xml(before='<!DOCTYPE a [<!ENTITY b "c">]>')
    (root / "Annotations" / "a.xml").write_bytes(text.encode("utf-16"))
    assert "has a DOCTYPE" in open_boxes(root, "train").inspect(0)[1][0].detail


def test_an_image_without_annotation_file_is_an_error(root: Path) -> None:
    (root / "Annotations" / "b.xml").unlink()
    assert [(p.kind, p.severity) for p in open_boxes(root, "train").inspect(1)[1]] == [("missing_label", "error")]


def test_listed_classes_keep_their_order(root: Path) -> None:
    (root / "labels.txt").write_text("ship\ncar\nplane\nboat\n")
    frames = open_boxes(root, "train")
    assert frames.classes == ("ship", "car", "plane", "boat")
    assert frames[0].labels.tolist() == [0, 1]
    (root / "labels.txt").write_text("ship\n")
    assert [p.kind for p in open_boxes(root, "train").inspect(0)[1]] == ["unknown_category"]


def test_folders_of_splits_share_their_classes(root: Path, tmp_path: Path) -> None:
    for split, stems in (("train", "ab"), ("valid", "c")):
        (tmp_path / "flat" / split).mkdir(parents=True)
        for stem in stems:
            for folder, suffix in (("Annotations", "xml"), ("JPEGImages", "jpg")):
                (root / folder / f"{stem}.{suffix}").rename(tmp_path / "flat" / split / f"{stem}.{suffix}")
    train, valid = open_boxes(tmp_path / "flat", "train"), open_boxes(tmp_path / "flat", "valid")
    assert train.classes == valid.classes == ("boat", "car", "ship")
    assert valid[0].boxes.tolist() == [[1, 2, 4.5, 5]]


def test_lists(root: Path) -> None:
    table = root / "ImageSets" / "Main" / "train.txt"
    with pytest.raises(UserError, match="no split `trian`: did you mean `train`"):
        open_boxes(root, "trian")
    table.write_text("a\na\n../b\n")
    with pytest.raises(UserError, match="leads out"):
        open_boxes(root, "train")
    assert [p.kind for p in open_boxes(root, "train", audit=True).listing] == ["duplicate_entry", "bad_entry"]
    table.write_text("\n")
    with pytest.raises(UserError, match="names no images"):
        open_boxes(root, "train")


def test_an_entry_may_be_the_name_of_a_file_and_stands_for_its_stem(root: Path) -> None:
    """Whatever way an image is written in the list, it is one image."""
    table = root / "ImageSets" / "Main" / "train.txt"
    stem = table.read_text().split()[0]
    image = next((root / "JPEGImages").glob(f"{stem}.*")).name
    table.write_text(f"{image}\n{stem}\n./{stem}\n")
    frames = open_boxes(root, "train")
    assert frames.names == (image,)
    assert frames.frames[0].origin.endswith(f"{stem}.xml")
    assert [p.kind for p in frames.listing] == ["duplicate_entry"] * 2
