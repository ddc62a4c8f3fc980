"""The verbs that use a run on images: `predict`, and `refine` for the boxes of a COCO file."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from boresight.core.errors import UserError

Result = dict[str, Any]


def add_predict_verb(verb: argparse.ArgumentParser, common: Callable[..., argparse.ArgumentParser]) -> None:
    """The options of `predict`."""
    predict = common(verb, _predict)
    predict.add_argument("run_folder", metavar="RUN", help="a run, or a file of `export --format onnx`")
    predict.add_argument("images", nargs="+", metavar="IMAGES", help="files, folders or patterns")
    predict.add_argument(
        "--out", default="predictions.json", help="COCO results; a CSV of the same name is written beside"
    )
    predict.add_argument("--queries", help="what to look for, say `ship,red aircraft` (default: the trained classes)")
    predict.add_argument(
        "--window", type=int, default=1024, help="look at larger images in overlapping windows of this side, pixels"
    )
    predict.add_argument("--threshold", type=float, help="instead of the one chosen on validation")
    predict.add_argument("--refine", metavar="RUN2", help="tighten the boxes with that run of `refine`")
    predict.add_argument(
        "--refine-threshold", type=float, help="confidence from which RUN2 replaces a box; 0 replaces all"
    )
    predict.add_argument("--overlays", metavar="DIR", help="also draw every frame with its detections")
    predict.add_argument("--checkpoint", default="last", choices=["last", "best"])


def add_refine_verb(verb: argparse.ArgumentParser, common: Callable[..., argparse.ArgumentParser]) -> None:
    """The options of `refine`."""
    refine = common(verb, _refine)
    refine.add_argument("--annotations", required=True, metavar="FILE", help="COCO boxes")
    refine.add_argument("--images", required=True, metavar="DIR", help="the folder of its images")
    refine.add_argument("--out", required=True, metavar="FILE", help="the COCO file with tighter boxes")
    refine.add_argument("--run", dest="refiner", required=True, metavar="RUN", help="a run of `refine`")
    refine.add_argument(
        "--threshold", type=float, help="confidence from which a box is replaced, instead of the run's own"
    )


def _predict(args: argparse.Namespace, rest: list[str]) -> Result:
    told = _found(args)
    if not told["detections"] and not args.json:
        count, files = told["images"], " and ".join(told[key] for key in ("out", "csv"))
        images = f"{count} image{'' if count == 1 else 's'}"
        print(f"{images}, 0 detections at threshold {told['threshold']:.3g} (--threshold changes it); wrote {files}")
    return told


def _found(args: argparse.Namespace) -> Result:
    from boresight.run.record import RunFolder

    exported = Path(args.run_folder).suffix.lower() == ".onnx"
    run = None if exported else RunFolder.existing(args.run_folder)
    _check_share("--threshold", args.threshold)
    if args.window < 64:
        raise UserError(f"--window {args.window}: must be 64 pixels or more")
    if run is None:
        return _found_by_file(args)
    from boresight.run.systems import read_settings

    kind = read_settings(run.config).detector
    if args.queries is not None and kind == "point":
        raise UserError(f"--queries: {run.root} is a run of `point`, which finds points and takes no queries")
    if kind == "refine":
        raise UserError(f"{run.root}: a run of `refine` finds nothing itself: predict RUN IMAGES --refine {run.root}")
    if args.refine is not None and kind == "point":
        raise UserError(f"--refine: {run.root} is a run of `point`, whose points have no boxes to tighten")
    overlays = Path(args.overlays) if args.overlays else None
    common: dict[str, Any] = {"threshold": args.threshold, "overlays": overlays, "which": args.checkpoint}
    if kind == "point":
        from boresight.run.predict import predict_images

        return predict_images(run, args.images, Path(args.out), window=args.window, quiet=args.quiet, **common)
    from boresight.run.predict_boxes import predict_boxes

    queries = _queries(args)
    refiner = RunFolder.existing(args.refine) if args.refine is not None else None
    _check_share("--refine-threshold", args.refine_threshold)
    if args.refine_threshold is not None and refiner is None:
        raise UserError("--refine-threshold: nothing is refined; name a run with --refine")
    return predict_boxes(
        run,
        args.images,
        Path(args.out),
        queries=queries,
        window=args.window,
        quiet=args.quiet,
        refiner=refiner,
        refine_threshold=args.refine_threshold,
        **common,
    )


def _queries(args: argparse.Namespace) -> tuple[str, ...]:
    from boresight.run.found_boxes import split_queries

    return split_queries(args.queries) if args.queries is not None else ()


def _check_share(option: str, value: float | None) -> None:
    if value is not None and not 0 <= value <= 1:
        raise UserError(f"{option} {value}: must be between 0 and 1")


def _found_by_file(args: argparse.Namespace) -> Result:
    """`predict` with an ONNX file; torch stays out."""
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
    return predict_boxes(
        model,
        args.images,
        Path(args.out),
        queries=_queries(args),
        window=args.window,
        refiner=_refiner_file(args),
        refine_threshold=args.refine_threshold,
        **common,
    )


def _refiner_file(args: argparse.Namespace) -> Any:
    """The file of `--refine`, or None."""
    from boresight.run.onnx_model import OnnxModel

    if args.refine is None:
        if args.refine_threshold is not None:
            raise UserError("--refine-threshold: nothing is refined; name a file with --refine")
        return None
    _check_share("--refine-threshold", args.refine_threshold)
    if Path(args.refine).suffix.lower() != ".onnx":
        raise UserError(f"--refine {args.refine}: with an exported file give one of a refiner: `boresight export` it")
    refiner = OnnxModel.open(args.refine)
    if refiner.system != "refine":
        raise UserError(f"--refine {args.refine}: holds a `{refiner.system}`; give a file of a run of `refine`")
    return refiner


def _refine(args: argparse.Namespace, rest: list[str]) -> Result:
    from boresight.run.record import RunFolder

    _check_share("--threshold", args.threshold)
    run = RunFolder.existing(args.refiner)
    from boresight.report.sloppy import refine_annotations

    result = refine_annotations(
        Path(args.annotations),
        Path(args.images),
        Path(args.out),
        run=run,
        threshold=args.threshold,
        quiet=args.quiet,
    )
    if not args.json:
        print(f"{result['replaced']} of {result['boxes']} boxes replaced; {result['out']}; {result['report']}")
    return result
