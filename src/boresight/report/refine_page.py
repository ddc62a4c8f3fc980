"""The page of runs that refine boxes: IoU before and after, whether a good box is left alone, and pictures of moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from boresight.report.box_tables import Table
from boresight.report.browser import Making, browser
from boresight.report.curves import training_panels
from boresight.report.diagnosis import diagnosis_part
from boresight.report.page import page
from boresight.report.reading import FrameStore, RunData
from boresight.report.refine_charts import charts, unpredicted, validation_panels
from boresight.report.refine_moves import LEGEND, galleries
from boresight.report.tables import given_table, shown

NAMES = {
    "iou_before": "mean IoU before",
    "iou_after": "mean IoU after",
    "iou_gain": "mean IoU gained",
    "iou_all_replaced": "mean IoU, every box replaced",
    "iou_best_of_both": "mean IoU, the better box each time",
    "improved_share": "share improved",
    "harmed_share": "share of the boxes above 0.8 made worse",
    "harmed_share_all": "share of all boxes made worse",
    "replaced_share": "share replaced",
    "threshold": "confidence from which a box is replaced",
    "calibration_error": "calibration error of the predicted IoU",
    "ap50_before": "AP50 before",
    "ap50_after": "AP50 after",
    "ap75_before": "AP75 before",
    "ap75_after": "AP75 after",
    "ap75_gain": "AP75 gained",
    "images": "images judged",
    "boxes": "coarse boxes that stand for an object",
    "parameters": "parameters",
    "seconds": "seconds of training",
}
NOT_YET = "No run is evaluated yet"
NO_BOX = "No coarse box that was judged stands for an object"
GROUPS = {"by_size": "By size", "by_class": "By class"}


def refine_page(
    data: Sequence[RunData],
    heading: Mapping[str, Any],
    table: Sequence[Mapping[str, Any]] | None,
    making: Making,
) -> str:
    """Render the page; ``heading`` is what every page has, ``table`` replaces the overview."""
    store = FrameStore()
    judged = [run for run in data if (run.evaluation or {}).get("iou_after") is not None]
    moves = [(run, *galleries(run, store)) for run in data]
    kinds = {mark.kind for _, _, parts in moves for part in parts for p in part.pictures for mark in p.marks}
    without_cells = [replace(run, targets=[]) for run in data]  # a refiner has no positive cells to count
    return page(
        "refine.html",
        **{**heading, "lead": heading["lead"] or [sentence(run) for run in data if run.evaluation]},
        browser=browser(data, store, making),
        summary=given_table(table, NAMES) if table is not None else overview(data),
        diagnosed=[diagnosis_part(run) for run in data] if any(run.diagnosis for run in data) else [],
        displaced=[None] * len(data),
        charts=charts(judged),
        nothing=NO_BOX if any(run.evaluation for run in data) else NOT_YET,
        unpredicted=unpredicted(judged) if judged else "",
        groups=[(title, group) for key, title in GROUPS.items() if (group := group_table(judged, key))],
        galleries=moves,
        legend=[(kind, words) for kind, words in LEGEND if kind in kinds],
        curves=[*validation_panels(data), *training_panels(without_cells)],
    )


def sentence(run: RunData) -> str:
    """What a run did, in a sentence."""
    told = run.evaluation or {}
    if told.get("iou_after") is None:
        return f"{run.name}: no coarse box stands for an object, so nothing can be judged."
    harmed = told["harmed_share"]
    if harmed is None:
        words = "none of them started above 0.8"
    else:
        words = f"of those that started above 0.8, {f'{harmed:.1%}' if harmed else 'none'} got worse"
    return (
        f"{run.name} brings {told['boxes']} coarse boxes from a mean IoU of {told['iou_before']:.3f} to "
        f"{told['iou_after']:.3f}; {told['improved_share']:.0%} of them improve, and {words}."
    )


def overview(runs: Sequence[RunData]) -> Table:
    """A row a figure and a column a run, with intervals; figures that no run has are left out."""
    rows = []
    for key, name in NAMES.items():
        cells = [figure(run, key) for run in runs]
        if any(cell != shown(None) for cell in cells):
            rows.append([name, *cells])
    return Table(["", *(run.name for run in runs)], rows)


def figure(run: RunData, key: str) -> str:
    """A figure of a run with its interval, as text."""
    told, done = run.evaluation or {}, run.done or {}
    value = done.get(key) if key in ("parameters", "seconds") else told.get(key)
    if key == "calibration_error":
        value = (told.get("calibration") or {}).get("error")
    interval = (told.get("intervals") or {}).get(key) or told.get(f"{key}_interval")
    span = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval and value is not None else ""
    return shown(value, key) + span


def group_table(runs: Sequence[RunData], key: str) -> Table | None:
    """A row a group that holds boxes; None where there is none.

    How many boxes and their IoU before stand there once where the runs agree, else for each run; then, of each run, the
    IoU after and the share made worse.
    """
    told = [{k: g for k, g in ((run.evaluation or {}).get(key) or {}).items() if g["n"]} for run in runs]
    names = list(dict.fromkeys(name for groups in told for name in groups))
    if not names:
        return None
    same = all([_given(groups, n) for n in names] == [_given(told[0], n) for n in names] for groups in told)
    heads = ["", *(["Boxes", "IoU before"] if same else [])]
    for run in runs:
        own = f"{run.name}: " if len(runs) > 1 else ""
        heads += [] if same else [f"{own}boxes", f"{own}IoU before"]
        heads += [f"{own}IoU after", f"{own}made worse"]
    rows = []
    for name in names:
        cells = [name, *(_given(told[0], name) if same else [])]
        for groups in told:
            cells += [] if same else _given(groups, name)
            cells += [shown(groups.get(name, {}).get(k)) for k in ("after", "harmed")]
        rows.append(cells)
    return Table(heads, rows)


def _given(groups: Mapping[str, Mapping[str, Any]], name: str) -> list[str]:
    """The boxes of a group and their IoU before, as text."""
    return [shown(groups.get(name, {}).get(key)) for key in ("n", "before")]
