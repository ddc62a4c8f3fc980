"""Drawings of a page of runs that find boxes: AP50 by class, the selection ladder, IoU, the oracle against cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from boresight.report.figures import INK, MUTED, PAPER, Line, colour, label_ends, shortened, styled, ticks

ROW = 0.24
"""Inches a row of a chart that has names at its left."""


@dataclass(frozen=True)
class Dots:
    """Values of one run by row, None where there is none; ``low`` and ``high`` are ends of intervals."""

    name: str
    values: Sequence[float | None]
    colour: int
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()


def rows_panel(
    names: Sequence[str],
    series: Sequence[Dots],
    *,
    title: str,
    x_label: str,
    hollow: Sequence[bool] = (),
    marked: Sequence[Sequence[tuple[float, str]]] = (),
    width: float = 4.6,
) -> Markup:
    """A dot for each row and series, rows from top to bottom, values in [0, 1].

    Args:
        names: of the rows.
        series: the dots; several stand a little apart.
        title: read aloud, with the values.
        x_label: under the axis.
        hollow: rows whose dots are drawn hollow.
        marked: for each row, values that get a small upright stroke, with what they are.
        width: inches.
    """

    def draw(axes: Any) -> None:
        height = len(names)
        for k, dots in enumerate(series):
            c, apart = colour(dots.colour), (k - (len(series) - 1) / 2) * 0.24
            for i, value in enumerate(dots.values):
                if value is None:
                    continue
                y = height - 1 - i - apart
                if dots.low and dots.low[i] is not None:
                    axes.plot([dots.low[i], dots.high[i]], [y, y], color=c, linewidth=1.2, alpha=0.7)
                face = PAPER if hollow and hollow[i] else c
                axes.plot([value], [y], "o", color=c, markerfacecolor=face, markersize=4.2, clip_on=False)
        for i, strokes in enumerate(marked):
            for value, _ in strokes:
                y = height - 1 - i
                axes.plot([value, value], [y - 0.3, y + 0.3], color=MUTED, linewidth=1.2)
        axes.set_xlim(-0.015, 1.0)
        axes.set_ylim(-0.6, height - 0.4)
        ticks(axes)
        axes.set_yticks(range(height), [shortened(n, 32) for n in reversed(names)])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(x_label)

    said = "; ".join(f"{d.name}: {', '.join(_pairs(names, d.values))}" for d in series)
    floors = [f"{name} {what} {v:.2f}" for name, strokes in zip(names, marked, strict=False) for v, what in strokes]
    said += f"; floors: {', '.join(floors)}" if floors else ""
    return styled(draw, f"{title}: {said}", width=width, height=0.7 + ROW * max(1, len(names)))


def _pairs(names: Sequence[str], values: Sequence[float | None]) -> list[str]:
    return [f"{n} {'not known' if v is None else f'{v:.2f}'}" for n, v in zip(names, values, strict=True)]


def histogram_panel(counts: Sequence[int], marks: Sequence[float], *, c: int = 0) -> Markup:
    """Objects by IoU, bins of equal width over [0, 1]; dashed lines at ``marks``."""

    def draw(axes: Any) -> None:
        edges = np.linspace(0, 1, len(counts) + 1)
        axes.bar(edges[:-1], counts, width=np.diff(edges) * 0.92, align="edge", color=colour(c), linewidth=0)
        for mark in marks:
            axes.axvline(mark, color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
        axes.set_xlim(0, 1)
        ticks(axes)
        axes.set_xlabel("IoU of the best cell (dashed: 0.3, 0.5, 0.7)")
        axes.set_ylabel("objects")

    top = int(np.argmax(counts)) if sum(counts) else 0
    said = f"most in IoU {top / len(counts):.2f} to {(top + 1) / len(counts):.2f}" if sum(counts) else "no object"
    return styled(draw, f"Objects by IoU of their best cell: {said}", width=4.6, height=2.6)


def cells_panel(lines: Sequence[Line]) -> Markup:
    """Mean IoU against the number of cells that the oracle may choose from, log x; faint: the floor."""

    def draw(axes: Any) -> None:
        ends = []
        axes.set_xscale("log")
        for line in lines:
            x, y = np.asarray(line.x, np.float64), np.asarray(line.y, np.float64)
            c = colour(line.colour) if line.colour >= 0 else MUTED
            style = "o-" if line.colour >= 0 else "o--"
            axes.plot(x, y, style, color=c, markersize=3)
            ends.append((line.name, float(x[-1]), float(y[-1]), c))
        ticks(axes, log="x")
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("cells to choose from")
        label_ends(axes, ends)

    said = "; ".join(f"{li.name} from {np.asarray(li.y)[0]:.2f} to {np.asarray(li.y)[-1]:.2f}" for li in lines)
    return styled(draw, f"Mean IoU of the best of so many cells: {said}", width=4.6, height=2.6)
