"""The diagnosis on a page, from ``diagnosis.json``: verdict, what each repair gains, buckets, ranking, reliability."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from boresight.core.errors import UserError
from boresight.report.box_tables import Table
from boresight.report.curves import Panel
from boresight.report.figures import MUTED, colour, styled, ticks, with_minus
from boresight.report.localisation import estimate
from boresight.report.panels import Effect, forest_panel
from boresight.report.reading import RunData

REPAIRS = {
    "class": "the class",
    "box": "the box",
    "score": "the score",
    "assignment": "the assignment",
    "background": "the background",
    "threshold": "the threshold",
    "duplicates": "duplicates",
    "misses": "misses are excused",
    "near_score": "the score of cells near objects",
    "score_everywhere": "the score of all cells",
    "trained_cells": "only trained cells speak",
    "inside_cells": "only cells in objects speak",
    "starved": "objects without trained cells are excused",
}
REFINER = {"box": "the refined box", "score": "the decision", "threshold": "the confidence"}
MAIN = ("class", "box", "score", "assignment", "background", "threshold", "duplicates", "misses")
BUCKETS = {
    "supervised": "supervised cell",
    "inside": "in an object, unsupervised",
    "background": "background",
    "unplaced": "query without an object",
}


@dataclass(frozen=True)
class DiagnosisPart:
    """The part of one run, ready for the template; ``note`` says why there is none.

    Attributes:
        run: the run.
        note: empty where there is a diagnosis.
        word: the verdict.
        sentences: the verdict's sentence, what would overturn it, what it rests on.
        panels: the drawings.
        tables: always open.
        more: folded away.
        missing: what the source cannot give.
        findings: of health rules, as rows: severity, title, evidence, cause, remedy, source.
        remedies: sentences.
        proof: what a paired training said, or None.
    """

    run: RunData
    note: str = ""
    word: str = ""
    sentences: tuple[str, ...] = ()
    panels: tuple[Panel, ...] = ()
    tables: tuple[tuple[str, Table], ...] = ()
    more: tuple[tuple[str, Table], ...] = ()
    missing: tuple[str, ...] = ()
    findings: Table | None = None
    remedies: tuple[str, ...] = ()
    proof: Table | None = None


def diagnosis_part(run: RunData) -> DiagnosisPart:
    """The part of a run. UserError when ``diagnosis.json`` holds what this version cannot read."""
    said = run.diagnosis
    if said is None:
        return DiagnosisPart(run, f"{run.name}: not diagnosed yet; `boresight diagnose` says why it fails.")
    try:
        common = DiagnosisPart(
            run,
            word=said["verdict"]["word"],
            missing=tuple(f"{name}: {reason}" for name, reason in said["missing"].items()),
            findings=findings_table(said),
            remedies=tuple(f"{r['change_text']}: {r['why']}" for r in said.get("remedies", [])),
            proof=_proof(said),
        )
        return _of_refiner(common, said) if said["detector"] == "refine" else _of_cells(common, said)
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f"{run.name}: diagnosis.json cannot be read ({error!r}); diagnose the run again") from error


def _of_cells(part: DiagnosisPart, said: Mapping[str, Any]) -> DiagnosisPart:
    gains = {name: (REPAIRS[name], said["attribution"]["gains"].get(name, {}).get("ap50")) for name in MAIN}
    return replace(
        part,
        sentences=(*verdict_sentences(said), _counted(said)),
        panels=(gains_panel(gains, said["metrics"][0]), *reliability(said, part.run.colour)),
        tables=(("Where boxes come from", _buckets(said)), ("Ranking and displacement", _ranking(said))),
        more=(("Every repair", _gains(said)), ("By distance", _distance(said)), ("By class", _classes(said))),
    )


def _of_refiner(part: DiagnosisPart, said: Mapping[str, Any]) -> DiagnosisPart:
    """A refiner emits a box for each coarse box: what it gains is mean IoU, and there are no cells."""
    r, c = said["refinement"], said["counts"]
    gains = {name: (REFINER[name], g["mean_iou"]) for name, g in said["gains"].items()}
    rows = [[REFINER[name], g["says"], estimate(g["mean_iou"], 3)] for name, g in said["gains"].items()]
    counted = (
        f"{said['images']} images of the split {said['split']}, {c['emitted']} coarse boxes that stand for an object; "
        f"mean IoU {r['iou_before']:.3f} before, {r['iou_after']:.3f} after, {r['iou_all_replaced']:.3f} with every "
        f"box replaced, {r['iou_best_of_both']:.3f} with the better box each time."
    )
    return replace(
        part,
        sentences=(*verdict_sentences(said), counted),
        panels=(gains_panel(gains, "mean IoU"),),
        tables=(("Every repair", Table(["Made true", "That is", "mean IoU"], rows)),),
    )


def verdict_sentences(said: Mapping[str, Any]) -> tuple[str, str]:
    """What the verdict says, and what would overturn it."""
    v = said["verdict"]
    return v["sentence"], f"What would change this: {v['overturn']}"


def _counted(said: Mapping[str, Any]) -> str:
    c = said["counts"]
    looked = said["assigner_looks_at_predictions"]
    how = {
        True: "chooses cells by what they emit, so that the control is the fairer judge",
        False: "looks at no output",
    }
    judge = "" if isinstance(looked, dict) else f"The assigner {how[looked]}. "
    return (
        f"{judge}{said['images']} images of the split {said.get('split', '')}, {c['objects']} objects, "
        f"{c['emitted']} boxes before suppression and {c['kept']} after it; compared by {said['likeness']}."
    )


def gains_panel(gains: Mapping[str, tuple[str, dict[str, Any] | None]], name: str) -> Panel:
    """Of every repair its words and what it gains of the figure ``name``, the largest first."""
    rows = [(words, g) for words, g in gains.values() if g is not None and g["value"] is not None]
    rows.sort(key=lambda row: float(row[1]["value"]), reverse=True)
    effects = []
    for words, g in rows:
        low, high = g["interval"] or (None, None)
        clear = 0 if low is None or high is None else int(low > 0) - int(high < 0)
        effects.append(Effect(words, g["value"], low, high, clear))
    title = f"What {name} would gain if one thing were true"
    return Panel(title, forest_panel(effects, title=title, x_label=f"gain in {name}"))


def reliability(said: Mapping[str, Any], c: int) -> list[Panel]:
    """The fit of detections against their score, in the colour ``c`` of the palette; none without detections."""
    curve = said["calibration"]["all"]
    if curve is None:
        return []
    bins = curve["bins"]

    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
        most = max(b["n"] for b in bins)
        x, y = [b["score"] for b in bins], [b["fit"] for b in bins]
        axes.plot(x, y, color=colour(c), linewidth=1.2)
        axes.scatter(x, y, s=[12 + 60 * b["n"] / most for b in bins], color=colour(c), zorder=3)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        ticks(axes)
        axes.set_xlabel("score (larger dots: more detections)")
        axes.set_ylabel(said["likeness"])

    title = "Reliability: what a score stands for"
    said_aloud = ", ".join(f"score {b['score']:.2f} fits {b['fit']:.2f}" for b in bins)
    note = f"Expected error {curve['error']:.3f}; scores are {with_minus(format(curve['bias'], '+.3f'))} too high."
    return [Panel(title, styled(draw, f"{title}: {said_aloud}", width=4.6, height=2.9), note)]


def _buckets(said: Mapping[str, Any]) -> Table:
    rows = []
    for owner, name in (("own", ""), ("control", " (control)")):
        for when in ("before", "after"):
            for bucket, b in said["buckets"].get(owner, {}).get(when, {}).items():
                spread = b["iou"]
                quartiles = (
                    "—" if spread["n"] == 0 else f"{spread['low']:.2f} {spread['median']:.2f} {spread['high']:.2f}"
                )
                rows.append(
                    [
                        f"{BUCKETS[bucket]}{name}",
                        f"{when} suppression",
                        str(spread["n"]),
                        quartiles,
                        _or_dash(b["score"]["median"]),
                        estimate(b["false"]),
                    ]
                )
    heads = ["Cell", "", "Boxes", "Fit: quartiles", "Median score", "False alarms"]
    return Table(heads, rows)


def _or_dash(value: float | None) -> str:
    return "—" if value is None else with_minus(f"{value:.2f}")


def _ranking(said: Mapping[str, Any]) -> Table:
    r, d = said["ranking"], said["displacement"]
    rows = [
        ["regret: fit of an object's best cell less that of its top-scored cell", estimate(r["regret"])],
        ["the top-scored cell is the best", estimate(r["top_is_best"])],
        [
            "distance of the scores near objects from those of the background (Kolmogorov-Smirnov)",
            _or_dash(r["separation"]),
        ],
        ["Spearman of score and fit within images", estimate(r["spearman"]["within"])],
        ["Kendall within images", estimate(r["kendall"]["within"])],
        ["Spearman, all images together", _or_dash(r["spearman"]["pooled"])],
    ]
    for side in ("unsupervised", "supervised"):
        if side in d:
            told = d[side]
            rows.append([f"kept boxes of {side} cells that drove out a better box of a supervised one",
                         f"{told['n']} of {told['kept']}: {estimate(told['share'])}"])  # fmt: skip
            rows.append([f"fit lost where that happens ({side})", estimate(told["lost"])])
    for name, told in said["gap"].items():
        who = "the assigner" if name == "own" else "the control"
        rows.append([f"supervised boxes fit better than others in objects, by {who}", estimate(told["plain"])])
        rows.append([f"the same of boxes that score alike, by {who}", estimate(told["matched"])])
    return Table(["", "Value"], rows)


def _gains(said: Mapping[str, Any]) -> Table:
    gains = said["attribution"]["gains"]
    rows = [[REPAIRS[k], g["says"], estimate(g["ap50"], 3), estimate(g["ap"], 3)] for k, g in gains.items()]
    return Table(["Made true", "That is", *said["metrics"]], rows)


def _distance(said: Mapping[str, Any]) -> Table:
    rows = []
    for row in said["by_distance"]:
        span = f"{row['low']:g} and more" if row["high"] is None else f"{row['low']:g} to {row['high']:g}"
        sides = [row["supervised"], row["inside"]]
        rows.append([span, *(f"{estimate(s)} ({s['n']})" for s in sides)])
    return Table(["Strides from the object's centre", "Fit, supervised (n)", "Fit, others in objects (n)"], rows)


def _classes(said: Mapping[str, Any]) -> Table:
    rows = [
        [
            name,
            str(c["objects"]),
            str(c["kept"]),
            str(c["hits"]),
            str(c["false"]),
            _or_dash(c["fit"]),
            estimate(c["regret"]),
            _or_dash(c["supervised"]),
        ]
        for name, c in said["per_class"].items()
    ]
    heads = ["Class", "Objects", "Kept", "Hits", "False", "Fit of hits", "Regret", "From supervised cells"]
    return Table(heads, rows)


def findings_table(said: Mapping[str, Any]) -> Table | None:
    """The rules that fired, a row each; None where none did."""
    rows = []
    for f in said["findings"]:
        evidence = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in f["evidence"].items())
        rows.append([f["severity"], f["title"], evidence, f["cause"], f["remedy"], f["source"]])
    heads = ["", "Finding", "Evidence", "Cause", "Remedy", "Seen in"]
    return Table(heads, rows) if rows else None


def _proof(said: Mapping[str, Any]) -> Table | None:
    told = said.get("proof")
    if not told:
        return None
    rows = []
    for name, f in told["figures"].items():
        means = [f[side]["mean"] for side in ("as_it_is", "remedy")]
        d = f["difference"]
        if d is None or any(m is None for m in means):
            continue
        span = "" if d["low"] is None else with_minus(f" [{d['low']:+.3f}, {d['high']:+.3f}]")
        rows.append([name, *(with_minus(f"{m:.3f}") for m in means), with_minus(f"{d['estimate']:+.3f}") + span])
    change = ", ".join(f"{k} {v}" for k, v in told["change"].items())
    return Table(
        [f"{change}: {told['seeds']} paired seeds, {told['steps']} steps", "As it is", "Remedy", "Change"], rows
    )
