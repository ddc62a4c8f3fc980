"""What every diagnosis of a run has beside its figures: what could be changed, and the rules of training health."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from boresight.diagnose.finding import Finding
from boresight.diagnose.rule import Health


class Plain(Protocol):
    """A diagnosis."""

    @property
    def findings(self) -> Sequence[Finding]:
        """Of the rules, the gravest first."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        ...


D = TypeVar("D", bound=Plain)


@dataclass(frozen=True)
class Diagnosed(Generic[D]):
    """A diagnosis of a run.

    Attributes:
        diagnosis: its verdict and figures.
        remedies: settings to change, the most promising first.
        health: what the rules of training health say, those that are silent or could not be judged included.
    """

    diagnosis: D
    remedies: list[dict[str, Any]]
    health: Health

    def to_dict(self) -> dict[str, Any]:
        """For ``diagnosis.json``."""
        rules = {k: v for k, v in self.health.to_dict().items() if k != "findings"}
        return self.diagnosis.to_dict() | {"remedies": self.remedies, "rules": rules}

    def closing_lines(self) -> list[str]:
        """The end of what a person reads: findings, rules and remedies."""
        lines: list[str] = []
        for finding in self.diagnosis.findings:
            lines += ["", f"  {finding.line()}", f"    likely because {finding.cause}"]
        counts = (len(self.diagnosis.findings), len(self.health.silent), len(self.health.unjudged))
        lines += ["", "  training health: {} findings; {} rules silent, {} could not be judged".format(*counts)]
        if self.remedies:
            lines += ["", "  remedies, most promising first:"]
            lines += [f"  {i}. {r['change_text']}: {r['why']}" for i, r in enumerate(self.remedies, 1)]
        return lines
