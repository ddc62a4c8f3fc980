"""What a dense detector emits for one image before anything is selected, and the objects it is judged on."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou, clip_boxes_to_image

from boresight.core.grid import cell_centres, nearest_cell, pixel_to_cell
from boresight.core.types import DenseOutput, Scene
from boresight.evaluate.box_set import crowd_of, truth_of


@dataclass(frozen=True, slots=True)
class DenseImage:
    """The raw output for one image.

    Attributes:
        boxes: ``[C, H, W, 4]`` xyxy, pixel frame (a class-agnostic head may give a stride-0 view).
        score: ``[C, H, W]`` the emitted scores; only their order is read.
        stride: pixels a cell.
        size: ``(height, width)`` of the image, pixels. Every cell given begins inside it.
        cam: ``[C, H, W]`` class maps, or None.
        presence: ``[C]`` how much the image speaks for each class, or None.
        untrained: ``[C, H, W, 4]`` boxes of the same head before training, or None: a chance floor.
    """

    boxes: Tensor
    score: Tensor
    stride: float
    size: tuple[int, int]
    cam: Tensor | None = None
    presence: Tensor | None = None
    untrained: Tensor | None = None

    def __post_init__(self) -> None:
        if self.score.ndim != 3:
            raise ValueError(f"score must be [C, H, W], got {list(self.score.shape)}")
        shape = tuple(self.score.shape)
        wanted = {"boxes": (*shape, 4), "cam": shape, "presence": shape[:1], "untrained": (*shape, 4)}
        for name, want in wanted.items():
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != want:
                raise ValueError(f"{name} must have shape {list(want)}, got {list(value.shape)}")
        for name in ("boxes", "score", "cam", "presence"):
            value = getattr(self, name)
            if value is not None and not bool(torch.isfinite(value).all()):
                raise ValueError(f"{name} holds values that are not finite")

    @classmethod
    def of(
        cls, output: DenseOutput, index: int, score: Tensor, size: tuple[int, int], untrained: Tensor | None = None
    ) -> DenseImage:
        """One image of a batch, without the cells that lie in the padding.

        Args:
            output: of the whole batch.
            index: the image.
            score: ``[B, C, H, W]`` emitted scores.
            size: ``(height, width)`` of the image, pixels.
            untrained: ``[B, C, H, W, 4]`` or None.
        """
        rows, columns = (math.ceil(side / output.stride) for side in size)

        def part(value: Tensor | None) -> Tensor | None:
            return None if value is None else value[index].detach()[:, :rows, :columns]

        presence = None if output.presence is None else output.presence[index].detach()
        boxes, kept = output.boxes[index].detach()[:, :rows, :columns], score[index].detach()[:, :rows, :columns]
        return cls(boxes, kept, output.stride, size, part(output.cam), presence, part(untrained))

    def cpu(self) -> DenseImage:
        """The same on the CPU, where a few objects are compared with the cells; stride-0 views stay so."""
        moved: dict[str, Any] = {
            f.name: _host(v) if isinstance(v := getattr(self, f.name), Tensor) else v for f in fields(self)
        }
        return DenseImage(**moved)

    @property
    def grid(self) -> tuple[int, int]:
        """``(rows, columns)``."""
        return int(self.score.shape[1]), int(self.score.shape[2])

    @property
    def classes(self) -> int:
        """Number of channels."""
        return len(self.score)

    def field(self, boxes: Tensor | None = None) -> Tensor:
        """``[C, H * W, 4]`` float32: these boxes (the image's own by default) cut to the image, as a detector would.

        A box of negative width or height is an empty one. A stride-0 view stays one.
        """
        given = self.boxes if boxes is None else boxes
        shared = len(given) > 0 and given.stride(0) == 0
        flat = (given[:1] if shared else given).float().flatten(1, 2)
        cut = clip_boxes_to_image(torch.cat((flat[..., :2], flat[..., 2:].maximum(flat[..., :2])), dim=-1), self.size)
        return cut.expand(len(given), -1, -1)

    def centres(self) -> Tensor:
        """``[H * W, 2]`` pixel coordinates of the cell centres."""
        return cell_centres(*self.grid, self.stride, device=self.score.device).flatten(0, 1)


def _host(value: Tensor) -> Tensor:
    shared = value.ndim > 1 and len(value) > 1 and value.stride(0) == 0
    return value[:1].cpu().expand(value.shape) if shared else value.cpu()


@dataclass(frozen=True, slots=True)
class Objects:
    """The truths of one image that count, on the image's device.

    Attributes:
        boxes: ``[m, 4]`` float32 xyxy, pixel frame.
        labels: ``[m]`` long.
        centre_cell: ``[m]`` long, flat index of the cell that holds the centre.
        inside: ``[m, H * W]`` bool, cells whose centre lies in the box; the centre cell where there is none.
    """

    boxes: Tensor
    labels: Tensor
    centre_cell: Tensor
    inside: Tensor

    @classmethod
    def of(cls, scene: Scene, image: DenseImage) -> Objects:
        """Take the truths of a scene.

        Raises ``ValueError`` for unknown boxes, labels without a channel and boxes without area.
        """
        (boxes,), (labels,) = truth_of([scene])
        device = image.score.device
        counted = ~crowd_of(scene).to(device)
        boxes, labels = boxes.to(device).float()[counted], labels.to(device)[counted]
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < image.classes:
            found = f"{int(labels.min())}..{int(labels.max())}"
            raise ValueError(f"scene `{scene.name}` has labels {found}, the output {image.classes} channels")
        if not bool((boxes[:, 2:] > boxes[:, :2]).all()):
            raise ValueError(f"scene `{scene.name}` has a box without area: {boxes.tolist()}")
        rows, columns = image.grid
        centre = nearest_cell(pixel_to_cell((boxes[:, :2] + boxes[:, 2:]) / 2, image.stride), rows, columns)
        cell = centre[:, 1] * columns + centre[:, 0]
        points = image.centres()
        inside = ((points > boxes[:, None, :2]) & (points < boxes[:, None, 2:])).all(dim=-1)
        inside[torch.arange(len(cell), device=device), cell] |= ~inside.any(dim=1)
        return cls(boxes, labels, cell, inside)

    def __len__(self) -> int:
        return len(self.labels)

    def overlap(self, boxes: Tensor, which: Tensor) -> Tensor:
        """IoU of the objects ``which`` (long ``[k]``) with ``boxes [N, 4]``: ``[k, N]`` in [0, 1]."""
        return box_iou(self.boxes[which], boxes)
