"""The images of a comparison: what the reference and the best variant find in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boresight.report.browser import Browser, Making, browser
from boresight.report.columns import Columns
from boresight.report.reading import FrameStore, RunData, read_run
from boresight.run.record import RunFolder


def best_of(variants: Mapping[str, Any], reference: str, columns: Columns) -> str | None:
    """The variant, but for the reference, whose leading figure is best in the mean; None where none has one."""
    leading = columns.figures[0]
    means = {
        name: spread["mean"]
        for name, about in variants.items()
        if name != reference and (spread := about["figures"].get(leading.key)) and spread["mean"] is not None
    }
    return (max if leading.higher_is_better else min)(means, key=means.__getitem__) if means else None


def compared_images(
    folder: Path, comparison: Mapping[str, Any], columns: Columns, making: Making
) -> tuple[Browser, str]:
    """The browser of both on every data set, of the first seed, and a sentence that says whose images these are.

    Runs that are not below ``folder`` are left out. UserError when a file of a run is damaged.
    """
    reference, seed, datasets = comparison["reference"], next(iter(comparison["seeds"]), 0), comparison["datasets"]
    runs: list[RunData] = []
    for dataset, variants in datasets.items():
        for variant in filter(None, (reference, best_of(variants, reference, columns))):
            run = RunFolder(folder / dataset / variant / f"seed-{seed}")
            if run.config.is_file():
                runs.append(read_run(run, variant if len(datasets) == 1 else f"{dataset}/{variant}", len(runs)))
    if not runs:
        return Browser(None, "", ("No run lies below this folder, so there are no images.",)), ""
    names = " and ".join(run.name for run in runs)
    best = f"the reference, and the variant whose {columns.figures[0].name} is best in the mean"
    return browser(runs, FrameStore(), making), f"Seed {seed} of {names}: {best}."
