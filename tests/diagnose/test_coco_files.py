"""From two COCO files to truth and detections: the same as from scenes, and from there to the attribution."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from boresight.core.types import Detections, Scene
from boresight.diagnose.attribution import attribute_errors
from boresight.diagnose.coco_files import coco_files
from boresight.evaluate.box_set import BoxSet

ANNOTATIONS = {
    "images": [
        {"id": 7, "file_name": "b.png", "width": 64, "height": 48},
        {"id": 3, "file_name": "a.png", "exhaustive_category_ids": [9]},
        {"id": 4, "file_name": "c.png"},
    ],
    "categories": [{"id": 9, "name": "ship"}, {"id": 2, "name": "plane"}],
    "annotations": [
        {"id": 1, "image_id": 3, "category_id": 9, "bbox": [1, 2, 3, 4]},
        {"id": 2, "image_id": 7, "category_id": 2, "bbox": [0, 0, 10, 10], "iscrowd": 1},
        {"id": 3, "image_id": 3, "category_id": 2, "bbox": [20, 20, 4, 4]},
        {"id": 4, "image_id": 7, "category_id": 9, "bbox": [30, 30, 8, 8]},
    ],
}
RESULTS = [
    {"image_id": 3, "category_id": 2, "bbox": [40, 40, 5, 5], "score": 0.5},  # open: planes are not all labelled there
    {"image_id": 7, "category_id": 9, "bbox": [30, 30, 8, 8], "score": 0.75},
    {"image_id": 3, "category_id": 9, "bbox": [1, 2, 3, 4], "score": 0.75},
    {"image_id": 7, "category_id": 2, "bbox": [1, 1, 2, 2], "score": 0.25},  # in the crowd
]


def files(folder: Path) -> tuple[Path, Path]:
    paths = folder / "truth.json", folder / "found.json"
    for path, content in zip(paths, (ANNOTATIONS, RESULTS), strict=True):
        path.write_text(json.dumps(content), encoding="utf-8")
    return paths


def scenes() -> tuple[list[Scene], list[Detections]]:
    """The same by hand; planes are class 0."""

    def one(name, image_id, boxes, labels, crowd, exhaustive=None):
        as_boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        return Scene(
            torch.zeros(1, 1, 1),
            name,
            image_id,
            boxes=as_boxes,
            labels=torch.tensor(labels, dtype=torch.long),
            ignore=torch.tensor(crowd, dtype=torch.bool),
            exhaustive=exhaustive,
        )

    def guess(boxes, scores, labels):
        as_boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        n = len(scores)
        return Detections(as_boxes, torch.tensor(scores).reshape(n), torch.tensor(labels).long(), torch.full((n,), -1))

    truth = [
        one("b.png", 7, [[0, 0, 10, 10], [30, 30, 38, 38]], [0, 1], [True, False]),
        one("a.png", 3, [[1, 2, 4, 6], [20, 20, 24, 24]], [1, 0], [False, False], torch.tensor([False, True])),
        one("c.png", 4, [], [], []),
    ]
    found = [
        guess([[30, 30, 38, 38], [1, 1, 3, 3]], [0.75, 0.25], [1, 0]),
        guess([[40, 40, 45, 45], [1, 2, 4, 6]], [0.5, 0.75], [0, 1]),
        guess([], [], []),
    ]
    return truth, found


def test_the_files_give_what_scenes_give(tmp_path: Path):
    read = coco_files(*files(tmp_path))
    expected = BoxSet.of(*scenes())
    for name in BoxSet.__slots__:
        np.testing.assert_array_equal(getattr(read.boxes, name), getattr(expected, name), err_msg=name)
    assert read.boxes.rank.tolist() == [1, 3, 2, 0]  # of equal scores, image 3 comes before image 7
    assert (read.classes, read.names) == (("plane", "ship"), ("b.png", "a.png", "c.png"))
    assert (read.category_ids.tolist(), read.image_ids.tolist()) == ([2, 9], [7, 3, 4])
    assert read.sizes == ((48, 64), None, None)


def test_from_files_to_the_attribution(tmp_path: Path):
    read = coco_files(*files(tmp_path))
    result = attribute_errors(read.boxes, read.classes, replicates=0)
    # Two ships hit; one plane missed; one detection excused by a crowd, one because not every plane is labelled.
    assert (result.hits, result.excused, result.ap.value) == (2, 2, pytest.approx(0.5))
    assert [g.count for g in result.kinds] == [0, 0, 0, 0, 0, 1]
    assert result.kinds[5].alone.value == pytest.approx(0.5)
