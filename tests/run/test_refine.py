"""Runs of the box refiner: settings, folder, figures, going on, and what is done with a trained one."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from boresight.cli import main
from boresight.core.boxes import aligned_iou
from boresight.core.errors import Stopped, UserError
from boresight.core.types import Detections, Proposals
from boresight.features.cache import FeatureCache
from boresight.features.frozen_backbones import ClipEncoder
from boresight.run import feature_parts
from boresight.run import train as train_module
from boresight.run.config_refine import BASELINE, RefineSettings
from boresight.run.evaluate import evaluate_run
from boresight.run.parse import flat_keys, flatten, nested, parse_settings, settings_from
from boresight.run.predict import load_trained
from boresight.run.record import RunFolder, read_parquet
from boresight.run.refine import REFINE, box_refiner, judge_refined, refine_splits, refine_summary
from boresight.run.refine_examine import COLUMNS
from boresight.run.tighten import Tightener
from boresight.run.train import train

TINY = {
    "data": {
        "kinds": ["vehicle", "storage tank"],
        "colours": ["yellow", "black"],
        "height": 80,
        "width": 80,
        "frames": 6,
        "val_frames": 3,
        "test_frames": 4,
    },
    "coarse": {"per_image": 4},
    "head": {"grid": 4, "width": 16, "depth": 1},
    "train": {
        "steps": 6,
        "batch": 2,
        "warmup": 1,
        "validate_every": 3,
        "checkpoint_every": 2,
        "threads": 1,
    },
}


def tiny(**groups) -> RefineSettings:
    values = {k: TINY.get(k, {}) | groups.get(k, {}) for k in {*TINY, *groups} if isinstance(groups.get(k, {}), dict)}
    values |= {k: v for k, v in groups.items() if not isinstance(v, dict)}
    return settings_from(RefineSettings, values, origin="the test")


@pytest.fixture(scope="module", autouse=True)
def one_encoder(loaded_clip):
    """The shipped encoder, read once; every run gets one of its own to count with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_parts, "load_encoder", lambda name, weights, **more: ClipEncoder(loaded_clip, (1,)))
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> RunFolder:
    run = RunFolder(tmp_path_factory.mktemp("runs") / "refine")
    train(REFINE, tiny(), run.root, quiet=True)
    evaluate_run(run, bootstrap=50)
    return run


# --- settings ---


def test_a_recipe_is_a_set_of_defaults():
    plain, chosen = flatten(RefineSettings()), flatten(parse_settings(RefineSettings, ["--recipe", "baseline"]))
    values = flat_keys(BASELINE) | {"recipe": "baseline"}
    assert chosen == plain | values
    assert values["train.learning_rate"] == 5e-5
    assert values["head.reach"] == 50.0 if "head.reach" in values else plain["head.reach"] == 50.0
    assert plain["train.clip"] == 1.0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--head.grid", "5"], "`head.grid` = 5: must be even, 4 or more"),
        (["--head.width", "24"], "`head.width` = 24: must be a multiple of 16"),
        (["--head.context", "1"], "`head.context` = 1.0: must be above 1"),
        (["--head.dropout", "1"], "`head.dropout` = 1.0: must be 0 or more, below 1"),
        (["--head.steps", "0"], "`head.steps` = 0: must be above 0"),
        (["--coarse.low", "0.9", "--coarse.high", "0.5"], "`coarse.high` = 0.5: must be coarse.low or more"),
        (["--coarse.train_low", "0"], "`coarse.train_low` = 0.0: must be above 0"),
        (["--data.sample_ratio", "1.5"], "`data.sample_ratio` = 1.5: must be between 0 and 1"),
        (["--decode.harm", "-1"], "`decode.harm` = -1.0: must be between 0 and 1"),
        (["--features.levels", "[3,3]"], "`features.levels` = (3, 3): must be different numbers"),
        (["--coarse.per_imag", "3"], "coarse.per_image"),
    ],
)
def test_values_and_keys_are_checked(words, told):
    with pytest.raises(UserError) as error:
        parse_settings(RefineSettings, words)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        ({"features": {"name": "none"}, "recipe": "baseline"}, "the reference head reads frozen features alone"),
        ({"features": {"name": "none"}, "head": {"pixels": False}}, "nothing to look at"),
        ({"features": {"store": "disk"}}, "`features.store_folder` is empty"),
    ],
)
def test_parts_that_do_not_go_together_are_named(groups, told):
    with pytest.raises(UserError, match=told):
        box_refiner(tiny(**groups), ("a",))


