"""The report of one run or of several side by side: one page that needs no network, no server and no Boresight.

What a run does not have (no evaluation yet, truth without SNR, frames that are elsewhere) is said in a sentence where
it would have stood. Everything that a user may have named is escaped by the template engine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from boresight.core.errors import UserError
from boresight.report.box_page import box_page
from boresight.report.browser import Making
from boresight.report.figures import PALETTE
from boresight.report.point_page import point_page
from boresight.report.reading import read_run, run_names
from boresight.report.refine_page import refine_page
from boresight.report.tables import differing_settings
from boresight.run.record import RunFolder, write_text

KINDS = {"text": "boxes", "localise": "boxes", "refine": "refined boxes"}
"""What runs of a system are about; all others are about points."""
PAGES: dict[str, Callable[..., str]] = {"boxes": box_page, "refined boxes": refine_page, "points": point_page}


def write_report(
    runs: Sequence[RunFolder],
    out: Path,
    *,
    title: str | None = None,
    lead: str | None = None,
    table: list[dict[str, Any]] | None = None,
    making: Making | None = None,
) -> Path:
    """Write the page of one or several runs.

    Args:
        runs: at least one; they may be unfinished. Runs that find boxes, refine boxes or find points
            each need a page of their own.
        out: the HTML file.
        title: heading (default: the runs' names).
        lead: what the page says, in sentences; a blank line begins a paragraph.
        table: rows to show instead of the summary that is made from the runs, the first key naming the row.
        making: how the images to look through are made (default: quietly, their maps in a minute).

    Returns:
        ``out``.

    Raises:
        UserError: a file of a run is damaged, the runs cannot share a page, or ``out`` cannot be written.
    """
    if not runs:
        raise UserError("a report needs at least one run folder; `boresight train` makes one")
    data = [read_run(run, name, i) for i, (run, name) in enumerate(zip(runs, run_names(runs), strict=True))]
    kinds = [KINDS.get(d.detector, "points") for d in data]
    if other := next((d for d, kind in zip(data, kinds, strict=True) if kind != kinds[0]), None):
        about = KINDS.get(other.detector, "points")
        raise UserError(f"{data[0].name} gives {kinds[0]} and {other.name} {about}: give each kind a page of its own")
    heading = {
        "title": title or " · ".join(d.name for d in data),
        "lead": [p.strip() for p in (lead or "").split("\n\n") if p.strip()],
        "runs": data,
        "run_names": [d.name for d in data],
        "run_key": [(d.name, f"s{d.colour % len(PALETTE)}") for d in data],
        "differing": differing_settings(data),
    }
    write_text(out, PAGES[kinds[0]](data, heading, table, making or Making()))
    return out
