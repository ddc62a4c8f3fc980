from __future__ import annotations

import json
import math
import os
from dataclasses import replace

import pytest
import torch
import yaml

from boresight.core.errors import Failure
from boresight.run import train as train_module
from boresight.run.checkpoint import load_checkpoint
from boresight.run.config import PointSettings
from boresight.run.parse import nested, settings_from
from boresight.run.point import POINT
from boresight.run.record import RunFolder, read_parquet
from boresight.run.train import train

LOSSES = ["loss_cls", "loss_offset", "loss_auxiliary"]


def column(run: RunFolder, name: str) -> list:
    return [row[name] for row in read_parquet(run.metrics)]


# --- the folder ------------------------------------------------------------------------------------------------------


def test_a_run_leaves_its_files(trained, tiny, leftovers):
    files = {str(p.relative_to(trained.root)) for p in trained.root.rglob("*") if p.is_file()}
    assert {p for p in files if "state-" not in p} == {
        "config.yaml",
        "environment.json",
        "metrics.parquet",
        "targets.parquet",
        "done.json",
        "health.json",
        os.path.join("checkpoints", "last.safetensors"),
        os.path.join("checkpoints", "best.safetensors"),
    }
    assert [p.name for p in trained.states()] == ["state-6"]
    assert leftovers(trained.root) == []


def test_the_settings_are_kept_whole(trained, tiny):
    kept = yaml.safe_load(trained.config.read_text())
    assert kept == nested(tiny())
    assert settings_from(PointSettings, kept, origin="config") == tiny()


