"""The panels of a page, each a drawing of its own: curves, threshold, FROC, Pd by SNR, forest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, MaxNLocator

from boresight.report.figures import (
    INK,
    MUTED,
    PALETTE,
    PAPER,
    Array,
    Line,
    averaged,
    colour,
    label_ends,
    plain,
    shortened,
    smoothed,
    styled,
    ticks,
    with_minus,
)

WIDE = {"width": 4.6, "height": 2.6}


def curve_panel(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str = "step",
    log: bool = False,
    share: float | None = None,
    top: float | None = None,
    thin: Sequence[Line] = (),
    width: float = 3.7,
    height: float = 2.3,
) -> Markup:
    """Lines over steps.

    Args:
        lines: with values at some or all steps.
        title: of the panel, also what is read aloud.
        x_label: under the axis.
        log: logarithmic y (values that are not positive are left out).
        share: draw the running mean over this share of the line, and the line itself faintly.
        top: largest y (default: that of the lines; the axis begins at 0 unless it is logarithmic).
        thin: lines drawn faintly below, without names.
        width, height: inches.
    """

    def draw(axes: Any) -> None:
        ends = []
        if log:
            axes.set_yscale("log")
        for line in thin:
            axes.plot(*averaged(line.x, line.y), color=colour(line.colour), linewidth=0.6, alpha=0.4)
        for line in lines:
            x, y = averaged(line.x, line.y)
            if log:
                x, y = x[y > 0], y[y > 0]
            if not len(x):
                continue
            c = colour(line.colour)
            if share and len(x) > 20:
                axes.plot(x, y, color=c, linewidth=0.6, alpha=0.3)
                y = smoothed(y, share)
            axes.plot(x, y, color=c, marker="o" if len(x) <= 12 else None, markersize=3)
            ends.append((line.name, x[-1], y[-1], c))
        ticks(axes, log="y" if log else "")
        axes.set_xlabel(x_label)
        if top is not None:
            axes.set_ylim(0, top)
        elif not log:
            axes.set_ylim(bottom=0)
        label_ends(axes, ends)

    return styled(draw, f"{title}: {_spoken(lines)}", width=width, height=height)


def _spoken(lines: Sequence[Line]) -> str:
    """Where each line begins and ends, in words."""
    parts = []
    for line in lines:
        _, y = averaged(line.x, line.y)
        parts.append(f"{line.name} from {y[0]:.3g} to {y[-1]:.3g}" if len(y) else f"{line.name} without values")
    return "; ".join(parts)


def threshold_panel(lines: Sequence[Line], chosen: Sequence[tuple[float, float] | None]) -> Markup:
    """F1 against the threshold on a logit axis; a dot marks each line's validated threshold, a rule 0.5."""
    logit = _logit

    def draw(axes: Any) -> None:
        ends = []
        for line, mark in zip(lines, chosen, strict=True):
            x, y = averaged(line.x, line.y, 10_000)
            c = colour(line.colour)
            if len(x):
                axes.plot(logit(x), y, color=c)
                ends.append((line.name, float(logit(x)[0]), float(y[0]), c))
            if mark:
                axes.plot(
                    logit(np.array([mark[0]])),
                    [mark[1]],
                    "o",
                    color=c,
                    markersize=5,
                    markeredgecolor=PAPER,
                    clip_on=False,
                )
        marks = np.array([0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999])
        axes.axvline(0, color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
        axes.set_xticks(logit(marks), [f"{m:g}" for m in marks])
        axes.set_xlim(logit(np.array([0.0005]))[0], logit(np.array([0.9995]))[0])
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("threshold (dashed: 0.5; dot: chosen on validation)")
        label_ends(axes, ends)

    return styled(draw, "F1 against threshold: " + _best_words(lines), **WIDE)


def _logit(p: Array) -> Array:
    p = np.clip(p, 5e-4, 1 - 5e-4)
    return np.asarray(np.log(p / (1 - p)))


def _best_words(lines: Sequence[Line]) -> str:
    parts = []
    for line in lines:
        x, y = averaged(line.x, line.y, 10_000)
        parts.append(f"{line.name} best {y.max():.2f} at {x[y.argmax()]:.3g}" if len(y) else f"{line.name} undefined")
    return "; ".join(parts)


def froc_panel(lines: Sequence[Line], images: int) -> Markup:
    """Pd against false alarms a frame, log x; what has no false alarm yet stands at the left edge."""
    edge = 0.5 / max(images, 1)

    def draw(axes: Any) -> None:
        ends = []
        for line in lines:
            x, y = averaged(line.x, line.y, 10_000)
            if not len(x):
                continue
            c = colour(line.colour)
            axes.step(np.maximum(x, edge), y, where="post", color=c)
            ends.append((line.name, float(max(x[-1], edge)), float(y[-1]), c))
        axes.set_xscale("log")
        largest = max((float(np.nanmax(np.asarray(li.x, float))) for li in lines if len(np.asarray(li.x))), default=1.0)
        axes.set_xlim(edge, max(2.0, min(100.0, largest)))
        for rate in (0.1, 1.0):
            axes.axvline(rate, color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
        ticks(axes, log="x")
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("false alarms a frame (dashed: 0.1 and 1)")
        label_ends(axes, ends)

    return styled(draw, f"Probability of detection against false alarms a frame: {_spoken(lines)}", **WIDE)


def snr_panel(lines: Sequence[Line], bound: tuple[Array, Array] | None, *, title: str) -> Markup:
    """Pd by SNR with intervals, moved apart a little, and the ideal observer's line where there is one."""

    def draw(axes: Any) -> None:
        ends = []
        if bound is not None:
            axes.plot(*bound, color=INK, linewidth=1.0, linestyle=(0, (4, 2)))
            ends.append(("ideal observer", float(bound[0][-1]), float(bound[1][-1]), INK))
        for i, line in enumerate(lines):
            x, y = np.asarray(line.x, np.float64), np.asarray(line.y, np.float64)
            low, high = np.asarray(line.low, np.float64), np.asarray(line.high, np.float64)
            keep, c = np.isfinite(y), colour(line.colour)
            if not keep.any():
                continue
            apart = (i - (len(lines) - 1) / 2) * 0.16
            axes.vlines(x[keep] + apart, low[keep], high[keep], color=c, linewidth=0.8, alpha=0.6)
            axes.plot(x[keep] + apart, y[keep], "o-", color=c, markersize=3.5, linewidth=1.1)
            ends.append((line.name, float(x[keep][-1]), float(y[keep][-1]), c))
        ticks(axes)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("SNR of the target")
        label_ends(axes, ends)

    return styled(draw, f"{title}: {_spoken(lines)}", **WIDE)


@dataclass(frozen=True)
class Effect:
    """One row of a forest plot: an estimate with one or two intervals (None where unknown) and what it says.

    ``verdict`` is 1 for clearly better, -1 for clearly worse, 0 for neither.
    """

    name: str
    estimate: float | None
    low: float | None
    high: float | None
    verdict: int
    second: tuple[float, float] | None = None


def forest_panel(effects: Sequence[Effect], *, title: str, x_label: str) -> Markup:
    """Differences to the reference, a row a variant: filled and labelled where clear, hollow where not."""

    def draw(axes: Any) -> None:
        for row, e in enumerate(reversed(effects)):
            c = {1: PALETTE[0], -1: PALETTE[1], 0: MUTED}[e.verdict]
            if e.second is not None:
                axes.plot(e.second, [row - 0.22] * 2, color=c, linewidth=0.9, alpha=0.7)
            if e.low is not None and e.high is not None:
                axes.plot([e.low, e.high], [row, row], color=c, linewidth=2.0)
            if e.estimate is not None:
                face = c if e.verdict else PAPER
                axes.plot([e.estimate], [row], "o", color=c, markerfacecolor=face, markersize=5.5)
            word = {1: "better", -1: "worse", 0: ""}[e.verdict] if e.estimate is not None else "not known"
            axes.text(1.015, row, word, color=c, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_ylim(-0.6, len(effects) - 0.4)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(plain))
        axes.set_yticks(range(len(effects)), [shortened(e.name) for e in reversed(effects)])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(x_label)

    words = {1: "clearly better", -1: "clearly worse", 0: "no clear difference"}
    spoken = "; ".join(
        f"{e.name} {_signed(e.estimate)}, {words[e.verdict] if e.estimate is None or e.low is not None else 'one seed'}"
        for e in effects
    )
    return styled(draw, f"{title}: {spoken}", width=WIDE["width"], height=0.75 + 0.3 * max(1, len(effects)))


def _signed(value: float | None) -> str:
    return "not known" if value is None or not math.isfinite(value) else with_minus(f"{value:+.3g}")
