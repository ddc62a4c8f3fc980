"""Classes put in another order, or left out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.core.types import Scene
from boresight.data.relabel import Relabelled

CLASSES = ("car", "ship", "plane", "tank")


class Source:
    """Frames that are given."""

    def __init__(self, *scenes: Scene, classes=CLASSES) -> None:
        self.scenes, self.classes = scenes, classes

    @property
    def names(self):
        return [s.name for s in self.scenes]

    def __len__(self):
        return len(self.scenes)

    def __getitem__(self, index):
        return self.scenes[index]


def scene(labels, **more) -> Scene:
    """Box ``k`` lies at ``k``."""
    corner = torch.arange(len(labels), dtype=torch.float32)[:, None].expand(-1, 2)
    boxes = torch.cat((corner, corner + 5), dim=1)
    return Scene(torch.zeros(3, 20, 20), "a", 7, boxes=boxes, labels=torch.tensor(labels, dtype=torch.long), **more)


def test_by_hand():
    source = Source(scene([3, 0, 1, 3], ignore=torch.tensor([False, False, True, True])))
    found = Relabelled(source, ("tank", "ship"))[0]
    assert found.labels.tolist() == [0, 1, 0]
    assert found.boxes[:, 0].tolist() == [0, 2, 3]
    assert found.ignore.tolist() == [False, True, True]
    assert (found.name, found.image_id) == ("a", 7)
    assert source[0].labels.tolist() == [3, 0, 1, 3]


def test_names_length_and_classes_are_those_asked_for():
    frames = Relabelled(Source(scene([0]), scene([1])), ["ship", "car"])
    assert frames.names == ["a", "a"]
    assert len(frames) == 2
    assert frames.classes == ("ship", "car")


def test_what_is_labelled_exhaustively_follows_its_class():
    known = torch.tensor([True, False, True, False])
    assert Relabelled(Source(scene([0], exhaustive=known)), ("tank", "plane", "car"))[0].exhaustive.tolist() == [
        False,
        True,
        True,
    ]


def test_unknown_truth_stays_unknown():
    unknown = Scene(torch.zeros(3, 20, 20), "a", exhaustive=torch.tensor([True, False, True, True]))
    found = Relabelled(Source(unknown), ("ship",))[0]
    assert found.boxes is None
    assert found.labels is None
    assert found.exhaustive.tolist() == [False]


def test_an_image_of_classes_that_nobody_asks_for_is_empty_and_not_unknown():
    found = Relabelled(Source(scene([0, 2])), ("ship",))[0]
    assert found.boxes.shape == (0, 4)
    assert found.labels.shape == (0,)


def test_a_class_that_the_source_does_not_have():
    with pytest.raises(ValueError, match="not in tuple"):
        Relabelled(Source(scene([0])), ("boat",))


@given(st.permutations(CLASSES), st.integers(0, 4), st.lists(st.integers(0, 3), max_size=6))
@settings(max_examples=30)
def test_every_box_keeps_the_name_of_its_class(order, count, labels):
    source = Source(scene(labels))
    frames = Relabelled(source, order[:count])
    found = frames[0]
    have = [(float(b[0]), frames.classes[k]) for b, k in zip(found.boxes, found.labels.tolist(), strict=True)]
    assert have == [(float(i), CLASSES[k]) for i, k in enumerate(labels) if CLASSES[k] in order[:count]]
    back = Relabelled(frames, [c for c in CLASSES if c in order[:count]])[0]
    assert len(back.labels) == len(found.labels)
