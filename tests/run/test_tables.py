"""The tables of a training hold what they are read for, or are refused by name."""

from __future__ import annotations

import json

import pytest

from boresight.core.emission import Missing
from boresight.core.errors import UserError
from boresight.run.health import evidence_of, run_health
from boresight.run.record import RunFolder, write_parquet
from boresight.run.tables import read_metrics, read_targets

STEP = {"step": 1, "epoch": 0, "loss_focal": 0.5, "note": "any", "val_f1": None}
TALLY = {"epoch": 0, "class": "ship", "positives": 5, "objects": 3, "objects_with_none": 1}


def test_what_a_training_writes_is_read(tmp_path):
    write_parquet(tmp_path / "m.parquet", [STEP, STEP | {"step": 2, "loss_focal": float("nan"), "val_f1": 0.5}])
    write_parquet(tmp_path / "t.parquet", [TALLY])
    assert [row["step"] for row in read_metrics(tmp_path / "m.parquet")] == [1, 2]
    assert read_targets(tmp_path / "t.parquet") == [TALLY]
    assert read_metrics(tmp_path / "none.parquet") == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step", "1"),
        ("step", None),
        ("step", -1),
        ("step", 1.5),
        ("step", float("nan")),
        ("val_f1", b"x"),
        ("val_f1", True),
        ("val_f1", [0.5]),
    ],
)
def test_metrics_that_are_none(tmp_path, name, value):
    write_parquet(tmp_path / "metrics.parquet", [STEP | {name: value}])
    with pytest.raises(UserError, match=rf"metrics\.parquet: cannot be read as a table .*column `{name}`") as caught:
        read_metrics(tmp_path / "metrics.parquet")
    assert "\n" not in str(caught.value)


def test_a_loss_that_is_no_number_counts_as_missing(tmp_path):
    write_parquet(tmp_path / "metrics.parquet", [{"step": 1, "loss_kind": "focal", "loss_a": 1.0}])
    assert read_metrics(tmp_path / "metrics.parquet")[0]["loss_kind"] == "focal"
    assert evidence_of(RunFolder(tmp_path)).steps.terms[1].values.tolist() == [1.0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"objects": None}, "column `objects`"),
        ({"positives": "5"}, "column `positives`"),
        ({"epoch": float("inf")}, "column `epoch`"),
        ({"objects_with_none": -1}, "column `objects_with_none`"),
        ({"objects_with_none": 4}, "more objects have no positive cell than there are objects"),
    ],
)
def test_tallies_that_are_none(tmp_path, change, words):
    write_parquet(tmp_path / "targets.parquet", [TALLY | change])
    with pytest.raises(UserError, match=words):
        read_targets(tmp_path / "targets.parquet")


def test_judgements_without_a_step_count_rows(tmp_path):
    """As another program may write them."""
    write_parquet(tmp_path / "metrics.parquet", [{"loss_a": 1.0, "val_threshold": 0.5}] * 3)
    steps = evidence_of(RunFolder(tmp_path)).steps
    assert not isinstance(steps, Missing)
    assert [v.step for v in steps.validations] == [1, 2, 3]


@pytest.mark.parametrize(
    "change",
    [
        {"curve": {"f1": 5, "threshold": [0.5]}},
        {"curve": {"f1": ["high", None], "threshold": [0.5, "x"]}},
        {"truths": "many"},
        {"f1": [1]},
        {"curve": 3},
    ],
)
def test_a_summary_of_other_kinds_leaves_its_rules_unjudged(tmp_path, change):
    good = {"f1": 0.5, "threshold": 0.5, "truths": 9, "curve": {"f1": [0.4, 0.6], "threshold": [0.5, 0.3]}}
    run = RunFolder(tmp_path)
    run.evaluation.write_text(json.dumps(good))
    assert not isinstance(evidence_of(run).outcome.operating, Missing)
    run.evaluation.write_text(json.dumps(good | change))
    run.done.write_text(json.dumps({"features": {"evicted": "all"}}))
    outcome = evidence_of(run).outcome
    assert isinstance(outcome.operating, Missing)
    assert outcome.evicted is None
    run_health(run)


def test_a_key_that_is_no_text_is_named(tmp_path):
    (tmp_path / "config.yaml").write_text("detector: point\ntrain: {1: 2}\n3: {4: 5}\n")
    assert {u.key for u in evidence_of(RunFolder(tmp_path)).unread} >= {"train.1", "3.4"}
