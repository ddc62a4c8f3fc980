"""The page of runs that refine boxes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from boresight.core.errors import UserError
from boresight.evaluate.refinement import Refined, per_image_sums, refinement_figures
from boresight.report.html import write_report
from boresight.report.quickstart_refine import (
    WAYS,
    as_table,
    explanation,
    quickstart_refine,
    quickstart_refine_settings,
)
from boresight.run.config_refine import RefineDataSettings, RefineSettings
from boresight.run.parse import nested
from boresight.run.record import RunFolder, write_json, write_parquet, write_yaml
from boresight.run.refine import refine_splits
from boresight.run.refine_examine import COLUMNS

DATA = RefineDataSettings(
    kinds=("vehicle",), colours=("yellow", "black"), height=80, width=80, frames=4, val_frames=2, test_frames=8
)


def made(root: Path, *, recipe: str = "boresight", gain: float = 0.2, judged: bool = True) -> RunFolder:
    """A run folder as a finished run leaves it, every box better by ``gain`` but for the good ones."""
    import numpy as np

    run = RunFolder(root)
    settings = RefineSettings(recipe=recipe, data=DATA)
    write_yaml(run.config, nested(settings))
    if not judged:
        return run
    splits = refine_splits(settings)
    rows, columns = [], {k: [] for k in ("image", "label", "side", "before", "after", "moved", "replaced")}
    for i in range(len(splits.test)):
        scene = splits.test[i]
        owners = scene.proposals.matched
        pairs = zip(scene.proposals.boxes.tolist(), scene.boxes[owners].tolist(), owners.tolist(), strict=True)
        for m, (coarse, truth, owner) in enumerate(pairs):
            before = 0.3 + 0.06 * (len(rows) % 11)
            replaced = len(rows) % 5 != 0
            moved = before - 0.1 if before > 0.8 else before + gain
            after = moved if replaced else before
            row = {"image": scene.name, "image_id": scene.image_id, "cell": m, "class": "<b>vehicle", "score": 1.0}
            row |= {"confidence": 0.8, "replaced": replaced, "object": owner}
            row |= {f"iou_{k}": v for k, v in (("before", before), ("moved", moved), ("after", after))}
            for kind, box in (("coarse", coarse), ("moved", truth), ("refined", truth if replaced else coarse)):
                row |= {f"{kind}_{side}": v for side, v in zip(("x0", "y0", "x1", "y1"), box, strict=True)}
            row |= {"expected_before": before, "expected_moved": moved}
            rows.append(row)
            values = (i, 0, 20.0, before, after, moved, replaced)
            for name, value in zip(columns, values, strict=True):
                columns[name].append(value)
    arrays = {k: np.array(v) for k, v in columns.items()}
    data = Refined(len(splits.test), **arrays, expected_before=arrays["before"], expected_moved=arrays["moved"])
    figures = refinement_figures(data, splits.classes, replicates=20) | {"per_image": per_image_sums(data)}
    write_json(run.evaluation, {"split": "test", "frames": 8, "threshold": 0.5, **figures})
    write_json(run.done, {"parameters": 1000, "seconds": 12.0, "steps": 6})
    write_parquet(run.matches, rows, COLUMNS)
    write_parquet(run.metrics, [{"step": 1, "epoch": 0, "loss": 1.0, "loss_l1": 0.5}])
    return run


def written(runs, path: Path) -> str:
    return write_report(runs, path).read_text(encoding="utf-8")


def test_the_page_says_what_happened_and_needs_nothing(tmp_path):
    text = written([made(tmp_path / "ours")], tmp_path / "r.html")
    assert re.search(r"ours brings \d+ coarse boxes from a mean IoU of 0\.\d+ to 0\.\d+", text)
    assert "IoU after against before, by bin" in text
    assert "Predicted IoU against reached" in text
    assert "Largest gains" in text
    assert "Worst harm" in text
    assert "Kept, and would have gained most" in text
    assert text.count("data:image/jpeg") >= 3
    assert 'class="b coarse"' in text
    assert 'class="b refined"' in text
    assert 'class="b truth"' in text
    assert "&lt;b&gt;vehicle" in text
    assert "<b>vehicle" not in text
    assert " src=" not in text
    assert "://" not in re.sub(r"http://www\.w3\.org/\S+", "", text)


def test_two_runs_stand_side_by_side(tmp_path):
    runs = [made(tmp_path / "one", recipe="baseline", gain=0.05), made(tmp_path / "two")]
    text = written(runs, tmp_path / "r.html")
    assert "one: IoU after" in text
    assert "two: IoU after" in text
    assert "Settings in which the runs differ" in text
    assert "head.kind" not in text  # the same in both: only the name of the recipe was changed here


def test_a_run_that_is_not_judged_says_so(tmp_path):
    text = written([made(tmp_path / "fresh", judged=False)], tmp_path / "r.html")
    assert "No run is evaluated yet" in text
    assert "No boxes are written: evaluate the run first." in text


def test_images_that_are_elsewhere_are_said_to_be(tmp_path):
    run = made(tmp_path / "gone")
    config = nested(RefineSettings(data=DATA))
    config["data"] |= {"source": "coco", "root": str(tmp_path / "nowhere")}
    write_yaml(run.config, config)
    text = written([run], tmp_path / "r.html")
    assert "The frames cannot be opened here" in text
    assert "IoU after against before, by bin" in text


def test_refined_boxes_share_no_page_with_others(tmp_path):
    other = RunFolder(tmp_path / "points")
    write_yaml(other.config, {"detector": "point"})
    with pytest.raises(UserError, match="ours gives refined boxes and points points"):
        write_report([made(tmp_path / "ours"), other], tmp_path / "r.html")


# --- the quick start ---


def test_the_two_ways_differ_in_the_recipe_alone():
    one, two = (nested(quickstart_refine_settings(way, 3)) for way in WAYS)
    assert one["data"] == two["data"]
    assert one["coarse"] == two["coarse"]
    assert one["features"] == two["features"]
    assert one["train"]["steps"] == two["train"]["steps"]
    assert (one["recipe"], two["recipe"]) == ("baseline", "boresight")
    assert one["head"]["kind"] == "reference"


FIGURES = {
    "baseline": {
        "iou_before": 0.55,
        "iou_after": 0.6,
        "harmed_share": 0.5,
        "improved_share": 0.7,
        "replaced_share": 1.0,
        "iou_all_replaced": 0.6,
        "threshold": 0.0,
        "calibration_error": None,
    },
    "boresight": {
        "iou_before": 0.55,
        "iou_after": 0.8,
        "harmed_share": None,
        "improved_share": 0.7,
        "replaced_share": 0.8,
        "iou_all_replaced": 0.82,
        "threshold": 0.8,
        "calibration_error": 0.01,
    },
}


def test_the_table_and_the_story_take_what_is_undefined():
    table, story = as_table(FIGURES), explanation(FIGURES)
    assert "0.800" in table
    assert "-" in table
    assert "From a mean IoU of 0.55" in story
    assert "none (there were none) worse and `baseline` 50%" in story
    assert "within 0.010" in story


def test_the_quick_start_gives_both_groups(tmp_path, monkeypatch, capsys):
    from boresight.report import quickstart_refine as module

    def ways(out, settings, *, label, quiet):
        return {way: made(out / way, gain=0.1 * (k + 1)) for k, way in enumerate(settings)}

    monkeypatch.setattr(module, "train_ways", ways)
    told = quickstart_refine(tmp_path / "out", quiet=True)
    for way in WAYS:
        assert {"iou_before", "iou_after", "harmed_share"} <= set(told[way])
    assert Path(told["report"]).is_file()
    json.dumps(told, allow_nan=False)
    with pytest.raises(UserError, match="--seed -1"):
        quickstart_refine(tmp_path / "x", seed=-1)
