"""Judges a trained run on a split, at the threshold frozen on its validation frames, and writes the tables."""

from __future__ import annotations

import json
from typing import Any

from boresight.core.errors import UserError
from boresight.run.frames import WHOLE
from boresight.run.parse import merged, nested, settings_from
from boresight.run.predict import load_trained
from boresight.run.processes import joined
from boresight.run.rank import is_first, rank_of
from boresight.run.recipe import Examination, Request
from boresight.run.recipes import recipe
from boresight.run.record import RunFolder, write_json, write_parquet, write_text


def evaluate_run(
    run: RunFolder,
    *,
    split: str = "test",
    limit: int | None = None,
    which: str = "last",
    data: dict[str, Any] | None = None,
    changed: dict[str, dict[str, Any]] | None = None,
    bootstrap: int = 1000,
    quiet: bool = True,
) -> dict[str, Any]:
    """Detect on a split and judge it. Processes that ``torchrun`` started share the frames, and the first one writes.

    Args:
        run: a trained run.
        split: ``train``, ``val`` or ``test``.
        limit: judge the first so many frames only.
        which: the checkpoint, ``last`` or ``best``.
        data: keys of ``data`` to change (another folder, say); ``evaluation.json`` records them. Of another folder
            everything is judged where neither they nor the run name a split for the test.
        changed: keys of further groups to change (the coarse boxes of a refiner, say), recorded as well.
        bootstrap: image resamples for the intervals.
        quiet: no progress.

    Returns:
        The figures; also written to ``evaluation.json``, ``predictions.json`` and ``matches.parquet`` in the run.
    """
    if rank_of()[1] > 1:
        joined()  # each takes its own device before anything goes there
    trained = load_trained(run, which)
    settings, kind = trained.settings, recipe(trained.checkpoint.detector)
    if data and "root" in data and not {"test", "val", "val_share"} & data.keys() and not settings.data.test:
        data = {**data, "test": WHOLE}  # nothing of it was trained on, so that nothing need be held out
    changes = {**(changed or {}), **({"data": data} if data else {})}
    if changes:
        settings = settings_from(type(settings), merged(nested(settings), changes), origin="the changed settings")
    splits = kind.frames(settings, split)
    frames = getattr(splits, split)
    count = len(frames) if limit is None else min(limit, len(frames))
    if count < 1:
        raise UserError(f"--limit {limit}: at least one frame must be judged")
    request = Request(splits, split, count, trained.checkpoint.threshold, bootstrap, quiet)
    examined = kind.examine(trained.detector, settings, request)
    about = {"run": str(run.root), "split": split, "checkpoint": which, "frames": count, "limit": limit}
    figures = about | ({"data": data} if data else {}) | ({"changed": changed} if changed else {}) | examined.figures
    if is_first():
        write_tables(run, examined)
        write_json(run.evaluation, figures)
    return figures


def write_tables(run: RunFolder, examined: Examination) -> None:
    """``predictions.json`` (everything found) and ``matches.parquet`` (what each was, at the threshold)."""
    write_text(run.predictions, json.dumps(list(examined.predictions), allow_nan=False) + "\n")
    write_parquet(run.matches, examined.rows, examined.columns)


def last_line(figures: dict[str, Any]) -> dict[str, Any]:
    """The figures for one line on a terminal: without curves and single images."""
    return {k: v for k, v in figures.items() if k not in ("curve", "per_image")}
