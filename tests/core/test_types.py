from __future__ import annotations

import dataclasses

import pytest
import torch

from boresight.core.types import DenseOutput, DenseTargets, Detections, Points, Scene, frame_brightness


def points(n=3, **more):
    xy = torch.arange(2.0 * n).reshape(n, 2)
    given = {"labels": torch.arange(n), "ignore": torch.arange(n) == 1, "snr": xy[:, 0] + 5, "flux": xy[:, 1] * 100}
    return Points(xy, **given | {"mask": torch.ones(4, 6, dtype=torch.int32)} | more)


def scene(**more):
    given = {"name": "a.png", "image_id": 7, "points": points(), "level": 3.5, "spread": 2.0}
    boxes = {"boxes": torch.rand(2, 4), "labels": torch.tensor([1, 0])}
    return Scene(torch.rand(1, 4, 6), **given | boxes | more)


def output(shape=(2, 3, 4, 5), coarser=(), **more):
    given = {"quality": torch.rand(shape), "cam": torch.rand(shape)}
    return DenseOutput(torch.rand(shape), torch.rand(*shape, 4), stride=4.0, coarser=coarser, **given | more)


def targets(shape=(2, 3, 4, 5), coarser=(), **more):
    given = {
        "positive": torch.zeros(shape, dtype=torch.bool),
        "matched": torch.full(shape, -1),
        "score": torch.rand(shape),
        "ignore": torch.ones(shape, dtype=torch.bool),
        "normaliser": torch.tensor(6.0),
    }
    return DenseTargets(**given | objects(6) | more, coarser=coarser)


def objects(n):
    return {"objects": torch.rand(n, 4), "labels": torch.zeros(n).long(), "counted": torch.ones(n).bool()}


def detections(n=3, **more):
    given = {
        "boxes": torch.rand(n, 4),
        "scores": torch.rand(n),
        "labels": torch.zeros(n).long(),
        "cell": torch.arange(n),
    }
    return Detections(**given | more)


MAKERS = {
    Points: points,
    Scene: scene,
    DenseOutput: lambda: output(coarser=(output((2, 3, 2, 3)), output((2, 3, 1, 2))), sizes=((16, 20), (9, 13))),
    DenseTargets: lambda: targets(coarser=(targets((2, 3, 2, 3), coarser=(targets((2, 3, 1, 2)),)),)),
    Detections: detections,
}
every_type = pytest.mark.parametrize("make", MAKERS.values(), ids=[kind.__name__ for kind in MAKERS])


