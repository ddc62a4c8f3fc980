"""What every assigner promises: batches, order, devices, memory, no word from the device."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from boresight.core.types import DenseOutput
from boresight.losses.boxes import box_loss
from boresight.targets import dense
from boresight.targets.atss import Atss
from boresight.targets.inside import Inside
from boresight.targets.radius import Radius
from boresight.targets.simota import SimOta
from boresight.targets.tal import Tal

RULES = {
    "radius": Radius(),
    "inside": Inside(),
    "centre": Inside(1.5),
    "atss": Atss(),
    "tal": Tal(),
    "simota": SimOta(),
}
SCORES = {
    "hard": dense.hard,
    "centerness": dense.centerness_target,
    "iou": dense.iou,
    "aligned": dense.aligned,
    "mal": dense.iou_power(),
}
each_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


@each_rule
@pytest.mark.parametrize("seed", range(25))
def test_a_batch_is_its_images_one_by_one(build, rule, seed):
    """The last image of a batch is smaller and padded: that changes nothing either."""
    case = build.random_case(seed, images=3)
    together, begin = build.owners(case.run(rule)), 0
    for i in range(3):
        alone = case.alone(i)
        found = build.owners(alone.run(rule))
        assert {(i, *c[1:]): m + begin for c, m in found.items()} == {c: m for c, m in together.items() if c[0] == i}
        begin += len(alone.objects)
    assert begin == len(case.objects)


@each_rule
@pytest.mark.parametrize("seed", range(25))
def test_the_order_of_objects_does_not_matter(build, rule, seed):
    case = build.random_case(seed, images=1, whole=False)
    scene = case.scenes[0]
    order = torch.randperm(len(scene.boxes), generator=torch.Generator().manual_seed(seed))
    shuffled = build.Case([replace(scene, boxes=scene.boxes[order], labels=scene.labels[order])], *parts(case))
    moved = build.owners(shuffled.run(rule))
    assert {c: int(order[m]) for c, m in moved.items()} == build.owners(case.run(rule))


def parts(case):
    return case.output, case.score


@each_rule
def test_the_lower_of_two_equal_objects_has_the_cells(build, rule):
    box = [8.0, 8.0, 40.0, 40.0]
    boxes = torch.tensor(box).expand(1, 1, 8, 8, 4)
    output = DenseOutput(torch.zeros(1, 1, 8, 8), boxes, 8.0)
    case = build.Case([build.scene([box, box])], output, torch.full((1, 1, 8, 8), 0.5))
    assert set(build.owners(case.run(rule)).values()) == {0}


@each_rule
@pytest.mark.parametrize("classes", [1, 3])
def test_no_objects_no_positives(build, rule, classes):
    case = empty(build, classes)
    found = case.run(rule)
    assert build.owners(found) == {}
    for score in SCORES.values():
        targets = dense.dense_targets(case.output, found, case.objects, case.scenes, score=score, box_cells="inside")
        assert not targets.positive.any()
        assert targets.matched.eq(-1).all()
        assert float(targets.normaliser) == 0


def empty(build, classes):
    output = DenseOutput(torch.zeros(2, classes, 4, 5), torch.zeros(2, classes, 4, 5, 4), 8.0)
    return build.Case([build.scene([], size=(32, 40))] * 2, output, torch.zeros(2, classes, 4, 5))


@each_rule
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_output_is_assigned_in_float32(build, rule, dtype):
    """Boxes and scores that half precision holds exactly: the answer is that of float32."""
    case = build.random_case(4)
    low = replace(case.output, logits=case.output.logits.to(dtype), boxes=case.output.boxes.to(dtype))
    high = replace(low, logits=low.logits.float(), boxes=low.boxes.float())
    if case.shape.shared:  # a conversion may forget that the boxes are shared
        high = replace(high, boxes=high.boxes[:, :1].expand_as(high.boxes))
        low = replace(low, boxes=low.boxes[:, :1].expand_as(low.boxes))
    score = case.score.to(dtype)
    found = build.Case(case.scenes, low, score).run(rule)
    assert build.owners(found) == build.owners(build.Case(case.scenes, high, score.float()).run(rule))
    assert found.metric is None or found.metric.dtype == torch.float32


@each_rule
def test_nothing_is_written_into_and_nothing_has_a_gradient(build, rule):
    case = build.random_case(7)
    boxes = case.output.boxes.clone().requires_grad_()
    before = boxes.detach().clone(), case.score.clone(), [s.boxes.clone() for s in case.scenes]
    found = build.Case(case.scenes, replace(case.output, boxes=boxes), case.score.requires_grad_()).run(rule)
    assert found.metric is None or not found.metric.requires_grad
    assert torch.equal(before[0], boxes)
    assert torch.equal(before[1], case.score)
    assert all(torch.equal(a, s.boxes) for a, s in zip(before[2], case.scenes, strict=True))


# ---------------------------------------------------------------- memory


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation makes."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not func.is_view:  # a view takes no memory
            self.numel = max([self.numel, *(t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor))])
        return out


def crowded(build, *, shared, images=2, classes=4, device="cpu"):
    """60 objects of 3 to 15 cells a side in each image of 112 x 112 cells."""
    random = torch.Generator().manual_seed(0)
    scenes = []
    for _ in range(images):
        centre = 50 + 796 * torch.rand(60, 2, generator=random)
        half = 12 + 48 * torch.rand(60, 2, generator=random)
        boxes = torch.cat((centre - half, centre + half), dim=-1)
        labels = torch.randint(0, classes, (60,), generator=random)
        scenes.append(build.scene(boxes.tolist(), labels.tolist(), size=(896, 896)))
    logits = torch.zeros(images, classes, 112, 112, device=device)
    boxes = torch.zeros(images, 1 if shared else classes, 112, 112, 4, device=device)
    output = DenseOutput(logits, boxes.expand(images, classes, 112, 112, 4), 8.0, sizes=((896, 896), (800, 704)))
    return build.Case(scenes, output, logits.sigmoid())


@each_rule
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("box_cells", ["positive", "inside"])
def test_no_tensor_of_objects_times_cells(build, rule, shared, box_cells):
    """120 objects x 12544 cells are 1.5 M: nothing may be larger than the maps themselves, here 4 x 25088 (+ 1).

    ``Radius`` looks at 8 objects at a time, and at four coordinates: 32 x 12544.
    """
    case = crowded(build, shared=shared)
    objects = case.objects
    with Largest() as seen:
        found = rule(case.output, case.score, objects)
        targets = dense.dense_targets(
            case.output, found, objects, case.scenes, score=dense.aligned, box_cells=box_cells
        )
    maps = case.output.logits.numel() + 1
    bound = max(maps, 32 * 112 * 112) if isinstance(rule, Radius) else maps
    assert seen.numel <= bound < len(objects) * 112 * 112 / 3
    assert int((targets.matched >= 0).sum()) > 60 or isinstance(rule, Radius)
    assert len(found.candidates) < 12000


# ---------------------------------------------------------------- no word from the device

SYNCS = ("_local_scalar_dense", "nonzero", "masked_select", "item", "is_nonzero", "equal", "unique", "_unique2")


class NoSync(TorchDispatchMode):
    """Refuses what would make the host wait for the device; a tensor on ``meta`` stands for one on the device.

    A meta tensor has a shape and no values: whoever needs a value fails by itself too. On a GPU a mask as an index and
    a repetition of unknown length ask for a value; mixing devices is an error there.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [t for t in tree_leaves((args, kwargs or {})) if isinstance(t, torch.Tensor)]
        if any(t.is_meta for t in tensors):
            name = func._schema.name.removeprefix("aten::")
            assert name not in SYNCS, f"{name} waits for the device"
            assert not (name == "repeat_interleave" and (kwargs or {}).get("output_size") is None), name
            if name in ("index", "index_put", "index_put_"):
                assert not any(t.dtype == torch.bool for t in tree_leaves(args[1]) if t is not None), "a mask as index"
            mixed = [t for t in tensors if not t.is_meta and t.ndim]
            assert not mixed or name in ("_to_copy", "copy_"), f"{name} mixes devices"
        return func(*args, **(kwargs or {}))


