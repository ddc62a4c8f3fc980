"""Tables of a page of runs that find boxes: the figures side by side, and those of every class."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from boresight.report.reading import RunData
from boresight.report.tables import shown

SEARCH = {
    "ap50": "AP50",
    "ap": "AP (IoU .50:.95)",
    "ap50_base": "AP50, trained classes",
    "ap50_novel": "AP50, classes never trained",
    "ap50_harmonic": "harmonic mean of these two",
    "classification_accuracy": "named rightly, of the objects boxed well",
    "classification_objects": "objects boxed well (IoU 0.5)",
    "presence_auc": "presence AUC",
    "f1": "F1 at the threshold",
    "threshold": "threshold",
    "false_alarms_per_image": "false alarms an image",
}
LOCALISE = {
    "mean_iou": "mean IoU reached by the emitted boxes of the true class",
    "ap50": "AP50 (scored by the class map alone)",
    "ap": "AP (IoU .50:.95)",
    "presence_auc": "presence AUC",
}
COUNTS = {
    "images": "images judged",
    "truths": "objects in them",
    "parameters": "parameters",
    "seconds": "seconds of training",
}


@dataclass(frozen=True)
class Table:
    """Headings and rows of text."""

    heads: list[str]
    rows: list[list[str]]


def figure_names(runs: Sequence[RunData]) -> dict[str, str]:
    """The rows of the overview: what any of the runs is judged by."""
    kinds = {r.detector for r in runs}
    names = SEARCH if "text" in kinds else {}
    return names | ({k: v for k, v in LOCALISE.items() if k not in names} if "localise" in kinds else {}) | COUNTS


def overview(runs: Sequence[RunData]) -> Table:
    """A row a figure and a column a run, with intervals where there are any."""
    rows = []
    for key, name in figure_names(runs).items():
        rows.append([name, *(_cell(r, key) for r in runs)])
    return Table(["", *(r.name for r in runs)], rows)


def _cell(run: RunData, key: str) -> str:
    judged, done = run.evaluation or {}, run.done or {}
    value = done.get(key) if key in ("parameters", "seconds") else judged.get(key)
    interval = (judged.get("intervals") or {}).get(key)
    span = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval and value is not None else ""
    return shown(value, key) + span


def class_names(runs: Sequence[RunData]) -> list[str]:
    """The classes that any run was judged on, in order."""
    return list(dict.fromkeys(name for r in runs for name in per_class(r)))


def per_class(run: RunData) -> dict[str, dict[str, Any]]:
    """Figures of every class by name: ``n``, ``ap``, ``ap50``."""
    return (run.evaluation or {}).get("per_class") or {}


def class_table(runs: Sequence[RunData], novel: Collection[str]) -> Table | None:
    """A row a class: how many objects, AP50 and AP of each run; None where no run is judged.

    Objects are counted once where the runs agree on them, else for each run.
    """
    judged = [r for r in runs if per_class(r)]
    if not judged:
        return None
    names = class_names(judged)
    counts = [[_of(r, name, "n") for name in names] for r in judged]
    same = all(c == counts[0] for c in counts)
    heads = ["Class", *(["Objects"] if same else [])]
    for r in judged:
        own = f"{r.name}: " if len(judged) > 1 else ""
        heads += [*([] if same else [f"{own}objects"]), f"{own}AP50", f"{own}AP"]
    rows = []
    for i, name in enumerate(names):
        cells = [f"{name} (never trained)" if name in novel else name, *([shown(counts[0][i])] if same else [])]
        for k, r in enumerate(judged):
            cells += [] if same else [shown(counts[k][i])]
            cells += [shown(_of(r, name, "ap50")), shown(_of(r, name, "ap"))]
        rows.append(cells)
    return Table(heads, rows)


def _of(run: RunData, name: str, key: str) -> Any:
    return (per_class(run).get(name) or {}).get(key)
