"""Curves of a report as inline SVG: drawn by matplotlib, coloured by the page.

Colours leave here as CSS variables, so that one drawing serves light, dark and paper; text stays text, in the font
of the page. Line colours are near those of Okabe and Ito (2008), told apart by all common kinds of colour vision, and
every line carries its name at its end.
"""

from __future__ import annotations

import io
import itertools
import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a6f00", "#8a63d2")
INK, MUTED, RULE, PAPER = "#1b1f24", "#6a717b", "#dfe3e8", "#fdfdfe"
_VARIABLES = {INK: "ink", MUTED: "muted", RULE: "rule", PAPER: "paper"} | {c: f"s{i}" for i, c in enumerate(PALETTE)}
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "boresight",
    "text.parse_math": False,  # a run may be named `$x$`
    "text.color": INK,
    "font.size": 8.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelsize": 8.5,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.facecolor": "none",
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "lines.linewidth": 1.5,
    "lines.solid_capstyle": "round",
}
WIDE = {"width": 4.6, "height": 2.6}
_NAMES = itertools.count()
POINTS = 300
"""Points of a line at most; longer ones are averaged in equal stretches."""


@dataclass(frozen=True)
class Line:
    """One named line of a panel.

    Attributes:
        name: written at its end.
        x, y: ``[N]``, NaN or None where there is no value.
        colour: index into the palette, -1 for the ink of the page.
        low, high: ``[N]`` ends of error bars, or None.
    """

    name: str
    x: ArrayLike
    y: ArrayLike
    colour: int = 0
    low: ArrayLike | None = None
    high: ArrayLike | None = None


def colour(index: int) -> str:
    """A palette colour, the ink for -1; indices beyond the palette begin again."""
    return INK if index < 0 else PALETTE[index % len(PALETTE)]


def to_svg(figure: Figure, label: str) -> Markup:
    """A figure as an inline SVG element that is as wide as its place, with ``label`` for those who cannot see it.

    Ids get a prefix of their own (several drawings share one page), colours become CSS variables.
    """
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # The browser has the glyph that matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style .*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(
        r'<svg [^>]*?viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" xmlns="http://www.w3.org/2000/svg">', text, count=1
    )
    text = text.replace("xlink:href", "href")
    text = re.sub(r"font: (?:\w+ )?([\d.]+px) [^;\"]*", r"font-size: \1", text)
    prefix = f"g{next(_NAMES)}-"
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}", text)
    for value, name in _VARIABLES.items():
        text = text.replace(value, f"var(--{name})")
    # safe: matplotlib escapes the texts it draws, and the label is escaped here
    opening = f'<svg class="plot" role="img" aria-label="{escape(label)}"'
    return Markup(text.replace("<svg", opening, 1))


def styled(draw: Callable[[Any], None], label: str, *, width: float = 3.7, height: float = 2.3) -> Markup:
    """Let ``draw`` fill the axes of a fresh figure of ``width`` x ``height`` inches and return it as SVG."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.subplots())
        return to_svg(figure, label)


def averaged(x: ArrayLike, y: ArrayLike, points: int = POINTS) -> tuple[Array, Array]:
    """The finite part of a line, averaged in equal stretches where it has more than ``points``."""
    both: Array = np.stack([np.asarray(v, dtype=np.float64) for v in (x, y)])
    both = both[:, np.isfinite(both).all(axis=0)]
    if both.shape[1] > points:
        edges = np.linspace(0, both.shape[1], points + 1).round().astype(np.int64)
        both = np.add.reduceat(both, edges[:-1], axis=1) / np.diff(edges)
    return both[0], both[1]


def smoothed(y: Array, share: float = 0.05) -> Array:
    """Running mean over ``share`` of the line, shorter at its ends so that it is centred everywhere."""
    half = int(len(y) * share / 2)
    total = np.concatenate(([0.0], np.cumsum(y)))
    at = np.arange(len(y))
    reach = np.minimum(half, np.minimum(at, len(y) - 1 - at))
    return np.asarray((total[at + reach + 1] - total[at - reach]) / (2 * reach + 1))


def label_ends(axes: Any, ends: Sequence[tuple[str, float, float, str]], gap: float = 0.085) -> None:
    """Write names at the right of their lines' ends, pushed apart to at least ``gap`` of the panel's height.

    ``ends`` holds (name, x, y, colour) in data coordinates.
    """
    if not ends:
        return
    axes.get_xlim(), axes.get_ylim()  # settles the limits, which the transformation reads
    to_panel = axes.transData + axes.transAxes.inverted()
    rows = sorted((float(np.clip(to_panel.transform((x, y))[1], 0, 1)), name, c) for name, x, y, c in ends)
    heights = [rows[0][0]]
    for row in rows[1:]:
        heights.append(max(row[0], heights[-1] + gap))
    over = max(0.0, heights[-1] - 1.0)
    for i in range(len(heights) - 1, -1, -1):  # the stack may not leave the top: push down what stands too high
        limit = 1.0 if i == len(heights) - 1 else heights[i + 1] - gap
        heights[i] = min(heights[i], limit) if over else heights[i]
    for height, (_, name, c) in zip(heights, rows, strict=True):
        axes.text(1.015, height, shortened(name), color=c, transform=axes.transAxes, va="center", fontsize=8)


def shortened(name: str, length: int = 18) -> str:
    """A name of at most ``length`` characters, its middle left out."""
    return name if len(name) <= length else f"{name[: length - 8]}…{name[-7:]}"


def plain(value: float, _: int | None = None) -> str:
    """A tick: short, without mathematical markup."""
    if value == 0:
        return "0"
    if abs(value) >= 10_000 or abs(value) < 1e-3:
        mantissa, exponent = f"{value:.0e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:g}"


def _ticks(axes: Any, *, log: str = "") -> None:
    for name in "xy":
        axis = axes.xaxis if name == "x" else axes.yaxis
        axis.set_minor_locator(NullLocator())
        low, high = axis.get_view_interval()
        subs = (1.0,) if low <= 0 or high / low > 100 else (1.0, 2.0, 5.0)  # a short axis would have one tick or none
        axis.set_major_locator(
            LogLocator(subs=subs, numticks=6) if name in log else MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
        )
        axis.set_major_formatter(FuncFormatter(plain))


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
        _ticks(axes, log="y" if log else "")
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
        _ticks(axes, log="x")
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
        _ticks(axes)
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
    spoken = "; ".join(f"{e.name} {_signed(e.estimate)}, {words[e.verdict]}" for e in effects)
    return styled(draw, f"{title}: {spoken}", width=WIDE["width"], height=0.75 + 0.3 * max(1, len(effects)))


def _signed(value: float | None) -> str:
    return "not known" if value is None or not math.isfinite(value) else f"{value:+.3g}"
