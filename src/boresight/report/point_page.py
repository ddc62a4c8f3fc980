"""The page of point runs: detection, frames, errors, training, targets, other programs' protocols, settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from boresight.report import frames
from boresight.report.browser import Making, browser
from boresight.report.chosen import by_image, chosen_frames
from boresight.report.curves import judged_panels, training_panels
from boresight.report.diagnosis import diagnosis_part
from boresight.report.page import page
from boresight.report.reading import FrameStore, RunData
from boresight.report.tables import compatibility_rows, given_table, summary_table
from boresight.run.config import PointSettings
from boresight.run.recipe import Frames

LEGEND = (
    ("truth", "target"),
    ("hit", "detection that hits"),
    ("missed", "missed target"),
    ("false_alarm", "false alarm"),
    ("duplicate", "duplicate"),
    ("dont_care", "target that need not be found"),
    ("ignored", "detection on such a target"),
)


def point_page(
    data: Sequence[RunData],
    heading: Mapping[str, Any],
    table: Sequence[Mapping[str, Any]] | None,
    making: Making,
) -> str:
    """Render the page of point runs; ``heading`` is what every page has, ``table`` replaces the summary."""
    source = FrameStore()
    return page(
        "report.html",
        **heading,
        browser=browser(data, source, making),
        diagnosed=[diagnosis_part(d) for d in data] if any(d.diagnosis for d in data) else [],
        displaced=[None] * len(data),
        legend=LEGEND,
        summary=given_table(table) if table is not None else summary_table(data),
        curves=training_panels(data),
        labels=[
            (d, frames.label_maps(d.settings.target) if isinstance(d.settings, PointSettings) else []) for d in data
        ],
        levels=[(d, *level_pictures(d, source)) for d in data],
        shown=shown_frames(data, source),
        galleries=[galleries(d, source) for d in data],
        judged=judged_panels(data),
        compatibility=[(d, compatibility_rows(d)) for d in data],
        cells=frames.LABEL_CELLS,
        crop=frames.CROP,
        zoom=frames.ZOOM,
    )


def level_pictures(run: RunData, store: FrameStore) -> tuple[list[frames.Picture], str]:
    """Label maps of a real frame at every level, or a sentence why there are none."""
    found = store.frames(run)
    if isinstance(found, str):
        return [], found
    assert isinstance(run.settings, PointSettings)
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
        rows = {r.name: by_image(r.matches) for r in members}
        for name in chosen_frames([r.matches for r in members], found.names):
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
