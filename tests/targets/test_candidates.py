"""The truth of a batch: what is read, kept apart, refused; what the host knows of a map."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from boresight.core.types import DenseOutput
from boresight.targets.candidates import MapShape, Objects
from boresight.targets.cells import cells_inside


def output(*shape, expand=None, sizes=(), stride=8.0):
    logits = torch.zeros(shape)
    boxes = torch.zeros(*shape, 4) if expand is None else torch.zeros(shape[0], 1, *shape[2:], 4).expand(*shape, 4)
    return DenseOutput(logits, boxes, stride, sizes=sizes)


def test_objects_are_listed_image_by_image_and_crowds_apart(build):
    a = build.scene([[0, 0, 8, 8], [8, 8, 16, 16]], [1, 0], ignore=[False, True])
    b = build.scene([])
    c = build.scene([[1, 1, 9, 9]], [2])
    objects = Objects.of([a, b, c], 3)
    assert objects.boxes.tolist() == [[0, 0, 8, 8], [1, 1, 9, 9]]
    assert objects.labels.tolist() == [1, 2]
    assert objects.image.tolist() == [0, 2]
    assert objects.images == 3
    assert objects.crowd.boxes.tolist() == [[8, 8, 16, 16]]
    assert objects.crowd.labels.tolist() == [0]


@pytest.mark.parametrize("scenes", [0, 2])
def test_nothing_is_no_object(build, scenes):
    objects = Objects.of([build.scene([])] * scenes, 1)
    assert objects.boxes.shape == (0, 4)
    assert len(objects.crowd) == 0


@pytest.mark.parametrize(
    ("box", "label", "words"),
    [
        ([0, 0, 8, 8], 3, r"b\.png.*box 1.*class 3.*0\.\.2"),
        ([0, 0, 8, 8], -1, r"b\.png.*label outside"),
        ([4, 0, 4, 8], 0, r"b\.png.*no area"),
        ([8, 0, 4, 8], 0, r"b\.png.*no area"),
        ([0, 0, float("nan"), 8], 0, r"b\.png.*not finite"),
        ([64, 0, 70, 8], 0, r"b\.png \(64 x 64 px\).*outside its image"),
    ],
)
def test_a_bad_box_is_named(build, box, label, words):
    scenes = [build.scene([[0, 0, 8, 8]]), build.scene([[0, 0, 8, 8], box], [0, label], name="b.png")]
    with pytest.raises(ValueError, match=words):
        Objects.of(scenes, 3)


def test_unknown_is_not_empty(build):
    with pytest.raises(ValueError, match=r"c\.png has no box truth"):
        Objects.of([build.scene([]), replace(build.scene([], name="c.png"), boxes=None, labels=None)], 1)


def test_a_crowd_may_be_cut_to_nothing(build):
    crowd = build.scene([[4, 4, 4, 8], [70, 0, 80, 8]], ignore=[True, True])
    assert len(Objects.of([crowd], 1).crowd) == 2


def test_a_map_ends_where_its_image_ends():
    shape = MapShape.of(output(2, 1, 8, 8, sizes=((64, 64), (17, 24))))
    assert shape.ends.tolist() == [[8, 8], [3, 3]]
    assert MapShape.of(output(2, 1, 8, 9)).ends.tolist() == [[9, 8], [9, 8]]
    with pytest.raises(ValueError, match="2 images and 1 sizes"):
        MapShape.of(output(2, 1, 8, 8, sizes=((64, 64),)))


def test_a_box_is_shared_by_classes_or_not():
    assert MapShape.of(output(2, 3, 4, 5, expand=True)).keys == 2 * 4 * 5
    assert MapShape.of(output(2, 3, 4, 5)).keys == 2 * 3 * 4 * 5
    assert MapShape.of(output(2, 1, 4, 5)).shared


def test_the_truth_must_be_of_the_same_batch(build):
    with pytest.raises(ValueError, match="the output has 2 images, the truth 1"):
        cells_inside(Objects.of([build.scene([])], 1), MapShape.of(output(2, 1, 4, 4)))


def test_what_a_candidate_knows(build):
    """One object of class 1 in image 1 of a 4 x 3 map: the two cells whose centres it holds."""
    scenes = [build.scene([]), build.scene([[6, 9, 21, 14]], [1])]
    c = cells_inside(Objects.of(scenes, 2), MapShape.of(output(2, 2, 3, 4)))
    assert [c.image.tolist(), c.label.tolist()] == [[1, 1], [1, 1]]
    assert [c.row.tolist(), c.column.tolist()] == [[1, 1], [1, 2]]
    assert c.xy.tolist() == [[12.0, 12.0], [20.0, 12.0]]
    assert c.centre_offset.tolist() == [[-1.5 / 8, 0.5 / 8], [6.5 / 8, 0.5 / 8]]
    assert c.inside.tolist() == [True, True]
    assert c.flat.tolist() == [(1 * 2 + 1) * 12 + 5, (1 * 2 + 1) * 12 + 6]
    assert torch.equal(c.key, c.flat)
    shared = cells_inside(Objects.of(scenes, 2), MapShape.of(output(2, 2, 3, 4, expand=True)))
    assert shared.key.tolist() == [12 + 5, 12 + 6]
