"""Coarse boxes of a run: what is moved, what a detector's file gives, and what is wrong with one."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from boresight.core.boxes import aligned_iou
from boresight.core.errors import UserError
from boresight.core.types import Proposals, Scene
from boresight.run.coarse import CoarseView, WithCoarse, read_results
from boresight.run.config_refine import CoarseSettings, RefineAugmentSettings

CLASSES = ("ship", "tank")
PLAIN = RefineAugmentSettings(turn=False, gain=0.0, shift=0.0)


def scene(index: int, ignore=(False, False, True)) -> Scene:
    boxes = torch.tensor([[5.0, 5.0, 25.0, 20.0], [30.0, 30.0, 50.0, 44.0], [0.0, 40.0, 10.0, 48.0]])
    image = torch.full((3, 48, 64), 40 + index, dtype=torch.uint8)
    return Scene(
        image, f"f{index}", index, boxes=boxes, labels=torch.tensor([0, 1, 0]), ignore=torch.tensor(list(ignore))
    )


class Frames:
    names = tuple(f"f{i}" for i in range(5))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Scene:
        return scene(index)


def ious(one: Scene) -> torch.Tensor:
    return aligned_iou(one.proposals.boxes, one.boxes[one.proposals.matched])


# --- boxes to be judged -----------------------------------------------------------------------------------------------


def test_judged_boxes_are_the_same_every_time_and_others_with_another_seed():
    settings = CoarseSettings(low=0.2, high=0.9, copies=3)
    one, again, other = (WithCoarse(Frames(), settings, seed)[2] for seed in (0, 0, 1))
    assert torch.equal(one.proposals.boxes, again.proposals.boxes)
    assert not torch.equal(one.proposals.boxes, other.proposals.boxes)
    assert one.proposals.matched.tolist() == [0, 0, 0, 1, 1, 1]  # crowds have none
    assert one.proposals.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert float(ious(one).min()) >= 0.19
    assert float(ious(one).max()) <= 0.91


def test_the_mean_overlap_is_that_of_the_range():
    settings = CoarseSettings(low=0.2, high=0.9, copies=40)
    every = torch.cat([ious(WithCoarse(Frames(), settings, 0)[i]) for i in range(5)])
    assert float(every.mean()) == pytest.approx(0.55, abs=0.03)


def test_an_image_without_objects_has_no_coarse_boxes():
    class Empty(Frames):
        def __getitem__(self, index: int) -> Scene:
            return replace(scene(index), boxes=torch.zeros(0, 4), labels=torch.zeros(0).long(), ignore=None)

    assert len(WithCoarse(Empty(), CoarseSettings(), 0)[0].proposals) == 0
    view = CoarseView(CoarseSettings(), RefineAugmentSettings())
    assert len(view(Empty(), 0, np.random.default_rng(0)).proposals) == 0


def test_a_detector_s_boxes_stand_for_the_object_they_overlap_most():
    boxes = torch.tensor([[5.0, 5.0, 25.0, 18.0], [30.0, 30.0, 50.0, 40.0], [40.0, 0.0, 60.0, 9.0]])
    given = Proposals(boxes, torch.tensor([0, 0, 1]), torch.tensor([0.9, 0.8, 0.7]))
    frames = WithCoarse(Frames(), CoarseSettings(), 0, {2: given})
    assert frames[2].proposals.matched.tolist() == [0, -1, -1]  # the second names the wrong class
    assert torch.equal(frames[2].proposals.scores, given.scores)
    assert len(frames[1].proposals) == 0  # nothing was found there


# --- training views ---


def test_a_view_draws_so_many_boxes_spread_over_the_objects():
    view = CoarseView(CoarseSettings(per_image=7, train_low=0.1, train_high=1.0), PLAIN)
    one = view(Frames(), 0, np.random.default_rng(0))
    counts = torch.bincount(one.proposals.matched, minlength=3).tolist()
    assert sorted(counts[:2]) == [3, 4]
    assert counts[2] == 0
    assert torch.equal(one.image, scene(0).image)
    assert one.view is None
    assert one.proposals.turns is None
    few = CoarseView(CoarseSettings(per_image=1), PLAIN)
    seen = {int(few(Frames(), 0, np.random.default_rng(s)).proposals.matched) for s in range(20)}
    assert seen == {0, 1}


def test_a_view_follows_from_its_generator_alone():
    view = CoarseView(CoarseSettings(), RefineAugmentSettings())
    one, two = (view(Frames(), 1, np.random.default_rng(5)) for _ in range(2))
    other = view(Frames(), 1, np.random.default_rng(6))
    assert torch.equal(one.proposals.boxes, two.proposals.boxes)
    assert torch.equal(one.proposals.turns, two.proposals.turns)
    assert torch.equal(one.image, two.image)
    assert not torch.equal(one.proposals.boxes, other.proposals.boxes)


def test_clean_boxes_are_trained_as_well():
    view = CoarseView(CoarseSettings(train_low=0.1, train_high=1.0, per_image=200), PLAIN)
    found = ious(view(Frames(), 0, np.random.default_rng(0)))
    assert float(found.max()) > 0.98
    assert float(found.min()) < 0.15


def test_other_colours_keep_the_source_whose_features_are_read():
    one = CoarseView(CoarseSettings(), RefineAugmentSettings(shift=30.0))(Frames(), 0, np.random.default_rng(0))
    assert not torch.equal(one.image, scene(0).image)
    assert torch.equal(one.view.source.image, scene(0).image)
    assert torch.equal(one.view.to_source, torch.eye(2, 3))


@pytest.mark.parametrize(("share", "real"), [(0.0, False), (1.0, True)])
def test_a_share_of_the_views_shows_the_detector_s_boxes(share, real):
    given = Proposals(torch.tensor([[5.0, 5.0, 25.0, 18.0]] * 9), torch.zeros(9).long(), torch.linspace(1, 0.2, 9))
    view = CoarseView(CoarseSettings(real_share=share, per_image=4), PLAIN, {0: given})
    one = view(Frames(), 0, np.random.default_rng(0)).proposals
    assert len(one) == 4
    assert bool((one.boxes == given.boxes[0]).all()) is real
    if real:
        assert len(set(one.scores.tolist())) == 4  # four different ones


# --- files ---

ROW = {"image_id": 3, "category_id": 2, "bbox": [1, 2, 10, 20], "score": 0.5}


def written(tmp_path, content) -> object:
    file = tmp_path / "found.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def test_results_are_read_best_first_without_the_weak_ones(tmp_path):
    rows = [ROW, ROW | {"score": 0.9, "category_id": 1}, ROW | {"score": 0.001}, ROW | {"image_id": 4}]
    found = read_results(written(tmp_path, rows), CLASSES, min_score=0.01)
    assert sorted(found) == [3, 4]
    assert_close(found[3].scores, torch.tensor([0.9, 0.5]))
    assert found[3].labels.tolist() == [0, 1]
    assert_close(found[3].boxes[0], torch.tensor([1.0, 2.0, 11.0, 22.0]))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not JSON"),
        ({}, "a list of detections, got dict"),
        ([ROW, {"image_id": 1}], "entry 1 lacks a number ('bbox')"),
        ([ROW | {"bbox": [1, 2, 3]}], "entry 0 lacks a number"),
        ([ROW | {"bbox": [1, 2, 0, 5]}], "entry 0 has the box [1, 2, 0, 5], without area or not finite"),
        ([ROW | {"category_id": 3}], "entry 0 has category_id 3: the data has 1 to 2"),
        (["x"], "entry 0 lacks a number"),
    ],
)
def test_a_bad_file_is_named_with_the_entry(tmp_path, content, words):
    file = written(tmp_path, content)
    with pytest.raises(UserError) as error:
        read_results(file, CLASSES)
    assert str(file) in str(error.value)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.json: cannot be read"):
        read_results(tmp_path / "none.json", CLASSES)
