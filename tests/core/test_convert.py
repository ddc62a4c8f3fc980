"""Detections go to the forms of other libraries and come back unchanged."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from boresight.core.convert import (
    coco_dataset,
    from_coco,
    from_supervision,
    from_torchvision,
    to_coco,
    to_supervision,
    to_torchvision,
)
from boresight.core.errors import UserError
from boresight.core.found import Found
from boresight.core.types import Detections

CLASSES = ("ship", "car", "tank")


@st.composite
def detections(draw, least: int = 0) -> Detections:
    """Detections best first, on a grid of 1/64 pixel so that COCO's widths are exact."""
    n = draw(st.integers(least, 6))
    corner = draw(arrays(np.int32, (n, 2), elements=st.integers(0, 64 * 5000)))
    side = draw(arrays(np.int32, (n, 2), elements=st.integers(0, 64 * 500)))
    scores = sorted(draw(st.lists(st.floats(0, 1, width=32), min_size=n, max_size=n)), reverse=True)
    labels = draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    cells = draw(st.lists(st.integers(-1, 2**40), min_size=n, max_size=n))
    boxes = torch.from_numpy(np.concatenate((corner, corner + side), axis=1) / 64).float().reshape(n, 4)
    return Detections(
        boxes, torch.tensor(scores), torch.tensor(labels, dtype=torch.long), torch.tensor(cells, dtype=torch.long)
    )


def same(one: Detections, other: Detections) -> None:
    for name in ("boxes", "scores", "labels", "cell"):
        have, want = getattr(one, name), getattr(other, name)
        assert have.dtype == want.dtype
        assert torch.equal(have, want), name


@given(detections())
def test_torchvision_and_back(found):
    same(from_torchvision(to_torchvision(found)), found)


@given(detections())
def test_supervision_and_back(found):
    pytest.importorskip("supervision", reason="the extra `supervision` is not installed")
    other = to_supervision(found, CLASSES)
    assert len(other) == len(found)
    assert list(other.data["class_name"]) == [CLASSES[k] for k in found.labels.tolist()]
    same(from_supervision(other), found)
    same(from_supervision(other[other.confidence >= 0]), found)  # the cell goes along when supervision selects


@given(detections(least=1), st.permutations([3, 7, 90]))
def test_coco_and_back(found, ids):
    rows = json.loads(json.dumps(to_coco(found, 12, ids)))
    assert all(row["image_id"] == 12 for row in rows)
    again = from_coco(rows, ids)
    assert list(again) == [12]
    same(again[12], found)


def test_coco_by_hand():
    found = Detections(
        torch.tensor([[10.0, 20.0, 40.0, 60.0]]), torch.tensor([0.5]), torch.tensor([1]), torch.tensor([7])
    )
    row = {"image_id": 3, "category_id": 9, "bbox": [10.0, 20.0, 30.0, 40.0], "score": 0.5, "cell": 7}
    assert to_coco(found, 3, [5, 9]) == [row]
    arrays_ = Found(found.boxes.numpy(), found.scores.numpy(), found.labels.numpy(), found.cell.numpy())
    assert to_coco(arrays_, 3, [5, 9]) == [row]
    third = Detections(torch.tensor([[1 / 3] * 4]), torch.tensor([1 / 3]), torch.tensor([0]), torch.tensor([0]))
    assert to_coco(third, 1, [1], digits=(2, 3))[0] | {"cell": 0} == {
        **{"image_id": 1, "category_id": 1, "cell": 0},
        **{"bbox": [0.33, 0.33, 0.0, 0.0], "score": 0.333},
    }


def test_coco_results_come_best_first_and_by_image():
    rows = [
        {"image_id": 2, "category_id": 1, "bbox": [0, 0, 2, 2], "score": 0.1},
        {"image_id": 1, "category_id": 2, "bbox": [0, 0, 3, 3], "score": 0.2},
        {"image_id": 2, "category_id": 2, "bbox": [1, 1, 4, 4], "score": 0.9},
    ]
    found = from_coco(rows, [1, 2])
    assert found[2].scores.tolist() == pytest.approx([0.9, 0.1])
    assert found[2].labels.tolist() == [1, 0]
    assert found[2].boxes[0].tolist() == [1, 1, 5, 5]
    assert found[1].cell.tolist() == [-1]


@pytest.mark.parametrize(
    "change", [{"bbox": [1, 2, 3]}, {"bbox": None}, {"category_id": 5}, {"score": "x"}, {"image_id": None}]
)
def test_an_entry_that_is_none_is_named(change):
    row = {"image_id": 2, "category_id": 1, "bbox": [0, 0, 2, 2], "score": 0.1}
    with pytest.raises(UserError, match="entry 1 lacks a number"):
        from_coco([row, row | change], [1])


def test_what_supervision_lacks():
    supervision = pytest.importorskip("supervision", reason="the extra `supervision` is not installed")
    found = from_supervision(supervision.Detections(np.array([[1.0, 2.0, 3.0, 4.0]])))
    assert (found.scores.tolist(), found.labels.tolist(), found.cell.tolist()) == ([1.0], [0], [-1])
    assert len(from_supervision(supervision.Detections.empty())) == 0


def test_supervision_is_asked_for_where_it_is_used(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    none = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long(), torch.zeros(0).long())
    with pytest.raises(UserError, match=r"pip install 'boresight\[supervision\]'"):
        to_supervision(none)


def test_a_dict_without_cells_and_with_other_integers():
    found = from_torchvision(
        {"boxes": torch.zeros(2, 4), "scores": torch.ones(2), "labels": torch.tensor([1, 2], dtype=torch.int32)}
    )
    assert found.cell.tolist() == [-1, -1]
    assert found.labels.dtype == torch.long
    with pytest.raises(KeyError):
        from_torchvision({"boxes": torch.zeros(0, 4)})


def test_a_data_set_of_detections_is_one_that_our_reader_takes(tmp_path):
    from PIL import Image

    from boresight.data.coco import coco_boxes

    found = Detections(
        torch.tensor([[10.0, 20.0, 40.0, 60.0], [1.0, 2.0, 5.0, 9.0]]),
        torch.tensor([0.9, 0.5]),
        torch.tensor([1, 0]),
        torch.tensor([7, 8]),
    )
    dataset = coco_dataset(["a.png", "b.png"], [(80, 100), (50, 60)], [found, None], ("ship", "car"))
    assert [a["score"] for a in dataset["annotations"]] == pytest.approx([0.9, 0.5])
    assert [a["area"] for a in dataset["annotations"]] == [1200.0, 28.0]
    (tmp_path / "boxes.json").write_text(json.dumps(dataset))
    for name, size in (("a.png", (100, 80)), ("b.png", (60, 50))):
        Image.new("RGB", size).save(tmp_path / name)
    frames = coco_boxes(tmp_path / "boxes.json", [tmp_path])
    assert frames.classes == ("ship", "car")
    assert torch.equal(frames[0].boxes, found.boxes)
    assert frames[0].labels.tolist() == [1, 0]
    assert len(frames[1].boxes) == 0
