"""The diagnosis on a page: every figure is there, what is missing is said, what is named by a user is escaped."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from boresight.core.errors import UserError
from boresight.diagnose.audit import audit
from boresight.diagnose.diagnosis import diagnose
from boresight.diagnose.finding import Finding
from boresight.diagnose.refinement import diagnose_refined
from boresight.evaluate.refinement import Refined
from boresight.report import diagnosis as part
from boresight.report.diagnosis import diagnosis_part
from boresight.report.displaced import displaced_gallery
from boresight.report.reading import FrameStore, RunData

_file = Path(__file__).parents[1] / "diagnose" / "grid.py"
_spec = importlib.util.spec_from_file_location("diagnose_grid", _file)
grid = sys.modules.setdefault("diagnose_grid", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(grid)


@pytest.fixture(scope="module")
def said() -> dict:
    """What `diagnosis.json` holds of a made detector with a finding, a remedy and a proof."""
    finding = Finding("loader-bound", "warning", "<b>slow</b>", {"share": 0.97, "of": "step"}, "c", "r", source="s")
    told = diagnose(audit(grid.Made("class"), grid.made_scenes(80)), findings=[finding], replicates=40)
    change = {"difference": {"estimate": 0.1, "low": 0.05, "high": 0.15}}
    sides = {side: {"mean": mean} for side, mean in (("as_it_is", 0.4), ("remedy", 0.5))}
    proof = {"change": {"a.b": True}, "seeds": 3, "steps": 9, "figures": {"ap50": sides | change}}
    remedy = {"change_text": "--a.b true", "why": "it helps", "change": {"a.b": True}}
    return json.loads(
        json.dumps(told.to_dict() | {"detector": "text", "split": "val", "remedies": [remedy], "proof": proof})
    )


@pytest.fixture(scope="module")
def of_refiner() -> dict:
    """The same of a refiner whose confidence asks for too much."""
    n = 300
    before, moved = np.full(n, 0.5), np.full(n, 0.9)
    place, label, side, no = np.sort(np.arange(n) % 40), np.zeros(n, np.int64), np.full(n, 40.0), np.zeros(n, bool)
    data = Refined(40, place, label, side, before, before, moved, no)
    told = diagnose_refined(data, np.linspace(0.2, 0.8, n), ["a"], replicates=50)
    return json.loads(json.dumps(told.to_dict() | {"detector": "refine", "split": "val", "remedies": []}))


def run_of(said: dict | None, emissions: list | None = None) -> RunData:
    return RunData(
        "run", 0, {"detector": "text"}, None, None, None, None, [], [], [], diagnosis=said, emissions=emissions or []
    )


def test_every_table_is_whole(said):
    found = diagnosis_part(run_of(said))
    assert found.word == "classification"
    assert found.sentences[0] == said["verdict"]["sentence"]
    assert "looks at no output" in found.sentences[2]
    for caption, table in (*found.tables, *found.more, ("findings", found.findings), ("proof", found.proof)):
        assert table.rows, caption
        assert all(len(row) == len(table.heads) for row in table.rows), caption


def test_a_refiner_gains_mean_iou(of_refiner):
    found = diagnosis_part(run_of(of_refiner))
    assert found.word == "threshold"
    assert "300 coarse boxes" in found.sentences[2]
    assert "0.500 before, 0.500 after, 0.900 with every box replaced" in found.sentences[2]
    assert found.panels[0].title == "What mean IoU would gain if one thing were true"
    rows = dict(found.tables)["Every repair"].rows
    assert {row[0] for row in rows} == set(part.REFINER.values())
    assert dict((row[0], row[2]) for row in rows)["the confidence"].startswith("0.400")
    assert found.missing == ("buckets: a refiner emits a box for each coarse box, not for cells",)


def test_every_repair_has_words(said):
    assert set(said["attribution"]["gains"]) == set(part.REPAIRS)
    rows = dict(diagnosis_part(run_of(said)).more)["Every repair"].rows
    assert len(rows) == len(part.REPAIRS)
    assert set(part.MAIN) <= set(part.REPAIRS)


def test_the_drawings_say_what_they_show(said):
    gains, reliability = diagnosis_part(run_of(said)).panels
    assert "the class +0.7" in str(gains.drawing)
    assert "clearly better" in str(gains.drawing)
    assert "fits" in str(reliability.drawing)
    assert "Expected error" in reliability.note


def test_remedies_and_their_proof_are_told(said):
    found = diagnosis_part(run_of(said))
    assert found.remedies == ("--a.b true: it helps",)
    assert found.proof.rows == [["ap50", "0.400", "0.500", "+0.100 [+0.050, +0.150]"]]
    assert "3 paired seeds, 9 steps" in found.proof.heads[0]


def test_a_run_that_is_not_diagnosed_says_how():
    assert "boresight diagnose" in diagnosis_part(run_of(None)).note


def test_a_damaged_diagnosis_is_the_users_to_mend(said):
    spoilt = {k: v for k, v in said.items() if k != "ranking"}
    with pytest.raises(UserError, match=r"run: diagnosis\.json cannot be read .*diagnose the run again"):
        diagnosis_part(run_of(spoilt))


def test_what_is_missing_is_said(said):
    spoilt = said | {
        "missing": {"supervision": "closed source"},
        "assigner_looks_at_predictions": {"missing": "closed source"},
        "displacement": {"missing": "closed source"},
        "buckets": {},
        "gap": {},
    }
    found = diagnosis_part(run_of(spoilt))
    assert found.missing == ("supervision: closed source",)
    assert "assigner" not in found.sentences[2]
    assert dict(found.tables)["Where boxes come from"].rows == []


def test_no_displacement_is_a_sentence():
    assert "No kept box drove out" in displaced_gallery(run_of({"split": "val"}, []), FrameStore()).note


def test_frames_that_cannot_be_opened_are_said():
    row = {"displaced_iou": 0.9, "own_iou": 0.5, "bucket": "inside", "image": "x"}
    assert "cannot be opened" in displaced_gallery(run_of({"split": "val"}, [row]), FrameStore()).note
