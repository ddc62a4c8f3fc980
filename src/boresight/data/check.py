"""The audit of a data set: everything that is wrong with its splits, and what training does about it.

Kinds of problem, errors unless said otherwise:

* ``missing_image``, ``corrupt_image``, ``mask_missing``, ``mask_size``, ``point_outside``: a frame that cannot be used;
* ``duplicate_point``: two truths of one class within half a pixel;
* ``duplicate_image``: the same pixels under two names, inside of a split or across splits;
* ``split_overlap``: the same frame in two splits;
* ``duplicate_entry``, ``bad_entry``, ``bad_row``, ``empty_split``: faults of the lists and tables that name frames;
* ``unlisted`` (info), ``unknown_file`` (warning): files that belong to nothing;
* ``no_targets``, ``no_truth`` (info): how many frames are empty, and of how many nothing is known.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from boresight.core.errors import UserError
from boresight.core.types import Scene
from boresight.data.frames import AuditedSource, FrameSource, Subset, inspect, outside
from boresight.data.image import Problem

__all__ = ["Policy", "Problem", "check", "enforce", "without"]

Policy = Literal["stop", "drop"]

_NO_WAY_ON = ("empty_split", "class_names")  # leaving frames out does not help
_SAME_POINT = 0.5  # px: nearer than two targets can be told apart


def check(sources: Mapping[str, FrameSource], progress: Callable[[int, int], None] | None = None) -> list[Problem]:
    """Look at every frame of every split and return all that is wrong, in order of split and frame.

    ``sources`` maps names of splits to their frames. Open them with ``audit=True``, so that faults of their lists are
    reported as well. Where two splits share a frame, it is held against the one that comes *first*: give the training
    split first, and what is judged stays as it is. ``progress`` is called with (frames done, frames in all).
    """
    total, done = sum(len(source) for source in sources.values()), 0
    problems: list[Problem] = []
    seen: list[tuple[str, str, str, str]] = []
    for split, source in sources.items():
        problems += [replace(problem, split=split) for problem in of_lists(source)]
        targets: list[int | None] = []
        files = files_of(source)
        for i, name in enumerate(source.names):
            scene, found = inspect(source, i)
            file = str(files[i])
            if scene is not None:
                seen.append((split, name, file, fingerprint(scene)))
                targets.append(None if scene.points is None else len(scene.points))
                found = (*found, *_doubtful(scene, file, audited=isinstance(source, AuditedSource)))
            problems += [replace(problem, split=split, name=name) for problem in found]
            done += 1
            if progress:
                progress(done, total)
        problems += _counts(split, targets, source)
    return [*problems, *overlaps(sources), *twins(seen), *unlisted(sources)]


def of_lists(source: FrameSource) -> Iterator[Problem]:
    """Yield what is wrong with the lists of a source; that it is empty, if nobody else has said so."""
    listing = source.listing if isinstance(source, AuditedSource) else ()
    yield from listing
    if not len(source) and not any(problem.kind == "empty_split" for problem in listing):
        yield Problem("empty_split", "error", "split", "has no frames", "list the frames that belong to it")


def files_of(source: FrameSource) -> tuple[Path, ...]:
    """The file of every frame, a path made of its name where the source has no files."""
    return source.files if isinstance(source, AuditedSource) else tuple(Path(name) for name in source.names)


def fingerprint(scene: Scene) -> str:
    """A hash of the shape and the pixels: equal for files that differ in nothing but their packing."""
    pixels = scene.image.contiguous()
    return hashlib.blake2b(f"{tuple(pixels.shape)}".encode() + pixels.numpy().tobytes(), digest_size=16).hexdigest()


def _doubtful(scene: Scene, file: str, *, audited: bool) -> Iterator[Problem]:
    """Truth that can be read and cannot be right (a source of files has looked for points outside itself)."""
    if not audited:
        yield from outside(scene, file)
    if (points := scene.points) is None or len(points) < 2:
        return
    near = torch.cdist(points.xy.double(), points.xy.double()) < _SAME_POINT
    same = near & (points.labels[:, None] == points.labels) & ~points.ignore & ~points.ignore[:, None]
    for a, b in same.triu(diagonal=1).nonzero().tolist():
        x, y = points.xy[b].tolist()
        detail = f"points {a} and {b} of `{scene.name}` are the same, at ({x:.2f}, {y:.2f})"
        yield Problem("duplicate_point", "error", file, detail, "remove one of them", name=scene.name)


def _counts(split: str, targets: list[int | None], source: FrameSource) -> Iterator[Problem]:
    """How many frames are without targets, and of how many that is unknown."""
    folder = str(files_of(source)[0].parent) if len(source) else split
    for kind, count, what in (
        ("no_targets", targets.count(0), "have no targets"),
        ("no_truth", targets.count(None), "have unknown truth"),
    ):
        if count:
            share = f"{count} of {len(targets)} frames ({count / len(targets):.0%}) {what}"
            yield Problem(kind, "info", folder, share, "nothing to do if that is meant", split=split)


def overlaps(sources: Mapping[str, FrameSource]) -> Iterator[Problem]:
    """Frames that two splits share: the same file, or the same name where a source has no files."""
    last = {key: split for split, source in sources.items() for key in _keys(source)}
    for split, source in sources.items():
        for key, file, name in zip(_keys(source), files_of(source), source.names, strict=True):
            if last[key] != split:
                detail, remedy = f"is in the splits `{split}` and `{last[key]}`", f"take it out of `{split}`"
                yield Problem("split_overlap", "error", str(file), detail, remedy, split, name)


def _keys(source: FrameSource) -> list[Path]:
    """What makes a frame the same frame."""
    on_disk = isinstance(source, AuditedSource)
    return [file.resolve() if on_disk else file for file in files_of(source)]


def twins(seen: list[tuple[str, str, str, str]]) -> Iterator[Problem]:
    """The same pixels in different files: in one split the later is one too many, across splits the earlier split's."""
    kept: dict[str, tuple[str, str]] = {}
    last_split = {fingerprint: split for split, _, _, fingerprint in seen}
    for split, _, file, fingerprint in seen:
        if split == last_split[fingerprint]:
            kept.setdefault(fingerprint, (split, file))
    for split, name, file, fingerprint in seen:
        other_split, other = kept[fingerprint]
        if file != other:
            detail = f"has the pixels of {Path(other).name} in the split `{other_split}`"
            yield Problem("duplicate_image", "error", file, detail, f"take it out of `{split}`", split, name)


