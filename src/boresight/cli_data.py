"""The verbs of ``boresight data``: make, check and convert data sets."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from boresight.core.errors import UserError

Result = dict[str, Any]
Common = Callable[[argparse.ArgumentParser, Callable[..., Result]], argparse.ArgumentParser]

POINT_KINDS = ("sirst", "csv", "images")
BOX_KINDS = ("voc", "yolo")


def add_data_verbs(actions: Any, common: Common) -> None:
    """Add `synth`, `check` and `convert`; ``common`` gives a verb what every verb has."""
    synth = common(actions.add_parser("synth", help="write made frames: dim points, or aerial scenes"), _synth)
    synth.add_argument("out", metavar="DIR")
    synth.add_argument("--kind", default="skyfield", choices=["skyfield", "aerial"], help="(default: %(default)s)")
    synth.add_argument("--preset", default="default", help="skyfield: white, easy, default or hard")
    synth.add_argument("--size", type=int, default=256, help="aerial: pixels a side (default: %(default)s)")
    synth.add_argument("--to", default="coco", help="aerial: coco, voc or yolo")
    synth.add_argument("--count", type=int, default=100)
    synth.add_argument("--seed", type=int, default=0)

    check = common(actions.add_parser("check", help="list what is wrong with a data set, file by file"), _check)
    check.add_argument("root", metavar="DIR")
    check.add_argument("--splits", nargs="+", default=[], metavar="SPLIT", help="names or files (default: all frames)")
    check.add_argument("--kind", default="auto", choices=["auto", *POINT_KINDS, "coco", *BOX_KINDS])
    check.add_argument(
        "--detector",
        choices=["point", "text", "localise"],
        help="read labels as it does: COCO boxes are points to `point` (default: what the folder holds)",
    )

    convert = common(actions.add_parser("convert", help="write a data set of boxes in another form"), _convert)
    convert.add_argument("root", metavar="DIR")
    convert.add_argument("out", metavar="OUT")
    convert.add_argument("--to", required=True, help="coco, voc or yolo")
    convert.add_argument("--splits", nargs="+", default=["train"], metavar="SPLIT", help="(default: train)")
    convert.add_argument("--kind", default="auto", choices=["auto", "coco", *BOX_KINDS])
    convert.add_argument("--images", default="copy", help="copy, link or none (default: %(default)s)")


def _synth(args: argparse.Namespace, rest: list[str]) -> Result:
    if args.count < 1:
        raise UserError(f"--count {args.count}: at least one frame")
    if args.kind == "aerial":
        from boresight.data.aerial import Aerial
        from boresight.data.aerial_settings import AerialSettings
        from boresight.data.convert import convert

        scenes = Aerial(
            AerialSettings(height=args.size, width=args.size), count=args.count, seed=args.seed, novel=False
        )
        return _told(convert(scenes, args.out, args.to), args)
    from boresight.run.synth import write_skyfield

    return write_skyfield(Path(args.out), preset_name=args.preset, count=args.count, seed=args.seed, quiet=args.quiet)


def _check(args: argparse.Namespace, rest: list[str]) -> Result:
    boxes = args.kind in BOX_KINDS or (args.detector or "point") != "point"
    if boxes and (args.detector == "point" or args.kind in POINT_KINDS):
        raise UserError(f"--kind {args.kind}: not read by `{args.detector}`; leave one of the two out")
    if boxes:
        from boresight.run.boxes import check_box_folder

        problems = check_box_folder(Path(args.root), args.splits, kind=args.kind)
    else:
        from boresight.run.frames import check_folder

        problems = check_folder(Path(args.root), args.splits, kind=args.kind)
    errors = sum(p.severity == "error" for p in problems)
    if not args.json:
        for problem in problems:
            print(problem.line())
        print(f"{errors} errors, {len(problems) - errors} remarks")
    listed = [{"kind": p.kind, "severity": p.severity, "file": p.file, "detail": p.detail} for p in problems]
    return {"root": args.root, "errors": errors, "problems": listed, "_status": 2 if errors else 0}


def _convert(args: argparse.Namespace, rest: list[str]) -> Result:
    from boresight.data.boxes import open_boxes
    from boresight.data.convert import convert

    sources = {split: open_boxes(args.root, split, kind=args.kind) for split in args.splits}
    return _told(convert(sources, args.out, args.to, images=args.images), args)


def _told(done: Any, args: argparse.Namespace) -> Result:
    if not args.json:
        print("\n".join(done.lines()))
    return {
        "out": str(done.out),
        "to": done.to,
        "images": done.images,
        "boxes": done.boxes,
        "ignored": done.ignored,
        "lost_ignored": done.lost_ignored,
        "lost_exhaustive": done.lost_exhaustive,
        "renumbered": done.renumbered,
    }
