"""Chance floors: the known table of content-free boxes, and each kind of box on paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from boresight.core.types import Scene
from boresight.evaluate.floors import (
    cam_box,
    check_prior,
    concentric_boxes,
    mean_size_boxes,
    random_boxes,
    skill,
    training_sizes,
)

FRAME = 1000


def frame_sizes(count: int, generator: torch.Generator) -> Tensor:
    """``[count, 2]``: side log-uniform in 0.04..0.44 of the frame, log aspect (width / height) normal, sd 0.68."""
    side = 0.04 * (0.44 / 0.04) ** torch.rand(count, 1, generator=generator)
    half = torch.exp(0.68 / 2 * torch.randn(count, 1, generator=generator))
    return FRAME * torch.cat((side * half, side / half), dim=1).clamp(max=1.0)


@pytest.mark.parametrize(
    ("cells", "mean_iou", "accuracy", "objects"),
    [(7, 0.23, 0.07, 4000), (28, 0.47, 0.49, 3000), (56, 0.59, 0.71, 2000), (224, 0.76, 0.99, 400)],
)
def test_boxes_without_content_give_the_known_oracle(cells: int, mean_iou: float, accuracy: float, objects: int):
    generator = torch.Generator().manual_seed(cells)
    prior = frame_sizes(20_000, generator)
    truth = random_boxes(prior, objects, (FRAME, FRAME), generator)
    best = torch.cat(
        [
            box_iou(part, random_boxes(prior, cells**2, (FRAME, FRAME), generator)).amax(dim=1)
            for part in truth.split(10)
        ]
    )
    assert float(best.mean()) == pytest.approx(mean_iou, abs=0.03)
    assert float((best >= 0.5).float().mean()) == pytest.approx(accuracy, abs=0.03)
    # The box centred on the object stays where it is, whatever the grid.
    centred = box_iou(truth, concentric_boxes(truth, prior, (FRAME, FRAME), generator)).diagonal()
    assert float(centred.mean()) == pytest.approx(0.26, abs=0.03)


def test_random_boxes_lie_in_the_frame_and_have_training_sizes():
    generator = torch.Generator().manual_seed(0)
    prior = torch.tensor([[10.0, 20.0], [300.0, 5.0]])
    boxes = random_boxes(prior, 500, (60, 100), generator)
    assert bool((boxes[:, :2] >= 0).all())
    assert bool((boxes[:, 2] <= 100.001).all())
    assert bool((boxes[:, 3] <= 60.001).all())
    sizes = (boxes[:, 2:] - boxes[:, :2]).round().unique(dim=0).tolist()
    assert sizes == [[10.0, 20.0], [100.0, 5.0]]  # what does not fit is cut to the frame
    assert float(boxes[:, 0].max()) > 60  # anywhere, not in a corner


def test_the_mean_size_at_every_cell():
    boxes = mean_size_boxes(torch.tensor([[10.0, 20.0], [30.0, 60.0]]), 1, 2, 8)
    assert boxes.tolist() == [[-6, -16, 14, 24], [2, -16, 22, 24]]


def test_the_box_of_a_class_map():
    cam = torch.zeros(4, 6)
    cam[1, 1:3] = torch.tensor([1.0, 0.6])
    cam[2, 3] = 0.7  # touches by a corner
    cam[0, 5] = 0.9  # bright, but apart
    cam[1, 0] = 0.5  # exactly half is not above half
    assert cam_box(cam, 8, (30, 44)).tolist() == [8, 8, 32, 24]
    cam[0, 5] = 1.1
    assert cam_box(cam, 8, (30, 44)).tolist() == [40, 0, 44, 8]  # cut to the image
    assert cam_box(torch.zeros(2, 2), 8, (16, 16)) is None
    assert cam_box(-torch.ones(2, 2), 8, (16, 16)) is None


def test_skill():
    assert skill(0.75, 0.5) == 0.5
    assert skill(np.array([0.2, 1.0]), 0.2).tolist() == [0, 1]
    assert skill(0.1, 0.2) < 0
    assert np.isnan(skill(1.0, 1.0))
    assert np.isnan(skill(np.nan, 0.2))


def test_the_prior_leaves_out_what_does_not_count():
    boxes = torch.tensor([[0.0, 0, 4, 8], [1, 1, 3, 2]])
    crowd = Scene(
        torch.zeros(1, 9, 9), "a", boxes=boxes, labels=torch.zeros(2).long(), ignore=torch.tensor([False, True])
    )
    assert training_sizes([crowd, crowd]).tolist() == [[4, 8], [4, 8]]


@pytest.mark.parametrize(
    "prior", [torch.zeros(0, 2), torch.ones(3), torch.tensor([[1.0, 0.0]]), torch.full((1, 2), torch.nan)]
)
def test_a_useless_prior_is_refused(prior: Tensor):
    with pytest.raises(ValueError, match="prior"):
        check_prior(prior)
