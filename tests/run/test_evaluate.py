from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from boresight.core.errors import UserError
from boresight.core.types import Detections, Points, Scene
from boresight.run import processes
from boresight.run.checkpoint import load_checkpoint, save_checkpoint
from boresight.run.evaluate import evaluate_run, last_line, write_tables
from boresight.run.point import COLUMNS, judge, match_rows, per_image_counts, truth_points
from boresight.run.recipe import Examination
from boresight.run.record import RunFolder, read_parquet
from boresight.run.results import detection_rows, point_results

# Two images. In the first: a hit at 0.9, a duplicate of it at 0.8, a false alarm at 0.3, and a target nobody found. In
# the second, which has a don't-care target alone: it is found at 0.7, and there is a false alarm at 0.6.
TRUTH = [
    Points.of([[10.0, 10.0], [40.0, 40.0]], snr=torch.tensor([8.0, 4.0])),
    Points.of([[20.0, 20.0]], ignore=torch.tensor([True]), snr=torch.tensor([2.0])),
]
FOUND = [
    Detections.at(torch.tensor([[10.5, 10.0], [11.0, 10.0], [60.0, 5.0]]), torch.tensor([0.9, 0.8, 0.3])),
    Detections.at(torch.tensor([[20.0, 21.0], [50.0, 50.0]]), torch.tensor([0.7, 0.6])),
]
SCENES = [Scene(torch.zeros(1, 64, 80), name, number, p) for name, number, p in zip("ab", (7, 9), TRUTH, strict=True)]


def written(run: RunFolder, truth: list[Points], found: list[Detections]) -> None:
    rows = detection_rows([s.name for s in SCENES], found, 0.0, image_ids=[s.image_id for s in SCENES])
    write_tables(run, Examination({}, point_results(rows), match_rows(SCENES, truth, found, 0.5, 3.0), COLUMNS))


def test_counts_of_every_image_by_hand():
    assert per_image_counts(TRUTH, FOUND, 0.5, 3.0) == {"tp": [1, 0], "fp": [1, 1], "fn": [1, 0]}
    assert per_image_counts(TRUTH, FOUND, 0.0, 3.0) == {"tp": [1, 0], "fp": [2, 1], "fn": [1, 0]}
    assert per_image_counts(TRUTH, FOUND, 0.95, 3.0) == {"tp": [0, 0], "fp": [0, 0], "fn": [2, 0]}


def test_the_judgement_by_hand():
    figures = judge(TRUTH, FOUND, SCENES, 0.5, 3.0, bootstrap=20)
    assert figures["f1"] == figures["f1_at_half"] == pytest.approx(2 * 1 / (2 * 1 + 2 + 1))
    assert figures["threshold"] == 0.5
    assert figures["false_alarms_per_frame"] == 1.0
    assert figures["truths"] == 2
    assert figures["rmse"] == pytest.approx(0.5)
    assert figures["per_image"]["tp"] == [1, 0]
    json.dumps(figures, allow_nan=False)


def test_the_tables_by_hand(tmp_path):
    run = RunFolder(tmp_path)
    written(run, TRUTH, FOUND)
    rows = read_parquet(run.matches)
    assert [(r["image"], r["kind"], r["object"]) for r in rows] == [
        ("a", "hit", 0),
        ("a", "duplicate", -1),
        ("b", "ignored", -1),
        ("b", "false_alarm", -1),
        ("a", "missed", 1),
    ]
    assert [r["image_id"] for r in rows] == [7, 7, 9, 9, 7]
    assert rows[0]["distance"] == pytest.approx(0.5)
    assert rows[0]["snr"] == 8.0
    assert (rows[4]["x"], rows[4]["y"], rows[4]["snr"], rows[4]["score"]) == (40.0, 40.0, 4.0, None)
    results = json.loads(run.predictions.read_text())
    assert len(results) == 5  # everything found, whatever its score
    assert {r["image_id"] for r in results} == {7, 9}
    assert {r["category_id"] for r in results} == {1}
    assert results[0]["bbox"] == [9.0, 8.5, 3.0, 3.0]


def test_the_table_has_its_types_when_nothing_is_found(tmp_path):
    run = RunFolder(tmp_path)
    nothing = [Detections.at(torch.zeros(0, 2), torch.zeros(0)) for _ in TRUTH]
    empty = [Points.of([]) for _ in TRUTH]
    written(run, empty, nothing)
    schema = pq.read_schema(run.matches)
    assert schema.names == list(COLUMNS)
    assert str(schema.field("score").type) == "double"
    assert json.loads(run.predictions.read_text()) == []


