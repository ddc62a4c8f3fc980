"""Means over objects with intervals over images, and the errors of a box, on paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from boresight.evaluate.box_errors import box_errors
from boresight.evaluate.estimate import Estimate, Resampler


def test_box_errors_by_hand():
    truth = torch.tensor([[0.0, 0, 10, 40]])  # side 20
    boxes = torch.tensor([[3.0, 4, 23, 44]])  # 20 x 40, centre (13, 24) against (5, 20)
    got = box_errors(truth, boxes, torch.tensor([0.5]), 4)[0]
    centre = 80**0.5
    assert got.tolist() == pytest.approx([0.5, centre / 4, centre / 20, 5 / 4, 0.5, 2**0.5 - 1])


def test_means_are_over_objects_and_intervals_over_images():
    resampler = Resampler(np.array([0, 0, 2]), 3, 400, 0)
    assert resampler.estimate([1.0, 0.0, 1.0]).value == pytest.approx(2 / 3)
    assert resampler.estimate([1.0, 0.0, np.nan]) == Estimate(0.5, 2, (0.5, 0.5))  # only one image speaks
    low, high = resampler.estimate([0.0, 0.0, 1.0]).interval or (None, None)
    assert (low, high) == (0.0, 1.0)
    assert resampler.estimate([np.nan] * 3) == Estimate(None, 0, None)
