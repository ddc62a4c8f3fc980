"""Trains three ways side by side on made frames, and shows what one-pixel labels do and what repairs it."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from boresight.core.errors import UserError
from boresight.report.html import write_report
from boresight.report.side_by_side import text_table, train_ways
from boresight.run.config import (
    AugmentSettings,
    DataSettings,
    HeadSettings,
    LossSettings,
    PointSettings,
    TargetSettings,
    TrainSettings,
)
from boresight.run.record import RunFolder, read_parquet

STEPS = 350
WAYS = {
    "hard": "one-pixel labels, cross-entropy averaged over all cells",
    "hard_focal": "one-pixel labels, focal loss divided by objects",
    "soft": "Gaussian labels, penalty-reduced focal divided by objects (the default)",
}


def quickstart_settings(way: str, seed: int) -> PointSettings:
    """The settings of one of the three ways; they differ in label and loss alone."""
    base = PointSettings(
        data=DataSettings(preset="easy", frames=96, val_frames=24, test_frames=48, seed=seed),
        augment=AugmentSettings(crop=256, positive_share=0.0),  # placed at random: as sparse as the frames are
        head=HeadSettings(level="p2"),
        train=TrainSettings(steps=STEPS, batch=6, validate_every=50, checkpoint_every=50, seed=seed, threads=1),
    )
    hard = TargetSettings(label="hard")
    return {
        "hard": replace(base, target=hard, loss=LossSettings(name="bce", per="cells")),
        "hard_focal": replace(base, target=hard, loss=LossSettings(name="focal")),
        "soft": base,
    }[way]


def quickstart(out: Path, *, seed: int = 0, quiet: bool = False) -> dict[str, Any]:
    """Train the three ways, judge them on the same unseen frames, print the table and write ``report.html``.

    Returns a mapping with a group of figures for each way, ``report`` and ``seconds``.
    """
    began = time.monotonic()
    if seed < 0:
        raise UserError(f"--seed {seed}: must be 0 or more")
    settings = {way: quickstart_settings(way, seed) for way in WAYS}
    runs = train_ways(out, settings, label="quickstart", quiet=quiet)
    figures = {way: way_figures(run) for way, run in runs.items()}
    table, story = as_table(figures), explanation(figures)
    shown = ("f1_at_half", "f1", "threshold", "false_alarms_per_frame", "cls_loss", "positive_rate")
    report = write_report(
        list(runs.values()),
        runs["soft"].root.parent / "report.html",
        title="Boresight quickstart: three ways to label a dim point",
        lead=f"{story}\n\n{' '.join(f'{way}: {what}.' for way, what in WAYS.items())}".replace("`", ""),
        table=[{"way": way, **{k: figures[way][k] for k in shown}} for way in WAYS],
    )
    if not quiet:
        print(f"{table}\n\n{story}\n\n{report}", file=sys.stderr)
    return {**figures, "report": str(report), "seconds": round(time.monotonic() - began, 1)}


def way_figures(run: RunFolder) -> dict[str, Any]:
    """The figures of one way, from its run folder alone."""
    judged = json.loads(run.evaluation.read_text(encoding="utf-8"))
    recent = read_parquet(run.metrics)[-20:]
    keys = ("f1_at_half", "f1", "threshold", "false_alarms_per_frame", "pd_at_0.1_false_alarms_per_frame", "rmse")
    return {k: judged[k] for k in keys} | {
        "cls_loss": sum(r["loss_cls"] for r in recent) / len(recent),
        "positive_rate": sum(r["positive_rate"] for r in recent) / len(recent),
    }


def as_table(figures: dict[str, dict[str, Any]]) -> str:
    """The figures as plain text."""
    columns = {
        "F1 at 0.5": ("f1_at_half", ".3f"),
        "F1": ("f1", ".3f"),
        "threshold": ("threshold", ".3f"),
        "false alarms/frame": ("false_alarms_per_frame", ".2f"),
        "class. loss": ("cls_loss", ".5f"),
        "positive rate": ("positive_rate", ".1e"),
    }
    return text_table(figures, columns)


def explanation(figures: dict[str, dict[str, Any]]) -> str:
    """Two sentences on what happened, from the figures."""
    hard, focal, soft = (figures[way] for way in WAYS)
    half, own = hard["f1_at_half"] or 0.0, hard["f1"] or 0.0
    found = f"reaches F1 {half:.2f}"
    if half < 0.5:
        found = f"finds little (F1 {half:.2f})" if half > 0 else "finds nothing"
    first = (
        f"Only one cell in {1 / hard['positive_rate']:,.0f} of the training views holds a target, so `hard` gets its "
        f"classification loss down to {hard['cls_loss']:.4f} and {found} at a threshold of 0.5"
    )
    if own > half + 0.1:
        first += f": its scores only rank (F1 {own:.2f} at its own threshold of {hard['threshold']:.3f})."
    else:
        first += ": answering background everywhere is nearly optimal for it." if half < 0.5 else "."
    gain = (soft["f1_at_half"] or 0) - half
    second = (
        f"Dividing the loss by objects instead of cells (`hard_focal`, {_both(focal)}) and softening the label "
        f"(`soft`, {_both(soft)}) {'repair' if gain >= 0.3 else 'change'} that: {gain:+.2f} at 0.5 over `hard`."
    )
    return f"{first} {second}"


def _both(row: dict[str, Any]) -> str:
    return f"F1 {row['f1'] or 0:.2f}, at 0.5 {row['f1_at_half'] or 0:.2f}"
