"""The report of one run or of several side by side: one page that needs no network, no server and no Boresight.

What a run does not have (no evaluation yet, truth without SNR, frames that are elsewhere) is said in a sentence where
it would have stood. Everything that a user may have named is escaped by the template engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from boresight import __version__
from boresight.core.errors import UserError
from boresight.report import frames
from boresight.report.curves import judged_panels, training_panels
from boresight.report.figures import PALETTE
from boresight.report.reading import FrameStore, RunData, read_run, run_names
from boresight.report.tables import compatibility_rows, differing_settings, given_table, summary_table
from boresight.run.recipe import Frames
from boresight.run.record import RunFolder, write_text

LEGEND = (
    ("truth", "target"),
    ("hit", "detection that hits"),
    ("missed", "missed target"),
    ("false_alarm", "false alarm"),
    ("duplicate", "duplicate"),
    ("dont_care", "target that need not be found"),
    ("ignored", "detection on such a target"),
)


def page(template: str, **values: Any) -> str:
    """Render one of the package's templates; a value that a template asks for and nobody gives is an error."""
    environment = Environment(
        loader=PackageLoader("boresight.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(version=__version__, **values)


def write_report(
    runs: Sequence[RunFolder],
    out: Path,
    *,
    title: str | None = None,
    lead: str | None = None,
    table: list[dict[str, Any]] | None = None,
) -> Path:
    """Write the page of one or several runs.

    Args:
        runs: at least one; they may be unfinished.
        out: the HTML file.
        title: heading (default: the runs' names).
        lead: what the page says, in sentences; a blank line begins a paragraph.
        table: rows to show instead of the summary that is made from the runs, the first key naming the row.

    Returns:
        ``out``.

    Raises:
        UserError: a file of a run is damaged, or ``out`` cannot be written.
    """
    if not runs:
        raise UserError("a report needs at least one run folder; `boresight train` makes one")
    data = [read_run(run, name, i) for i, (run, name) in enumerate(zip(runs, run_names(runs), strict=True))]
    source = FrameStore()
    html = page(
        "report.html",
        title=title or " · ".join(d.name for d in data),
        lead=[p.strip() for p in (lead or "").split("\n\n") if p.strip()],
        runs=data,
        run_names=[d.name for d in data],
        run_key=[(d.name, f"s{d.colour % len(PALETTE)}") for d in data],
        legend=LEGEND,
        summary=given_table(table) if table is not None else summary_table(data),
        curves=training_panels(data),
        labels=[(d, frames.label_maps(d.settings.target) if d.settings else []) for d in data],
        levels=[(d, *level_pictures(d, source)) for d in data],
        shown=shown_frames(data, source),
        galleries=[galleries(d, source) for d in data],
        judged=judged_panels(data),
        compatibility=[(d, compatibility_rows(d)) for d in data],
        differing=differing_settings(data),
        cells=frames.LABEL_CELLS,
        crop=frames.CROP,
        zoom=frames.ZOOM,
    )
    write_text(out, html)
    return out


def level_pictures(run: RunData, store: FrameStore) -> tuple[list[frames.Picture], str]:
    """Label maps of a real frame at every level, or a sentence why there are none."""
    found = store.frames(run)
    if isinstance(found, str):
        return [], found
    assert run.settings is not None
    for i in range(min(len(found), 50)):
        scene = found[i]
        if scene.points is not None and bool((~scene.points.ignore).any()) and min(scene.size) >= 16:
            return frames.level_maps(run.settings, scene), ""
    return [], "None of the first 50 frames has a target to show."


def shown_frames(runs: Sequence[RunData], store: FrameStore) -> dict[str, Any]:
    """Frames with truth and detections: runs that were judged on the same frames share a picture."""
    groups: dict[int, tuple[Frames, list[RunData]]] = {}
    notes = []
    for run in runs:
        found = store.frames(run)
        if not run.matches:
            notes.append(f"{run.name}: no matches are written, so no detection can be drawn.")
        elif isinstance(found, str):
            notes.append(f"{run.name}: {found}")
        else:
            groups.setdefault(id(found), (found, []))[1].append(run)
    pictures, views = [], []
    for number, (found, members) in enumerate(groups.values()):
        index = {n: i for i, n in enumerate(found.names)}
        rows = {r.name: frames.by_image(r.matches) for r in members}
        for name in frames.chosen_frames([r.matches for r in members], found.names):
            scene, key = found[index[name]], f"frame-{number}-{index[name]}"
            pictures.append((key, frames.whole_frame(scene)))
            views.append(
                (name, frames.frame_views(scene, key, [(r.name, rows[r.name].get(name, [])) for r in members]))
            )
    return {"pictures": pictures, "views": views, "notes": notes}


def galleries(run: RunData, store: FrameStore) -> dict[str, Any]:
    """The worst misses and false alarms of a run."""
    found = store.frames(run)
    if not run.matches or isinstance(found, str):
        why = found if isinstance(found, str) and run.matches else "No matches are written: evaluate the run first."
        return {"run": run, "note": why, "parts": []}
    parts = []
    for kind, words in (("missed", "Missed targets, brightest first"), ("false_alarm", "False alarms, surest first")):
        pictures, count, elsewhere = frames.gallery(run.matches, found, kind)
        note = f"{len(pictures)} of {count} shown." if count else "None."
        if elsewhere:
            note += f" {elsewhere} lie in frames that are not in this data set any more."
        parts.append({"title": words, "pictures": pictures, "note": note})
    return {"run": run, "note": "", "parts": parts}
