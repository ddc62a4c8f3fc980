"""A training step by step, as arrays: what rules of training health read of `metrics.parquet`, live and afterwards."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

COLUMNS = (
    "step",
    "epoch",
    "progress",
    "learning_rate",
    "loss",
    "gradient_norm",
    "positives",
    "objects",
    "positive_rate",
    "positive_mass",
    "time_data",
    "time_forward",
    "time_backward",
    "time_feature",
    "feature_hits",
    "feature_misses",
)
"""Columns of the table that are read by name, beside ``loss_<term>``; `Steps` has an attribute for each."""

SCORES = ("cls", "class", "obj", "score", "heat", "conf", "auxiliary")
"""Parts of names of loss terms that act on scores; all others act on places or qualities."""


def middle(values: Floats) -> float:
    """Median of the values that are numbers; NaN without any."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else math.nan


@dataclass(frozen=True, slots=True)
class Term:
    """One loss term: ``[S]`` values, NaN where a step has none."""

    name: str
    values: Floats

    @property
    def of_scores(self) -> bool:
        """Whether its name says that it acts on scores."""
        return any(word in self.name for word in SCORES)


@dataclass(frozen=True, slots=True)
class Validation:
    """One judgement on the validation frames.

    Attributes:
        step: after which it was made.
        score: the main figure; None where it was undefined.
        threshold: chosen there.
        half: F1 at a threshold of 0.5, where it was worked out.
    """

    step: int
    score: float | None
    threshold: float | None = None
    half: float | None = None


@dataclass(frozen=True, slots=True)
class NotFinite:
    """A number of the table that is none."""

    step: int
    column: str
    value: float


@dataclass(frozen=True, slots=True)
class Steps:
    """S steps. Every array is ``[S]`` float64 with NaN where a step has no value; None: the run does not record it.

    Attributes:
        step: from 1.
        terms: loss terms, in the order of the table.
        not_finite: the first of the losses and gradient norms that were no numbers.
        validations: in their order.
    """

    step: Floats
    epoch: Floats | None = None
    progress: Floats | None = None
    learning_rate: Floats | None = None
    loss: Floats | None = None
    gradient_norm: Floats | None = None
    positives: Floats | None = None
    objects: Floats | None = None
    positive_rate: Floats | None = None
    positive_mass: Floats | None = None
    time_data: Floats | None = None
    time_forward: Floats | None = None
    time_backward: Floats | None = None
    time_feature: Floats | None = None
    feature_hits: Floats | None = None
    feature_misses: Floats | None = None
    terms: tuple[Term, ...] = ()
    not_finite: tuple[NotFinite, ...] = ()
    validations: tuple[Validation, ...] = ()

    def __len__(self) -> int:
        return len(self.step)

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]], monitor: str = "") -> Steps:
        """Rows of the table; the validation's main figure is ``val_<monitor>``."""
        log = StepLog(monitor)
        for row in rows:
            log.add(row)
            log.judged(row)
        return log.view()


@dataclass
class StepLog:
    """Collects rows as they come; :meth:`view` costs one copy of plain memory, however long the training.

    Attributes:
        monitor: name of the validation's main figure.
    """

    monitor: str = ""
    columns: dict[str, array[float]] = field(default_factory=dict)
    rows: int = 0
    not_finite: list[NotFinite] = field(default_factory=list)
    validations: list[Validation] = field(default_factory=list)

    def add(self, row: Mapping[str, Any]) -> None:
        """One step's numbers."""
        for name, value in row.items():
            if name in COLUMNS or name.startswith("loss_"):
                self._put(name, value, int(row.get("step", self.rows + 1)))
        self.rows += 1

    def _put(self, name: str, value: Any, step: int) -> None:
        number = float(value) if isinstance(value, int | float) else math.nan
        column = self.columns.setdefault(name, array("d"))
        column.extend([math.nan] * (self.rows - len(column)))
        column.append(number)
        watched = name == "gradient_norm" or name.startswith("loss")
        if watched and value is not None and not math.isfinite(number) and len(self.not_finite) < 100:
            self.not_finite.append(NotFinite(step, name, number))

    def judged(self, row: Mapping[str, Any]) -> None:
        """The judgement that a row holds, if it does."""
        if row.get("val_threshold") is not None or row.get(f"val_{self.monitor}") is not None:
            own = {k: row.get(f"val_{v}") for k, v in {"score": self.monitor, "half": "f1_at_half"}.items()}
            self.validations.append(
                Validation(int(row.get("step", self.rows)), threshold=row.get("val_threshold"), **own)
            )

    def view(self) -> Steps:
        """All that was collected."""
        full = {name: self._array(values) for name, values in self.columns.items()}
        step = full.pop("step", np.arange(1.0, self.rows + 1))
        known = {name: full[name] for name in COLUMNS if name in full and not np.isnan(full[name]).all()}
        terms = tuple(Term(name.removeprefix("loss_"), full[name]) for name in full if name.startswith("loss_"))
        if "loss" not in known and terms:
            known["loss"] = np.sum([t.values for t in terms], axis=0)
        return Steps(
            step=step, terms=terms, not_finite=tuple(self.not_finite), validations=tuple(self.validations), **known
        )

    def _array(self, values: array[float]) -> Floats:
        filled = np.full(self.rows, np.nan)
        filled[: len(values)] = np.frombuffer(values, dtype=np.float64)
        return filled
