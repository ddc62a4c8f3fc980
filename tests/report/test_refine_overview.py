"""The figures of a page of runs that refine boxes, in words and in tables, and that the page is whole."""

from __future__ import annotations

import re
from typing import Any

import pytest

from boresight.report.columns import Columns
from boresight.report.html import write_report
from boresight.report.reading import RunData
from boresight.report.refine_page import NAMES, figure, group_table, overview, sentence
from boresight.run.config_refine import RefineDataSettings, RefineSettings
from boresight.run.parse import nested
from boresight.run.record import RunFolder, read_parquet, write_json, write_parquet, write_yaml
from boresight.run.refine import refine_splits
from boresight.run.refine_examine import COLUMNS

EVIL = "<script>alert(1)</script>"
TOLD: dict[str, Any] = {
    "split": "test",
    "images": 8,
    "boxes": 40,
    "iou_before": 0.5,
    "iou_after": 0.75,
    "improved_share": 0.6,
    "harmed_share": 0.125,
    "threshold": 0.9,
    "intervals": {"iou_after": [0.7, 0.8], "harmed_share": None},
    "calibration": {"error": 0.0625, "bins": []},
    "by_iou": {"0.0-0.3": {"n": 9, "before": 0.2, "after": 0.8, "improved": 1.0, "harmed": 0.0, "replaced": 1.0}},
    "by_size": {
        "small": {"n": 30, "before": 0.4, "after": 0.7, "improved": 0.6, "harmed": 0.25, "replaced": 0.5},
        "large": {"n": 0, "before": None, "after": None, "improved": None, "harmed": None, "replaced": None},
    },
    "by_class": {EVIL: {"n": 40, "before": 0.5, "after": 0.75, "improved": 0.6, "harmed": 0.125, "replaced": 0.5}},
}


def told(name: str = "a", index: int = 0, **more: Any) -> RunData:
    """A run with these figures."""
    return RunData(name, index, {}, None, None, TOLD | more, {"parameters": 1234, "seconds": 6.5}, [], [], [])


# --- words -----------------------------------------------------------------------------------------------------------


def test_the_sentence_says_what_became_of_boxes_and_of_the_good_ones():
    assert sentence(told()) == (
        "a brings 40 coarse boxes from a mean IoU of 0.500 to 0.750; 60% of them improve, "
        "and of those that started above 0.8, 12.5% got worse."
    )


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"harmed_share": 0.0}, "of those that started above 0.8, none got worse."),
        ({"harmed_share": 0.0004}, "of those that started above 0.8, 0.0% got worse."),
        ({"harmed_share": None}, "none of them started above 0.8."),
        ({"iou_after": None}, "a: no coarse box stands for an object, so nothing can be judged."),
    ],
)
def test_the_sentence_where_there_is_nothing_to_count(more, said):
    assert sentence(told(**more)).endswith(said)


# --- the overview ----------------------------------------------------------------------------------------------------


def test_figures_carry_their_intervals():
    assert figure(told(), "iou_after") == "0.750 [0.700, 0.800]"
    assert figure(told(), "harmed_share") == "0.125"
    assert figure(told(), "calibration_error") == "0.062"
    assert figure(told(ap75_gain=0.02, ap75_gain_interval=[0.01, 0.03]), "ap75_gain") == "0.020 [0.010, 0.030]"
    assert (figure(told(), "parameters"), figure(told(), "seconds")) == ("1\u202f234", "6.5")
    assert figure(told(iou_after=None), "iou_after") == "—"


def test_the_overview_leaves_out_what_no_run_has():
    rows = {r[0]: r[1:] for r in overview([told(), told("b", ap75_before=0.25, calibration=None)]).rows}
    assert rows[NAMES["ap75_before"]] == ["—", "0.250"]
    assert rows[NAMES["calibration_error"]] == ["0.062", "—"]
    assert NAMES["ap75_after"] not in rows
    assert list(rows) == [name for name in NAMES.values() if name in rows]


def test_a_comparison_knows_what_is_better():
    columns = Columns.of({"detector": "refine"})
    better = {f.key: f.higher_is_better for f in columns.figures}
    assert (better["iou_after"], better["harmed_share"]) == (True, False)
    assert (columns.monitor, columns.monitor_name) == ("iou_after", "IoU after")


# --- groups ----------------------------------------------------------------------------------------------------------


def test_a_group_without_boxes_is_left_out():
    table = group_table([told()], "by_size")
    assert table is not None
    assert table.heads == ["", "Boxes", "IoU before", "IoU after", "made worse"]
    assert table.rows == [["small", "30", "0.400", "0.700", "0.250"]]
    assert group_table([], "by_size") is None
    assert group_table([told(by_size={})], "by_size") is None


def test_runs_that_were_given_the_same_boxes_share_their_count():
    other = TOLD["by_size"] | {"small": TOLD["by_size"]["small"] | {"after": 0.5, "harmed": 0.5}}
    table = group_table([told(), told("b", by_size=other)], "by_size")
    assert table is not None
    assert table.heads == ["", "Boxes", "IoU before", "a: IoU after", "a: made worse", "b: IoU after", "b: made worse"]
    assert table.rows == [["small", "30", "0.400", "0.700", "0.250", "0.500", "0.500"]]


