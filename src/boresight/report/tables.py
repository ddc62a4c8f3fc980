"""Tables of a page of runs: the summary, other programs' protocols, and the settings in which runs differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from boresight.report.reading import RunData
from boresight.run.parse import flatten

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


def given_table(rows: Sequence[Mapping[str, Any]], names: Mapping[str, str] = SHOWN_NAMES) -> dict[str, Any]:
    """A caller's rows as a table: headings and cells as text; ``names`` says how keys are called."""
    keys = list(dict.fromkeys(k for row in rows for k in row))
    heads = [names.get(k, k.replace("_", " ")) for k in keys]
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
    return [[k, *(str(f.get(k)) for f in flat)] for k in flat[0] if len({str(f.get(k)) for f in flat}) > 1]
