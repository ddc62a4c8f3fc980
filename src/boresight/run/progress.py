"""Tells a person how far a long job is: a bar on a terminal, plain lines in a pipe. All of it on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self


class Progress:
    """Progress of ``total`` steps.

    Args:
        total: steps in all.
        done: steps already done (a resumed run).
        label: what is running.
        unit: what a throughput counts; with `step`, steps are counted.
        quiet: show nothing.
        interval: seconds between plain lines.
    """

    def __init__(
        self,
        total: int,
        *,
        done: int = 0,
        label: str = "",
        unit: str = "img",
        quiet: bool = False,
        interval: float = 10.0,
    ) -> None:
        self.total, self.done, self.label, self.unit, self.quiet = total, done, label, unit, quiet
        self.interval, self.first = interval, done
        self.start = self.last = time.monotonic()
        self.units = 0
        self.note = ""
        self.bar: Any = None  # rich is imported where a bar is shown

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and not self.quiet:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.bar = Bar(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True))
            self.bar.start()
            self.task = self.bar.add_task(self.label, total=self.total, completed=self.done, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def step(self, units: int, note: str = "") -> None:
        """One step of ``units`` items is done; ``note`` says what it found (kept until a new one is given)."""
        self.advance(1, units, note)

    def advance(self, steps: int, units: int, note: str = "") -> None:
        """So many steps, of ``units`` items together, are done."""
        self.done += steps
        self.units += units
        self.note = note or self.note
        now = time.monotonic()
        if self.quiet:
            return
        told = " · ".join(part for part in (self.note, self._rate(now)) if part)
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done, note=told)
        elif now - self.last >= self.interval or self.done == self.total:
            self.last = now
            left = (now - self.start) / max(1, self.done - self.first) * (self.total - self.done)
            print(
                f"{self.label} {self.done}/{self.total} · {told} · {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    def _rate(self, now: float) -> str:
        counted = self.done - self.first if self.unit == "step" else self.units
        return f"{counted / max(1e-9, now - self.start):.1f} {self.unit}/s"
