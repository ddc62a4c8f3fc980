"""Charts of runs that refine boxes: which bins are drawn, how many boxes stand above them, and what is said of them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from boresight.report.figures import MUTED, colour
from boresight.report.reading import RunData
from boresight.report.refine_charts import (
    LEAST,
    Dotted,
    charts,
    count_rows,
    dotted_panel,
    short_count,
    unpredicted,
    validation_panels,
)


def run(name: str, index: int = 0, *, counts=(5, 40, 9), calibrated: bool = True, metrics=()) -> RunData:
    """A run whose boxes of three bins start at 0.25, 0.55 and 0.85."""
    befores = (0.25, 0.55, 0.85)
    by_iou: dict[str, Any] = {
        f"{k}": {"n": n, "before": b, "after": b / 2 + 0.5, "improved": 0.9, "harmed": 0.125, "replaced": 0.625}
        for k, (n, b) in enumerate(zip(counts, befores, strict=True))
    }
    by_iou["none"] = {"n": 0, "before": None, "after": None, "improved": None, "harmed": None, "replaced": None}
    bins = [{"low": 0.5, "n": 50, "expected": 0.5, "reached": 0.4}, {"low": 0.9, "n": 2, "expected": 0.9, "reached": 1}]
    told = {"by_iou": by_iou, "calibration": {"error": 0.1, "bins": bins} if calibrated else None}
    return RunData(name, index, {}, None, None, told, None, list(metrics), [], [])


def words(drawing: str) -> str:
    """What a drawing says to those who cannot see it."""
    found = re.search(r'aria-label="([^"]*)"', drawing)
    assert found
    return found[1]


def written(drawing: str) -> list[str]:
    """The texts of a drawing."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", drawing)


def test_a_chart_for_each_question():
    panels = {p.title: p.drawing for p in charts([run("a")])}
    assert list(panels) == [
        "IoU after against before, by bin",
        "Share improved, by IoU before",
        "Share made worse, by IoU before",
        "Share replaced, by IoU before",
        "Predicted IoU against reached",
    ]
    after, improved, worse, replaced, predicted = (words(d) for d in panels.values())
    assert after == (
        "IoU after against IoU before: a: 0.25 to 0.62 (5 boxes), 0.55 to 0.78 (40 boxes), 0.85 to 0.93 (9 boxes)"
    )
    assert improved.startswith("share improved against IoU before: a: 0.25 to 0.90 (5 boxes)")
    assert "0.25 to 0.12 (5 boxes)" in worse
    assert "0.25 to 0.62 (5 boxes)" in replaced
    assert predicted == "IoU reached against predicted IoU: a: 0.50 to 0.40 (50 boxes)"  # the bin of two is left out


def test_the_line_where_nothing_changes_is_drawn_where_it_means_something():
    dashed = [("stroke-dasharray" in p.drawing) for p in charts([run("a")])]
    assert dashed == [True, False, False, False, True]


def test_bins_with_too_few_boxes_are_left_out():
    line = Dotted.of(run("a"), [{"n": LEAST - 1, "x": 0.1, "y": 0.2}, {"n": LEAST, "x": 0.3, "y": 0.4}], "x", "y")
    assert (line.x, line.y, line.counts) == ([0.3], [0.4], [LEAST])


def test_counts_stand_above_once_where_the_boxes_are_the_same():
    lines = [Dotted(name, [0.2, 0.8], [0.5, y], [17, 23], k) for k, (name, y) in enumerate((("a", 0.6), ("b", 0.9)))]
    assert count_rows(lines) == [(lines[0], MUTED)]
    texts = written(dotted_panel(lines, x_label="x", y_label="y"))
    assert (texts.count("17"), texts.count("23"), texts.count("boxes")) == (1, 1, 1)


def test_counts_stand_above_for_each_run_where_they_differ():
    lines = [Dotted("a", [0.2], [0.5], [17], 0), Dotted("b", [0.2], [0.6], [18], 1), Dotted("c", [], [], [], 2)]
    assert count_rows(lines) == [(lines[0], colour(0)), (lines[1], colour(1))]
    texts = written(dotted_panel(lines, x_label="x", y_label="y"))
    assert (texts.count("17"), texts.count("18"), texts.count("boxes")) == (1, 1, 2)
    assert "c" not in texts


def test_a_chart_without_any_bin_is_empty_and_whole():
    assert count_rows([Dotted("a", [], [], [], 0)]) == []
    assert "boxes" not in written(charts([run("a", counts=(1, 2, 0))])[0].drawing)


@pytest.mark.parametrize(
    ("n", "text"),
    [(0, "0"), (999, "999"), (1000, "1.0k"), (1250, "1.2k"), (9949, "9.9k"), (9950, "10k"), (123456, "123k")],
)
def test_a_count_has_four_characters_at_most(n, text):
    assert short_count(n) == text


def test_runs_without_a_predicted_iou_are_named():
    ours, base = run("ours"), run("base", 1, calibrated=False)
    assert unpredicted([ours]) == ""
    assert unpredicted([ours, base]) == "No predicted IoU, and so no line in the last chart: base."
    assert unpredicted([base]) == "No run predicts an IoU, so there is no chart of its calibration."
    assert [p.title for p in charts([base])][-1] == "Share replaced, by IoU before"
    assert "base" not in words(charts([ours, base])[-1].drawing)


def test_no_run_has_no_chart():
    assert charts([]) == []


def test_validation_shows_only_what_is_written():
    rows = [{"step": s, "val_iou_after": 0.1 * s if s > 1 else None} for s in (1, 2, 3)]
    (panel,) = validation_panels([run("a", metrics=rows), run("b", 1)])
    assert panel.title == "Validation: mean IoU after"
    assert words(panel.drawing) == "Validation: mean IoU after: a from 0.2 to 0.3"
    assert validation_panels([run("a", metrics=rows[:1])]) == []
    both = validation_panels([run("a", metrics=[r | {"val_iou_all_replaced": 0.5} for r in rows])])
    assert [p.title for p in both][1:] == ["Validation: mean IoU, every box replaced"]
