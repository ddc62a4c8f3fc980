"""The report of one run or of several side by side: one page that needs no network, no server and no Boresight.

What a run does not have (no evaluation yet, truth without SNR, frames that are elsewhere) is said in a sentence where
it would have stood. Everything that a user may have named is escaped by the template engine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from boresight import __version__
from boresight.core.errors import UserError
from boresight.data.sky_settings import preset
from boresight.evaluate.observer import ideal_observer
from boresight.report import figures, frames
from boresight.report.figures import Line
from boresight.run.config import DataSettings, PointSettings
from boresight.run.frames import point_splits
from boresight.run.parse import flatten, read_yaml, settings_from
from boresight.run.recipe import Frames
from boresight.run.record import RunFolder, read_parquet, write_text

SHOWN_NAMES = {
    "f1": "F1 at the validated threshold",
    "f1_at_half": "F1 at 0.5",
    "threshold": "validated threshold",
    "pd_at_0.1_false_alarms_per_frame": "Pd at 0.1 false alarms a frame",
    "pd_at_1_false_alarms_per_frame": "Pd at 1 false alarm a frame",
    "false_alarms_per_frame": "false alarms a frame",
    "rmse": "RMSE of hits, px",
    "cls_loss": "classification loss, last 20 steps",
    "positive_rate": "positive rate of the cells",
    "parameters": "parameters",
    "seconds": "seconds of training",
}
LAST_STEPS = 20
LEGEND = (
    ("truth", "target"),
    ("hit", "detection that hits"),
    ("missed", "missed target"),
    ("false_alarm", "false alarm"),
    ("duplicate", "duplicate"),
    ("dont_care", "target that need not be found"),
    ("ignored", "detection on such a target"),
)
_BOUND_SNR = tuple(np.arange(3.0, 12.5, 0.5).tolist())


@dataclass(frozen=True)
class RunData:
    """What lies in a run folder, None or empty where a part is missing.

    Attributes:
        name: of the run, as shown.
        colour: index into the palette.
        config: nested settings as written.
        settings: the same, read; None where this version cannot read them (``notes`` says why).
        environment, evaluation, done: the JSON files.
        metrics, targets, matches: the tables.
        notes: sentences on what is missing.
    """

    name: str
    colour: int
    config: dict[str, Any]
    settings: PointSettings | None
    environment: dict[str, Any] | None
    evaluation: dict[str, Any] | None
    done: dict[str, Any] | None
    metrics: list[dict[str, Any]]
    targets: list[dict[str, Any]]
    matches: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)

    @property
    def config_text(self) -> str:
        """The settings as YAML."""
        return yaml.safe_dump(self.config, sort_keys=False)

    @property
    def environment_text(self) -> str:
        """The environment as YAML, which reads better than JSON."""
        return yaml.safe_dump(self.environment, sort_keys=False)


@dataclass(frozen=True)
class Panel:
    """A drawing under its heading."""

    title: str
    drawing: Markup
    note: str = ""


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
        run_key=[(d.name, f"s{d.colour % len(figures.PALETTE)}") for d in data],
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


# --- reading ---------------------------------------------------------------------------------------------------------


def run_names(runs: Sequence[RunFolder]) -> list[str]:
    """The folders' names; with the folder above where two are alike."""
    names = [run.root.resolve().name for run in runs]
    return [
        n if names.count(n) == 1 else f"{r.root.resolve().parent.name}/{n}" for n, r in zip(names, runs, strict=True)
    ]


