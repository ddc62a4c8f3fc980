"""Training health read from run folders: of ours, of other programs, and of pieces."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
import yaml

from boresight.core.emission import Missing
from boresight.core.errors import UserError
from boresight.diagnose.health import RULES
from boresight.run.config import PointSettings
from boresight.run.config_refine import RefineSettings
from boresight.run.config_text import LocaliseSettings, TextSettings
from boresight.run.health import evidence_of, run_health
from boresight.run.health_load import load_costs
from boresight.run.health_probe import frozen_parts
from boresight.run.parse import flatten, nested
from boresight.run.plan import plan_of
from boresight.run.point import POINT
from boresight.run.record import RunFolder, write_json, write_parquet
from boresight.run.systems import SETTINGS
from boresight.run.text import TEXT
from boresight.run.unread import READ_WHEN, pruned, unread_keys

IDS = {rule.id for rule in RULES}


# --- folders ---------------------------------------------------------------------------------------------------------


def test_a_finished_run_is_read_whole(trained):
    evidence = evidence_of(trained)
    assert evidence.plan.system == "point"
    assert not isinstance(evidence.steps, Missing)
    assert evidence.steps.step.tolist() == [1, 2, 3, 4, 5, 6]
    assert [v.step for v in evidence.steps.validations] == [3, 6]
    assert not isinstance(evidence.tallies, Missing)
    assert sum(t.objects for t in evidence.tallies) > 0
    assert evidence.unread == ()
    assert isinstance(evidence.labels, Missing)


def test_nothing_is_written_and_nothing_is_made_by_asking(copied):
    before = {p: p.read_bytes() for p in copied.root.rglob("*") if p.is_file()}
    run_health(copied, probe=True)
    assert {p: p.read_bytes() for p in copied.root.rglob("*") if p.is_file()} == before


def test_a_probed_run_answers_every_question_that_its_system_has(copied):
    probe = evidence_of(copied, probe=True, scenes=4).probe
    missing = {f.name for f in fields(probe) if isinstance(getattr(probe, f.name), Missing)}
    assert missing <= {"peaks", "maps", "stored", "moved", "offset", "padding"}
    assert "asking it failed" not in str(probe)


def test_the_table_of_another_program_is_judged_as_far_as_it_goes(tmp_path):
    run = RunFolder(tmp_path)
    write_parquet(run.metrics, [{"step": i, "loss": 2.0, "loss_box": 300.0 if i > 10 else 1.0} for i in range(1, 41)])
    said = run_health(run)
    assert [f.id for f in said.findings] == ["loss-out-of-range"]
    assert said.findings[0].change == {}
    unjudged = {u.rule: u.reason for u in said.unjudged}
    assert unjudged["objects-without-positives"] == "targets.parquet is missing or empty"
    assert unjudged["unread-key"] == "config.yaml is missing"
    assert {*said.silent, *unjudged, "loss-out-of-range"} == IDS


def test_tables_and_summaries_of_another_shape_are_not_judged(tmp_path):
    run = RunFolder(tmp_path)
    write_parquet(run.metrics, [{"step": 1, "loss": 1.0, "loss_kind": "focal"}])
    write_parquet(run.targets, [{"epoch": 0, "class": "ship"}])
    write_json(run.done, {"frozen": ["clip"], "features": 3})
    write_json(run.evaluation, {"curve": [1, 2], "f1": 0.5})
    reasons = {u.rule: u.reason for u in run_health(run).unjudged}
    assert reasons["objects-without-positives"] == "targets.parquet has no column 'positives'"
    assert reasons["frozen-hash-changed"] == "nothing is frozen, or no hash is recorded"
    assert reasons["threshold-off"] == "the evaluation holds no curve of F1 over thresholds"


def test_settings_of_another_program_are_not_guessed_at(tmp_path):
    run = RunFolder(tmp_path)
    run.config.write_text("model: yolo\nlr0: 0.01\n")
    evidence = evidence_of(run)
    assert evidence.plan.batch is None
    assert isinstance(evidence.unread, Missing)
    with pytest.raises(UserError, match=r"cannot be probed: config\.yaml holds no settings"):
        run_health(run, probe=True)


def test_an_empty_folder_leaves_every_rule_unjudged(tmp_path):
    said = run_health(RunFolder(tmp_path))
    assert (said.findings, said.silent) == ((), ())
    assert {u.rule for u in said.unjudged} == IDS


def test_a_run_without_weights_is_judged_on_its_tables(copied):
    import shutil

    shutil.rmtree(copied.checkpoints)
    said = run_health(copied, probe=True)
    reasons = {u.rule: u.reason for u in said.unjudged}
    assert "no such checkpoint" in reasons["train-eval-parity"]
    assert "zero-loss" in said.silent


def test_a_damaged_summary_is_named(copied):
    copied.done.write_text("{")
    with pytest.raises(UserError, match=r"done\.json: not JSON"):
        run_health(copied)


def test_the_curve_of_an_evaluation_says_how_the_threshold_does(copied):
    curve = {"threshold": [0.9, 0.5, 0.1], "f1": [0.1, None, 0.8]}
    write_json(copied.evaluation, {"threshold": 0.9, "f1": 0.1, "truths": 300, "curve": curve})
    (finding,) = (f for f in run_health(copied).findings if f.id == "threshold-off")
    assert (finding.evidence["best F1"], finding.evidence["at"]) == (0.8, 0.1)
    write_json(copied.evaluation, {"threshold": 0.1, "f1": 0.8, "truths": 300, "curve": curve})
    assert "threshold-off" in run_health(copied).silent


def test_hashes_and_evictions_are_read(copied):
    done = json.loads(copied.done.read_text())
    done["frozen"] = {"before": {"clip": "a"}, "after": {"clip": "b"}}
    done["features"] = {"evicted": 3}
    write_json(copied.done, done)
    evidence = evidence_of(copied)
    assert not isinstance(evidence.outcome, Missing)
    assert evidence.outcome.evicted == 3
    assert [f.id for f in run_health(copied).findings] == ["frozen-hash-changed"]


# --- plans -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [PointSettings, TextSettings, LocaliseSettings, RefineSettings])
def test_every_system_has_a_plan(kind):
    settings = kind()
    plan = plan_of(settings, "f1")
    assert plan.keys == tuple(flatten(settings))
    assert (plan.steps, plan.batch, plan.clip) == (settings.train.steps, settings.train.batch, settings.train.clip)
    assert plan.proposals == (kind is RefineSettings)
    assert plan.scored == (kind in (PointSettings, TextSettings))
    assert plan.stride == {PointSettings: 4.0, TextSettings: 8, LocaliseSettings: 8}.get(kind)
    assert plan.tolerance == (3.0 if kind is PointSettings else None)


def test_a_plan_knows_whether_places_are_predicted(tiny):
    assert plan_of(tiny(), "f1").places
    assert not plan_of(tiny({"decode.refine": "none"}), "f1").places
    assert plan_of(TextSettings(), "ap50").places


# --- keys that nothing reads -----------------------------------------------------------------------------------------


def test_keys_that_hang_on_another_exist(tiny):
    every = {key for kind in SETTINGS.values() for key in flatten(kind())}
    assert {key for key, _, _ in READ_WHEN} | {other for _, other, _ in READ_WHEN} <= every
    for kind in SETTINGS.values():
        assert unread_keys(kind, nested(kind())) == ()


@pytest.mark.parametrize("recipe", ["boresight", "baseline"])
@pytest.mark.parametrize("kind", [TextSettings, LocaliseSettings, RefineSettings])
def test_a_recipe_reads_what_it_sets(kind, recipe):
    assert unread_keys(kind, {"recipe": recipe}) == ()


def test_a_key_of_another_choice_is_named_with_that_choice():
    values = nested(PointSettings())
    values["loss"]["focal_alpha"] = 0.5
    (found,) = unread_keys(PointSettings, values)
    assert (found.key, found.value, found.known) == ("loss.focal_alpha", "0.5", True)
    assert found.why == "it is read for `loss.name` = focal, which is penalty_reduced_focal"
    values["loss"]["name"] = "focal"
    assert unread_keys(PointSettings, values) == ()


def test_an_unknown_key_is_named_with_its_neighbour():
    (found,) = unread_keys(PointSettings, {"train": {"lernig_rate": 0.1}})
    assert (found.key, found.known) == ("train.lernig_rate", False)
    assert "did you mean `train.learning_rate`?" in found.why


def test_unknown_keys_are_taken_out_before_settings_are_read():
    values = {"train": {"steps": 5, "lernig_rate": 0.1}, "strange": {"a": 1}, "detector": "point", "colour": 3}
    assert pruned(PointSettings, values) == {"train": {"steps": 5}, "detector": "point"}


def test_a_run_with_an_unknown_key_can_be_examined(copied):
    values = yaml.safe_load(copied.config.read_text())
    values["train"]["lernig_rate"] = 0.1
    copied.config.write_text(yaml.safe_dump(values))
    assert [f.id for f in run_health(copied).findings] == ["unread-key"]


# --- loading and frozen parts ----------------------------------------------------------------------------------------


def test_what_loading_costs_is_told_by_part(tiny):
    settings = tiny({"augment.noise": 0.5, "augment.flip": False})
    costs = load_costs(POINT, settings, POINT.frames(settings, None), count=2)
    parts = {c.part for c in costs}
    assert {"reading", "augment.noise", "cutting the view"} <= parts
    assert "augment.flip" not in parts
    assert all(c.seconds >= 0 for c in costs)
    assert set().union(*(c.spare for c in costs)) <= set(flatten(settings))


def test_statistics_of_a_frozen_part_belong_to_it(tiny_text, one_clip):
    settings = tiny_text({"encoder.name": "squeezenet", "encoder.frozen": True})
    fresh, trained = (TEXT.build(settings, ("a", "b")) for _ in range(2))
    trained.load_state_dict(fresh.state_dict())
    (same,) = frozen_parts(fresh, trained)  # type: ignore[misc]
    assert (same.moved, same.tensors) == (0, 50)
    name = next(n for n, p in fresh.named_parameters() if not p.requires_grad)
    trained.get_parameter(name).data.add_(1.0)
    (moved,) = frozen_parts(fresh, trained)  # type: ignore[misc]
    assert (moved.moved, moved.worst) == (1, name)
    assert isinstance(frozen_parts(POINT.build(PointSettings(), ("a",)), trained), Missing)
