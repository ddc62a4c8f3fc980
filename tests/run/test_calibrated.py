from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from boresight.core.types import Detections, Points, Scene
from boresight.detectors.own_points import with_points_as_boxes
from boresight.diagnose.likeness import BoxIou, Closeness
from boresight.run.calibrated import calibration_error

BOX = [10.0, 10.0, 20.0, 20.0]
HALF = [10.0, 10.0, 20.0, 15.0]
FAR = [40.0, 40.0, 50.0, 50.0]


def scene(**more) -> Scene:
    return Scene(torch.zeros(3, 64, 64), "one", boxes=torch.tensor([BOX]), labels=torch.tensor([0]), **more)


def found(*rows: tuple[list[float], float, int]) -> Detections:
    boxes, scores, labels = zip(*rows, strict=True)
    return Detections(torch.tensor(boxes), torch.tensor(scores), torch.tensor(labels), torch.arange(len(rows)))


def error(given, *rows):
    return calibration_error([given], [found(*rows)], 2, BoxIou())


def test_the_error_on_paper():
    """Scores 0.95, 0.55 and 0.25 stand for IoUs of 1, 0.5 and 0 (no object of the class): 0.05, 0.05 and 0.25 off."""
    assert error(scene(), (BOX, 0.95, 0), (HALF, 0.55, 0), (BOX, 0.25, 1)) == pytest.approx((0.05 + 0.05 + 0.25) / 3)


def test_what_is_no_detection_is_undefined():
    assert (
        calibration_error(
            [scene()],
            [Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long(), torch.zeros(0).long())],
            2,
            BoxIou(),
        )
        is None
    )


def test_dont_cares_and_unlabelled_classes_say_nothing():
    crowd = replace(scene(), boxes=torch.tensor([BOX, FAR]), labels=torch.tensor([0, 0]),
                    ignore=torch.tensor([False, True]))  # fmt: skip
    assert error(crowd, (BOX, 0.95, 0), (FAR, 0.9, 0)) == pytest.approx(0.05)
    partly = scene(exhaustive=torch.tensor([True, False]))
    assert error(partly, (BOX, 0.95, 0), (FAR, 0.9, 1)) == pytest.approx(0.05)
    assert error(partly, (BOX, 0.95, 0), (FAR, 0.9, 0)) == pytest.approx((0.05 + 0.9) / 2)


def test_points_are_compared_by_closeness():
    points = with_points_as_boxes(Scene(torch.zeros(1, 9, 9), "p", points=Points.of([[4.0, 4.0]])))
    told = calibration_error([points], [found(([4.0, 7.0, 4.0, 7.0], 0.75, 0))], 1, Closeness(3.0))
    assert told == pytest.approx(0.25)  # at the tolerance closeness is 0.5
