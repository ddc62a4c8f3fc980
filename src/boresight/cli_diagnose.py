"""The verb ``boresight diagnose``: why a detector fails, from a run of ours or from anybody's detections."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from boresight.core.errors import UserError
from boresight.diagnose.finding import SEVERITIES

Result = dict[str, Any]
Common = Callable[[argparse.ArgumentParser, Callable[..., Result]], argparse.ArgumentParser]


def add_diagnose_verb(parser: argparse.ArgumentParser, common: Common) -> None:
    """Add the options; ``common`` gives the verb what every verb has."""
    verb = common(parser, _diagnose)
    verb.add_argument("run_folder", nargs="?", metavar="RUN", help="a run of ours")
    verb.add_argument(
        "--annotations", metavar="FILE", help="instead of a run: COCO truth, of any detector, or a table (.parquet)"
    )
    verb.add_argument("--predictions", metavar="FILE", help="with --annotations: COCO results, or a table (.parquet)")
    verb.add_argument("--threshold", type=float, help="with --annotations: the score from which detections are used")
    verb.add_argument("--out", metavar="FILE", help="with --annotations: where diagnosis.json goes")
    verb.add_argument("--report", metavar="FILE", help="with --annotations: where a page goes, report.html say")
    verb.add_argument("--images", metavar="DIR", help="with --report: the folder of the images, to look through them")
    verb.add_argument("--split", default="val", choices=["train", "val", "test"], help="(default: %(default)s)")
    verb.add_argument("--limit", type=int, help="audit the first N images only")
    verb.add_argument("--checkpoint", default="last", choices=["last", "best"])
    verb.add_argument("--prove", action="store_true", help="train with and without the first remedy, and compare")
    verb.add_argument("--seeds", type=int, default=3, help="with --prove: paired trainings (default: %(default)s)")
    verb.add_argument("--steps", type=int, help="with --prove: of each training (default: the run's, 300 at most)")
    verb.add_argument("--jobs", type=int, help="with --prove: trainings at a time (default: one for each CPU)")
    verb.add_argument(
        "--fail-on",
        choices=SEVERITIES,
        help="exit with 1 if a finding is as grave as this, or graver (for CI); with --annotations a verdict "
        "that names a fault counts as a warning",
    )


def _diagnose(args: argparse.Namespace, rest: list[str]) -> Result:
    files = args.annotations is not None or args.predictions is not None
    if files == (args.run_folder is not None):
        raise UserError("diagnose: give a run, or --annotations GT.json --predictions FOUND.json")
    if args.prove and files:
        raise UserError("--prove: detections cannot be trained again; give a run")
    for name in ("threshold", "out", "report", "images"):
        if getattr(args, name) is not None and not files:
            raise UserError(f"--{name}: of a run it is known; drop it")
    if args.threshold is not None and not 0 <= args.threshold <= 1:
        raise UserError(f"--threshold {args.threshold}: must be between 0 and 1")
    return _of_files(args) if files else _of_run(args)


def _of_run(args: argparse.Namespace) -> Result:
    from boresight.run.record import RunFolder

    run = RunFolder.existing(args.run_folder)
    from boresight.run.systems import read_settings

    told = _told(args, run, read_settings(run.config).detector)
    result = {"run": str(run.root), "split": args.split, **told}
    if args.prove:
        result["proof"] = _proof(args, told["remedies"])
    return {**result, "_status": _status(args.fail_on, result["findings"])}


def _told(args: argparse.Namespace, run: Any, kind: str) -> Result:
    """Diagnose, print what a person reads, and return the figures of the last line."""
    common: dict[str, Any] = {"split": args.split, "limit": args.limit, "which": args.checkpoint, "quiet": args.quiet}
    if kind == "refine":
        from boresight.run import diagnose_refine as refine

        refiner = refine.diagnose_refiner(run, **common)
        text, line = refine.summary(refiner), refine.last_line(refiner)
    else:
        from boresight.run import diagnose as cells

        told = cells.diagnose_run(run, **common)
        text, line = cells.summary(told), cells.last_line(told)
    if not args.json:
        print(f"{text}\n\n{run.diagnosis}")
    return line


def _proof(args: argparse.Namespace, remedies: list[dict[str, Any]]) -> Result | None:
    """What the first remedy does in a paired training; None where there is none to prove."""
    if not remedies:
        if not args.json:
            print("\nnothing to prove: no remedy is known for this verdict")
        return None
    from boresight.run.prove import proof_lines, prove
    from boresight.run.record import RunFolder, add_to_json

    run = RunFolder(args.run_folder)
    told = prove(run, remedies[0]["change"], seeds=args.seeds, steps=args.steps, jobs=args.jobs, quiet=args.quiet)
    add_to_json(run.diagnosis, {"proof": told})
    if not args.json:
        print(f"\n{proof_lines(told)}")
    return told


def _of_files(args: argparse.Namespace) -> Result:
    for name in ("annotations", "predictions"):
        if getattr(args, name) is None:
            raise UserError(f"--{name} is missing: files are diagnosed in pairs")
    if args.fail_on == SEVERITIES[-1]:
        raise UserError("--fail-on error: what files show is a warning at most; use --fail-on warning")
    if args.images is not None and args.report is None:
        raise UserError("--images: they are for the page; name it with --report FILE")
    if args.report is not None and args.annotations.lower().endswith(".parquet"):
        raise UserError("--report: of tables there is no page; give COCO JSON files")
    for name in ("out", "report"):
        if getattr(args, name) is not None and Path(getattr(args, name)).is_dir():
            raise UserError(f"--{name} {getattr(args, name)}: is a folder; name a file")
    from boresight.run.diagnose_files import diagnose_files, last_line, summary
    from boresight.run.record import write_json

    told = diagnose_files(Path(args.annotations), Path(args.predictions), threshold=args.threshold)
    if args.report is not None:  # before the figures: an image that cannot be read leaves nothing behind
        from boresight.report.files_page import write_files_page

        images = None if args.images is None else Path(args.images)
        write_files_page(Path(args.report), told.to_dict(), Path(args.annotations), Path(args.predictions), images)
    if args.out is not None:
        write_json(Path(args.out), told.to_dict())
    if not args.json:
        print(summary(told))
    line = last_line(told)
    faulty = line["verdict"]["word"] not in ("healthy", "too few to tell")
    return {**line, "_status": int(faulty and args.fail_on is not None)}


def _status(fail_on: str | None, findings: list[dict[str, Any]]) -> int:
    """1 where a finding is as grave as ``fail_on``."""
    if fail_on is None:
        return 0
    least = SEVERITIES.index(fail_on)
    return int(any(SEVERITIES.index(f["severity"]) >= least for f in findings))
