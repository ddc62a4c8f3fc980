"""A training is watched while it runs: what is found is said once and kept, and no digit of the training changes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from boresight.core.errors import Failure, Stopped, UserError
from boresight.diagnose.finding import Finding
from boresight.diagnose.health import LIVE_RULES
from boresight.diagnose.plan import Plan
from boresight.diagnose.rule import Health, Unjudged
from boresight.run import watch as watch_module
from boresight.run.health import run_health
from boresight.run.health_file import read_health, write_health
from boresight.run.point import POINT
from boresight.run.record import RunFolder, read_parquet
from boresight.run.train import Trainer, train
from boresight.run.watch import Watch

TIGHT = {"train.steps": 45, "train.clip": 1e-3, "train.validate_every": 15, "train.checkpoint_every": 15}


def digits(run: RunFolder) -> list[dict[str, Any]]:
    """All that is no time."""
    return [{k: v for k, v in row.items() if not k.startswith("time_")} for row in read_parquet(run.metrics)]


def kept(run: RunFolder) -> dict[str, Any]:
    return json.loads(run.health.read_text(encoding="utf-8"))


# --- a run -----------------------------------------------------------------------------------------------------------


def test_a_finding_is_said_once_and_kept(tiny, tmp_path, capsys):
    run = RunFolder(tmp_path / "tight")
    train(POINT, tiny(TIGHT), run.root)
    said = [line for line in capsys.readouterr().err.splitlines() if "clip-always-active" in line]
    assert len(said) == 1
    assert said[0].startswith("tight: warning clip-always-active: every step is clipped")
    file = kept(run)
    assert (file["schema_version"], file["step"]) == (1, 45)
    (finding,) = (f for f in file["findings"] if f["id"] == "clip-always-active")
    assert finding["severity"] == "warning"
    assert finding["evidence"]["at most"] == 0.9
    assert 20 <= finding["step"] < 45
    assert {r["rule"] for r in file["unjudged"]} | set(file["silent"]) | {f["id"] for f in file["findings"]} == {
        *(rule.id for rule in LIVE_RULES),
        "frozen-hash-changed",
    }


def test_a_healthy_run_is_told_nothing(trained, capsys):
    assert kept(trained)["findings"] == []
    assert kept(trained)["step"] == 6
    assert "non-finite-loss" in kept(trained)["silent"]


def test_watching_changes_no_digit(tiny, tmp_path, monkeypatch):
    settings = tiny(TIGHT)
    train(POINT, settings, tmp_path / "watched", quiet=True)
    for method in ("steps", "epoch", "judged", "close", "resume"):
        monkeypatch.setattr(Watch, method, lambda self, *given: None)
    train(POINT, settings, tmp_path / "alone", quiet=True)
    watched, alone = RunFolder(tmp_path / "watched"), RunFolder(tmp_path / "alone")
    assert digits(watched) == digits(alone)
    assert not alone.health.exists()
    assert kept(watched)["findings"]


def test_a_stopped_run_goes_on_with_what_was_found(tiny, tmp_path, capsys):
    settings = tiny(TIGHT)
    run = RunFolder(tmp_path / "run")
    first = Trainer(POINT, settings, run)
    after_step = first._after_step

    def stopping(asked: bool) -> None:
        after_step(asked or first.state.step == 42)

    first._after_step = stopping  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        first.fit()
    assert "clip-always-active" in capsys.readouterr().err
    train(POINT, settings, run.root)
    assert "clip-always-active" not in capsys.readouterr().err
    assert [f["id"] for f in kept(run)["findings"]].count("clip-always-active") == 1
    assert kept(run)["step"] == 45


def test_what_ends_a_run_is_kept_though_its_row_is_not(tiny, tmp_path):
    def broken(settings: Any) -> Any:
        view = POINT.view(settings)

        def spoilt(frames: Any, index: int, rng: Any) -> Any:
            scene = view(frames, index, rng)
            return replace(scene, image=torch.full_like(scene.image, torch.nan))

        return spoilt

    run = RunFolder(tmp_path / "run")
    with pytest.raises(Failure, match="loss_cls is nan"):
        train(replace(POINT, view=broken), tiny(), run.root, quiet=True)
    assert [f["id"] for f in kept(run)["findings"]] == ["non-finite-loss"]
    said = run_health(run)
    assert [f.id for f in said.findings] == ["non-finite-loss"]
    assert "non-finite-loss" not in {*said.silent, *(u.rule for u in said.unjudged)}


# --- the watch itself ------------------------------------------------------------------------------------------------


@pytest.fixture
def said(tmp_path) -> tuple[Watch, list[str]]:
    lines: list[str] = []
    return Watch(RunFolder(tmp_path), Plan(score="f1", clip=1.0, batch=4), lines.append), lines


def rows(first: int, last: int, **more: float) -> list[dict[str, Any]]:
    return [{"step": i, "epoch": 0, "loss_cls": 1.0, **more} for i in range(first, last + 1)]


def test_a_long_training_is_looked_at_rarely(said, monkeypatch):
    watch, _ = said
    looks = []
    monkeypatch.setattr(
        watch_module, "judged", lambda rules, evidence: looks.append(len(evidence.steps)) or Health((), (), ())
    )
    watch.steps(rows(1, 20, gradient_norm=float("inf")))  # one bad number does not make every later look urgent
    for start in range(21, 10_000, 20):
        watch.steps(rows(start, start + 19))
    assert looks[:3] == [20, 40, 60]
    gaps = [b - a for a, b in zip(looks[-3:], looks[-2:], strict=False)]
    assert all(80 <= gap <= 120 for gap in gaps)


def test_a_number_that_is_none_is_looked_at_at_once(said):
    watch, lines = said
    watch.steps(rows(1, 5_000))
    watch.steps(rows(5_001, 5_010))
    assert lines == []
    watch.steps(rows(5_011, 5_011, loss_l1=float("inf")))
    assert len(lines) == 1
    assert "loss_l1 is inf at step 5011" in lines[0]


def test_a_judgement_is_looked_at_at_once(said):
    watch, lines = said
    for i, figure in enumerate((0.3, 0.8, 0.5, 0.4, 0.3)):
        watch.steps([{**row, "loss_cls": 5.0 - i} for row in rows(100 * i + 1, 100 * i + 100)])
        watch.judged({"step": 100 * i + 100, "val_f1": figure, "val_threshold": 0.5})
    assert sum("loss-and-score-diverge" in line for line in lines) == 1


def test_what_was_found_later_than_the_state_is_forgotten(said, tmp_path):
    run = RunFolder(tmp_path)
    early, late = (Finding("a", "note", "t", {}, "c", "r", step=5), Finding("b", "note", "t", {}, "c", "r", step=50))
    write_health(run, Health((early, late), (), ()), 60)
    watch, _ = said
    watch.resume(rows(1, 20), [])
    assert [f.id for f in watch.findings] == ["a"]


def test_a_fresh_run_in_a_folder_takes_nothing_over(said, tmp_path):
    write_health(RunFolder(tmp_path), Health((Finding("a", "note", "t", {}, "c", "r"),), (), ()), 60)
    watch, _ = said
    watch.resume([], [])
    assert watch.findings == []


# --- the file --------------------------------------------------------------------------------------------------------


def test_health_is_read_as_it_was_written(tmp_path):
    run = RunFolder(tmp_path)
    found = Finding("a", "error", "t", {"x": 1.0, "at most": 0.5}, "c", "r", {"train.clip": 5.0}, 0.7, "s", 3)
    health = Health((found,), ("b",), (Unjudged("c", "no steps"),))
    assert read_health(run) is None
    write_health(run, health, 7)
    assert read_health(run) == health


def test_a_damaged_file_is_named(tmp_path):
    run = RunFolder(tmp_path)
    run.health.write_text('{"findings": [{"id": 1')
    with pytest.raises(UserError, match=r"health\.json: not JSON"):
        read_health(run)
