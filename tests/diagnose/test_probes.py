"""Asking a detector: on one whose answers can be worked out by hand, and nothing of which may change by being asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from boresight.core.emission import Missing
from boresight.core.grid import cell_centres
from boresight.core.types import DenseOutput, DenseTargets, Detections, Points, Scene
from boresight.diagnose import measure_places, measure_scores, measure_weights
from boresight.diagnose.asked import in_mode, inference_loss
from boresight.diagnose.evidence import ClassLook, Evidence, Labels, SplitLabels
from boresight.diagnose.health import health
from boresight.diagnose.measure_labels import labels_of, operating
from boresight.diagnose.plan import Plan
from boresight.diagnose.probe import (
    AbsentPeaks,
    Activation,
    Averaged,
    Learned,
    Level,
    MapFit,
    Moved,
    Offset,
    Operating,
    PaddingShift,
    Parity,
    Probe,
    Pull,
    Reach,
    RoundTrip,
    Spread,
    Start,
    Stored,
)
from boresight.targets.gaussian import gaussian_kernel, point_targets

STRIDE = 4.0


class Toy(nn.Module):
    """Says of every 4 px cell how bright its middle is (times a weight, plus a bias); a point lies in the middle."""

    def __init__(self, weight: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.read = nn.Conv2d(1, 1, 1)
        self.norm = nn.BatchNorm2d(1)
        self.drop = nn.Dropout(0.5)
        with torch.no_grad():
            self.read.weight.fill_(weight)
            self.read.bias.fill_(bias)  # type: ignore[union-attr]

    def forward(self, scenes: Any) -> DenseOutput:
        image = torch.stack([s.image[:, 2::4, 2::4] for s in scenes])
        logits = self.read(image) + 0 * self.norm(self.drop(image))
        centre = cell_centres(*logits.shape[-2:], STRIDE)
        boxes = torch.cat((centre, centre), dim=-1).expand(*logits.shape, 4)
        return DenseOutput(logits, boxes, STRIDE, sizes=tuple(s.size for s in scenes))

    def assign(self, output: DenseOutput, scenes: Any) -> DenseTargets:
        rows, columns = output.logits.shape[-2:]
        points = [s.points for s in scenes]
        return point_targets(
            points, classes=1, rows=rows, columns=columns, stride=STRIDE, kernel=gaussian_kernel(0.1), reach=1
        )

    def loss(self, output: DenseOutput, targets: DenseTargets) -> dict[str, Tensor]:
        wanted = targets.positive.float()
        score = nn.functional.binary_cross_entropy_with_logits(output.logits, wanted)
        return {"cls": score, "place": output.boxes.mean() * 0 + 1.0}

    def decode(self, output: DenseOutput) -> list[Detections]:
        found = []
        for logits, boxes in zip(output.logits, output.boxes, strict=True):
            place = (logits[0] > 0).flatten().nonzero()[:, 0]
            scores = logits[0].flatten()[place].sigmoid()
            found.append(Detections(boxes[0].reshape(-1, 4)[place], scores, torch.zeros_like(place), place))
        return found


class Padded(Toy):
    """Pads to the largest image of the batch; ``front``: at the top and left."""

    front = False

    def forward(self, scenes: Any) -> DenseOutput:
        side = max(max(s.size) for s in scenes)

        def grown(s: Scene) -> Scene:
            gap = (side - s.size[1], side - s.size[0])
            pad = (gap[0], 0, gap[1], 0) if self.front else (0, gap[0], 0, gap[1])
            return replace(s, image=nn.functional.pad(s.image, pad, value=-4.0))

        return super().forward([grown(s) for s in scenes])


def scene(*cells: tuple[int, int], size: int = 32, low: float = -4.0, name: str = "a") -> Scene:
    """An image whose cells ``(column, row)`` are bright (+4) and hold a point, all others dark."""
    image = torch.full((1, size, size), low)
    for x, y in cells:
        image[0, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4] = 4.0
    return Scene(image, name, points=Points.of([[4 * x + 2.0, 4 * y + 2.0] for x, y in cells]))


PAIR = [scene((1, 2), (5, 5)), scene((3, 3), name="b")]


# --- nothing changes -------------------------------------------------------------------------------------------------


def test_modes_and_statistics_are_as_they_were():
    detector = Toy()
    detector.train()
    detector.drop.eval()
    before = {k: v.clone() for k, v in detector.state_dict().items()}
    with in_mode(detector, training=True):
        assert detector.drop.training
        detector(PAIR)
    assert detector.training
    assert not detector.drop.training
    assert all(torch.equal(before[k], v) for k, v in detector.state_dict().items())


@pytest.mark.parametrize(
    "question",
    [
        lambda d: measure_scores.start(d, PAIR),
        lambda d: measure_scores.learned(d, PAIR),
        lambda d: measure_scores.pull(d, PAIR),
        lambda d: measure_scores.levels_and_spread(d, PAIR),
        lambda d: measure_scores.peaks(d, PAIR),
        lambda d: measure_places.round_trip(d, PAIR),
        lambda d: measure_places.padding(d, PAIR),
        lambda d: measure_places.reach(d, PAIR, [2, 1]),
        lambda d: measure_weights.parity(d, PAIR),
        lambda d: measure_weights.activation(d, PAIR),
        lambda d: inference_loss(d, PAIR),
    ],
)
def test_asking_changes_neither_weights_nor_gradients_nor_scenes(question):
    detector = Padded().train()
    before = {k: v.clone() for k, v in detector.state_dict().items()}
    images, points = [s.image.clone() for s in PAIR], [s.points.xy.clone() for s in PAIR]  # type: ignore[union-attr]
    question(detector)
    assert detector.training
    assert all(p.grad is None for p in detector.parameters())
    assert all(torch.equal(before[k], v) for k, v in detector.state_dict().items())
    assert all(torch.equal(a, s.image) for a, s in zip(images, PAIR, strict=True))
    assert all(torch.equal(a, s.points.xy) for a, s in zip(points, PAIR, strict=True))  # type: ignore[union-attr]
    assert not any(module._forward_hooks for module in detector.modules())


# --- answers ---------------------------------------------------------------------------------------------------------


def test_how_a_detector_starts():
    found = measure_scores.start(Toy(weight=0.0), PAIR)
    assert isinstance(found, Start)
    assert found.score == pytest.approx(0.5)
    assert found.rate == pytest.approx(3 / 128)
    assert found.loss == pytest.approx(0.6931, abs=1e-4)
    assert found.constant < 0.12  # the entropy of 3 of 128 is 0.11


def test_what_has_been_learned_lies_between_a_constant_and_the_targets():
    none, some = (measure_scores.learned(Toy(weight=w), PAIR) for w in (0.0, 1.0))
    assert isinstance(none, Learned)
    assert isinstance(some, Learned)
    assert none.constant == pytest.approx(some.constant)
    assert none.floor < 1e-4
    assert some.loss == pytest.approx(0.0182, abs=1e-3)  # softplus(-4) everywhere
    assert some.precision == 1.0
    assert some.objects == 3
    assert isinstance(measure_scores.learned(Toy(), [scene()]), Missing)


def test_the_pull_of_a_half_everywhere_is_the_count_of_cells():
    found = measure_scores.pull(Toy(weight=0.0), PAIR)
    assert isinstance(found, Pull)
    assert found.positive / (found.positive + found.negative) == pytest.approx(3 / 128)


def test_levels_and_shares():
    levels, spread = measure_scores.levels_and_spread(Toy(), PAIR)
    assert levels == (Level(4.0, 128, 3),)
    assert spread == Spread(3, 0, 1.0, 1)


def test_truth_comes_back_from_where_it_was_put():
    assert measure_places.round_trip(Toy(), PAIR) == RoundTrip(3, 0.0, 0, 0.0, 0.0)
    assert isinstance(measure_places.round_trip(Toy(), [scene()]), Missing)


def test_truth_that_comes_back_elsewhere_or_not_at_all():
    class Aside(Toy):
        def decode(self, output: DenseOutput) -> list[Detections]:
            return [replace(d, boxes=d.boxes + 3.0) for d in super().decode(output)]

    class Blind(Toy):
        def decode(self, output: DenseOutput) -> list[Detections]:
            return super().decode(replace(output, logits=output.logits - 100))

    class Turned(Toy):
        def assign(self, output: DenseOutput, scenes: Any) -> DenseTargets:
            made = super().assign(output, scenes)
            return replace(made, positive=made.positive.mT.contiguous(), matched=made.matched.mT.contiguous())

    assert measure_places.round_trip(Aside(), PAIR) == RoundTrip(3, 0.0, 0, 3.0, 3.0)
    blind = measure_places.round_trip(Blind(), PAIR)
    assert isinstance(blind, RoundTrip)
    assert blind.lost == 3
    far = measure_places.round_trip(Turned(), [scene((7, 0))])
    assert isinstance(far, RoundTrip)
    assert far.apart == 1.0


def test_padding_on_the_right_side_moves_nothing():
    assert measure_places.padding(Padded(), PAIR) == PaddingShift(0, 0, 8)
    assert isinstance(measure_places.padding(Padded(weight=0.0), PAIR), Missing)  # a flat map shows nothing


def test_padding_on_the_wrong_side_moves_all():
    wrong = Padded()
    wrong.front = True
    assert measure_places.padding(wrong, PAIR) == PaddingShift(8, 8, 8)


def test_what_targets_hold_is_counted_image_by_image():
    class Two(Toy):
        def assign(self, output: DenseOutput, scenes: Any) -> DenseTargets:
            return super().assign(output, [replace(s, points=s.points.select(torch.arange(1))) for s in scenes])

    assert measure_places.reach(Toy(), PAIR, [2, 1]) == Reach((2, 1), (2, 1))
    assert measure_places.reach(Two(), PAIR, [2, 1]) == Reach((2, 1), (1, 1))


def points_found(shift: tuple[float, float], count: int = 30) -> tuple[list[Scene], list[Detections]]:
    """Points 15 px apart, and a detection beside each, the same way but for a fifth of a pixel."""
    draw = torch.Generator().manual_seed(0)
    xy = torch.stack((torch.arange(count) * 15.0 + 10, torch.full((count,), 250.0)), dim=1)
    at = xy + torch.tensor(shift) + torch.randn(count, 2, generator=draw) * 0.2
    found = Detections(torch.cat((at, at), 1), torch.ones(count), torch.zeros(count).long(), torch.arange(count))
    return [Scene(torch.zeros(1, 500, 500), "a", points=Points.of(xy))], [found]


def test_a_mean_offset_and_its_error():
    found = measure_places.offset(*points_found((2.0, -0.5)), stride=4.0, tolerance=3.0)
    assert isinstance(found, Offset)
    assert found.x == pytest.approx(2.0, abs=0.15)
    assert found.y == pytest.approx(-0.5, abs=0.15)
    assert found.error_x == pytest.approx(0.2 / 30**0.5, rel=0.4)
    assert isinstance(measure_places.offset(*points_found((2.0, 0.0), count=5), stride=4.0, tolerance=3.0), Missing)


def test_of_boxes_the_one_that_overlaps_most_is_taken():
    truth = torch.tensor([[10.0 * i, 0.0, 10.0 * i + 8, 8.0] for i in range(12)])
    boxes = torch.cat((truth + 1.0, truth + 4.0))
    found = Detections(boxes, torch.rand(24), torch.zeros(24).long(), torch.arange(24))
    image = Scene(torch.zeros(3, 20, 200), "a", boxes=truth, labels=torch.zeros(12).long())
    assert measure_places.offset([image], [found], stride=8.0, tolerance=None) == Offset(12, 1.0, 1.0, 0.0, 0.0, 8.0)


def test_one_batch_in_both_modes():
    found = measure_weights.parity(Toy(), PAIR)
    assert isinstance(found, Parity)
    assert (found.stuck, found.companions) == ((), 0.0)
    assert found.train == found.eval
    assert isinstance(measure_weights.parity(Toy(), PAIR[:1]), Missing)


def test_the_largest_activation_and_who_gave_it():
    assert measure_weights.activation(Toy(weight=1e4), PAIR) == Activation(4e4, "read")


def test_raw_and_averaged_weights():
    found = measure_weights.averaged(Toy(), Toy(weight=0.0), PAIR)
    assert found.averaged > found.raw


def test_what_moved_and_by_how_much():
    before = {"a": torch.ones(4), "b": torch.ones(4), "count": torch.tensor(3)}
    after = {"a": torch.ones(4), "b": torch.tensor([1.0, 1.0, 1.0, 3.0]), "count": torch.tensor(9)}
    assert measure_weights.moved("body", before, after) == Moved("body", 2, 1, "b", pytest.approx(2 / 12**0.5))


def test_peaks_of_the_map_by_what_is_known_of_a_class():
    class Mapped(Toy):
        def forward(self, scenes: Any) -> DenseOutput:
            cam = torch.zeros(len(scenes), 3, 2, 2)
            cam[:, 0, 0, 0], cam[:, 1, 1, 1], cam[:, 2, 0, 1] = 0.9, 0.4, 0.7
            return DenseOutput(torch.zeros_like(cam), torch.zeros(*cam.shape, 4), 4.0, cam=cam)

    box, label = torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([0])
    known = Scene(torch.zeros(1, 8, 8), "a", boxes=box, labels=label, exhaustive=torch.tensor([True, True, False]))
    assert measure_scores.peaks(Mapped(), [known]) == AbsentPeaks(pytest.approx(0.4), pytest.approx(0.9), 1)
    assert isinstance(measure_scores.peaks(Toy(), [known]), Missing)


def test_f1_at_two_thresholds():
    scenes, (found,) = points_found((0.0, 0.0), count=10)
    half = replace(found, scores=torch.where(torch.arange(10) < 5, 0.9, 0.2))
    told = operating(scenes, [half], 0.5, tolerance=3.0)
    assert not isinstance(told, Missing)
    assert (told.objects, told.silent, told.best_f1) == (10, 0.0, 1.0)
    assert told.f1 == pytest.approx(2 / 3)
    assert told.best_threshold < 0.2
    nothing = operating(scenes, [half], 0.95, tolerance=3.0)
    assert not isinstance(nothing, Missing)
    assert (nothing.f1, nothing.silent) == (0.0, 1.0)


def test_labels_of_boxes_and_of_points():
    image = torch.zeros(3, 20, 40)
    image[0, :, :20] = 255.0
    boxes = torch.tensor([[0.0, 0.0, 16.0, 4.0], [20.0, 0.0, 24.0, 16.0]])
    seen = labels_of(("a", "b"), {"train": ((), [Scene(image, "x", boxes=boxes, labels=torch.tensor([0, 1]))])})
    (split,) = seen.splits
    assert split.counts == {0: 1, 1: 1}
    assert seen.side == pytest.approx(8.0)
    assert split.looks[0].mean[2:] == pytest.approx((1.0, 0.0, 0.0))
    assert split.looks[1].mean[2:] == pytest.approx((0.0, 0.0, 0.0))
    assert split.looks[0].mean[1] == pytest.approx(-split.looks[1].mean[1])
    points = labels_of(("a",), {"train": ((), [scene((1, 1), (2, 2))])})
    assert points.splits[0].counts == {0: 2}
    assert points.side is None


# --- what the rules make of answers ----------------------------------------------------------------------------------


def severity(rule: str, plan: Plan | None = None, labels: Labels | None = None, **answers: Any) -> str | None:
    """The severity with which a rule fires on these answers; None where it is judged and silent."""
    more: dict[str, Any] = {} if labels is None else {"labels": labels}
    said = health(Evidence(plan or Plan(stride=4.0, tolerance=3.0), probe=Probe(**answers), **more))
    assert rule not in {u.rule for u in said.unjudged}, [u for u in said.unjudged if u.rule == rule]
    return next((f.severity for f in said.findings if f.id == rule), None)


@pytest.mark.parametrize(
    ("rule", "fires", "answers"),
    [
        ("prior-missing", None, {"start": Start(0.05, 1e-4, 1.0, 1.0)}),
        ("prior-missing", "warning", {"start": Start(0.5, 1e-4, 1.0, 1.0)}),
        ("prior-missing", None, {"start": Start(0.5, 0.06, 1.0, 1.0)}),
        ("prior-missing", "warning", {"start": Start(0.5, 0.04, 1.0, 1.0)}),
        ("gradient-share", None, {"pull": Pull(1.0, 20.0)}),
        ("gradient-share", "warning", {"pull": Pull(1.0, 200.0)}),
        ("no-better-than-constant", None, {"learned": Learned(0.9, 1.0, 0.0, 20, 0.02)}),
        ("no-better-than-constant", "error", {"learned": Learned(0.99, 1.0, 0.0, 20, 0.02)}),
        ("no-better-than-constant", None, {"learned": Learned(1.1, 1.0, 0.0, 20, 0.4)}),
        ("entropy-floor", None, {"learned": Learned(0.9, 2.0, 0.5, 20, 0.4)}),
        ("entropy-floor", "note", {"learned": Learned(0.6, 2.0, 0.5, 20, 0.4)}),
        ("entropy-floor", None, {"learned": Learned(0.02, 2.0, 0.02, 20, 0.4)}),
        ("entropy-floor", "note", {"learned": Learned(0.07, 2.0, 0.06, 20, 0.4)}),
        ("map-peak-of-absent", None, {"peaks": AbsentPeaks(0.8, 1.0, 20)}),
        ("map-peak-of-absent", "warning", {"peaks": AbsentPeaks(1.0, 1.0, 20)}),
        (
            "map-peak-of-absent",
            "warning",
            {"peaks": AbsentPeaks(1.0, 1.0, 20), "maps": MapFit(20, 0.45, 0.1, None, None, 0)},
        ),
        ("class-map-inverted", None, {"maps": MapFit(20, 0.41, 0.001, 0.0, 0.1, 0.0)}),
        ("class-map-inverted", None, {"maps": MapFit(20, 0.3, 0.07, 0.0, 0.1, 0.0)}),
        ("class-map-inverted", "warning", {"maps": MapFit(20, 0.3, 0.06, 0.0, 0.1, 0.0)}),
        ("class-map-inverted", None, {"maps": MapFit(20, 0.3, 0.06, 0.3, 0.05, 0.0)}),
        ("class-maps-exchanged", None, {"maps": MapFit(20, 0.5, 0.1, 0.3, 0.11, 0.0)}),
        ("class-maps-exchanged", None, {"maps": MapFit(20, 0.5, 0.1, 0.09, 0.01, 0.0)}),
        ("class-maps-exchanged", "warning", {"maps": MapFit(20, 0.5, 0.1, 0.3, 0.09, 0.0, {0: 1, 1: 0})}),
        ("class-map-silent", None, {"maps": MapFit(20, 0.5, 0.0, 0.0, 0.0, 0.8)}),
        ("class-map-silent", "note", {"maps": MapFit(20, 0.5, 0.0, 0.0, 0.0, 1.0)}),
        ("stored-features-differ", None, {"stored": Stored(3, 0.05, "a")}),
        ("stored-features-differ", "error", {"stored": Stored(3, 0.5, "a")}),
        ("positive-rate-of-level", None, {"levels": (Level(4, 10_000, 3), Level(8, 2_500, 3))}),
        ("positive-rate-of-level", "warning", {"levels": (Level(4, 10_000, 3), Level(8, 2_500, 0))}),
        ("positive-rate-of-level", "warning", {"levels": (Level(4, 10_000, 4_000),)}),
        ("positive-rate-of-level", None, {"levels": (Level(4, 10_000_000, 20),)}),
        ("positive-rate-of-level", "warning", {"levels": (Level(4, 10_000_000, 5),)}),
        ("positive-rate-of-level", None, {"levels": (Level(4, 10_000, 2_000),)}),
        ("positives-uneven", None, {"spread": Spread(20, 0, 4.0, 150)}),
        ("positives-uneven", "note", {"spread": Spread(20, 0, 4.0, 300)}),
        ("targets-truncated", None, {"reach": Reach((3, 9, 2), (3, 9, 2))}),
        ("targets-truncated", None, {"reach": Reach((3, 9, 2), (4, 9, 2))}),
        ("targets-truncated", "error", {"reach": Reach((3, 9, 2), (3, 3, 2))}),
        ("geometry-round-trip", None, {"round_trip": RoundTrip(40, 0.0, 2, 0.01, 0.0)}),
        ("geometry-round-trip", "error", {"round_trip": RoundTrip(40, 0.0, 9, 0.01, 0.0)}),
        ("geometry-round-trip", "error", {"round_trip": RoundTrip(40, 0.0, 0, 0.01, 0.5)}),
        ("geometry-round-trip", "error", {"round_trip": RoundTrip(40, 0.05, 0, 0.0, 0.0)}),
        ("geometry-round-trip", None, {"round_trip": RoundTrip(40, 0.01, 0, 0.05, 0.0)}),
        ("geometry-round-trip", "error", {"round_trip": RoundTrip(40, 0.0, 0, 0.0, -0.15)}),
        ("padding-shift", None, {"padding": PaddingShift(0, 0, 8)}),
        ("padding-shift", "error", {"padding": PaddingShift(0, 8, 8)}),
        ("labels-shifted", None, {"offset": Offset(50, 0.9, 0.0, 0.1, 0.1, 4.0)}),
        ("labels-shifted", "warning", {"offset": Offset(50, 1.2, 0.0, 0.1, 0.1, 4.0)}),
        ("labels-shifted", "error", {"offset": Offset(50, 0.0, -2.0, 0.1, 0.1, 4.0)}),
        ("labels-shifted", None, {"offset": Offset(50, 1.2, 0.0, 0.4, 0.1, 4.0)}),
        ("train-eval-parity", None, {"parity": Parity((), 1e-6, 1.0, 1.3)}),
        ("train-eval-parity", "warning", {"parity": Parity((), 1e-6, 1.0, 2.0)}),
        ("train-eval-parity", "error", {"parity": Parity((), 1e-6, 1.0, 5.0)}),
        ("train-eval-parity", None, {"parity": Parity((), 0.01, 1.0, 1.0)}),
        ("train-eval-parity", "error", {"parity": Parity((), 0.05, 1.0, 1.0)}),
        ("train-eval-parity", "error", {"parity": Parity(("norm",), 1e-6, 1.0, 1.0)}),
        ("ema-behind", None, {"averaged": Averaged(1.0, 1.3)}),
        ("ema-behind", "warning", {"averaged": Averaged(1.0, 2.0)}),
        ("ema-behind", "error", {"averaged": Averaged(1.0, 5.0)}),
        ("fp16-overflow", None, {"activation": Activation(2e4, "a")}),
        ("fp16-overflow", "note", {"activation": Activation(9e4, "a")}),
        ("frozen-weights-moved", None, {"moved": (Moved("body", 8, 0, "a", 0.0),)}),
        ("frozen-weights-moved", "error", {"moved": (Moved("body", 8, 2, "a", 0.1),)}),
    ],
)
def test_a_rule_fires_beyond_its_limit_alone(rule, fires, answers):
    assert severity(rule, **answers) == fires


@pytest.mark.parametrize(("largest", "fires"), [(2e4, None), (4e4, "warning"), (9e4, "error")])
def test_in_fp16_an_overflow_is_no_note(largest, fires):
    assert severity("fp16-overflow", Plan(precision="fp16"), activation=Activation(largest, "a")) == fires


@pytest.mark.parametrize(
    ("rule", "answers"),
    [
        ("positives-uneven", {"spread": Spread(19, 0, 1.0, 400)}),
        ("no-better-than-constant", {"learned": Learned(0.99, 1.0, 0.0, 4, 0.02)}),
        ("class-maps-exchanged", {"maps": MapFit(19, 0.1, 0.01, 0.5, 0.01, 1.0)}),
        ("class-map-silent", {"maps": MapFit(19, 0.1, 0.01, 0.5, 0.01, 1.0)}),
        ("threshold-off", {"operating": Operating(9, 0.9, 0.0, 0.1, 0.8, 1.0)}),
    ],
)
def test_of_a_few_objects_nothing_is_said(rule, answers):
    said = health(Evidence(Plan(steps=100), probe=Probe(**answers)))
    assert rule in {u.rule for u in said.unjudged}


@pytest.mark.parametrize(
    ("operating", "precision", "fires"),
    [
        (Operating(40, 0.5, 0.5, 0.4, 0.8, 0.0), 0.5, None),
        (Operating(40, 0.5, 0.4, 0.1, 0.8, 0.0), 0.5, "warning"),
        (Operating(40, 0.5, 0.0, 0.1, 0.15, 0.5), 0.5, None),
        (Operating(40, 0.5, 0.0, 0.1, 0.25, 0.5), 0.5, "warning"),
        (Operating(40, 0.5, 0.0, 0.5, 0.0, 1.0), 0.2, "warning"),
        (Operating(40, 0.5, 0.0, 0.5, 0.0, 1.0), 0.02, None),
        (Operating(40, 0.5, 0.0, 0.4, 0.1, 1.0), 0.02, "warning"),
        (Operating(40, 0.5, 0.0, 0.4, 0.1, 0.8), 0.5, None),
    ],
)
def test_a_threshold_is_to_blame_where_scores_rank(operating, precision, fires):
    assert severity("threshold-off", operating=operating, learned=Learned(0.5, 1.0, 0.0, 20, precision)) == fires


def test_a_training_of_a_few_steps_has_learned_nothing_yet():
    nothing = Learned(0.99, 1.0, 0.0, 20, 0.02)
    said = health(Evidence(Plan(steps=49), probe=Probe(learned=nothing)))
    assert "no-better-than-constant" in {u.rule for u in said.unjudged}
    assert severity("no-better-than-constant", Plan(steps=50), learned=nothing) == "error"


@pytest.mark.parametrize(
    ("plan", "side", "fires"),
    [
        (Plan(stride=4.0, tolerance=3.0), None, None),
        (Plan(stride=8.0, tolerance=3.0), None, "warning"),
        (Plan(stride=16.0, tolerance=3.0), None, "error"),
        (Plan(stride=4.0, tolerance=3.0, places=False), None, None),
        (Plan(stride=8.0, tolerance=3.0, places=False), None, "warning"),
        (Plan(stride=8.0), 12.0, None),
        (Plan(stride=32.0), 12.0, "warning"),
        (Plan(stride=32.0), 5.0, "error"),
    ],
)
def test_a_cell_may_be_so_large_and_no_larger(plan, side, fires):
    assert severity("level-too-coarse", plan, Labels(("a",), (), side)) == fires


def split(name: str, counts: dict[int, int], classes: tuple[str, ...] = ()) -> SplitLabels:
    return SplitLabels(name, classes, counts)


@pytest.mark.parametrize(
    ("counts", "fires"),
    [
        ({0: 40, 1: 40}, None),
        ({0: 40, 2: 1}, "error"),
        ({-1: 1, 0: 40}, "error"),
        ({1: 80}, "warning"),
        ({1: 8}, None),
    ],
)
def test_labels_are_numbers_of_channels(counts, fires):
    labels = Labels(("a", "b"), (split("train", {0: 5, 1: 5}), split("val", counts)))
    assert severity("class-ids", labels=labels) == fires


def looking(n: int, *places: float) -> dict[int, ClassLook]:
    """Classes whose one feature has this mean and a spread of 1."""
    return {label: ClassLook(n, (place,), (1.0,)) for label, place in enumerate(places)}


def exchanged(n: int, train: tuple[float, float], val: tuple[float, float]) -> Labels:
    def of(name: str, places: tuple[float, float]) -> SplitLabels:
        return SplitLabels(name, (), {0: n, 1: n}, looking(n, *places))

    return Labels(("a", "b"), (of("train", train), of("val", val)))


@pytest.mark.parametrize(
    ("train", "val", "fires"),
    [
        ((0.0, 4.0), (0.0, 4.0), None),
        ((0.0, 4.0), (4.0, 0.0), "error"),
        ((0.0, 1.6), (1.6, 0.0), "error"),  # 1.6 squared is 2.6 variances
        ((0.0, 1.2), (1.2, 0.0), None),  # too alike to tell: 1.4
        ((0.0, 4.0), (4.6, 0.6), "error"),  # 0.36 from the other class
        ((0.0, 4.0), (5.0, 1.0), None),  # neither looks like what it is named after, nor like the other
    ],
)
def test_classes_that_look_like_each_other_have_changed_places(train, val, fires):
    assert severity("classes-permuted", labels=exchanged(8, train, val)) == fires


def test_a_few_objects_show_nothing_of_a_class():
    said = health(Evidence(labels=exchanged(7, (0.0, 4.0), (4.0, 0.0))))
    assert "classes-permuted" in {u.rule for u in said.unjudged}


def test_lists_of_classes_in_another_order():
    names = (split("train", {0: 1}, ("a", "b")), split("val", {0: 1}, ("b", "a")))
    assert severity("classes-permuted", labels=Labels(("a", "b"), names)) == "error"
    same = (split("train", {0: 1}, ("a", "b")), split("val", {0: 1}, ("a", "b")))
    said = health(Evidence(labels=Labels(("a", "b"), same)))
    assert "classes-permuted" in {u.rule for u in said.unjudged}  # one object shows nothing of a class
