"""A fault that is planted in a good detector is named by the verdict, whatever the detector."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from boresight.core.emission import Emission
from boresight.diagnose.audit import audit
from boresight.diagnose.diagnosis import diagnose
from boresight.diagnose.plant import FAULTS, plant

_spec = importlib.util.spec_from_file_location("diagnose_grid", Path(__file__).with_name("grid.py"))
grid = sys.modules.setdefault("diagnose_grid", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(grid)


@pytest.fixture(scope="module")
def scenes():
    return grid.made_scenes(80)


class Strict(grid.Made):
    """Trains the cells near the centres of objects alone."""

    def supervise(self, emission, scene):
        told = super().supervise(emission, scene)
        middle = (scene.boxes[:, :2] + scene.boxes[:, 2:])[told.object] / 2
        near = (emission.centres[told.cell] - middle).abs().amax(1) < 6
        return replace(told, cell=told.cell[near], object=told.object[near], positive=told.positive[near])


class PerClass(grid.Made):
    """Every class has a box of its own."""

    def emit(self, scene):
        e = super().emit(scene)
        return Emission(e.boxes.expand(3, -1, -1).clone(), e.scores, e.size, e.centres, e.strides)


def told(source, scenes, threshold=None):
    return diagnose(audit(source, scenes), threshold=threshold, replicates=60)


CASES = [(k, f) for k in (grid.Made, Strict, PerClass) for f in FAULTS if f != "untrained"] + [(Strict, "untrained")]
"""The others train every cell in an object."""


@pytest.mark.parametrize(("kind", "fault"), CASES)
def test_the_fault_is_named(scenes, kind, fault):
    found = told(plant(kind(), fault), scenes)
    assert found.verdict.word == FAULTS[fault], found.verdict.sentence


@pytest.mark.parametrize("kind", [grid.Made, Strict, PerClass])
def test_without_a_fault_all_is_well(scenes, kind):
    assert told(kind(), scenes).verdict.word == "healthy"


@pytest.mark.parametrize("fault", ["threshold", "duplicates", "limit"])
def test_a_selection_that_is_not_known_cannot_be_changed(fault):
    with pytest.raises(ValueError, match="does not say how"):
        plant(grid.Made(decoding=None), fault)


def test_an_image_draws_the_same_every_time(scenes):
    one, two = (plant(grid.Made(), "score", seed=3).emit(scenes[0]).scores for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, plant(grid.Made(), "score", seed=4).emit(scenes[0]).scores)


def test_unknown_faults_and_single_classes_are_refused(scenes):
    with pytest.raises(ValueError, match="unknown fault `luck`; known: class, score"):
        plant(grid.Made(), "luck")

    class One(grid.Made):
        def emit(self, scene):
            e = super().emit(scene)
            return replace(e, scores=e.scores[:1])

    with pytest.raises(ValueError, match="no other to take an object for"):
        plant(One(), "class").emit(scenes[0])
