"""Training health of a run folder: what its files hold as evidence, and what the rules make of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from boresight.core.emission import Missing
from boresight.core.errors import UserError
from boresight.diagnose.evidence import ClassTally, Evidence, FrozenPart, Outcome, UnreadKey
from boresight.diagnose.health import health
from boresight.diagnose.plan import Plan
from boresight.diagnose.probe import Operating
from boresight.diagnose.rule import Health
from boresight.diagnose.steps import Steps
from boresight.run.health_file import read_health
from boresight.run.parse import read_yaml, settings_from
from boresight.run.plan import plan_of
from boresight.run.recipe import Recipe
from boresight.run.recipes import recipe
from boresight.run.record import RunFolder, read_json
from boresight.run.systems import SETTINGS
from boresight.run.tables import read_metrics, read_targets
from boresight.run.unread import pruned, unread_keys


def run_health(run: RunFolder, *, probe: bool = False, scenes: int = 8, kind: Recipe | None = None) -> Health:
    """What the rules say of a run, finished or not, ours or another program's with the same tables.

    Args:
        run: its folder; what it lacks leaves the rules that need it unjudged.
        probe: build the detector too, and ask it on ``scenes`` images (seconds to minutes).
        scenes: images that it is asked on.
        kind: the system, where it is built or fed in another way than ours of that name.
    """
    found = health(evidence_of(run, probe=probe, scenes=scenes, kind=kind))
    kept = None if run.done.is_file() else read_health(run)
    if kept is None:
        return found
    # of a run that ended in a failure the tables lack the step that ended it: what was said then counts
    known = {f.id for f in found.findings}
    more = tuple(f for f in kept.findings if f.id not in known)
    said = {f.id for f in more}
    silent = tuple(r for r in found.silent if r not in said)
    return Health((*more, *found.findings), silent, tuple(u for u in found.unjudged if u.rule not in said))


def evidence_of(run: RunFolder, *, probe: bool = False, scenes: int = 8, kind: Recipe | None = None) -> Evidence:
    """All that the run's files hold. A file that is there and cannot be read is a UserError, as everywhere."""
    settings, unread = _settings(run.config)
    kind = kind if kind is not None or settings is None else recipe(settings.detector)
    plan = Plan() if settings is None or kind is None else plan_of(settings, kind.monitor)
    metrics = read_metrics(run.metrics)
    evidence = Evidence(
        plan=plan,
        steps=Steps.of(metrics, plan.score) if metrics else Missing(f"{run.metrics.name} is missing or empty"),
        tallies=_tallies(run.targets),
        outcome=_outcome(run),
        unread=unread,
    )
    if not probe:
        return evidence
    if settings is None or kind is None:
        reason = unread.reason if isinstance(unread, Missing) else "not known"
        raise UserError(f"{run.root}: its detector cannot be probed: {reason}")
    from boresight.run.health_probe import probed

    return probed(evidence, run, kind, settings, count=scenes)


def _settings(path: Path) -> tuple[Any, tuple[UnreadKey, ...] | Missing]:
    """The settings, without the keys that they do not have, and those keys; None for another program's."""
    if not path.is_file():
        return None, Missing(f"{path.name} is missing")
    values = read_yaml(path)
    kind = SETTINGS.get(str(values.get("detector"))) if isinstance(values, Mapping) else None
    if kind is None:
        return None, Missing(f"{path.name} holds no settings of a system of this program")
    return settings_from(kind, pruned(kind, values), origin=str(path)), unread_keys(kind, values)


def _tallies(path: Path) -> tuple[ClassTally, ...] | Missing:
    rows = read_targets(path)
    if not rows:
        return Missing(f"{path.name} is missing or empty")
    try:
        return ClassTally.of(rows)
    except KeyError as error:
        return Missing(f"{path.name} has no column {error}")


def _outcome(run: RunFolder) -> Outcome | Missing:
    done, evaluation = _json(run.done), _json(run.evaluation)
    if done is None and evaluation is None:
        return Missing(f"{run.done.name} and {run.evaluation.name} are missing: the run is not finished")
    frozen = _group(done, "frozen")
    before, after = _group(frozen, "before"), _group(frozen, "after")
    parts = tuple(FrozenPart(name, str(before[name]), str(after.get(name))) for name in before)
    evicted = _group(done, "features").get("evicted")
    return Outcome(parts, int(evicted) if _is_number(evicted) else None, _operating(evaluation or {}))


def _group(values: Mapping[str, Any] | None, key: str) -> Mapping[str, Any]:
    """What lies under a key, empty where that is no group of values."""
    found = (values or {}).get(key)
    return found if isinstance(found, Mapping) else {}


def _operating(evaluation: Mapping[str, Any]) -> Operating | Missing:
    """From the curve of an evaluation of points: F1 at the frozen threshold and the best one of the same frames."""
    curve = _group(evaluation, "curve")
    columns, figures = [curve.get(k) for k in ("f1", "threshold")], [evaluation.get(k) for k in ("f1", "threshold")]
    whole = all(isinstance(c, list) for c in columns) and all(map(_is_number, (*figures, evaluation.get("truths"))))
    if not whole:
        return Missing("the evaluation holds no curve of F1 over thresholds")
    pairs = [(f, t) for f, t in zip(*columns, strict=False) if _is_number(f) and _is_number(t)]
    if not pairs:
        return Missing("the evaluation's F1 is undefined at every threshold")
    best, at = max(pairs)
    return Operating(int(evaluation["truths"]), evaluation["threshold"], evaluation["f1"], at, best)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2**63


def _json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    return read_json(path)
