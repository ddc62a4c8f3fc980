"""The command line. Nothing heavy is imported before the arguments are known to be right.

Exit status: 0 success, 2 a mistake in what was given (one line names it and the remedy), 1 a failure, 130 stopped by
Ctrl-C (a run that was training is left so that ``--resume`` continues it).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from boresight import __version__
from boresight.cli_cache import add_cache_verbs
from boresight.cli_data import add_data_verbs
from boresight.cli_diagnose import add_diagnose_verb
from boresight.cli_export import add_export_verb
from boresight.cli_predict import add_predict_verb, add_refine_verb
from boresight.core.errors import Failure, Stopped, UserError, did_you_mean
from boresight.run.rank import is_first

Result = dict[str, Any]


class _Parser(argparse.ArgumentParser):
    """Raises UserError instead of printing usage and exiting."""

    def error(self, message: str) -> NoReturn:
        raise UserError(_with_neighbour(message))


def _with_neighbour(message: str) -> str:
    """argparse's message, with the nearest valid choice."""
    if "invalid choice: '" in message:
        word = message.split("invalid choice: '")[1].split("'")[0]
        choices = [c.strip(" ')") for c in message.rsplit("choose from", 1)[-1].split(",")]
        return f"`{word}`{did_you_mean(word, choices)} (known: {', '.join(choices)})"
    return f"{message}; see --help"


def build_parser() -> argparse.ArgumentParser:
    """The verbs and their options."""
    parser = _Parser(
        prog="boresight", description="Train dense detectors with sparse labels, and find out why one fails."
    )
    parser.add_argument("--version", action="version", version=f"boresight {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=_Parser)

    def verb(name: str, run: Callable[..., Result], text: str) -> argparse.ArgumentParser:
        return _common(verbs.add_parser(name, help=text, description=text), run)

    quick = verb("quickstart", _quickstart, "train side by side on made images, compare, and write report.html")
    known = "point (default): three ways to label dim points; text, refine: both recipes of that system"
    quick.add_argument("system", nargs="?", default="point", choices=["point", "text", "refine"], help=known)
    where = "folder (default: runs/quickstart, runs/quickstart-text, ...; a free name is chosen)"
    quick.add_argument("--out", help=where)
    quick.add_argument("--seed", type=int, default=0)

    _train_options(verb("train", _train, "train a detector; `boresight train point --print_config` shows every key"))
    text = "judge a run on a split, at the threshold frozen on its validation frames"
    _evaluate_options(verb("evaluate", _evaluate, text))

    text = "find targets, or what --queries ask for, in images; write CSV and COCO JSON"
    add_predict_verb(verbs.add_parser("predict", help=text, description=text), _common)

    text = "tighten the boxes of a COCO file; writes the file anew and a page of what moved"
    add_refine_verb(verbs.add_parser("refine", help=text, description=text), _common)

    text = "say why a detector fails: a run of ours, or anybody's detections"
    add_diagnose_verb(verbs.add_parser("diagnose", help=text, description=text), _common)

    text = "write a run to one file that needs none of its code, checked against PyTorch"
    add_export_verb(verbs.add_parser("export", help=text, description=text), _common)

    compare = verb("compare", _compare, "train variants x seeds of a study and compare them in pairs")
    compare.add_argument("study", metavar="STUDY.yaml")
    compare.add_argument("--seeds", type=int, help="seeds (default: the study's)")
    compare.add_argument("--only", nargs="+", metavar="DATASET", help="of the study's data sets, these")
    compare.add_argument("--runs", default="runs", help="where run folders go (default: %(default)s)")
    compare.add_argument("--jobs", type=int, help="runs at a time (default: one for each CPU)")

    report = verb("report", _report, "write report.html of a run or of a comparison")
    report.add_argument("folder", metavar="RUN")
    report.add_argument("--open", action="store_true", help="open it in the browser")
    report.add_argument(
        "--map-seconds",
        type=float,
        default=60.0,
        help="of a run: how long class maps and targets of its images may be computed; 0: none (default: %(default)g)",
    )

    cache = verbs.add_parser("cache", help="fill a feature store, look at it, check it, tidy it up")
    add_cache_verbs(cache.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=_Parser), _common)

    data = verbs.add_parser("data", help="make, check or convert data")
    add_data_verbs(data.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=_Parser), _common)
    return parser