def test_the_environment_and_the_seed_are_kept(trained):
    kept = json.loads(trained.environment.read_text())
    assert kept["schema_version"] == 1
    assert kept["seed"] == 0
    assert kept["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert kept["threads"] == 1


def test_a_run_whose_config_stood_there_before_has_its_environment(tiny, tmp_path):
    """Studies write the configuration first."""
    from boresight.run.record import write_yaml

    run = RunFolder(tmp_path)
    settings = tiny({"train.steps": 1, "train.checkpoint_every": 1})
    write_yaml(run.config, nested(settings))
    train(POINT, settings, run.root, quiet=True)
    assert json.loads(run.environment.read_text())["seed"] == 0


def test_metrics_have_a_row_a_step(trained):
    rows = read_parquet(trained.metrics)
    assert [r["step"] for r in rows] == [1, 2, 3, 4, 5, 6]
    assert [r["epoch"] for r in rows] == [0, 0, 0, 0, 1, 1]  # eight frames, two a step
    assert [r["progress"] for r in rows] == [i / 6 for i in range(6)]
    for row in rows:
        assert row["loss"] == pytest.approx(sum(row[k] for k in LOSSES))
        assert row["gradient_norm"] > 0
        assert row["positives"] == row["objects"]
        assert row["positive_rate"] == pytest.approx(row["positives"] / (2 * 8 * 8))
        assert row["positive_mass"] >= row["positives"]
        assert all(row[f"time_{k}"] > 0 for k in ("data", "forward", "backward"))
    judged = [r["step"] for r in rows if r["val_f1"] is not None]
    assert judged == [3, 6]
    assert rows[5]["val_threshold"] == load_checkpoint(trained.checkpoints / "last.safetensors").threshold


def test_targets_have_a_row_an_epoch_and_class(trained):
    rows = read_parquet(trained.targets)
    metrics = read_parquet(trained.metrics)
    assert [(r["epoch"], r["class"]) for r in rows] == [(0, "target"), (1, "target")]
    for row in rows:
        mine = [m for m in metrics if m["epoch"] == row["epoch"]]
        assert row["positives"] == sum(m["positives"] for m in mine) > 0
        assert row["objects"] == sum(m["objects"] for m in mine)
        assert row["positives_per_object"] == row["positives"] / row["objects"]
        assert row["objects_with_none"] == 0


def test_an_epoch_without_targets_has_a_row(tiny, tmp_path, monkeypatch):
    import boresight.run.frames as frames

    monkeypatch.setattr(frames, "preset", lambda name, **more: replace(real(name, **more), empty_share=1.0))
    real = __import__("boresight.data.sky_settings", fromlist=["preset"]).preset
    summary = train(POINT, tiny({"train.steps": 1}), tmp_path, quiet=True)
    (row,) = read_parquet(RunFolder(tmp_path).targets)
    assert (row["positives"], row["objects"], row["positives_per_object"], row["objects_with_none"]) == (0, 0, None, 0)
    assert math.isfinite(column(RunFolder(tmp_path), "loss")[0])
    assert summary["threshold"] == 0.5


def test_the_checkpoint_holds_what_is_needed(trained, tiny):
    last = load_checkpoint(trained.checkpoints / "last.safetensors")
    assert (last.detector, last.step, last.classes) == ("point", 6, ("target",))
    assert settings_from(PointSettings, last.settings, origin="checkpoint") == tiny()
    assert last.figures["f1"] == column(trained, "val_f1")[5]


def test_best_is_the_best_judged(trained):
    done = json.loads(trained.done.read_text())
    best = load_checkpoint(trained.checkpoints / "best.safetensors")
    scores = {r["step"]: r["val_f1"] for r in read_parquet(trained.metrics) if r["val_f1"] is not None}
    assert best.step == done["best"]["step"] == max(scores, key=lambda s: (scores[s], -s))
    assert done["best"]["F1"] == max(scores.values())


def test_a_finished_run_is_left_as_it_is(copied, tiny, monkeypatch):
    before = {p: p.stat().st_mtime_ns for p in copied.root.rglob("*")}
    done = json.loads(copied.done.read_text())
    monkeypatch.setattr(train_module, "Trainer", None)  # nothing may be trained
    summary = train(POINT, tiny(), copied.root, quiet=True)
    assert summary == {k: v for k, v in done.items() if k != "schema_version"} | {"run": str(copied.root)}
    assert {p: p.stat().st_mtime_ns for p in copied.root.rglob("*")} == before


def test_a_finished_run_can_be_given_more_steps(copied, tiny):
    summary = train(POINT, tiny({"train.steps": 8}), copied.root, quiet=True)
    assert summary["steps"] == 8
    assert column(copied, "step") == list(range(1, 9))


def test_the_same_seed_gives_the_same_digits_and_another_others(trained, tiny, tmp_path):
    train(POINT, tiny(), tmp_path / "again", quiet=True)
    assert column(RunFolder(tmp_path / "again"), "loss") == column(trained, "loss")
    train(POINT, tiny({"train.seed": 1, "train.steps": 2}), tmp_path / "other", quiet=True)
    assert column(RunFolder(tmp_path / "other"), "loss")[0] != column(trained, "loss")[0]


# --- the numbers -----------------------------------------------------------------------------------------------------


def test_the_learning_rate_warms_up_and_follows_half_a_cosine(trained):
    """Warm-up of two steps to 2e-3, then four steps from there towards 2 % of it."""
    top, end = 2e-3, 0.02
    cosine = [top * (end + (1 - end) * (1 + math.cos(math.pi * k / 4)) / 2) for k in range(4)]
    assert column(trained, "learning_rate") == pytest.approx([top / 2, top, *cosine])


def test_the_loss_falls(tiny, tmp_path):
    keys = {
        "train.steps": 40,
        "train.batch": 8,
        "train.learning_rate": 2e-2,
        "train.validate_every": 0,
        "head.prior": 0.1,
    }
    train(POINT, tiny(keys), tmp_path, quiet=True)
    losses = column(RunFolder(tmp_path), "loss_cls")
    assert len(losses) == 40
    assert sum(losses[-8:]) < 0.6 * sum(losses[:8])
    assert [v is None for v in column(RunFolder(tmp_path), "val_f1")] == [True] * 39 + [False]


def test_what_is_kept_is_the_average_or_the_raw_weights(tiny, tmp_path):
    kept = {}
    for ema in (0.0, 0.998):
        run = RunFolder(tmp_path / f"{ema}")
        train(POINT, tiny({"train.ema": ema, "train.steps": 4}), run.root, quiet=True)
        from safetensors.torch import load_file

        last = load_checkpoint(run.checkpoints / "last.safetensors").weights
        kept[ema] = (last, load_file(run.states()[-1] / "model.safetensors"))
    name = "encoder.stem.1.0.weight"
    assert torch.equal(kept[0.0][1][name], kept[0.998][1][name])  # averaging does not touch the training
    assert torch.equal(kept[0.0][0][name], kept[0.0][1][name])
    assert not torch.equal(kept[0.998][0][name], kept[0.998][1][name])


def test_two_passes_are_one_batch(unbatched, tiny, tmp_path):
    """With a loss divided by cells and no statistics of a batch, accumulation changes nothing.

    By default it does: the statistics of normalisation are those of a pass, and each pass divides by its own objects.
    The gradient is clipped whole, not pass by pass (the norm asked for is far below the one found).
    """
    keys = {
        "train.batch": 4,
        "train.steps": 3,
        "train.clip": 0.01,
        "loss.per": "cells",
        "loss.offset": 0.0,
        "train.learning_rate": 1e-3,
    }
    runs = {}
    for passes in (1, 2):
        runs[passes] = RunFolder(tmp_path / str(passes))
        train(unbatched, tiny(keys | {"train.accumulate": passes}), runs[passes].root, quiet=True)
    for name in ("loss", *LOSSES, "positives", "objects", "positive_rate", "positive_mass", "gradient_norm"):
        assert column(runs[2], name) == pytest.approx(column(runs[1], name), rel=1e-4, abs=1e-7), name
    assert min(column(runs[1], "gradient_norm")) > 0.03
    assert column(runs[2], "learning_rate") == column(runs[1], "learning_rate")
    assert read_parquet(runs[2].targets) == read_parquet(runs[1].targets)


def test_by_default_two_passes_are_nearly_one_batch(tiny, tmp_path):
    for passes in (1, 2):
        train(
            POINT,
            tiny({"train.batch": 4, "train.steps": 2, "train.accumulate": passes}),
            tmp_path / str(passes),
            quiet=True,
        )
    one, two = (column(RunFolder(tmp_path / str(passes)), "loss_cls") for passes in (1, 2))
    assert one != two
    assert two == pytest.approx(one, rel=0.5)


def test_the_average_of_objects_is_that_of_the_frames_seen(tiny, tmp_path):
    """More frames with targets in the order, more targets in an epoch."""
    plain, often = RunFolder(tmp_path / "plain"), RunFolder(tmp_path / "often")
    train(POINT, tiny({"train.steps": 4}), plain.root, quiet=True)
    train(POINT, tiny({"train.steps": 4, "data.oversample": 4}), often.root, quiet=True)
    assert sum(column(often, "objects")) > 0
    assert set(column(often, "epoch")) == {0}
    assert column(often, "objects") != column(plain, "objects")


# --- what goes wrong -------------------------------------------------------------------------------------------------


def spoiling(term: str, value: float):
    """A recipe whose loss has a term of this value."""

    def build(settings, classes):
        detector = POINT.build(settings, classes)
        whole = detector.loss
        detector.loss = lambda output, targets: {
            k: v * value if k == term else v for k, v in whole(output, targets).items()
        }
        return detector

    return replace(POINT, build=build)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_run(tiny, tmp_path, value):
    with pytest.raises(Failure, match=r"loss_offset is (nan|inf)") as caught:
        train(spoiling("offset", value), tiny(), tmp_path, quiet=True)
    message = str(caught.value)
    assert message.startswith("step 1: ")
    assert "train.learning_rate" in message
    assert "\n" not in message
    run = RunFolder(tmp_path)
    assert run.states() == []
    assert not run.metrics.exists()
    assert not (run.checkpoints / "last.safetensors").exists()


def test_half_precision_trains(tiny, tmp_path):
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()  # one process has one precision
    try:
        keys = {"train.precision": "bf16", "train.steps": 2, "train.accumulate": 2}
        train(POINT, tiny(keys), tmp_path, quiet=True)
    finally:
        AcceleratorState._reset_state()
    assert all(math.isfinite(v) for v in column(RunFolder(tmp_path), "loss"))


def test_progress_is_on_stderr_alone(tiny, tmp_path, capsys):
    train(POINT, tiny({"train.steps": 2}), tmp_path / "shown")
    out, err = capsys.readouterr()
    assert out == ""
    assert "shown 2/2 · loss " in err
    assert "F1" in err
