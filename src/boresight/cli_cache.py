"""The verbs of ``boresight cache``: look at a feature store, check it, tidy it up."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from boresight.core.errors import UserError

Result = dict[str, Any]
Common = Callable[[argparse.ArgumentParser, Callable[..., Result]], argparse.ArgumentParser]


def add_cache_verbs(actions: Any, common: Common) -> None:
    """Add `fill`, `info`, `verify`, `prune` and `clear`; ``common`` gives a verb what every verb has."""
    fill = common(actions.add_parser("fill", help="compute the frozen features of all images of a folder"), _fill)
    fill.add_argument("source", metavar="DATASET", help="a folder of images, or a data set")
    fill.add_argument("--encoder", required=True, metavar="NAME", help="boresight-aerial, squeezenet, sam:X, timm:X")
    fill.add_argument("--into", required=True, metavar="DIR", help="the feature store")
    fill.add_argument("--weights", metavar="FILE")
    fill.add_argument("--levels", type=int, nargs="+", default=(), help="2 is stride 4, 3 is stride 8, ...")
    fill.add_argument("--layers", type=int, nargs="+", default=(1, 3), help="of a CLIP: blocks counted from the end")
    fill.add_argument("--size", type=int, default=0, help="side to which images are brought, pixels")
    fill.add_argument("--window", type=int, default=0, help="of a CLIP: side of the windows that are read")
    fill.add_argument("--precision", default="fp32", choices=["fp32", "fp16", "bf16"], help="of the encoder")
    fill.add_argument("--storage", default="fp16", choices=["fp32", "fp16", "bf16", "int8"], help="of the items")
    fill.add_argument("--batch", type=int, default=1, help="images encoded together (default: %(default)s)")
    fill.add_argument("--limit-mb", type=int, default=0, help="of the store; 0: none")
    fill.add_argument("--engine", default="loop", choices=["loop", "ray"], help="ray: batches to actors of a cluster")
    fill.add_argument("--skip-damaged", action="store_true", help="leave out files that cannot be read")

    info = common(actions.add_parser("info", help="size, items, hit rate, encoders"), _info)
    info.add_argument("folder", metavar="DIR")

    verify = common(actions.add_parser("verify", help="read every item and list the damaged ones"), _verify)
    verify.add_argument("folder", metavar="DIR")
    verify.add_argument("--remove", action="store_true", help="take damaged items away: they will be computed again")

    prune = common(actions.add_parser("prune", help="take away old items, and what dead processes left"), _prune)
    prune.add_argument("folder", metavar="DIR")
    prune.add_argument("--limit-mb", type=float, help="least recently used items go until so many megabytes are left")
    prune.add_argument("--older-than-days", type=float, help="items that were not used for so long go")
    prune.add_argument("--recipe", help="of one recipe's items alone (its first digits, see `info`)")

    clear = common(actions.add_parser("clear", help="take away all items, or those of one recipe"), _clear)
    clear.add_argument("folder", metavar="DIR")
    clear.add_argument("--recipe", help="its first digits, see `info`")
    clear.add_argument("--yes", action="store_true", help="needed where items of several encoders would go")


def _fill(args: argparse.Namespace, rest: list[str]) -> Result:
    from boresight.run.config_refine import FeatureSettings

    for name in ("batch", "size", "window", "limit_mb"):
        if getattr(args, name) < (1 if name == "batch" else 0):
            raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)}: must be {int(name == 'batch')} or more")
    settings = FeatureSettings(
        name=args.encoder,
        weights=args.weights,
        levels=tuple(args.levels),
        layers=tuple(args.layers),
        size=args.size,
        window=args.window,
        precision=args.precision,
        store="disk",
        storage=args.storage,
        store_mb=args.limit_mb,
        store_folder=args.into,
        batch=args.batch,
    )
    from boresight.run.fill import fill

    done = fill(Path(args.source), settings, engine=args.engine, skip=args.skip_damaged, quiet=args.quiet)
    if not args.json and done["rank"] == 0:
        whose = f" (of process 0 of {done['processes']})" if done["processes"] > 1 else ""
        print(f"{done['folder']}: {done['images']} images{whose}, {done['computed']} computed")
        for words in done["skipped"]:
            print(f"  left out: {words}")
    return done


def _info(args: argparse.Namespace, rest: list[str]) -> Result:
    from boresight.features.cache_audit import info

    found = info(Path(args.folder))
    if not args.json:
        rate = "nothing asked yet" if found.counters.hit_rate is None else f"hit rate {found.counters.hit_rate:.1%}"
        print(f"{found.folder}: {found.items} items, {found.bytes / 1e6:.1f} MB, {rate}")
        c = found.counters
        print(f"  computed {c.misses}, fetched {c.fetched}, evicted {c.evicted}, damaged {c.damaged}")
        if found.unfinished:
            print(f"  {found.unfinished} unfinished files; `boresight cache prune` takes those of dead processes away")
        for use in found.recipes:
            name = use.about.get("encoder", "unknown encoder")
            weights = str(use.about.get("weights", "?"))[:12]
            used = time.strftime("%Y-%m-%d %H:%M", time.localtime(use.last_used))
            said = f"{use.items} items, {use.bytes / 1e6:.1f} MB, {use.storage}, last used {used}"
            print(f"  {use.recipe[:12]}  {name} (weights {weights}): {said}")
            for tensor, (relative, largest) in (use.error or {}).items():
                print(f"      {tensor}: 8 bits, relative error {relative:.4f}, largest {largest:.4g}")
    return found.to_dict()


def _verify(args: argparse.Namespace, rest: list[str]) -> Result:
    from boresight.features.cache_audit import verify

    count, damaged = verify(Path(args.folder), take_away=args.remove)
    if not args.json:
        for one in damaged:
            print(f"{one.file}: {one.reason}{'; removed' if one.removed else ''}")
        print(f"{count} items, {len(damaged)} damaged")
    left = [one for one in damaged if not one.removed]
    result: Result = {"items": count, "damaged": [vars(one) for one in damaged]}
    return result | ({"_status": 1} if left else {})


def _prune(args: argparse.Namespace, rest: list[str]) -> Result:
    from boresight.features.cache_audit import prune

    for name, value in (("--limit-mb", args.limit_mb), ("--older-than-days", args.older_than_days)):
        if value is not None and value < 0:
            raise UserError(f"{name} {value:g}: must be 0 or more")
    done = prune(Path(args.folder), limit_mb=args.limit_mb, older_than_days=args.older_than_days, recipe=args.recipe)
    if not args.json:
        print(f"{done.items} items ({done.bytes / 1e6:.1f} MB) and {done.unfinished} unfinished files taken away")
    return vars(done)


def _clear(args: argparse.Namespace, rest: list[str]) -> Result:
    from boresight.features.cache_audit import clear, info

    folder = Path(args.folder)
    if args.recipe is None and not args.yes and len(found := info(folder).recipes) > 1:
        names = ", ".join(f"{r.recipe[:12]} ({r.about.get('encoder', 'unknown')})" for r in found)
        raise UserError(f"{folder}: items of {len(found)} encoders would go: {names}; give --recipe, or --yes for all")
    done = clear(folder, recipe=args.recipe)
    if not args.json:
        print(f"{done.items} items ({done.bytes / 1e6:.1f} MB) taken away")
    return vars(done)
