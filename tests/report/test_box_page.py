"""The page of runs that find boxes: what it shows, what it says when a part is missing, and that nothing is markup."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from boresight.report.box_page import CROPS, shown_images
from boresight.report.html import write_report
from boresight.report.reading import FrameStore, read_run
from boresight.run.config_text import AssignSettings, ClipSettings
from boresight.run.record import read_parquet, write_json, write_parquet, write_yaml
from boresight.run.text import COLUMNS

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def written(tmp_path):
    """``written([run, ...])``: the text of their page."""
    return lambda runs, **more: write_report(runs, tmp_path / "r.html", **more).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def whole(box_run, tmp_path_factory) -> str:
    """The page of a run of `text` that has everything."""
    root = tmp_path_factory.mktemp("whole")
    out = write_report([box_run(root / "words")], root / "r.html", title="A title", lead="First.\n\nSecond.")
    return out.read_text(encoding="utf-8")


def changed(run, **more) -> None:
    """Write other figures into a run's evaluation."""
    write_json(run.evaluation, json.loads(run.evaluation.read_text()) | more)


# --- the whole page --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["text", "localise"])
def test_a_page_is_whole_and_loads_nothing(kind, whole, make_localise, written, parsed):
    text = whole if kind == "text" else written([make_localise()])
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


def test_a_page_has_every_part(whole):
    text = whole
    for part in (
        "<title>A title</title>",
        "<p>First.</p><p>Second.</p>",
        "0.400 [0.300, 0.500]",
        "AP50, classes never trained",
        "(never trained)",
        "Hollow: never trained.",
        "Validation AP50",
        "Loss: 1 − GIoU",
        "Positive cells per object",
        "False alarms, surest first",
        "1 of 2 shown; each place once (1 places).",
        "Boxed well and named wrongly, surest first",
        "Missed objects, largest first",
        "words: configuration",
        "1 hit, ",
        "prefers-color-scheme: dark",
    ):
        assert part in text, part
    assert 'id="localisation"' not in text


def test_every_kind_can_be_switched_off(whole):
    text = whole
    for kind in ("truth", "hit", "missed", "wrong_class", "false_alarm", "duplicate", "ignored"):
        assert f'id="show-{kind}" checked' in text, kind
        assert f".shown:has(#show-{kind}:not(:checked)) .views .{kind} {{ display: none; }}" in text, kind
        assert f'<g class="b {kind}"><title>' in text, kind
    assert 'id="show-dont_care"' not in text  # these scenes hold none
    assert 'id="show-names">' in text


def test_runs_that_differ_in_training_alone_share_their_images(make_text, written, data):
    a, b = make_text("a"), make_text("b", assign=AssignSettings(rule="atss"), clip=ClipSettings(map="min_max"))
    asked = make_text("c", data=replace(data, queries=("red ship=red boat",)))
    text = written([a, b, asked])
    assert text.count('<image id="image-') == len(set(re.findall(r'<image id="(image-[^"]+)"', text))) == 1
    assert text.count('class="photo"') == 3
    assert '<th scope="row">assign.rule</th><td>tal</td><td>atss</td><td>tal</td>' in text
    assert "a: AP50" in text
    assert "Settings in which the runs differ" in text


def test_an_image_that_a_run_did_not_judge_is_not_shown_as_empty(make_text):
    a, b = make_text("a"), make_text("b")
    write_parquet(b.matches, [r | {"image": "elsewhere"} for r in read_parquet(b.matches)], COLUMNS)
    changed(b, frames=0)
    runs = [read_run(r, r.root.name, i) for i, r in enumerate((a, b))]
    shown = shown_images(runs, FrameStore())
    assert [[v.run for v in views] for _, views in shown.views] == [["a"]]
    assert any(note.endswith("was not judged by b.") for note in shown.notes)


def test_a_callers_table_and_lead(make_text, written):
    text = written([make_text()], table=[{"way": "words", "ap50_novel": 0.125}])
    assert '<th scope="col">AP50, classes never trained</th>' in text
    assert "<td>0.125</td>" in text


# --- localisation ----------------------------------------------------------------------------------------------------


