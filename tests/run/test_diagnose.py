"""`boresight diagnose` on tiny runs and on files: our own detectors as sources, what is written, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from boresight.cli import main
from boresight.decode.replay import replay
from boresight.detectors.own import OwnSource
from boresight.detectors.own_points import PointSource, with_points_as_boxes
from boresight.diagnose.audit import audit
from boresight.diagnose.likeness import Closeness
from boresight.run.config_refine import RefineSettings
from boresight.run.config_text import LocaliseSettings, TextSettings
from boresight.run.diagnose import COLUMNS, diagnose_run, source_of
from boresight.run.parse import nested, settings_from
from boresight.run.predict import load_trained
from boresight.run.prove import proof_lines, prove
from boresight.run.recipes import recipe
from boresight.run.record import RunFolder, read_parquet
from boresight.run.remedies import TABLES, remedies, tree_of
from boresight.run.systems import read_settings
from boresight.run.train import train


@pytest.fixture(scope="module")
def text_runs(tiny_text, tmp_path_factory) -> dict[str, RunFolder]:
    """Tiny runs of boxes: judged by one rule that looks at predictions, and by one that does not."""
    root = tmp_path_factory.mktemp("diagnosed")
    made = {
        "text": tiny_text({"assign.rule": "inside", "decode.threshold": 0.0}),
        "conditioned": tiny_text({"assign.rule": "tal", "head.box": "conditioned"}),
        "localise": tiny_text({"assign.rule": "atss"}, kind=LocaliseSettings),
    }
    for name, settings in made.items():
        train(recipe(settings.detector), settings, root / name, quiet=True)
    return {name: RunFolder(root / name) for name in made}


def source(run: RunFolder, split: str = "test"):
    trained = load_trained(run)
    splits = recipe(trained.checkpoint.detector).frames(trained.settings, split)
    return source_of(trained, splits, split), trained.detector, getattr(splits, split)


@pytest.mark.parametrize("name", ["text", "conditioned"])
def test_the_replayed_selection_is_that_of_the_detector(text_runs, name):
    watched, detector, frames = source(text_runs[name])
    for i in range(len(frames)):
        with torch.no_grad():
            (own,) = detector.decode(detector([frames[i]]))
        found = replay(watched.emit(frames[i]), watched.decoding)
        assert len(own) > 3
        assert torch.equal(found.cell, own.cell)
        torch.testing.assert_close(found.boxes, own.boxes)
        torch.testing.assert_close(found.scores, own.scores)


def test_supervision_is_the_assigners_word(text_runs):
    watched, _, frames = source(text_runs["text"])
    scene = max((frames[i] for i in range(len(frames))), key=lambda s: len(s.boxes))
    told = watched.supervise(watched.emit(scene), scene)
    assert not told.by_prediction
    centres = watched.emit(scene).centres[told.cell]
    boxes = scene.boxes[told.object]
    assert ((centres > boxes[:, :2]) & (centres < boxes[:, 2:])).all()  # the rule `inside`
    assert len(told.cell) > 0
    assert set(told.object.tolist()) == set((~scene.ignore).nonzero()[:, 0].tolist())


def test_a_scene_that_was_not_emitted_for_is_not_judged(text_runs):
    watched, _, frames = source(text_runs["text"])
    emission = watched.emit(frames[0])
    with pytest.raises(ValueError, match="must be emitted for before"):
        watched.supervise(emission, frames[1])


def test_looking_leaves_the_detector_as_it_was(text_runs):
    watched, detector, frames = source(text_runs["text"])
    detector.train()
    before = {k: v.clone() for k, v in detector.state_dict().items()}
    watched.emit(frames[0])
    assert detector.training
    assert all(torch.equal(v, before[k]) for k, v in detector.state_dict().items())
    assert isinstance(watched, OwnSource)


def test_points_are_found_as_the_detector_finds_them(trained):
    watched, detector, frames = source(trained)
    assert isinstance(watched, PointSource)
    scene = with_points_as_boxes(frames[0])
    with torch.no_grad():
        (own,) = detector.decode(detector([scene]))
    found = watched.select(watched.emit(scene)).found()
    assert torch.equal(found.cell, own.cell)
    torch.testing.assert_close(found.boxes, own.boxes)
    torch.testing.assert_close(found.scores, own.scores)


def test_the_oracle_of_points_moves_them_onto_their_targets(trained):
    watched, _, frames = source(trained)
    scenes = [with_points_as_boxes(frames[i]) for i in range(len(frames))]
    seen = audit(watched, scenes, likeness=Closeness(40.0))
    moved = seen.oracles["box"]
    near = 0
    for scene, found in zip(scenes, moved, strict=True):
        if not len(scene.boxes):
            continue
        away = torch.cdist(found.xy, scene.boxes[:, :2])
        near += int((away.amin(1) < 1e-3).sum())
        assert len(torch.unique(found.xy[away.amin(1) < 1e-3], dim=0)) == int((away.amin(1) < 1e-3).sum())
    assert near > 0


@pytest.mark.parametrize("name", ["text", "localise"])
def test_a_run_is_diagnosed_and_everything_is_written(text_runs, name, tmp_path, capsys):
    run = RunFolder(Path(shutil.copytree(text_runs[name].root, tmp_path / name)))
    assert main(["diagnose", str(run.root), "--split", "test", "--json", "--quiet"]) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    kept = json.loads((run.root / "diagnosis.json").read_text())
    assert line["verdict"]["word"] == kept["verdict"]["word"] == "too few to tell"
    assert kept["schema_version"] == 1
    assert kept["split"] == "test"
    assert {"buckets", "ranking", "attribution", "calibration", "displacement", "per_class"} <= kept.keys()
    rows = read_parquet(run.root / "emissions.parquet")
    assert len(rows) == kept["counts"]["kept"]
    assert set(rows[0]) == set(COLUMNS)
    assert {r["bucket"] for r in rows} <= {"supervised", "inside", "background"}
    objects = read_parquet(run.objects)
    assert len(objects) == kept["counts"]["objects"]
    lost = [r["regret"] for r in objects if r["regret"] is not None]
    assert all(r["regret"] == r["best"] - r["top"] >= 0 for r in objects if r["regret"] is not None)
    assert sum(lost) / len(lost) == pytest.approx(kept["ranking"]["regret"]["value"])


def test_a_run_of_points_is_diagnosed(copied, capsys):
    assert main(["diagnose", str(copied.root), "--split", "test", "--quiet"]) == 0
    told = capsys.readouterr().out
    assert "TOO FEW TO TELL" in told
    assert json.loads((copied.root / "diagnosis.json").read_text())["likeness"] == "closeness"


def test_remedies_are_settings_that_exist_and_are_not_in_force(tiny, tiny_text):
    kinds = {"point": tiny(), "text": tiny_text(), "localise": tiny_text(kind=LocaliseSettings)}
    kinds["refine"] = RefineSettings()
    for name, table in TABLES.items():
        from boresight.run.parse import merged

        for remedy in table:
            settings_from(
                type(kinds[name]), merged(nested(kinds[name]), tree_of(remedy.change)), origin=f"{name} {remedy.change}"
            )


def test_a_remedy_names_its_most(text_runs):
    told = diagnose_run(text_runs["text"], split="test", bootstrap=20)
    verdict = told.diagnosis.verdict.__class__("box", "s", "o", {}, runner_up="classification")
    changed = told.diagnosis.__class__(verdict, *(getattr(told.diagnosis, k) for k in ("figures", "audited", "gains")))
    listed = remedies(load_trained(text_runs["text"]).settings, changed)
    assert [r["word"] for r in listed][:2] == ["box", "box"]
    assert listed[0]["expected_at_most"] == pytest.approx(told.diagnosis.gains.ap50["box"].value)
    assert all(r["change_text"].startswith("--") for r in listed)
    assert {"decode.fusion": "learned", "supervise.emitted": True} not in [r["change"] for r in listed]  # in force


def test_a_remedy_is_proved_by_paired_trainings(text_runs, tmp_path):
    run = RunFolder(Path(shutil.copytree(text_runs["text"].root, tmp_path / "proved")))
    told = prove(run, {"supervise.objectness": True}, seeds=2, steps=3, jobs=2)
    assert (told["seeds"], told["steps"]) == (2, 3)
    assert {"as_it_is", "remedy", "difference"} == told["figures"]["ap50"].keys()
    assert len(told["figures"]["ap50"]["remedy"]["values"]) == 2
    folder = Path(told["folder"])
    assert folder.parent == run.root / "proof"
    kept = [read_settings(folder / "data" / side / "seed-1" / "config.yaml") for side in ("as_it_is", "remedy")]
    assert [s.supervise.objectness for s in kept] == [False, True]
    assert kept[0].train == kept[1].train
    assert kept[0].train.seed == 1
    assert "supervise.objectness" in proof_lines(told)


def test_nothing_is_proved_where_no_remedy_is_known(text_runs, tmp_path, capsys):
    run = Path(shutil.copytree(text_runs["text"].root, tmp_path / "unproved"))
    assert main(["diagnose", str(run), "--split", "test", "--quiet", "--prove"]) == 0  # too few to tell
    assert "nothing to prove" in capsys.readouterr().out


def test_the_command_proves_the_first_remedy_and_keeps_it(text_runs, tmp_path, capsys, monkeypatch):
    run = Path(shutil.copytree(text_runs["text"].root, tmp_path / "kept"))
    monkeypatch.setattr("boresight.diagnose.verdict.OBJECTS", 1)
    monkeypatch.setattr("boresight.diagnose.verdict.HEALTHY", -1.0)
    monkeypatch.setattr("boresight.diagnose.verdict.WORTH", -1.0)
    words = ["--split", "test", "--quiet", "--json", "--prove", "--seeds", "1", "--steps", "2"]
    assert main(["diagnose", str(run), *words]) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["proof"]["change"] == line["remedies"][0]["change"]
    assert json.loads((run / "diagnosis.json").read_text())["proof"]["steps"] == 2


@pytest.mark.parametrize("name", ["text", "points"])
def test_the_report_shows_the_diagnosis(text_runs, copied, name, tmp_path):
    run = copied if name == "points" else RunFolder(Path(shutil.copytree(text_runs["text"].root, tmp_path / "shown")))
    diagnose_run(run, split="test", bootstrap=20)
    assert main(["report", str(run.root)]) == 0
    html = run.report.read_text()
    assert '<h2 id="diagnosis">Diagnosis</h2>' in html
    assert "Too few to tell" in html
    assert "Where boxes come from" in html
    assert ("driven out" in html) == (name == "text")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "diagnose: give a run, or --annotations"),
        (["--annotations", "a.json"], "--predictions is missing"),
        (["RUN", "--annotations", "a.json"], "diagnose: give a run, or --annotations"),
        (["RUN", "--threshold", "0.5"], "--threshold: of a run it is known"),
        (["--annotations", "a", "--predictions", "b", "--threshold", "2"], "--threshold 2.0: must be between 0 and 1"),
        (["nowhere"], "nowhere: no run here"),
        (["--annotations", "a", "--predictions", "b", "--prove"], "--prove: detections cannot be trained again"),
        (["RUN", "--limit", "0"], "--limit 0: at least one image"),
    ],
)
def test_mistakes_are_told_in_one_line(text_runs, words, told, capsys):
    given = [str(text_runs["text"].root) if w == "RUN" else w for w in words]
    assert main(["diagnose", *given]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


# --- files of any detector ---


@pytest.fixture
def files(tmp_path) -> tuple[Path, Path]:
    """Sixty images with one object each; one half of the detections are named wrongly."""
    images = [{"id": i, "file_name": f"{i}.png", "width": 100, "height": 100} for i in range(1, 101)]
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    truth, found = [], []
    for i in range(1, 101):
        label = 1 + i % 2
        truth.append({"id": i, "image_id": i, "category_id": label, "bbox": [10, 10, 20, 20], "area": 400})
        said = 3 - label if i % 4 < 2 else label
        for k in range(3):
            far = [10 + 30 * k, 10 + 20 * k, 20, 20]
            found.append({"image_id": i, "category_id": said, "bbox": far, "score": 0.9 - 0.3 * k})
    annotations, predictions = tmp_path / "gt.json", tmp_path / "dets.json"
    annotations.write_text(json.dumps({"images": images, "annotations": truth, "categories": categories}))
    predictions.write_text(json.dumps(found))
    return annotations, predictions


def test_files_are_diagnosed_without_images(files, tmp_path, capsys):
    out = tmp_path / "diagnosis.json"
    words = ["diagnose", "--annotations", str(files[0]), "--predictions", str(files[1]), "--out", str(out), "--json"]
    assert main(words) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["verdict"]["word"] == "classification"
    assert line["errors"]["Cls"]["count"] == 50
    assert {"buckets", "assignment"} <= line["missing"].keys()
    kept = json.loads(out.read_text())
    assert kept["errors"]["kinds"]["Cls"]["count"] == 50
    assert kept["verdict"]["word"] == "classification"


def test_a_threshold_of_files_is_judged(files, capsys):
    words = ["diagnose", "--annotations", str(files[0]), "--predictions", str(files[1]), "--threshold", "0.95"]
    assert main(words) == 0
    assert "MISSING buckets" in capsys.readouterr().out


def test_a_verdict_of_files_can_fail_a_check(files, tmp_path, capsys):
    words = ["diagnose", "--annotations", str(files[0]), "--predictions", str(files[1])]
    assert main([*words, "--fail-on", "warning"]) == 1
    assert main([*words, "--fail-on", "error"]) == 2
    assert "use --fail-on warning" in capsys.readouterr().err
    truth = json.loads(files[0].read_text())["annotations"]
    right = tmp_path / "right.json"
    right.write_text(json.dumps([{k: t[k] for k in ("image_id", "category_id", "bbox")} | {"score": 1} for t in truth]))
    assert main(["diagnose", "--annotations", str(files[0]), "--predictions", str(right), "--fail-on", "warning"]) == 0


def test_a_missing_file_is_named(files, capsys):
    assert main(["diagnose", "--annotations", str(files[0]), "--predictions", "no.json"]) == 2
    assert "no.json" in capsys.readouterr().err


def test_findings_set_the_exit_status():
    from boresight.cli_diagnose import _status

    found = [{"severity": "warning"}]
    assert _status(None, found) == 0
    assert _status("error", found) == 0
    assert _status("warning", found) == 1
    assert _status("note", found) == 1
    assert _status("note", []) == 0


def test_text_settings_have_remedies_for_every_word():
    words = {r.word for r in TABLES["text"]}
    assert words == {"threshold", "duplicates", "classification", "score", "assignment", "background", "box"}
    assert TextSettings().detector in TABLES


def test_tables_are_diagnosed_as_files_are(tmp_path, capsys):
    """The command, end to end: JSON and Parquet of the same boxes, and COCO's figures with the latter."""
    from boresight.data.box_tables import write_table

    boxes = [[10.0 * i, 10.0 * i, 20.0, 20.0] for i in range(60)]
    truth = [{"id": i, "image_id": i // 3, "category_id": 1 + i % 2, "bbox": b} for i, b in enumerate(boxes)]
    found = [
        {
            "image_id": i // 3,
            "category_id": 1 + (i % 2 + (i % 7 == 0)) % 2,
            "bbox": [b[0] + i % 5, *b[1:]],
            "score": 0.5,
        }
        for i, b in enumerate(boxes)
    ]
    images = [{"id": i, "file_name": f"{i}.png"} for i in range(20)]
    categories = [{"id": 1, "name": "ship"}, {"id": 2, "name": "car"}]
    content = {"images": images, "annotations": truth, "categories": categories}
    (tmp_path / "a.json").write_text(json.dumps(content))
    (tmp_path / "d.json").write_text(json.dumps(found))
    for name, rows in (("a", truth), ("d", found)):
        columns = {k: np.array([r[k] for r in rows]) for k in ("image_id", "category_id", "score") if k in rows[0]}
        columns |= {k: np.array([r["bbox"][i] for r in rows]) for i, k in enumerate(("x", "y", "width", "height"))}
        write_table(tmp_path / f"{name}.parquet", columns, categories)
    told = {}
    for form in ("json", "parquet"):
        words = ["--annotations", str(tmp_path / f"a.{form}"), "--predictions", str(tmp_path / f"d.{form}")]
        assert main(["diagnose", *words, "--threshold", "0.4", "--json", "--out", str(tmp_path / f"{form}.json")]) == 0
        told[form] = json.loads(capsys.readouterr().out.splitlines()[-1])
    coco = told["parquet"].pop("coco")
    assert coco["ap50"] == pytest.approx(told["json"]["ap50"], abs=1e-9)
    assert coco["ap"] < coco["ap50"]
    assert json.loads((tmp_path / "parquet.json").read_text())["coco"]["per_class"]["ship"]["n"] == 30
    for key in ("counts", "errors", "missing"):
        assert told["parquet"][key] == told["json"][key]
    assert told["parquet"]["verdict"]["word"] == told["json"]["verdict"]["word"]
    assert main(["diagnose", *words]) == 0
    assert "COCO: AP " in capsys.readouterr().out
    words[3] = str(tmp_path / "d.json")
    assert main(["diagnose", *words]) == 2
    assert "d.json: the other file is a Parquet table: give two" in capsys.readouterr().err
