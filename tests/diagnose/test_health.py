"""Every rule of training health fires on a fault planted in a real system, and is silent on clean runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from boresight.core.emission import Missing
from boresight.diagnose.evidence import Evidence
from boresight.diagnose.health import LIVE_RULES, RULES, health
from boresight.diagnose.plan import Plan
from boresight.diagnose.rule import Health, Rule
from boresight.run.parse import flatten, settings_from

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))
import planted
from planted import targets, tiny

IDS = [rule.id for rule in RULES]
LOUD = ("warning", "error")


@pytest.fixture(scope="module", autouse=True)
def one_clip() -> Iterator[None]:
    """The shipped encoder, read from its file once."""
    from boresight.features.clip_load import load_clip
    from boresight.run import text_parts

    clip = load_clip("boresight-aerial")
    with patch.object(text_parts, "load_clip", lambda name, weights=None, **more: clip):
        yield


# --- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", planted.in_tests(), ids=lambda fault: fault.name.replace(" ", "-"))
def test_the_rules_of_a_planted_fault_fire(fault, tmp_path):
    said = fault.health(tmp_path / "run")
    fired = {finding.id for finding in said.findings}
    assert set(fault.rules) <= fired, [u for u in said.unjudged if u.rule in fault.rules]
    for finding in said.findings:
        assert any(accepted(system, finding.change) for system in tiny.SYSTEMS), finding.change
        assert "\n" not in finding.line()
        assert all((finding.title, finding.cause, finding.remedy, finding.source))
        assert any("at most" in k or "at least" in k or "than" in k for k in finding.evidence) or "hash" in finding.id


def test_every_rule_has_a_planted_fault():
    expected = {rule for fault in planted.in_tests() for rule in fault.rules}
    assert expected == set(IDS)
    assert len(IDS) == len(set(IDS))
    assert planted.rules_planted()["background"] == ("background-trap",)


def test_names_of_faults_are_their_own():
    names = [fault.name for fault in planted.FAULTS]
    assert len(names) == len(set(names))


def accepted(system: str, change: dict[str, Any]) -> bool:
    """Whether the settings of a system take these values for these keys."""
    plain = tiny.settings_of(system)
    if not set(change) <= set(flatten(plain)):
        return False
    groups: dict[str, dict[str, Any]] = {}
    for key, value in change.items():
        group, _, name = key.partition(".")
        groups.setdefault(group, {})[name] = value
    settings_from(type(plain), groups, origin="the remedy")
    return True


# --- clean runs ------------------------------------------------------------------------------------------------------

THRICE = {"train.steps": 90, "train.validate_every": 30, "train.checkpoint_every": 90, "train.warmup": 10}
CLEAN: dict[str, tuple[str, dict[str, Any]]] = {
    "point": ("point", THRICE | {"data.frames": 24}),
    "text": ("text", THRICE | {"data.frames": 24, "data.val_frames": 16}),
    "text, frozen backbone": ("text", tiny.TWICE | {"encoder.name": "squeezenet", "encoder.frozen": True}),
    "text, maps that speak": ("text", targets.SPEAKING | tiny.TWICE),
    "localise": ("localise", {}),
    "refine": ("refine", tiny.TWICE | {"coarse.per_image": 8}),
}


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> dict[str, Health]:
    """Every system as it should be, probed."""
    folder = tmp_path_factory.mktemp("clean")
    return {name: tiny.trained(folder / name, system, keys) for name, (system, keys) in CLEAN.items()}


@pytest.mark.parametrize("name", CLEAN)
def test_a_clean_run_has_no_error_and_at_most_one_warning(name, clean):
    said = [finding.line() for finding in clean[name].findings if finding.severity in LOUD]
    assert clean[name].of("error") == ()
    assert len(said) <= 1, said


@pytest.mark.parametrize("rule", IDS)
def test_a_rule_is_judged_and_silent_on_some_clean_run(rule, clean):
    assert any(rule in said.silent for said in clean.values())


def test_every_rule_is_accounted_for(clean):
    for said in clean.values():
        fired = {f.id for f in said.findings}
        assert sorted([*fired, *said.silent, *(u.rule for u in said.unjudged)]) == sorted(IDS)
        assert all(u.reason for u in said.unjudged)


# --- evidence that is not there --------------------------------------------------------------------------------------


def test_without_evidence_nothing_is_judged_and_nothing_guessed():
    said = health(Evidence())
    assert (said.findings, said.silent) == ((), ())
    assert [u.rule for u in said.unjudged] == IDS


def test_live_rules_ask_for_no_detector():
    said = health(Evidence(), LIVE_RULES)
    assert "the detector was not probed" not in {u.reason for u in said.unjudged}
    assert {u.rule for u in said.unjudged} < set(IDS)


def test_findings_come_gravest_first_and_reasons_are_kept():
    from boresight.diagnose.finding import Finding

    def says(severity: str, confidence: float) -> Any:
        return lambda view, plan: [Finding(f"{severity}-{confidence}", severity, "t", {}, "c", "r", {}, confidence)]  # type: ignore[arg-type]

    pairs = (("note", 1.0), ("error", 0.5), ("error", 0.9))
    rules = [Rule(f"r{i}", lambda e: 1, says(*pair)) for i, pair in enumerate(pairs)]
    rules.append(Rule("absent", lambda e: Missing("no view"), says("note", 1.0)))
    rules.append(Rule("few", lambda e: 1, lambda view, plan: Missing("few")))
    said = health(Evidence(Plan()), tuple(rules))
    assert [f.id for f in said.findings] == ["error-0.9", "error-0.5", "note-1.0"]
    assert [(u.rule, u.reason) for u in said.unjudged] == [("absent", "no view"), ("few", "few")]
    assert said.to_dict()["unjudged"] == [{"rule": "absent", "reason": "no view"}, {"rule": "few", "reason": "few"}]


def test_a_remedy_names_no_key_that_the_run_does_not_have():
    plan = Plan(keys=("loss.per",))
    assert plan.change({"loss.per": "objects", "head.prior": 0.01}) == {"loss.per": "objects"}
    both = replace(plan, keys=("loss.per", "head.prior"))
    assert both.change({"loss.per": None, "head.prior": 0.01}) == {"head.prior": 0.01}
