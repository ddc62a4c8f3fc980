"""Which images a page shows, from the matches of its runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

ERRORS = ("missed", "false_alarm", "duplicate", "wrong_class")


def by_image(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Rows of ``matches.parquet`` by image name."""
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["image"]].append(row)
    return groups


def chosen_frames(matches: Sequence[Sequence[Mapping[str, Any]]], names: Sequence[str], count: int = 4) -> list[str]:
    """The frames to show: half of them with the most errors of all runs together, then the first ones with a hit."""
    known = set(names)
    errors: dict[str, int] = defaultdict(int)
    hits: dict[str, int] = {}
    for row in (r for rows in matches for r in rows if r["image"] in known):
        errors[row["image"]] += row["kind"] in ERRORS
        if row["kind"] in ("hit", "missed"):
            hits[row["image"]] = 1
    worst = sorted((n for n in errors if errors[n]), key=lambda n: (-errors[n], n))[: count // 2]
    typical = [n for n in names if n in hits and n not in worst]
    return worst + typical[: count - len(worst)]