def unlisted(sources: Mapping[str, FrameSource]) -> Iterator[Problem]:
    """Image files that lie beside the frames and are in none of the splits, one line a folder."""
    audited = [source for source in sources.values() if isinstance(source, AuditedSource)]
    used = {file for source in audited for file in source.files}
    unused = sorted({file for source in audited for file in source.unused} - used)
    for folder, count in Counter(file.parent for file in unused).items():
        first = next(file.name for file in unused if file.parent == folder)
        yield Problem(
            "unlisted",
            "info",
            str(folder),
            f"{count} images are in none of the splits, first {first}",
            "nothing to do if that is meant",
        )


def enforce(problems: Iterable[Problem], policy: Policy = "stop", *, split: str | None = None) -> set[str]:
    """Return the names of the frames to leave out (of ``split``, or of all), or stop.

    ``stop`` raises a ``UserError`` if there is any error (of that split), and returns nothing otherwise. ``drop``
    leaves out every frame with an error; faults of lists are left out by their reader already (``audit=True``), so only
    a split without frames, or one whose classes are not those of the others, still stops. Warnings and infos never do
    either.
    """
    if policy not in ("stop", "drop"):
        raise UserError(f"data.on_problem: `{policy}` is neither stop nor drop")
    errors = [p for p in problems if p.severity == "error" and split in (None, p.split)]
    fatal = errors if policy == "stop" else [p for p in errors if p.kind in _NO_WAY_ON]
    if fatal:
        kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(p.kind for p in fatal).items())
        way_out = "" if policy == "drop" else ", or leave those frames out with data.on_problem=drop"
        first = f"{fatal[0].file}: {fatal[0].detail}"
        raise UserError(f"the data has problems ({kinds}), first {first}: run 'boresight data check' for all{way_out}")
    return {p.name for p in errors if p.name}


def without(source: FrameSource, names: set[str]) -> FrameSource:
    """Return the source without the frames ``names``. Raises ``UserError`` when nothing is left."""
    keep = [i for i, name in enumerate(source.names) if name not in names]
    if not keep:
        first = next(iter(source.names), "")
        raise UserError(f"all {len(source)} frames have problems, first `{first}`: run 'boresight data check'")
    return source if len(keep) == len(source) else Subset(source, keep)
