"""Diagnoses every run of a study and prints what it found as Markdown: `python experiments/diagnosed.py runs/STUDY`.

Each run is audited on its test images (``--split``); a run that was diagnosed on them before is not done again. Every
figure is the mean over seeds, with its standard deviation in brackets; ``--only`` names the variants.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from boresight.run.diagnose import diagnose_run
from boresight.run.record import RunFolder

Told = dict[str, Any]
BUCKETS = ("supervised", "inside", "background")
GAINS = ("threshold", "class", "box", "score", "assignment", "background")


def bucket(name: str, key: str, kind: str = "own", when: str = "before") -> Callable[[Told], float | None]:
    """A figure of the boxes of a bucket."""
    return lambda d: d["buckets"][kind][when].get(name, {}).get("iou", {}).get(key)


def gain(name: str, figure: str = "ap50") -> Callable[[Told], float | None]:
    """What a repair gains."""
    return lambda d: d["attribution"]["gains"].get(name, {}).get(figure, {}).get("value")


def gap(kind: str) -> Callable[[Told], float | None]:
    """How much better supervised boxes fit than others in objects, at equal scores."""
    return lambda d: (d["gap"].get(kind) or {}).get("matched", {}).get("value")


TABLES: dict[str, dict[str, Callable[[Told], float | None]]] = {
    "Boxes before suppression, by the cell that emits them": {
        **{f"n, {b}": bucket(b, "n") for b in BUCKETS},
        **{f"median IoU, {b}": bucket(b, "median") for b in BUCKETS},
        "gap at equal scores": gap("own"),
        "gap by the prediction-free control": gap("control"),
    },
    "After suppression, and what it did": {
        **{f"share, {b}": (lambda d, b=b: d["buckets"]["own"]["after"].get(b, {}).get("share")) for b in BUCKETS},
        "kept boxes of unsupervised cells that drove out a better supervised one": lambda d: d["displacement"][
            "unsupervised"
        ]["share"]["value"],
        "regret": lambda d: d["ranking"]["regret"]["value"],
        "P(top cell is best)": lambda d: d["ranking"]["top_is_best"]["value"],
    },
    "AP50, and what it would gain if one thing were made true": {
        "AP50": lambda d: d["attribution"]["ap50"]["value"],
        **{name: gain(name) for name in GAINS},
        "only supervised cells speak": gain("trained_cells"),
    },
    "AP, and what it would gain if one thing were made true": {
        "AP": lambda d: d["attribution"]["ap"]["value"],
        **{name: gain(name, "ap") for name in GAINS},
    },
}


def diagnosis(root: Path, split: str) -> Told:
    """The diagnosis of a run, made unless it is there."""
    run = RunFolder(root)
    if run.diagnosis.exists():
        told: Told = json.loads(run.diagnosis.read_text(encoding="utf-8"))
        if (told["split"], told["limit"], told["checkpoint"]) == (split, None, "last"):
            return told
    diagnose_run(run, split=split)
    return json.loads(run.diagnosis.read_text(encoding="utf-8"))


def cell(values: list[float | None]) -> str:
    """Mean and standard deviation of what is known; a dash where nothing is."""
    known = [v for v in values if v is not None]
    if not known:
        return "-"
    digits = 0 if min(abs(v) for v in known) >= 5 else 3
    spread = f" ({statistics.stdev(known):.{digits}f})" if len(known) > 1 else ""
    return f"{statistics.mean(known):.{digits}f}{spread}"


def main(study: Path, split: str, only: list[str]) -> None:
    """Print the tables."""
    roots: dict[str, list[Path]] = {}
    for done in sorted(study.glob("*/*/seed-*/done.json")):
        roots.setdefault(done.parent.parent.name, []).append(done.parent)
    if only:
        roots = {name: roots[name] for name in only}
    if not roots:
        raise SystemExit(f"{study}: no finished run; boresight compare experiments/{study.name}.yaml")
    told = {name: [diagnosis(root, split) for root in runs] for name, runs in roots.items()}
    for title, figures in TABLES.items():
        print(f"\n### {title}\n\n| variant | " + " | ".join(figures) + " |")
        print("| --- |" + " ---: |" * len(figures))
        for name, runs in told.items():
            print(f"| {name} | " + " | ".join(cell([read(run) for run in runs]) for read in figures.values()) + " |")
    print("\n### Verdicts, seed by seed\n\n| variant | word | runner-up |\n| --- | --- | --- |")
    for name, runs in told.items():
        words = [[str(run["verdict"][key]) for run in runs] for key in ("word", "runner_up")]
        print(f"| {name} | {', '.join(words[0])} | {', '.join(words[1])} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--split", default="test", choices=["train", "val", "test"])
    parser.add_argument("--only", nargs="+", default=[], metavar="VARIANT")
    main(**vars(parser.parse_args()))
