"""Class maps and stored features, on a detector whose maps are drawn by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from boresight.core.emission import Missing
from boresight.core.types import DenseOutput, Scene
from boresight.diagnose.measure_maps import map_fit, stored

GRID, STRIDE = 8, 4.0


def scene(number: int, labels: Sequence[int]) -> Scene:
    """An object of 8 px in a corner of its own for each label."""
    corners = [(0.0, 0.0), (24.0, 0.0), (0.0, 24.0), (24.0, 24.0)]
    boxes = [[x, y, x + 8, y + 8] for x, y in corners[: len(labels)]]
    return Scene(torch.zeros(3, 32, 32), f"s{number}", number, boxes=torch.tensor(boxes), labels=torch.tensor(labels))


class Drawn(nn.Module):
    """Its map of class ``order[c]`` is one in the objects of class c and nought elsewhere."""

    def __init__(self, order: Sequence[int], sign: float = 1.0, height: float = 1.0) -> None:
        super().__init__()
        self.order, self.sign, self.height = list(order), sign, height

    def forward(self, scenes: Sequence[Scene]) -> DenseOutput:
        (one,) = scenes
        cam = torch.zeros(1, len(self.order), GRID, GRID)
        for box, label in zip(one.boxes, one.labels.tolist(), strict=True):
            x0, y0, x1, y1 = (box / STRIDE).long().tolist()
            cam[0, self.order[label], y0:y1, x0:x1] = 1.0
        cam = 0.5 + self.sign * self.height * (cam - 0.5)
        return DenseOutput(torch.zeros_like(cam), torch.zeros(*cam.shape, 4), STRIDE, cam=cam)


SCENES = [scene(k, [k % 3, (k + 1) % 3]) for k in range(12)]


def test_a_map_that_points_at_its_class():
    told = map_fit(Drawn([0, 1, 2]), SCENES)
    assert (told.pairs, told.own, told.own_error, told.flat) == (24, 1.0, 0.0, 0.0)
    assert told.lead == 0.0
    assert told.exchange == {0: 0, 1: 1, 2: 2}


def test_maps_of_other_classes_are_found_and_named():
    told = map_fit(Drawn([1, 2, 0]), SCENES)
    assert told.own == pytest.approx(0.5)  # level with the background, where nothing is
    assert told.lead == pytest.approx(0.5)
    assert told.exchange == {0: 1, 1: 2, 2: 0}


def test_a_map_turned_over_and_a_flat_one():
    assert map_fit(Drawn([0, 1, 2], sign=-1.0), SCENES).own == 0.0
    flat = map_fit(Drawn([0, 1, 2], height=0.0), SCENES)
    assert (flat.own, flat.lead, flat.flat) == (0.5, 0.0, 1.0)


def test_with_one_class_there_is_no_other_map():
    told = map_fit(Drawn([0]), [scene(k, [0]) for k in range(3)])
    assert (told.own, told.lead, told.lead_error) == (1.0, None, None)


def test_what_cannot_be_judged_is_said():
    class Bare(Drawn):
        def forward(self, scenes):
            found = super().forward(scenes)
            return DenseOutput(found.logits, found.boxes, STRIDE)

    assert map_fit(Bare([0, 1, 2]), SCENES[:1]) == Missing("there is no class map")
    tiny = Scene(torch.zeros(3, 32, 32), "t", 0, boxes=torch.tensor([[0.0, 0.0, 1.0, 1.0]]), labels=torch.tensor([0]))
    assert isinstance(map_fit(Drawn([0]), [tiny, tiny]), Missing)


class Shelf:
    """Gives back what was put there, whatever the image."""

    def __init__(self, kept: Tensor | None, fresh: Tensor) -> None:
        self.kept, self.fresh = kept, fresh

    def stored_and_fresh(self, one):
        return None if self.kept is None else ({"a": self.kept}, {"a": self.fresh})


def test_stored_features_against_those_made_now():
    value = torch.tensor([3.0, 4.0])
    assert stored(Shelf(value, value), SCENES[:3]).differ == 0.0
    told = stored(Shelf(torch.tensor([3.0, 3.0]), value), SCENES[:3])
    assert (told.images, told.differ, told.name) == (3, pytest.approx(0.2), "s0")
    assert stored(Shelf(torch.zeros(3), value), SCENES[:1]).differ == 1.0
    assert stored(Shelf(None, value), SCENES) == Missing("no frozen features are read")
