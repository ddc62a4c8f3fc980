"""For which object each coarse box stands, and how well boxes fit: the targets of a refiner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torchvision.ops import box_iou

from boresight.core.boxes import aligned_iou
from boresight.core.types import DenseOutput, DenseTargets, Proposals, Scene


@torch.no_grad()
def proposal_targets(output: DenseOutput, scenes: Sequence[Scene], match_iou: float = 0.1) -> DenseTargets:
    """Targets of a refiner's output, whose cells are the coarse boxes of the scenes.

    A coarse box stands for the object that ``Proposals.matched`` names or, where that is unknown, for the one of its
    class (any, where the class is unknown) that it overlaps most, by ``match_iou`` or more. ``score`` is 1 where the
    emitted box fits that object better than the box where the refiner started, which is what the logits are to say.
    Coarse boxes that stand for a don't-care, and padding, are ignored.

    Raises ValueError for a scene without truth, with truth outside of its image, and for other coarse boxes than those
    of the output.
    """
    most, device = output.logits.shape[2], output.logits.device
    matched, ignore = [], []
    offset = 0
    for scene, count in zip(scenes, output.counts, strict=True):
        owner, unknown = _owners(scene, count, match_iou)
        matched.append(_filled(torch.where(owner >= 0, owner + offset, -1), most, -1))
        ignore.append(_filled(unknown, most, True))
        offset += len(scene.boxes)  # type: ignore[arg-type]
    objects = torch.cat([s.boxes.float() for s in scenes]).to(device)  # type: ignore[union-attr]
    labels = torch.cat([s.labels for s in scenes]).to(device)  # type: ignore[misc]
    counted = torch.cat([_counted(s) for s in scenes]).to(device)
    owner = torch.stack(matched)[:, None, :, None].to(device)
    unknown = torch.stack(ignore)[:, None, :, None].to(device)
    owner = torch.where(unknown, -1, owner)
    first = (output.coarser or (output,))[0]
    assert first.start is not None
    began = _fit(first.start, owner, objects, scenes)
    normaliser = counted.sum().float()
    base = DenseTargets(
        positive=owner >= 0,
        matched=owner,
        score=torch.zeros_like(began),
        ignore=unknown,
        objects=objects,
        labels=labels,
        counted=counted,
        normaliser=normaliser,
    )
    steps, start = [], began
    for one in (*output.coarser, output):
        reached = _fit(one.boxes, owner, objects, scenes)
        better = ((reached > began) & (owner >= 0)).float()
        steps.append(replace(base, score=better, iou=reached, start_iou=start))
        start = reached
    return replace(steps[-1], coarser=tuple(steps[:-1]))


def _counted(scene: Scene) -> Tensor:
    assert scene.boxes is not None
    return torch.ones(len(scene.boxes), dtype=torch.bool) if scene.ignore is None else ~scene.ignore.cpu().bool()


def _owners(scene: Scene, count: int, match_iou: float) -> tuple[Tensor, Tensor]:
    """``[M]`` rows of the scene's boxes, -1 for none, and ``[M]`` bool whether nothing may be asked."""
    if scene.boxes is None:
        raise ValueError(f"{scene.name} has no box truth: unknown is not empty, training needs it")
    height, width = scene.size
    far = scene.boxes.new_tensor([width, height, width, height])
    if bool(((scene.boxes[:, :2] > far[:2]) | (scene.boxes[:, 2:] < 0)).any()):
        raise ValueError(f"{scene.name} has a box outside of its image of {width}x{height}")
    proposals = scene.proposals
    if proposals is None or len(proposals) != count:
        have = "none" if proposals is None else len(proposals)
        raise ValueError(f"{scene.name}: the output is of {count} coarse boxes, the scene has {have}")
    owner = best_owner(scene, proposals, match_iou) if proposals.matched is None else proposals.matched.cpu()
    if count and int(owner.max()) >= len(scene.boxes):
        raise ValueError(f"{scene.name}: a coarse box stands for object {int(owner.max())} of {len(scene.boxes)}")
    unknown = (owner >= 0) & ~torch.cat((_counted(scene), torch.ones(1, dtype=torch.bool)))[owner]
    return owner, unknown


def best_owner(scene: Scene, proposals: Proposals, match_iou: float) -> Tensor:
    """``[M]`` row of the truth that each coarse box overlaps most, of its class where that is known; -1 for none."""
    assert scene.boxes is not None
    assert scene.labels is not None
    if not len(scene.boxes):
        return torch.full((len(proposals),), -1, dtype=torch.long)
    labels = proposals.labels.cpu()[:, None]
    same = (labels < 0) | (labels == scene.labels.cpu())
    iou = torch.where(same, box_iou(proposals.boxes.cpu().float(), scene.boxes.cpu().float()), -1.0)
    best, owner = iou.max(dim=1)
    return torch.where(best >= match_iou, owner, -1)


def _filled(values: Tensor, length: int, fill: int | bool) -> Tensor:
    return torch.cat((values, values.new_full((length - len(values),), fill)))


def _fit(boxes: Tensor, owner: Tensor, objects: Tensor, scenes: Sequence[Scene]) -> Tensor:
    """``[B, 1, M, 1]`` IoU with the owner or, without one, with the object of the image that is overlapped most."""
    if not len(objects):
        return torch.zeros(owner.shape, device=boxes.device)
    own = aligned_iou(boxes.float(), objects[owner.clamp(min=0)])
    ends = torch.tensor([len(s.boxes) for s in scenes]).cumsum(0).tolist()  # type: ignore[arg-type]
    parts = zip(boxes[:, 0, :, 0].float(), [0, *ends[:-1]], ends, strict=True)
    most = [
        box_iou(own_boxes, objects[a:b]).amax(1) if b > a else own_boxes.new_zeros(len(own_boxes))
        for own_boxes, a, b in parts
    ]
    return torch.where(owner >= 0, own, torch.stack(most)[:, None, :, None])