def test_heads_and_decision_follow_the_settings():
    shared, cascaded = box_refiner(tiny(), ("a",)), box_refiner(tiny(head={"shared": False, "steps": 3}), ("a",))
    assert len(shared.refiner.heads) == 1
    assert [h.decide is not None for h in cascaded.refiner.heads] == [False, False, True]
    gain = box_refiner(tiny(decode={"decide": "gain"}), ("a",))
    assert gain.refiner.heads[0].decide is None
    assert gain.criterion.decision == 0


# --- images and coarse boxes ---


def test_a_share_of_the_images_is_the_same_share_every_time():
    every = refine_splits(tiny(data={"frames": 20}))
    some = [refine_splits(tiny(data={"frames": 20, "sample_ratio": 0.25})).order for _ in range(2)]
    assert len(every.order) == 20
    assert len(some[0]) == 5
    assert some[0] == some[1]
    assert len(refine_splits(tiny(data={"frames": 20, "max_images": 7})).order) == 7
    assert len(refine_splits(tiny(data={"frames": 20, "sample_ratio": 0.1, "max_images": 7})).order) == 2


def test_validation_has_more_boxes_than_objects_and_the_test_one_each():
    splits = refine_splits(tiny())
    objects = [sum(int((~f[i].ignore).sum()) for i in range(len(f))) for f in (splits.val, splits.test)]
    boxes = [sum(len(f[i].proposals) for i in range(len(f))) for f in (splits.val, splits.test)]
    assert boxes == [16 * objects[0], objects[1]]


# --- training ---


def test_a_run_has_its_files_and_finite_figures(trained):
    assert json.loads(trained.done.read_text())["detector"] == "refine"
    judged = json.loads(trained.evaluation.read_text())
    assert judged["boxes"] > 0
    for key in ("iou_before", "iou_after", "iou_all_replaced", "improved_share", "replaced_share"):
        assert 0 <= judged[key] <= 1
    assert judged["calibration"]["bins"]
    rows = read_parquet(trained.matches)
    assert set(rows[0]) == set(COLUMNS)
    assert len([r for r in rows if r["object"] >= 0]) == judged["boxes"]
    kept = [r for r in rows if not r["replaced"]]
    assert all(r["coarse_x0"] == pytest.approx(r["refined_x0"], abs=1e-6) for r in kept)
    assert sum(judged["per_image"]["boxes"]) == judged["boxes"]
    mean = sum(judged["per_image"]["iou_after"]) / judged["boxes"]
    assert mean == pytest.approx(judged["iou_after"])
    assert "mean IoU after" in refine_summary(judged)


def test_the_loss_begins_below_ten_and_every_term_is_finite(trained):
    rows = read_parquet(trained.metrics)
    terms = [k for k in rows[0] if k.startswith("loss_")]
    assert {"loss_l1", "loss_iou", "loss_edges", "loss_quality", "loss_decision"} <= set(terms)
    assert rows[0]["loss"] < 10
    assert all(math.isfinite(r[k]) for r in rows for k in terms)


def test_what_was_found_in_the_store_stands_in_the_metrics(trained):
    rows = read_parquet(trained.metrics)
    first = rows[0]
    assert first["feature_misses"] == 2
    assert first["feature_bytes"] > 0
    assert first["time_feature"] > 0
    last = rows[-1]
    assert (last["feature_hits"], last["feature_misses"]) == (2, 0)
    told = json.loads(trained.done.read_text())["features"]
    assert told["misses"] == 9  # six training images and three of validation
    assert told["hit_rate"] == 0.5  # nine of eighteen


def test_a_second_run_computes_no_features(tmp_path):
    settings = tiny(features={"store": "disk", "store_folder": str(tmp_path / "store")})
    train(REFINE, settings, tmp_path / "one", quiet=True)
    first = json.loads((tmp_path / "one" / "done.json").read_text())["features"]
    train(REFINE, settings, tmp_path / "two", quiet=True)
    second = json.loads((tmp_path / "two" / "done.json").read_text())["features"]
    assert first["misses"] == 9
    assert (second["misses"], second["hit_rate"]) == (0, 1.0)
    weights = [load_file(tmp_path / n / "checkpoints" / "last.safetensors") for n in ("one", "two")]
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


