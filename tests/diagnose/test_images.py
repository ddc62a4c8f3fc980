"""Looking at images and labels alone: answers worked out by hand, and the rules on both sides of their limits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from boresight.core.emission import Missing
from boresight.core.types import Points, Proposals, Scene
from boresight.diagnose import rules_images, rules_truth
from boresight.diagnose.evidence import ClassLook, Labels, SplitLabels
from boresight.diagnose.images import LabelForm, Leak, Pixels, Placed, Repeats
from boresight.diagnose.measure_images import leak_of, pixels_of, repeats_of
from boresight.diagnose.measure_truth import READINGS, forms_of, placed_of
from boresight.diagnose.plan import Plan
from boresight.features.image_hash import image_key

PLAN = Plan(augmented=True)


def scene(image: torch.Tensor, boxes: list[list[float]] | None = None, **more) -> Scene:
    given = None if boxes is None else torch.tensor(boxes).reshape(-1, 4)
    labels = None if given is None else torch.zeros(len(given), dtype=torch.long)
    return Scene(image, "a", boxes=given, labels=labels, **more)


def drawn(seed: int, count: int = 3, size: tuple[int, int] = (60, 80)) -> Scene:
    """Bright rectangles on a dark ramp, boxed exactly."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    image = torch.rand(3, height, width, generator=generator) * 20 + torch.arange(width) / 4
    boxes = []
    for i in range(count):
        x, y = (int(torch.randint(2, end, (), generator=generator)) for end in (width // count - 14, height - 14))
        x += i * (width // count)
        image[:, y : y + 8, x : x + 12] += 120
        boxes.append([x, y, x + 12.0, y + 8.0])
    return scene(image, boxes)


SCENES = [drawn(i) for i in range(16)]


# --- pixels ----------------------------------------------------------------------------------------------------------


def flat(*colour: float) -> Scene:
    return scene(torch.tensor(colour)[:, None, None].expand(3, 4, 4).clone())


def test_means_and_contrast_of_four_flat_images():
    dark, bright = [flat(10, 20, 30)] * 4, [flat(20, 20, 10)] * 2 + [flat(40, 20, 10)] * 2
    one, other = pixels_of({"train": dark, "val": bright})
    assert one.mean == (10, 20, 30, -20)
    assert one.between == (0, 0, 0, 0)
    assert one.contrast == pytest.approx((200 / 3) ** 0.5)
    assert other.mean == (30, 20, 10, 20)
    assert other.between == (10, 0, 0, 10)
    assert isinstance(pixels_of({"train": dark, "val": bright[:3]}), Missing)


def test_a_frame_is_seen_as_its_detector_sees_it():
    frames = [replace(flat(10, 10, 10), level=10.0, spread=2.0)] * 4
    one, _ = pixels_of({"train": frames, "val": frames})
    assert one.mean == (0, 0, 0, 0)


def pixels(name: str, mean: float, contrast: float, between: float = 5.0) -> Pixels:
    return Pixels(name, 32, (mean, mean, mean, 0.0), (between, between, between, 1.0), contrast)


def test_another_range_is_an_error_and_another_brightness_a_warning():
    train = pixels("train", 100, 40)
    assert rules_images.inputs_differ((train, pixels("val", 115, 12)), PLAN) == []
    (range_,) = rules_images.inputs_differ((train, pixels("val", 0.4, 0.16)), PLAN)
    assert (range_.severity, range_.id) == ("error", "inputs-differ")
    (bright,) = rules_images.inputs_differ((train, pixels("views", 125, 40)), PLAN)
    assert (bright.severity, "training views" in bright.title) == ("warning", True)
    assert isinstance(rules_images.inputs_differ((pixels("val", 1, 1), pixels("views", 1, 1)), PLAN), Missing)


def coloured(red: float, blue: float, n: int = 10) -> SplitLabels:
    look = ClassLook(n, (1.0, 0.0, red, 0.5, blue), (0.1, 0.1, 0.05, 0.05, 0.05))
    return SplitLabels("x", (), {0: n}, {0: look})


def tinted(name: str, tint: float) -> Pixels:
    return Pixels(name, 25, (100 + tint, 100, 100, tint), (20, 20, 20, 10), 40)


@pytest.mark.parametrize(
    ("val", "tint", "says"),
    [
        (coloured(0.8, 0.2), 10, []),
        (coloured(0.2, 0.8), 10, ["error"]),  # objects decide, whatever the images look like
        (coloured(0.8, 0.2), -20, []),
        (coloured(0.2, 0.8, n=3), -20, ["warning"]),  # too few objects: the images decide
        (coloured(0.2, 0.8, n=3), 20, []),
    ],
)
def test_red_and_blue_exchanged(val, tint, says):
    colours = rules_images.Colours(
        (tinted("train", 20), tinted("val", tint)), Labels(("a",), (coloured(0.8, 0.2), val))
    )
    assert [f.severity for f in rules_images.channels_exchanged(colours, PLAN)] == says


def test_without_colour_nothing_is_said_of_channels():
    grey = (Pixels("train", 9, (1, 0), (1, 0), 1), Pixels("val", 9, (1, 0), (1, 0), 1))
    pale = (tinted("train", 1), tinted("val", -1))
    for pair in (grey, pale):
        assert isinstance(rules_images.channels_exchanged(rules_images.Colours(pair, Missing("none")), PLAN), Missing)


# --- splits and views ------------------------------------------------------------------------------------------------


def test_an_image_of_both_splits_is_found_by_its_pixels_and_not_by_its_name():
    a, b, c = (image_key(torch.full((1, 2, 2), value)) for value in (1.0, 2.0, 3.0))
    assert leak_of({"x": a, "y": b}, {"x": c, "z": b}) == Leak(2, 1, "z")
    assert isinstance(leak_of({}, {"x": a}), Missing)
    assert rules_images.leak(Leak(64, 0, ""), PLAN) == []
    assert [rules_images.leak(Leak(20, n, "z"), PLAN)[0].severity for n in (1, 3)] == ["warning", "error"]


def test_views_that_never_change():
    one, two = flat(1, 2, 3), flat(1, 2, 4)
    assert repeats_of([[one, one, one], [one, two, one], [two]]) == Repeats(2, 1, 3)
    boxes = [Proposals(torch.full((1, 4), v), torch.zeros(1).long(), torch.ones(1)) for v in (1.0, 2.0)]
    assert repeats_of([[replace(one, proposals=p) for p in boxes]]).same == 0
    assert isinstance(repeats_of([[one]]), Missing)
    assert rules_images.views_repeat(Repeats(4, 1, 3), PLAN) == []
    assert [f.id for f in rules_images.views_repeat(Repeats(4, 4, 3), PLAN)] == ["views-repeat"]
    assert isinstance(rules_images.views_repeat(Repeats(4, 4, 3), Plan(augmented=False)), Missing)


# --- labels ----------------------------------------------------------------------------------------------------------


def test_boxes_that_are_none_outside_or_twins():
    image = torch.zeros(3, 50, 100)
    boxes = [[10, 10, 20, 20], [10, 10, 20, 20.5], [30, 30, 25, 40], [90, 10, 130, 20], [60, 10, 60, 20]]
    (form,) = forms_of({"val": [scene(image, boxes)]})
    assert form == LabelForm("val", objects=5, empty=2, outside=1, twins=1)
    ignored = replace(scene(image, boxes), ignore=torch.tensor([False, True, True, True, True]))
    assert forms_of({"val": [ignored]}) == (LabelForm("val", 1, 0, 0, 0),)
    points = Scene(image[:1], "p", points=Points.of([[5, 5], [5.2, 5], [101, 20]]))
    assert forms_of({"val": [points]}) == (LabelForm("val", objects=3, empty=0, outside=1, twins=1),)
    assert isinstance(forms_of({"val": [scene(image, [])]}), Missing)


def test_shares_of_labels_on_both_sides_of_their_limits():
    assert rules_truth.invalid((LabelForm("val", 200, 1, 1, 0),), PLAN) == []
    found = rules_truth.invalid((LabelForm("train", 200, 3, 1, 0), LabelForm("val", 200, 30, 1, 0)), PLAN)
    assert [f.severity for f in found] == ["warning", "error"]
    assert rules_truth.twins((LabelForm("val", 200, 0, 0, 4),), PLAN) == []
    assert [f.id for f in rules_truth.twins((LabelForm("val", 200, 0, 0, 6),), PLAN)] == ["labels-twice"]
    assert isinstance(rules_truth.twins((LabelForm("val", 10, 0, 0, 6),), PLAN), Missing)


def test_labels_of_rectangles_lie_on_them():
    (placed,) = placed_of({"val": SCENES})
    assert placed.objects == 48
    assert placed.elsewhere > 0.95
    assert placed.better < 0.2
    assert rules_truth.off_objects((placed,), PLAN) == []


def back(name: str):
    """Labels that are right again when they are read in that way."""
    undo = {
        "x, y, width, height": lambda b, w, h: torch.cat((b[:, :2], b[:, 2:] - b[:, :2]), 1),
        "middle, width, height": lambda b, w, h: torch.cat(((b[:, :2] + b[:, 2:]) / 2, b[:, 2:] - b[:, :2]), 1),
        "of an image of half the size": lambda b, w, h: b / 2,
        "of an image of twice the size": lambda b, w, h: b * 2,
        "shares of the image": lambda b, w, h: b / torch.tensor([w, h, w, h]),
        "turned by 90 degrees": READINGS["turned by 270 degrees"],
        "turned by 270 degrees": READINGS["turned by 90 degrees"],
    }
    return undo.get(name, READINGS[name])


@pytest.mark.parametrize("reading", READINGS)
def test_every_reading_is_recognised(reading):
    square = [drawn(i, size=(90, 90)) for i in range(16)]
    wrong = [replace(s, boxes=back(reading)(s.boxes, 90.0, 90.0)) for s in square]
    (placed,) = placed_of({"val": wrong})
    assert placed.other == reading
    (finding,) = rules_truth.off_objects((placed,), PLAN)
    assert (finding.severity, reading in finding.title) == ("error", True)


def test_labels_of_other_images_lie_on_nothing():
    others = [replace(s, boxes=SCENES[i - 1].boxes + 7) for i, s in enumerate(SCENES)]
    (finding,) = rules_truth.off_objects(placed_of({"val": others, "train": SCENES}), PLAN)
    assert (finding.severity, "`val`" in finding.title) == ("warning", True)
    few = Placed("val", 12, 0.5, "x", 0.5, 12)
    assert rules_truth.off_objects((few,), PLAN) == []


def test_what_is_looked_at_is_left_as_it_was():
    before = SCENES[0].image.clone(), SCENES[0].boxes.clone()
    placed_of({"val": SCENES[:4]})
    pixels_of({"a": SCENES[:4], "b": SCENES[:4]})
    assert torch.equal(before[0], SCENES[0].image)
    assert torch.equal(before[1], SCENES[0].boxes)
