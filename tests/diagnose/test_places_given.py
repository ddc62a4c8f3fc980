"""A detector that is told where objects lie: what is asked of it, what is not, and which faults are named."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from boresight.core.emission import Emission
from boresight.core.types import Scene
from boresight.diagnose.audit import audit
from boresight.diagnose.diagnosis import diagnose
from boresight.diagnose.places_given import PlacesGiven, central
from boresight.diagnose.plant import FAULTS, plant
from boresight.diagnose.truth import Truth

_spec = importlib.util.spec_from_file_location("diagnose_grid", Path(__file__).with_name("grid.py"))
grid = sys.modules.setdefault("diagnose_grid", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(grid)


class Unscored(grid.Made):
    """Every cell in an object boxes it well; the scores are noise."""

    def emit(self, scene):
        e = super().emit(scene)
        owner = self._owner(scene, e.centres)
        on = owner >= 0
        boxes = torch.where(on[:, None], scene.boxes[owner.clamp(min=0)] * 1.01, e.boxes[0])
        noise = torch.rand(e.scores.shape, generator=torch.Generator().manual_seed(scene.image_id))
        return replace(e, boxes=boxes[None], scores=noise)


@pytest.fixture(scope="module")
def scenes():
    return grid.made_scenes(80)


def told(source, scenes):
    return diagnose(audit(source, scenes), threshold=0.5, replicates=60)


def test_scores_that_were_given_are_not_judged(scenes):
    found = told(PlacesGiven(Unscored(), "no score is learned"), scenes)
    assert found.verdict.word == "healthy", found.verdict.sentence
    assert found.figures["missing"]["scores"] == "no score is learned"
    assert {"class", "near_score", "score_everywhere", "background"} <= found.figures["missing"].keys()
    assert found.figures["calibration"] == {"all": None, "missing": "no score is learned"}
    assert found.figures["threshold"]["threshold"] is None
    assert found.figures["ranking"]["separation"] is None
    assert {"box", "starved"} <= found.gains.ap50.keys()
    assert found.figures["attribution"]["ap50"]["value"] > 0.95
    assert told(Unscored(), scenes).figures["attribution"]["ap50"]["value"] < 0.3


@pytest.mark.parametrize("fault", ["box", "shift", "scale", "starved"])
def test_faults_of_its_boxes_are_named(scenes, fault):
    found = told(plant(PlacesGiven(Unscored(), "no score is learned"), fault), scenes)
    assert found.verdict.word == FAULTS[fault], found.verdict.sentence


def test_the_most_central_cell_speaks_first():
    """On paper: 3 x 3 cells of 8 px; an object over the first two columns of the upper row, and one between cells."""
    centres = torch.tensor([[4.0 + 8 * x, 4.0 + 8 * y] for y in range(3) for x in range(3)])
    boxes = torch.tensor([[0.0, 0.0, 14.0, 8.0], [18.0, 17.0, 19.0, 18.0], [0.0, 16.0, 8.0, 24.0]])
    scene = Scene(torch.zeros(3, 24, 24), "s", boxes=boxes, labels=torch.tensor([0, 0, 1]))
    emission = Emission(torch.zeros(1, 9, 4), torch.zeros(2, 9), (24, 24), centres)
    scores = central(emission, Truth.of(scene, 2))
    first, second = (4 / 10) ** 0.5, (2 / 12) ** 0.5
    assert scores[0].tolist() == pytest.approx([1.0, second / first, 0, 0, 0, 0, 0, 0, 1.0])
    assert scores[1].tolist() == [0, 0, 0, 0, 0, 0, 1.0, 0, 0]


def test_cells_without_places_cannot_be_told(scenes):
    class Queries(Unscored):
        def emit(self, scene):
            return replace(super().emit(scene), centres=None, strides=None)

    with pytest.raises(ValueError, match="cells have no place"):
        audit(PlacesGiven(Queries(), "r"), scenes[:1])
