"""What a rule of training health says when it fires."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["note", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("note", "warning", "error")
"""From the mildest: a note is worth knowing, a warning costs figures, an error makes them worthless."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule that fired.

    Attributes:
        id: of the rule, words with hyphens: ``prior-missing``.
        severity: see :data:`SEVERITIES`.
        title: what is wrong, one line that a person reads.
        evidence: the figures that made it fire, by name, each with its limit beside it.
        cause: what most likely brings it about.
        remedy: what to do, in words.
        change: the settings to change, ``{"head.prior": 0.01}``; empty where no key does it.
        confidence: how sure the rule is, 0..1.
        source: where this was seen: a thread, a paper, an entry of the log.
        step: of the training, where it belongs to one.
    """

    id: str
    severity: Severity
    title: str
    evidence: Mapping[str, float | int | str | None]
    cause: str
    remedy: str
    change: dict[str, Any] = field(default_factory=dict)
    confidence: float = 0.9
    source: str = ""
    step: int | None = None

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ValueError(f"severity must be one of {', '.join(SEVERITIES)}, got {self.severity!r}")
        if not 0 <= self.confidence <= 1:
            raise ValueError(f"confidence must lie in 0..1, got {self.confidence}")

    def line(self) -> str:
        """The one line that is printed."""
        figures = ", ".join(f"{k} {_shown(v)}" for k, v in self.evidence.items())
        return f"{self.severity} {self.id}: {self.title} ({figures}); {self.remedy}"

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON, which has no number that is none: such a figure becomes its name (``"nan"``, ``"inf"``)."""
        known = {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in self.evidence.items()}
        return asdict(self) | {"evidence": known}


def _shown(value: float | int | str | None) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
