"""Readers of point truth: hand-worked masks and tables, refused entries, splits, and the real folders."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from boresight.core.errors import UserError
from boresight.core.types import frame_brightness
from boresight.data.frames import AuditedSource, Subset, held_out, mask_points
from boresight.data.points import image_folder, open_points, sirst
from boresight.data.tables import coco_points, csv_points

DATA = Path(os.environ.get("BORESIGHT_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))


def real(folder: str) -> Path:
    if not (DATA / folder).is_dir():
        pytest.skip(f"no real data: {DATA / folder} is absent (set BORESIGHT_DATA)")
    return DATA / folder


def save(path: Path, values: Any, kind: type = np.uint8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values).astype(kind)).save(path)
    return path


def frame(height: int = 5, width: int = 7, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, (height, width))


def sirst_folder(root: Path, **masks: Any) -> Path:
    for seed, (name, mask) in enumerate(masks.items()):
        save(root / "images" / f"{name}.png", frame(*np.shape(mask), seed=seed))
        save(root / "masks" / f"{name}.png", np.asarray(mask) * 255)
    return root


def test_centroids_on_paper() -> None:
    mask = torch.tensor(
        [
            [1, 1, 0, 0, 0, 0, 0],
            [1, 0, 0, 0, 1, 0, 0],
            [0, 0, 0, 0, 0, 1, 0],
            [0, 0, 1, 0, 0, 0, 0],
        ]
    ).bool()
    points = mask_points(mask)
    # Three pixels in a corner; two that touch by a diagonal and are one target; one alone.
    expected = torch.tensor([[(0 + 1 + 0) / 3 + 0.5, (0 + 0 + 1) / 3 + 0.5], [5.0, 2.0], [2.5, 3.5]])
    assert torch.allclose(points.xy, expected)
    assert points.mask is not None
    assert points.mask.dtype == torch.int32
    assert points.mask.tolist() == [
        [1, 1, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 2, 0, 0],
        [0, 0, 0, 0, 0, 2, 0],
        [0, 0, 3, 0, 0, 0, 0],
    ]
    assert points.labels.tolist() == [0, 0, 0]
    assert not points.ignore.any()


def test_empty_mask_has_no_points_but_is_known() -> None:
    points = mask_points(torch.zeros(3, 5, dtype=torch.bool))
    assert points.xy.shape == (0, 2)
    assert points.mask is not None
    assert points.mask.shape == (3, 5)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_every_pixel_belongs_to_the_point_at_its_mean(height: int, width: int, seed: int) -> None:
    mask = torch.from_numpy(np.random.default_rng(seed).random((height, width)) < 0.3)
    points = mask_points(mask)
    assert points.mask is not None
    assert torch.equal(points.mask > 0, mask)
    for k, xy in enumerate(points.xy):
        rows, columns = torch.where(points.mask == k + 1)
        assert torch.allclose(xy, torch.stack((columns.float().mean() + 0.5, rows.float().mean() + 0.5)), atol=1e-5)


def test_sirst_scene(tmp_path: Path) -> None:
    root = sirst_folder(tmp_path, a=np.eye(5, 7), b=np.zeros((3, 3)))
    (root / "masks" / "b.png").rename(root / "masks" / "b_pixels0.png")
    source = sirst(root)
    assert isinstance(source, AuditedSource)
    assert source.names == ("a", "b")
    scene = source[0]
    assert torch.equal(scene.image, torch.from_numpy(frame()).float()[None])
    assert (scene.level, scene.spread) == frame_brightness(scene.image)
    assert (scene.name, scene.image_id) == ("a", 1)
    assert scene.points is not None
    assert scene.points.xy.tolist() == [[2.5, 2.5]]
    assert source[1].points is not None
    assert len(source[1].points) == 0
    assert source[-1].name == "b"
    with pytest.raises(IndexError):
        source[2]
    assert pickle.loads(pickle.dumps(source)) == source


def test_truth_does_not_need_the_image(tmp_path: Path) -> None:
    root = sirst_folder(tmp_path, a=np.eye(3))
    (root / "images" / "a.png").write_bytes(b"broken")
    truth = sirst(root).truth(0)
    assert truth is not None
    assert truth.xy.tolist() == [[1.5, 1.5]]


def test_split_lists(tmp_path: Path) -> None:
    root = sirst_folder(tmp_path, a=np.eye(3), b=np.eye(3), c=np.eye(3))
    (root / "splits").mkdir()
    (root / "splits" / "one.txt").write_bytes(b"\xef\xbb\xbf# a comment\r\n\r\n  c  \r\na.png")
    (root / "two.txt").write_text("b\n")
    elsewhere = tmp_path / "elsewhere.lst"
    elsewhere.write_text("b\na\n")
    assert sirst(root, "one").names == ("c", "a")
    assert sirst(root, "one.txt").names == ("c", "a")
    assert sirst(root, "two").names == ("b",)
    assert sirst(root, elsewhere).names == ("b", "a")
    assert {path.name for path in sirst(root, "one").unused} == {"b.png"}
    with pytest.raises(UserError, match=r"no split `ones`.*did you mean `one`.*there are one, two"):
        sirst(root, "ones")


def test_a_dot_in_a_name_is_no_suffix(tmp_path: Path) -> None:
    save(tmp_path / "images" / "DJI_1.rf.0c.jpg", frame())
    save(tmp_path / "masks" / "DJI_1.rf.0c.png", np.zeros((5, 7)))
    (tmp_path / "list.txt").write_text("DJI_1.rf.0c\n")
    assert sirst(tmp_path, "list")[0].name == "DJI_1.rf.0c"


def test_an_empty_split_is_an_error_that_names_its_file(tmp_path: Path) -> None:
    root = sirst_folder(tmp_path, a=np.eye(3))
    (root / "none.txt").write_text("# nothing\n\n")
    with pytest.raises(UserError, match=r"none\.txt: names no frames"):
        sirst(root, "none")
    assert [problem.kind for problem in sirst(root, "none", audit=True).listing] == ["empty_split"]


@pytest.mark.parametrize("entry", ["../x", "/etc/passwd", "a/../../x", r"..\x", r"C:\x.png", r"\\host\x"])
def test_entries_that_lead_out_are_refused(tmp_path: Path, entry: str) -> None:
    root = sirst_folder(tmp_path / "s", a=np.eye(3))
    (root / "bad.txt").write_text(f"a\n{entry}\n")
    (root / "bad.csv").write_text(f"image,x,y\n{entry},1,1\n")
    image = {"id": 1, "file_name": entry}
    (root / "bad.json").write_text(json.dumps({"images": [image], "annotations": [], "categories": []}))
    for file, read in (
        ("bad.txt", lambda **more: sirst(root, "bad", **more)),
        ("bad.csv", lambda **more: csv_points(root / "bad.csv", root / "images", **more)),
        ("bad.json", lambda **more: coco_points(root / "bad.json", root / "images", **more)),
    ):
        with pytest.raises(UserError) as caught:
            read()
        assert file in str(caught.value)
        assert f"`{entry}` leads out" in str(caught.value)
        audited = read(audit=True)
        assert audited.listing[0].kind == "bad_entry"
        assert all(path.resolve().is_relative_to(root.resolve()) for path in audited.files)


def test_bad_frames_raise_when_they_are_read_and_name_the_file(tmp_path: Path) -> None:
    root = sirst_folder(tmp_path, good=np.eye(3), other=np.eye(3), truncated=np.eye(3), unmasked=np.eye(3))
    save(root / "masks" / "other.png", np.eye(4))
    (root / "images" / "truncated.png").write_bytes((root / "images" / "truncated.png").read_bytes()[:50])
    (root / "masks" / "unmasked.png").unlink()
    (root / "list.txt").write_text("good\nother\ntruncated\nunmasked\nabsent\n")
    source = sirst(root, "list")
    assert source[0].name == "good"
    kinds = ["mask_size", "corrupt_image", "mask_missing", "missing_image"]
    says = [
        r"masks/other\.png: is 4x4, its image 3x3",
        r"images/truncated\.png: ",
        r"masks/unmasked\.png: no mask",
        "images/absent",
    ]
    for i, (kind, words) in enumerate(zip(kinds, says, strict=True), start=1):
        with pytest.raises(UserError, match=words) as caught:
            source[i]
        assert "\n" not in str(caught.value)
        assert source.inspect(i)[1][0].kind == kind
        assert source.inspect(i)[1][0].name == source.names[i]
    assert [problem.kind for problem in source.inspect(4)[1]] == ["missing_image", "mask_missing"]
    with pytest.raises(UserError, match="no mask"):
        source.truth(3)


CSV = """image, video ,cx,cy,class,ignore,snr,w
a.png,one,1.25,2.5,ship,,7.5,3
b.png,two,0,0,car,1,,3
a.png,one,7,5,car,0,,3
e.png,two,,,,,,
"""


def csv_folder(root: Path, text: str = CSV, names: str = "abce") -> Path:
    for seed, name in enumerate(names):
        save(root / "images" / f"{name}.png", frame(seed=seed))
    (root / "points.csv").write_text(text)
    return root


def test_csv_by_hand(tmp_path: Path) -> None:
    root = csv_folder(tmp_path)
    source = csv_points(root / "points.csv", root / "images")
    assert source.names == ("a.png", "b.png", "c.png", "e.png")
    assert source.classes == ("car", "ship")
    first = source[0].points
    assert first is not None
    assert first.snr is not None
    assert first.xy.tolist() == [[1.25, 2.5], [7, 5]]
    assert first.labels.tolist() == [1, 0]
    assert first.snr[0] == 7.5
    assert first.snr[1].isnan()
    assert first.flux is None
    second = source[1].points
    assert second is not None
    assert second.ignore.tolist() == [True]
    assert second.snr is None
    assert [len(source.truth(i) or ()) for i in range(4)] == [2, 1, 0, 0]
    assert source.groups == ("one", "two", "c.png", "two")
    listed = csv_points(root / "points.csv", root / "images", only_listed=True)
    assert listed.names == ("a.png", "b.png", "e.png")
    assert {path.name for path in listed.unused} == {"c.png"}


@pytest.mark.parametrize(("lines", "names"), [("two", "be"), ("a\nc.png", "ac"), ("one\nb", "ab")])
def test_csv_split_by_name_or_video(tmp_path: Path, lines: str, names: str) -> None:
    root = csv_folder(tmp_path)
    (root / "part.txt").write_text(lines)
    source = csv_points(root / "points.csv", root / "images", split="part")
    assert source.names == tuple(f"{name}.png" for name in names)


def test_csv_columns(tmp_path: Path) -> None:
    root = csv_folder(tmp_path, "Frame,x,y,cx,u,label\na,1,1,2,3,2\n")
    mapped = csv_points(root / "points.csv", root / "images", columns={"image": "Frame"}, only_listed=True)
    assert mapped.names == ("a.png",)
    assert mapped.truth(0).xy.tolist() == [[2, 1]]  # type: ignore[union-attr]
    assert (mapped.classes, mapped.truth(0).labels.tolist()) == (("0", "1", "2"), [2])  # type: ignore[union-attr]
    by_name = csv_points(root / "points.csv", root / "images", columns={"image": "Frame", "x": "u"}, only_listed=True)
    assert by_name.truth(0).xy.tolist() == [[3, 1]]  # type: ignore[union-attr]
    with pytest.raises(UserError, match="no column for image: it has Frame"):
        csv_points(root / "points.csv", root / "images")
    with pytest.raises(UserError, match=r"no column `Frames`: did you mean `Frame`"):
        csv_points(root / "points.csv", root / "images", columns={"image": "Frames"})
    with pytest.raises(UserError, match=r"columns\.imag: no such quantity: did you mean `image`"):
        csv_points(root / "points.csv", root / "images", columns={"imag": "Frame"})


@pytest.mark.parametrize("row", ["a.png,one,2", "a.png,,2", "a.png,nan,2", "a.png,1,2,maybe", ",1,2", "a.png,inf,1"])
def test_a_row_without_sense_names_its_line(tmp_path: Path, row: str) -> None:
    root = csv_folder(tmp_path, f"image,x,y,ignore\nb.png,1,1,0\n{row}\n")
    with pytest.raises(UserError, match=r"points\.csv:3: "):
        csv_points(root / "points.csv", root / "images")
    audited = csv_points(root / "points.csv", root / "images", audit=True)
    assert [problem.kind for problem in audited.listing] == ["bad_row"]


@pytest.mark.parametrize(
    ("x", "y", "fits"), [(0, 0, True), (7, 5, True), (7.01, 2, False), (-0.01, 2, False), (2, 5.5, False)]
)
def test_a_point_outside_names_the_table(tmp_path: Path, x: float, y: float, fits: bool) -> None:
    root = csv_folder(tmp_path, f"image,x,y\na.png,{x},{y}\n")
    source = csv_points(root / "points.csv", root / "images")
    if fits:
        assert source[0].points is not None
        return
    with pytest.raises(UserError, match=rf"points\.csv: point \({x:g}, {y:g}\) lies outside of `a\.png` \(7x5\)"):
        source[0]
    scene, problems = source.inspect(0)
    assert scene is not None
    assert [problem.kind for problem in problems] == ["point_outside"]


def test_csv_in_subfolders(tmp_path: Path) -> None:
    for name in ("one/a", "one/b", "two/a"):
        save(tmp_path / "images" / f"{name}.png", frame())
    (tmp_path / "points.csv").write_text("image,x,y\none/a.png,1,1\n")
    source = csv_points(tmp_path / "points.csv", tmp_path / "images")
    assert source.names == ("one/a.png", "one/b.png")


def coco_folder(root: Path, **changes: Any) -> Path:
    for seed, name in enumerate("abc"):
        save(root / "images" / f"{name}.png", frame(seed=seed))
    content: dict[str, Any] = {
        "images": [{"id": 70, "file_name": "b.png"}, {"id": 3, "file_name": "a.png"}],
        "annotations": [
            {"id": 1, "image_id": 70, "category_id": 9, "bbox": [1, 2, 3, 1]},
            {"id": 2, "image_id": 70, "category_id": 4, "bbox": [0, 0, 1, 1], "iscrowd": 1},
        ],
        "categories": [{"id": 9, "name": "ship"}, {"id": 4, "name": "car"}],
    }
    (root / "train.json").write_text(json.dumps(content | changes))
    return root


def test_coco_by_hand(tmp_path: Path) -> None:
    root = coco_folder(tmp_path)
    source = coco_points(root / "train.json", root / "images")
    assert source.names == ("a.png", "b.png")
    assert source.classes == ("car", "ship")
    assert [source[i].image_id for i in range(2)] == [3, 70]
    points = source[1].points
    assert points is not None
    assert points.xy.tolist() == [[2.5, 2.5], [0.5, 0.5]]
    assert points.labels.tolist() == [1, 0]
    assert points.ignore.tolist() == [False, True]
    assert {path.name for path in source.unused} == {"c.png"}
    (root / "half.txt").write_text("b\n")
    assert coco_points(root / "train.json", root / "images", split="half").names == ("b.png",)


@pytest.mark.parametrize(
    ("annotation", "says"),
    [
        ({"image_id": 5, "category_id": 9, "bbox": [0, 0, 1, 1]}, "image_id `5` is not listed"),
        ({"image_id": 3, "category_id": 8, "bbox": [0, 0, 1, 1]}, "category_id `8` is not listed"),
        ({"image_id": 3, "category_id": 9, "bbox": [0, 0, 1]}, "is not"),
        ({"image_id": 3, "category_id": 9, "bbox": [0, 0, -1, 1]}, "negative size"),
        ({"image_id": 3, "category_id": 9, "bbox": [0, "?", 1, 1]}, "not a finite number"),
    ],
)
def test_coco_annotations_without_sense(tmp_path: Path, annotation: dict[str, Any], says: str) -> None:
    root = coco_folder(tmp_path, annotations=[{"id": 44, **annotation}])
    with pytest.raises(UserError, match=rf"train\.json: annotation 44: .*{says}"):
        coco_points(root / "train.json", root / "images")
    assert [p.kind for p in coco_points(root / "train.json", root / "images", audit=True).listing] == ["bad_row"]


@pytest.mark.parametrize("text", ["{", "[]", '{"images": []}', '{"images": [1], "annotations": [], "categories": []}'])
def test_what_is_no_coco_says_so(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=r"a\.json: ") as caught:
        coco_points(tmp_path / "a.json", tmp_path)
    assert "\n" not in str(caught.value)


def test_image_folder(tmp_path: Path) -> None:
    for name in ("b.png", "a.tif", "deep/c.png", "deep/b.png"):
        save(tmp_path / name, frame())
    (tmp_path / "notes.txt").write_text("no image")
    source = image_folder(tmp_path)
    assert source.names == ("a.tif", "b.png")
    assert source[0].points is None
    assert source.truth(0) is None
    assert image_folder([tmp_path / "b.png", str(tmp_path / "*.tif"), tmp_path]).names == ("a.tif", "b.png")
    both = image_folder(str(tmp_path / "**" / "b.png"))
    assert both.names == (f"{tmp_path}/b.png", f"{tmp_path}/deep/b.png")
    with pytest.raises(UserError, match=r"absent: no such file or folder"):
        image_folder(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    for nothing in (tmp_path / "empty", str(tmp_path / "*.bmp"), []):
        with pytest.raises(UserError, match="no images there"):
            image_folder(nothing)


def test_open_points_recognises_the_layout(tmp_path: Path) -> None:
    masks = sirst_folder(tmp_path / "m", a=np.eye(3))
    table, boxes = csv_folder(tmp_path / "t"), coco_folder(tmp_path / "c")
    assert open_points(masks).frames[0].mask is not None
    assert open_points(table).classes == ("car", "ship")
    assert open_points(table / "points.csv").names == open_points(table).names
    assert open_points(boxes).names == ("a.png", "b.png")
    assert open_points(boxes, "train").names == ("a.png", "b.png")
    assert open_points(masks / "images", kind="images").names == ("a.png",)
    (boxes / "half.txt").write_text("b\n")
    assert open_points(boxes, "half").names == ("b.png",)
    (boxes / "val.json").write_text((boxes / "train.json").read_text())
    with pytest.raises(UserError, match=r"there are train\.json, val\.json"):
        open_points(boxes)
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"looked for folders images and masks, a \*\.csv, a COCO \*\.json"):
        open_points(tmp_path / "none")
    with pytest.raises(UserError, match="no such data set"):
        open_points(tmp_path / "absent")
    with pytest.raises(UserError, match=r"kind `sirts`.*did you mean `sirst`"):
        open_points(masks, kind="sirts")  # type: ignore[arg-type]


def test_subset(tmp_path: Path) -> None:
    source = csv_points(csv_folder(tmp_path) / "points.csv", tmp_path / "images")
    part = Subset(source, [2, 0])
    assert isinstance(part, AuditedSource)
    assert part.names == ("c.png", "a.png")
    assert [scene.name for scene in part] == ["c.png", "a.png"]  # type: ignore[attr-defined]
    assert len(part.truth(1) or ()) == 2
    assert part.groups == ("c.png", "one")
    assert {path.name for path in part.unused} == {"b.png", "e.png"}
    assert Subset(part, [1]).inspect(0)[0].name == "a.png"  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="index 4 is outside"):
        Subset(source, [4])


@given(st.integers(2, 60), st.floats(0.01, 0.99), st.integers(0, 99))
def test_held_out_parts_the_frames(n: int, share: float, seed: int) -> None:
    train, validation = held_out(n, share, seed)
    assert sorted(train + validation) == list(range(n))
    assert train == sorted(train)
    assert len(validation) == min(max(1, round(share * n)), n - 1)
    assert (train, validation) == held_out(n, share, seed)


def test_held_out_is_the_same_everywhere_and_keeps_groups() -> None:
    assert held_out(10, 0.3, 0) == ([0, 1, 2, 4, 6, 7, 9], [3, 5, 8])
    assert held_out(50, 0.3, 0) != held_out(50, 0.3, 1)
    videos = [f"v{i // 5}" for i in range(40)]
    train, validation = held_out(videos, 0.25, 3)
    assert not {videos[i] for i in train} & {videos[i] for i in validation}
    assert len(validation) == 10
    names = [f"f{i}" for i in range(40)]
    moved = set(held_out(names, 0.25, 0)[1]) ^ set(held_out([*names, "new"], 0.25, 0)[1])
    assert len(moved) <= 2
    assert held_out(3, 0, 0) == ([0, 1, 2], [])
    for wrong in (-0.1, 1.0):
        with pytest.raises(UserError, match="share"):
            held_out(10, wrong, 0)
    with pytest.raises(UserError, match="cannot hold out"):
        held_out(["one"] * 5, 0.2, 0)


def test_real_sirst() -> None:
    source = open_points(real("sirst-v1"))
    assert len(source) == 427
    assert sum(len(source.truth(i) or ()) for i in range(427)) == 533
    assert len(open_points(real("sirst-v1"), "dnanet_basicirstd_train213")) == 213
    scene = source[source.names.index("Misc_1")]
    assert scene.points is not None
    assert scene.points.mask is not None
    assert scene.points.mask.shape == scene.size


def test_real_csv_and_coco() -> None:
    train, test = (open_points(real("drone-ir"), f"{part}_videos") for part in ("train", "test"))
    assert len(train) + len(test) == 760
    assert not set(train.groups) & set(test.groups)
    assert train[0].points is not None
    boats = open_points(real("aerial-maritime"), "test")
    assert (len(boats), sum(len(boats.truth(i) or ()) for i in range(len(boats)))) == (137, 363)
    assert boats.classes == ("boat", "car", "dock", "jetski", "lift")
    assert boats[0].image.shape == (1, 600, 800)
