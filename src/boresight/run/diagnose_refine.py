"""Diagnoses a run of the box refiner."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from boresight.core.errors import UserError
from boresight.core.types import Scene
from boresight.diagnose.refinement import RefinerDiagnosis, diagnose_refined
from boresight.evaluate.refinement import judged_rows, refined
from boresight.run.diagnosed import Diagnosed
from boresight.run.health import run_health
from boresight.run.outcomes import Tightened
from boresight.run.predict import load_trained
from boresight.run.recipe import Request
from boresight.run.recipes import recipe
from boresight.run.record import RunFolder, write_json
from boresight.run.refine_examine import refine_frames
from boresight.run.remedies import remedies_for


def diagnose_refiner(
    run: RunFolder,
    *,
    split: str = "val",
    limit: int | None = None,
    which: str = "last",
    bootstrap: int = 500,
    quiet: bool = True,
) -> Diagnosed[RefinerDiagnosis]:
    """Refine the coarse boxes of a split, say what holds the refiner back, and write ``diagnosis.json``.

    Arguments as of :func:`boresight.run.diagnose.diagnose_run`. UserError where no coarse box stands for an object.
    """
    trained = load_trained(run, which)
    settings, kind = trained.settings, recipe("refine")
    splits = kind.frames(settings, split)
    frames = getattr(splits, split)
    count = len(frames) if limit is None else min(limit, len(frames))
    if count < 1:
        raise UserError(f"--limit {limit}: at least one image must be judged")
    request = Request(splits, split, count, trained.checkpoint.threshold, bootstrap, quiet)
    if settings.decode.operating == "all":
        request = replace(request, threshold=0.0)
    scenes, found = refine_frames(trained.detector, request)
    data = refined(scenes, [f.outcome for f in found])
    if not len(data.image):
        raise UserError(f"{run.root}: no coarse box of `{split}` stands for an object: choose another --split")
    health = run_health(run, probe=True)
    told = diagnose_refined(
        data, _confidence(scenes, found), splits.classes, findings=health.findings, replicates=bootstrap
    )
    result = Diagnosed(told, remedies_for(settings, told.verdict, told.gains), health)
    about = {"run": str(run.root), "detector": "refine", "split": split, "checkpoint": which, "limit": limit}
    write_json(run.diagnosis, about | result.to_dict())
    return result


def _confidence(scenes: list[Scene], found: list[Tightened]) -> np.ndarray:
    """``[N]`` of the boxes that stand for objects, in the order of :func:`boresight.evaluate.refinement.refined`."""
    parts = [one.confidence[judged_rows(scene)].double().numpy() for scene, one in zip(scenes, found, strict=True)]
    return np.concatenate(parts)


def summary(told: Diagnosed[RefinerDiagnosis]) -> str:
    """For a person at a terminal."""
    d, f = told.diagnosis, told.diagnosis.figures
    r = f["refinement"]
    lines = [
        f"{d.verdict.word.upper()}: {d.verdict.sentence}",
        f"  overturned by: {d.verdict.overturn}",
        f"  {f['images']} images, {f['counts']['objects']} coarse boxes; mean IoU {r['iou_before']:.3f} -> "
        f"{r['iou_after']:.3f}, every box replaced {r['iou_all_replaced']:.3f}, the better of both "
        f"{r['iou_best_of_both']:.3f}",
        "",
        "  if one thing were true      mean IoU gains",
    ]
    for name, drawn in sorted(d.gains.items(), key=lambda item: -item[1].value):
        e = drawn.estimate()
        span = "" if e.interval is None else " [{:+.3f}, {:+.3f}]".format(*e.interval)
        lines.append(f"  {name:<22}{e.value or 0.0:>+10.3f}{span}   {f['gains'][name]['says']}")
    lines += told.closing_lines()
    return "\n".join(lines)


def last_line(told: Diagnosed[RefinerDiagnosis]) -> dict[str, Any]:
    """The figures for one line on a terminal."""
    f = told.diagnosis.figures
    keys = ("iou_before", "iou_after", "iou_all_replaced", "iou_best_of_both", "harmed_share")
    return {
        "verdict": told.diagnosis.verdict.to_dict(),
        "images": f["images"],
        "counts": f["counts"],
        **{k: f["refinement"][k] for k in keys},
        "gains": {name: g["mean_iou"] for name, g in f["gains"].items()},
        "missing": f["missing"],
        "findings": [x.to_dict() for x in told.diagnosis.findings],
        "remedies": told.remedies,
    }
