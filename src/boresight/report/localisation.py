"""The localisation part of a page, from ``evaluation.json``: verdict, ladder, floors and skill, controls, errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from boresight.core.errors import UserError
from boresight.report.box_panels import Dots, cells_panel, histogram_panel, rows_panel
from boresight.report.box_tables import Table
from boresight.report.curves import Panel
from boresight.report.figures import Line, with_minus
from boresight.report.reading import RunData

RUNGS = {
    "predicted_class": "class predicted, best-scored",
    "gt_class": "class given, best-scored",
    "top_k": "class given, five best-scored",
    "gt_centre": "cell at the object's centre",
    "one_to_one": "any cells, one to one",
    "oracle": "any cell, the best",
}
FLOORS = {
    "random": "random boxes",
    "mean_size": "boxes of mean size",
    "untrained": "untrained head",
    "shuffled": "another image's boxes",
    "cam_box": "box of the class map",
}
GAPS = {
    "classification": "classification: class given less class predicted",
    "ranking": "ranking: any cells, one to one, less best-scored",
    "ranking_at_centre": "ranking: cell at the centre less best-scored",
    "regression": "regression: 1 less any cells, one to one",
}
READINGS = {"gt_centre": "cell at the object's centre", "oracle": "best cell of the channel (an oracle)"}
ERRORS = {
    "iou": "IoU",
    "centre_strides": "centre, strides",
    "centre_relative": "centre / side",
    "size_strides": "size, strides",
    "size_relative": "size, relative",
    "size_bias": "too large (+) or small (−)",
}
CONFUSED = 24
"""Classes of a confusion table at most."""


@dataclass(frozen=True)
class Localisation:
    """The part of one run, ready for the template; ``note`` says why there is none.

    Attributes:
        run: the run.
        note: empty where there is a report.
        verdict: what it says, sentence by sentence, the verdict itself first.
        frozen: whether the frozen encoder is what it was.
        tables: the tables that are always open, ``(caption, table)``.
        panels: the drawings.
        more: tables that are folded away.
    """

    run: RunData
    note: str = ""
    verdict: tuple[str, ...] = ()
    frozen: str = ""
    tables: tuple[tuple[str, Table], ...] = ()
    panels: tuple[Panel, ...] = ()
    more: tuple[tuple[str, Table], ...] = ()


def localisation(run: RunData) -> Localisation:
    """The part of a run.

    Raises UserError when ``evaluation.json`` holds a report that this version cannot read.
    """
    said = (run.evaluation or {}).get("localisation")
    if not said:
        why = "not evaluated yet" if run.evaluation is None else "its evaluation holds no localisation report"
        return Localisation(run, f"{run.name}: {why}, so there is no ladder and no verdict.")
    try:
        return Localisation(
            run,
            verdict=_verdict(said),
            frozen=frozen_words(run),
            tables=(("Selection ladder", _ladder(said)), ("What each step costs", _gaps(said)), *_controls(said)),
            panels=_panels(said, run.colour),
            more=(*_floors(said), *_errors(said), _classes(said), *_confusion(said)),
        )
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(
            f"{run.name}: the localisation report in evaluation.json cannot be read ({error!r}); evaluate the run again"
        ) from error


def estimate(value: Mapping[str, Any], digits: int = 2) -> str:
    """``0.63 [0.61, 0.66]``, a dash where undefined."""
    if value["value"] is None:
        return "—"
    span = value["interval"]
    ends = f" [{_number(span[0], digits)}, {_number(span[1], digits)}]" if span else ""
    return _number(value["value"], digits) + ends


def _number(value: float, digits: int = 2) -> str:
    return with_minus(f"{value:.{digits}f}")


def frozen_words(run: RunData) -> str:
    """Whether the hash of the frozen encoder is the same before and after training and in the evaluation."""
    told = (run.done or {}).get("frozen") or {}
    states = [told.get("before"), told.get("after"), (run.evaluation or {}).get("frozen")]
    known = [s for s in states if s]
    if len(known) < 2:
        return "The hash of the frozen encoder is not recorded twice, so it cannot be compared."
    hashes = ", ".join(f"{name} {value}" for name, value in known[0].items())
    if all(s == known[0] for s in known):
        return f"The frozen encoder is unchanged: the same hash in {len(known)} records ({hashes})."
    return f"The frozen encoder has changed: {'; '.join(str(s) for s in known)}."


def _verdict(said: Mapping[str, Any]) -> tuple[str, ...]:
    v = said["verdict"]
    reading = RUNGS.get(v["reading"] or "", "no rung leaves room above its floor")
    figures = (
        f"Skill at IoU 0.5 ({reading}): {estimate(v['skill'])}; lost by ranking: {estimate(v['ranking_gap'])}; "
        f"lost by the class: {estimate(v['classification_gap'])}; {v['objects']} objects."
    )
    return (v["sentence"], figures, f"What would change this: {v['overturn']}")


def _ladder(said: Mapping[str, Any]) -> Table:
    rows = []
    for rung in said["ladder"]:
        name, floors = rung["floor_acc_50"], {f["name"]: f for f in rung["floors"]}
        floor = f"{estimate(floors[name]['acc_50'])}\n{FLOORS[name]}" if name else "—"
        figures = [rung["mean_iou"], rung["acc_50"]], [rung["skill_iou"], rung["skill_acc_50"]]
        rows.append([RUNGS[rung["name"]], *map(estimate, figures[0]), floor, *map(estimate, figures[1])])
    return Table(["Boxes chosen by", "Mean IoU", "IoU ≥ 0.5", "Strongest floor", "Skill, IoU", "Skill at 0.5"], rows)


def _floors(said: Mapping[str, Any]) -> list[tuple[str, Table]]:
    rows = []
    for rung in said["ladder"]:
        for f in rung["floors"]:
            figures = (f["mean_iou"], f["acc_50"], f["skill_iou"], f["skill_acc_50"])
            rows.append([RUNGS[rung["name"]], FLOORS[f["name"]], *map(estimate, figures)])
    heads = ["Boxes chosen by", "Floor", "Its mean IoU", "Its IoU ≥ 0.5", "Skill, IoU", "Skill at 0.5"]
    return [("Every chance floor of every rung", Table(heads, rows))]


def _gaps(said: Mapping[str, Any]) -> Table:
    rows = [[GAPS[g["name"]], *(estimate(g[k]) for k in ("mean_iou", "acc_50", "skill_acc_50"))] for g in said["gaps"]]
    return Table(["Step", "Mean IoU", "IoU ≥ 0.5", "Skill at 0.5"], rows)


def _controls(said: Mapping[str, Any]) -> list[tuple[str, Table]]:
    """The class map, the mirror test and the wrong channel."""
    mirror, cam, presence = said["mirror"], said["cam"], said["presence"]
    rows = [
        ["mirror test: true box, class of the highest mean score", estimate(mirror["top_1"])],
        ["the same, mean over classes", _or_dash(mirror["balanced"])],
        ["the same by chance", _number(mirror["chance"])],
        ["the same by always saying the most frequent class", _or_dash(mirror["majority"])],
        [f"presence AUC ({said['presence_from']})", _or_dash(presence["auc"])],
    ]
    if cam:
        rows += [
            [
                f"class map: peak in a box of its class ({cam['pairs']} pairs of image and class)",
                estimate(cam["pointing"]),
            ],
            ["class map: share of its sum inside the boxes", estimate(cam["energy"])],
            ["the same for a flat map", estimate(cam["area"])],
        ]
        rows += [
            [f"objects that a product with the map can bring above {c['threshold']:g}", estimate(c["recall"])]
            for c in cam["ceiling"]
        ]
    wrong = [
        [RUNGS[w["rung"]], *(estimate(w[k]) for k in ("own", "other", "difference"))] for w in said["wrong_channel"]
    ]
    tables = [("Controls and the frozen class map", Table(["", "Share"], rows))]
    heads = ["Boxes chosen by", "Own channel", "Another class's", "Difference"]
    return tables + ([("Mean IoU in the wrong channel", Table(heads, wrong))] if wrong else [])


def _or_dash(value: float | None) -> str:
    return "—" if value is None else _number(value)


def _panels(said: Mapping[str, Any], colour: int) -> tuple[Panel, ...]:
    ladder, plain, curve = said["ladder"], said["plain"], said["oracle_against_cells"]
    acc = [r["acc_50"] for r in ladder]
    spans = [a["interval"] or (None, None) for a in acc]
    dots = Dots("IoU 0.5 or more", [a["value"] for a in acc], colour, [s[0] for s in spans], [s[1] for s in spans])
    floors = [
        [(f["acc_50"]["value"], FLOORS[f["name"]]) for f in r["floors"] if f["acc_50"]["value"] is not None]
        for r in ladder
    ]
    title = "The selection ladder and its chance floors"
    panels = [
        Panel(
            title,
            rows_panel(
                [RUNGS[r["name"]] for r in ladder],
                [dots],
                title=title,
                x_label="share with IoU 0.5 or more (strokes: floors)",
                marked=floors,
            ),
        ),
        Panel("Best cell of the true class", histogram_panel(plain["histogram"], (0.3, 0.5, 0.7), c=colour)),
    ]
    if curve:
        cells = [c["cells"] for c in curve]
        lines = [
            Line("this run", cells, [c["mean_iou"]["value"] for c in curve], colour),
            Line("random boxes", cells, [c["floor_mean_iou"]["value"] for c in curve], -1),
        ]
        panels.append(Panel("The oracle grows with the number of cells", cells_panel(lines)))
    return tuple(panels)


def _errors(said: Mapping[str, Any]) -> list[tuple[str, Table]]:
    tables = []
    for table in said["errors"]:
        rows = [["all", str(table["overall"]["iou"]["n"]), *_error_cells(table["overall"])]]
        for b in table["by_size"]:
            end = "and more" if b["high"] is None else f"to {b['high']:g}"
            rows.append([f"{b['low']:g} {end} cells", str(b["n"]), *_error_cells(b["errors"])])
        rows += [[c["name"], str(c["n"]), *_error_cells(c["errors"])] for c in table["per_class"]]
        heads = ["Objects by size and by class", "n", *ERRORS.values()]
        tables.append((f"Errors of the boxes: {READINGS[table['reading']]}", Table(heads, rows)))
    return tables


def _error_cells(errors: Mapping[str, Any]) -> list[str]:
    return [estimate(errors[k]) for k in ERRORS]


def _classes(said: Mapping[str, Any]) -> tuple[str, Table]:
    plain = said["plain"]
    keys = ("best_iou", "best_acc_50", "gt_class_acc_50", "gt_centre_iou")
    rows = [[c["name"], str(c["n"]), *(estimate(c[k]) for k in keys)] for c in plain["per_class"]]
    heads = ["Class", "n", "Best cell, IoU", "Best cell, IoU ≥ 0.5", "Best-scored, IoU ≥ 0.5", "Centre cell, IoU"]
    return "By class", Table(heads, rows)


def _confusion(said: Mapping[str, Any]) -> list[tuple[str, Table]]:
    names: Sequence[str] = said["classes"]
    if len(names) > CONFUSED:
        return []
    rows = [
        [name, *(str(n) if n else "·" for n in row)]
        for name, row in zip(names, said["mirror"]["confusion"], strict=True)
    ]
    return [("Mirror test: truth (rows) against prediction", Table(["", *names], rows))]
