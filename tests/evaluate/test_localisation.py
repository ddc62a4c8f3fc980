"""The localisation report on detectors with one known fault each, and its parts on paper."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from boresight.core.grid import cell_centres
from boresight.core.types import Scene
from boresight.evaluate.dense_image import DenseImage
from boresight.evaluate.estimate import Estimate
from boresight.evaluate.floors import training_sizes
from boresight.evaluate.localisation import LocalisationStudy, localise
from boresight.evaluate.localisation_report import LocalisationReport

CLASSES = ("plane", "ship", "decoy")  # nothing is a decoy
SIDE, STRIDE = 160, 8
CELLS = SIDE // STRIDE


def make_scene(number: int, count: int, generator: torch.Generator) -> Scene:
    """Up to nine objects, each in its own ninth of the image, so that each has cells of its own."""
    side = 26 * torch.exp(0.4 * torch.randn(count, 1, generator=generator))
    half = torch.exp(0.3 * torch.randn(count, 1, generator=generator))
    size = torch.cat((side * half, side / half), dim=1).clamp(12, 50)
    sector = torch.randperm(9, generator=generator)[:count]
    centre = (torch.stack((sector % 3, sector // 3), dim=1) + 0.5) * SIDE / 3
    centre = centre + 8 * (torch.rand(count, 2, generator=generator) - 0.5)
    centre = centre.maximum(size / 2 + 8).minimum(SIDE - 8 - size / 2)  # all of it in the image, and not in the corners
    return Scene(
        torch.zeros(1, 1, 1).expand(3, SIDE, SIDE),
        f"scene-{number}",
        image_id=number,
        boxes=torch.cat((centre - size / 2, centre + size / 2), dim=1),
        labels=torch.randint(2, (count,), generator=generator) * (number % 4 > 0),  # some images hold planes alone
    )


@cache
def made(images: int) -> tuple[Scene, ...]:
    generator = torch.Generator().manual_seed(0)
    count = torch.randint(6, 10, (images,), generator=generator).tolist()
    return tuple(make_scene(k, n, generator) for k, n in enumerate(count))


def detector(truth: Scene, fault: str, generator: torch.Generator) -> DenseImage:
    """A detector that knows the truth, but for one fault.

    Every cell boxes the object whose centre is nearest, in every channel, and scores it by its distance to that centre,
    highest in the channel of its class. ``class``: the decoy scores higher still. ``ranking``: the scores are noise and
    only cells near a centre box well. ``boxes``: boxes of random size about the cell. ``shift``: boxes off by half
    their width, towards the middle. ``channel``: only the channel of the true class boxes at all.
    """
    assert truth.boxes is not None
    assert truth.labels is not None
    points = cell_centres(CELLS, CELLS, STRIDE).flatten(0, 1)
    away, owner = torch.cdist(points, (truth.boxes[:, :2] + truth.boxes[:, 2:]) / 2).min(dim=1)
    boxes = truth.boxes[owner].clone()
    if fault == "boxes":
        half = 13 * torch.exp(0.4 * torch.randn(len(points), 2, generator=generator))
        boxes = torch.cat((points - half, points + half), dim=1)
    if fault == "shift":
        way = torch.where(boxes[:, 2] + boxes[:, 0] < SIDE, 0.5, -0.5)
        boxes[:, 0::2] += (way * (boxes[:, 2] - boxes[:, 0]))[:, None]
    if fault == "ranking":
        boxes[away > STRIDE] = torch.cat((points - 4, points + 4), dim=1)[away > STRIDE]
    channel = torch.arange(len(CLASSES))[:, None]
    own, near = channel == truth.labels[owner], torch.exp(-away / STRIDE)
    score = torch.where(own, 0.5, 0.1) * near
    if fault == "class":
        score = torch.where(channel == 2, 0.9 * near, score)
    if fault == "ranking":
        score = torch.rand(score.shape, generator=generator)
    fields = boxes.reshape(1, CELLS, CELLS, 4).expand(len(CLASSES), -1, -1, -1)
    if fault == "channel":
        fields = fields * own.reshape(len(CLASSES), CELLS, CELLS, 1)
    return DenseImage(fields, score.reshape(len(CLASSES), CELLS, CELLS), STRIDE, (SIDE, SIDE))


Change = Callable[[DenseImage, Scene], DenseImage]


def study(fault: str, images: int = 29, change: Change | None = None, seed: int = 0) -> LocalisationReport:
    generator, truth = torch.Generator().manual_seed(1), made(images)
    pairs = ((detector(s, fault, generator), s) for s in truth)
    changed = pairs if change is None else ((change(i, s), s) for i, s in pairs)
    return localise(changed, CLASSES, training_sizes(truth), replicates=200, seed=seed)


@cache
def report(fault: str) -> LocalisationReport:
    return study(fault)


def value(estimate: Estimate) -> float:
    assert estimate.value is not None
    return estimate.value


# --- the planted faults ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "word"),
    [("class", "classification"), ("ranking", "ranking"), ("boxes", "localisation"), ("shift", "localisation")],
)
def test_the_verdict_names_the_planted_fault(fault: str, word: str):
    found = report(fault)
    assert found.objects >= 200
    assert found.verdict.word == word
    assert found.verdict.sentence.startswith(f"Look at {word}: ")
    assert found.verdict.overturn


def test_a_perfect_detector_has_nothing_to_blame():
    found = report("none")
    assert [value(r.mean_iou) for r in found.ladder] == pytest.approx([1] * 6, abs=1e-5)
    assert [value(r.skill_acc_50) for r in found.ladder] == pytest.approx([1] * 6, abs=1e-5)
    assert [value(g.acc_50) for g in found.gaps] == pytest.approx([0] * 4, abs=1e-5)
    assert found.verdict.word == "undecided"
    assert "neither is worth 5%" in found.verdict.reason
    assert found.plain.histogram == (0,) * 19 + (found.objects,)
    assert value(found.mirror.top_1) == 1
    assert found.presence.auc == 1
    assert found.presence_from == "best score"


def test_a_shift_by_half_the_width_has_an_iou_of_a_third():
    found = report("shift")
    assert value(found.rung("gt_centre").mean_iou) == pytest.approx(1 / 3, abs=1e-4)
    assert value(found.plain.acc_50) < 0.05  # a neighbour's box may fit by chance
    assert value(found.plain.acc_30) == 1
    overall = found.errors[0].overall
    assert value(overall.size_relative) == pytest.approx(0, abs=1e-4)
    assert value(overall.centre_relative) > 0.35


def test_the_mirror_and_the_ladder_split_class_and_box():
    found = report("class")
    assert value(found.rung("predicted_class").acc_50) < 0.1
    assert value(found.rung("gt_centre").acc_50) == 1
    assert value(found.mirror.top_1) == 0
    said = np.array(found.mirror.confusion)
    assert said[:, 2].tolist() == [c.n for c in found.plain.per_class]
    assert said[:, :2].sum() == 0
    assert found.mirror.chance == pytest.approx(1 / 3)
    boxes = report("boxes")
    assert value(boxes.mirror.top_1) == 1


def test_ranking_loses_what_the_scores_do_not_choose():
    found = report("ranking")
    assert value(found.gaps[1].acc_50) > 0.8
    assert value(found.gaps[2].acc_50) > 0.8
    assert value(found.rung("gt_class").acc_50) < 0.2


def test_boxes_without_content_have_no_skill():
    found = report("boxes")
    assert value(found.plain.mean_iou) > 0.45  # the plain figure looks like something
    for name in ("gt_centre", "one_to_one", "oracle"):
        assert -0.3 < value(found.rung(name).skill_iou) < 0.05, name


def test_the_wrong_channel_tells_whether_boxes_know_the_class():
    shared, own = report("none").wrong_channel, study("channel", 8).wrong_channel
    assert [w.rung for w in shared] == ["gt_class", "top_k", "gt_centre", "one_to_one", "oracle"]
    assert value(shared[4].difference) == 0
    assert value(shared[2].difference) == 0
    assert value(own[4].other) < 0.01  # the nearest object of that class may touch it
    assert value(own[4].difference) > 0.99


def test_floors_stand_at_every_rung_and_the_strongest_counts():
    found = report("none")
    for rung in found.ladder:
        by_name = {f.name: f for f in rung.floors}
        assert set(by_name) == {"random", "mean_size", "shuffled"}  # no untrained head and no class map were given
        assert rung.floor_acc_50 == max(by_name, key=lambda n: value(by_name[n].acc_50))
        assert value(rung.skill_acc_50) == pytest.approx(value(by_name[rung.floor_acc_50].skill_acc_50))
    centre = {f.name: f for f in found.rung("gt_centre").floors}
    assert value(centre["random"].mean_iou) > 0.35  # it is centred on the object; anywhere else it would be near 0
    shuffled = {f.name: f for f in found.rung("oracle").floors}["shuffled"]
    first = made(29)[0].boxes
    assert first is not None
    assert shuffled.mean_iou.n == found.objects - len(first)  # the first image has no other before it
    assert value(shuffled.mean_iou) < 0.4


def test_the_oracle_grows_with_the_cells_and_so_does_its_floor():
    points = report("boxes").oracle_against_cells
    assert [p.cells for p in points] == [1, 4, 16, 49, 196]  # 400 cells
    assert all(value(b.mean_iou) > value(a.mean_iou) for a, b in pairwise(points))
    assert all(value(b.floor_mean_iou) > value(a.floor_mean_iou) for a, b in pairwise(points))


# --- class maps ------------------------------------------------------------------------------------------------------


def with_cam(image: DenseImage, truth: Scene) -> DenseImage:
    """The class map is 1 in the objects of the class, but at most 0.2 in those of class 1, and 0 elsewhere."""
    assert truth.boxes is not None
    assert truth.labels is not None
    points = image.centres()
    cam = torch.zeros(len(CLASSES), len(points))
    for box, label in zip(truth.boxes, truth.labels.tolist(), strict=True):
        inside = ((points > box[:2]) & (points < box[2:])).all(dim=1)
        cam[label, inside] = 0.2 if label == 1 else 1.0
    presence = torch.tensor([float(k in truth.labels.tolist()) for k in range(3)])
    return replace(image, cam=cam.reshape(image.score.shape), presence=presence, untrained=image.boxes * 0)


def test_the_class_map_report():
    found = study("none", 10, with_cam)
    assert found.cam is not None
    assert found.cam.pairs == sum(len(s.labels.unique()) for s in made(10) if s.labels is not None)
    assert value(found.cam.pointing) == 1
    assert value(found.cam.energy) == pytest.approx(1)
    assert 0 < value(found.cam.area) < 0.3
    share = found.plain.per_class[1].n / found.objects
    recall = {c.threshold: value(c.recall) for c in found.cam.ceiling}
    assert recall == pytest.approx({0.05: 1, 0.1: 1, 0.2: 1, 0.3: 1 - share, 0.5: 1 - share})
    assert found.presence_from == "presence"
    assert found.presence.auc == 1
    floors = {f.name: f for f in found.rung("gt_class").floors}
    assert value(floors["cam_box"].acc_50) > value(floors["shuffled"].acc_50)
    assert value(floors["untrained"].mean_iou) == 0
    assert "cam_box" not in {f.name for f in found.rung("oracle").floors}
    assert found.rung("gt_class").floor_acc_50 != "cam_box"  # it has seen the image: no chance floor


def test_a_peak_elsewhere_points_nowhere():
    def astray(image: DenseImage, truth: Scene) -> DenseImage:
        cam = torch.zeros_like(image.score)
        cam[:, 0, 0] = 1.0  # no object reaches the corner
        return replace(image, cam=cam)

    found = study("none", 4, astray).cam
    assert found is not None
    assert value(found.pointing) == 0
    assert value(found.energy) == 0

    flat = study("none", 4, lambda image, truth: replace(image, cam=-torch.ones_like(image.score))).cam
    assert flat is not None
    assert flat.energy == Estimate(None, 0, None)


# --- the report itself -----------------------------------------------------------------------------------------------


def test_the_report_is_json_and_nothing_in_it_is_nan():
    text = json.dumps(report("boxes").to_dict(), allow_nan=False)
    assert json.loads(text)["verdict"]["word"] == "localisation"


def test_without_images_everything_is_undefined():
    empty = localise([], CLASSES, torch.ones(1, 2))
    assert (empty.images, empty.objects, empty.cam) == (0, 0, None)
    assert empty.plain.mean_iou == Estimate(None, 0, None)
    assert empty.verdict.word == "undecided"
    json.dumps(empty.to_dict(), allow_nan=False)


def test_images_without_objects_change_no_figure_of_objects():
    blank = Scene(
        torch.zeros(1, 1, 1).expand(3, SIDE, SIDE), "blank", boxes=torch.zeros(0, 4), labels=torch.zeros(0).long()
    )
    truth = made(6)
    prior, generator = training_sizes(truth), torch.Generator().manual_seed(1)
    images = [detector(s, "none", generator) for s in truth]
    plain = localise(zip(images, truth, strict=True), CLASSES, prior, replicates=20)
    more = localise([*zip(images, truth, strict=True), (images[0], blank)], CLASSES, prior, replicates=20)
    assert more.images == 7
    assert more.objects == plain.objects
    assert [r.mean_iou.value for r in more.ladder] == [r.mean_iou.value for r in plain.ladder]


def test_one_class_has_no_wrong_channel():
    truth = made(3)[0]
    one = replace(truth, labels=torch.zeros(len(truth.boxes), dtype=torch.long))
    image = detector(truth, "none", torch.Generator().manual_seed(0))
    single = DenseImage(image.boxes[:1], image.score[:1], STRIDE, (SIDE, SIDE))
    found = localise([(single, one)], ("thing",), torch.ones(1, 2), replicates=10)
    assert found.wrong_channel == ()
    assert found.presence.auc is None
    assert "too few to tell" in found.verdict.reason


def test_the_same_seed_gives_the_same_report():
    assert study("boxes", 2) == study("boxes", 2)
    assert study("boxes", 2) != study("boxes", 2, seed=1)


def test_dont_care_objects_are_not_judged():
    truth = made(3)[0]
    image = detector(truth, "none", torch.Generator().manual_seed(0))
    half = replace(truth, ignore=torch.arange(len(truth.boxes)) > 0)
    assert localise([(image, half)], CLASSES, torch.ones(1, 2), replicates=0).objects == 1


def test_what_does_not_fit_is_refused():
    truth = made(3)[0]
    image = detector(truth, "none", torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="3 channels, but there are 2 classes"):
        LocalisationStudy(("a", "b"), torch.ones(1, 2)).add(image, truth)
    mixed = LocalisationStudy(CLASSES, torch.ones(1, 2))
    mixed.add(image, truth)
    with pytest.raises(ValueError, match="for every image or for none"):
        mixed.add(replace(image, cam=image.score), truth)
    with pytest.raises(ValueError, match="has no boxes"):
        mixed.add(image, replace(truth, boxes=None, labels=None))


def test_bins_of_size_and_classes_hold_all_objects():
    table = report("none").errors[0]
    assert sum(b.n for b in table.by_size) == report("none").objects
    assert [(b.low, b.high) for b in table.by_size][-1] == (32.0, None)
    assert sum(c.n for c in table.per_class) == report("none").objects
    assert table.by_size[0].errors.iou == Estimate(None, 0, None)


def test_a_fine_grid_of_empty_boxes_deceives_the_plain_figure_and_not_the_verdict():
    def fine(truth: Scene, generator: torch.Generator) -> DenseImage:
        points = cell_centres(80, 80, 2).flatten(0, 1)
        half = 13 * torch.exp(0.4 * torch.randn(len(points), 2, generator=generator))
        field: Tensor = torch.cat((points - half, points + half), dim=1).reshape(1, 80, 80, 4)
        return DenseImage(field.expand(3, -1, -1, -1), torch.rand(3, 80, 80, generator=generator), 2, (SIDE, SIDE))

    generator, truth = torch.Generator().manual_seed(2), made(29)
    found = localise(((fine(s, generator), s) for s in truth), CLASSES, training_sizes(truth), replicates=100)
    assert value(found.plain.acc_50) > 0.9
    assert found.verdict.word == "localisation"
    assert found.verdict.reading != "one_to_one"


# --- in parts --------------------------------------------------------------------------------------------------------


def test_studies_of_parts_join_to_the_study_of_all():
    generator, truth = torch.Generator().manual_seed(1), made(12)
    images = [detector(s, "class", generator) for s in truth]
    prior = training_sizes(truth)
    whole = localise(zip(images, truth, strict=True), CLASSES, prior, replicates=20)
    joined = LocalisationStudy(CLASSES, prior, replicates=20)
    for start, end in ((0, 5), (5, 12)):
        part = LocalisationStudy(CLASSES, prior, first=start)
        if start:
            part.precede(images[start - 1])
        for i in range(start, end):
            part.add(images[i], truth[i])
        joined.join(part)
    assert joined.report().to_dict() == whole.to_dict()


def test_a_study_that_does_not_follow_on_cannot_join():
    truth = made(2)
    generator, prior = torch.Generator().manual_seed(1), training_sizes(truth)
    one, gap = LocalisationStudy(CLASSES, prior), LocalisationStudy(CLASSES, prior, first=3)
    one.add(detector(truth[0], "none", generator), truth[0])
    with pytest.raises(ValueError, match="begins with image 3 does not follow on 1 images"):
        one.join(gap)
    other = LocalisationStudy(CLASSES, prior, first=1)
    image = detector(truth[1], "none", generator)
    other.add(replace(image, cam=image.score), truth[1])
    with pytest.raises(ValueError, match="for every image or for none"):
        one.join(other)
