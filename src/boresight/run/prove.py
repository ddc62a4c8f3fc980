"""Proves a remedy: a short paired training with and without it, same seeds, same order of the data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from boresight.core.errors import UserError
from boresight.run.compare import run_study
from boresight.run.parse import merged, nested, settings_from
from boresight.run.record import RunFolder
from boresight.run.remedies import tree_of
from boresight.run.study import Study
from boresight.run.systems import read_settings

STEPS = 300
"""A proof trains so many steps, or as many as the run did where those are fewer."""


def proof_study(run: RunFolder, change: dict[str, Any], *, seeds: int, steps: int | None) -> Study:
    """The run's settings with and without the change, shortened alike.

    Args:
        run: whose settings are the reference.
        change: keys and values.
        seeds: 0, 1, ...: weights, order and views of a seed are the same on both sides.
        steps: of the training; None: :data:`STEPS`, or the run's own where those are fewer.
    """
    settings = read_settings(run.config)
    count = min(STEPS, settings.train.steps) if steps is None else steps
    if count < 1 or seeds < 1:
        raise UserError(f"--prove needs a step and a seed, got {count} and {seeds}")
    every = min(settings.train.validate_every or count, count)
    short = replace(settings, train=replace(settings.train, steps=count, validate_every=every, checkpoint_every=count))
    changed = settings_from(type(short), merged(nested(short), tree_of(change)), origin="the remedy")
    return Study(
        name=f"proof of {', '.join(f'{k} {v}' for k, v in change.items())}",
        about="Does the remedy of the diagnosis help?",
        detector=settings.detector,
        seeds=tuple(range(seeds)),
        reference="as_it_is",
        settings={("data", "as_it_is"): short, ("data", "remedy"): changed},
        command=f"boresight diagnose {run.root} --prove",
    )


def prove(
    run: RunFolder,
    change: dict[str, Any],
    *,
    seeds: int = 3,
    steps: int | None = None,
    jobs: int | None = None,
    quiet: bool = True,
) -> dict[str, Any]:
    """Train both sides and compare them.

    Returns:
        ``change``, ``seeds``, ``steps``, ``folder``, and of every figure of the system its means (``as_it_is``,
        ``remedy``) and the paired difference with its interval over seeds (``difference``).
    """
    study = proof_study(run, change, seeds=seeds, steps=steps)
    folder = proof_folder(run.root, change)
    comparison = run_study(study, folder, jobs=jobs, quiet=quiet)
    sides = comparison["datasets"]["data"]
    figures = {
        name: {
            "as_it_is": sides["as_it_is"]["figures"][name],
            "remedy": sides["remedy"]["figures"][name],
            "difference": sides["remedy"]["difference"][name],
        }
        for name in sides["remedy"]["figures"]
    }
    count = study.settings["data", "remedy"].train.steps
    return {"change": change, "seeds": seeds, "steps": count, "folder": str(folder), "figures": figures}


def proof_folder(root: Path, change: dict[str, Any]) -> Path:
    """Where the proof of a change is kept: beside what else is known of the run."""
    name = "_".join(f"{key}-{value}" for key, value in sorted(change.items()))
    return root / "proof" / "".join(c if c.isalnum() or c in "-._" else "-" for c in name)


def proof_lines(told: dict[str, Any]) -> str:
    """For a person at a terminal."""
    lines = [f"proof: {told['seeds']} paired seeds of {told['steps']} steps, {told['change']}"]
    for name, figure in told["figures"].items():
        means = [figure[side]["mean"] for side in ("as_it_is", "remedy")]
        if any(m is None for m in means):
            continue
        change = figure["difference"]
        span = "" if not change or change.get("low") is None else f" [{change['low']:+.3f}, {change['high']:+.3f}]"
        gap = "" if not change or change.get("estimate") is None else f"  {change['estimate']:+.3f}{span}"
        lines.append(f"  {name:<36}{means[0]:>9.3f} -> {means[1]:.3f}{gap}")
    return "\n".join(lines)
