"""Asks a detector whether it is the same in training and inference, and whether its numbers stay in range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from boresight.core.emission import Missing
from boresight.core.types import Scene
from boresight.diagnose.asked import Asked, in_mode, inference_loss, total
from boresight.diagnose.probe import Activation, Averaged, Course, Moved, Parity


@torch.no_grad()
def parity(detector: Asked, scenes: Sequence[Scene]) -> Parity | Missing:
    """One batch in both modes, and its first image alone and in company. `Missing` with fewer than two scenes."""
    if len(scenes) < 2:
        return Missing("one scene alone has no batch to depend on")
    with in_mode(detector, training=False):
        stuck = tuple(name or "the detector" for name, module in detector.named_modules() if module.training)
        together = detector(scenes)
        alone = detector(scenes[:1])
        again = detector(scenes[:1])
    if not alone.logits.numel():
        return Missing("the first scene has no cell")
    loss = inference_loss(detector, scenes)
    with in_mode(detector, training=True):
        for _, module in detector.named_modules():
            if isinstance(module, _DropoutNd):
                module.training = False
        output = detector(scenes)
        train = float(total(detector, output, detector.assign(output, scenes)))
    _, classes, rows, columns = (min(pair) for pair in zip(alone.logits.shape, together.logits.shape, strict=True))
    one, other = (o.logits[0, :classes, :rows, :columns].float() for o in (alone, together))
    spread = float(together.logits.float().std(correction=0))
    change = (float((a - b).abs().max()) for a, b in ((one, other), (alone.logits.float(), again.logits.float())))
    companions, repeats = (value / max(spread, 1e-6) for value in change)
    return Parity(stuck, companions, train, loss, repeats)


@torch.no_grad()
def activation(detector: Asked, scenes: Sequence[Scene]) -> Activation | Missing:
    """The largest number that a module gives in a forward pass."""
    largest: dict[str, Tensor] = {}

    def note(name: str) -> object:
        def hook(module: nn.Module, given: object, result: object) -> None:
            if isinstance(result, Tensor) and result.is_floating_point() and result.numel():
                top = result.detach().abs().amax().float()
                largest[name] = torch.maximum(largest[name], top) if name in largest else top

        return hook

    handles = [m.register_forward_hook(note(n)) for n, m in detector.named_modules() if n]  # type: ignore[arg-type]
    try:
        with in_mode(detector, training=False):
            detector(scenes)
    finally:
        for handle in handles:
            handle.remove()
    if not largest:
        return Missing("no module gives a tensor")
    module = max(largest, key=lambda name: float(largest[name].nan_to_num(nan=torch.inf)))
    return Activation(float(largest[module]), module)


def averaged(raw: Asked, average: Asked, scenes: Sequence[Scene]) -> Averaged:
    """Loss of a batch with raw and with averaged weights, both in inference mode."""
    return Averaged(inference_loss(raw, scenes), inference_loss(average, scenes))


def moved(part: str, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Moved:
    """Which tensors of a part that was to stay have moved, and by how much of their size (the larger of the two)."""
    changes: dict[str, float] = {}
    for name, value in before.items():
        if name in after and value.is_floating_point():
            old, new = value.float().cpu(), after[name].float().cpu()
            changes[name] = float((new - old).norm() / torch.maximum(old.norm(), new.norm()).clamp(min=1e-12))
    worst = max(changes, key=lambda name: changes[name], default="")
    count = sum(change > 1e-6 for change in changes.values())
    return Moved(part, len(changes), count, worst, changes.get(worst, 0.0))


def course(before: nn.Module, after: nn.Module) -> tuple[Course, ...] | Missing:
    """How far each part's parameters have come from where they began. `Missing` without parameters."""
    ended = dict(after.named_parameters())
    parts: dict[str, list[tuple[bool, float, float]]] = {}
    for name, value in before.named_parameters():
        if name in ended:
            old, new = value.detach().float().cpu(), ended[name].detach().float().cpu()
            size = float(torch.maximum(old.norm(), new.norm()))
            parts.setdefault(".".join(name.split(".")[:2]), []).append(
                (value.requires_grad, float((new - old).norm()), size)
            )
    found = []
    for part, rows in parts.items():
        asked = [row for row in rows if row[0]]
        still = sum(change <= 1e-7 * max(size, 1e-12) for _, change, size in asked)
        moved, size = (sum(row[k] ** 2 for row in asked) ** 0.5 for k in (1, 2))
        found.append(Course(part, len(rows), len(asked), still, moved / max(size, 1e-12)))
    return tuple(found) or Missing("the detector has no parameters")