def _train_options(train: argparse.ArgumentParser) -> None:
    train.add_argument("detector", choices=["point", "text", "localise", "refine"], help="the system to train")
    train.add_argument("--runs", default="runs", help="where run folders go (default: %(default)s)")
    train.add_argument("--name", help="name of the run folder (default: the configuration's name, or the detector's)")
    train.add_argument("--resume", metavar="RUN", help="continue that run")
    train.add_argument("--fast", action="store_true", help="refine: a tenth of the images (data.sample_ratio 0.1)")
    train.add_argument("--debug", action="store_true", help="refine: 100 images (data.max_images 100)")
    train.add_argument(
        "--clear-cache",
        action="store_true",
        help="refine: first clear what features.store_folder holds of this encoder",
    )


def _evaluate_options(evaluate: argparse.ArgumentParser) -> None:
    evaluate.epilog = (
        "--data.KEY VALUE judges other frames, say --data.root DIR --data.test SPLIT (`*`: all of it); of `refine` "
        "also --coarse.KEY and --decode.KEY: --coarse.test_file FOUND.json judges what it makes of a detector's boxes"
    )
    evaluate.add_argument("run_folder", metavar="RUN")
    evaluate.add_argument("--split", default="test", choices=["train", "val", "test"])
    evaluate.add_argument("--limit", type=int, help="judge the first N frames only")
    evaluate.add_argument("--checkpoint", default="last", choices=["last", "best"])


def _common(added: argparse.ArgumentParser, run: Callable[..., Result]) -> argparse.ArgumentParser:
    """What every verb has."""
    added.set_defaults(run=run, parser=added)
    added.add_argument("--json", action="store_true", help="end with one line of JSON on stdout")
    added.add_argument("--quiet", action="store_true", help="no progress")
    return added


def _options(args: argparse.Namespace) -> list[str]:
    """The options of the verb that was given."""
    return re.findall(r"--[\w-]+", args.parser.format_usage())


def _quickstart(args: argparse.Namespace, rest: list[str]) -> Result:
    if args.system == "text":
        from boresight.report.quickstart_text import quickstart_text

        return quickstart_text(Path(args.out or "runs/quickstart-text"), seed=args.seed, quiet=args.quiet)
    if args.system == "refine":
        from boresight.report.quickstart_refine import quickstart_refine

        return quickstart_refine(Path(args.out or "runs/quickstart-refine"), seed=args.seed, quiet=args.quiet)
    from boresight.report.quickstart import quickstart

    return quickstart(Path(args.out or "runs/quickstart"), seed=args.seed, quiet=args.quiet)


def _train(args: argparse.Namespace, rest: list[str]) -> Result:
    from boresight.run.parse import parse_settings
    from boresight.run.record import RunFolder
    from boresight.run.systems import SETTINGS, read_settings

    prog = f"boresight train {args.detector}"
    run = None
    rest = [*_shortcuts(args), *rest]
    if args.resume:
        if rest:
            raise UserError(f"--resume continues a run with its own settings; drop `{rest[0]}`, or train a new run")
        run = RunFolder.existing(args.resume)
        settings = read_settings(run.config)
        if settings.detector != args.detector:
            raise UserError(f"{run.root}: a run of `{settings.detector}`: boresight train {settings.detector} --resume")
    else:
        settings = parse_settings(SETTINGS[args.detector], rest, prog=prog)  # --print_config prints and exits
        named = [
            w.partition("=")[2] or after for w, after in pairwise([*rest, ""]) if w.partition("=")[0] == "--config"
        ]
        name = args.name or (Path(named[-1]).stem if named else args.detector)
    if args.clear_cache:
        _clear_cache(settings.features)
    from boresight.run.processes import fresh_run
    from boresight.run.recipes import recipe
    from boresight.run.train import train

    fresh = run is None
    run = run or fresh_run(args.runs, name)
    kind = recipe(args.detector)
    try:
        summary = train(kind, settings, run.root, quiet=args.quiet)
    except UserError:
        if fresh and not run.checkpoints.exists():
            run.discard()
        raise
    if not args.json and is_first():
        score, threshold = summary["validation"][kind.monitor], summary["threshold"]
        name = kind.monitor.upper() if kind.monitor != "f1" else "F1"
        found = "no target found" if score is None else f"{name} {score:.3f} at threshold {threshold:.3f}"
        print(f"{run.root}: {found} on the validation frames; next: boresight evaluate {run.root}")
    return summary


