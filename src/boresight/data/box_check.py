"""The audit of a data set of boxes.

Kinds of problem, errors unless said otherwise:

* ``missing_image``, ``corrupt_image``, ``deep_image``, ``image_size``: an image that cannot be used;
* ``degenerate_box``, ``box_outside``, ``class_range``, ``unknown_category``, ``bad_row``, ``bad_label``: a label that
  cannot be used. Its image is at fault, since it shows an object that would count as background;
* ``class_names``: splits whose classes differ;
* ``duplicate_image``, ``split_overlap``: one image twice, inside of a split or across splits;
* ``duplicate_entry``, ``bad_entry``, ``unknown_image``, ``empty_split``: faults of the lists that name images;
* ``duplicate_box`` (warning): two boxes of a class that are nearly the same; ``turned_image`` (warning): an EXIF
  orientation, which is not applied; ``class_without_boxes`` (warning); ``group_overlap`` (warning): splits share the
  photo or place that their images were cut from; ``missing_label`` (info for YOLO, an error for VOC);
* ``box_clipped``, ``tiny_box``, ``no_boxes``, ``one_class``, ``class_name``, ``unlisted`` (info): worth knowing. Of
  those that concern images one line a split stands for all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torchvision.ops import box_iou

from boresight.core.types import Scene
from boresight.data.box_frames import Box, BoxFrame, fitted
from boresight.data.check import files_of, fingerprint, of_lists, overlaps, twins, unlisted
from boresight.data.frames import AuditedSource, inspect
from boresight.data.image import Problem, Severity
from boresight.data.rgb_image import orientation_of

_SAME_BOX = 0.95  # IoU: more alike than two people draw one object
_TINY = 2.0  # px


class BoxSource(Protocol):
    """Images with boxes that are addressed by index, whatever makes them."""

    @property
    def names(self) -> Sequence[str]:
        """The name of every image, each unique."""
        ...

    def __len__(self) -> int:
        """The number of images."""
        ...

    def __getitem__(self, i: int, /) -> Scene:
        """Image ``i`` with its boxes."""
        ...


def classes_of(source: Any) -> tuple[str, ...]:
    """The classes of a source, or of the source that it is a part of."""
    while not hasattr(source, "classes"):
        source = source.source
    return tuple(source.classes)


def check_boxes(sources: Mapping[str, BoxSource], progress: Callable[[int, int], None] | None = None) -> list[Problem]:
    """Look at every image of every split and return all that is wrong, in order of split and image.

    ``sources`` maps names of splits to their images, the training split first: where two splits share an image, it is
    held against the one that comes first. Open them with ``audit=True``, so that faults of their lists are reported as
    well. ``progress`` is called with (images done, images in all). What training does about problems is the part of
    :func:`~boresight.data.check.enforce` and :func:`~boresight.data.check.without`.
    """
    given: dict[str, Any] = dict(sources)  # to the functions shared with points any source is one of frames
    total, done = sum(len(source) for source in given.values()), 0
    problems: list[Problem] = []
    seen: list[tuple[str, str, str, str]] = []
    for split, source in given.items():
        classes = classes_of(source)
        found = list(of_lists(source))
        tally = Counter[int]()
        empty = read = 0
        files, audited = files_of(source), isinstance(source, AuditedSource)  # once: a part of a source makes them anew
        for i, name in enumerate(source.names):
            scene, of_image = source.inspect(i) if audited else inspect(source, i)
            if scene is not None:
                seen.append((split, name, str(files[i]), fingerprint(scene)))
                of_image = (*of_image, *_unfit(scene, str(files[i]), classes), *_doubtful(scene, files[i], classes))
                read, empty = read + 1, empty + (scene.boxes is None or not len(scene.boxes))
                tally.update(_counted(scene))
            found += [replace(problem, name=name) for problem in of_image]
            done += 1
            if progress:
                progress(done, total)
        folder = str(files[0].parent) if len(source) else split
        found += [*_counts(folder, empty, read), *_classes(folder, classes, tally, read)]
        problems += [replace(problem, split=split) for problem in _merged(found)]
    return [*problems, *_names(given), *overlaps(given), *_groups(given), *twins(seen), *unlisted(given)]


def _counted(scene: Scene) -> list[int]:
    """The classes of the boxes that count."""
    if scene.labels is None:
        return []
    return (scene.labels if scene.ignore is None else scene.labels[~scene.ignore]).tolist()


def _unfit(scene: Scene, file: str, classes: Sequence[str]) -> Iterator[Problem]:
    """Boxes that cannot be used, of a source that does not look itself (one of files has left them out)."""
    if scene.boxes is None or scene.labels is None:
        return
    rows = zip(scene.boxes.tolist(), scene.labels.tolist(), strict=True)
    boxes = tuple(Box(tuple(box), label, where=f"box {k}") for k, (box, label) in enumerate(rows))
    height, width = scene.size
    yield from fitted(BoxFrame(scene.name, Path(file), scene.image_id, boxes, file), width, height, classes)[1]


def _doubtful(scene: Scene, file: Path, classes: Sequence[str]) -> Iterator[Problem]:
    """What can be read and is hardly meant."""
    if file.is_file() and (turned := orientation_of(file)) != 1:
        detail = f"has EXIF orientation {turned}, which is not applied: boxes must refer to the stored pixels"
        yield Problem("turned_image", "warning", str(file), detail, "save it upright if they refer to the turned ones")
    if scene.boxes is None or scene.labels is None or not len(scene.boxes):
        return
    sides = (scene.boxes[:, 2:] - scene.boxes[:, :2]).amin(dim=1)
    if tiny := int((sides < _TINY).sum()):
        detail = f"{tiny} boxes of `{scene.name}` are less than {_TINY:g} px wide or high"
        yield Problem("tiny_box", "info", str(file), detail, "nothing to do if that is meant")
    counts = torch.ones_like(scene.labels, dtype=torch.bool) if scene.ignore is None else ~scene.ignore
    same = (box_iou(scene.boxes, scene.boxes) > _SAME_BOX) & (scene.labels[:, None] == scene.labels)
    for a, b in (same & counts & counts[:, None]).triu(diagonal=1).nonzero().tolist():
        x1, y1, x2, y2 = scene.boxes[b].tolist()
        name = classes[int(scene.labels[b])] if 0 <= int(scene.labels[b]) < len(classes) else int(scene.labels[b])
        detail = f"boxes {a} and {b} of `{scene.name}` are the same `{name}`, at ({x1:g}, {y1:g}, {x2:g}, {y2:g})"
        yield Problem("duplicate_box", "warning", str(file), detail, "remove one of them")


def _merged(problems: Iterable[Problem]) -> Iterator[Problem]:
    """The problems of one split; of the infos that concern images, the first of a kind stands for all."""
    kept = list(problems)
    many = Counter(p.kind for p in kept if p.severity == "info" and p.name)
    for problem in kept:
        if problem.severity != "info" or not problem.name:
            yield problem
        elif count := many.pop(problem.kind, 0):
            more = f" (and so in {count - 1} more images)" if count > 1 else ""
            yield replace(problem, detail=problem.detail + more)


def _counts(folder: str, empty: int, images: int) -> Iterator[Problem]:
    if empty:
        detail = f"{empty} of {images} images ({empty / images:.0%}) have no boxes"
        # with a box nowhere there is nothing to learn; a part of the images may well be empty
        severity: Severity = "warning" if empty == images else "info"
        yield Problem("no_boxes", severity, folder, detail, "nothing to do if that is meant")


def _classes(folder: str, classes: Sequence[str], tally: Counter[int], images: int) -> Iterator[Problem]:
    """What is odd about the classes of one split."""
    if len(classes) == 1:
        detail = f"`{classes[0]}` is the only class"
        yield Problem("one_class", "info", folder, detail, "nothing to do: nothing can be confused with it")
    for name in classes if images else ():
        if not any(letter.isalpha() for letter in name):
            detail = f"class `{name}` has a name without letters"
            yield Problem("class_name", "info", folder, detail, "say what to ask for it with data.queries")
    for i, name in enumerate(classes if images else ()):
        if not tally[i]:
            remedy = "add some, or expect nothing of that class"
            yield Problem("class_without_boxes", "warning", folder, f"class `{name}` has no boxes here", remedy)


def _names(sources: Mapping[str, Any]) -> Iterator[Problem]:
    """Splits whose classes are not those of the first: a label would mean two things."""
    first = next(iter(sources), "")
    for split, source in sources.items():
        theirs, ours = classes_of(source), classes_of(sources[first])
        if theirs != ours:
            at = next(
                (i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), min(len(theirs), len(ours))
            )
            shown = [names[at] if at < len(names) else "missing" for names in (theirs, ours)]
            detail = f"class {at} is `{shown[0]}` in the split `{split}` and `{shown[1]}` in `{first}`"
            file = str(files_of(source)[0].parent) if len(source) else split
            yield Problem("class_names", "error", file, detail, "give all splits the same classes", split)


def _groups(sources: Mapping[str, Any]) -> Iterator[Problem]:
    """Groups (photos, places) of which several splits have a part: what is measured on one was seen in another."""
    splits: dict[str, list[str]] = {}
    for split, source in sources.items():
        # an image that is its own group and lies in two splits is told of already
        grouped = {g for g, n in zip(getattr(source, "groups", ()), source.names, strict=False) if g != n}
        for group in sorted(grouped):
            splits.setdefault(group, []).append(split)
    shared = Counter(tuple(names) for names in splits.values() if len(names) > 1)
    for names, count in shared.items():
        group = next(g for g, held in splits.items() if tuple(held) == names)
        detail = f"{count} groups of images are in the splits {' and '.join(f'`{n}`' for n in names)}, first `{group}`"
        remedy = "keep what was cut from one photo or place in one split"
        yield Problem("group_overlap", "warning", names[0], detail, remedy, names[0])
