"""Conversion: what comes out is what went in, what cannot be held is told, and nothing is left half written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from boresight.core.errors import UserError
from boresight.core.types import Scene
from boresight.data import convert as module
from boresight.data.aerial import Aerial
from boresight.data.aerial_settings import AerialSettings
from boresight.data.boxes import open_boxes
from boresight.data.convert import Converted, convert
from boresight.data.frames import Subset


class Made:
    """Scenes without files: odd sizes, odd fractions, a crowd, an image without boxes."""

    names = ("x", "deep/y", "z")
    classes = ("ship", "car", "never seen")

    def __init__(self, **change: object) -> None:
        self.change = change

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> Scene:
        rng = torch.Generator().manual_seed(i)
        image = torch.randint(0, 256, (3, 37, 61), generator=rng, dtype=torch.uint8)
        count = 4 * (i < 2)
        corner, side = torch.rand(count, 2, generator=rng), torch.rand(count, 2, generator=rng)
        size = torch.tensor([61.0, 37.0])
        boxes = torch.cat((corner * size * 0.5, (corner * 0.5 + 0.01 + side * 0.49) * size), dim=1)
        labels = torch.tensor([0, 1, 0, 1])[:count]
        ignore = torch.tensor([False, False, True, False])[:count]
        scene = Scene(image, self.names[i], 7 * (i + 1), boxes=boxes, labels=labels, ignore=ignore)
        return replace(scene, **self.change)  # type: ignore[arg-type]


def same(a: Scene, b: Scene, tolerance: float = 1e-3) -> None:
    assert a.boxes is not None
    assert b.boxes is not None
    torch.testing.assert_close(a.boxes, b.boxes, atol=tolerance, rtol=0)
    assert a.labels.tolist() == b.labels.tolist()
    assert a.ignore.tolist() == b.ignore.tolist()


@pytest.mark.parametrize("to", ["coco", "yolo", "voc"])
def test_what_comes_out_is_what_went_in(tmp_path: Path, to: str) -> None:
    made = Made(ignore=None) if to == "yolo" else Made()
    summary = convert({"train": made, "test": _Other(**made.change)}, tmp_path / "out", to)
    assert (summary.images, summary.boxes, summary.lost_ignored) == (5, 16, 0)
    back = open_boxes(tmp_path / "out", "train")
    assert back.classes == made.classes
    order = [back.names.index(name) for name in ("x.png", "deep/y.png", "z.png")]
    for i, j in enumerate(order):
        scene = back[j]
        same(replace(made[i], ignore=made[i].ignore if made[i].ignore is not None else scene.ignore), scene)
        assert torch.equal(scene.image, made[i].image)
        if to == "coco":
            assert scene.image_id == made[i].image_id
    assert len(open_boxes(tmp_path / "out", "test")) == 2


class _Other(Made):
    names = ("v", "w")


@given(st.lists(st.tuples(*[st.floats(0, 1, width=32)] * 4), max_size=5), st.integers(2, 5000), st.integers(2, 5000))
@settings(max_examples=25)
def test_coco_to_yolo_to_coco_loses_less_than_a_thousandth_of_a_pixel(
    tmp_path_factory: pytest.TempPathFactory, shares: list[tuple[float, ...]], width: int, height: int
) -> None:
    """The labels alone, of any size: images are read by what they are, so only the numbers are compared."""
    root = tmp_path_factory.mktemp("c")
    size = torch.tensor([width, height], dtype=torch.float64)
    given_ = torch.tensor(shares, dtype=torch.float64).reshape(-1, 2, 2).sort(dim=1).values
    boxes = (given_ * size).reshape(-1, 4).float()
    boxes = boxes[(boxes[:, 2:] - boxes[:, :2] > 0.01).all(dim=1)]

    class One:
        names, classes = ("a",), ("car",)

        def __len__(self) -> int:
            return 1

        def __getitem__(self, i: int) -> Scene:
            image = torch.zeros(1, 1, 1, dtype=torch.uint8).expand(3, height, width)
            return Scene(image, "a", 5, boxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.long))

    convert(One(), root / "yolo", "yolo", images="none")
    convert(One(), root / "coco", "coco", images="none")
    lines = (root / "yolo" / "labels" / "train" / "a.txt").read_text().split("\n")[:-1]
    yolo = torch.tensor([[float(v) for v in line.split()[1:]] for line in lines], dtype=torch.float64).reshape(-1, 2, 2)
    corners = torch.cat((yolo[:, 0] - yolo[:, 1] / 2, yolo[:, 0] + yolo[:, 1] / 2), dim=1) * size.repeat(2)
    coco = [a["bbox"] for a in json.loads((root / "coco" / "train.json").read_text())["annotations"]]
    xywh = torch.tensor(coco, dtype=torch.float64).reshape(-1, 4)
    torch.testing.assert_close(corners, boxes.double(), atol=1e-3, rtol=0)
    assert torch.equal(torch.cat((xywh[:, :2], xywh[:, :2] + xywh[:, 2:]), dim=1).float(), boxes)


def test_round_trip_through_files(tmp_path: Path) -> None:
    """COCO to YOLO to COCO to VOC to COCO, with the very same image files."""
    made = Made(ignore=None)
    forms = ("coco", "yolo", "coco", "voc", "coco")
    source: object = made
    for i, to in enumerate(forms):
        convert(source, tmp_path / str(i), to, images="link" if i else "copy")  # type: ignore[arg-type]
        source = open_boxes(tmp_path / str(i), "train")
    first, last = open_boxes(tmp_path / "0", "train"), open_boxes(tmp_path / "4", "train")
    assert first.classes == last.classes == made.classes
    for i, name in enumerate(first.names):
        j = last.names.index(name)
        same(first[i], last[j])
        assert last.files[j].resolve() == first.files[i].resolve()


def test_what_yolo_cannot_hold_is_counted(tmp_path: Path) -> None:
    source = Made(exhaustive=torch.tensor([True, False, True]))
    summary = convert(source, tmp_path / "out", "yolo")
    assert (summary.boxes, summary.ignored, summary.lost_ignored, summary.lost_exhaustive) == (6, 0, 2, 3)
    assert len(summary.lines()) == 3
    assert "lost: 2 ignored boxes" in summary.lines()[1]
    assert len(open_boxes(tmp_path / "out", "train")[0].boxes) == 3
    kept = convert(source, tmp_path / "coco", "coco")
    assert (kept.boxes, kept.ignored, kept.lost_ignored, kept.lost_exhaustive) == (8, 2, 0, 0)
    assert len(kept.lines()) == 1
    assert open_boxes(tmp_path / "coco", "train")[0].exhaustive.tolist() == [True, False, True]


def test_ids_that_are_not_unique_are_numbered_anew(tmp_path: Path) -> None:
    summary = convert(Made(image_id=0), tmp_path / "out", "coco")
    assert summary.renumbered == 3
    assert [frame.image_id for frame in open_boxes(tmp_path / "out", "train").frames] == [1, 2, 3]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    convert(Made(), tmp_path / "out", "coco")
    before = (tmp_path / "out" / "train.json").read_bytes()
    with pytest.raises(UserError, match="exists already"):
        convert(Made(), tmp_path / "out", "coco")
    assert (tmp_path / "out" / "train.json").read_bytes() == before
    with pytest.raises(UserError, match="exists already"):
        convert(Made(), tmp_path / "out" / "train.json", "coco")


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Made):
        def __getitem__(self, i: int) -> Scene:
            if i == 2:
                raise UserError("z: is broken")
            return super().__getitem__(i)

    with pytest.raises(UserError, match="z: is broken"):
        convert(Broken(), tmp_path / "out", "voc")
    assert list(tmp_path.iterdir()) == []

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_place", full)
    with pytest.raises(UserError, match="No space left on device"):
        convert(Made(), tmp_path / "out", "voc")
    assert list(tmp_path.iterdir()) == []


class _Classes(Made):
    classes = ("ship",)


class _Suffixes(Made):
    names = ("x", "x.png", "y")


class _Blank(Made):
    names = ("x", "a b", "y")


class _Out(Made):
    names = ("x", "../y", "z")


REFUSED = {
    "form": ({"train": Made()}, "cocoa", {}, r"form `cocoa`: did you mean `coco`\?"),
    "images": ({"train": Made()}, "coco", {"images": "move"}, "images `move`"),
    "link": ({"train": Made()}, "coco", {"images": "link"}, "no file to link"),
    "classes": ({"train": Made(), "test": _Classes()}, "coco", {}, "`train` and `test` have different classes"),
    "no splits": ({}, "coco", {}, "no splits"),
    "unknown truth": ({"train": Made(boxes=None, labels=None)}, "coco", {}, "nothing is known"),
    "suffixes": ({"train": _Suffixes()}, "yolo", {}, "two images of `train` are called `x` but for the suffix"),
    "across": ({"train": Made(), "test": Made()}, "voc", {}, "`x` is in the splits `train` and `test`"),
    "blank": ({"train": _Blank()}, "voc", {}, "cannot stand in a VOC list"),
    "leads out": ({"train": _Out()}, "coco", {}, "leads out"),
    "split": ({"all": Made()}, "yolo", {}, "split `all`: YOLO has train, val, test"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_cannot_be_converted_is_refused_in_one_line(tmp_path: Path, fault: str) -> None:
    sources, to, more, message = REFUSED[fault]
    with pytest.raises(UserError, match=message) as caught:
        convert(sources, tmp_path / "out", to, **more)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_generator(tmp_path: Path) -> None:
    source = Aerial(AerialSettings(height=160, width=160), count=2, novel=False)
    convert(source, tmp_path / "out", "coco")
    back = open_boxes(tmp_path / "out", "train")
    assert back.classes == source.classes
    for i in range(2):
        scene = source[i]
        assert torch.equal(back[i].boxes, scene.boxes)
        assert torch.equal(back[i].image, scene.image)
        assert (back[i].labels.tolist(), back[i].ignore.tolist()) == (scene.labels.tolist(), scene.ignore.tolist())


def test_labels_alone(tmp_path: Path) -> None:
    convert(Made(), tmp_path / "out", "coco", images="none")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["train.json"]


def test_real_tiles_keep_their_crowds_and_their_exhaustive_class(real_data: Path, tmp_path: Path) -> None:
    frames = open_boxes(real_data / "airbus-dev", "test")
    part = Subset(frames, range(0, 150, 15))
    summary = convert(part, tmp_path / "out", "coco", images="link")  # type: ignore[arg-type]
    assert isinstance(summary, Converted)
    back = open_boxes(tmp_path / "out", "train")
    for i in range(len(part)):
        scene, again = part[i], back[i]
        same(scene, again, tolerance=0)
        assert torch.equal(scene.exhaustive, again.exhaustive)
        assert (scene.name, scene.image_id) == (again.name, again.image_id)
    with Image.open(back.files[0]) as image:
        assert image.size == (640, 640)
