"""The report of a study: which variants differ from the reference, by how much, and how sure that is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from boresight.core.errors import UserError
from boresight.report.browser import Making
from boresight.report.columns import IMAGES, Columns, Figure
from boresight.report.compared_images import compared_images
from boresight.report.figures import Line, with_minus
from boresight.report.page import page
from boresight.report.panels import Effect, curve_panel, forest_panel
from boresight.run.record import read_parquet, write_text

_WORDS = {1: "clearly better", -1: "clearly worse", 0: "no clear difference"}


def verdict(differences: Mapping[str, Any] | None, figure: Figure) -> int:
    """1 clearly better than the reference, -1 clearly worse, 0 neither (also where nothing is known)."""
    found = (differences or {}).get(figure.key)
    if not found or not found["clear"]:
        return 0
    images = (differences or {}).get(IMAGES)
    if figure.key == "f1" and images and not (images["clear"] and images["estimate"] * found["estimate"] > 0):
        return 0
    return 1 if (found["estimate"] > 0) == figure.higher_is_better else -1


def spread_text(spread: Mapping[str, Any] | None, digits: int) -> str:
    """``mean ± sd``, the mean alone for one seed, a dash where a seed has no value."""
    if not spread or spread.get("mean") is None:
        return "—"
    mean = f"{spread['mean']:.{digits}f}"
    return mean if spread.get("sd") is None else f"{mean} ± {spread['sd']:.{digits}f}"


def difference_text(difference: Mapping[str, Any] | None, digits: int) -> str:
    """``+0.012 [−0.003, +0.027]``; without an interval for one seed, a dash where nothing is known."""
    if not difference or difference.get("estimate") is None:
        return "—"
    estimate, low, high = (
        None if difference.get(k) is None else _signed(difference[k], digits) for k in ("estimate", "low", "high")
    )
    if low is None or high is None:
        return f"{estimate} (one seed)"
    return f"{estimate} [{low}, {high}]"


def _signed(value: float, digits: int) -> str:
    """With its sign; what is rounded to nothing has none to show, and gets a plus."""
    return with_minus(f"{round(value, digits) + 0.0:+.{digits}f}")


def _in_lines(text: str) -> str:
    """A difference over lines: estimate, interval, word."""
    return text.replace(" [", "\n[").replace("] ", "]\n")


def sentences(dataset: str, variants: Mapping[str, Any], reference: str, columns: Columns) -> list[str]:
    """One or two plain sentences on a data set: the leading figure first, then how fast the monitor is reached."""
    others = {v: c.get("difference") for v, c in variants.items() if v != reference}
    if not others:
        return [f"{dataset}: only the reference {reference} was trained."]
    lead, fast = columns.figures[0], columns.figures[-1]
    said = [_sentence(f"{dataset}, {lead.name} against {reference}", others, lead)]
    if any(verdict(d, fast) for d in others.values()):
        said.append(_sentence(f"Steps to 0.9 of the final {columns.monitor_name}", others, fast))
    return said


def _sentence(start: str, others: Mapping[str, Any], figure: Figure) -> str:
    groups: dict[int, list[str]] = {1: [], -1: [], 0: []}
    alone = []
    for name, differences in others.items():
        sign = verdict(differences, figure)
        found = (differences or {}).get(figure.key)
        if found and found["low"] is None:
            alone.append(f"{name} {_signed(found['estimate'], figure.digits)}")
        else:
            groups[sign].append(f"{name} ({difference_text(found, figure.digits)})" if sign else name)
    parts = [f"{', '.join(names)} {_WORDS[sign]}" for sign, names in groups.items() if sign and names]
    if groups[0]:
        parts.append(f"no clear difference for {', '.join(groups[0])}")
    if alone:
        parts.append(f"{', '.join(alone)} (one seed each, which does not tell how sure that is)")
    return f"{start}: {'; '.join(parts)}."


def table_rows(variants: Mapping[str, Any], reference: str, columns: Columns) -> list[list[str]]:
    """A row a variant: mean ± sd of every figure."""
    return [
        [
            f"{v} (reference)" if v == reference else v,
            *(spread_text(c["figures"].get(f.key), f.digits) for f in columns.figures),
        ]
        for v, c in variants.items()
    ]


def difference_rows(variants: Mapping[str, Any], reference: str, columns: Columns) -> list[list[str]]:
    """A row a variant but the reference: every paired difference, with a word where it is clear."""
    rows = []
    for name, content in variants.items():
        if name == reference:
            continue
        differences = content.get("difference") or {}
        cells = []
        for f in columns.figures:
            sign = verdict(differences, f)
            word = f" {_WORDS[sign]}" if sign else ""
            cells.append(difference_text(differences.get(f.key), f.digits) + word)
            if f.key == "f1":
                cells.append(difference_text(differences.get(IMAGES), f.digits))
        rows.append([name, *cells])
    return rows


def forests(variants: Mapping[str, Any], reference: str, columns: Columns) -> list[tuple[str, Markup]]:
    """A forest plot of the differences for each figure of which any is known."""
    plots = []
    for f in (f for f in columns.figures if f.drawn):
        effects = [_effect(v, c.get("difference") or {}, f) for v, c in variants.items() if v != reference]
        if any(e.estimate is not None for e in effects):
            side = "right" if f.higher_is_better else "left"
            drawn = forest_panel(
                effects, title=f"{f.name}, difference to {reference}", x_label=f"less {reference} ({side}: better)"
            )
            plots.append((f.name, drawn))
    return plots


def _effect(name: str, differences: Mapping[str, Any], figure: Figure) -> Effect:
    own, images = differences.get(figure.key) or {}, differences.get(IMAGES) or {}
    second = (images["low"], images["high"]) if figure.key == "f1" and images.get("low") is not None else None
    return Effect(name, own.get("estimate"), own.get("low"), own.get("high"), verdict(differences, figure), second)


def validation_curves(
    root: Path, variants: Sequence[str], reference: str, seeds: Sequence[int], columns: Columns
) -> Markup | None:
    """The monitored figure on validation by step: the mean over seeds of each variant, single seeds thin.

    None where no run has any.
    """
    lines, thin = [], []
    colours = iter(range(100))
    for name in variants:
        c = -1 if name == reference else next(colours)
        runs = [_judged(root / name / f"seed-{s}", f"val_{columns.monitor}") for s in seeds]
        known = [r for r in runs if r]
        steps = sorted(set.intersection(*(set(r) for r in known))) if known else []
        if steps:
            lines.append(Line(name, steps, [float(np.mean([r[s] for r in known])) for s in steps], c))
            thin += [Line(name, list(r), list(r.values()), c) for r in known] if len(known) > 1 else []
    title = f"Validation {columns.monitor_name}"
    return curve_panel(lines, title=title, thin=thin, top=1.0, width=7.2, height=3.2) if lines else None


def _judged(run: Path, key: str) -> dict[int, float]:
    return {r["step"]: r[key] for r in read_parquet(run / "metrics.parquet") if r.get(key) is not None}


def read_comparison(folder: Path) -> dict[str, Any]:
    """``comparison.json`` of a study; UserError when it is missing or damaged."""
    path = folder / "comparison.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no comparison here; `boresight compare STUDY.yaml` makes one") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run `boresight compare` again to write it anew") from error
    for key in ("study", "reference", "seeds", "datasets"):
        if key not in content:
            raise UserError(f"{path}: `{key}` is missing; run `boresight compare` again to write it anew")
    return content


def _markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(c).replace("|", "\\|") for c in line) + " |" for line in lines)


def markdown(comparison: Mapping[str, Any]) -> str:
    """The tables and sentences as Markdown."""
    reference, parts = comparison["reference"], [f"# {comparison['study']}"]
    columns = Columns.of(comparison)
    if comparison.get("about"):
        parts.append(comparison["about"])
    if comparison.get("command"):
        parts.append(f"```\n{comparison['command']}\n```")
    parts.append(f"Reference: {reference}. Seeds: {len(comparison['seeds'])}. {columns.rule}")
    for dataset, variants in comparison["datasets"].items():
        parts += [f"## {dataset}", " ".join(sentences(dataset, variants, reference, columns))]
        own = table_rows(variants, reference, columns)
        parts += ["Mean ± standard deviation over seeds:", _markdown_table(columns.headings, own)]
        if rows := difference_rows(variants, reference, columns):
            table = _markdown_table(columns.difference_headings, rows)
            parts += [f"Difference to {reference} with 95 % intervals:", table]
    return "\n\n".join(parts) + "\n"


def write_comparison(folder: Path, *, making: Making | None = None) -> Path:
    """Write ``comparison.md`` and ``report.html`` of the study in ``folder`` and return the path of the page.

    ``making`` tells how the images to look through are made (default: quietly, without maps of cells).

    Raises:
        UserError: ``comparison.json`` or a file of a run is missing or damaged, or nothing can be written.
    """
    comparison = read_comparison(folder)
    reference, seeds, columns = comparison["reference"], comparison["seeds"], Columns.of(comparison)
    datasets = [
        {
            "name": name,
            "sentences": sentences(name, variants, reference, columns),
            "rows": table_rows(variants, reference, columns),
            "differences": [[r[0], *map(_in_lines, r[1:])] for r in difference_rows(variants, reference, columns)],
            "forests": forests(variants, reference, columns),
            "curves": validation_curves(folder / name, list(variants), reference, seeds, columns),
        }
        for name, variants in comparison["datasets"].items()
    ]
    write_text(folder / "comparison.md", markdown(comparison))
    images, said = compared_images(folder, comparison, columns, making or Making(map_seconds=0.0))
    out = folder / "report.html"
    write_text(
        out,
        page(
            "comparison.html",
            title=comparison["study"],
            comparison={"about": "", "command": "", **comparison},
            datasets=datasets,
            browser=images,
            compared=said,
            headings=columns.headings,
            difference_headings=columns.difference_headings,
            rule=columns.rule,
            monitor=columns.monitor_name,
            has_f1=any(f.key == "f1" for f in columns.figures),
            comparisons=sum(max(0, len(v) - 1) for v in comparison["datasets"].values()),
        ),
    )
    return out