def read_run(run: RunFolder, name: str, index: int) -> RunData:
    """Read what a run folder holds and note what it lacks."""
    notes: list[str] = []
    config = (read_yaml(run.config) or {}) if run.config.is_file() else {}
    settings = None
    try:
        settings = settings_from(PointSettings, config, origin=run.config.name) if config else None
    except UserError as error:
        notes.append(f"These settings cannot be read by this version: {error}.")
    if not config:
        notes.append("The run has no config.yaml, so its settings are not known.")
    evaluation, done = _json(run.evaluation), _json(run.done)
    metrics = _table(run.metrics)
    if done is None:
        at = f"{metrics[-1]['step']} steps are written" if metrics else "no step is written yet"
        notes.append(f"Training has not finished ({at}).")
    if not metrics:
        notes.append("No metrics are written, so there are no curves of its training.")
    if evaluation is None:
        notes.append("The run is not evaluated yet: boresight evaluate fills in what is missing below.")
    return RunData(
        name,
        index,
        config,
        settings,
        _json(run.environment),
        evaluation,
        done,
        metrics,
        _table(run.targets),
        _table(run.matches),
        notes,
    )


def _json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); remove it and evaluate or train the run again") from error
    return content


def _table(path: Path) -> list[dict[str, Any]]:
    try:
        return read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise UserError(f"{path}: cannot be read ({error}); remove it and evaluate or train the run again") from error


class FrameStore:
    """Opens the frames of runs, each data set and split once."""

    def __init__(self) -> None:
        self._known: dict[tuple[DataSettings, str], Frames | str] = {}

    def frames(self, run: RunData) -> Frames | str:
        """The frames that the run was judged on (else its validation frames), or a sentence why there are none."""
        if run.settings is None:
            return "The settings are not known, so the frames cannot be opened."
        split = (run.evaluation or {}).get("split", "val")
        data = replace(run.settings.data, oversample=1)  # the order of training is not needed and costs reading all
        if (data, split) not in self._known:
            self._known[data, split] = self._opened(data, split)
        return self._known[data, split]

    def _opened(self, data: DataSettings, split: str) -> Frames | str:
        try:
            found: Frames = getattr(point_splits(data, only=split), split)
        except UserError as error:
            return f"The frames cannot be opened here: {error}."
        return found if len(found) else "The split has no frames."


# --- figures ---------------------------------------------------------------------------------------------------------


def shown(value: Any, key: str = "") -> str:
    """A figure for a person: whole numbers whole, others with two to four digits, a dash for nothing."""
    if value is None:
        return "—"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")
    if value != 0 and abs(value) < 0.001:
        return f"{value:.1e}"
    if value != 0 and abs(value) < 0.01:
        return f"{value:.4f}"
    return f"{value:.3f}" if abs(value) < 10 and key != "seconds" else f"{value:.1f}"