def _shortcuts(args: argparse.Namespace) -> list[str]:
    """What the short options of `refine` stand for; they come first, so that keys override them."""
    words = {
        "--fast": ["--data.sample_ratio", "0.1"] if args.fast else [],
        "--debug": ["--data.max_images", "100"] if args.debug else [],
    }
    given = [name for name, stands in words.items() if stands] + (["--clear-cache"] if args.clear_cache else [])
    if given and args.detector != "refine":
        raise UserError(f"{given[0]}: only `refine` has it; drop it, or train refine")
    return [word for stands in words.values() for word in stands]


def _clear_cache(features: Any) -> None:
    """Take away what the run's feature store holds of its encoder."""
    from boresight.run.frames import expanded

    if features.store != "disk" or not features.store_folder:
        raise UserError("--clear-cache: features are kept in memory; set features.store disk and features.store_folder")
    folder = expanded(features.store_folder, "features.store_folder")
    if folder.exists():
        from boresight.run.feature_parts import forget

        forget(features)


def _evaluate(args: argparse.Namespace, rest: list[str]) -> Result:
    from boresight.run.parse import overrides
    from boresight.run.record import RunFolder
    from boresight.run.systems import SETTINGS, read_settings

    config = Path(args.run_folder) / "config.yaml"
    # a misspelt option is told before a missing run
    kind = type(read_settings(config)) if config.is_file() else SETTINGS["point"]
    groups = ("data", "coarse", "decode") if kind is SETTINGS["refine"] else ("data",)
    changed = overrides(kind, groups, rest, _options(args))
    data = changed.pop("data", None)
    run = RunFolder.existing(args.run_folder)
    from boresight.run.evaluate import evaluate_run, last_line
    from boresight.run.recipes import recipe

    figures = evaluate_run(
        run,
        split=args.split,
        limit=args.limit,
        which=args.checkpoint,
        data=data,
        changed=changed or None,
        quiet=args.quiet,
    )
    if not args.json and is_first():
        print(recipe(read_settings(config).detector).summary(figures))
    return last_line(figures)


def _compare(args: argparse.Namespace, rest: list[str]) -> Result:
    from boresight.run.study import read_study

    study = read_study(Path(args.study), seeds=args.seeds, only=args.only)
    from boresight.report.comparison import write_comparison
    from boresight.run.compare import run_study

    folder = Path(args.runs) / study.name
    comparison = run_study(study, folder, jobs=args.jobs, quiet=args.quiet)
    report = write_comparison(folder)
    if not args.json:
        print((folder / "comparison.md").read_text(encoding="utf-8"))
    return {"study": study.name, "folder": str(folder), "report": str(report), **comparison}


def _report(args: argparse.Namespace, rest: list[str]) -> Result:
    folder = Path(args.folder)
    if not args.map_seconds >= 0:
        raise UserError(f"--map-seconds {args.map_seconds}: must be 0 or more")
    from boresight.run.record import RunFolder

    if not (folder / "comparison.json").is_file():
        RunFolder.existing(folder)  # what is no run is told before anything is loaded
    from boresight.report.browser import Making

    making = Making(args.quiet, args.map_seconds)
    if (folder / "comparison.json").is_file():
        from boresight.report.comparison import write_comparison

        path = write_comparison(folder, making=making)
    else:
        from boresight.report.html import write_report

        run = RunFolder(folder)
        path = write_report([run], run.report, making=making)
    if args.open:
        import webbrowser

        if not webbrowser.open(path.resolve().as_uri()):
            print(f"boresight: no browser could be started here; open {path} yourself", file=sys.stderr)
    if not args.json:
        print(path)
    return {"report": str(path)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    try:
        parser = build_parser()
        args, rest = parser.parse_known_args(arguments)
        if rest and args.verb not in ("train", "evaluate"):
            near = did_you_mean(rest[0], _options(args)) or f"; see `{args.parser.prog} --help`"
            raise UserError(f"unknown argument `{rest[0]}`{near}")
        result = args.run(args, rest)
    except UserError as error:
        print(f"boresight: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("boresight: stopped", file=sys.stderr)
        return 130
    except Failure as error:
        print(f"boresight: {error}", file=sys.stderr)
        return 1
    except Stopped as stopped:
        print(f"boresight: {stopped}", file=sys.stderr)
        return 130
    status = result.pop("_status", 0)
    if args.json and is_first():  # of several processes (torchrun) the first one speaks
        print(json.dumps(result, allow_nan=False))
    return int(status)


if __name__ == "__main__":
    raise SystemExit(main())
