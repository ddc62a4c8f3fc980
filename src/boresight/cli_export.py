"""The verb that exports a run."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from boresight.core.errors import UserError

Result = dict[str, Any]


def add_export_verb(verb: argparse.ArgumentParser, common: Callable[..., argparse.ArgumentParser]) -> None:
    """The options of `export`."""
    export = common(verb, _export)
    export.add_argument("run_folder", metavar="RUN")
    export.add_argument("--format", default="onnx", choices=["onnx", "torch_export"], help="default: %(default)s")
    export.add_argument("--out", help="the file (default: model.onnx, or model.pt2, in the run's folder)")
    export.add_argument("--which", default="last", choices=["last", "best"], help="the checkpoint")
    export.add_argument(
        "--features",
        choices=["inside", "given"],
        help="text: the frozen encoder is inside of the graph (default), or its features are inputs",
    )
    export.add_argument(
        "--queries", help="text: further queries whose embeddings go into the file, say `ship,red aircraft`"
    )
    export.add_argument("--frames", type=int, default=4, help="validation frames to check it on (default: %(default)s)")


def _export(args: argparse.Namespace, rest: list[str]) -> Result:
    from boresight.run.record import RunFolder

    if args.frames < 1:
        raise UserError(f"--frames {args.frames}: must be 1 or more: nothing is exported unchecked")
    run = RunFolder.existing(args.run_folder)
    from boresight.run.export import export_run
    from boresight.run.found_boxes import split_queries

    return export_run(
        run,
        form=args.format,
        out=Path(args.out) if args.out else None,
        which=args.which,
        features=args.features,
        queries=split_queries(args.queries) if args.queries is not None else (),
        frames=args.frames,
        quiet=args.json,
    )
