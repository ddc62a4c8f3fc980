"""Box data sets from one form to another: COCO, YOLO and VOC folders, written whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any, Literal

from PIL import Image

from boresight.core.errors import UserError, did_you_mean
from boresight.core.types import Scene
from boresight.data.box_check import BoxSource, classes_of
from boresight.data.box_write import FORMS, Form, Labelled
from boresight.data.lists import stem_of

Images = Literal["copy", "link", "none"]

_IMAGES = ("copy", "link", "none")


@dataclass(frozen=True, slots=True)
class Converted:
    """What was written.

    Attributes:
        out: the folder.
        to: its form.
        images, boxes: how many, in all splits; ``boxes`` are those that were written.
        ignored: boxes written as ignored (``iscrowd``, ``difficult``).
        lost_ignored: ignored boxes that the form cannot hold and that were left out: their place now counts as
            background.
        lost_exhaustive: images that are labelled for some classes alone, which the form cannot say.
        renumbered: images that have another id than before.
    """

    out: Path
    to: str
    images: int = 0
    boxes: int = 0
    ignored: int = 0
    lost_ignored: int = 0
    lost_exhaustive: int = 0
    renumbered: int = 0

    def lines(self) -> list[str]:
        """The summary, one line for what was written and one for each thing lost."""
        told = [f"{self.out}: {self.images} images, {self.boxes} boxes ({self.ignored} of them ignored) as {self.to}"]
        if self.lost_ignored:
            told.append(f"lost: {self.lost_ignored} ignored boxes ({self.to} has none): their place is background now")
        if self.lost_exhaustive:
            told.append(f"lost: {self.lost_exhaustive} images say which classes are exhaustive; {self.to} means all")
        if self.renumbered:
            told.append(f"{self.renumbered} images have a new id, since theirs were not whole numbers of their own")
        return told


def convert(
    sources: BoxSource | Mapping[str, BoxSource], out: str | Path, to: str, *, images: Images = "copy"
) -> Converted:
    """Write a source, or several splits of a data set, as ``coco``, ``yolo`` or ``voc`` into the new folder ``out``.

    A single source becomes the split ``train``. Sources are whatever has names, classes and scenes: readers, parts of
    them, generators (whose images become PNG files). ``images`` are copied, linked (symbolic links) or left where they
    are: ``none`` writes the labels alone. The reader of the form gives the same boxes back to 1e-3 px. ``out`` appears
    when everything is written, and not at all if anything fails.

    Raises ``UserError`` if ``out`` holds anything, for an image with a problem, for splits with different classes, for
    names that the form cannot tell apart or that lead out of the folder, and for a disk that cannot be written.
    """
    splits: dict[str, Any] = dict(sources) if isinstance(sources, Mapping) else {"train": sources}
    out = Path(os.path.abspath(out))
    if to not in FORMS:
        raise UserError(f"form `{to}`{did_you_mean(to, FORMS)}: use {', '.join(FORMS)}")
    if images not in _IMAGES:
        raise UserError(f"images `{images}`{did_you_mean(images, _IMAGES)}: use {', '.join(_IMAGES)}")
    if odd := next((repr(name) for name in splits if not name or PureWindowsPath(name).name != name), None):
        raise UserError(f"split {odd}: cannot name a file of the new data set: give it a plain word")
    classes = _classes(splits, out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists already: name a new folder, or remove it")
    partial = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        partial.mkdir(parents=True)
        form = FORMS[to](partial, classes)
        summary = Converted(out, to)
        for split, source in splits.items():
            summary = _write_split(form, split, source, images, summary)
        form.finish(list(splits))
        partial.rename(out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error}): free space or name another") from error
    finally:
        with suppress(FileNotFoundError):
            shutil.rmtree(partial)
    return summary


def _classes(splits: Mapping[str, Any], out: Path) -> tuple[str, ...]:
    found = {split: classes_of(source) for split, source in splits.items()}
    if not found:
        raise UserError(f"{out}: no splits to convert: give at least one")
    first = next(iter(found))
    if odd := next((split for split, classes in found.items() if classes != found[first]), None):
        raise UserError(f"the splits `{first}` and `{odd}` have different classes: give them the same")
    return found[first]


def _write_split(form: Form, split: str, source: Any, images: Images, summary: Converted) -> Converted:
    """Write one split; returns the summary with what it adds."""
    files = getattr(source, "files", None) or [Path(name) for name in source.names]
    names = [_file_name(name, file) for name, file in zip(source.names, files, strict=True)]
    form.begin(split, names)
    labelled: list[Labelled] = []
    ids: Counter[int] = Counter()
    for i, (name, file) in enumerate(zip(names, files, strict=True)):
        scene: Scene = source[i]
        if scene.boxes is None or scene.labels is None:
            raise UserError(f"`{scene.name}`: nothing is known of its boxes: convert images with labels")
        entry = Labelled.of(scene, name)
        _place(form.image_file(name), Path(file), scene, images)
        ids[entry.image_id] += 1
        labelled.append(entry)
    fresh = any(count > 1 for count in ids.values())
    if fresh:
        labelled = [replace(entry, image_id=i + 1) for i, entry in enumerate(labelled)]
    form.write(labelled)
    ignored, boxes = sum(sum(e.ignore) for e in labelled), sum(len(e.boxes) for e in labelled)
    return replace(
        summary,
        images=summary.images + len(labelled),
        boxes=summary.boxes + boxes - (0 if form.holds_ignored else ignored),
        ignored=summary.ignored + (ignored if form.holds_ignored else 0),
        lost_ignored=summary.lost_ignored + (0 if form.holds_ignored else ignored),
        lost_exhaustive=summary.lost_exhaustive
        + (0 if form.holds_exhaustive else sum(e.exhaustive is not None for e in labelled)),
        renumbered=summary.renumbered + (len(labelled) if fresh and form.holds_ids else 0),
    )


def _file_name(name: str, file: Path) -> str:
    """The name of an image in the new data set: its own, with the suffix of its file, or of the PNG that it becomes."""
    path = PurePath(name)
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"image name `{name}` leads out of a folder: move the image or rename it")
    return stem_of(name) + (file.suffix if file.is_file() else ".png")


def _place(target: Path, file: Path, scene: Scene, images: Images) -> None:
    """Put the image of a scene where the new data set looks for it."""
    if images == "none":
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if file.is_file():
        if images == "link":
            target.symlink_to(file.resolve())
        else:
            shutil.copyfile(file, target)
        return
    if images == "link":
        raise UserError(f"`{scene.name}` has no file to link to: use images=copy, which writes one")
    pixels = scene.image.round().clamp(0, 255).byte() if scene.image.is_floating_point() else scene.image
    Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).save(target)