def given_table(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A caller's rows as a table: headings and cells as text."""
    keys = list(dict.fromkeys(k for row in rows for k in row))
    heads = [SHOWN_NAMES.get(k, k.replace("_", " ")) for k in keys]
    return {"heads": heads, "rows": [[shown(row.get(k), k) for k in keys] for row in rows]}


def run_figures(run: RunData) -> dict[str, Any]:
    """The figures of the summary by key, None where unknown."""
    judged, last = run.evaluation or {}, run.metrics[-LAST_STEPS:]

    def mean(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
        values = [r[key] for r in rows if r.get(key) is not None]
        return float(np.mean(values)) if values else None

    own = {
        "cls_loss": mean(last, "loss_cls"),
        "positive_rate": mean(run.metrics, "positive_rate"),
        "parameters": (run.done or {}).get("parameters"),
        "seconds": (run.done or {}).get("seconds"),
    }
    return {key: own[key] if key in own else judged.get(key) for key in SHOWN_NAMES}


def summary_table(runs: Sequence[RunData]) -> dict[str, Any]:
    """A row a figure and a column a run, with intervals where there are any."""
    columns = [run_figures(r) for r in runs]
    rows = []
    for key, name in SHOWN_NAMES.items():
        cells = []
        for run, column in zip(runs, columns, strict=True):
            interval = ((run.evaluation or {}).get("intervals") or {}).get(key)
            span = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval and column[key] is not None else ""
            cells.append(shown(column[key], key) + span)
        rows.append([name, *cells])
    return {"heads": ["", *(r.name for r in runs)], "rows": rows}


def _lines(runs: Sequence[RunData], table: str, x: str, y: str) -> list[Line]:
    lines = []
    for run in runs:
        rows = [r for r in getattr(run, table) if r.get(y) is not None]
        if rows:
            lines.append(Line(run.name, [r[x] for r in rows], [r[y] for r in rows], run.colour))
    return lines


def training_panels(runs: Sequence[RunData]) -> list[Panel]:
    """Losses, validation, gradient norm, learning rate and positives per object, runs over each other."""
    terms = list(dict.fromkeys(k for run in runs for r in run.metrics[-1:] for k in r if k.startswith("loss_")))
    wanted: list[tuple[str, str, dict[str, Any]]] = [
        ("val_f1", "Validation F1 at its own threshold", {"top": 1.02}),
        ("val_f1_at_half", "Validation F1 at 0.5", {"top": 1.02}),
        *((k, f"Loss: {_TERMS.get(k, k[5:])}", {"log": True, "share": 0.08}) for k in terms),
        ("gradient_norm", "Gradient norm, before clipping", {"log": True, "share": 0.08}),
        ("learning_rate", "Learning rate", {}),
    ]
    panels = []
    for key, title, style in wanted:
        if lines := _lines(runs, "metrics", "step", key):
            panels.append(Panel(title, figures.curve_panel(lines, title=title, **style)))
    if lines := _per_object(runs):
        title = "Positive cells per object"
        panels.append(Panel(title, figures.curve_panel(lines, title=title, x_label="epoch")))
    return panels


_TERMS = {"loss_cls": "classification", "loss_offset": "place", "loss_auxiliary": "auxiliary levels"}


def _per_object(runs: Sequence[RunData]) -> list[Line]:
    """One line a run, or one a class where there are several."""
    lines = []
    for run in runs:
        classes = list(dict.fromkeys(r["class"] for r in run.targets))
        for label in classes:
            rows = [r for r in run.targets if r["class"] == label and r["positives_per_object"] is not None]
            name = run.name if len(classes) == 1 else f"{run.name} {label}"
            if rows:
                lines.append(
                    Line(name, [r["epoch"] for r in rows], [r["positives_per_object"] for r in rows], run.colour)
                )
    return lines


def judged_panels(runs: Sequence[RunData]) -> dict[str, Any]:
    """F1 against the threshold, FROC and Pd by SNR of the runs that are evaluated, and what is missing."""
    done = [r for r in runs if r.evaluation and (r.evaluation.get("curve") or {}).get("threshold")]
    if not done:
        return {"panels": [], "note": "No run is evaluated yet, so there is no curve to show.", "snr_note": ""}

    def lines(x: str, y: str) -> list[Line]:
        return [Line(r.name, _floats(r, x), _floats(r, y), r.colour) for r in done]

    chosen = [_chosen(r) for r in done]
    images = max(int(r.evaluation["images"]) for r in done if r.evaluation)
    panels = [
        Panel("F1 against the threshold", figures.threshold_panel(lines("threshold", "f1"), chosen)),
        Panel("FROC: Pd against false alarms", figures.froc_panel(lines("false_alarms_per_frame", "pd"), images)),
    ]
    snr = [r for r in done if r.evaluation and r.evaluation.get("by_snr")]
    panels += snr_panels(snr) if snr else []
    return {"panels": panels, "note": "", "snr_note": _snr_note(snr)}


def _chosen(run: RunData) -> tuple[float, float] | None:
    judged = run.evaluation or {}
    threshold, f1 = judged.get("threshold"), judged.get("f1")
    return None if threshold is None or f1 is None else (threshold, f1)


def _floats(run: RunData, key: str) -> np.ndarray:
    assert run.evaluation is not None
    return np.array(run.evaluation["curve"][key], dtype=np.float64)  # None becomes NaN


def _snr_note(runs: Sequence[RunData]) -> str:
    if not runs:
        return "The truth of these frames has no SNR, so there is no Pd by SNR and no ideal observer to compare with."
    if not any(r.settings and r.settings.data.source == "skyfield" for r in runs):
        return "Bars are Wilson's 95 % intervals."
    white = all(r.settings and r.settings.data.preset == "white" for r in runs)
    tail = (
        "These frames are white noise: a detector clearly above the line has seen the truth."
        if white
        else "These frames hold more than white noise, so here the line is only an upper bound."
    )
    return f"Bars are Wilson's 95 % intervals. Dashed: the ideal observer (matched filter) in white noise. {tail}"


def snr_panels(runs: Sequence[RunData]) -> list[Panel]:
    """Pd by SNR bin, a panel for each rate of false alarms."""
    panels = []
    judged = [(r, r.evaluation["by_snr"]) for r in runs if r.evaluation]
    made = next((r.settings.data for r in runs if r.settings and r.settings.data.source == "skyfield"), None)
    for rate in sorted({b["rate"] for _, bins in judged for b in bins}):
        lines = []
        for run, bins in judged:
            own = [b for b in bins if b["rate"] == rate and b["n"]]
            middle = [(b["low"] + b["high"]) / 2 for b in own]
            low, high = ([b["interval"][i] for b in own] for i in (0, 1))
            lines.append(Line(run.name, middle, [b["pd"] for b in own], run.colour, low, high))
        title = f"Pd by SNR at {rate:g} false alarm{'' if rate == 1 else 's'} a frame"
        bound = _bound(made, rate) if made else None
        panels.append(Panel(title, figures.snr_panel(lines, bound, title=title)))
    return panels


def _bound(data: DataSettings, rate: float) -> tuple[np.ndarray, np.ndarray]:
    low, high = preset(data.preset).sigma
    return np.array(_BOUND_SNR), np.array(_observer(rate, (data.height, data.width), round((low + high) / 2, 3)))


@lru_cache(maxsize=16)
def _observer(rate: float, shape: tuple[int, int], sigma: float) -> tuple[float, ...]:
    """The ideal observer's Pd at ``_BOUND_SNR``, to a standard error of at most 0.016."""
    return tuple(ideal_observer(_BOUND_SNR, [rate], shape=shape, sigma=sigma, trials=1000)[0].tolist())


# --- pictures --------------------------------------------------------------------------------------------------------


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


# --- tables ----------------------------------------------------------------------------------------------------------


def compatibility_rows(run: RunData) -> list[list[str]]:
    """The compatibility modes of a run, ``[protocol, Pd, Fa, remark]``."""
    modes = (run.evaluation or {}).get("compatibility")
    if not modes:
        return []
    rows = []
    for key, name in (
        ("basic_irstd", "BasicIRSTD"),
        ("dnanet_legacy", "DNANet, legacy (its Fa is known to be too low)"),
    ):
        if one := modes.get(key):
            rows.append([name, shown(one["pd"]), f"{shown(one['fa_e6'])}e-6", f"{one['stamp']} px stamps"])
        else:
            rows.append([name, "—", "—", str(modes.get("reason") or "not computed")])
    if spire := modes.get("spire_5px"):
        remark = f"{spire['tp']} hits, {spire['fp']} false alarms, {spire['fn']} missed"
        rows.append([f"SPIRE, {spire['tolerance']:g} px", f"F1 {shown(spire['f1'])}", "—", remark])
    return rows


def differing_settings(runs: Sequence[RunData]) -> list[list[str]]:
    """Settings in which the runs differ, ``[key, value of each run]``."""
    flat = [flatten(r.settings) for r in runs if r.settings]
    if len(flat) != len(runs) or len(flat) < 2:
        return []
    return [[k, *(str(f[k]) for f in flat)] for k in flat[0] if len({str(f[k]) for f in flat}) > 1]
