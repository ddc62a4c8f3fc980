"""Prints the figures of several runs of one configuration as Markdown: `python experiments/summary.py RUN RUN ...`.

Each run must have been judged (`boresight evaluate RUN`). Intervals are the image bootstrap of each run; the last
column is the mean over the runs and, in brackets, their standard deviation.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

Figures = dict[str, Any]


def stamp(name: str, key: str, scale: float = 1.0) -> Callable[[Figures], float]:
    """A figure of a compatibility mode."""
    return lambda f: f["compatibility"][name][key] * scale


ROWS: dict[str, Callable[[Figures], float]] = {
    "F1 at 3 px, validated threshold": lambda f: f["f1"],
    "F1 at 3 px, threshold 0.5": lambda f: f["f1_at_half"],
    "Pd at 0.1 false alarms an image": lambda f: f["pd_at_0.1_false_alarms_per_frame"],
    "Pd at 1 false alarm an image": lambda f: f["pd_at_1_false_alarms_per_frame"],
    "false alarms an image": lambda f: f["false_alarms_per_frame"],
    "RMSE of hits, px": lambda f: f["rmse"],
    "F1 at 1 px": lambda f: f["f1_at_px"]["1"],
    "F1 at 2 px": lambda f: f["f1_at_px"]["2"],
    "F1 at 5 px (SPIRE's tolerance)": lambda f: f["compatibility"]["spire_5px"]["f1"],
    "Pd, BasicIRSTD, 3x3 stamp": stamp("basic_irstd", "pd"),
    "Fa e-6, BasicIRSTD (fixed), 3x3 stamp": stamp("basic_irstd", "fa", 1e6),
    "Fa e-6, DNANet legacy (miscounts), 3x3 stamp": stamp("dnanet_legacy", "fa", 1e6),
}
INTERVALS = {
    "F1 at 3 px, validated threshold": "f1",
    "Pd at 0.1 false alarms an image": "pd_at_0.1_false_alarms_per_frame",
}


def main(roots: list[str]) -> None:
    """Print the table."""
    runs = [json.loads((Path(root) / "evaluation.json").read_text(encoding="utf-8")) for root in roots]
    print("| figure | " + " | ".join(Path(r).name for r in roots) + " | mean (sd) |")
    print("|---|" + "---:|" * (len(runs) + 1))
    for name, read in ROWS.items():
        values = [read(run) for run in runs]
        digits = 1 if "e-6" in name else 3
        cells = []
        for run, value in zip(runs, values, strict=True):
            low, high = run["intervals"][INTERVALS[name]] if name in INTERVALS else (None, None)
            cells.append(f"{value:.{digits}f}" + (f" [{low:.3f}, {high:.3f}]" if low is not None else ""))
        spread = f" ({statistics.stdev(values):.{digits}f})" if len(values) > 1 else ""
        print(f"| {name} | " + " | ".join(cells) + f" | {statistics.mean(values):.{digits}f}{spread} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+")
    main(parser.parse_args().runs)
