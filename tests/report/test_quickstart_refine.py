"""The quick start of the box refiner: two ways that differ in one thing, their figures, the table and the story."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from boresight.cli import main
from boresight.core.errors import UserError
from boresight.report.quickstart_refine import (
    KEYS,
    WAYS,
    as_table,
    explanation,
    quickstart_refine,
    quickstart_refine_settings,
    way_figures,
)
from boresight.run.config_refine import BASELINE
from boresight.run.parse import flatten
from boresight.run.record import RunFolder, write_json, write_yaml


def figures(after: float | None, harmed: float | None = 0.25, **more) -> dict:
    return (
        dict.fromkeys(KEYS, 0.5)
        | {"iou_after": after, "harmed_share": harmed, "calibration_error": None, "replaced_share": 1.0}
        | more
    )


def judged(error: float | None = 0.0625) -> dict:
    """What ``evaluate`` writes, as far as the quick start reads it."""
    calibration = None if error is None else {"error": error, "bins": []}
    bins = {"0.0-0.3": {"n": 9, "before": 0.2, "after": 0.8, "improved": 1.0, "harmed": 0.0, "replaced": 1.0}}
    told = dict.fromkeys(KEYS, 0.25) | {"boxes": 9, "images": 4, "by_iou": bins, "calibration": calibration}
    return told | {"split": "test"}


def trained(out: Path, settings: Iterable[str]) -> dict[str, RunFolder]:
    """The folders of the ways, without any training."""
    runs = {way: RunFolder(out / way) for way in settings}
    for run in runs.values():
        write_yaml(run.config, {"detector": "refine"})
        write_json(run.evaluation, judged())
    return runs


def test_the_ways_differ_in_what_the_recipe_sets_alone():
    ours, base = (flatten(quickstart_refine_settings(way, 3)) for way in ("boresight", "baseline"))
    differing = {key for key in ours if ours[key] != base[key]}
    allowed = {"recipe"} | {f"{group}.{key}" for group, values in BASELINE.items() for key in values}
    assert {"recipe", "head.kind"} <= differing <= allowed
    assert (ours["data.seed"], base["train.seed"]) == (3, 3)


def test_the_ways_start_from_good_boxes_too():
    coarse = quickstart_refine_settings("boresight", 0).coarse
    assert coarse.low < 0.8 < coarse.high  # else no good box could be made worse


def test_figures_of_a_way_come_from_its_folder(tmp_path):
    run = RunFolder(tmp_path)
    write_json(run.evaluation, judged())
    assert way_figures(run) == dict.fromkeys(KEYS, 0.25) | {"calibration_error": 0.0625}
    write_json(run.evaluation, judged(None))
    assert way_figures(run)["calibration_error"] is None


def test_the_story_is_told_from_the_figures():
    told = explanation(
        {
            "baseline": figures(0.6, 0.5),
            "boresight": figures(0.8, 0.0, replaced_share=0.75, calibration_error=0.03),
        }
    )
    assert told.count(". ") == 1  # two sentences
    assert "From a mean IoU of 0.50" in told
    assert "`boresight` comes to 0.80 and `baseline` to 0.60" in told
    assert "`boresight` makes 0% worse and `baseline` 50%: `boresight` replaces the 75% of all boxes" in told
    assert "`baseline` replaces 100%; the IoU that `boresight` predicts is right to within 0.030 on average" in told


def test_the_story_claims_no_prediction_and_no_good_box_that_there_is_not():
    told = explanation({"baseline": figures(0.6, None), "boresight": figures(0.8, None)})
    assert "predicts" not in told
    assert told.count("none (there were none)") == 2


def test_the_table_shows_a_dash_for_what_is_undefined():
    lines = as_table({"baseline": figures(0.6, None), "boresight": figures(0.8, 0.0)}).splitlines()
    assert lines[1].split() == ["baseline", "0.500", "0.600", "0.500", "-", "1.000", "0.500"]
    assert lines[2].split() == ["boresight", "0.500", "0.800", "0.500", "0.000", "1.000", "0.500"]
    assert len({len(line) for line in lines}) == 1


def test_a_negative_seed_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="--seed -1"):
        quickstart_refine(tmp_path / "q", seed=-1)
    assert not list(tmp_path.iterdir())


def test_figures_and_report_of_both_ways(tmp_path, monkeypatch, capsys):
    seen = {}

    def asked(out, settings, **more):
        seen.update(out=out, settings=settings, **more)
        return trained(out, settings)

    monkeypatch.setattr("boresight.report.quickstart_refine.train_ways", asked)
    result = quickstart_refine(tmp_path / "q", seed=4)
    assert set(result) == {*WAYS, "report", "seconds"}
    assert set(result["baseline"]) == {*KEYS, "calibration_error"}
    assert (seen["out"], list(seen["settings"]), seen["quiet"]) == (tmp_path / "q", list(WAYS), False)
    assert seen["settings"]["baseline"].train.seed == 4
    page = (tmp_path / "q" / "report.html").read_text(encoding="utf-8")
    assert result["report"] == str(tmp_path / "q" / "report.html")
    assert "with the same frozen features, scenes and steps" in page
    assert "`" not in page[: page.index("</header>")]
    assert "harmed of > 0.8" in capsys.readouterr().err


def test_a_quiet_quick_start_prints_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("boresight.report.quickstart_refine.train_ways", lambda out, ways, **_: trained(out, ways))
    quickstart_refine(tmp_path / "q", quiet=True)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("words", "out"), [([], "runs/quickstart-refine"), (["--out", "x/y"], "x/y")])
def test_the_verb_finds_it(monkeypatch, words, out):
    asked = []
    name = "boresight.report.quickstart_refine.quickstart_refine"
    monkeypatch.setattr(name, lambda path, **more: asked.append((path.as_posix(), more)) or {})
    assert main(["quickstart", "refine", *words, "--seed", "2", "--quiet"]) == 0
    assert asked == [(out, {"seed": 2, "quiet": True})]
