"""The page of runs that refine boxes: IoU before and after, whether a good box is left alone, and pictures of moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from boresight.report.box_pictures import BoxPicture
from boresight.report.box_tables import Table
from boresight.report.curves import Panel, training_panels
from boresight.report.figures import MUTED, colour, label_ends, styled, ticks
from boresight.report.moved import LEGEND, moved_picture
from boresight.report.page import page
from boresight.report.reading import FrameStore, RunData
from boresight.report.tables import given_table, shown
from boresight.run.recipe import Frames

NAMES = {
    "iou_before": "mean IoU before",
    "iou_after": "mean IoU after",
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
CROPS = 12
LEAST = 3
"""Boxes that a bin must have to be drawn."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Gallery:
    """Moves of one kind; ``note`` says how many there are."""

    title: str
    note: str
    pictures: list[BoxPicture]


GALLERIES: tuple[tuple[str, Callable[[Row], float], Callable[[Row], bool]], ...] = (
    ("Largest gains", lambda r: r["iou_before"] - r["iou_after"], lambda r: r["iou_after"] > r["iou_before"]),
    ("Worst harm", lambda r: r["iou_after"] - r["iou_before"], lambda r: r["iou_after"] < r["iou_before"]),
    (
        "Kept, and would have gained most",
        lambda r: r["iou_before"] - r["iou_moved"],
        lambda r: not r["replaced"] and r["iou_moved"] > r["iou_before"],
    ),
)
"""Title, order (least first), and which rows belong to it."""


def refine_page(data: Sequence[RunData], heading: Mapping[str, Any], table: Sequence[Mapping[str, Any]] | None) -> str:
    """Render the page; ``heading`` is what every page has, ``table`` replaces the overview."""
    store = FrameStore()
    judged = [run for run in data if run.evaluation]
    return page(
        "refine.html",
        **{**heading, "lead": heading["lead"] or [sentence(run) for run in judged]},
        summary=given_table(table, NAMES) if table is not None else overview(data),
        charts=charts(judged),
        groups=[(title, group_table(judged, key)) for title, key in (("size", "by_size"), ("class", "by_class"))],
        galleries=[(run, *galleries(run, store)) for run in data],
        legend=LEGEND,
        curves=training_panels(data),
    )


def sentence(run: RunData) -> str:
    """What a run did, in a sentence."""
    told = run.evaluation or {}
    if told.get("iou_after") is None:
        return f"{run.name}: no coarse box stands for an object, so nothing can be judged."
    harmed = told["harmed_share"]
    words = "none of them started above 0.8" if harmed is None else f"of those above 0.8, {harmed:.1%} got worse"
    return (
        f"{run.name} brings {told['boxes']} coarse boxes from a mean IoU of {told['iou_before']:.3f} to "
        f"{told['iou_after']:.3f}; {told['improved_share']:.0%} of them improve, and {words}."
    )


def overview(runs: Sequence[RunData]) -> dict[str, Any]:
    """A row a figure and a column a run, with intervals; figures that no run has are left out."""
    rows = []
    for key, name in NAMES.items():
        cells = [figure(run, key) for run in runs]
        if any(cell != "—" for cell in cells):
            rows.append([name, *cells])
    return {"heads": ["", *(run.name for run in runs)], "rows": rows}


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
    """A row a group: how many boxes, IoU before and, of each run, IoU after and the share made worse."""
    if not runs:
        return None
    groups = dict.fromkeys(name for run in runs for name in (run.evaluation or {}).get(key, {}))
    heads = ["", "Boxes", "IoU before"]
    for run in runs:
        own = f"{run.name}: " if len(runs) > 1 else ""
        heads += [f"{own}IoU after", f"{own}made worse"]
    rows = []
    for name in groups:
        own_groups = [((run.evaluation or {}).get(key) or {}).get(name) or {} for run in runs]
        first = next((g for g in own_groups if g.get("n")), {})
        if not first:
            continue
        cells = [shown(first["n"]), shown(first["before"])]
        for group in own_groups:
            cells += [shown(group.get("after")), shown(group.get("harmed"))]
        rows.append([name, *cells])
    return Table(heads, rows)


