"""Looks at labels beside their image: are they boxes, do they lie in it, and do they lie on anything?

What a box holds differs from what surrounds it more than at another place of the image: where that is not so, and where
another reading of the same four numbers does better, labels and pixels have parted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor
from torchvision.ops import box_iou

from boresight.core.emission import Missing
from boresight.core.types import Scene
from boresight.diagnose.images import LabelForm, Placed

TWIN = 0.9
"""IoU of two boxes of one class that stand for one object."""
NEAR = 0.5
"""Pixels between two points of one class that stand for one object."""
SPOT = 1.5
"""Pixels around a point that are its inside."""
RING = 0.3
"""Of a box's larger side: the width of what surrounds it; at least 2 pixels."""
ENOUGH = 10
"""Objects from which places are compared."""

Reading = Callable[[Tensor, float, float], Tensor]
"""Boxes ``[N, 4]`` as they are labelled, width and height of the image: the same boxes read in another way."""


def _turned(mirror_x: bool, mirror_y: bool, transpose: bool) -> Reading:
    def read(boxes: Tensor, width: float, height: float) -> Tensor:
        x0, y0, x1, y1 = boxes.unbind(1)
        if mirror_x:
            x0, x1 = width - x1, width - x0
        if mirror_y:
            y0, y1 = height - y1, height - y0
        return torch.stack((y0, x0, y1, x1) if transpose else (x0, y0, x1, y1), 1)

    return read


def _corner_and_size(boxes: Tensor, width: float, height: float) -> Tensor:
    return torch.cat((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), 1)


def _middle_and_size(boxes: Tensor, width: float, height: float) -> Tensor:
    return torch.cat((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), 1)


def _times(factor: float) -> Reading:
    return lambda boxes, width, height: boxes * factor


def _of_share(boxes: Tensor, width: float, height: float) -> Tensor:
    return boxes * boxes.new_tensor([width, height, width, height])


ORIENTATIONS: dict[str, Reading] = {
    "mirrored left to right": _turned(True, False, False),
    "mirrored top to bottom": _turned(False, True, False),
    "turned by 180 degrees": _turned(True, True, False),
    "x and y exchanged": _turned(False, False, True),
    "turned by 90 degrees": _turned(True, False, True),
    "turned by 270 degrees": _turned(False, True, True),
    "mirrored in the other diagonal": _turned(True, True, True),
}
READINGS: dict[str, Reading] = ORIENTATIONS | {
    "x, y, width, height": _corner_and_size,
    "middle, width, height": _middle_and_size,
    "of an image of half the size": _times(2.0),
    "of an image of twice the size": _times(0.5),
    "shares of the image": _of_share,
}
"""In which other ways the four numbers could have been meant."""


def forms_of(splits: Mapping[str, Iterable[Scene]]) -> tuple[LabelForm, ...] | Missing:
    """Labels of each split as geometry. `Missing` where no split holds any."""
    found = []
    for name, scenes in splits.items():
        counts = torch.tensor([0, 0, 0, 0])
        for scene in scenes:
            counts += _form(scene)
        if counts[0]:
            found.append(LabelForm(name, *counts.tolist()))
    return tuple(found) or Missing("the splits that were looked at hold no label")


def _form(scene: Scene) -> Tensor:
    """``[4]`` counts: objects, without area, outside, twins."""
    boxes, labels = _truth(scene)
    height, width = scene.size
    if not len(boxes):
        return torch.zeros(4, dtype=torch.long)
    end = boxes.new_tensor([width, height, width, height])
    if scene.points is not None:
        empty = torch.zeros(len(boxes), dtype=torch.bool)
        outside = ((boxes < 0) | (boxes > end)).any(1)
        same = (boxes[:, None, :2] - boxes[None, :, :2]).norm(dim=-1) < NEAR
    else:
        side = boxes[:, 2:] - boxes[:, :2]
        empty = (side <= 0).any(1)
        inside = (boxes.minimum(end).clamp(min=0)[:, 2:] - boxes.minimum(end).clamp(min=0)[:, :2]).clamp(min=0)
        outside = ~empty & (inside.prod(1) < 0.5 * side.clamp(min=0).prod(1))
        same = box_iou(boxes, boxes) > TWIN
    twins = (same & (labels[:, None] == labels)).tril(-1).any(1)
    return torch.tensor([len(boxes), int(empty.sum()), int(outside.sum()), int(twins.sum())])


def _truth(scene: Scene) -> tuple[Tensor, Tensor]:
    """Boxes ``[N, 4]`` (of points, size zero) and labels of the objects that count, on the CPU."""
    if scene.boxes is not None and scene.labels is not None:
        keep = torch.ones(len(scene.boxes), dtype=torch.bool) if scene.ignore is None else ~scene.ignore.cpu()
        return scene.boxes.cpu().double()[keep], scene.labels.cpu()[keep]
    if scene.points is None:
        return torch.zeros(0, 4).double(), torch.zeros(0, dtype=torch.long)
    keep = ~scene.points.ignore.cpu()
    xy = scene.points.xy.cpu().double()[keep]
    return torch.cat((xy, xy), 1), scene.points.labels.cpu()[keep]


def placed_of(splits: Mapping[str, Iterable[Scene]]) -> tuple[Placed, ...] | Missing:
    """Whether the labels of each split lie on anything. `Missing` where no split has enough objects."""
    found = [one for name, scenes in splits.items() if (one := _placed(name, scenes)) is not None]
    return tuple(found) or Missing(f"no split that was looked at holds {ENOUGH} objects")


