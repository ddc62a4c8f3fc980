"""COCO annotations and results as columns: what comes in, and what is refused in which words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boresight.core.errors import UserError
from boresight.data.coco_columns import read_found, read_truth


def annotations() -> dict[str, Any]:
    """Ids in no order: image 7 comes before image 3, category 9 before category 2."""
    return {
        "images": [
            {"id": 7, "file_name": "/somewhere/b.png", "width": 64, "height": 48},
            {"id": 3, "file_name": "a.png"},
        ],
        "categories": [{"id": 9, "name": "ship"}, {"id": 2, "name": "plane"}],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 9, "bbox": [1, 2, 3.5, 4]},
            {"id": 2, "image_id": 7, "category_id": 2, "bbox": [0, 0, 10, 0], "iscrowd": 1},
            {"id": 5, "image_id": 7, "category_id": 9, "segmentation": [[1, 1, 5, 1, 5, 9], [2, 0, 3, 0, 3, 4]]},
        ],
    }


def results() -> list[dict[str, Any]]:
    return [
        {"image_id": 3, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.5},
        {"image_id": 7, "category_id": 9, "bbox": [0.5, 0, 0, 1], "score": 1, "segmentation": "unread"},
    ]


def written(folder: Path, content: Any, name: str = "file.json") -> Path:
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder / name


def both(folder: Path, truth: Any, found: Any) -> None:
    read_found(written(folder, found, "found.json"), read_truth(written(folder, truth, "truth.json")))


def test_annotations(tmp_path: Path):
    truth = read_truth(written(tmp_path, annotations()))
    assert truth.classes == ("plane", "ship")  # by id
    assert truth.category_ids.tolist() == [2, 9]
    assert truth.image_ids.tolist() == [7, 3]  # as listed
    assert truth.names == ("/somewhere/b.png", "a.png")
    assert truth.sizes == ((48, 64), None)
    assert truth.image.tolist() == [1, 0, 0]
    assert truth.label.tolist() == [1, 0, 1]
    assert truth.crowd.tolist() == [False, True, False]
    assert truth.box.tolist() == [[1, 2, 4.5, 6], [0, 0, 10, 0], [1, 0, 5, 9]]
    assert truth.exhaustive is None


def test_results(tmp_path: Path):
    found = read_found(written(tmp_path, results()), read_truth(written(tmp_path, annotations(), "truth.json")))
    assert found.image.tolist() == [1, 0]
    assert found.label.tolist() == [0, 1]
    assert found.score.tolist() == [0.5, 1.0]
    assert found.box.tolist() == [[1, 2, 4, 6], [0.5, 0, 0.5, 1]]


def test_empty_in_empty_out(tmp_path: Path):
    content = annotations() | {"annotations": []}
    truth = read_truth(written(tmp_path, content))
    found = read_found(written(tmp_path, [], "found.json"), truth)
    assert truth.box.shape == found.box.shape == (0, 4)
    assert len(truth.crowd) == len(found.score) == 0
    nothing = read_truth(written(tmp_path, content | {"images": []}))
    assert nothing.names == ()
    assert len(read_found(tmp_path / "found.json", nothing).label) == 0


def test_classes_that_are_not_labelled_exhaustively(tmp_path: Path):
    content = annotations()
    content["images"][0]["exhaustive_category_ids"] = [9]
    assert read_truth(written(tmp_path, content)).exhaustive.tolist() == [[False, True], [True, True]]
    content["images"][0] |= {"exhaustive_category_ids": [4]}
    with pytest.raises(UserError, match=r"image 7: `exhaustive_category_ids` names category 4, which is not listed"):
        read_truth(written(tmp_path, content))
    # By the rule of LVIS: looked for and absent, or present and complete.
    content = annotations()
    content["images"][0] |= {"neg_category_ids": [], "not_exhaustive_category_ids": [2]}
    content["images"][1] |= {"neg_category_ids": [2], "not_exhaustive_category_ids": []}
    assert read_truth(written(tmp_path, content)).exhaustive.tolist() == [[False, True], [True, True]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"image_id": 4},
            "detection 1: image_id 4 is not listed in the annotations: use the ids of the annotations (3, 7)",
        ),
        ({"image_id": 10**30}, f"image_id must be a whole number, got {10**30}: correct or remove it"),
        ({"image_id": 7.0}, "detection 1: image_id must be a whole number, got 7.0: correct or remove it"),
        ({"image_id": "b"}, "detection 1: image_id must be a whole number, got 'b': correct or remove it"),
        ({"category_id": 0}, "detection 1: category_id 0 is not listed in the annotations: use the ids of the annota"),
        ({"category_id": None}, "detection 1: category_id must be a whole number, got None: correct or remove it"),
        ({"score": None}, "detection 1: score must be a number, got None: correct or remove it"),
        ({"score": "0.5"}, "detection 1: score must be a number, got '0.5': correct or remove it"),
        ({"score": float("nan")}, "detection 1: score is nan, which is not finite: correct or remove it"),
        ({"bbox": [0, 0, -1, 5]}, "detection 1: bbox [0, 0, -1, 5] is not finite, or has a negative side: correct or"),
        ({"bbox": [0, 0, float("inf"), 5]}, "detection 1: bbox [0, 0, inf, 5] is not finite, or has a negative side: "),
        ({"bbox": [1e308, 0, 1e308, 5]}, "detection 1: bbox [1e+308, 0, 1e+308, 5] reaches beyond all numbers: "),
        ({"bbox": [0, 0, 1e200, 1e200]}, "detection 1: bbox [0, 0, 1e+200, 1e+200] reaches beyond all numbers: "),
        ({"bbox": [0, 0, 5]}, "detection 1: bbox must be four numbers x, y, width, height, got [0, 0, 5]: correct or"),
        ({"bbox": [0, 0, 5, "5"]}, "detection 1: bbox must be four numbers x, y, width, height, got [0, 0, 5, '5']: "),
        ({"bbox": 5}, "detection 1: bbox must be four numbers x, y, width, height, got 5: correct or remove it"),
        ({"bbox": []}, "detection 1: bbox must be four numbers x, y, width, height, got []: correct or remove it"),
    ],
)
def test_a_detection_that_cannot_be_used_is_named(tmp_path: Path, change: dict[str, Any], message: str):
    found = results()
    found[1] |= change
    with pytest.raises(UserError) as caught:
        both(tmp_path, annotations(), found)
    assert str(caught.value).startswith(f"{tmp_path / 'found.json'}: detection 1")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["image_id", "category_id", "bbox", "score"])
def test_a_missing_key_is_named(tmp_path: Path, key: str):
    found = results()
    del found[1][key]
    with pytest.raises(UserError, match=rf"found\.json: detection 1: has no `{key}`: add it$"):
        both(tmp_path, annotations(), found)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"annotations": []}, "is a JSON dict, not a list of detections: give COCO results"),
        ("[1", "not JSON"),
        ([{}], "detection 0: has no `image_id`: add it"),
        ([3], "detection 0: is no object but 3: give one with `image_id`"),
        ([[1, 2]], "detection 0: is no object but [1, 2]: give one with `image_id`"),
    ],
)
def test_a_file_that_is_no_list_of_detections(tmp_path: Path, content: Any, message: str):
    with pytest.raises(UserError) as caught:
        both(tmp_path, annotations(), content)
    assert str(caught.value).startswith(f"{tmp_path / 'found.json'}: ")
    assert message in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(UserError, match=r"truth\.json: cannot be read .*: give COCO annotations in UTF-8"):
        read_truth(tmp_path / "truth.json")
    truth = read_truth(written(tmp_path, annotations()))
    with pytest.raises(UserError, match=r"found\.json: cannot be read .*: give COCO results in UTF-8"):
        read_found(tmp_path / "found.json", truth)


@pytest.mark.parametrize(
    ("row", "change", "message"),
    [
        (1, {"image_id": 4}, "annotation 1 (id 2): image_id 4 is not listed in the annotations"),
        (1, {"category_id": 1}, "annotation 1 (id 2): category_id 1 is not listed in the annotations"),
        (1, {"bbox": [0, 0, 1, -2]}, "annotation 1 (id 2): bbox [0, 0, 1, -2] is not finite, or has a negative side"),
        (1, {"bbox": None}, "annotation 1 (id 2): neither a bbox nor polygons: correct or remove it"),
        (2, {"segmentation": [[1, 2]]}, "annotation 2 (id 5): no bbox, and polygons that are no list of x, y"),
        (0, {"iscrowd": 2}, "annotation 0 (id 1): iscrowd is 2: say 0 or 1"),
    ],
)
def test_an_annotation_that_cannot_be_used_is_named(tmp_path: Path, row: int, change: dict[str, Any], message: str):
    content = annotations()
    content["annotations"][row] |= change
    with pytest.raises(UserError) as caught:
        read_truth(written(tmp_path, content))
    assert str(caught.value).startswith(f"{tmp_path / 'file.json'}: {message}")


def test_an_image_that_is_listed_twice(tmp_path: Path):
    content = annotations()
    content["images"][1]["id"] = 7
    with pytest.raises(UserError, match="image 7 is listed twice: remove one"):
        read_truth(written(tmp_path, content))


def test_nothing_is_listed(tmp_path: Path):
    content = annotations() | {"images": [], "annotations": []}
    with pytest.raises(UserError, match="image_id 3 is not listed in the annotations: they list none"):
        both(tmp_path, content, results())


def test_many_images_keep_their_places(tmp_path: Path):
    rng = np.random.default_rng(0)
    ids = rng.permutation(1000)[:50].tolist()
    content = annotations() | {"images": [{"id": i, "file_name": f"{i}.png"} for i in ids], "annotations": []}
    place = rng.integers(50, size=200)
    found = [{"image_id": ids[k], "category_id": 2, "bbox": [0, 0, 1, 1], "score": 0} for k in place]
    read = read_found(written(tmp_path, found, "found.json"), read_truth(written(tmp_path, content)))
    assert read.image.tolist() == place.tolist()
