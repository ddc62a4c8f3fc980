"""The page of runs that find boxes: figures, classes, images with truth and detections, errors, training, settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from boresight.report.box_panels import Dots, rows_panel
from boresight.report.box_pictures import (
    BoxPicture,
    Row,
    SceneView,
    crop_of,
    one_a_place,
    scene_view,
    whole_scene,
    worst,
)
from boresight.report.box_tables import SEARCH, class_names, class_table, overview, per_class
from boresight.report.browser import Making, browser
from boresight.report.chosen import by_image, chosen_frames
from boresight.report.curves import Panel, training_panels
from boresight.report.diagnosis import diagnosis_part
from boresight.report.displaced import displaced_gallery
from boresight.report.localisation import localisation
from boresight.report.page import page
from boresight.report.reading import FrameStore, RunData
from boresight.report.tables import given_table
from boresight.run.config_text import BoxDataSettings
from boresight.run.recipe import Frames, Splits

LEGEND = (
    ("truth", "truth"),
    ("hit", "hit"),
    ("missed", "missed object"),
    ("wrong_class", "wrong class"),
    ("false_alarm", "false alarm"),
    ("duplicate", "duplicate"),
    ("dont_care", "need not be found"),
    ("ignored", "detection on such a one"),
)
RARE = ("dont_care", "ignored")
"""In the legend only where there are any."""
QUIET = ("false_alarm", "duplicate", "wrong_class")
"""Not drawn at first where no score was trained: there every box that is emitted counts, good or bad."""
GALLERIES = (
    ("false_alarm", "False alarms, surest first"),
    ("wrong_class", "Boxed well and named wrongly, surest first"),
    ("missed", "Missed objects, largest first"),
)
IMAGES = 12
ON_PAPER = 6
"""Images of a page of one run, whose reader looks through all of them on a screen."""
CROPS = 12
CHARTED = 40
"""Classes of the chart at most; the table has all."""


@dataclass(frozen=True)
class Shown:
    """The images of the page: pictures by key, views image by image, and what cannot be shown."""

    pictures: list[tuple[str, BoxPicture]]
    views: list[tuple[str, list[SceneView]]]
    notes: list[str]


@dataclass(frozen=True)
class Gallery:
    """Crops of one kind of error of a run; ``note`` says how many there are."""

    title: str
    note: str
    pictures: list[BoxPicture]


def box_page(
    data: Sequence[RunData],
    heading: Mapping[str, Any],
    table: Sequence[Mapping[str, Any]] | None,
    making: Making,
) -> str:
    """Render the page; ``heading`` is what every page has, ``table`` replaces the overview."""
    store = FrameStore()
    novel = novel_names(data, store)
    search = any(d.detector == "text" for d in data)
    shown = shown_images(data, store)
    drawn = {m.kind for _, views in shown.views for v in views for m in v.marks}
    parts = [localisation(d) for d in data if d.detector == "localise" or (d.evaluation or {}).get("localisation")]
    diagnosed = [diagnosis_part(d) for d in data] if any(d.diagnosis for d in data) else []
    verdicts = [f"{d.run.name}: {d.verdict[0]}" if len(data) > 1 else d.verdict[0] for d in parts if d.verdict]
    return page(
        "boxes.html",
        **{**heading, "lead": heading["lead"] or verdicts},
        browser=browser(data, store, making),
        summary=given_table(table, SEARCH) if table is not None else overview(data),
        classes=class_table(data, novel),
        class_chart=class_chart(data, novel),
        localised=parts,
        diagnosed=diagnosed,
        displaced=[displaced_gallery(d, store) if d.diagnosis else None for d in data],
        shown=shown,
        legend=[(kind, words) for kind, words in LEGEND if kind not in RARE or kind in drawn],
        hidden=() if search else QUIET,
        galleries=[(d, *galleries(d, store)) for d in data],
        curves=training_panels(data),
    )


def novel_names(runs: Sequence[RunData], store: FrameStore) -> set[str]:
    """Classes that no training image was labelled with, of any run."""
    names: set[str] = set()
    for run in runs:
        found = store.splits(run)
        if isinstance(found, Splits):
            names |= set(found.novel)
        elif isinstance(run.data, BoxDataSettings):
            names |= set(run.data.novel)
    return names


def class_chart(runs: Sequence[RunData], novel: set[str]) -> Panel | None:
    """AP50 by class, best first; None where there is nothing to compare."""
    judged = [r for r in runs if per_class(r)]

    def value(run: RunData, name: str) -> float | None:
        figure: float | None = (per_class(run).get(name) or {}).get("ap50")
        return figure

    known = [n for n in class_names(judged) if any(value(r, n) is not None for r in judged)]
    if len(known) < 2:
        return None
    names = sorted(known, key=lambda n: -max(value(r, n) or 0.0 for r in judged))[:CHARTED]
    series = [Dots(r.name, [value(r, n) for n in names], r.colour) for r in judged]
    hollow = [n in novel for n in names]
    left = f" The {CHARTED} best of {len(known)} classes." if len(known) > CHARTED else ""
    note = ("Hollow: never trained." if any(hollow) else "") + left
    drawing = rows_panel(names, series, title="AP50 by class", x_label="AP50", hollow=hollow, width=7.2)
    return Panel("AP50 by class", drawing, note.strip())


def shown_images(runs: Sequence[RunData], store: FrameStore) -> Shown:
    """Images with truth and detections: runs that were judged on the same images share a picture."""
    groups: dict[int, tuple[Splits, list[RunData]]] = {}
    notes = []
    for run in runs:
        found, frames = store.splits(run), store.frames(run)
        if not run.matches:
            notes.append(f"{run.name}: no matches are written, so no detection can be drawn.")
        elif isinstance(frames, str) or isinstance(found, str):
            notes.append(f"{run.name}: {frames}")
        else:
            groups.setdefault(id(frames), (found, []))[1].append(run)
    shown = Shown([], [], notes)
    for number, (splits, members) in enumerate(groups.values()):
        _add_group(shown, number, splits, members)
    return shown


def _add_group(shown: Shown, number: int, splits: Splits, members: Sequence[RunData]) -> None:
    """Choose images of runs that were judged on the same ones, and draw what each run found there."""
    frames = getattr(splits, members[0].split)
    index = {n: i for i, n in enumerate(frames.names)}
    rows = {r.name: by_image(r.matches) for r in members}
    for name in chosen_frames([_telling(r) for r in members], frames.names, IMAGES if len(members) > 1 else ON_PAPER):
        scene, key = frames[index[name]], f"image-{number}-{index[name]}"
        shown.pictures.append((key, whole_scene(scene)))
        judged = [r for r in members if index[name] < (r.evaluation or {}).get("frames", len(frames))]
        views = [scene_view(scene, key, r.name, rows[r.name].get(name, []), _classes(splits)) for r in judged]
        shown.views.append((name, views))
        if left := [r.name for r in members if r not in judged]:
            shown.notes.append(f"{name} was not judged by {', '.join(left)}.")


def _classes(splits: Splits) -> tuple[str, ...]:
    """Names of all labels: those of the novel classes, which only the test knows, come last."""
    return splits.classes + splits.novel


def _telling(run: RunData) -> Sequence[Row]:
    """The rows that say how well an image went: without a trained score, whether objects are boxed at all."""
    return run.matches if run.detector == "text" else [r for r in run.matches if r["kind"] in ("hit", "missed")]


def galleries(run: RunData, store: FrameStore) -> tuple[str, list[Gallery]]:
    """A sentence where nothing can be shown, and the galleries of a run."""
    found, frames = store.splits(run), store.frames(run)
    if not run.matches:
        return "No matches are written: evaluate the run first.", []
    if isinstance(frames, str) or isinstance(found, str):
        return str(frames), []
    note = "" if run.detector == "text" else "No score is trained here, so only missed objects are shown."
    kinds = GALLERIES if run.detector == "text" else GALLERIES[-1:]
    return note, [_gallery(run.matches, frames, _classes(found), kind, title) for kind, title in kinds]


def _gallery(matches: Sequence[Row], frames: Frames, classes: Sequence[str], kind: str, title: str) -> Gallery:
    """The worst errors of a kind, each place once."""
    index = {name: i for i, name in enumerate(frames.names)}
    rows = worst(matches, kind)
    here = [r for r in rows if r["image"] in index]
    places = here if kind == "missed" else one_a_place(here)
    pictures = [crop_of(frames[index[r["image"]]], r, classes) for r in places[:CROPS]]
    note = f"{len(pictures)} of {len(rows)} shown" if rows else "None"
    if len(places) < len(here):
        note += f"; each place once ({len(places)} places)"
    if len(here) < len(rows):
        note += f"; {len(rows) - len(here)} lie in images that are not in this data set any more"
    return Gallery(title, f"{note}.", pictures)