def test_a_localise_run_shows_its_report(make_localise, written):
    text = written([make_localise()])
    for part in (
        '<div class="lead"><p>Undecided: too few to tell: 3 objects, 200 needed.</p></div>',
        "mean IoU reached by the emitted boxes",
        "Selection ladder",
        "Every chance floor of every rung",
        "Mean IoU in the wrong channel",
        "Mirror test: truth (rows) against prediction",
        "The frozen encoder is unchanged",
        "Validation: mean IoU reached",
        "No score is trained here, so only missed objects are shown.",
    ):
        assert part in text, part
    assert "F1 at the threshold" not in text
    assert "False alarms, surest first" not in text
    assert 'id="show-false_alarm">' in text  # hidden at first
    assert 'id="show-hit" checked' in text


def test_a_localise_run_without_a_report_says_so(make_localise, written):
    assert "its evaluation holds no localisation report" in written([make_localise(report=False)])


def test_both_systems_share_a_page(make_text, make_localise, written):
    text = written([make_text(), make_localise()])
    assert "F1 at the threshold" in text
    assert "mean IoU reached" in text
    assert "places: Undecided" in text


# --- parts that are missing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("evaluation", "No run is evaluated yet, so there are no figures by class."),
        ("matches", "no matches are written"),
        ("metrics", "No metrics are written"),
        ("targets", ""),
        ("environment", "environment.json is missing."),
        ("done", "Training has not finished"),
    ],
)
def test_a_missing_part_is_said(make_text, whole, written, parsed, part, said):
    run = make_text()
    getattr(run, part).unlink()
    text = written([run])
    assert said in text
    assert not said or said not in whole
    assert parsed(text).wrong == []


def test_settings_of_another_version_keep_the_page(make_text, written):
    run = make_text()
    write_yaml(run.config, {"detector": "text", "lernig_rate": 1})
    text = written([run])
    assert "These settings cannot be read by this version" in text
    assert "AP50, classes never trained" in text
    assert "the images" not in text.lower() or "cannot be opened" in text


def test_images_that_are_elsewhere(make_text, written, data, tmp_path):
    run = make_text()
    gone = replace(data, source="coco", root=str(tmp_path / "gone"))
    values = read_run(run, "words", 0).config
    write_yaml(run.config, values | {"data": values["data"] | {"source": "coco", "root": gone.root}})
    text = written([run])
    assert "The frames cannot be opened here" in text
    assert "1 hit" not in text


def test_errors_in_images_that_are_no_longer_there(make_text, written):
    run = make_text()
    write_parquet(run.matches, [r | {"image": "another"} for r in read_parquet(run.matches)], COLUMNS)
    text = written([run])
    assert "0 of 2 shown; 2 lie in images that are not in this data set any more." in text
    assert "No image holds an object or a detection." in text


def test_a_gallery_has_an_end(make_text, written):
    run = make_text()
    rows = read_parquet(run.matches)
    alarm = next(r for r in rows if r["kind"] == "false_alarm")
    many = [alarm | {"x0": 5.0 * i, "x1": 5.0 * i + 5, "score": 0.5} for i in range(CROPS + 3)]
    write_parquet(run.matches, many, COLUMNS)
    assert f"{CROPS} of {CROPS + 3} shown." in written([run])


def test_nothing_found_and_nothing_missed(make_text, written, parsed):
    run = make_text()
    write_parquet(run.matches, [], COLUMNS)
    changed(run, per_class={}, ap50=None, intervals={"ap50": None})
    assert parsed(written([run])).wrong == []


def test_what_users_name_is_never_markup(make_text, written, parsed):
    run = make_text("x&<b>")
    rows = read_parquet(run.matches)
    write_parquet(run.matches, [r | {"class": EVIL} for r in rows], COLUMNS)
    changed(run, per_class={EVIL: {"n": 1, "ap": 0.5, "ap50": 0.5}, "b": {"n": 1, "ap": 0.5, "ap50": 0.5}})
    text = written([run], title=EVIL, lead=EVIL, table=[{"run": EVIL, "ap50": 0.5}])
    assert EVIL not in text
    assert "<b>" not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 8
    assert parsed(text).wrong == []
