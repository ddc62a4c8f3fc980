"""Curves of a report as inline SVG: drawn by matplotlib, coloured by the page.

Colours leave here as CSS variables, so that one drawing serves light, dark and paper; text stays text, in the font
of the page. Line colours are near those of Okabe and Ito (2008), told apart by all common kinds of colour vision, and
every line carries its name at its end.
"""

from __future__ import annotations

import io
import itertools
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
        return with_minus(f"{mantissa}e{int(exponent)}")
    return with_minus(f"{value:g}")


def with_minus(text: str) -> str:
    """A number's text with a proper minus sign, which is as wide as the plus; exponents keep their hyphen."""
    return f"\N{MINUS SIGN}{text[1:]}" if text.startswith("-") else text


def ticks(axes: Any, *, log: str = "") -> None:
    """Few, short ticks on both axes; ``log`` names those that are logarithmic (``"x"``, ``"y"``)."""
    for name in "xy":
        axis = axes.xaxis if name == "x" else axes.yaxis
        axis.set_minor_locator(NullLocator())
        low, high = axis.get_view_interval()
        subs = (1.0,) if low <= 0 or high / low > 100 else (1.0, 2.0, 5.0)  # a short axis would have one tick or none
        axis.set_major_locator(
            LogLocator(subs=subs, numticks=6) if name in log else MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
        )
        axis.set_major_formatter(FuncFormatter(plain))
