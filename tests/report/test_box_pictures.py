"""Pictures with boxes: what is cut out, what is marked, which rows are shown, worked out by hand."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from boresight.core.types import Scene
from boresight.report.box_pictures import (
    DRAWN,
    LEAST_CROP,
    counted,
    crop_of,
    crop_window,
    in_words,
    jpeg,
    one_a_place,
    scene_view,
    stacked,
    truth_marks,
    worst,
)

CLASSES = ("red ship", "blue ship")


def row(kind: str, box=(10.0, 10.0, 30.0, 20.0), score: float | None = 0.5, **more) -> dict:
    place = dict(zip(("x0", "y0", "x1", "y1"), box, strict=True))
    base = {"image": "a", "class": CLASSES[0], "iou": 0.25 if score is not None else None, "object": -1}
    return base | place | {"score": score, "kind": kind} | more


@pytest.fixture
def scene() -> Scene:
    image = torch.zeros(3, 100, 200, dtype=torch.uint8)
    image[0, 10:20, 10:30] = 255
    boxes = torch.tensor([[10.0, 10, 30, 20], [100.0, 50, 140, 90], [150.0, 0, 200, 50]])
    return Scene(image, "a", boxes=boxes, labels=torch.tensor([0, 1, 1]), ignore=torch.tensor([False, False, True]))


def decoded(data: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(data.split(",")[1])))


def test_a_picture_keeps_its_colours_and_is_no_larger_than_asked(scene):
    whole = decoded(jpeg(scene.image, 640))
    assert whole.size == (200, 100)
    red, green, blue = np.asarray(whole)[15, 20]
    assert red > 200
    assert max(green, blue) < 60
    assert decoded(jpeg(scene.image, 50)).size == (50, 25)


@pytest.mark.parametrize("channels", [1, 4])
def test_any_number_of_channels_and_floats_make_a_picture(channels):
    pixels = np.asarray(decoded(jpeg(torch.full((channels, 8, 8), 300.0), 8)))
    assert pixels.shape == (8, 8, 3)
    assert pixels.min() > 250


def test_truth_that_need_not_be_found_is_marked_so(scene):
    assert [(m.kind, m.name) for m in truth_marks(scene, CLASSES)] == [
        ("truth", "red ship"),
        ("truth", "blue ship"),
        ("dont_care", "blue ship"),
    ]
    assert truth_marks(Scene(scene.image, "unknown"), CLASSES) == []


def test_a_view_holds_truth_and_rows(scene):
    rows = [row("hit"), row("missed", score=None), row("ignored")]
    view = scene_view(scene, "k", "run", rows, CLASSES)
    assert (view.width, view.height) == (200, 100)
    assert view.counts == "1 hit, 1 missed"
    assert [m.kind for m in view.marks] == ["truth", "truth", "dont_care", "ignored", "missed", "hit"]
    assert view.marks[-1].text == "hit: red ship, score 0.500, IoU 0.25"
    assert counted([]) == "nothing found"


def test_a_miss_has_no_score():
    assert in_words(row("missed", score=None)) == "missed: red ship"


def test_boxes_in_one_place_are_drawn_once_and_counted():
    first, near = row("false_alarm", score=0.4), row("false_alarm", (10.0, 10.0, 29.0, 20.0), 0.9)  # IoU 0.95
    apart = row("false_alarm", (10.0, 10.0, 25.0, 20.0), 0.6)  # IoU 0.75 and 0.79
    assert stacked([first, near, apart]) == [(near, 1), (apart, 0)]
    assert stacked([]) == []


def test_hits_lie_above_errors_and_a_mark_says_how_many_it_stands_for(scene):
    wrong = [row("wrong_class", score=s) for s in (0.3, 0.7, 0.5)]
    view = scene_view(scene, "k", "run", [row("hit"), *wrong, row("missed", score=None)], CLASSES)
    assert [m.kind for m in view.marks[3:]] == ["wrong_class", "missed", "hit"]
    assert view.marks[3].name == "red ship 0.70 +2"
    assert view.marks[3].text.endswith("score 0.700, IoU 0.25 (and 2 more here)")
    assert view.counts == "1 hit, 1 missed, 3 wrong class"


def test_of_many_errors_the_surest_are_drawn_and_the_rest_are_counted(scene):
    places = [(10.0 * i, 0.0, 10.0 * i + 9, 9.0) for i in range(DRAWN + 5)]
    rows = [row("false_alarm", place, i / 1000) for i, place in enumerate(places)] + [row("hit", score=0.0)]
    view = scene_view(scene, "k", "run", rows, CLASSES)
    alarms = [m for m in view.marks if m.kind == "false_alarm"]
    assert sorted(m.box for m in alarms) == places[5:]
    assert [m.kind for m in view.marks].count("hit") == 1
    assert view.counts == f"1 hit, {DRAWN + 5} false alarms (5 places with less sure errors are not drawn)"


@pytest.mark.parametrize(
    ("box", "window"),
    [
        ((90.0, 40.0, 110.0, 60.0), (76, 26, 48, 48)),  # small: the least side, centred
        ((0.0, 0.0, 10.0, 10.0), (0, 0, 48, 48)),  # at a corner: moved in
        ((80.0, 45.0, 120.0, 55.0), (56, 6, 88, 88)),  # 2.2 times the longer side
        ((0.0, 0.0, 200.0, 100.0), (0, 0, 200, 100)),  # everything
    ],
)
def test_a_crop_by_hand(box, window):
    assert crop_window(box, (100, 200)) == window


sides = st.floats(-20, 320, allow_nan=False)


@given(x=sides, y=sides, w=st.floats(0, 300), h=st.floats(0, 300), wide=st.integers(1, 300), tall=st.integers(1, 300))
def test_a_crop_lies_in_the_image(x, y, w, h, wide, tall):
    left, top, width, height = crop_window((x, y, x + w, y + h), (tall, wide))
    assert 0 <= left <= wide - width
    assert 0 <= top <= tall - height
    assert width >= min(wide, LEAST_CROP)
    assert height >= min(tall, LEAST_CROP)


def test_a_crop_names_the_right_class_and_marks_the_truth_near_it(scene):
    wrong = row("wrong_class", (100.0, 50.0, 140.0, 90.0), 0.7, object=1, iou=1.0)
    picture = crop_of(scene, wrong, CLASSES)
    assert picture.caption == ("red ship (is: blue ship)", "score 0.700, IoU 1.00", "a")
    assert [m.kind for m in picture.marks] == ["truth", "dont_care", "wrong_class"]  # the first object is far away
    assert picture.view == (76, 12, 88, 88)
    assert decoded(picture.data).size == (88, 88)
    missed = crop_of(scene, row("missed", score=None), CLASSES)
    assert missed.caption == ("red ship", "20 x 10 px", "a")


def test_the_worst_come_first():
    small, large = row("missed", (0.0, 0.0, 5.0, 5.0), None), row("missed", (0.0, 0.0, 50.0, 5.0), None)
    sure, unsure = row("false_alarm", score=0.9), row("false_alarm", score=0.1)
    rows = [unsure, small, sure, large]
    assert worst(rows, "missed") == [large, small]
    assert worst(rows, "false_alarm") == [sure, unsure]


def test_a_place_is_shown_once_an_image():
    first, same = row("false_alarm", score=0.9), row("false_alarm", (11.0, 10.0, 31.0, 20.0), 0.8)
    apart, elsewhere = row("false_alarm", (60.0, 10.0, 80.0, 20.0), 0.7), row("false_alarm", score=0.6, image="b")
    assert one_a_place([first, same, apart, elsewhere]) == [first, apart, elsewhere]
    assert one_a_place([]) == []
