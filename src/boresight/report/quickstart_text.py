"""Trains the two shipped recipes of the text-query detector side by side on made aerial scenes, and compares them."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from boresight.core.errors import UserError
from boresight.report.html import write_report
from boresight.report.side_by_side import text_table, train_ways
from boresight.run.config_text import TextSettings
from boresight.run.parse import settings_from
from boresight.run.record import RunFolder

WAYS = {
    "baseline": "one window of cells around the best-overlapping cell, target 1, score times class map, threshold 0.3",
    "boresight": "cells chosen by score and overlap together, the overlap as target, class map inside of the score",
}
KINDS = ("aircraft", "ship", "storage tank", "vehicle", "tennis court", "swimming pool")
COLOURS = ("red", "blue", "yellow", "white")
KEYS = (
    "ap50",
    "ap",
    "ap50_base",
    "ap50_novel",
    "classification_accuracy",
    "presence_auc",
    "f1",
    "threshold",
    "false_alarms_per_image",
)


def quickstart_text_settings(way: str, seed: int) -> TextSettings:
    """The settings of one of the two ways; they differ in the recipe alone."""
    values = {
        "recipe": way,
        "data": {
            "kinds": list(KINDS),
            "colours": list(COLOURS),
            "frames": 160,
            "val_frames": 24,
            "test_frames": 64,
            "height": 192,
            "width": 192,
            "seed": seed,
        },
        "clip": {"window": 64},
        "encoder": {"widths": [12, 24, 48, 64], "channels": 64},
        "head": {"width": 48, "depth": 1},
        "train": {
            "steps": 300,
            "batch": 8,
            "validate_every": 50,
            "checkpoint_every": 50,
            "seed": seed,
            "threads": 1,
        },
    }
    return settings_from(TextSettings, values, origin="quickstart text")


def quickstart_text(out: Path, *, seed: int = 0, quiet: bool = False) -> dict[str, Any]:
    """Train both ways, judge them on the same unseen scenes, print the table and write ``report.html``.

    The scenes that judge also hold compositions of colour and kind that no training scene shows.

    Returns a mapping with a group of figures for each way, ``report`` and ``seconds``.
    """
    began = time.monotonic()
    if seed < 0:
        raise UserError(f"--seed {seed}: must be 0 or more")
    settings = {way: quickstart_text_settings(way, seed) for way in WAYS}
    runs = train_ways(out, settings, label="quickstart text", quiet=quiet)
    figures = {way: way_figures(run) for way, run in runs.items()}
    table, story = as_table(figures), explanation(figures)
    report = write_report(
        list(runs.values()),
        runs["boresight"].root.parent / "report.html",
        title="Boresight quickstart: two ways to teach a detector to answer words",
        lead=f"{story}\n\n{' '.join(f'{way}: {what}.' for way, what in WAYS.items())}".replace("`", ""),
    )
    if not quiet:
        print(f"{table}\n\n{story}\n\n{report}", file=sys.stderr)
    return {**figures, "report": str(report), "seconds": round(time.monotonic() - began, 1)}


def way_figures(run: RunFolder) -> dict[str, Any]:
    """The figures of one way, from its run folder alone."""
    judged = json.loads(run.evaluation.read_text(encoding="utf-8"))
    return {k: judged[k] for k in KEYS}


def as_table(figures: dict[str, dict[str, Any]]) -> str:
    """The figures as plain text."""
    columns = {
        "AP50": ("ap50", ".3f"),
        "AP": ("ap", ".3f"),
        "AP50 trained": ("ap50_base", ".3f"),
        "AP50 never trained": ("ap50_novel", ".3f"),
        "named rightly": ("classification_accuracy", ".3f"),
        "presence AUC": ("presence_auc", ".3f"),
        "F1": ("f1", ".3f"),
    }
    return text_table(figures, columns)


def explanation(figures: dict[str, dict[str, Any]]) -> str:
    """Two sentences on what happened, from the figures."""
    base, ours = (figures[way] for way in WAYS)
    reached, before = ours["ap50"] or 0.0, base["ap50"] or 0.0
    ratio = f" ({reached / before:.1f} times)" if reached > before > 0 else ""
    first = (
        "Both read the same frozen encoder and see the same scenes for as many steps: "
        f"`boresight` reaches AP50 {reached:.2f}{ratio}, `baseline` {before:.2f}"
    )
    if not base["f1"] and not base["false_alarms_per_image"]:
        first += f" (nothing reaches its threshold of {base['threshold']:g})"
    if ours["ap50_novel"] is not None and base["ap50_novel"] is not None:
        first += f"; on compositions that were never trained {ours['ap50_novel']:.2f} and {base['ap50_novel']:.2f}"
    named = " and ".join(_named(way, figures[way]) for way in ("boresight", "baseline"))
    presence = _two(ours["presence_auc"], base["presence_auc"])
    second = (
        f"Of the objects that are boxed well {named}; images that hold a class are told from others with an AUC of "
        f"{presence}, and at their own thresholds F1 is {_two(ours['f1'], base['f1'])} "
        f"with {ours['false_alarms_per_image']:.1f} and {base['false_alarms_per_image']:.1f} false alarms an image."
    )
    return f"{first}. {second}"


def _named(way: str, row: dict[str, Any]) -> str:
    """How many of the objects that a way boxes well it names rightly."""
    share = row["classification_accuracy"]
    return f"`{way}` has none" if share is None else f"`{way}` names {share:.0%} rightly"


def _two(ours: float | None, base: float | None) -> str:
    """Two figures, that of `boresight` first."""
    return " and ".join("undefined" if v is None else f"{v:.2f}" for v in (ours, base))
