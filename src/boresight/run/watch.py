"""Watches a training while it runs: the rules that need nothing but numbers which the loop has read anyway.

Each finding is said once, in one line, and kept in the run's ``health.json``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from boresight.core.emission import Missing
from boresight.diagnose.evidence import ClassTally, Evidence, FrozenPart, Outcome
from boresight.diagnose.finding import Finding
from boresight.diagnose.health import LIVE_RULES
from boresight.diagnose.plan import Plan
from boresight.diagnose.rule import Health, Rule, judged
from boresight.diagnose.rules_weights import HASHES
from boresight.diagnose.steps import StepLog
from boresight.run.health_file import read_health, write_health
from boresight.run.record import RunFolder

RARELY = 100
"""A training is looked at again when it is longer by this part: what that costs does not grow with its length."""


class Watch:
    """Judges what a run has logged so far.

    Args:
        run: where ``health.json`` lies.
        plan: what the settings plan.
        say: tells a person one line.

    Attributes:
        findings: all so far, those of an earlier part of the same run included.
    """

    def __init__(self, run: RunFolder, plan: Plan, say: Callable[[str], None]) -> None:
        self.run, self.plan, self.say = run, plan, say
        self.log = StepLog(plan.score)
        self.tallies: list[ClassTally] = []
        self.findings: list[Finding] = []
        self.due = 0

    def resume(self, rows: Sequence[Mapping[str, Any]], target_rows: Sequence[Mapping[str, Any]]) -> None:
        """Take up the rows that lead to the state from which the run goes on, and what was found in them."""
        last = int(rows[-1]["step"]) if rows else 0
        kept = read_health(self.run) if rows else None
        if kept is not None:
            self.findings = [f for f in kept.findings if f.step is None or f.step <= last]
        for row in rows:
            self.log.add(row)
            self.log.judged(row)
        self.tallies += ClassTally.of(target_rows)

    def steps(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows of steps that were just read from the device."""
        known = len(self.log.not_finite)
        for row in rows:
            self.log.add(row)
        if rows and (self.log.rows >= self.due or len(self.log.not_finite) > known):
            self._look(LIVE_RULES)

    def epoch(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """The rows of an epoch that is closed."""
        self.tallies += ClassTally.of(rows)

    def judged(self, row: Mapping[str, Any]) -> None:
        """A row that was given the figures of a judgement."""
        self.log.judged(row)
        self._look(LIVE_RULES)

    def close(self, before: Mapping[str, str], after: Mapping[str, str]) -> None:
        """The training is over; the hashes of its frozen parts before and after it."""
        frozen = tuple(FrozenPart(name, before[name], after.get(name, "")) for name in before)
        found = self._look((*LIVE_RULES, HASHES), Outcome(frozen))
        self._write(found)

    def _look(self, rules: Sequence[Rule[Any]], outcome: Outcome | None = None) -> Health:
        tallies = tuple(self.tallies) or Missing("no epoch is closed")
        evidence = Evidence(self.plan, self.log.view(), tallies, outcome or Missing("the run is not finished"))
        found = judged(rules, evidence)
        self.due = self.log.rows + self.log.rows // RARELY
        told = {f.id for f in self.findings}
        new = [f for f in found.findings if f.id not in told]
        for finding in new:
            self.say(finding.line())
        self.findings += new
        if new:
            self._write(found)
        return found

    def _write(self, found: Health) -> None:
        """All findings so far, also those that a later look no longer makes: they were true when they were made."""
        write_health(self.run, Health(tuple(self.findings), found.silent, found.unjudged), self.log.rows)