def test_a_run_that_was_stopped_ends_as_one_that_was_not(trained, tmp_path, monkeypatch):
    from contextlib import contextmanager

    @contextmanager
    def after_three():
        calls = iter(range(100))
        yield lambda: next(calls) >= 2

    with monkeypatch.context() as patch:
        patch.setattr(train_module, "stop_requests", after_three)
        with pytest.raises(Stopped, match="--resume"):
            train(REFINE, tiny(), tmp_path / "run", quiet=True)
    train(REFINE, tiny(), tmp_path / "run", quiet=True)
    want, have = (load_file(p / "checkpoints" / "last.safetensors") for p in (trained.root, tmp_path / "run"))
    assert all(torch.equal(want[k], have[k]) for k in want)


def test_a_full_disk_ends_well(tmp_path, monkeypatch, caplog):
    from boresight.features import cache_disk

    def full(descriptor, parts):
        raise OSError(28, "No space left on device")

    settings = tiny(features={"store": "disk", "store_folder": str(tmp_path / "store")})
    FeatureCache(tmp_path / "store").close()
    with monkeypatch.context() as patch:
        patch.setattr(cache_disk.os, "writev", full)
        done = train(REFINE, settings, tmp_path / "run", quiet=True)
    assert done["steps"] == 6
    assert done["features"]["unwritten"] > 0
    assert "features cannot be kept" in caplog.text


def test_the_encoder_may_not_move(trained, tmp_path, loaded_clip):
    run = RunFolder(tmp_path / "run")
    trainer = train_module.Trainer(REFINE, tiny(), run, quiet=True)
    weight = next(loaded_clip.model.visual.parameters())
    with torch.no_grad():
        weight.view(-1)[0] += 1
    try:
        with pytest.raises(Exception, match="frozen weights have moved"):
            trainer.fit()
    finally:
        with torch.no_grad():
            weight.view(-1)[0] -= 1


def test_a_checkpoint_of_another_encoder_is_refused(trained, tmp_path, monkeypatch, loaded_clip):
    monkeypatch.setattr(feature_parts, "load_encoder", lambda name, weights, **more: ClipEncoder(loaded_clip, (2,)))
    with pytest.raises(UserError, match=r"set features\.name and features\.weights"):
        load_trained(trained)


# --- judging ---


def test_every_box_is_replaced_where_that_is_asked_for():
    splits = refine_splits(tiny())
    scenes = [splits.val[i] for i in range(len(splits.val))]
    found = [_moved_by(s, 0.0) for s in scenes]
    best = judge_refined(tiny(decode={"operating": "best"}), splits.classes, scenes, found)
    every = judge_refined(tiny(decode={"operating": "all"}), splits.classes, scenes, found)
    assert every.threshold == 0.0
    assert best.threshold > 1  # nothing is gained by boxes that stay where they are
    assert best.score == pytest.approx(every.score)
    perfect = judge_refined(tiny(), splits.classes, scenes, [_moved_by(s, 1.0) for s in scenes])
    assert perfect.score == pytest.approx(1.0)
    assert perfect.threshold < 1


def _moved_by(scene, share: float) -> Detections:
    p = scene.proposals
    boxes = p.boxes + share * (scene.boxes[p.matched] - p.boxes)
    order = torch.arange(len(p)).flip(0)  # another order than that of the boxes
    return Detections(boxes[order], torch.linspace(0.9, 0.1, len(p)), torch.zeros(len(p)).long(), order)


def test_without_objects_there_is_a_judgement_all_the_same():
    splits = refine_splits(tiny())
    scene = replace(splits.val[0], boxes=torch.zeros(0, 4), labels=torch.zeros(0).long(), ignore=None)
    none = Proposals(torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0), torch.zeros(0).long())
    empty = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long(), torch.zeros(0).long())
    judged = judge_refined(tiny(), splits.classes, [replace(scene, proposals=none)], [empty])
    assert judged.figures["iou_after"] is None