def test_runs_that_were_given_others_have_counts_of_their_own():
    table = group_table([told(), told("b", by_size={"medium": TOLD["by_size"]["small"] | {"n": 7}})], "by_size")
    assert table is not None
    assert table.heads[1:5] == ["a: boxes", "a: IoU before", "a: IoU after", "a: made worse"]
    assert table.rows[0] == ["small", "30", "0.400", "0.700", "0.250", "—", "—", "—", "—"]
    assert table.rows[1] == ["medium", "—", "—", "—", "—", "7", "0.400", "0.700", "0.250"]


# --- the page --------------------------------------------------------------------------------------------------------

DATA = RefineDataSettings(kinds=("vehicle",), colours=("yellow", "black"), height=80, width=80, frames=2, test_frames=4)


def folder(run: RunFolder, **more: Any) -> RunFolder:
    """A run folder with one box that was replaced and one that was kept."""
    settings = RefineSettings(data=DATA)
    write_yaml(run.config, nested(settings))
    write_json(run.evaluation, TOLD | more)
    write_json(run.done, {"parameters": 1234, "seconds": 6.5})
    steps = [{"step": s, "loss_iou": 1 / s, "val_iou_after": 0.1 * s} for s in (1, 2, 3)]
    write_parquet(run.metrics, steps)
    write_parquet(run.targets, [{"epoch": 0, "class": "a", "positives": 9, "objects": 1, "positives_per_object": 9.0}])
    scene = next(s for s in refine_splits(settings, "test").test if s.boxes is not None and len(s.boxes))
    box = dict(zip(("x0", "y0", "x1", "y1"), (10.0, 10.0, 30.0, 30.0), strict=True))
    row = {"image": scene.name, "image_id": scene.image_id, "cell": 0, "class": EVIL, "score": 1.0, "confidence": 0.5}
    row |= {f"{kind}_{side}": v for kind in ("coarse", "moved", "refined") for side, v in box.items()}
    row |= {"object": 0, "iou_before": 0.5, "iou_moved": 0.75}
    rows = [row | {"replaced": True, "iou_after": 0.75}, row | {"replaced": False, "iou_after": 0.5}]
    write_parquet(run.matches, rows, COLUMNS)
    return run


@pytest.fixture
def written(tmp_path):
    """``written(run, ...)``: the text of their page."""
    return lambda *runs, **more: write_report(runs, tmp_path / "r.html", **more).read_text(encoding="utf-8")


def test_a_page_is_whole_and_loads_nothing(tmp_path, written, parsed):
    text = written(folder(RunFolder(tmp_path / "a")), folder(RunFolder(tmp_path / "b"), calibration=None))
    found = parsed(text)
    assert (found.wrong, found.open) == ([], [])
    assert len(found.ids) == len(set(found.ids))
    assert found.unlabelled == 0
    assert found.strange == []
    assert found.scripts.count({}) == 1
    assert [link for link in found.links if not link.startswith(("#", "data:"))] == []
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(found.ids)
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text
    assert re.findall(r"@import|url\((?!#)", text) == []


def test_a_page_shows_each_part(tmp_path, written):
    text = written(folder(RunFolder(tmp_path / "a")), folder(RunFolder(tmp_path / "b"), calibration=None))
    for part in (
        "a brings 40 coarse boxes",
        "0.750 [0.700, 0.800]",
        "Share improved, by IoU before",
        "no line in the last chart: b.",
        "By size",
        "Validation: mean IoU after",
        "Loss: 1 − GIoU",
        "after, had it been replaced",
        "kept at 0.50, not 0.75",
        "IoU 0.50 → 0.75",
        "prefers-color-scheme: dark",
    ):
        assert part in text, part
    assert text.count('class="b refined"><title>') == 2  # one a run
    assert text.count('class="b offered"><title>') == 2
    assert "Positive cells per object" not in text


def test_a_page_takes_the_callers_words_and_table(tmp_path, written):
    text = written(folder(RunFolder(tmp_path / "a")), lead="Mine.", table=[{"way": "x", "iou_after": 0.5}])
    assert '<div class="lead"><p>Mine.</p></div>' in text
    assert '<th scope="col">mean IoU after</th>' in text
    assert "0.750 [0.700, 0.800]" not in text


def test_what_users_name_is_never_markup(tmp_path, written):
    text = written(folder(RunFolder(tmp_path / "x&<b>")), title=EVIL)
    assert EVIL not in text
    assert "<b>" not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 5


def test_a_run_whose_boxes_stand_for_nothing(tmp_path, written):
    run = folder(RunFolder(tmp_path / "a"), iou_after=None, boxes=0, calibration=None)
    rows = [r | {"object": -1, "iou_before": None} for r in read_parquet(run.matches)]
    write_parquet(run.matches, rows, COLUMNS)
    text = written(run)
    assert "no coarse box stands for an object, so nothing can be judged" in text
    assert "No coarse box that was judged stands for an object, so there is nothing to compare." in text
    assert "No run is evaluated yet" not in text
    assert "No coarse box stands for an object, so none can be shown." in text
    assert "Largest gains" not in text
