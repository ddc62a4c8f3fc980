"""What quick starts share: ways to train, each a run in a process of its own, and a plain table of their figures."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boresight.run.jobs import run_jobs
from boresight.run.parse import nested
from boresight.run.record import RunFolder, write_yaml


def train_ways(out: Path, settings: Mapping[str, Any], *, label: str, quiet: bool) -> dict[str, RunFolder]:
    """Train and judge every way, as many at a time as there are processors (at most all), one thread each.

    Args:
        out: the folder; a free name beside it is chosen when it is taken. Each run lies in a folder named by its way.
        settings: of each way.
        label: for the bar.
        quiet: no bar.

    Raises Failure when a run fails; names it and its last line.
    """
    folder = RunFolder.fresh(out.parent, out.name).root
    runs = {way: RunFolder(folder / way) for way in settings}
    for way, run in runs.items():
        write_yaml(run.config, nested(settings[way]))
    run_jobs(
        [run.root for run in runs.values()],
        jobs=min(len(runs), max(2, os.cpu_count() or 1)) if (os.cpu_count() or 1) > 1 else 1,
        threads=1,
        label=label,
        total=sum(s.train.steps for s in settings.values()),
        quiet=quiet,
    )
    return runs


def text_table(figures: Mapping[str, Mapping[str, Any]], columns: Mapping[str, tuple[str, str]]) -> str:
    """The figures as plain text, a row a way; ``columns`` maps a heading to a key and a format. A dash: undefined."""
    width = {name: max(len(name), 5) + 3 for name in columns}
    lines = [f"{'':<12}" + "".join(f"{name:>{width[name]}}" for name in columns)]
    for way, row in figures.items():
        cells = "".join(
            f"{'-' if row[key] is None else format(row[key], form):>{width[name]}}"
            for name, (key, form) in columns.items()
        )
        lines.append(f"{way:<12}{cells}")
    return "\n".join(lines)