def results_of(frames, path: Path, *, classes: int) -> Path:
    """A detector's file: every object found, half as sure of each next one, and a false alarm an image."""
    rows = []
    for i in range(len(frames)):
        scene = frames[i]
        for k, ((x0, y0, x1, y1), label) in enumerate(zip(scene.boxes.tolist(), scene.labels.tolist(), strict=True)):
            box = [x0 + 0.2 * (x1 - x0), y0, 0.8 * (x1 - x0), y1 - y0]
            rows.append({"image_id": scene.image_id, "category_id": label + 1, "bbox": box, "score": 0.9 / (k + 1)})
        rows.append({"image_id": scene.image_id, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.1})
    path.write_text(json.dumps(rows))
    return path


def test_a_detector_s_boxes_are_judged_by_precision_as_well(trained, tmp_path):
    splits = refine_splits(tiny())
    file = results_of(splits.test, tmp_path / "found.json", classes=2)
    settings = nested(tiny()) | {"coarse": nested(tiny())["coarse"] | {"test_file": str(file)}}
    trained_one = load_trained(trained)
    from boresight.run.recipe import Request

    changed = settings_from(RefineSettings, settings, origin="the test")
    request = Request(refine_splits(changed), "test", 4, trained_one.checkpoint.threshold, 50, True)
    figures = REFINE.examine(trained_one.detector, changed, request).figures
    assert figures["ap50_before"] > 0.5
    assert figures["ap75_gain"] == pytest.approx(figures["ap75_after"] - figures["ap75_before"], abs=1e-3)
    low, high = figures["ap75_gain_interval"]
    assert low <= figures["ap75_gain"] + 1e-6
    assert high >= figures["ap75_gain"] - 1e-6


def test_training_shows_a_detector_s_boxes(tmp_path):
    splits = refine_splits(tiny())
    file = results_of(splits.train, tmp_path / "found.json", classes=2)
    settings = tiny(coarse={"train_file": str(file), "real_share": 1.0})
    view = REFINE.view(settings)
    one = view(refine_splits(settings).train, 0, np.random.default_rng(0))
    assert (one.proposals.matched == -1).any()  # the false alarm
    train(REFINE, settings, tmp_path / "run", quiet=True)


def test_frames_judged_in_parts_are_judged_as_one(trained, tmp_path, in_parts):
    run = RunFolder(tmp_path / "run")
    shutil.copytree(trained.root, run.root)
    whole = evaluate_run(run, bootstrap=50), run.predictions.read_text(), read_parquet(run.matches)
    with in_parts() as parts:
        assert (evaluate_run(run, bootstrap=50), run.predictions.read_text(), read_parquet(run.matches)) == whole
    assert min(map(len, parts)) > 0


# --- a trained one at work ---


def test_detections_of_another_detector_get_tighter_boxes(trained):
    refiner = Tightener.of(trained, threshold=0.0)
    frames = refine_splits(tiny()).test
    scene = replace(next(frames[i] for i in range(4) if len(frames[i].boxes)), proposals=None)
    count = len(scene.boxes)
    found = Detections(scene.boxes + 2, torch.linspace(0.9, 0.5, count), torch.zeros(count).long(), torch.arange(count))
    tight = refiner.detections(scene, found, ["something else"])
    assert len(tight) == count
    assert (tight.scores[:-1] >= tight.scores[1:]).all()
    assert sorted(tight.cell.tolist()) == list(range(count))
    back = tight.boxes[tight.cell.argsort()]
    assert float((back - found.boxes).abs().max()) > 0
    kept = Tightener.of(trained, threshold=1.0).detections(scene, found, ["x"])
    assert torch.equal(kept.boxes[kept.cell.argsort()], found.boxes)
    none = refiner.detections(scene, found.select(torch.zeros(0).long()), ["x"])
    assert len(none) == 0


def test_a_run_of_another_system_tightens_nothing(trained_text):
    with pytest.raises(UserError, match="not of `refine`"):
        Tightener.of(trained_text)


# --- the command line ---


def words() -> list[str]:
    flat = flat_keys(TINY)
    return [f"--{k}={json.dumps(v) if isinstance(v, list) else v}" for k, v in flat.items()]