def _placed(name: str, scenes: Iterable[Scene]) -> Placed | None:
    here: list[Tensor] = []
    there: list[Tensor] = []
    others: dict[str, list[Tensor]] = {reading: [] for reading in READINGS}
    for scene in scenes:
        boxes, _ = _truth(scene)
        if not len(boxes):
            continue
        height, width = scene.size
        map_ = _Sums(scene.image)
        spot = scene.points is not None
        here.append(map_.contrast(boxes, spot))
        shift = boxes.new_tensor([width / 2, height / 2] * 2)
        corner = boxes[:, :2].remainder(shift[:2] * 2)  # a box half the image further, on a torus
        moved = (corner + shift[:2]).remainder(shift[:2] * 2)
        there.append(map_.contrast(torch.cat((moved, moved + boxes[:, 2:] - boxes[:, :2]), 1), spot))
        for reading, read in READINGS.items():
            others[reading].append(map_.contrast(read(boxes, width, height), spot))
    if not here or len(labelled := torch.cat(here)) < ENOUGH:
        return None
    elsewhere, _ = _wins(labelled, torch.cat(there), silent_loses=True)
    rivals = {reading: _wins(torch.cat(values), labelled, silent_loses=False) for reading, values in others.items()}
    gaps = {reading: float(torch.cat(values).nan_to_num(0.0).mean()) for reading, values in others.items()}
    least = {reading: _least(*shares) for reading, shares in rivals.items()}
    # of several that surely do better, that under which boxes differ most: half a box on an object does better too
    best = max(rivals, key=lambda r: (least[r] > 0.5, gaps[r] if least[r] > 0.5 else least[r]))
    return Placed(name, len(labelled), elsewhere, best, *rivals[best])


def _wins(one: Tensor, other: Tensor, *, silent_loses: bool) -> tuple[float, int]:
    """Share of the objects of which ``one`` is larger, and how many can be compared.

    Where ``one`` is no number nothing can be said, unless ``silent_loses``; where ``other`` is none it counts as 0.
    """
    known = ~one.isnan() if not silent_loses else ~(one.isnan() & other.isnan())
    if not known.any():
        return 0.5, 0
    a, b = one[known].nan_to_num(0.0), other[known].nan_to_num(0.0)
    return float((a > b).double().mean() + 0.5 * (a == b).double().mean()), int(known.sum())


def _least(share: float, count: int) -> float:
    """What a share is at least, two standard errors below it."""
    return share - 2 * (max(share * (1 - share), 0.01) / max(1, count)) ** 0.5


class _Sums:
    """Sums over boxes of an image, from running sums: ``[C, H + 1, W + 1]`` of values and of their squares."""

    def __init__(self, image: Tensor) -> None:
        pixels = image.double().cpu()
        self.height, self.width = pixels.shape[-2:]
        self.floor = 0.02 * float(pixels.std(correction=0)) + 1e-9
        centred = pixels - pixels.mean((1, 2), keepdim=True)
        both = torch.stack((centred, centred.square()))
        self.sums = torch.nn.functional.pad(both.cumsum(-1).cumsum(-2), (1, 0, 1, 0))

    def over(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """``[2, C, N]`` sums over whole-pixel boxes and ``[N]`` pixels."""
        x0, y0, x1, y1 = boxes.unbind(1)
        s = self.sums
        total = s[..., y1, x1] - s[..., y0, x1] - s[..., y1, x0] + s[..., y0, x0]
        return total, ((x1 - x0) * (y1 - y0)).double()

    def contrast(self, boxes: Tensor, spot: bool) -> Tensor:
        """``[N]`` how far the mean inside lies from that around, in spreads of what is around; NaN outside the image.

        ``spot``: the boxes are points.
        """
        grown = boxes + boxes.new_tensor([-SPOT, -SPOT, SPOT, SPOT]) if spot else boxes
        side = (grown[:, 2:] - grown[:, :2]).amin(1)
        ring = (RING * (grown[:, 2:] - grown[:, :2]).amax(1)).clamp(min=2.0)[:, None]
        inner, outer = (self._whole(b) for b in (grown, grown + torch.cat((-ring, -ring, ring, ring), 1)))
        within, size = self.over(inner)
        around, more = self.over(outer)
        around, more = around - within, more - size
        mean, square = around[0] / more.clamp(min=1), around[1] / more.clamp(min=1)
        spread = (square - mean.square()).clamp(min=0).sqrt() + self.floor
        gap = ((within[0] / size.clamp(min=1) - mean) / spread).square().mean(0).sqrt()
        seen = (inner[:, 2:] - inner[:, :2]).double().prod(1) / (grown[:, 2:] - grown[:, :2]).clamp(min=1e-9).prod(1)
        known = (size > 0) & (more > 0) & (side > 1) & (seen > 0.6)
        return torch.where(known, gap, torch.nan)

    def _whole(self, boxes: Tensor) -> Tensor:
        end = torch.tensor([self.width, self.height, self.width, self.height])
        whole = boxes.round().nan_to_num(0.0).clamp(-1e6, 1e6).long().clamp(min=0).minimum(end)
        return torch.cat((whole[:, :2], torch.maximum(whole[:, :2], whole[:, 2:])), 1)
