"""Trains the runs of a study and compares its variants in pairs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from boresight.core.errors import UserError
from boresight.evaluate.bootstrap import (
    PairedDifference,
    paired_difference,
    paired_f1_difference,
    paired_ratio_difference,
)
from boresight.run.jobs import judged, run_jobs
from boresight.run.parse import nested, read_yaml, settings_from
from boresight.run.recipes import recipe
from boresight.run.record import RunFolder, read_json, read_parquet, write_json, write_yaml
from boresight.run.study import Study

SHARES = (0.8, 0.9)


def run_study(study: Study, folder: Path, *, jobs: int | None = None, quiet: bool = False) -> dict[str, Any]:
    """Train what is not trained yet, compare, and write ``comparison.json`` into ``folder``.

    Runs lie in ``folder/<data set>/<variant>/seed-<k>``; a study that was stopped continues where it was.
    """
    runs = {(d, v, s): RunFolder(folder / d / v / f"seed-{s}") for d, v in study.settings for s in study.seeds}
    for (dataset, variant, seed), run in runs.items():
        settings = study.settings[dataset, variant]
        wanted = nested(replace(settings, train=replace(settings.train, seed=seed, threads=1)))
        if run.config.is_file():
            # a key that came later has its default in the older file
            if nested(settings_from(type(settings), read_yaml(run.config), origin=str(run.config))) != wanted:
                raise UserError(
                    f"{run.root}: trained with other settings; choose another --runs, or remove that folder"
                )
        else:
            write_yaml(run.config, wanted)
    total = sum(study.settings[d, v].train.steps for (d, v, _), run in runs.items() if not judged(run))
    run_jobs(
        [r.root for r in runs.values()],
        jobs=jobs or os.cpu_count() or 1,
        threads=1,
        label=study.name,
        total=total,
        quiet=quiet,
    )
    comparison = {
        "study": study.name,
        "about": study.about,
        "detector": study.detector,
        "command": study.command,
        "reference": study.reference,
        "seeds": list(study.seeds),
        "datasets": {d: _compare(study, d, runs) for d in study.datasets},
    }
    write_json(folder / "comparison.json", comparison)
    return comparison


def _compare(study: Study, dataset: str, runs: dict[tuple[str, str, int], RunFolder]) -> dict[str, Any]:
    kind = recipe(study.detector)
    keys = (*kind.figures, *(_steps_key(s, kind.monitor) for s in SHARES))
    results = {v: [_result(runs[dataset, v, s], kind.monitor) for s in study.seeds] for v in study.variants}
    return {
        v: {
            "figures": {k: _spread([r[k] for r in rows]) for k in keys},
            "difference": None if v == study.reference else _differences(results[study.reference], rows, keys),
        }
        for v, rows in results.items()
    }


def _result(run: RunFolder, monitor: str) -> dict[str, Any]:
    figures = read_json(run.evaluation)
    key = f"val_{monitor}"
    judged = [(r["step"], r[key]) for r in read_parquet(run.metrics) if r.get(key) is not None]
    from_zero = monitor not in ("iou_after", "mean_iou")  # boxes fit somewhat before the first step
    return figures | {_steps_key(s, monitor): steps_to(judged, s, from_zero=from_zero) for s in SHARES}


def _steps_key(share: float, monitor: str) -> str:
    return f"steps_to_{share:g}_of_final_{monitor}"


def steps_to(judged: list[tuple[int, float]], share: float, *, from_zero: bool = True) -> float | None:
    """The step at which the validation figure first reaches ``share`` of its final value.

    Args:
        judged: (step, figure) in order. In between the figure moves in a straight line.
        share: of the last one.
        from_zero: whether it is 0 before the first step, as F1 and AP are.

    None where it cannot be told: of one judgement alone, where the final figure is 0 (there is nothing to reach), and
    where the first judgement is there already and it is not known where it began.
    """
    if len(judged) < 2 or judged[-1][1] <= 0:
        return None
    goal = share * judged[-1][1]
    if not from_zero and judged[0][1] >= goal:
        return None
    before = (0, 0.0)
    for step, f1 in judged:
        if f1 >= goal:
            return before[0] + (step - before[0]) * (goal - before[1]) / (f1 - before[1])
        before = (step, f1)
    raise AssertionError("the last judgement reaches any share of itself")


def _spread(values: list[float | None]) -> dict[str, Any]:
    known = [v for v in values if v is not None]
    whole = len(known) == len(values)
    return {
        "values": values,
        "mean": float(np.mean(known)) if whole else None,
        "sd": float(np.std(known, ddof=1)) if whole and len(known) > 1 else None,
    }


def _differences(reference: list[dict[str, Any]], variant: list[dict[str, Any]], keys: Sequence[str]) -> dict[str, Any]:
    """Variant less reference, paired by seed (Student's t); F1 and mean IoU also by seed and image (bootstrap)."""
    out: dict[str, Any] = {}
    for key in keys:
        a, b = [r[key] for r in reference], [r[key] for r in variant]
        whole = None not in a and None not in b
        out[key] = _shown(paired_difference(a, b)) if whole else None
    if "tp" in reference[0]["per_image"]:
        counts = [_per_image(rows, ("tp", "fp", "fn")) for rows in (reference, variant)]
        out["f1_by_seed_and_image"] = _shown(paired_f1_difference(*counts))
    else:
        sums = [_per_image(rows, ("iou_after", "boxes")) for rows in (reference, variant)]
        out["iou_after_by_seed_and_image"] = _shown(paired_ratio_difference(*sums))
    return out


def _per_image(results: list[dict[str, Any]], names: Sequence[str]) -> np.ndarray:
    """``[seeds, images, names]``: what the images add up to."""
    return np.stack([np.stack([r["per_image"][k] for k in names], axis=-1) for r in results])


def _shown(difference: PairedDifference) -> dict[str, Any]:
    return {**asdict(difference), "clear": difference.clear}
