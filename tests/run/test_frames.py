from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from boresight.core.errors import UserError
from boresight.run.config import DataSettings
from boresight.run.frames import check_folder, expanded, point_splits

SKY = DataSettings(preset="easy", height=64, width=80, frames=6, val_frames=3, test_frames=4)


def write_frames(root, names, *, twin: str = "") -> None:
    """Frames with one target each; ``twin`` has the pixels of the first."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True, exist_ok=True)
    rows = ["image,x,y"]
    for i, name in enumerate(names):
        pixels = rng.integers(0, 255, (32, 40)).astype(np.uint8)
        if name == twin:
            pixels = np.array(Image.open(root / "images" / f"{names[0]}.png"))
        Image.fromarray(pixels).save(root / "images" / f"{name}.png")
        rows.append(f"{name}.png,{10 + i},12.5")
    (root / "points.csv").write_text("\n".join(rows) + "\n")


def split(root, name, frames) -> None:
    (root / "splits").mkdir(exist_ok=True)
    (root / "splits" / f"{name}.txt").write_text("\n".join(frames) + "\n")


@pytest.fixture
def table(tmp_path):
    write_frames(tmp_path, [f"f{i}" for i in range(10)])
    return DataSettings(source="csv", root=str(tmp_path))


# --- made frames -----------------------------------------------------------------------------------------------------


def test_made_splits_share_no_frame():
    splits = point_splits(SKY)
    assert [len(s) for s in (splits.train, splits.val, splits.test)] == [6, 3, 4]
    names = [set(s.names) for s in (splits.train, splits.val, splits.test)]
    assert not names[0] & names[1]
    assert not names[0] & names[2]
    assert not names[1] & names[2]
    assert splits.train[0].size == (64, 80)
    assert splits.classes == ("target",)
    assert list(splits.order) == list(range(6))


def test_made_frames_follow_their_seed():
    images = [point_splits(replace(SKY, seed=s)).train[0].image for s in (0, 0, 1)]
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])


def test_frames_with_targets_are_seen_more_often():
    splits = point_splits(replace(SKY, frames=20, oversample=3))
    count = np.bincount(splits.order, minlength=20)
    has = np.array([bool((~splits.train[i].points.ignore).any()) for i in range(20)])
    assert has.any()
    assert not has.all()
    assert (count == np.where(has, 3, 1)).all()


def test_an_unknown_preset(capsys):
    with pytest.raises(UserError, match="hrad"):
        point_splits(replace(SKY, preset="hrad"))


# --- frames on disk --------------------------------------------------------------------------------------------------


def test_a_share_is_held_out(table):
    splits = point_splits(table)
    assert (len(splits.train), len(splits.val)) == (8, 2)
    assert not set(splits.train.names) & set(splits.val.names)
    assert splits.test.names == splits.val.names
    again = point_splits(table)
    assert again.val.names == splits.val.names
    others = {tuple(point_splits(replace(table, seed=s)).val.names) for s in range(4)}
    assert len(others) > 1


def test_named_splits(table, tmp_path):
    split(tmp_path, "a", ["f0", "f1"])
    split(tmp_path, "b", ["f2"])
    split(tmp_path, "c", ["f3", "f4"])
    splits = point_splits(replace(table, train="a", val="b", test="c"))
    assert [list(s.names) for s in (splits.train, splits.val, splits.test)] == [
        ["f0.png", "f1.png"],
        ["f2.png"],
        ["f3.png", "f4.png"],
    ]


def test_what_cannot_be_a_validation_set(table):
    with pytest.raises(UserError, match=r"`data\.val_share` = 0"):
        point_splits(replace(table, val_share=0.0))


def test_folders_that_are_not_there(table, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"`data\.root` is empty"):
        point_splits(replace(table, root=""))
    with pytest.raises(UserError, match="nowhere"):
        point_splits(replace(table, root=str(tmp_path / "nowhere")))
    with pytest.raises(UserError, match="no split `trian`"):
        point_splits(replace(table, train="trian"))
    monkeypatch.delenv("NOT_SET_ANYWHERE", raising=False)
    with pytest.raises(UserError, match=r"`data\.root` = \$NOT_SET_ANYWHERE/x: the environment variable is not set"):
        point_splits(replace(table, root="$NOT_SET_ANYWHERE/x"))


def test_the_environment_is_read(monkeypatch, tmp_path):
    monkeypatch.setenv("SOME_FOLDER", str(tmp_path))
    assert expanded("$SOME_FOLDER/a", "data.root") == tmp_path / "a"
    assert expanded("${SOME_FOLDER}/a", "data.root") == tmp_path / "a"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/a", "data.root") == tmp_path / "a"


# --- problems --------------------------------------------------------------------------------------------------------


def test_problems_stop_the_training_and_can_be_dropped(table, tmp_path):
    (tmp_path / "images" / "f3.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"f3\.png.*boresight data check") as caught:
        point_splits(table)
    assert "data.on_problem=drop" in str(caught.value)
    splits = point_splits(replace(table, on_problem="drop"))
    assert sorted([*splits.train.names, *splits.val.names]) == [f"f{i}.png" for i in range(10) if i != 3]


def test_a_shared_frame_leaves_the_training_frames_alone_where_it_is_judged(table, tmp_path):
    """It is taken out of the training frames; what is judged stays what it was."""
    split(tmp_path, "a", ["f0", "f1", "f2"])
    split(tmp_path, "b", ["f2", "f3"])
    split(tmp_path, "c", ["f4", "f1"])
    named = replace(table, train="a", val="b", test="c")
    with pytest.raises(UserError, match="split_overlap"):
        point_splits(named)
    splits = point_splits(replace(named, on_problem="drop"))
    assert list(splits.train.names) == ["f0.png"]
    assert list(splits.val.names) == ["f2.png", "f3.png"]
    assert list(splits.test.names) == ["f4.png", "f1.png"]


def test_the_same_pixels_under_two_names(tmp_path):
    write_frames(tmp_path, ["f0", "f1", "f2", "f3"], twin="f2")
    split(tmp_path, "a", ["f0", "f1"])
    split(tmp_path, "b", ["f2", "f3"])
    named = DataSettings(source="csv", root=str(tmp_path), train="a", val="b")
    with pytest.raises(UserError, match="duplicate_image"):
        point_splits(named)
    splits = point_splits(replace(named, on_problem="drop"))
    assert list(splits.train.names) == ["f1.png"]
    assert list(splits.val.names) == list(splits.test.names) == ["f2.png", "f3.png"]


def test_problems_of_a_held_out_share_are_dropped_where_they_are_judged(table, tmp_path):
    """The test frames are the validation frames here: what is left out of these is left out of those."""
    held = point_splits(table).val.names[0]
    (tmp_path / "images" / held).write_bytes(b"broken")
    splits = point_splits(replace(table, on_problem="drop"))
    assert held not in splits.val.names
    assert held not in splits.test.names
    assert held not in splits.train.names


def test_one_split_can_be_opened_alone(table, tmp_path):
    """Judging looks at the frames that are judged; training frames may be elsewhere by then."""
    split(tmp_path, "a", ["f0", "f1"])
    split(tmp_path, "b", ["f2"])
    split(tmp_path, "c", ["f3", "f4"])
    (tmp_path / "images" / "f0.png").unlink()
    named = replace(table, train="a", val="b", test="c")
    with pytest.raises(UserError, match=r"f0\.png"):
        point_splits(named)
    assert list(point_splits(named, only="test").test.names) == ["f3.png", "f4.png"]
    (tmp_path / "images" / "f3.png").unlink()
    with pytest.raises(UserError, match=r"f3\.png"):
        point_splits(named, only="test")
    dropped = point_splits(replace(named, on_problem="drop"), only="test")
    assert list(dropped.test.names) == ["f4.png"]


def test_an_empty_split(table, tmp_path):
    split(tmp_path, "a", ["# nothing"])
    for policy in ("stop", "drop"):
        with pytest.raises(UserError, match=r"a\.txt"):
            point_splits(replace(table, train="a", val="a", on_problem=policy))


def test_the_audit_of_a_folder(table, tmp_path):
    assert [p for p in check_folder(tmp_path, []) if p.severity == "error"] == []
    split(tmp_path, "a", ["f0", "f1"])
    split(tmp_path, "b", ["f1", "f77"])
    found = {(p.kind, p.split) for p in check_folder(tmp_path, ["a", "b"]) if p.severity == "error"}
    assert found == {("split_overlap", "a"), ("missing_image", "b")}


def test_everything_in_the_folder_can_be_the_test(table):
    splits = point_splits(replace(table, test="*", on_problem="drop"), only="test")
    assert list(splits.test.names) == [f"f{i}.png" for i in range(10)]
    assert len(splits.val) == 2
