"""What holds a refiner back, on boxes whose IoUs are known."""

from __future__ import annotations

import numpy as np
import pytest

from boresight.diagnose.refinement import SAYS, diagnose_refined
from boresight.evaluate.refinement import Refined


def data(before, moved, replaced, images: int = 40) -> Refined:
    before, moved, replaced = (np.asarray(v) for v in (before, moved, replaced))
    n = len(before)
    return Refined(
        images=images,
        image=np.sort(np.arange(n) % images),
        label=np.zeros(n, np.int64),
        side=np.full(n, 40.0),
        before=before,
        after=np.where(replaced, moved, before),
        moved=moved,
        replaced=replaced,
    )


def told(before, moved, replaced, confidence=None, **more):
    given = data(before, moved, replaced)
    confidence = np.full(len(given.before), 0.5) if confidence is None else confidence
    return diagnose_refined(given, confidence, ["a"], replicates=50, **more)


def test_gains_on_paper():
    before = np.tile([0.5, 0.9], 150)
    moved = np.tile([0.8, 0.7], 150)
    replaced = np.tile([True, True], 150)
    gains = told(before, moved, replaced, confidence=np.tile([0.9, 0.1], 150)).gains
    assert gains["box"].value == pytest.approx((0.2 + 0.3) / 2)
    assert gains["score"].value == pytest.approx(0.2 / 2)
    assert gains["threshold"].value == pytest.approx(0.2 / 2)  # a cut between the two keeps the good box
    assert set(gains) == set(SAYS)


def test_a_decision_that_takes_the_wrong_ones_is_named():
    n = 300
    better = np.arange(n) % 2 == 0
    before, moved = np.where(better, 0.5, 0.98), np.where(better, 0.98, 0.5)
    found = told(before, moved, ~better)
    assert found.verdict.word == "score"
    assert "mean IoU" in found.verdict.sentence


def test_a_confidence_that_asks_for_too_much_is_named():
    n = 300
    found = told(np.full(n, 0.5), np.full(n, 0.9), np.zeros(n, bool), confidence=np.linspace(0.2, 0.8, n))
    assert found.verdict.word == "threshold"
    assert found.gains["threshold"].value == pytest.approx(0.4)


def test_loose_boxes_are_named():
    n = 300
    assert told(np.full(n, 0.5), np.full(n, 0.6), np.ones(n, bool)).verdict.word == "box"


def test_tight_boxes_are_healthy_and_few_are_too_few():
    n = 300
    assert told(np.full(n, 0.5), np.full(n, 0.98), np.ones(n, bool)).verdict.word == "healthy"
    assert told(np.full(40, 0.5), np.full(40, 0.6), np.ones(40, bool)).verdict.word == "too few to tell"


def test_as_json_it_is_plain():
    import json

    plain = json.loads(json.dumps(told(np.full(300, 0.5), np.full(300, 0.6), np.ones(300, bool)).to_dict()))
    assert plain["gains"]["box"]["says"] == SAYS["box"]
    assert plain["refinement"]["iou_after"] == pytest.approx(0.6)
    assert "buckets" in plain["missing"]
