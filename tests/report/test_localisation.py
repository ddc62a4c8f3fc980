"""The localisation part of a page: every figure of the report is there, and what is missing or damaged is said."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

from boresight.core.errors import UserError
from boresight.evaluate.floors import FLOORS
from boresight.evaluate.selection import RUNGS
from boresight.report import localisation as part
from boresight.report.localisation import estimate, frozen_words
from boresight.report.reading import RunData


@pytest.fixture
def run(localised) -> RunData:
    same = {"clip": "abc"}
    judged = {"localisation": copy.deepcopy(localised), "frozen": same}
    done = {"frozen": {"before": same, "after": same}}
    return RunData("places", 2, {"detector": "localise"}, None, None, judged, done, [], [], [])


def test_every_rung_floor_and_table_is_there(run, localised):
    found = part.localisation(run)
    ladder = dict(found.tables)["Selection ladder"]
    assert [r[0] for r in ladder.rows] == [part.RUNGS[k] for k in RUNGS]
    assert all(len(r) == len(ladder.heads) for r in ladder.rows)
    oracle = localised["ladder"][-1]
    assert ladder.rows[-1][2] == estimate(oracle["acc_50"])
    assert ladder.rows[-1][3].endswith(part.FLOORS[oracle["floor_acc_50"]])
    floors = dict(found.more)["Every chance floor of every rung"].rows
    assert len(floors) == sum(len(r["floors"]) for r in localised["ladder"])
    for caption, table in (*found.tables, *found.more):
        assert table.rows, caption
        assert all(len(r) == len(table.heads) for r in table.rows), caption


def test_words_for_everything_that_has_a_name():
    assert set(part.RUNGS) == set(RUNGS)
    assert set(part.FLOORS) == set(FLOORS)


def test_the_verdict_comes_first_with_its_figures(run, localised):
    first, figures, change = part.localisation(run).verdict
    assert first == localised["verdict"]["sentence"] == "Undecided: too few to tell: 3 objects, 200 needed."
    assert "3 objects" in figures
    assert change == "What would change this: At least 197 more objects."


def test_the_drawings_say_what_they_show(run):
    titles = [p.title for p in part.localisation(run).panels]
    assert titles[:2] == ["The selection ladder and its chance floors", "Best cell of the true class"]
    ladder, histogram = (str(p.drawing) for p in part.localisation(run).panels[:2])
    assert "any cell, the best 1.00" in ladder
    assert "floors: class predicted, best-scored random boxes" in ladder
    assert "var(--s2)" in ladder
    assert "most in IoU" in histogram


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"value": None, "n": 0, "interval": None}, "—"),
        ({"value": 0.5, "n": 3, "interval": None}, "0.50"),
        ({"value": -0.125, "n": 3, "interval": (-0.5, 0.25)}, "−0.12 [−0.50, 0.25]"),
    ],
)
def test_an_estimate_by_hand(value, text):
    assert estimate(value) == text


def test_the_frozen_encoder_is_compared(run):
    assert frozen_words(run).startswith("The frozen encoder is unchanged: the same hash in 3 records (clip abc)")
    other = replace(run, evaluation={"frozen": {"clip": "xyz"}})
    assert frozen_words(other).startswith("The frozen encoder has changed")
    assert "cannot be compared" in frozen_words(replace(run, done=None))


def test_one_class_has_no_wrong_channel_and_a_map_is_not_needed(run):
    said = run.evaluation["localisation"]
    said["wrong_channel"], said["cam"], said["oracle_against_cells"] = (), None, ()
    found = part.localisation(run)
    assert "Mean IoU in the wrong channel" not in dict(found.tables)
    assert len(found.panels) == 2


def test_what_is_absent_is_said(run):
    assert "no localisation report" in part.localisation(replace(run, evaluation={"ap50": 0.1})).note
    assert "not evaluated yet" in part.localisation(replace(run, evaluation=None)).note


def test_a_report_that_cannot_be_read_is_named(run):
    del run.evaluation["localisation"]["ladder"][0]["acc_50"]
    with pytest.raises(UserError, match=r"places: .*acc_50.*evaluate the run again"):
        part.localisation(run)