def leaves(value, path=""):
    """Every value in a dataclass, however deep, as ``(path, value)``."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from leaves(getattr(value, field.name), f"{path}.{field.name}")
    elif isinstance(value, tuple):
        for index, part in enumerate(value):
            yield from leaves(part, f"{path}[{index}]")
    else:
        yield path, value


# --- what all of them share ------------------------------------------------------------------------------------------


@every_type
def test_to_moves_every_tensor_and_keeps_all_else(make):
    """The meta device tells a moved tensor from one that was left behind, on any machine."""
    here = make()
    there = here.to("meta")
    assert type(there) is type(here)
    before, after = dict(leaves(here)), dict(leaves(there))
    assert before.keys() == after.keys()
    for path, value in before.items():
        if isinstance(value, torch.Tensor):
            moved = after[path]
            assert (moved.device.type, moved.shape, moved.dtype) == ("meta", value.shape, value.dtype), path
            assert value.device.type == "cpu", path
        else:
            assert after[path] == value, path


@every_type
def test_to_the_same_device_keeps_the_values(make):
    here = make()
    before, after = dict(leaves(here)), dict(leaves(here.to("cpu")))
    assert any(isinstance(value, torch.Tensor) for value in before.values())
    assert all(torch.equal(value, after[path]) for path, value in before.items() if isinstance(value, torch.Tensor))


@every_type
def test_fields_cannot_be_replaced(make):
    value = make()
    for field in dataclasses.fields(value):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field.name, None)


def test_optional_parts_may_be_absent_and_stay_absent():
    assert Scene(torch.zeros(1, 2, 2), "empty").to("meta").points is None
    assert output(quality=None, cam=None).to("meta").cam is None
    assert Points.of([[1.0, 2.0]]).to("meta").snr is None


WRONG_SHAPES = [
    (lambda: points(labels=torch.zeros(4).long()), r"Points\.labels must have shape \[3\], got \[4\]"),
    (lambda: points(ignore=torch.zeros(3, 1).bool()), r"Points\.ignore must have shape \[3\], got \[3, 1\]"),
    (lambda: points(snr=torch.zeros(2)), r"Points\.snr must have shape \[3\], got \[2\]"),
    (lambda: points(flux=torch.zeros(())), r"Points\.flux must have shape \[3\], got \[\]"),
    (lambda: points(mask=torch.zeros(1, 4, 6).int()), r"Points\.mask must have shape \[\*, \*\], got \[1, 4, 6\]"),
    (lambda: Points(torch.zeros(2, 3), torch.zeros(2), torch.zeros(2)), r"Points\.xy .*\[2, 3\]"),
    (lambda: Points(torch.tensor(1.0), torch.zeros(0), torch.zeros(0)), r"Points\.xy .*got \[\]"),
    (lambda: Points.of(torch.zeros(2, 3)), r"Points\.xy .*\[2, 3\]"),
    (lambda: Points.of([1.0, 2.0, 3.0, 4.0]), r"Points\.xy .*got \[4\]"),
    (lambda: Scene(torch.zeros(4, 6), "a"), r"Scene\.image must have shape \[\*, \*, \*\], got \[4, 6\]"),
    (lambda: scene(boxes=torch.zeros(2, 2)), r"Scene\.boxes must have shape \[\*, 4\], got \[2, 2\]"),
    (lambda: scene(labels=None), r"Scene\.labels must have one entry a box \(2\), got None"),
    (lambda: scene(labels=torch.tensor([1])), r"Scene\.labels must have one entry a box \(2\), got tensor\(\[1\]\)"),
    (lambda: DenseOutput(torch.zeros(3, 4), torch.zeros(3, 4, 4), 4.0), r"DenseOutput\.logits .*got \[3, 4\]"),
    (lambda: output(quality=torch.zeros(2, 3, 5, 4)), r"quality must have shape \[2, 3, 4, 5\], got \[2, 3, 5, 4\]"),
    (lambda: output(cam=torch.zeros(2, 1, 4, 5)), r"cam must have shape \[2, 3, 4, 5\], got \[2, 1, 4, 5\]"),
    (
        lambda: DenseOutput(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4, 2), 4.0),
        r"boxes must have shape \[1, 2, 3, 4, 4\], got \[1, 2, 3, 4, 2\]",
    ),
    (lambda: targets(positive=torch.zeros(3, 4).bool()), r"DenseTargets\.positive .*got \[3, 4\]"),
    (lambda: targets(matched=torch.zeros(2, 3, 4, 4).long()), r"DenseTargets\.matched .*got \[2, 3, 4, 4\]"),
    (lambda: targets(score=torch.zeros(2, 3, 4)), r"DenseTargets\.score .*got \[2, 3, 4\]"),
    (lambda: targets(ignore=torch.zeros(1, 3, 4, 5).bool()), r"DenseTargets\.ignore .*got \[1, 3, 4, 5\]"),
    (lambda: targets(objects=torch.zeros(6, 2)), r"DenseTargets\.objects must have shape \[\*, 4\], got \[6, 2\]"),
    (lambda: targets(labels=torch.zeros(5).long()), r"DenseTargets\.labels must have shape \[6\], got \[5\]"),
    (lambda: targets(counted=torch.ones(6, 1).bool()), r"DenseTargets\.counted must have shape \[6\], got \[6, 1\]"),
    (lambda: targets(normaliser=torch.zeros(1)), r"DenseTargets\.normaliser must have shape \[\], got \[1\]"),
    (lambda: detections(boxes=torch.zeros(3, 2)), r"Detections\.boxes must have shape \[\*, 4\], got \[3, 2\]"),
    (lambda: detections(scores=torch.zeros(2)), r"Detections\.scores must have shape \[3\], got \[2\]"),
    (lambda: detections(labels=torch.zeros(3, 1)), r"Detections\.labels must have shape \[3\], got \[3, 1\]"),
    (lambda: detections(cell=torch.zeros(4)), r"Detections\.cell must have shape \[3\], got \[4\]"),
]


@pytest.mark.parametrize(("make", "message"), WRONG_SHAPES)
def test_a_wrong_shape_is_an_error_that_shows_it(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- points ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [[[1.5, 2], [3, 4]], torch.tensor([[1.5, 2], [3, 4]]), ((1.5, 2.0), (3.0, 4.0))])
def test_points_of_coordinates_count_and_have_class_0(given):
    made = Points.of(given)
    assert made.xy.dtype == torch.float32
    assert made.xy.tolist() == [[1.5, 2], [3, 4]]
    assert (made.labels.dtype, made.labels.tolist()) == (torch.long, [0, 0])
    assert (made.ignore.dtype, made.ignore.tolist()) == (torch.bool, [False, False])
    assert made.snr is made.flux is made.mask is None


@pytest.mark.parametrize("nothing", [[], torch.empty(0, 2), torch.empty(0)])
def test_points_of_nothing(nothing):
    made = Points.of(nothing)
    assert len(made) == 0
    assert made.xy.shape == (0, 2)
    assert made.labels.shape == made.ignore.shape == (0,)


def test_points_of_takes_whole_numbers_and_other_fields():
    made = Points.of(torch.tensor([[1, 2]]), snr=torch.tensor([4.0]), ignore=torch.tensor([True]))
    assert made.xy.dtype == torch.float32
    assert made.snr.tolist() == [4.0]
    assert made.ignore.tolist() == [True]


@pytest.mark.parametrize("keep", [torch.tensor([True, False, True]), torch.tensor([0, 2])])
def test_select_takes_every_field_of_a_point_and_drops_the_mask(keep):
    kept = points().select(keep)
    assert kept.xy.tolist() == [[0, 1], [4, 5]]
    assert kept.labels.tolist() == [0, 2]
    assert kept.ignore.tolist() == [False, False]
    assert kept.snr.tolist() == [5, 9]
    assert kept.flux.tolist() == [100, 500]
    assert kept.mask is None


def test_select_follows_the_order_of_indices_and_keeps_absent_fields_absent():
    chosen = Points.of([[1.0, 1.0], [2.0, 2.0]]).select(torch.tensor([1, 0, 1]))
    assert chosen.xy[:, 0].tolist() == [2, 1, 2]
    assert chosen.snr is None
    assert len(points().select(torch.zeros(3, dtype=torch.bool))) == 0


# --- scene -----------------------------------------------------------------------------------------------------------


def test_scene_size_is_height_then_width():
    assert Scene(torch.zeros(3, 48, 64), "a").size == (48, 64)


def test_unknown_points_are_not_the_same_as_no_points():
    assert Scene(torch.zeros(1, 2, 2), "a").points is None
    assert len(Scene(torch.zeros(1, 2, 2), "a", points=Points.of([])).points) == 0


def test_frame_brightness_by_hand():
    """Mean and population deviation: of 1, 1, 5, 5 they are 3 and 2 (the sample deviation would be 2.31)."""
    assert frame_brightness(torch.tensor([[[1.0, 1.0], [5.0, 5.0]]])) == (3.0, 2.0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float64, torch.uint16])
def test_frame_brightness_of_any_storage(dtype):
    assert frame_brightness(torch.tensor([[[1, 1], [5, 5]]]).to(dtype)) == (3.0, 2.0)


@pytest.mark.parametrize("value", [0.0, 7.0, 0.1, 1000.1, 40000.1, 65535.0])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 480, 640), (3, 257, 301)])
def test_a_constant_frame_has_spread_1(value, shape):
    """Sums round: the float32 mean of 307200 times 65535 is not 65535, and a spread of 0.008 would come of it."""
    level, spread = frame_brightness(torch.full(shape, value))
    assert spread == 1.0
    assert level == pytest.approx(value, rel=1e-6)


def test_one_lit_pixel_is_not_a_constant_frame():
    image = torch.full((1, 10, 10), 20.0)
    image[0, 3, 4] = 30.0
    level, spread = frame_brightness(image)
    assert level == pytest.approx(20.1, rel=1e-6)
    assert spread == pytest.approx((0.01 * 0.99) ** 0.5 * 10, rel=1e-5)


# --- dense -----------------------------------------------------------------------------------------------------------


def test_boxes_of_a_class_agnostic_head_stay_a_view():
    boxes = torch.rand(2, 1, 4, 5, 4).expand(-1, 3, -1, -1, -1)
    made = DenseOutput(torch.rand(2, 3, 4, 5), boxes, 4.0).to("cpu")
    assert made.boxes.stride(1) == 0
    assert made.boxes.data_ptr() == boxes.data_ptr()


def test_coarser_levels_keep_their_order_and_stride():
    fine = DenseOutput(
        torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4, 4), 4.0, coarser=(output(), output((1, 1, 1, 1)))
    )
    moved = fine.to("meta")
    assert [tuple(level.logits.shape) for level in moved.coarser] == [(2, 3, 4, 5), (1, 1, 1, 1)]
    assert isinstance(moved.coarser, tuple)


def test_positives_per_object_by_hand():
    """Object 0 has two positive cells, 1 none (its cell is matched but not positive), 2 one in the other image."""
    matched = torch.tensor([[0, 0, 1, -1], [-1, 2, -1, -1]]).reshape(2, 1, 2, 2)
    positive = torch.tensor([[True, True, False, False], [False, True, False, False]]).reshape(2, 1, 2, 2)
    made = targets((2, 1, 2, 2), matched=matched, positive=positive, **objects(3))
    assert made.positives_per_object().tolist() == [2, 0, 1]
    assert made.positives_per_object().dtype == torch.long


@pytest.mark.parametrize("count", [0, 2])
def test_positives_per_object_without_any(count):
    assert targets(**objects(count)).positives_per_object().tolist() == [0] * count


# --- detections ------------------------------------------------------------------------------------------------------


def test_the_position_of_a_detection_is_its_box_centre():
    found = detections(2, boxes=torch.tensor([[0.0, 2.0, 4.0, 8.0], [3.0, 3.0, 3.0, 3.0]]))
    assert found.xy.tolist() == [[2, 5], [3, 3]]


def test_detections_at_points_have_boxes_of_size_zero():
    found = Detections.at(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([0.9, 0.5]))
    assert found.boxes.tolist() == [[1, 2, 1, 2], [3, 4, 3, 4]]
    assert found.xy.tolist() == [[1, 2], [3, 4]]
    assert (found.labels.dtype, found.labels.tolist()) == (torch.long, [0, 0])
    assert (found.cell.dtype, found.cell.tolist()) == (torch.long, [-1, -1])


def test_detections_at_keep_what_is_given():
    xy, labels, cell = torch.zeros(1, 2), torch.tensor([3]), torch.tensor([41])
    found = Detections.at(xy, torch.ones(1), labels, cell)
    assert (found.labels.tolist(), found.cell.tolist()) == ([3], [41])


def test_no_detections():
    none = Detections.at(torch.empty(0, 2), torch.empty(0))
    assert len(none) == 0
    assert none.xy.shape == (0, 2)


@pytest.mark.parametrize("keep", [torch.tensor([False, True, True]), torch.tensor([1, 2])])
def test_selected_detections_keep_their_cells(keep):
    found = detections()
    kept = found.select(keep)
    assert kept.cell.tolist() == [1, 2]
    for name in ("boxes", "scores", "labels"):
        assert torch.equal(getattr(kept, name), getattr(found, name)[1:])


# --- inputs are left as they were -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "call"),
    [
        (points, lambda v: v.select(torch.tensor([2, 0]))),
        (points, lambda v: v.to("meta")),
        (scene, lambda v: v.to("meta")),
        (scene, lambda v: frame_brightness(v.image)),
        (points, lambda v: Points.of(v.xy, labels=v.labels)),
        (detections, lambda v: v.select(torch.tensor([2, 0]))),
        (detections, lambda v: v.xy),
        (detections, lambda v: Detections.at(v.boxes[:, :2], v.scores)),
        (MAKERS[DenseOutput], lambda v: v.to("meta")),
        (MAKERS[DenseTargets], lambda v: v.to("meta")),
        (targets, lambda v: v.positives_per_object()),
    ],
)
def test_nothing_is_written_into_the_callers_tensors(make, call):
    value = make()
    before = {path: v.clone() if isinstance(v, torch.Tensor) else v for path, v in leaves(value)}
    call(value)
    for path, now in leaves(value):
        assert torch.equal(now, before[path]) if isinstance(now, torch.Tensor) else now == before[path], path
