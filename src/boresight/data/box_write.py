"""How COCO, YOLO and VOC folders are written: one class a form, in the layout that its reader expects."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from boresight.core.errors import UserError
from boresight.core.types import Scene
from boresight.data.lists import stem_of
from boresight.data.yolo import SPLITS


@dataclass(frozen=True, slots=True)
class Labelled:
    """What is known of one image, without its pixels: ``boxes`` are xyxy in the pixel frame, ``size`` width, height."""

    name: str
    image_id: int
    size: tuple[int, int]
    boxes: tuple[tuple[float, ...], ...]
    labels: tuple[int, ...]
    ignore: tuple[bool, ...]
    exhaustive: tuple[bool, ...] | None

    @classmethod
    def of(cls, scene: Scene, name: str) -> Labelled:
        """The truth of a scene that has boxes, for a file called ``name``."""
        if scene.boxes is None or scene.labels is None:
            raise ValueError(f"`{scene.name}` has no boxes")
        ignore = [False] * len(scene.boxes) if scene.ignore is None else scene.ignore.tolist()
        return cls(
            name,
            scene.image_id,
            (scene.size[1], scene.size[0]),
            tuple(tuple(box) for box in scene.boxes.tolist()),
            tuple(scene.labels.tolist()),
            tuple(ignore),
            None if scene.exhaustive is None else tuple(scene.exhaustive.tolist()),
        )


class Form(ABC):
    """A form of data set under ``root``; for each split ``begin``, ``image_file`` of its images, ``write``."""

    holds_ignored = True
    holds_exhaustive = False
    holds_ids = False

    def __init__(self, root: Path, classes: tuple[str, ...]) -> None:
        self.root, self.classes, self.split = root, classes, ""

    def begin(self, split: str, names: Sequence[str]) -> None:
        """Start a split. Raises ``UserError`` for names that would share a label file."""
        self.split = split
        if twice := [stem for stem, n in Counter(stem_of(name) for name in names).items() if n > 1]:
            raise UserError(f"two images of `{split}` are called `{twice[0]}` but for the suffix: rename one of them")

    @abstractmethod
    def image_file(self, name: str) -> Path:
        """Where the image ``name`` of this split belongs."""

    @abstractmethod
    def write(self, labelled: Sequence[Labelled]) -> None:
        """Write the labels of this split."""

    @abstractmethod
    def finish(self, splits: Sequence[str]) -> None:
        """Write what concerns all splits."""


class Coco(Form):
    """``<split>.json`` and ``images/<split>``; ``exhaustive_category_ids`` where not all classes are exhaustive."""

    holds_exhaustive = True
    holds_ids = True

    def begin(self, split: str, names: Sequence[str]) -> None:
        """Start a split; COCO names its images in full."""
        self.split = split

    def image_file(self, name: str) -> Path:
        """See :class:`Form`."""
        return self.root / "images" / self.split / name

    def write(self, labelled: Sequence[Labelled]) -> None:
        """See :class:`Form`."""
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for entry in labelled:
            width, height = entry.size
            image: dict[str, Any] = {"id": entry.image_id, "file_name": entry.name, "width": width, "height": height}
            if entry.exhaustive is not None:
                image["exhaustive_category_ids"] = [i + 1 for i, all_there in enumerate(entry.exhaustive) if all_there]
            images.append(image)
            for (x1, y1, x2, y2), label, ignore in zip(entry.boxes, entry.labels, entry.ignore, strict=True):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": entry.image_id,
                        "category_id": label + 1,
                        "bbox": [_short(v) for v in (x1, y1, x2 - x1, y2 - y1)],
                        "area": _short((x2 - x1) * (y2 - y1)),
                        "iscrowd": int(ignore),
                    }
                )
        categories = [{"id": i + 1, "name": name} for i, name in enumerate(self.classes)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        _write(self.root / f"{self.split}.json", json.dumps(content))

    def finish(self, splits: Sequence[str]) -> None:
        """Nothing is left to write: each file has its categories."""


class Yolo(Form):
    """``images/<split>``, ``labels/<split>`` and a ``data.yaml``; ignored boxes are left out, since YOLO has none."""

    holds_ignored = False

    def begin(self, split: str, names: Sequence[str]) -> None:
        """Start a split. Raises ``UserError`` for one that a ``data.yaml`` cannot name."""
        if split not in SPLITS:
            raise UserError(f"split `{split}`: YOLO has {', '.join(SPLITS)}: give it one of these names")
        super().begin(split, names)

    def image_file(self, name: str) -> Path:
        """See :class:`Form`."""
        return self.root / "images" / self.split / name

    def write(self, labelled: Sequence[Labelled]) -> None:
        """See :class:`Form`."""
        self.image_file("").mkdir(parents=True, exist_ok=True)
        for entry in labelled:
            width, height = entry.size
            lines = []
            for (x1, y1, x2, y2), label, ignore in zip(entry.boxes, entry.labels, entry.ignore, strict=True):
                if not ignore:
                    shares = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
                    lines.append(" ".join([str(label), *(f"{v:.9g}" for v in shares)]) + "\n")
            _write(self.root / "labels" / self.split / f"{stem_of(entry.name)}.txt", "".join(lines))

    def finish(self, splits: Sequence[str]) -> None:
        """Write ``data.yaml``."""
        places = {split: f"images/{split}" for split in splits}
        content = {**places, "names": dict(enumerate(self.classes))}
        _write(self.root / "data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


class Voc(Form):
    """``Annotations``, ``JPEGImages``, ``ImageSets/Main/<split>.txt`` and ``labels.txt``, the order of the classes.

    Numbers that are not whole keep their decimals.
    """

    def __init__(self, root: Path, classes: tuple[str, ...]) -> None:
        super().__init__(root, classes)
        self._taken: dict[str, str] = {}

    def begin(self, split: str, names: Sequence[str]) -> None:
        """Start a split. Raises ``UserError`` where a name is taken, in any split, or cannot stand in a list."""
        super().begin(split, names)
        for name in names:
            stem = stem_of(name)
            if stem in self._taken:
                raise UserError(f"`{stem}` is in the splits `{self._taken[stem]}` and `{split}`: rename one of them")
            if len(stem.split()) != 1 or stem.startswith("#"):
                raise UserError(f"image name `{name}` cannot stand in a VOC list: rename it without blanks or #")
            self._taken[stem] = split

    def image_file(self, name: str) -> Path:
        """See :class:`Form`."""
        return self.root / "JPEGImages" / name

    def write(self, labelled: Sequence[Labelled]) -> None:
        """See :class:`Form`."""
        self.image_file("").mkdir(parents=True, exist_ok=True)
        for entry in labelled:
            tree = self._tree(entry)
            ET.indent(tree)
            text = ET.tostring(tree, encoding="unicode")
            _write(self.root / "Annotations" / f"{stem_of(entry.name)}.xml", text + "\n")
        stems = "".join(f"{stem_of(entry.name)}\n" for entry in labelled)
        _write(self.root / "ImageSets" / "Main" / f"{self.split}.txt", stems)

    def finish(self, splits: Sequence[str]) -> None:
        """Write ``labels.txt``: the XML files say neither the order of classes nor those without a box."""
        _write(self.root / "labels.txt", "".join(f"{name}\n" for name in self.classes))

    def _tree(self, entry: Labelled) -> ET.Element:
        root = ET.Element("annotation")
        _text(root, "filename", entry.name)
        size = ET.SubElement(root, "size")
        for key, value in zip(("width", "height", "depth"), (*entry.size, 3), strict=True):
            _text(size, key, value)
        for (x1, y1, x2, y2), label, ignore in zip(entry.boxes, entry.labels, entry.ignore, strict=True):
            thing = ET.SubElement(root, "object")
            _text(thing, "name", self.classes[label])
            _text(thing, "difficult", int(ignore))
            box = ET.SubElement(thing, "bndbox")
            # VOC counts pixels from 1 and includes the last one
            for key, edge in zip(("xmin", "ymin", "xmax", "ymax"), (x1 + 1, y1 + 1, x2, y2), strict=True):
                _text(box, key, _short(edge))
        return root


def _text(parent: ET.Element, key: str, value: object) -> None:
    ET.SubElement(parent, key).text = str(value)


def _short(value: float) -> float | int:
    """A whole number without its decimal point."""
    return int(value) if value == int(value) else value


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


FORMS: dict[str, type[Form]] = {"coco": Coco, "yolo": Yolo, "voc": Voc}
"""The forms by name."""
