"""Every word of the verdict on a detector in which its fault was planted, and the rule itself at its edges."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from boresight.core.emission import Missing
from boresight.core.types import Detections, Scene
from boresight.diagnose.audit import audit
from boresight.diagnose.diagnosis import diagnose
from boresight.diagnose.finding import Finding
from boresight.diagnose.gains import AtThreshold, assignment_gain, score_gain, with_threshold
from boresight.diagnose.of_files import diagnose_boxes
from boresight.diagnose.plant import plant
from boresight.diagnose.verdict import judge
from boresight.evaluate.box_set import BoxSet
from boresight.evaluate.estimate import Drawn, Estimate

_spec = importlib.util.spec_from_file_location("diagnose_grid", Path(__file__).with_name("grid.py"))
grid = sys.modules.setdefault("diagnose_grid", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(grid)


@pytest.fixture(scope="module")
def scenes():
    return grid.made_scenes(80)


WORDS = {
    "": "healthy",
    "class": "classification",
    "box": "box",
    "score": "score",
    "background": "background",
    "unsupervised": "assignment",
    "starved": "assignment",
}


@pytest.mark.parametrize("fault", WORDS)
def test_the_planted_fault_is_named(scenes, fault):
    told = diagnose(audit(grid.Made(fault), scenes), replicates=100)
    assert told.verdict.word == WORDS[fault], told.verdict.sentence


def test_a_threshold_that_is_too_high_is_named(scenes):
    told = diagnose(audit(grid.with_threshold(grid.Made(), 0.85), scenes), threshold=0.85, replicates=100)
    assert told.verdict.word == "threshold"


def test_few_images_are_too_few(scenes):
    told = diagnose(audit(grid.Made("class"), scenes[:10]), replicates=50)
    assert told.verdict.word == "too few to tell"
    assert "50 are needed" in told.verdict.sentence


class Random(grid.Made):
    """Nothing was learned: scores are drawn, and boxes, too small to fit anything."""

    def emit(self, scene):
        e = super().emit(scene)
        rng = torch.Generator().manual_seed(scene.image_id)
        corner = torch.rand(1, e.cells, 2, generator=rng) * grid.SIDE
        boxes = torch.cat((corner, corner + 2 + 4 * torch.rand(1, e.cells, 2, generator=rng)), -1)
        return replace(e, boxes=boxes, scores=torch.rand(e.scores.shape, generator=rng), centres=None, strides=None)

    def supervise(self, emission, scene):
        return Missing("nobody knows")


def test_a_detector_that_learned_nothing_is_not_healthy(scenes):
    told = diagnose(audit(Random(), scenes), replicates=50).verdict
    assert told.word == "several"
    assert "nothing was learned" in told.sentence


def test_the_repair_of_duplicates_is_named(scenes):
    told = diagnose(audit(plant(grid.Made(), "duplicates"), scenes), replicates=50).verdict
    assert (told.word, told.repair) == ("threshold", "duplicates")
    assert "without duplicates" in told.sentence


class RandomScores(grid.Made):
    """Every score is drawn at random; at most one box of an object stands a chance."""

    def emit(self, scene):
        e = super().emit(scene)
        rng = torch.Generator().manual_seed(scene.image_id)
        lone = torch.zeros(e.cells, dtype=torch.bool)
        lone[self._nearest(scene, e)] = True
        away = torch.cat((e.centres - 3, e.centres + 3), 1)
        boxes = torch.where(lone[:, None], e.boxes[0], away)[None]
        scores = torch.zeros_like(e.scores)
        scores[e.scores.argmax(0), torch.arange(e.cells)] = torch.rand(e.cells, generator=rng)
        return replace(e, boxes=boxes, scores=scores)

    def _nearest(self, scene, e):
        middle = (scene.boxes[:, :2] + scene.boxes[:, 2:]) / 2
        return (e.centres[:, None] - middle).square().sum(-1).argmin(0)


def test_a_score_that_does_not_tell_objects_from_the_background_is_named(scenes):
    told = diagnose(audit(RandomScores(), scenes), replicates=50)
    assert told.figures["ranking"]["separation"] < 0.15
    assert told.gains.ap50["background"].value > 0.8 * told.gains.ap50["score_everywhere"].value
    assert told.verdict.word == "score"


# --- the rule on figures ---


def drawn(value: float, spread: float = 0.01) -> Drawn:
    return Drawn(value, value + spread * np.linspace(-1, 1, 101), 300)


AP = Estimate(0.4, 300, (0.35, 0.45))
MANY = {"objects": 300, "emitted": 3000}


def word(gains, counts=MANY, findings=()):
    return judge({k: drawn(*np.atleast_1d(v)) for k, v in gains.items()}, ap50=AP, counts=counts, findings=findings)


LOW = Estimate(0.04, 300, (0.02, 0.06))


@pytest.mark.parametrize(("ap50", "expected"), [(Estimate(0.2, 300, (0.1, 0.3)), "healthy"), (LOW, "several")])
def test_no_repair_at_a_low_figure_is_not_health(ap50, expected):
    told = judge({"class": drawn(0.01)}, ap50=ap50, counts=MANY)
    assert (told.word, told.repair) == (expected, None)


@pytest.mark.parametrize("rule", ["background-trap", "no-better-than-constant"])
def test_a_score_that_learned_nothing_is_the_background(rule):
    finding = Finding(rule, "error", "the score is a constant", {}, "c", "r")
    assert judge({"class": drawn(0.01)}, ap50=LOW, counts=MANY, findings=[finding]).word == "background"
    assert judge({"class": drawn(0.3)}, ap50=LOW, counts=MANY, findings=[finding]).word == "classification"


def test_the_largest_gain_has_the_word():
    told = word({"class": 0.3, "box": 0.1})
    assert (told.word, told.runner_up, told.clear) == ("classification", "box", True)


def test_a_gain_whose_interval_reaches_down_to_noise_says_nothing():
    assert word({"class": (0.3, 0.5), "box": 0.1}).word == "box"
    assert word({"class": (0.06, 0.05)}).word == "healthy"


def test_a_more_particular_repair_wins_where_it_explains_nearly_as_much():
    assert word({"score": 0.5, "assignment": 0.45}).word == "assignment"
    assert word({"score": 0.5, "assignment": 0.3}).word == "score"


@pytest.mark.parametrize(
    ("inputs", "spread", "expected"),
    [(0.5, 0.01, "data"), (0.42, 0.01, "classification"), (0.42, 0.2, "data"), (0.3, 0.2, "classification")],
)
def test_another_form_of_the_images_must_repair_as_much_as_the_best(inputs, spread, expected):
    gains = {"class": drawn(0.5), "inputs": drawn(inputs, spread)}
    told = judge(gains, ap50=drawn(0.4).estimate(), counts=MANY, shown="upside down")
    assert told.word == expected
    assert ("Look at data: on images upside down, AP50 gains" in told.sentence) == (expected == "data")


def test_what_is_not_clear_is_said():
    told = word({"class": (0.30, 0.2), "box": (0.28, 0.02)})
    assert told.word == "classification"
    assert not told.clear
    assert "not clearly less" in told.sentence
    assert "more images" in told.overturn


@pytest.mark.parametrize(("objects", "expected"), [(49, "too few to tell"), (50, "classification")])
def test_fifty_objects(objects, expected):
    assert word({"class": 0.3}, {"objects": objects, "emitted": 3000}).word == expected


@pytest.mark.parametrize(("emitted", "expected"), [(199, "too few to tell"), (200, "classification")])
def test_two_hundred_boxes(emitted, expected):
    assert word({"class": 0.3}, {"objects": 300, "emitted": emitted}).word == expected


def test_few_boxes_because_of_the_threshold_are_the_thresholds_fault():
    assert word({"class": 0.3, "threshold": 0.2}, {"objects": 300, "emitted": 20}).word == "threshold"


def finding(rule: str, severity: str) -> Finding:
    return Finding(rule, severity, "x", {}, "y", "z")


def test_data_comes_before_everything():
    told = word({"class": 0.3}, findings=[finding("geometry-round-trip", "error")])
    assert told.word == "data"
    assert told.figures["finding"]["id"] == "geometry-round-trip"
    assert word({"class": 0.3}, findings=[finding("geometry-round-trip", "warning")]).word == "classification"
    assert word({"class": 0.3}, findings=[finding("loader-bound", "error")]).word == "classification"


def test_no_gain_can_be_asked():
    assert word({}).word == "healthy"
    assert "no repair could be tried" in word({}).sentence


# --- gains that are made of several ---


def test_ranking_near_objects_and_the_background_are_told_apart():
    near = {"score_everywhere": drawn(0.5), "background": drawn(0.1)}
    assert score_gain(near).value == pytest.approx(0.5)  # ranking costs 0.4: one fault explains both
    mostly = {"score_everywhere": drawn(0.5), "background": drawn(0.4)}
    assert score_gain(mostly).value == pytest.approx(0.1)
    assert score_gain({"background": drawn(0.1)}) is None


def test_assignment_is_the_larger_of_two():
    table = {"trained_cells": drawn(0.3), "inside_cells": drawn(0.1), "starved": drawn(0.05)}
    assert assignment_gain(table, True).value == pytest.approx(0.2)
    assert assignment_gain(table, False).value == pytest.approx(0.05)
    assert assignment_gain({}, True) is None


def test_the_threshold_costs_what_it_costs_most():
    told = AtThreshold(0.5, 0.3, drawn(0.4), drawn(0.7))
    assert with_threshold({"threshold": drawn(0.1)}, told)["threshold"].value == pytest.approx(0.3)
    assert with_threshold({"threshold": drawn(0.6)}, told)["threshold"].value == pytest.approx(0.6)
    unknown = AtThreshold(None, 0.3, None, drawn(0.7))
    assert with_threshold({}, unknown) == {}


# --- loose boxes, from files alone ---


def loose_boxes(share: float, seed: int = 0) -> BoxSet:
    """Every object is found once, by a box that lies off by ``share`` of its side to the right and down."""
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for k in range(110):
        corner = torch.tensor(rng.uniform(0, 40, (2, 2))).float() + torch.tensor([[0.0, 0.0], [50.0, 50.0]])
        boxes = torch.cat((corner, corner + 20.0), 1)
        labels = torch.tensor([0, 1])
        truth.append(Scene(torch.zeros(3, 8, 8), f"i{k}", k, boxes=boxes, labels=labels))
        scores = torch.tensor(rng.uniform(0.2, 0.9, 2)).float()
        found.append(Detections(boxes + 20.0 * share, scores, labels, torch.full((2,), -1)))
    return BoxSet.of(truth, found)


@pytest.mark.parametrize(("share", "word", "loose"), [(0.15, "box", True), (0.05, "healthy", False)])
def test_boxes_that_are_loose_at_a_perfect_ap50_are_named(share, word, loose):
    """Off by 0.15 of the side in both directions: an IoU of 0.57, found at 0.5 and lost from 0.6 on."""
    told = diagnose_boxes(loose_boxes(share), ("a", "b"), replicates=50)
    assert told.figures["loose_boxes"] is loose
    assert told.verdict.word == word, told.verdict.sentence
    assert told.attribution.ap.value == pytest.approx(1.0)
    if loose:
        assert told.verdict.figures["gains"]["box"]["value"] == pytest.approx(0.8)  # AP is 0.2: two IoUs of ten
        assert "AP50 or AP gains 0.80" in told.verdict.sentence
