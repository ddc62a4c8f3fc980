"""The verb that exports a run, and `predict` with the file that it made."""

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


def predict_exported(args: argparse.Namespace) -> Result:
    """`predict` with an ONNX file; torch stays out."""
    from boresight.run.found_boxes import split_queries
    from boresight.run.onnx_model import OnnxModel
    from boresight.run.predict_onnx import predict_boxes, predict_points

    if args.checkpoint != "last":
        raise UserError(f"--checkpoint: {args.run_folder} holds one; export the other with --which {args.checkpoint}")
    model = OnnxModel.open(args.run_folder)
    overlays = Path(args.overlays) if args.overlays else None
    common: Result = {"threshold": args.threshold, "overlays": overlays, "quiet": args.quiet}
    if model.system == "point":
        if args.queries is not None:
            raise UserError(f"--queries: {model.path} holds a `point`, which finds points and takes no queries")
        if args.refine is not None:
            raise UserError(f"--refine: {model.path} holds a `point`, whose points have no boxes to tighten")
        return predict_points(model, args.images, Path(args.out), window=args.window, **common)
    if model.system == "refine":
        raise UserError(
            f"{model.path}: a `refine` finds nothing itself: predict TEXT.onnx IMAGES --refine {model.path}"
        )
    queries = split_queries(args.queries) if args.queries is not None else ()
    return predict_boxes(
        model,
        args.images,
        Path(args.out),
        queries=queries,
        window=args.window,
        refiner=_refiner(args),
        refine_threshold=args.refine_threshold,
        **common,
    )


def _refiner(args: argparse.Namespace) -> Any:
    """The file of `--refine`, or None."""
    from boresight.run.onnx_model import OnnxModel

    if args.refine is None:
        if args.refine_threshold is not None:
            raise UserError("--refine-threshold: nothing is refined; name a file with --refine")
        return None
    if args.refine_threshold is not None and not 0 <= args.refine_threshold <= 1:
        raise UserError(f"--refine-threshold {args.refine_threshold}: must be between 0 and 1")
    if Path(args.refine).suffix.lower() != ".onnx":
        raise UserError(f"--refine {args.refine}: with an exported file give one of a refiner: `boresight export` it")
    refiner = OnnxModel.open(args.refine)
    if refiner.system != "refine":
        raise UserError(f"--refine {args.refine}: holds a `{refiner.system}`; give a file of a run of `refine`")
    return refiner
