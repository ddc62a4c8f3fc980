"""Tables of runs that find boxes, by hand."""

from __future__ import annotations

from dataclasses import replace

from boresight.report.box_tables import class_table, figure_names, overview
from boresight.report.reading import RunData


def run(name: str, *, detector: str = "text", n: int = 3, ap50: float | None = 0.5) -> RunData:
    classes = {"red ship": {"n": n, "ap": 0.2, "ap50": ap50}, "blue ship": {"n": 0, "ap": None, "ap50": None}}
    judged = {"ap50": ap50, "f1": 0.25, "mean_iou": 0.3, "intervals": {"ap50": [0.4, 0.6]}, "per_class": classes}
    done = {"parameters": 1234, "seconds": 61.25}
    return RunData(name, 0, {"detector": detector}, None, None, judged, done, [], [], [])


def test_an_overview_by_hand():
    rows = {r[0]: r[1:] for r in overview([run("a"), run("b", ap50=None)]).rows}
    assert rows["AP50"] == ["0.500 [0.400, 0.600]", "—"]
    assert rows["F1 at the threshold"] == ["0.250", "0.250"]
    assert rows["presence AUC"] == ["—", "—"]
    assert rows["parameters"] == ["1\u202f234"] * 2
    assert rows["seconds of training"] == ["61.2"] * 2


def test_rows_are_those_of_the_systems_shown():
    text, places = run("a"), run("b", detector="localise")
    assert "mean_iou" not in figure_names([text])
    assert "f1" not in figure_names([places])
    both = figure_names([text, places])
    assert {"mean_iou", "f1"} <= set(both)
    assert both["ap50"] == "AP50"


def test_a_run_that_is_not_judged_has_dashes():
    young = replace(run("a"), evaluation=None, done=None)
    assert {cell for r in overview([young]).rows for cell in r[1:]} == {"—"}
    assert class_table([young], set()) is None


def test_classes_by_hand():
    table = class_table([run("a")], {"red ship"})
    assert table.heads == ["Class", "Objects", "AP50", "AP"]
    assert table.rows == [["red ship (never trained)", "3", "0.500", "0.200"], ["blue ship", "0", "—", "—"]]


def test_objects_are_counted_once_where_the_runs_agree():
    assert class_table([run("a"), run("b")], set()).heads == [
        "Class",
        "Objects",
        "a: AP50",
        "a: AP",
        "b: AP50",
        "b: AP",
    ]
    table = class_table([run("a"), run("b", n=7)], set())
    assert table.heads == ["Class", "a: objects", "a: AP50", "a: AP", "b: objects", "b: AP50", "b: AP"]
    assert table.rows[0] == ["red ship", "3", "0.500", "0.200", "7", "0.500", "0.200"]