def test_a_run_is_judged_at_its_own_threshold(copied):
    figures = evaluate_run(copied, bootstrap=50)
    assert figures == {k: v for k, v in json.loads(copied.evaluation.read_text()).items() if k != "schema_version"}
    assert figures["threshold"] == load_checkpoint(copied.checkpoints / "last.safetensors").threshold
    assert (figures["split"], figures["frames"], figures["checkpoint"]) == ("test", 4, "last")
    for key in ("f1", "f1_at_half", "pd_at_0.1_false_alarms_per_frame", "pd_at_1_false_alarms_per_frame"):
        assert figures[key] is None or 0 <= figures[key] <= 1
    low, high = figures["intervals"]["f1"]
    assert low <= figures["f1"] <= high
    assert figures["compatibility"]
    assert sum(figures["per_image"]["tp"]) + sum(figures["per_image"]["fn"]) == figures["truths"] > 0
    rows = read_parquet(copied.matches)
    assert {r["kind"] for r in rows} <= {"hit", "duplicate", "false_alarm", "ignored", "missed"}
    assert sum(r["kind"] == "hit" for r in rows) == sum(figures["per_image"]["tp"])
    assert all(r["score"] >= figures["threshold"] for r in rows if r["kind"] != "missed")
    assert {r["image"] for r in rows} <= {f"sky_0_{2_000_000 + i:06d}" for i in range(4)}


def test_validation_figures_are_those_of_the_training(copied):
    figures = evaluate_run(copied, split="val", bootstrap=0)
    kept = load_checkpoint(copied.checkpoints / "last.safetensors").figures
    for key, value in kept.items():
        assert figures[key] == pytest.approx(value, rel=1e-6), key


def test_predictions_are_coco_results(copied):
    evaluate_run(copied, bootstrap=0)
    results = json.loads(copied.predictions.read_text())
    assert isinstance(results, list)
    assert results
    for result in results:
        assert set(result) >= {"image_id", "category_id", "bbox", "score"}
        x, y, w, h = result["bbox"]
        assert (x + w / 2, y + h / 2) == pytest.approx(tuple(result["point"]))
        assert 0 <= result["score"] <= 1
        assert result["image_id"] in range(2_000_001, 2_000_005)


def test_the_limit(copied):
    assert evaluate_run(copied, limit=2, bootstrap=0)["frames"] == 2
    assert evaluate_run(copied, limit=99, bootstrap=0)["frames"] == 4
    for bad in (0, -3):
        with pytest.raises(UserError, match=f"--limit {bad}"):
            evaluate_run(copied, limit=bad)


def test_the_best_checkpoint(copied):
    path = copied.checkpoints / "best.safetensors"
    save_checkpoint(path, replace(load_checkpoint(path), threshold=0.123))
    figures = evaluate_run(copied, which="best", bootstrap=0)
    assert (figures["checkpoint"], figures["threshold"]) == ("best", 0.123)


def test_other_data(copied):
    assert "data" not in evaluate_run(copied, bootstrap=0)  # its own
    figures = evaluate_run(copied, data={"test_frames": 2}, bootstrap=0)
    assert (figures["frames"], figures["data"]) == (2, {"test_frames": 2})
    assert json.loads(copied.evaluation.read_text())["data"] == {"test_frames": 2}


