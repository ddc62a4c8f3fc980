"""The results of `experiments/faults.py` as Markdown, and the figures that they come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from boresight.diagnose.finding import SEVERITIES

Result = dict[str, Any]


def caught(result: Result, noise: dict[str, int]) -> bool:
    """Whether every expected rule fired, more gravely than without the fault, or the verdict is the expected word."""
    rules = graveness(result.get("fired", ()))
    expected = set(result.get("expected", ()))
    by_rule = bool(expected) and all(rules.get(rule, -1) > noise.get(rule, -1) for rule in expected)
    return by_rule or (bool(result["word"]) and result["verdict"] == result["word"])


def graveness(fired: Sequence[dict[str, str]]) -> dict[str, int]:
    """The gravest severity of each rule, as a number."""
    found: dict[str, int] = {}
    for f in fired:
        found[f["rule"]] = max(found.get(f["rule"], -1), SEVERITIES.index(f["severity"]))  # type: ignore[arg-type]
    return found


def noise_of(results: Sequence[Result], system: str) -> dict[str, int]:
    """What fires in the longer of the two tiny runs of a system without any fault."""
    mine = [r for r in results if r["part"] == "control" and r["system"] == system]
    return graveness(max(mine, key=lambda r: r["steps"])["fired"]) if mine else {}


def as_markdown(results: Sequence[Result]) -> str:
    """All tables, each with its sum in front."""
    parts = [_training(results), _output(results), _clean(results), _controls(results)]
    return "\n\n".join(part for part in parts if part)


def _of(results: Sequence[Result], part: str) -> list[Result]:
    return [r for r in results if r["part"] == part]


def _said(fired: Sequence[dict[str, str]]) -> str:
    return ", ".join(f"{f['rule']} ({f['severity']})" for f in fired) or "none"


def _table(head: str, rows: Sequence[str]) -> str:
    columns = head.count("|") - 1
    return "\n".join([head, "|" + "---|" * columns, *rows])


def _recall(hits: int, of: int) -> str:
    return f"{hits} of {of}, recall {hits / of:.3f}"


def _training(results: Sequence[Result]) -> str:
    mine = _of(results, "training")
    if not mine:
        return ""
    rows, hits = [], 0
    for r in mine:
        found = caught(r, noise_of(results, r["system"]))
        hits += found
        expected = set(r["expected"])
        names = [f"**{f['rule']}**" if f["rule"] in expected else f["rule"] for f in r["fired"]]
        marked = [f"{name} ({f['severity']})" for name, f in zip(names, r["fired"], strict=True)]
        what = f"{r['name']}: {r['what']}"
        said = ", ".join(marked) or "none"
        rows.append(f"| {what} | {r['system']} | {said} | {r['verdict'] or '-'} | {'yes' if found else '**no**'} |")
    head = "| fault | system | rules fired (expected ones bold) | verdict | caught |"
    return f"Faults of trainings: caught {_recall(hits, len(mine))}.\n\n{_table(head, rows)}"


def _output(results: Sequence[Result]) -> str:
    mine = _of(results, "output")
    if not mine:
        return ""
    planted = [r for r in mine if r["fault"]]
    hits = sum(caught(r, {}) for r in planted)
    rows = [
        f"| {r['system']} | {r['fault'] or 'none'} | {r['word'] or '-'} | {r['verdict']} | "
        + ("yes |" if caught(r, {}) else "**no** |" if r["fault"] else "- |")
        for r in mine
    ]
    told = f"Faults of outputs: caught {_recall(hits, len(planted))}" if planted else "Outputs as they are"
    return f"{told}.\n\n{_table('| system | fault | expected verdict | verdict | caught |', rows)}"


def _clean(results: Sequence[Result]) -> str:
    mine = _of(results, "clean")
    if not mine:
        return ""
    counts = [Counter(f["severity"] for f in r["fired"]) for r in mine]
    errors = sum(c["error"] > 0 for c in counts)
    most = max(c["warning"] for c in counts)
    warned = sum(c["warning"] > 0 for c in counts)
    rows = [
        f"| {r['name']} | {c['error']} | {c['warning']} | {_said(r['fired'])} | {r['verdict']} |"
        for r, c in zip(mine, counts, strict=True)
    ]
    told = f"Clean runs: {len(mine)}; {errors} with an error, {warned} with a warning, at most {most} a run."
    return f"{told}\n\n{_table('| run | errors | warnings | rules fired | verdict |', rows)}"


def _controls(results: Sequence[Result]) -> str:
    mine = _of(results, "control")
    rows = [f"| {r['system']} | {r['steps']} | {_said(r['fired'])} | {r['verdict']} |" for r in mine]
    head = "| system | steps | rules fired | verdict |"
    return f"The tiny trainings without a fault:\n\n{_table(head, rows)}" if mine else ""
