"""COCO figures: one case on paper, pycocotools as the oracle on random and adversarial data, then the rest."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from boresight.core.types import Detections, Scene
from boresight.evaluate.average_precision import ap_difference, ap_interval, class_steps, mean_ap
from boresight.evaluate.box_set import BoxSet
from boresight.evaluate.detection import (
    SUMMARY,
    BaseNovel,
    CocoFigures,
    Split,
    base_novel,
    classification_accuracy,
    coco_dataset,
    coco_figures,
    coco_results,
)

CLASSES = ("plane", "ship", "tank", "court")
SIDE = 200


def scene(boxes, labels, *, image_id=1, crowd=None, exhaustive=None, side=SIDE) -> Scene:
    return Scene(
        torch.zeros(1, 1, 1).expand(3, side, side),
        f"image-{image_id}",
        image_id=image_id,
        boxes=torch.as_tensor(np.asarray(boxes, np.float32).reshape(-1, 4)),
        labels=torch.as_tensor(np.asarray(labels, np.int64)),
        ignore=None if crowd is None else torch.as_tensor(np.asarray(crowd, bool)),
        exhaustive=None if exhaustive is None else torch.as_tensor(np.asarray(exhaustive, bool)),
    )


def detections(boxes, scores, labels) -> Detections:
    return Detections(
        torch.as_tensor(np.asarray(boxes, np.float32).reshape(-1, 4)),
        torch.as_tensor(np.asarray(scores, np.float32)),
        torch.as_tensor(np.asarray(labels, np.int64)),
        torch.full((len(scores),), -1),
    )


def twelve(figures: CocoFigures) -> np.ndarray:
    values = [getattr(figures, name) for name, *_ in SUMMARY]
    return np.array([-1.0 if v is None else v for v in values])


def by_pycocotools(truth: Sequence[Scene], found: Sequence[Detections], classes: Sequence[str] = CLASSES) -> np.ndarray:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        data, results = COCO(), coco_results(truth, found, classes)
        data.dataset = coco_dataset(truth, classes)
        data.createIndex()
        guess = COCO()
        guess.dataset = {**data.dataset, "annotations": []}
        guess.createIndex()
        judge = COCOeval(data, data.loadRes(results) if len(results) else guess, "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return np.asarray(judge.stats)


def random_case(rng, *, images=6, truths=10, found=30, whole=False, ties=False, crowd=0.15, part=False):
    """Detections near truths and anywhere; ``whole``: coordinates on a lattice, so that IoUs fall on thresholds."""
    scenes, guesses = [], []
    for k in range(images):
        t, d = (0 if rng.random() < 0.2 else int(rng.integers(0, n + 1)) for n in (truths, found))
        corner = rng.uniform(0, 120, (t, 2))
        size = rng.choice([8.0, 16, 32, 64, 96], (t, 2)) * (1 if whole else rng.uniform(0.7, 1.3, (t, 2)))
        corner = np.round(corner / 8) * 8 if whole else corner
        boxes, labels = np.concatenate([corner, corner + size], 1), rng.integers(0, 3, t)  # nobody is a court
        near = rng.integers(0, t, d) if t else np.zeros(d, int)
        noise = rng.choice([0.0, 0, 0, 4, -4, 8], (d, 4)) if whole else rng.normal(0, 7, (d, 4))
        free = np.sort(rng.uniform(0, SIDE, (d, 2, 2)), axis=1).reshape(d, 4)
        stray = (rng.random(d) < 0.25) | (t == 0)
        guess = np.where(stray[:, None], free, boxes[near] + noise if t else free)
        guess[:, 2:] = np.maximum(guess[:, 2:], guess[:, :2])  # some are without area
        said = np.where(stray | (rng.random(d) < 0.2), rng.integers(0, 4, d), labels[near] if t else 0)
        scores = np.round(rng.random(d) * 4) / 4 if ties else rng.random(d)
        known = rng.random(4) < 0.6 if part else None
        scenes.append(scene(boxes, labels, image_id=900 - 7 * k, crowd=rng.random(t) < crowd, exhaustive=known))
        guesses.append(detections(guess, scores, said))
    return scenes, guesses


def test_by_hand():
    # Precision is 1 up to recall .5 and 2/3 up to recall 1: 51 of 101 recalls at 1, 50 at 2/3.
    truth = [scene([(0, 0, 40, 40), (50, 50, 90, 90)], [0, 0])]
    found = [detections([(0, 0, 40, 40), (100, 0, 140, 40), (50, 50, 90, 90)], [0.9, 0.8, 0.7], [0, 0, 0])]
    figures = coco_figures(truth, found, CLASSES[:2])
    expected = (51 + 50 * 2 / 3) / 101
    assert figures.ap50 == pytest.approx(expected)
    assert figures.ap == pytest.approx(expected)
    assert figures.ap_medium == pytest.approx(expected)
    assert (figures.ap_small, figures.ap_large, figures.ar_large) == (None, None, None)
    assert (figures.ar_1, figures.ar_10) == (0.5, 1.0)
    assert (figures.images, figures.truths) == (1, 2)
    plane, ship = figures.per_class
    assert (plane.name, plane.n, plane.ap50) == ("plane", 2, figures.ap50)
    assert (ship.n, ship.ap, ship.ap50) == (0, None, None)  # the absent class is undefined and spoils no mean
    assert json.loads(json.dumps(figures.to_dict(), allow_nan=False))["per_class"]["ship"]["ap"] is None


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("part", [False, True])
def test_random_cases_equal_pycocotools(whole: bool, ties: bool, part: bool):
    rng = np.random.default_rng([whole, ties, part])
    for found in (4, 30):
        truth, guess = random_case(rng, found=found, whole=whole, ties=ties, part=part)
        figures = coco_figures(truth, guess, CLASSES)
        assert twelve(figures) == pytest.approx(by_pycocotools(truth, guess), abs=1e-6)
        # The AP that the bootstrap weighs is the same figure.
        ap50, _ = ap_interval(truth, guess, CLASSES, replicates=0)
        assert ap50 == pytest.approx(figures.ap50, abs=1e-6)


def adversarial():
    big, small = (0, 0, 40, 40), (100, 100, 110, 110)
    blank = detections([], [], [])
    rng = np.random.default_rng(5)
    many = rng.uniform(0, 150, (150, 2))
    crowded = detections(np.concatenate([many, many + 40], 1), np.linspace(1, 0.1, 150), np.zeros(150))
    late = detections([(150, 150, 160, 160)] * 120 + [big], [0.9] * 120 + [0.1], [0] * 121)
    limits = [(0, 0, 32, 32), (40, 40, 136, 136), (0, 100, 31, 132), (150, 0, 182, 33)]
    yield "no image", [], []
    yield "one empty image", [scene([], [])], [blank]
    yield "no detection", [scene([big, small], [0, 1])], [blank]
    yield "no truth", [scene([], [])], [detections([big], [0.9], [0])]
    yield "crowd only", [scene([big], [0], crowd=[True])], [detections([big, small], [0.9, 0.8], [0, 0])]
    yield "an absent class is found", [scene([big], [0])], [detections([big, small], [0.8, 0.9], [0, 3])]
    yield "more than 100 detections", [scene([(*c, *(c + 40)) for c in many[::10]], [0] * 15)], [crowded]
    yield "the hit is the 121st", [scene([big], [0])], [late]
    yield "areas on the limits", [scene(limits, [0] * 4)], [detections(limits, [0.9, 0.8, 0.7, 0.6], [0] * 4)]
    yield "all scores equal", [scene([big, small], [0, 0])], [detections([small, big, big], [0.5] * 3, [0] * 3)]
    yield "no area", [scene([big], [0])], [detections([(5, 5, 5, 9), big], [0.9, 0.8], [0, 0])]
    yield "no area in a crowd", [scene([big, small], [0, 0], crowd=[1, 0])], [detections([(5, 5, 5, 5)], [0.9], [0])]
    yield "beyond the frame", [scene([big], [0])], [detections([(-30, -30, 40, 40), big], [0.9, 0.8], [0, 0])]
    yield "the same box twice", [scene([big, big], [0, 0])], [detections([big, big], [0.9, 0.8], [0, 0])]
    yield "one box of two classes", [scene([big, big], [0, 1])], [detections([big, big], [0.9, 0.8], [1, 1])]


@pytest.mark.parametrize(("name", "truth", "found"), list(adversarial()), ids=[n for n, *_ in adversarial()])
def test_adversarial_cases_equal_pycocotools(name: str, truth: list[Scene], found: list[Detections]):
    figures = coco_figures(truth, found, CLASSES)
    if truth:  # pycocotools cannot read an empty data set
        assert twelve(figures) == pytest.approx(by_pycocotools(truth, found), abs=1e-6)
    ap50, _ = ap_interval(truth, found, CLASSES, replicates=0)
    assert ap50 == pytest.approx(figures.ap50, abs=1e-6)


def test_what_is_undefined_is_none_and_what_is_lost_is_zero():
    blank = detections([], [], [])
    nothing = coco_figures([scene([], [])], [blank], CLASSES)
    assert (twelve(nothing) == -1).all()
    assert coco_figures([scene([(0, 0, 40, 40)], [0])], [blank], CLASSES).ap == 0.0


# --- classes that are not exhaustively labelled ----------------------------------------------------------------------

BIG, FAR = (0, 0, 40, 40), (100, 100, 140, 140)


def test_an_unknown_class_raises_no_false_alarm():
    # Ships are labelled in the second image alone; in the first nothing is known of them.
    found = [detections([FAR], [0.9], [1]), detections([BIG], [0.8], [1])]
    truth = [scene([], []), scene([BIG], [1], image_id=2)]
    assert coco_figures(truth, found, CLASSES).ap50 == pytest.approx(0.5)
    truth[0] = scene([], [], exhaustive=[True, False, True, True])
    assert coco_figures(truth, found, CLASSES).ap50 == pytest.approx(1.0)


def test_a_class_labelled_in_part_keeps_its_hits_and_misses_and_loses_its_false_alarms():
    found = [detections([FAR, BIG], [0.9, 0.8], [0, 0])]
    part = {"exhaustive": [False, True, True, True]}
    assert coco_figures([scene([BIG], [0])], found, CLASSES).ap50 == pytest.approx(0.5)
    assert coco_figures([scene([BIG], [0], **part)], found, CLASSES).ap50 == pytest.approx(1.0)
    missed = [scene([BIG, (150, 0, 190, 40)], [0, 0], **part)]
    assert coco_figures(missed, found, CLASSES).ar_100 == pytest.approx(0.5)
    # A second box on an object that is taken may be another object that nobody labelled.
    twice = [detections([BIG, BIG], [0.9, 0.8], [0, 0])]
    assert len(coco_results([scene([BIG], [0], **part)], twice, CLASSES)) == 2
    assert coco_figures([scene([BIG], [0], **part)], twice, CLASSES).ap50 == pytest.approx(1.0)


def test_a_box_without_area_is_excused_like_any_other():
    truth = [scene([BIG], [0], exhaustive=[False] * 4)]
    found = [detections([(5, 5, 5, 5), BIG], [0.9, 0.8], [0, 0])]
    assert coco_figures(truth, found, CLASSES).ap50 == pytest.approx(1.0)
    assert ap_interval(truth, found, CLASSES, replicates=0)[0] == pytest.approx(1.0)


# --- the door --------------------------------------------------------------------------------------------------------


def test_what_cannot_be_judged_is_refused():
    good, found = scene([BIG], [0]), detections([BIG], [0.9], [0])
    with pytest.raises(ValueError, match=r"image id 1 belongs to 2 images \(image-1, image-1\)"):
        coco_figures([good, good], [found, found], CLASSES)
    with pytest.raises(ValueError, match=r"scene `image-1` has labels 4\.\.4, but classes holds 4"):
        coco_figures([scene([BIG], [4])], [found], CLASSES)
    with pytest.raises(ValueError, match=r"a detection has labels 4\.\.4"):
        coco_figures([good], [detections([BIG], [0.9], [4])], CLASSES)


def test_the_dataset_is_what_coco_readers_expect():
    data = coco_dataset([scene([(1, 2, 4, 8)], [2], image_id=9, crowd=[True], side=50)], CLASSES)
    assert data["images"] == [{"id": 9, "file_name": "image-9", "height": 50, "width": 50}]
    assert data["categories"][2] == {"id": 3, "name": "tank"}
    entry = {"id": 1, "image_id": 9, "category_id": 3, "bbox": [1, 2, 3, 6], "area": 18, "iscrowd": 1}
    assert data["annotations"] == [entry]


# --- the bootstrap ---------------------------------------------------------------------------------------------------


def test_a_weight_is_as_many_copies_of_the_image():
    rng = np.random.default_rng(3)
    truth, found = random_case(rng, images=5)
    weights = np.array([[2, 0, 1, 3, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 5]])
    got = mean_ap(class_steps(BoxSet.of(truth, found), 0.5, 4), weights)
    for row, value in zip(weights, got, strict=True):
        # Copies of an image lie side by side in the order of ids, as ties between them do not matter.
        copies = [k for k in np.argsort([s.image_id for s in truth]) for _ in range(row[k])]
        again = [
            scene(truth[k].boxes, truth[k].labels, image_id=n, crowd=truth[k].ignore) for n, k in enumerate(copies)
        ]
        expected = coco_figures(again, [found[k] for k in copies], CLASSES).ap50
        assert (None if np.isnan(value) else value) == pytest.approx(expected, abs=1e-6)


def test_the_interval_holds_the_figure_and_is_narrow_for_many_images():
    rng = np.random.default_rng(4)
    truth, found = random_case(rng, images=60, crowd=0.0)
    value, interval = ap_interval(truth, found, CLASSES, replicates=200, seed=1)
    assert interval is not None
    assert interval[0] < value < interval[1]
    few = ap_interval(truth[:12], found[:12], CLASSES, replicates=200, seed=1)[1]
    assert few is not None
    assert few[1] - few[0] > interval[1] - interval[0]
    assert ap_interval([scene([], [])], [detections([], [], [])], CLASSES) == (None, None)


def test_the_difference_of_two_precisions_is_paired_by_image():
    rng = np.random.default_rng(4)
    truth, worse = random_case(rng, images=40, crowd=0.0)
    better = [
        detections(s.boxes.tolist(), [0.99] * len(s.boxes), s.labels.tolist()) if k % 2 else one
        for k, (s, one) in enumerate(zip(truth, worse, strict=True))
    ]
    gain, interval = ap_difference(truth, worse, better, CLASSES, iou=0.75, replicates=200)
    one, two = (coco_figures(truth, found, CLASSES).ap75 for found in (worse, better))
    assert gain == pytest.approx(two - one, abs=1e-6)
    assert interval[0] < gain < interval[1]
    assert interval[0] > 0
    same, nothing = ap_difference(truth, worse, worse, CLASSES, iou=0.75, replicates=50)
    assert (same, nothing) == (0.0, (0.0, 0.0))
    assert ap_difference([], [], [], CLASSES) == (None, None)


# --- classification, base and novel ----------------------------------------------------------------------------------


def test_classification_accuracy_asks_the_best_scored_box_on_the_object():
    truth = [scene([BIG, FAR, (150, 0, 190, 40)], [0, 1, 2]), scene([BIG], [0], image_id=2, crowd=[True])]
    found = [
        # Right and best, wrong but lower; wrong alone; too far off (IoU 1/3).
        detections([BIG, BIG, FAR, (150, 20, 190, 60)], [0.8, 0.7, 0.6, 0.99], [0, 1, 2, 2]),
        detections([BIG], [0.9], [1]),
    ]
    got = classification_accuracy(truth, found)
    assert (got.accuracy, got.n, got.right) == (0.5, 2, 1)
    assert classification_accuracy(truth, found, iou=0.3).n == 3
    nobody = classification_accuracy([scene([BIG], [0])], [detections([], [], [])])
    assert (nobody.accuracy, nobody.n) == (None, 0)


def test_base_and_novel():
    truth = [scene([BIG, FAR, (150, 0, 190, 40)], [0, 1, 2])]
    found = [detections([BIG, (104, 100, 144, 140)], [0.9, 0.8], [0, 1])]  # ships at IoU 36/44 = .82: 7 of 10 levels
    figures = coco_figures(truth, found, CLASSES)
    split = base_novel(figures, ["ship", "court"])
    assert isinstance(split, BaseNovel)
    assert (split.base_classes, split.novel_classes) == (2, 1)  # no truth of courts
    assert split.ap50 == Split(pytest.approx(0.5), pytest.approx(1.0), pytest.approx(2 / 3))
    assert split.ap == Split(pytest.approx(0.5), pytest.approx(0.7), pytest.approx(0.7 / 1.2))
    assert base_novel(figures, ["tank"]).ap.harmonic_mean == 0.0
    assert base_novel(figures, ["court"]).ap50.novel is None
    assert base_novel(figures, []).ap50.harmonic_mean is None
    with pytest.raises(ValueError, match="`shp` is no class of these figures: did you mean `ship`"):
        base_novel(figures, ["shp"])
