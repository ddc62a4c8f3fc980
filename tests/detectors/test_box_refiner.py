"""What a refiner promises beyond the contract (tests/test_contract.py)."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

from boresight.core.boxes import aligned_iou
from boresight.core.types import Detections, Proposals, Scene
from boresight.detectors.box_looks import Looking, Reference
from boresight.detectors.box_refiner import BoxRefiner, RefineCriterion, settled
from boresight.features.encoder import FeatureMaps
from boresight.features.feature_store import MemoryStore
from boresight.features.stored_maps import StoredMaps
from boresight.heads.refiner import ReferenceHead, RefineHead
from boresight.targets.jitter import jitter


class Shades:
    """A frozen encoder that gives block means; its maps may reach beyond the image, as those of a padded one do."""

    name, about, fingerprint, notes = "shades", {"x": 1}, "a" * 32, ()
    channels, strides = (3,), (4.0,)
    device = torch.device("cpu")

    def identity(self) -> str:
        return self.fingerprint

    def __init__(self) -> None:
        self.calls = 0

    def encode(self, images):
        self.calls += len(images)
        return [self._maps(image) for image in images]

    def _maps(self, image):
        level = torch.nn.functional.avg_pool2d(image.float()[None], 4, ceil_mode=True)[0] / 255
        return FeatureMaps((level,), torch.tensor([[4.0 * level.shape[1], 4.0 * level.shape[2]]]))


def looking(decide="confidence", steps=2, channels=(3,), shared=True) -> Looking:
    confident = decide == "confidence"
    last = [confident] if shared else [False] * (steps - 1) + [confident]
    heads = [RefineHead(channels, grid=4, width=16, depth=1, decides=d) for d in last]
    return Looking(heads, steps=steps, context=2.0, decide=decide)


def refiner(kind=looking, encoder=None, **criterion) -> BoxRefiner:
    torch.manual_seed(0)
    maps = StoredMaps(encoder or Shades(), MemoryStore(10))
    return BoxRefiner(maps, kind(), RefineCriterion(**criterion))


def scene(seed=0, size=(64, 80), iou=(0.3, 0.6, 0.9), turns=None) -> Scene:
    random = torch.Generator().manual_seed(seed)
    image = (60 * torch.rand(3, *size, generator=random)).to(torch.uint8)
    boxes = torch.tensor([[8.0, 10.0, 28.0, 30.0], [40.0, 8.0, 60.0, 20.0], [50.0, 40.0, 76.0, 60.0]])[: len(iou)]
    for x0, y0, x1, y1 in boxes.long().tolist():
        image[:, y0:y1, x0:x1] += 150
    coarse = jitter(boxes, torch.tensor(iou), random, size=size)
    count = len(boxes)
    given = Proposals(coarse, torch.zeros(count, dtype=torch.long), torch.ones(count), torch.arange(count), turns)
    return Scene(
        image, f"frame {seed}", seed, boxes=boxes, labels=torch.zeros(count, dtype=torch.long), proposals=given
    )


def fitted(detector: BoxRefiner, scenes: list[Scene], steps: int = 60) -> list[float]:
    optimiser = torch.optim.AdamW(detector.parameters(), lr=3e-3)
    losses = []
    for _ in range(steps):
        output = detector(scenes)
        total = torch.stack(list(detector.loss(output, detector.assign(output, scenes)).values())).sum()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        losses.append(float(total.detach()))
    return losses


def test_boxes_learn_to_move_onto_their_objects():
    detector, scenes = refiner(), [scene(0), scene(1)]
    losses = fitted(detector, scenes)
    assert losses[-1] < 0.6 * losses[0]
    with torch.no_grad():
        output = detector.eval()(scenes)
    targets = detector.assign(output, scenes)
    assert float(targets.iou.mean()) > 0.75
    assert float(targets.coarser[0].start_iou.mean()) < 0.65


@pytest.mark.parametrize("kind", [looking, lambda: Reference(ReferenceHead((3,)))])
@pytest.mark.parametrize("scale", [1, 40])
def test_the_loss_of_a_fresh_refiner_is_of_size_one_whatever_the_pixels(kind, scale):
    """The known fault: L1 in pixels of boxes of hundreds of pixels starts at 300."""
    small = scene()
    big = Scene(
        small.image.repeat_interleave(scale, 1).repeat_interleave(scale, 2),
        "big",
        boxes=small.boxes * scale,
        labels=small.labels,
        proposals=replace(small.proposals, boxes=small.proposals.boxes * scale),
    )
    detector = refiner(kind)
    output = detector([big])
    terms = detector.loss(output, detector.assign(output, [big]))
    assert float(sum(t.detach() for t in terms.values())) < 10


def test_the_encoder_is_asked_once_an_image_and_is_no_part_of_the_weights():
    encoder = Shades()
    detector = refiner(encoder=encoder)
    for _ in range(3):
        detector([scene(0), scene(1)])
    assert encoder.calls == 2
    assert not [n for n in detector.state_dict() if "features" in n]


def test_a_box_may_be_shown_in_any_orientation():
    """A refiner that was trained on all of them says nearly the same of each; a turn moves no box by itself."""
    detector = refiner().eval()
    upright = detector([scene(turns=torch.zeros(3, dtype=torch.long))])
    none = detector([scene()])
    assert torch.equal(upright.boxes, none.boxes)
    for turn in range(1, 8):
        turned = detector([scene(turns=torch.full((3,), turn))])
        assert_close(turned.boxes, none.boxes, atol=1.0, rtol=0)  # a fresh head leaves boxes where they are
        assert not torch.equal(turned.quality, none.quality)  # but it sees another picture


def test_turned_boxes_learn_as_upright_ones_do():
    scenes = [scene(s, turns=torch.tensor([s % 8, (s + 3) % 8, (s + 5) % 8])) for s in range(4)]
    detector = refiner()
    fitted(detector, scenes)
    output = detector.eval()(scenes)
    assert float(detector.assign(output, scenes).iou.mean()) > 0.7


@pytest.mark.parametrize("shared", [True, False])
def test_each_step_starts_where_the_last_one_ended(shared):
    output = refiner(lambda: looking(steps=3, shared=shared)).eval()([scene()])
    steps = [*output.coarser, output]
    assert len(steps) == 3
    assert_close(steps[0].start[0, 0, :, 0], scene().proposals.boxes)
    for before, after in pairwise(steps):
        assert torch.equal(before.boxes, after.start)
        assert torch.equal(before.quality, after.start_quality)


def test_gain_is_the_difference_of_the_predicted_qualities():
    output = refiner(lambda: looking("gain")).eval()([scene()])
    gain = output.quality - output.coarser[0].start_quality
    assert_close(output.logits.sigmoid(), (1 + gain) / 2)


def test_degenerate_coarse_boxes_have_finite_gradients():
    bad = torch.tensor([[20.0, 20.0, 20.0, 20.0], [40.0, 20.0, 30.0, 10.0], [-500.0, -500.0, -400.0, -400.0]])
    one = scene()
    one = replace(one, proposals=replace(one.proposals, boxes=bad))
    detector = refiner()
    output = detector([one])
    torch.stack(list(detector.loss(output, detector.assign(output, [one])).values())).sum().backward()
    assert output.boxes.isfinite().all()
    assert not [n for n, p in detector.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


def test_a_coarse_box_that_is_not_finite_is_named():
    one = scene()
    boxes = one.proposals.boxes.clone()
    boxes[1, 2] = float("nan")
    with pytest.raises(ValueError, match="frame 0: a coarse box is not finite"):
        refiner()([replace(one, proposals=replace(one.proposals, boxes=boxes))])


def test_a_scene_without_coarse_boxes_is_named_and_one_with_none_of_them_is_fine():
    with pytest.raises(ValueError, match="frame 0 has no coarse boxes"):
        refiner()([replace(scene(), proposals=None)])
    none = Proposals(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0), torch.zeros(0).long())
    detector = refiner().eval()
    output = detector([replace(scene(), proposals=none), scene(1)])
    assert output.counts == (0, 3)
    assert [len(d) for d in detector.decode(output)] == [0, 3]


def test_other_coarse_boxes_than_the_output_s_are_refused():
    detector = refiner()
    with pytest.raises(ValueError, match="the output is of 3 coarse boxes, the scene has 2"):
        detector.assign(detector([scene()]), [scene(iou=(0.3, 0.6))])


def test_boxes_stay_inside_of_their_images():
    edge = torch.tensor([[60.0, 50.0, 80.0, 64.0], [0.0, 0.0, 6.0, 6.0], [70.0, 0.0, 80.0, 10.0]])
    one = scene()
    output = refiner()([replace(one, proposals=replace(one.proposals, boxes=edge))])
    assert (output.boxes >= 0).all()
    assert (output.boxes <= torch.tensor([80.0, 64.0, 80.0, 64.0])).all()


def test_heads_and_steps_must_agree():
    with pytest.raises(ValueError, match="3 steps need one head, or 3; got 2"):
        Looking([RefineHead((), grid=4, width=16), RefineHead((), grid=4, width=16)], steps=3, context=2.0)


def answers(proposals: Proposals, boxes, scores) -> Detections:
    order = torch.tensor(scores).argsort(descending=True)
    return Detections(torch.tensor(boxes)[order], torch.tensor(scores)[order], torch.zeros_like(order), order)


def test_a_box_is_replaced_where_the_refiner_is_sure_enough():
    given = scene().proposals
    moved = (given.boxes + 1).tolist()
    boxes, replaced = settled(given, answers(given, moved, [0.2, 0.9, 0.5]), 0.5)
    assert replaced.tolist() == [False, True, True]
    assert torch.equal(boxes[0], given.boxes[0])
    assert torch.equal(boxes[1:], given.boxes[1:] + 1)


def test_a_refined_box_without_area_replaces_nothing():
    given = scene().proposals
    boxes, replaced = settled(given, answers(given, [[5.0, 5.0, 5.0, 9.0]] * 3, [0.9, 0.9, 0.9]), 0.5)
    assert not replaced.any()
    assert torch.equal(boxes, given.boxes)


def test_answers_of_another_image_settle_nothing():
    given = scene().proposals
    one = answers(given, given.boxes.tolist(), [0.9, 0.9, 0.9])
    with pytest.raises(ValueError, match="3 coarse boxes, 2 answers"):
        settled(given, one.select(torch.tensor([0, 1])), 0.5)


def test_what_is_kept_is_exactly_the_coarse_box():
    given = scene().proposals
    boxes, _ = settled(given, answers(given, (given.boxes + 3).tolist(), [0.1, 0.1, 0.1]), 0.5)
    truth = scene().boxes
    assert torch.equal(aligned_iou(boxes, truth), aligned_iou(given.boxes, truth))


def test_a_scene_on_another_device_is_named_with_both_sides():
    detector = refiner()
    for one in (scene().to("meta"), replace(scene(), proposals=scene().proposals.to("meta"))):
        with pytest.raises(
            ValueError, match=r"frame 0: the image is on \w+, its coarse boxes on meta, the refiner on cpu"
        ):
            detector([one])


def test_maps_of_another_encoder_are_named_with_both_sides():
    detector = refiner(lambda: looking(channels=(5,)))
    with pytest.raises(ValueError, match=r"the frozen maps have \[3\] channels, the head reads \[5\]"):
        detector([scene()])
