"""The audit: every planted fault is found, a clean data set is silent, and nothing stops at the first."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from boresight.core.errors import UserError
from boresight.core.types import Points, Scene
from boresight.data.check import Problem, check, enforce, without
from boresight.data.frames import FrameSource, Subset
from boresight.data.points import sirst
from boresight.data.tables import csv_points

DATA = Path(os.environ.get("BORESIGHT_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
NAMES = ("a", "b", "c", "d", "e", "f")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A clean SIRST folder of six frames: a-d for training, e-f for testing."""
    for seed, name in enumerate(NAMES):
        values = np.random.default_rng(seed).integers(0, 255, (6, 9), dtype=np.uint8)
        for folder, content in (("images", values), ("masks", np.eye(6, 9, dtype=np.uint8) * 255)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(content).save(tmp_path / folder / f"{name}.png")
    (tmp_path / "train.txt").write_text("a\nb\nc\nd\n")
    (tmp_path / "test.txt").write_text("e\nf\n")
    return tmp_path


def audit(root: Path) -> list[Problem]:
    return check({split: sirst(root, split, audit=True) for split in ("train", "test")})


def test_a_clean_data_set_is_silent(root: Path) -> None:
    assert audit(root) == []
    assert enforce(audit(root)) == set()


def corrupt(root: Path) -> None:
    (root / "images" / "b.png").write_bytes(b"broken")


def larger_mask(root: Path) -> None:
    Image.fromarray(np.eye(7, 9, dtype=np.uint8)).save(root / "masks" / "b.png")


def repacked(root: Path) -> None:
    with Image.open(root / "images" / "a.png") as image:
        image.save(root / "images" / "b.png", compress_level=0)


def across(root: Path) -> None:
    shutil.copy(root / "images" / "f.png", root / "images" / "b.png")


PLANTS: dict[str, tuple[Callable[[Path], object], str, str, str]] = {
    "missing_image": (lambda r: (r / "images" / "b.png").unlink(), "b", "error", "images/b"),
    "corrupt_image": (corrupt, "b", "error", "images/b.png"),
    "mask_missing": (lambda r: (r / "masks" / "b.png").unlink(), "b", "error", "masks/b.png"),
    "mask_size": (larger_mask, "b", "error", "masks/b.png"),
    "duplicate_image": (repacked, "b", "error", "images/b.png"),
    "duplicate_image across": (across, "b", "error", "images/b.png"),
    "split_overlap": (lambda r: (r / "test.txt").write_text("b\ne\nf\n"), "b", "error", "images/b.png"),
    "duplicate_entry": (lambda r: (r / "train.txt").write_text("a\nb\nb.png\nc\nd\n"), "", "error", "train.txt"),
    "bad_entry": (lambda r: (r / "train.txt").write_text("a\nb\n../x\nc\nd\n"), "", "error", "train.txt"),
    "unlisted": (lambda r: (r / "train.txt").write_text("a\nc\nd\n"), "", "info", "images"),
    "unknown_file": (lambda r: shutil.copy(r / "masks" / "a.png", r / "masks" / "z.png"), "", "warning", "masks/z.png"),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_fault_is_found_and_nothing_else(root: Path, plant: str) -> None:
    spoil, name, severity, file = PLANTS[plant]
    spoil(root)
    # A mask whose image is gone is left over, which is another fault.
    problems = {p for p in audit(root) if not (plant == "missing_image" and p.kind == "unknown_file")}
    kinds = {(p.kind, p.severity, p.name) for p in problems}
    assert kinds == {(plant.split()[0], severity, name)}
    for problem in problems:
        assert file in problem.file
        assert "\n" not in problem.line()
        assert problem.detail
        assert problem.remedy
    if severity == "error":
        with pytest.raises(UserError, match=rf"1 {plant.split()[0]}.*boresight data check.*data\.on_problem=drop"):
            enforce(audit(root))
        assert enforce(audit(root), "drop") == ({name} if name else set())
    else:
        assert enforce(audit(root)) == set()


def test_everything_is_collected(root: Path) -> None:
    for name in ("missing_image", "duplicate_entry"):
        PLANTS[name][0](root)
    (root / "images" / "c.png").write_bytes(b"")
    (root / "masks" / "c.png").unlink()
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(root / "masks" / "e.png")
    assert Counter(p.kind for p in audit(root) if p.severity == "error") == {
        "missing_image": 1,
        "duplicate_entry": 1,
        "corrupt_image": 1,
        "mask_missing": 1,
        "mask_size": 1,
    }
    assert enforce(audit(root), "drop") == {"b", "c", "e"}
    assert enforce(audit(root), "drop", split="train") == {"b", "c"}
    with pytest.raises(UserError, match=r"1 mask_size.*e\.png"):
        enforce(audit(root), "stop", split="test")


def test_an_empty_split_stops_even_dropping(root: Path) -> None:
    (root / "test.txt").write_text("# none\n")
    problems = audit(root)
    assert [(p.kind, p.split) for p in problems if p.severity == "error"] == [("empty_split", "test")]
    for policy in ("stop", "drop"):
        with pytest.raises(UserError, match=r"1 empty_split.*test\.txt"):
            enforce(problems, policy)  # type: ignore[arg-type]
    empty = Subset(sirst(root), [])
    assert [p.kind for p in check({"val": empty}) if p.severity == "error"] == ["empty_split"]


def test_points_of_a_table(root: Path) -> None:
    (root / "points.csv").write_text(
        "image,x,y,label,ignore\na.png,1,1,0,0\na.png,1.3,1.3,0,0\na.png,9.5,1,0,0\n"
        "b.png,1,1,0,0\nb.png,1,1,1,0\nb.png,4,4,0,0\nb.png,4,4,0,1\nc.png,4,4,0,0\nc.png,4.5,4,0,0\n"
    )
    problems = check({"all": csv_points(root / "points.csv", root / "images")})
    assert [(p.kind, p.name) for p in problems] == [
        ("point_outside", "a.png"),
        ("duplicate_point", "a.png"),
        ("no_targets", ""),
    ]
    assert "3 of 6 frames (50%)" in problems[-1].detail


class Made:
    """A source without files, as a generator of frames is."""

    def __init__(self, *scenes: Scene) -> None:
        self.scenes = scenes
        self.names = tuple(scene.name for scene in scenes)

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, i: int) -> Scene:
        if self.names[i] == "bad":
            raise UserError("bad: cannot be made")
        return self.scenes[i]

    def truth(self, i: int) -> Points | None:
        return self.scenes[i].points


def test_a_source_without_files() -> None:
    images = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    inside, beyond = Points.of([[1, 1]]), Points.of([[1, 5]])
    train: FrameSource = Made(
        Scene(images[0], "p", points=inside), Scene(images[1], "q", points=beyond), Scene(images[2], "bad")
    )
    test: FrameSource = Made(Scene(images[0], "r", points=inside), Scene(images[3], "q"))
    found = {(p.kind, p.split, p.name) for p in check({"train": train, "test": test})}
    assert found == {
        ("point_outside", "train", "q"),
        ("corrupt_image", "train", "bad"),
        ("split_overlap", "train", "q"),
        ("duplicate_image", "train", "p"),
        ("no_truth", "test", ""),
    }


def test_progress_is_told(root: Path) -> None:
    told: list[tuple[int, int]] = []
    check({split: sirst(root, split) for split in ("train", "test")}, progress=lambda *at: told.append(at))
    assert told == [(i, 6) for i in range(1, 7)]


def test_without(root: Path) -> None:
    source = sirst(root, "train")
    assert without(source, set()) is source
    assert without(source, {"b", "elsewhere"}).names == ("a", "c", "d")
    with pytest.raises(UserError, match="all 4 frames"):
        without(source, set("abcd"))


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.on_problem: `ignore` is neither"):
        enforce([], "ignore")  # type: ignore[arg-type]


def test_the_two_splits_of_real_sirst_overlap() -> None:
    if not (DATA / "sirst-v1").is_dir():
        pytest.skip(f"no real data: {DATA / 'sirst-v1'} is absent (set BORESIGHT_DATA)")
    one, other = (sirst(DATA / "sirst-v1", split) for split in ("dnanet_basicirstd_train213", "official427_test"))
    problems = check({"train": one, "test": other})
    assert Counter(p.kind for p in problems) == {"split_overlap": 44, "unlisted": 1}
    dropped = enforce(problems, "drop", split="train")
    assert len(without(one, dropped)) == 213 - 44
    assert enforce(problems, split="test") == set()
    clean = check({"train": one, "test": sirst(DATA / "sirst-v1", "dnanet_basicirstd_test214")})
    assert clean == []