def test_fast_and_debug_are_short_for_keys(tmp_path, capsys):
    runs = ["--runs", str(tmp_path), "--quiet", "--json"]
    assert main(["train", "refine", *words(), "--fast", *runs]) == 0
    run = RunFolder(json.loads(capsys.readouterr().out)["run"])
    from boresight.run.systems import read_settings

    assert read_settings(run.config).data.sample_ratio == 0.1
    assert main(["train", "refine", *words(), "--debug", "--data.max_images", "3", *runs]) == 0
    run = RunFolder(json.loads(capsys.readouterr().out)["run"])
    assert read_settings(run.config).data.max_images == 3  # a key that is given counts more


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["train", "text", "--fast"], "--fast: only `refine` has it"),
        (["train", "refine", "--clear-cache"], "--clear-cache: features are kept in memory"),
    ],
)
def test_short_options_in_the_wrong_place_are_named(given, told, capsys):
    assert main(given) == 2
    assert told in capsys.readouterr().err


def test_clear_cache_takes_away_what_this_encoder_made_and_nothing_else(tmp_path, capsys):
    store = tmp_path / "store"
    disk = ["--features.store", "disk", "--features.store_folder", str(store)]
    runs = ["--runs", str(tmp_path / "runs"), "--quiet", "--json"]
    other = ["--features.storage", "fp32"]
    for more in ([], [], other, ["--clear-cache"], other):
        assert main(["train", "refine", *words(), *disk, *more, *runs]) == 0
    misses = [json.loads(line)["features"]["misses"] for line in capsys.readouterr().out.splitlines()]
    assert misses == [9, 0, 9, 9, 0]


def test_a_refiner_is_diagnosed(trained, tmp_path, capsys):
    run = RunFolder(shutil.copytree(trained.root, tmp_path / "run"))
    assert main(["diagnose", str(run.root), "--split", "test", "--quiet"]) == 0
    told = capsys.readouterr().out
    assert "mean IoU gains" in told
    kept = json.loads(run.diagnosis.read_text())
    assert kept["detector"] == "refine"
    assert set(kept["gains"]) == {"box", "score", "threshold"}
    assert kept["refinement"]["iou_after"] == json.loads(trained.evaluation.read_text())["iou_after"]


def test_a_refiner_finds_nothing_by_itself(trained, capsys, tmp_path):
    assert main(["predict", str(trained.root), str(tmp_path)]) == 2
    assert "finds nothing itself" in capsys.readouterr().err


# --- several processes ---

TWO = """
import json, sys
from pathlib import Path
from boresight.run.parse import settings_from
from boresight.run.config_refine import RefineSettings
from boresight.run.refine import REFINE
from boresight.run.train import train
values = json.loads(Path(sys.argv[1]).read_text())
train(REFINE, settings_from(RefineSettings, values, origin="the test"), Path(sys.argv[2]), quiet=True)
"""


def test_two_processes_train_as_one_and_share_the_store(tmp_path):
    """The same global batch: the same losses to 1e-5, and no image encoded twice."""
    script = tmp_path / "two.py"
    script.write_text(TWO)
    losses = {}
    for count in (1, 2):
        store = tmp_path / f"store-{count}"
        values = nested(tiny(features={"store": "disk", "store_folder": str(store)}, train={"batch": 4}))
        (tmp_path / "settings.json").write_text(json.dumps(values))
        run = tmp_path / f"run-{count}"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
        done = subprocess.run(
            [*command, str(script), str(tmp_path / "settings.json"), str(run)],
            capture_output=True,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        losses[count] = [r["loss"] for r in read_parquet(run / "metrics.parquet")]
        items = list(store.rglob("*.safetensors"))
        assert len(items) == 9
        told = [json.loads(f.read_text()) for f in (store / "stats").glob("*.json")]
        assert sum(t["misses"] for t in told) == 9
    assert losses[1] == pytest.approx(losses[2], abs=1e-5)


def test_what_is_kept_is_bit_for_bit_the_coarse_box(trained):
    frames = refine_splits(tiny()).test
    scene = next(frames[i] for i in range(4) if len(frames[i].proposals))
    out = Tightener.of(trained, threshold=1.0)(scene, scene.proposals).outcome
    truth = scene.boxes[scene.proposals.matched]
    assert torch.equal(aligned_iou(out.boxes, truth), aligned_iou(scene.proposals.boxes, truth))
