"""Plants faults in real trainings and outputs, diagnoses each, and counts what is caught; clean runs must stay silent.

    python experiments/faults.py --out runs/faults

One process. Each result is a file of its own, written whole, so that the command goes on where it was stopped; `--only`
takes those whose name holds a word, `--clean 0` leaves the clean runs out. Prints the tables and writes them to
`OUT/faults.md`.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from planted import FAULTS
from planted.outputs import CLEAN, OUTPUT_FAULTS, Clean, output_verdict, train_good
from planted.outputs import FAULTS as WORDS
from planted.tables import as_markdown
from planted.tiny import LONG, SYSTEMS, Fault, trained

from boresight.core.errors import UserError
from boresight.diagnose.rule import Health
from boresight.features.clip_load import load_clip
from boresight.run.diagnose import diagnose_run
from boresight.run.diagnose_refine import diagnose_refiner
from boresight.run.health import run_health
from boresight.run.recipe import Recipe
from boresight.run.record import RunFolder, write_json, write_text
from boresight.run.systems import read_settings

IMAGES = 32
"""Validation images of a tiny run: enough for a verdict."""
LOOKS_UP = ("predict", "health", "diagnose", "diagnose_refine")
"""Modules of `boresight.run` that look a system up by name."""


class WholeDiagnosis:
    """Examines a run as `boresight diagnose` does, by the program that has the fault. Keeps the word of the verdict."""

    def __init__(self) -> None:
        self.word = ""

    def __call__(self, run: RunFolder, kind: Recipe | None, probe: bool) -> Health:
        """The rules of a run, and in passing its verdict; one that ended in a failure has rules alone."""
        if not run.done.is_file():
            return run_health(run, kind=kind)
        with ExitStack() as stack:
            if kind is not None:
                for module in LOOKS_UP:
                    stack.enter_context(patch(f"boresight.run.{module}.recipe", lambda name: kind))
            try:
                return self.diagnosed(run)
            except (ValueError, UserError, RuntimeError) as error:  # told in the table as it is
                self.word = f"ended in {type(error).__name__}: {str(error).splitlines()[0]}"
                return run_health(run, probe=True, kind=kind)

    def diagnosed(self, run: RunFolder) -> Health:
        """The rules of a finished run, and in passing its verdict."""
        refiner = read_settings(run.config).detector == "refine"
        told: Any = (diagnose_refiner if refiner else diagnose_run)(run, bootstrap=200)
        self.word = told.diagnosis.verdict.word
        return told.health


def fired(health: Health) -> list[dict[str, str]]:
    """The findings, the gravest first, notes included."""
    return [{"rule": f.id, "severity": f.severity, "title": f.title} for f in health.findings]


def of_fault(fault: Fault, folder: Path) -> dict[str, Any]:
    """Plant a fault in a training and diagnose the run."""
    examine = WholeDiagnosis()
    found = fired(fault.health(folder, examine))
    told = {"what": fault.what, "system": fault.system, "expected": list(fault.rules), "word": fault.word}
    return told | {"fired": found, "verdict": examine.word}


def of_control(system: str, keys: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The tiny run without a fault: what fires here says nothing about one."""
    examine = WholeDiagnosis()
    found = fired(trained(folder, system, keys, examine=examine))
    return {"system": system, "steps": keys.get("train.steps", 24), "fired": found, "verdict": examine.word}


def of_output(system: str, fault: str | None, run: RunFolder) -> dict[str, Any]:
    """Plant a fault into what a trained detector emits."""
    word, sentence = output_verdict(run, fault)
    expected = "" if fault is None else WORDS[fault]  # type: ignore[index]
    return {"system": system, "fault": fault, "word": expected, "verdict": word, "sentence": sentence}


def of_clean(clean: Clean, folder: Path) -> dict[str, Any]:
    """Train a clean run and diagnose it."""
    examine = WholeDiagnosis()
    found = fired(examine.diagnosed(clean.train(folder)))
    return {"system": clean.system, "fired": found, "verdict": examine.word}


Work = tuple[str, str, Callable[[Path], dict[str, Any]]]


def everything(out: Path, clean: int) -> Iterator[Work]:
    """Part, name and work of every result, in the order of the tables."""
    for system in SYSTEMS:
        for name, keys in {"tiny": {}, "longer": LONG}.items():
            yield "control", f"{system} {name}", lambda f, s=system, k=keys: of_control(s, k, f)  # type: ignore[misc]
    for fault in FAULTS:
        yield "training", fault.name, lambda f, x=fault: of_fault(x, f)  # type: ignore[misc]
    for system, faults in OUTPUT_FAULTS.items():
        good = out / "good" / system
        for name in (None, *faults):
            yield (
                "output",
                f"{system} {name or 'as it is'}",
                lambda f, s=system, n=name, g=good: of_output(s, n, train_good(s, g)),  # type: ignore[misc]
            )
    for one in CLEAN[:clean]:
        yield "clean", one.name, lambda f, c=one: of_clean(c, f)  # type: ignore[misc]


@contextmanager
def one_clip() -> Iterator[None]:
    """The shipped encoder, read from its file once."""
    clip = load_clip("boresight-aerial")
    with patch("boresight.run.text_parts.load_clip", lambda name, weights=None, **more: clip):
        yield


def collect(out: Path, *, only: list[str], clean: int) -> list[dict[str, Any]]:
    """Make every result that is missing (of those asked for), and return all that are there."""
    results = []
    for part, name, work in everything(out, clean):
        file = out / "results" / f"{part}-{re.sub(r'[^a-z0-9]+', '-', name.lower())}.json"
        asked = not only or any(word in f"{part} {name}" for word in only)
        if asked and not file.is_file():
            folder = out / "work"
            shutil.rmtree(folder, ignore_errors=True)
            began = time.monotonic()
            told = {"part": part, "name": name} | work(folder) | {"seconds": round(time.monotonic() - began, 1)}
            write_json(file, told)
            shutil.rmtree(folder, ignore_errors=True)
            print(f"{told['seconds']:6.1f} s  {part:<9} {name:<34} {told['verdict']}", flush=True)
        if file.is_file():
            results.append(json.loads(file.read_text(encoding="utf-8")))
    return results


def main() -> int:
    """Collect, tell, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/faults"))
    parser.add_argument("--only", action="append", default=[], metavar="WORD", help="results whose name holds it")
    parser.add_argument("--clean", type=int, default=len(CLEAN), help="clean runs (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for _, _, keys in SYSTEMS.values():
        keys["data.val_frames"] = IMAGES
    with one_clip():
        results = collect(args.out, only=args.only, clean=args.clean)
    table = as_markdown(results)
    write_text(args.out / "faults.md", table + "\n")
    print(f"\n{table}\n\n{args.out / 'faults.md'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
