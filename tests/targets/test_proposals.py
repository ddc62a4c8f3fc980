from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from boresight.core.types import DenseOutput, Proposals, Scene
from boresight.targets.proposals import best_owner, proposal_targets


def scene(boxes, labels=None, *, coarse, coarse_labels=None, matched=None, ignore=None, name="frame") -> Scene:
    truth = torch.tensor(boxes).reshape(-1, 4)
    labels = torch.zeros(len(truth), dtype=torch.long) if labels is None else torch.tensor(labels)
    rough = torch.tensor(coarse).reshape(-1, 4)
    named = torch.full((len(rough),), -1) if coarse_labels is None else torch.tensor(coarse_labels)
    owners = None if matched is None else torch.tensor(matched)
    return Scene(
        torch.zeros(3, 40, 60),
        name,
        boxes=truth,
        labels=labels,
        ignore=None if ignore is None else torch.tensor(ignore),
        proposals=Proposals(rough, named, torch.ones(len(rough)), matched=owners),
    )


def output(start, boxes, counts, *, earlier=None) -> DenseOutput:
    """``start`` and ``boxes``: a list of boxes an image, of equal length."""
    end, begin = (torch.tensor(v).reshape(len(counts), 1, -1, 1, 4) for v in (boxes, start))
    logits = torch.zeros(end.shape[:-1])
    one = DenseOutput(logits, end, 0.0, start=begin, counts=counts)
    if earlier is None:
        return one
    middle = torch.tensor(earlier).reshape(begin.shape)
    return replace(one, start=middle, coarser=(replace(one, start=begin, boxes=middle),))


TRUTH = [10.0, 10.0, 20.0, 20.0]
HALF = [10.0, 10.0, 20.0, 15.0]  # IoU 0.5
MOST = [10.0, 10.0, 20.0, 18.0]  # IoU 0.8


def test_by_hand():
    one = scene([TRUTH, [30.0, 10.0, 40.0, 20.0]], [1, 0], coarse=[HALF, [30.0, 10.0, 40.0, 20.0]], matched=[0, 1])
    targets = proposal_targets(output([HALF, [30.0, 10.0, 40.0, 20.0]], [MOST, [30.0, 10.0, 40.0, 19.0]], (2,)), [one])
    assert targets.positive.flatten().tolist() == [True, True]
    assert targets.matched.flatten().tolist() == [0, 1]
    assert targets.score.flatten().tolist() == [1.0, 0.0]  # the first got better, the second worse
    assert_close(targets.iou.flatten(), torch.tensor([0.8, 0.9]))
    assert_close(targets.start_iou.flatten(), torch.tensor([0.5, 1.0]))
    assert float(targets.normaliser) == 2
    assert targets.labels.tolist() == [1, 0]


def test_every_step_knows_where_it_began_but_better_is_better_than_the_first():
    one = scene([TRUTH], coarse=[MOST], matched=[0])
    targets = proposal_targets(output([MOST], [[10.0, 10.0, 20.0, 17.0]], (1,), earlier=[HALF]), [one])
    (first,) = targets.coarser
    assert_close(first.start_iou.flatten(), torch.tensor([0.8]))
    assert_close(first.iou.flatten(), torch.tensor([0.5]))
    assert_close(targets.start_iou.flatten(), torch.tensor([0.5]))
    assert_close(targets.iou.flatten(), torch.tensor([0.7]))
    assert targets.score.flatten().tolist() == [0.0]  # better than the step before, worse than the coarse box


def test_padding_is_ignored_and_objects_of_the_second_image_come_after_those_of_the_first():
    one = scene([TRUTH], coarse=[HALF], matched=[0], name="one")
    two = scene([TRUTH, HALF], coarse=[HALF, MOST], matched=[1, 0], name="two")
    unit = [0.0, 0.0, 1.0, 1.0]
    targets = proposal_targets(output([HALF, unit, HALF, MOST], [HALF, unit, HALF, MOST], (1, 2)), [one, two])
    assert targets.matched.flatten().tolist() == [0, -1, 2, 1]
    assert targets.ignore.flatten().tolist() == [False, True, False, False]
    assert targets.positive.flatten().tolist() == [True, False, True, True]


def test_a_coarse_box_of_a_crowd_is_ignored():
    one = scene([TRUTH], coarse=[HALF], matched=[0], ignore=[True])
    targets = proposal_targets(output([HALF], [HALF], (1,)), [one])
    assert targets.ignore.all()
    assert not targets.positive.any()
    assert float(targets.normaliser) == 0


def test_a_coarse_box_of_no_object_is_known_by_what_it_overlaps_most():
    one = scene([TRUTH], coarse=[HALF], matched=[-1])
    targets = proposal_targets(output([HALF], [MOST], (1,)), [one])
    assert not targets.positive.any()
    assert not targets.ignore.any()
    assert_close(targets.iou.flatten(), torch.tensor([0.8]))
    assert targets.score.flatten().tolist() == [0.0]


def test_an_image_without_objects():
    one = scene([], coarse=[HALF], matched=[-1])
    targets = proposal_targets(output([HALF], [MOST], (1,)), [one])
    assert targets.iou.flatten().tolist() == [0.0]
    assert not targets.positive.any()
    two = scene([TRUTH], coarse=[HALF], matched=[0], name="two")
    targets = proposal_targets(output([HALF, HALF], [MOST, MOST], (1, 1)), [one, two])
    assert_close(targets.iou.flatten(), torch.tensor([0.0, 0.8]))


@pytest.mark.parametrize(
    ("labels", "coarse_labels", "limit", "owners"),
    [
        ([0, 1], [0, 0], 0.1, [0, -1]),  # the second is of the other class
        ([0, 1], [-1, -1], 0.1, [0, 1]),  # class unknown
        ([0, 1], [0, 1], 0.6, [-1, 1]),  # the first overlaps too little
    ],
)
def test_unknown_owners_are_found_by_class_and_overlap(labels, coarse_labels, limit, owners):
    far = [30.0, 10.0, 40.0, 20.0]
    one = scene([TRUTH, far], labels, coarse=[HALF, far], coarse_labels=coarse_labels)
    assert best_owner(one, one.proposals, limit).tolist() == owners


def test_without_truth_no_owner_is_found():
    one = scene([], coarse=[HALF])
    assert best_owner(one, one.proposals, 0.1).tolist() == [-1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"boxes": None, "labels": None}, "no box truth"),
        ({"boxes": torch.tensor([[100.0, 10.0, 120.0, 20.0]])}, "outside"),
        ({"proposals": None}, "the scene has none"),
    ],
)
def test_what_cannot_be_judged_is_named(change, words):
    one = replace(scene([TRUTH], coarse=[HALF], matched=[0]), **change)
    with pytest.raises(ValueError, match=words) as error:
        proposal_targets(output([HALF], [HALF], (1,)), [one])
    assert "frame" in str(error.value)


def test_an_owner_that_does_not_exist_is_named():
    one = scene([TRUTH], coarse=[HALF], matched=[3])
    with pytest.raises(ValueError, match="object 3 of 1"):
        proposal_targets(output([HALF], [HALF], (1,)), [one])
