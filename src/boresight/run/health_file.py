"""The file `health.json` of a run: what the rules of training health said, live or afterwards."""

from __future__ import annotations

from dataclasses import fields

from boresight.core.errors import UserError
from boresight.diagnose.finding import Finding
from boresight.diagnose.rule import Health, Unjudged
from boresight.run.record import RunFolder, read_json, write_json


def write_health(run: RunFolder, found: Health, step: int | None = None) -> None:
    """Write ``health.json``, atomically; ``step`` is the last one that was looked at (None: not known)."""
    write_json(run.health, {"step": step, **found.to_dict()})


def read_health(run: RunFolder) -> Health | None:
    """What stands there; None where nothing does. UserError for a file that is not of this kind."""
    if not run.health.is_file():
        return None
    try:
        kept = read_json(run.health)
        names = {f.name for f in fields(Finding)}
        findings = tuple(Finding(**{k: v for k, v in one.items() if k in names}) for one in kept["findings"])
        unjudged = tuple(Unjudged(one["rule"], one["reason"]) for one in kept["unjudged"])
        return Health(findings, tuple(kept["silent"]), unjudged)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{run.health}: cannot be read ({error}); remove it, it is made anew") from error
