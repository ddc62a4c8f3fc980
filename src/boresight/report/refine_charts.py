"""Charts of runs that refine boxes: what becomes of a box by how good it was, and the predicted IoU against reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from boresight.report.curves import Panel
from boresight.report.figures import MUTED, Line, colour, label_ends, styled, ticks
from boresight.report.panels import curve_panel
from boresight.report.reading import RunData

LEAST = 3
"""Boxes that a bin must have to be drawn."""
SHARES = {"improved": "Share improved", "harmed": "Share made worse", "replaced": "Share replaced"}

Bin = Mapping[str, Any]


@dataclass(frozen=True)
class Dotted:
    """The line of a run: where its bins lie, what is shown of them, and how many boxes each holds."""

    name: str
    x: list[float]
    y: list[float]
    counts: list[int]
    colour: int

    @classmethod
    def of(cls, run: RunData, bins: Sequence[Bin], x: str, y: str) -> Dotted:
        """Bins with too few boxes are left out."""
        full = [b for b in bins if b["n"] >= LEAST]
        return cls(run.name, [b[x] for b in full], [b[y] for b in full], [b["n"] for b in full], run.colour)

    @property
    def spoken(self) -> str:
        """Its points in words."""
        points = zip(self.x, self.y, self.counts, strict=True)
        return f"{self.name}: " + ", ".join(f"{a:.2f} to {b:.2f} ({n} boxes)" for a, b, n in points)


def charts(runs: Sequence[RunData]) -> list[Panel]:
    """IoU after against before, what share gains, loses and is replaced, and the predicted IoU against the reached."""
    if not runs:
        return []
    panels = [Panel("IoU after against before, by bin", binned_panel(runs, "after", "IoU after", diagonal=True))]
    panels += [Panel(f"{title}, by IoU before", binned_panel(runs, k, title.lower())) for k, title in SHARES.items()]
    known = [(run, told) for run in runs if (told := calibration_of(run))]
    if known:
        lines = [Dotted.of(run, told["bins"], "expected", "reached") for run, told in known]
        drawing = dotted_panel(lines, x_label="predicted IoU", y_label="IoU reached", diagonal=True)
        panels.append(Panel("Predicted IoU against reached", drawing))
    return panels


def calibration_of(run: RunData) -> dict[str, Any] | None:
    """How the predicted IoU compares with the reached one; None where a run predicts none."""
    told: dict[str, Any] | None = (run.evaluation or {}).get("calibration")
    return told


def unpredicted(runs: Sequence[RunData]) -> str:
    """A sentence on the runs that have no line in the last chart; empty where all have one."""
    names = [run.name for run in runs if not calibration_of(run)]
    if not names:
        return ""
    if len(names) == len(runs):
        return "No run predicts an IoU, so there is no chart of its calibration."
    return f"No predicted IoU, and so no line in the last chart: {', '.join(names)}."


def binned_panel(runs: Sequence[RunData], key: str, label: str, *, diagonal: bool = False) -> Markup:
    """A figure of the boxes of each bin of the IoU before, at the mean IoU before of the bin."""
    bins = [(run, ((run.evaluation or {}).get("by_iou") or {}).values()) for run in runs]
    lines = [Dotted.of(run, list(own), "before", key) for run, own in bins]
    return dotted_panel(lines, x_label="IoU before", y_label=label, diagonal=diagonal)


def dotted_panel(lines: Sequence[Dotted], *, x_label: str, y_label: str, diagonal: bool = False) -> Markup:
    """Lines in the unit square with the number of boxes above; dashed: y = x."""
    rows = count_rows(lines)

    def draw(axes: Any) -> None:
        if diagonal:
            axes.plot([0, 1], [0, 1], "--", color=MUTED, linewidth=0.9)
        drawn = [line for line in lines if line.x]
        for line in drawn:
            axes.plot(line.x, line.y, "o-", color=colour(line.colour), markersize=3.4, clip_on=False)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        ticks(axes)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        label_ends(axes, [(line.name, line.x[-1], line.y[-1], colour(line.colour)) for line in drawn])
        for i, (line, ink) in enumerate(rows):
            height = 1.06 + 0.075 * (len(rows) - 1 - i)
            for x, n in zip(line.x, line.counts, strict=True):
                axes.text(
                    x, height, short_count(n), color=ink, fontsize=7, ha="center", transform=axes.get_xaxis_transform()
                )
            axes.text(1.015, height, "boxes", color=ink, fontsize=7, transform=axes.transAxes)

    said = "; ".join(line.spoken for line in lines)
    return styled(draw, f"{y_label} against {x_label}: {said}", width=4.6, height=2.7 + 0.17 * len(rows))


def short_count(n: int) -> str:
    """A count in four characters at most, so that neighbours do not meet."""
    if n < 1000:
        return str(n)
    return f"{n / 1000:.1f}k" if n < 9950 else f"{n / 1000:.0f}k"


def count_rows(lines: Sequence[Dotted]) -> list[tuple[Dotted, str]]:
    """Rows of counts with their colours: one for all runs where they were given the same boxes, else one a run."""
    drawn = [line for line in lines if line.x]
    if not drawn:
        return []
    if all((line.x, line.counts) == (drawn[0].x, drawn[0].counts) for line in drawn):
        return [(drawn[0], MUTED)]
    return [(line, colour(line.colour)) for line in drawn]


def validation_panels(runs: Sequence[RunData]) -> list[Panel]:
    """The mean IoU on validation images during training: as boxes are replaced, and with every box replaced."""
    panels = []
    for key, title in (
        ("val_iou_after", "Validation: mean IoU after"),
        ("val_iou_all_replaced", "Validation: mean IoU, every box replaced"),
    ):
        lines = []
        for run in runs:
            rows = [r for r in run.metrics if r.get(key) is not None]
            if rows:
                lines.append(Line(run.name, [r["step"] for r in rows], [r[key] for r in rows], run.colour))
        if lines:
            panels.append(Panel(title, curve_panel(lines, title=title, top=1.02)))
    return panels
