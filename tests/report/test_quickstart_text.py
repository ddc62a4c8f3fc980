"""The quick start of the text-query detector: its settings, its table and its story; nothing is trained here."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from boresight.cli import build_parser, main
from boresight.core.errors import UserError
from boresight.report.quickstart_text import (
    KEYS,
    WAYS,
    as_table,
    explanation,
    quickstart_text,
    quickstart_text_settings,
)
from boresight.run.boxes import box_splits
from boresight.run.config_text import BASELINE
from boresight.run.parse import flat_keys, flatten
from boresight.run.record import RunFolder


def figures(ap50, novel=0.1, **more):
    row = dict.fromkeys(KEYS, 0.5) | {"ap50": ap50, "ap50_novel": novel}
    return row | {"false_alarms_per_image": 2.0} | more


def test_the_two_ways_differ_in_the_recipe_alone():
    ours, base = (flatten(quickstart_text_settings(way, 3)) for way in ("boresight", "baseline"))
    differ = {k for k in ours if ours[k] != base[k]}
    assert differ <= {"recipe", *flat_keys(BASELINE)}
    assert {"recipe", "assign.rule", "decode.threshold"} <= differ
    assert ours["train.seed"] == ours["data.seed"] == 3
    assert ours["train.threads"] == 1


def test_the_scenes_that_judge_hold_compositions_that_were_never_trained():
    data = replace(quickstart_text_settings("boresight", 0).data, frames=6, test_frames=24)
    splits = box_splits(data)
    base = len(splits.classes)
    assert splits.novel
    trained = {k for i in range(6) for k in splits.train[i].labels.tolist()}
    tested = {k for i in range(24) for k in splits.test[i].labels.tolist()}
    assert max(trained) < base
    assert max(tested) >= base


def test_the_story_is_told_from_the_figures():
    told = explanation({"baseline": figures(0.2, presence_auc=None), "boresight": figures(0.5, 0.3, f1=0.625)})
    assert "`boresight` reaches AP50 0.50 (2.5 times), `baseline` 0.20" in told
    assert "never trained 0.30 and 0.10." in told
    assert "AUC of 0.50 and undefined" in told
    assert "F1 is 0.62 and 0.50" in told


def test_the_story_claims_no_gain_that_there_is_not():
    assert "times" not in explanation({"baseline": figures(0.5), "boresight": figures(0.4)})
    assert "times" not in explanation({"baseline": figures(0.0), "boresight": figures(0.4)})
    assert "never trained" not in explanation({"baseline": figures(0.1, None), "boresight": figures(0.4)})


def test_the_story_of_a_way_that_finds_nothing():
    silent = figures(0.0, 0.0, f1=0.0, false_alarms_per_image=0.0, classification_accuracy=None, threshold=0.3)
    told = explanation({"baseline": silent, "boresight": figures(0.5)})
    assert "`baseline` 0.00 (nothing reaches its threshold of 0.3)" in told
    assert "`boresight` names 50% rightly and `baseline` has none;" in told
    assert "nothing reaches" not in explanation({"baseline": figures(0.0), "boresight": figures(0.5)})


def test_the_table_shows_a_dash_for_what_is_undefined():
    table = as_table({"baseline": figures(None, None), "boresight": figures(0.25)})
    assert table.splitlines()[1].split()[:2] == ["baseline", "-"]
    assert table.splitlines()[2].split()[:2] == ["boresight", "0.250"]
    assert len({len(line) for line in table.splitlines()}) == 1


def test_a_negative_seed_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="--seed -1"):
        quickstart_text(tmp_path / "q", seed=-1)
    assert not list(tmp_path.iterdir())


def test_figures_and_report_of_both_ways(tmp_path, monkeypatch, make_text, capsys):
    seen = {}

    def trained(out, settings, **more):
        seen.update(out=out, settings=settings, **more)
        runs = {way: make_text(f"q/{way}") for way in settings}
        for run in runs.values():
            told = json.loads(run.evaluation.read_text())
            run.evaluation.write_text(json.dumps(told | {"ap50": 0.25}))
        return runs

    monkeypatch.setattr("boresight.report.quickstart_text.train_ways", trained)
    result = quickstart_text(tmp_path / "q", seed=4)
    assert set(result) == {*WAYS, "report", "seconds"}
    assert set(result["baseline"]) == set(KEYS)
    assert result["boresight"]["ap50"] == 0.25
    assert (seen["out"], list(seen["settings"])) == (tmp_path / "q", list(WAYS))
    assert seen["settings"]["baseline"].train.seed == 4
    page = (tmp_path / "q" / "report.html").read_text(encoding="utf-8")
    assert result["report"] == str(tmp_path / "q" / "report.html")
    assert "Both read the same frozen encoder" in page
    assert "AP50 never trained" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "called", "out"),
    [
        ([], "quickstart.quickstart", "runs/quickstart"),
        (["point"], "quickstart.quickstart", "runs/quickstart"),
        (["text"], "quickstart_text.quickstart_text", "runs/quickstart-text"),
        (["text", "--out", "x/y"], "quickstart_text.quickstart_text", "x/y"),
    ],
)
def test_the_verb_finds_its_system(monkeypatch, words, called, out):
    asked = []
    monkeypatch.setattr(f"boresight.report.{called}", lambda path, **more: asked.append((path, more)) or {})
    assert main(["quickstart", *words, "--seed", "2", "--quiet"]) == 0
    assert [(p.as_posix(), m) for p, m in asked] == [(out, {"seed": 2, "quiet": True})]


def test_a_system_without_a_quick_start_is_refused():
    with pytest.raises(UserError, match=r"`txt`.*text"):
        build_parser().parse_args(["quickstart", "txt"])


def test_run_folders_of_the_ways_are_named_by_them(tmp_path, monkeypatch):
    from boresight.report.side_by_side import train_ways

    asked = []
    monkeypatch.setattr("boresight.report.side_by_side.run_jobs", lambda roots, **more: asked.append((roots, more)))
    settings = {way: quickstart_text_settings(way, 0) for way in WAYS}
    (tmp_path / "q").mkdir()
    runs = train_ways(tmp_path / "q", settings, label="quickstart text", quiet=True)
    assert list(runs) == list(WAYS)
    ((roots, more),) = asked
    assert roots == [tmp_path / "q-2" / way for way in WAYS]
    assert all(RunFolder(r).config.is_file() for r in roots)
    assert more["threads"] == 1
    assert more["total"] == sum(s.train.steps for s in settings.values())
