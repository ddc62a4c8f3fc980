"""What sessions did with a feature store, kept in it: a file each, added up when somebody asks."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from filelock import Timeout

from boresight.features.cache_disk import write_file
from boresight.features.cache_locks import alive, lock_on, session_name
from boresight.features.feature_store import Counters

MERGED = "total"
LARGEST = 2.0**63
"""Bytes or seconds that no store has seen."""


def write_tally(folder: Path, session: str, counters: Counters) -> None:
    """Write what a session did so far. Raises OSError."""
    _write(folder, session, counters, [])


def _write(folder: Path, name: str, counters: Counters, sessions: list[str]) -> None:
    text = json.dumps(vars(counters) | ({"sessions": sessions} if sessions else {}))
    write_file(folder / "stats" / f"{name}.json", [text.encode()], session_name())


def total(folder: Path) -> Counters:
    """What all sessions did."""
    merged, found = _all(folder)
    for counters in found.values():
        merged = merged.plus(counters)
    return merged


def merge(folder: Path) -> int:
    """Add the files of sessions that have ended into one; how many there were. Raises OSError."""
    (folder / "locks").mkdir(exist_ok=True)
    try:
        with lock_on(folder / "locks" / "stats").acquire(blocking=False):
            merged, found = _all(folder)
            ended = [session for session in found if not alive(folder / "users", session)]
            for session in ended:
                merged = merged.plus(found[session])
            if ended:
                _write(folder, MERGED, merged, ended)  # it names them: killed here, nothing is counted twice
            for session in ended:
                (folder / "stats" / f"{session}.json").unlink(missing_ok=True)
            return len(ended)
    except Timeout:  # another is adding them up
        return 0


def _all(folder: Path) -> tuple[Counters, dict[str, Counters]]:
    """What was merged, and what was not, by session."""
    read = {file.stem: _read(file) for file in sorted((folder / "stats").glob("*.json"))}
    merged = read.pop(MERGED, None) or {}
    known = merged.get("sessions")
    known = known if isinstance(known, list) else []
    return _counters(merged), {s: _counters(about) for s, about in read.items() if about and s not in known}


def _read(file: Path) -> dict[str, Any] | None:
    """None for what is no tally: it is only counting that is lost."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _counters(about: dict[str, Any]) -> Counters:
    return Counters(**{f.name: about[f.name] for f in fields(Counters) if _counts(about.get(f.name))})


def _counts(value: object) -> bool:
    """Whether it can be what a session did: JSON holds true, NaN, and numbers of any length as well."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < LARGEST
