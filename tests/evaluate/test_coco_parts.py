"""COCO's figures of parts: those of hotcoco on everything at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from boresight.core.types import Detections, Scene
from boresight.evaluate.box_match import overlaps
from boresight.evaluate.box_set import BoxSet
from boresight.evaluate.coco_parts import CocoParts
from boresight.evaluate.detection import coco_figures

CLASSES = ("a", "b", "c")


def made(seed: int) -> tuple[list[Scene], list[Detections]]:
    """A few images: objects of all sizes, crowds, ties, now and then more than 100 detections of a class."""
    rng = np.random.default_rng(seed)
    scenes, found = [], []
    for i in range(int(rng.integers(1, 10))):
        n, m = int(rng.integers(0, 8)), int(rng.integers(0, 400 if seed % 5 == 0 else 20))
        corner = rng.uniform(0, 200, (n, 2))
        box = np.hstack((corner, corner + np.exp(rng.uniform(2, 5, (n, 2))))).round(1)
        near = rng.integers(0, max(n, 1), m)
        base = box[near] if n else np.tile([0.0, 0, 20, 20], (m, 1))
        moved = (base + rng.normal(0, rng.choice([1, 8]), (m, 4))).round(1)
        moved = np.hstack((np.minimum(moved[:, :2], moved[:, 2:]), np.maximum(moved[:, :2], moved[:, 2:])))
        label = rng.integers(0, len(CLASSES), n)
        said = label[near] if n else np.zeros(m, np.int64)
        said = np.where(rng.random(m) < 0.2, rng.integers(0, len(CLASSES), m), said)
        scenes.append(
            Scene(
                torch.zeros(3, 1, 1).expand(3, 300, 300),
                f"{i}",
                i + 1,
                boxes=torch.tensor(box, dtype=torch.float32).reshape(-1, 4),
                labels=torch.tensor(label),
                ignore=torch.tensor(rng.random(n) < 0.2),
            )
        )
        scores = torch.tensor(rng.random(m).round(1 if seed % 2 else 6), dtype=torch.float32)
        boxes = torch.tensor(moved, dtype=torch.float32).reshape(-1, 4)
        found.append(Detections(boxes, scores, torch.tensor(said).long(), torch.full((m,), -1)))
    return scenes, found


@pytest.mark.parametrize("seed", range(20))
def test_figures_of_parts_are_those_of_hotcoco(seed: int) -> None:
    scenes, found = made(seed)
    want = coco_figures(scenes, found, CLASSES).to_dict()
    collected, step = CocoParts(CLASSES), max(1, len(scenes) // 3)
    for low in range(0, len(scenes), step):
        best = BoxSet.of(scenes[low : low + step], found[low : low + step]).best(100)
        collected.add(best, overlaps(best))
    have = collected.figures().to_dict()
    own, theirs = have.pop("per_class"), want.pop("per_class")
    for mine, other in ((have, want), *((own[name], theirs[name]) for name in CLASSES)):
        assert {k for k, v in mine.items() if v is None} == {k for k, v in other.items() if v is None}
        known = {k: v for k, v in other.items() if v is not None}
        assert {k: mine[k] for k in known} == pytest.approx(known, rel=0, abs=1e-12)


def test_a_detection_prefers_a_truth_that_counts_to_a_closer_one_that_does_not() -> None:
    """By hand, among small objects: the object of 40x40 is outside, that of 30x30 counts."""
    truth = np.array([[0.0, 0, 40, 40], [0, 0, 30, 30]])
    found = np.array([[0.0, 0, 40, 36], [0, 0, 40, 40]])
    zero = np.zeros(2, np.int64)
    best = BoxSet.of_arrays([1], (truth, zero, zero), (found, zero, zero), [0.9, 0.8])
    collected = CocoParts(("a",))
    collected.add(best, overlaps(best))
    figures = collected.figures()
    assert collected.truths[:, 0].tolist() == [2, 1, 1, 0]
    # the first fits the large one at 0.9 and the small one at 0.625: among small objects it takes that, at three IoUs
    assert figures.ap_small == pytest.approx(0.3)
    # among medium ones it takes the large one at nine IoUs; at 0.95 it is a false alarm before the second, a hit
    assert figures.ap_medium == pytest.approx(0.95)


def test_figures_are_told_once_and_for_all() -> None:
    scenes, found = made(1)
    best = BoxSet.of(scenes, found).best(100)
    collected = CocoParts(CLASSES)
    collected.add(best, overlaps(best))
    told = collected.figures()
    assert collected.figures() == told
    assert len(list(collected.by_iou())) == 10
    with pytest.raises(RuntimeError, match="told already"):
        collected.add(best, overlaps(best))