@each_rule
@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
@pytest.mark.parametrize("shared", [True, False])
def test_a_step_never_waits_for_the_device(build, rule, score, shared):
    """Truth on the CPU, output on the device; crowds, unknown classes and padding included."""
    case = crowded(build, shared=shared, device="meta")
    scenes = [
        replace(s, ignore=torch.arange(60) > 55, exhaustive=torch.tensor([True, False, True, True]))
        for s in case.scenes
    ]
    case = build.Case(scenes, case.output, case.score)
    with NoSync():
        found = case.run(rule)
        targets = dense.dense_targets(case.output, found, case.objects, scenes, score=score, box_cells="inside")
        for per in ("cells", "objects"):
            l1, giou = box_loss(case.output.boxes, targets, weight=targets.score, per=per)
    tensors = (found.positive, targets.positive, targets.matched, targets.score, targets.ignore, targets.objects)
    assert all(t.is_meta for t in (*tensors, targets.labels, targets.counted, targets.normaliser, l1, giou))


@pytest.mark.parametrize(
    "fault",
    [
        lambda t: bool((t > 0).any()),
        lambda t: t.sum().item(),
        lambda t: t[t > 0],
        lambda t: t.nonzero(),
        lambda t: t + torch.zeros(3),
        lambda t: torch.repeat_interleave(t.long()),
        lambda t: t.masked_select(t > 0),
        lambda t: t.index_put_((t > 0,), torch.zeros((), device="meta")),
        lambda t: torch.unique(t),
    ],
)
def test_the_watch_bites(fault):
    with NoSync(), pytest.raises((AssertionError, RuntimeError, NotImplementedError)):
        fault(torch.zeros(3, device="meta"))