def test_of_another_folder_everything_is_judged(copied, tmp_path):
    (tmp_path / "other" / "images").mkdir(parents=True)
    rng, rows = np.random.default_rng(0), ["image,x,y"]
    for i in range(5):
        Image.fromarray(rng.integers(0, 255, (64, 80), dtype=np.uint8)).save(tmp_path / f"other/images/{i}.png")
        rows.append(f"{i}.png,{10 + i},12.5")
    (tmp_path / "other" / "points.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "other" / "splits").mkdir()
    (tmp_path / "other" / "splits" / "some.txt").write_text("1\n3\n")
    other = {"source": "csv", "root": str(tmp_path / "other")}
    figures = evaluate_run(copied, data=other, bootstrap=0)
    assert (figures["frames"], figures["data"]) == (5, other | {"test": "*"})  # none is held out: none was trained on
    assert evaluate_run(copied, data=other | {"test": "some"}, bootstrap=0)["frames"] == 2
    assert evaluate_run(copied, data=other, split="val", bootstrap=0)["frames"] == 1


def test_the_last_line_is_short(copied):
    line = last_line(evaluate_run(copied, bootstrap=20))
    assert {"f1", "pd_at_0.1_false_alarms_per_frame", "intervals", "threshold", "run"} <= set(line)
    assert not {"curve", "per_image"} & set(line)


def test_truth_that_is_not_known():
    unknown = Scene(torch.zeros(1, 4, 4), "dark.png")
    with pytest.raises(ValueError, match=r"dark\.png has no point truth"):
        truth_points([*SCENES, unknown])


# --- spoilt runs -----------------------------------------------------------------------------------------------------


def spoilt(run: RunFolder, **changes) -> str:
    path = run.checkpoints / "last.safetensors"
    save_checkpoint(path, replace(load_checkpoint(path), **changes))
    with pytest.raises(UserError) as caught:
        evaluate_run(run, bootstrap=0)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_weights_that_do_not_fit_their_settings(copied):
    kept = load_checkpoint(copied.checkpoints / "last.safetensors")
    settings = kept.settings | {"encoder": kept.settings["encoder"] | {"widths": [8, 4, 4, 4]}}
    assert "has shape" in spoilt(copied, settings=settings)


def test_weights_of_another_number_of_classes(copied):
    assert "has shape" in spoilt(copied, classes=("a", "b"))


def test_settings_that_are_not_known_any_more(copied):
    assert "unknown key `old`" in spoilt(copied, settings={"old": 1})


def test_a_checkpoint_of_an_unknown_detector(copied):
    assert "`paint`" in spoilt(copied, detector="paint")


def test_a_run_without_weights(copied):
    (copied.checkpoints / "last.safetensors").unlink()
    with pytest.raises(UserError, match=r"last\.safetensors: no such checkpoint.*--resume"):
        evaluate_run(copied)


def test_nothing_is_written_when_the_judging_fails(copied):
    (copied.checkpoints / "last.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError):
        evaluate_run(copied)
    assert not copied.evaluation.exists()
    assert not copied.matches.exists()


def test_every_figure_is_finite(copied):
    def numbers(value):
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, (list, tuple)):
            return [x for v in value for x in numbers(v)]
        return [value] if isinstance(value, float) else []

    found = numbers(evaluate_run(copied, bootstrap=20))
    assert len(found) > 20
    assert all(math.isfinite(x) for x in found)
    assert np.isfinite(found).all()


def test_two_processes_judge_as_one_does(trained, tmp_path):
    """Started by torchrun: each sees half of the frames, one writes, and nothing differs."""
    run = RunFolder(tmp_path / "run")
    shutil.copytree(trained.root, run.root)
    told = {}
    for count in (1, 2):
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
        done = subprocess.run(
            [*launch, "-m", "boresight", "evaluate", str(run.root), "--json", "--quiet"],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr[-2000:]
        (line,) = done.stdout.splitlines()
        files = (run.evaluation, run.predictions)
        told[count] = (json.loads(line), *(json.loads(f.read_text()) for f in files), read_parquet(run.matches))
        for file in (*files, run.matches):
            file.unlink()
    assert told[1] == told[2]
    assert told[1][2]


@pytest.mark.parametrize("system", ["trained", "trained_text", "trained_localise"])
def test_frames_judged_in_parts_are_judged_as_one(system, request, tmp_path, in_parts):
    run = RunFolder(tmp_path / "run")
    shutil.copytree(request.getfixturevalue(system).root, run.root)
    whole = evaluate_run(run), run.predictions.read_text(), read_parquet(run.matches)
    with in_parts() as parts:
        assert (evaluate_run(run), run.predictions.read_text(), read_parquet(run.matches)) == whole
    assert len(parts) == 3
    assert min(map(len, parts)) > 0


def test_processes_take_their_parts_and_get_everything(monkeypatch):
    """As one of three would see it."""
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(processes, "joined", lambda: None)
    theirs = [(2, [25, 36, 49]), (0, [0, 1])]
    monkeypatch.setattr(processes, "gather_object", lambda mine: [*theirs, *mine])
    done = []
    assert processes.shared(8, lambda indices: done.extend(indices) or [i * i for i in indices]) == [
        i * i for i in range(8)
    ]
    assert done == [2, 3, 4]
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    assert processes.shared(3, list) == [0, 1, 2]
