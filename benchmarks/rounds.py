"""What the benchmarks share: interleaved rounds, medians and ratios, and one line a comparison."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        work: what is done.
        peer: beside what.
        peer_ms, ours_ms: medians of CPU milliseconds.
        ratio: median over the rounds of the peer's time over ours (or, where ``share``, of ours over the peer's).
        target: what is asked of the ratio, `>= 6` or `<= 1.3`; empty: nothing.
        answer: how the answers were compared.
        wall: medians of wall milliseconds, the peer's and ours.
    """

    work: str
    peer: str
    peer_ms: float
    ours_ms: float
    ratio: float
    target: str
    answer: str
    wall: tuple[float, float] = (0.0, 0.0)

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if not self.target:
            return None
        sign, limit = self.target.split()
        return self.ratio >= float(limit) if sign == ">=" else self.ratio <= float(limit)

    def line(self) -> str:
        """For the terminal."""
        met = {None: "", True: "reached", False: "MISSED"}[self.reached]
        times = f"{self.peer_ms:10.2f}{self.ours_ms:10.2f}{self.wall[0]:10.2f}{self.wall[1]:10.2f}"
        return f"{self.work:<58}{self.peer:<26}{times}{self.ratio:9.2f}  {self.target:<8}{met:<9}{self.answer}"

    def cells(self) -> str:
        """For a table in Markdown."""
        met = {None: "", True: "", False: " (missed)"}[self.reached]
        times = f"{self.peer_ms:.2f} | {self.ours_ms:.2f}"
        return f"| {self.work} | {self.peer} | {times} | {self.ratio:.2f} | {self.target}{met} | {self.answer} |"


HEAD = (
    f"{'work':<58}{'peer':<26}{'peer CPU':>10}{'ours CPU':>10}{'peer wall':>10}{'ours wall':>10}{'ratio':>9}  "
    f"{'target':<8}{'':<9}answers (times in ms, medians)"
)

MARKDOWN_HEAD = (
    "| work | peer | peer, CPU ms | ours, CPU ms | ratio | target | answers |\n|---|---|---:|---:|---:|---|---|"
)


@dataclass(frozen=True)
class Timed:
    """The last answer of a way, and the seconds of each round: of the processor, and of the clock on the wall."""

    answer: Any
    cpu: list[float]
    wall: list[float]


def interleaved(
    ways: Mapping[str, Callable[[], Any]], rounds: int, *, warm: int = 1, repeats: int = 1
) -> dict[str, Timed]:
    """Every way in turn, round by round, ``repeats`` calls a turn; the first ``warm`` rounds are not counted.

    Seconds are those of one call.
    """
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    wall: dict[str, list[float]] = {name: [] for name in ways}
    answers: dict[str, Any] = {}
    for number in range(warm + rounds):
        for name, way in ways.items():
            began, clock = time.process_time(), time.perf_counter()
            for _ in range(repeats):
                answers[name] = way()
            if number >= warm:
                cpu[name].append((time.process_time() - began) / repeats)
                wall[name].append((time.perf_counter() - clock) / repeats)
    return {name: Timed(answers[name], cpu[name], wall[name]) for name in ways}


def row(work: str, peer: str, times: Mapping[str, Timed], target: str, answer: str, *, share: bool = False) -> Row:
    """Of the two ways ``peer`` and ``ours``."""
    theirs, ours = times["peer"], times["ours"]
    ratios = [b / a if share else a / b for a, b in zip(theirs.cpu, ours.cpu, strict=True)]
    a, b, c, d = (1e3 * statistics.median(v) for v in (theirs.cpu, ours.cpu, theirs.wall, ours.wall))
    return Row(work, peer, a, b, statistics.median(ratios), target, answer, (c, d))


def shown(rows: list[Row]) -> None:
    """Print the table."""
    print(HEAD)
    for one in rows:
        print(one.line(), flush=True)
