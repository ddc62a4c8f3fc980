"""Columns of a comparison: one for every figure of the recipe, in its order."""

from __future__ import annotations

import pytest

from boresight.report.columns import KNOWN, TOO_WIDE, Columns
from boresight.run.recipes import RECIPES


@pytest.mark.parametrize("kind", RECIPES, ids=lambda r: r.name)
def test_every_figure_of_a_recipe_has_a_column_with_words(kind):
    columns = Columns.of({"detector": kind.name})
    own = [k for k in kind.figures if k not in TOO_WIDE]
    steps = [f"steps_to_{s}_of_final_{kind.monitor}" for s in ("0.8", "0.9")]
    assert [f.key for f in columns.figures] == own + steps
    assert set(own) <= {f.key for f in KNOWN}
    assert len(columns.headings) == len(columns.figures) + 1
    assert len(columns.difference_headings) == len(columns.headings) + ("f1" in own)


def test_a_figure_without_words_is_shown_all_the_same(monkeypatch):
    monkeypatch.setattr("boresight.report.columns.KNOWN", ())
    assert Columns.of({"detector": "localise"}).headings[:3] == ["Variant", "mean iou", "ap50"]


def test_an_old_comparison_is_of_points():
    assert Columns.of({}) == Columns.of({"detector": "point"})
    assert Columns.of({}).monitor_name == "F1"
