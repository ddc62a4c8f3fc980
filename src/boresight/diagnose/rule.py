"""What a rule of training health is, and what comes of asking all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from boresight.core.emission import Missing
from boresight.diagnose.evidence import Evidence
from boresight.diagnose.finding import SEVERITIES, Finding, Severity
from boresight.diagnose.plan import Plan

View = TypeVar("View")


@dataclass(frozen=True, slots=True)
class Rule(Generic[View]):
    """One question, and a pure function that answers it.

    Attributes:
        id: words with hyphens; every finding of the rule carries it.
        view: takes out of all evidence what the rule looks at; `Missing` where the run does not have it.
        judge: the view and the plan of the run to findings (none: all is well), or `Missing` where the view is too
            little to tell (six steps, no object). It never guesses.
    """

    id: str
    view: Callable[[Evidence], View | Missing]
    judge: Callable[[View, Plan], list[Finding] | Missing]


@dataclass(frozen=True, slots=True)
class Unjudged:
    """A rule that could not be judged, and why."""

    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class Health:
    """What the rules say of a run.

    Attributes:
        findings: of the rules that fired, the gravest first.
        silent: ids of rules that were judged and found nothing.
        unjudged: rules that could not be judged.
    """

    findings: tuple[Finding, ...]
    silent: tuple[str, ...]
    unjudged: tuple[Unjudged, ...]

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings of one severity."""
        return tuple(f for f in self.findings if f.severity == severity)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "findings": [f.to_dict() for f in self.findings],
            "silent": list(self.silent),
            "unjudged": [{"rule": u.rule, "reason": u.reason} for u in self.unjudged],
        }


def judged(rules: Iterable[Rule[Any]], evidence: Evidence) -> Health:
    """Ask every rule."""
    findings: list[Finding] = []
    silent: list[str] = []
    unjudged: list[Unjudged] = []
    for rule in rules:
        view = rule.view(evidence)
        found = view if isinstance(view, Missing) else rule.judge(view, evidence.plan)
        if isinstance(found, Missing):
            unjudged.append(Unjudged(rule.id, found.reason))
        elif found:
            findings += found
        else:
            silent.append(rule.id)
    findings.sort(key=lambda f: (-SEVERITIES.index(f.severity), -f.confidence))
    return Health(tuple(findings), tuple(silent), tuple(unjudged))
