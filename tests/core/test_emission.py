from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
import torch

from boresight.core.emission import Decoding, Emission, Supervision


def emission(classes=2, cells=3, own_boxes=1, **more):
    boxes = torch.arange(own_boxes * cells * 4, dtype=torch.float32).reshape(own_boxes, cells, 4)
    return Emission(boxes, torch.zeros(classes, cells), (20, 30), **more)


def test_sizes():
    e = emission(2, 3)
    assert (e.classes, e.cells) == (2, 3)
    assert (emission(5, 0).classes, emission(5, 0).cells) == (5, 0)


def test_a_slot_is_a_class_of_a_cell():
    """Slot 4 of three cells is class 1 at cell 1: the shared box 1, or the second class's own."""
    slots = torch.tensor([4, 0, 2])
    assert emission().boxes_of(slots).tolist() == [[4, 5, 6, 7], [0, 1, 2, 3], [8, 9, 10, 11]]
    assert emission(own_boxes=2).boxes_of(slots).tolist() == [[16, 17, 18, 19], [0, 1, 2, 3], [8, 9, 10, 11]]
    assert emission().boxes_of(slots[:0]).shape == (0, 4)


def test_one_class_with_its_own_boxes_is_one_with_shared_boxes():
    assert emission(1, 3).boxes_of(torch.tensor([1])).tolist() == [[4, 5, 6, 7]]


@pytest.mark.parametrize("own_boxes", [0, 3])
def test_boxes_are_shared_or_one_a_class(own_boxes):
    with pytest.raises(ValueError, match=rf"Emission.boxes must have 1 or 2 boxes a cell, got {own_boxes}"):
        emission(2, 3, own_boxes)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"centres": torch.zeros(2, 2)}, r"Emission.centres must have shape \[3, 2\], got \[2, 2\]"),
        ({"strides": torch.zeros(3, 1)}, r"Emission.strides must have shape \[3\], got \[3, 1\]"),
        ({"level": torch.zeros(4)}, r"Emission.level must have shape \[3\], got \[4\]"),
    ],
)
def test_every_cell_has_its_place(more, message):
    with pytest.raises(ValueError, match=message):
        emission(**more)


def test_boxes_and_scores_speak_of_the_same_cells():
    with pytest.raises(ValueError, match=r"Emission.boxes must have shape \[\*, 3, 4\], got \[1, 2, 4\]"):
        Emission(torch.zeros(1, 2, 4), torch.zeros(2, 3), (20, 30))
    with pytest.raises(ValueError, match=r"Emission.scores must have shape \[\*, \*\]"):
        Emission(torch.zeros(1, 3, 4), torch.zeros(3), (20, 30))


def test_it_moves_with_everything_in_it():
    moved = emission(centres=torch.zeros(3, 2), level=torch.zeros(3, dtype=torch.long)).to("meta")
    assert {t.device.type for t in (moved.boxes, moved.scores, moved.centres, moved.level)} == {"meta"}
    assert moved.strides is None
    assert moved.size == (20, 30)


def test_supervision_is_pairs():
    cell, row = torch.tensor([4, 2]), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"Supervision.positive must have shape \[2\], got \[1\]"):
        Supervision(cell, row, torch.tensor([True]), by_prediction=False)
    pairs = Supervision(cell, row, torch.tensor([True, False]), by_prediction=True)
    assert pairs.to("meta").cell.device.type == "meta"
    assert pairs.to("meta").by_prediction


def test_a_decoding_is_a_setting():
    with pytest.raises(FrozenInstanceError):
        Decoding().threshold = 0.5  # type: ignore[misc]
    assert Decoding() == Decoding(threshold=0.0)
