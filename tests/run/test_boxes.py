"""From data settings to splits of boxes: what is asked for, what is never trained, what stops."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from boresight.core.errors import UserError
from boresight.data.aerial_settings import held_out
from boresight.run.boxes import box_splits, check_box_folder, check_queries, query_texts
from boresight.run.config_text import BoxDataSettings

AERIAL = BoxDataSettings(
    kinds=("vehicle", "storage tank"),
    colours=("yellow", "black"),
    height=80,
    width=80,
    frames=6,
    val_frames=3,
    test_frames=12,
)
BASE, NOVEL = ("yellow vehicle", "black storage tank"), ("black vehicle", "yellow storage tank")


def seen(frames) -> set[int]:
    return {int(k) for i in range(len(frames)) for k in frames[i].labels}


# --- queries ---------------------------------------------------------------------------------------------------------


def test_a_class_is_asked_by_its_name_unless_said_otherwise():
    classes = ("storage-tank", "small_boat", "Ship")
    assert query_texts(classes, ()) == ("storage tank", "small boat", "Ship")
    assert query_texts(classes, ("Ship=ship|boat", " storage-tank = oil tank ")) == (
        "oil tank",
        "small boat",
        "ship|boat",
    )
    assert query_texts(("a",), ("a=x=y",)) == ("x=y",)
    assert query_texts((), ()) == ()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"queries": ("shp=boat",)}, "`data.queries` names `shp`: no class of the data: did you mean `ship`?"),
        ({"novel": ("trukc",)}, "`data.novel` names `trukc`: no class of the data: did you mean `truck`?"),
        ({"novel": ("zebra",)}, "`data.novel` names `zebra`: no class of the data; classes: ship, truck"),
        ({"queries": ("ship=a", "ship=b")}, "`data.queries` names `ship` twice"),
        ({"novel": ("ship", "ship")}, "`data.novel` names `ship` twice"),
        ({"novel": ("truck", "ship")}, "`data.novel` names every class"),
    ],
)
def test_names_of_no_class(changes, told):
    with pytest.raises(UserError) as caught:
        check_queries(("ship", "truck"), replace(BoxDataSettings(), **changes))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_of_classes():
    check_queries(("ship", "truck"), replace(BoxDataSettings(), queries=("ship = boat",), novel=("truck",)))


# --- made scenes -----------------------------------------------------------------------------------------------------


def test_compositions_that_are_held_out_come_last_and_in_the_test_alone():
    splits = box_splits(AERIAL)
    assert set(NOVEL) == held_out(AERIAL.kinds, AERIAL.colours)
    assert (splits.classes, splits.novel) == (BASE, NOVEL)
    assert [len(s) for s in (splits.train, splits.val, splits.test)] == [6, 3, 12]
    assert list(splits.order) == list(range(6))
    assert seen(splits.train) <= {0, 1}
    assert seen(splits.val) <= {0, 1}
    assert seen(splits.test) == {0, 1, 2, 3}


def test_labels_of_the_test_name_what_was_drawn():
    splits = box_splits(AERIAL)
    made = splits.test.source.source.source  # out of memory, relabelled, named: what the generator made
    for i in range(len(splits.test)):
        drawn = [f"{m.colour} {m.kind}" for m in made.objects(i)]
        assert [(*BASE, *NOVEL)[k] for k in splits.test[i].labels.tolist()] == drawn


def test_made_splits_share_no_scene_and_follow_their_seed():
    splits, other = box_splits(AERIAL), box_splits(replace(AERIAL, seed=1))
    names = [set(s.names) for s in (splits.train, splits.val, splits.test)]
    assert not names[0] & names[1]
    assert not names[0] & names[2]
    assert not names[1] & names[2]
    assert splits.train[0].size == (80, 80)
    assert not torch.equal(splits.train[0].image, other.train[0].image)
    assert torch.equal(splits.train[0].image, box_splits(AERIAL).train[0].image)


def test_kinds_hold_nothing_out_unless_asked_to():
    kinds = replace(AERIAL, classes="kinds")
    splits = box_splits(kinds)
    assert (splits.classes, splits.novel) == (AERIAL.kinds, ())
    splits = box_splits(replace(kinds, novel=("vehicle",)))
    assert (splits.classes, splits.novel) == (("storage tank",), ("vehicle",))
    assert seen(splits.train) == {0}
    assert seen(splits.test) == {0, 1}


def test_further_compositions_can_be_held_out():
    splits = box_splits(replace(AERIAL, novel=("yellow vehicle",)))
    assert (splits.classes, splits.novel) == (BASE[1:], (*NOVEL, "yellow vehicle"))
    assert seen(splits.train) == {0}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"queries": ("yellow vehicel=car",)}, "did you mean `yellow vehicle`?"),
        ({"novel": ("blue vehicle",)}, "`data.novel` names `blue vehicle`"),
        ({"kinds": ("shp",)}, "did you mean `ship`?"),
        ({"height": 64, "kinds": ("ship",)}, "too long for 80x64"),
    ],
)
def test_made_scenes_that_cannot_be(changes, told):
    with pytest.raises(UserError, match=r"aerial|data") as caught:
        box_splits(replace(AERIAL, **changes))
    assert told in str(caught.value)


# --- folders ---------------------------------------------------------------------------------------------------------

CATEGORIES = [{"id": 4, "name": "plane"}, {"id": 7, "name": "ship"}, {"id": 9, "name": "truck"}]


def write_coco(root, split, count, *, first=0, box=(4, 5, 12, 9)) -> None:
    """``count`` images of noise with a box of every class."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for i in range(first, first + count):
        pixels = np.random.default_rng(i).integers(0, 255, (32, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{i}.png")
        images.append({"id": i + 1, "file_name": f"{i}.png", "width": 40, "height": 32})
        for k, category in enumerate(CATEGORIES):
            place = [box[0] + k, *box[1:]]
            annotations.append({"id": 10 * i + k, "image_id": i + 1, "category_id": category["id"], "bbox": place})
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (root / f"{split}.json").write_text(json.dumps(content))


@pytest.fixture
def coco(tmp_path) -> BoxDataSettings:
    write_coco(tmp_path, "train", 6)
    write_coco(tmp_path, "test", 3, first=10)
    return BoxDataSettings(source="auto", root=str(tmp_path), val_share=0.3)


def test_a_folder_with_classes_that_are_never_trained(coco):
    splits = box_splits(replace(coco, novel=("ship",)))
    assert (splits.classes, splits.novel) == (("plane", "truck"), ("ship",))
    assert [len(s) for s in (splits.train, splits.val, splits.test)] == [4, 2, 3]
    assert not set(splits.train.names) & set(splits.val.names)
    assert seen(splits.train) == seen(splits.val) == {0, 1}
    scene = splits.test[0]
    assert dict(zip(scene.labels.tolist(), scene.boxes[:, 0].tolist(), strict=True)) == {0: 4, 1: 6, 2: 5}
    assert scene.image_id == 11


def test_the_validation_images_are_the_test_where_none_is_named(coco):
    splits = box_splits(replace(coco, test="", novel=("truck",)))
    assert splits.test.names == splits.val.names
    assert seen(splits.val) == {0, 1}
    assert seen(splits.test) == {0, 1, 2}


def test_a_folder_with_names_of_no_class(coco):
    with pytest.raises(UserError, match="did you mean `plane`"):
        box_splits(replace(coco, queries=("plaen=aircraft",)))


def test_the_root_may_be_named_by_the_environment(coco, monkeypatch):
    monkeypatch.setenv("BOXES_HERE", coco.root)
    assert len(box_splits(replace(coco, root="$BOXES_HERE")).train) == 4
    with pytest.raises(UserError, match=r"`data\.root` = \$BOXES_NOWHERE: the environment variable is not set"):
        box_splits(replace(coco, root="$BOXES_NOWHERE"))
    with pytest.raises(UserError, match=r"`data\.root` is empty"):
        box_splits(replace(coco, root=""))


def test_problems_stop_or_are_dropped(coco, tmp_path):
    write_coco(tmp_path, "train", 6, box=(50, 5, 12, 9))  # outside
    with pytest.raises(UserError, match=r"box_outside.*boresight data check") as caught:
        box_splits(coco)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"all .* frames have problems"):
        box_splits(replace(coco, on_problem="drop"))
    write_coco(tmp_path, "train", 6)
    (tmp_path / "images" / "2.png").write_bytes(b"")
    with pytest.raises(UserError, match="corrupt_image"):
        box_splits(coco)
    splits = box_splits(replace(coco, on_problem="drop"))
    assert "2.png" not in (*splits.train.names, *splits.val.names)
    assert len(splits.train) + len(splits.val) == 5


def test_one_split_is_looked_at_when_one_is_judged(coco, tmp_path):
    (tmp_path / "images" / "2.png").write_bytes(b"")
    assert len(box_splits(coco, "test").test) == 3
    (tmp_path / "images" / "11.png").write_bytes(b"")
    with pytest.raises(UserError, match="corrupt_image"):
        box_splits(coco, "test")


def test_splits_that_disagree_about_classes_stop(coco, tmp_path):
    content = json.loads((tmp_path / "test.json").read_text())
    content["categories"][1]["name"] = "boat"
    (tmp_path / "test.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="class_names"):
        box_splits(coco)


def test_the_audit_of_a_folder(coco, tmp_path):
    assert not [p for p in check_box_folder(tmp_path, ["train", "test"]) if p.severity == "error"]
    (tmp_path / "images" / "2.png").write_bytes(b"")
    (fault,) = [p for p in check_box_folder(tmp_path, ["train", "test"]) if p.severity == "error"]
    assert (fault.kind, fault.split, fault.name) == ("corrupt_image", "train", "2.png")