def charts(runs: Sequence[RunData]) -> list[Panel]:
    """IoU after against before, shares that gain and lose, and the predicted IoU against the one that is reached."""
    if not runs:
        return []
    panels = [
        Panel("IoU after against before, by bin", after_panel(runs)),
        Panel("Share made worse, by IoU before", share_panel(runs, "harmed", "share made worse")),
        Panel("Share replaced, by IoU before", share_panel(runs, "replaced", "share replaced")),
    ]
    known = [run for run in runs if (run.evaluation or {}).get("calibration")]
    return [*panels, Panel("Predicted IoU against reached", calibration_panel(known))] if known else panels


def _bins(run: RunData) -> list[dict[str, Any]]:
    return [b for b in ((run.evaluation or {}).get("by_iou") or {}).values() if b["n"] >= LEAST]


def after_panel(runs: Sequence[RunData]) -> Markup:
    """Mean IoU after of the boxes of each bin of the IoU before; dashed: nothing changed."""
    lines = [(run, [b["before"] for b in _bins(run)], [b["after"] for b in _bins(run)]) for run in runs]
    return _lines(lines, "IoU after", diagonal=True)


def share_panel(runs: Sequence[RunData], key: str, label: str) -> Markup:
    """A share of the boxes of each bin."""
    lines = [(run, [b["before"] for b in _bins(run)], [b[key] for b in _bins(run)]) for run in runs]
    return _lines(lines, label)


def calibration_panel(runs: Sequence[RunData]) -> Markup:
    """Mean reached IoU of boxes by their predicted one; dashed: what a calibrated prediction would give."""
    lines = []
    for run in runs:
        bins = [b for b in (run.evaluation or {})["calibration"]["bins"] if b["n"] >= LEAST]
        lines.append((run, [b["expected"] for b in bins], [b["reached"] for b in bins]))
    return _lines(lines, "IoU reached", diagonal=True, x_label="predicted IoU")


def _lines(
    lines: Sequence[tuple[RunData, Sequence[float], Sequence[float]]],
    y_label: str,
    *,
    diagonal: bool = False,
    x_label: str = "IoU before",
) -> Markup:
    def draw(axes: Any) -> None:
        ends = []
        if diagonal:
            axes.plot([0, 1], [0, 1], "--", color=MUTED, linewidth=0.9)
        for run, x, y in lines:
            if x:
                axes.plot(x, y, "o-", color=colour(run.colour), markersize=3.4, clip_on=False)
                ends.append((run.name, float(x[-1]), float(y[-1]), colour(run.colour)))
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        ticks(axes)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        label_ends(axes, ends)

    said = "; ".join(
        f"{run.name}: " + ", ".join(f"{a:.2f} to {b:.2f}" for a, b in zip(x, y, strict=True)) for run, x, y in lines
    )
    return styled(draw, f"{y_label} against {x_label}: {said}", width=4.6, height=2.8)


def galleries(run: RunData, store: FrameStore) -> tuple[str, list[Gallery]]:
    """A sentence where nothing can be shown, and the moves of a run."""
    frames = store.frames(run)
    if not run.matches:
        return "No boxes are written: evaluate the run first.", []
    if isinstance(frames, str):
        return frames, []
    index = {name: i for i, name in enumerate(frames.names)}
    rows = [r for r in run.matches if r["object"] >= 0 and r["image"] in index]
    return "", [_gallery(rows, frames, index, *kind) for kind in GALLERIES]


def _gallery(
    rows: Sequence[Row],
    frames: Frames,
    index: Mapping[str, int],
    title: str,
    order: Callable[[Row], float],
    belongs: Callable[[Row], bool],
) -> Gallery:
    chosen = sorted((r for r in rows if belongs(r)), key=order)
    pictures = [_picture(frames, index[r["image"]], r) for r in chosen[:CROPS]]
    return Gallery(title, f"{len(pictures)} of {len(chosen)}." if chosen else "None.", pictures)


def _picture(frames: Frames, i: int, row: Row) -> BoxPicture:
    scene = frames[i]
    assert scene.boxes is not None
    end = "refined" if row["replaced"] else "moved"
    iou = row["iou_after"] if row["replaced"] else row["iou_moved"]
    kept = "" if row["replaced"] else " (kept as it was)"
    caption = (str(row["class"]), f"IoU {row['iou_before']:.2f} to {iou:.2f}{kept}", f"sure {row['confidence']:.2f}")
    boxes = [[row[f"{kind}_{side}"] for side in ("x0", "y0", "x1", "y1")] for kind in ("coarse", end)]
    truth = scene.boxes[int(row["object"])].tolist()
    return moved_picture(scene, boxes[0], boxes[1], (*caption, scene.name), truth)
