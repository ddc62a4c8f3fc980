"""Detectors of Ultralytics, live: YOLOv8, YOLO11 and their kin with a plain detection head.

Ultralytics is installed by the user and never a dependency. Nothing of it is changed: its ``predict`` would fuse layers
of the very model that it is given, so that the network is called without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_convert

from boresight.core.emission import Decoding, Emission, Missing, Supervision
from boresight.core.errors import UserError
from boresight.core.types import Scene
from boresight.detectors.foreign_model import PROTOCOL, above, labels_of, untouched
from boresight.detectors.foreign_scene import counted, rgb_bytes, same_image, trained

HEADS = ("Detect", "v10Detect")


@dataclass(frozen=True)
class Letterbox:
    """Where an image lies in what the network sees: scaled by ``gain`` (x, y), then moved by ``pad``, pixels."""

    gain: tuple[float, float]
    pad: tuple[int, int]

    @classmethod
    def of(cls, size: tuple[int, int], side: int, seen: Sequence[int]) -> Letterbox:
        """An image of ``size`` (height, width) whose longer side became ``side``, in the middle of ``seen`` (height,
        width). Each side is rounded to whole pixels, so that the two gains differ a little.
        """
        scale = side / max(size)
        new = [max(round(n * scale), 1) for n in size]
        pad = [round((s - n) / 2 - 0.1) for s, n in zip(seen, new, strict=True)]
        return cls((new[1] / size[1], new[0] / size[0]), (pad[1], pad[0]))

    def frames(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """``gain`` and ``pad`` as ``[4]`` for boxes."""
        return like.new_tensor(self.gain * 2), like.new_tensor(self.pad * 2)


class YoloSource:
    """A :class:`~boresight.core.emission.Source`, made by :func:`yolo_source`; what it gives lies on the CPU."""

    def __init__(
        self, net: Any, classes: Sequence[str], labels: Sequence[int], decoding: Decoding, size: int, rect: bool
    ) -> None:
        self.net, self.classes, self.labels = net, tuple(classes), list(labels)
        self.decoding: Decoding | None = decoding
        self.size, self.rect = size, rect
        self._look: Callable[[Tensor], Tensor] | None = None

    def emit(self, scene: Scene) -> Emission:
        """See :class:`~boresight.core.emission.Source`. Raises ValueError for an image that is not RGB in 0..255."""
        picture = self._letterboxed(scene)
        head = self.net.model[-1]
        with untouched(self.net):
            weight = next(self.net.parameters())
            boxes, scores = _decoded(head, self.net(picture.to(weight)))
            strides, places = head.strides[0].float(), (head.anchors.float() * head.strides.float()).T
        gain, pad = Letterbox.of(scene.size, self.size, picture.shape[-2:]).frames(boxes)
        return Emission(
            boxes=((boxes - pad) / gain)[None],
            scores=scores[self.labels],
            size=scene.size,
            centres=(places - pad[:2]) / gain[:2],
            strides=strides / gain[:2].prod().sqrt(),
            level=(strides[:, None] == head.stride.to(strides)).long().argmax(1),
        ).to("cpu")

    def supervise(self, emission: Emission, scene: Scene) -> Supervision | Missing:
        """See :class:`~boresight.core.emission.Source`: cells that its own task-aligned assigner chooses.

        The assigner looks at what the network emits in inference, for the letterboxed image: no mosaic, no other
        augmentation. Raises ValueError as :func:`~boresight.detectors.foreign_scene.counted` does.
        """
        same_image(emission, scene)
        objects, rows = counted(scene, len(self.classes))
        assigner = self._assigner()
        if isinstance(assigner, Missing):
            return assigner
        if not len(objects):
            return trained(torch.full((emission.cells,), -1), rows, by_prediction=True)
        assert emission.centres is not None
        seen = self._letterboxed(scene).shape[-2:]
        gain, pad = Letterbox.of(scene.size, self.size, seen).frames(emission.boxes)
        with untouched(self.net):
            *_, chosen, which = assigner(
                emission.scores.T[None],
                emission.boxes * gain + pad,
                emission.centres * gain[:2] + pad[:2],
                objects.labels[None, :, None],
                (objects.boxes * gain + pad)[None],
                torch.ones(1, len(objects), 1),
            )
        return trained(torch.where(chosen[0], which[0], -1), rows, by_prediction=True)

    def through(self, look: Callable[[Tensor], Tensor]) -> YoloSource:
        """See :class:`~boresight.diagnose.inputs.Through`. The grey around the image is looked at as well."""
        other = copy(self)
        other._look = look
        return other

    def _assigner(self) -> Any:
        """That of a loss that it makes for this, as it would for a training; or Missing."""
        try:
            loss = self.net.init_criterion()
        except AttributeError as problem:  # a network that YOLO() did not make has no `args`
            return Missing(f"{type(self.net).__name__} cannot make its loss: {problem}")
        branch = "one2one" if _end2end(self.net.model[-1]) else "one2many"
        loss = getattr(loss, branch, loss)
        return getattr(loss, "assigner", Missing(f"{type(loss).__name__} has no `assigner`"))

    def _letterboxed(self, scene: Scene) -> Tensor:
        """``[1, 3, h, w]`` float in 0..1, made by its own code."""
        letterbox = _letterbox()(self.size, auto=self.rect, stride=max(int(self.net.stride.max()), 32))
        bgr = rgb_bytes(scene).flip(0).permute(1, 2, 0).contiguous().numpy()
        picture = torch.from_numpy(letterbox(image=bgr))
        seen = picture.permute(2, 0, 1).flip(0).contiguous().float()
        return (seen if self._look is None else self._look(seen))[None] / 255


def _end2end(head: Any) -> bool:
    return bool(getattr(head, "end2end", False))


def _decoded(head: Any, output: Any) -> tuple[Tensor, Tensor]:
    """Boxes ``[N, 4]`` xyxy, pixels of the network's input, and scores ``[labels, N]``, of every anchor point."""
    if not _end2end(head):
        boxes, scores = output[0][0, :4].T, output[0][0, 4:]
        return (boxes if getattr(head, "xyxy", False) else box_convert(boxes, "cxcywh", "xyxy")).float(), scores.float()
    raw = output[1]["one2one"]
    if not isinstance(raw, dict):
        raise UserError("this Ultralytics hides what its end-to-end head emits: `pip install -U ultralytics` (8.4)")
    boxes = head.decode_bboxes(head.dfl(raw["boxes"]), head.anchors[None]) * head.strides
    return boxes[0].T.float(), raw["scores"][0].sigmoid().float()


def _letterbox() -> Any:
    try:
        return import_module("ultralytics.data.augment").LetterBox
    except ImportError as problem:
        raise UserError("Ultralytics is not installed here: `pip install ultralytics`") from problem


def yolo_source(
    model: Any,
    classes: Sequence[str] = (),
    labels: Sequence[int] | None = None,
    *,
    size: int = 640,
    conf: float = 0.25,
    iou: float = 0.7,
    max_det: int = 300,
    multi_label: bool = False,
    agnostic: bool = False,
    rect: bool = True,
) -> YoloSource:
    """A detector of Ultralytics as a source.

    Args:
        model: what ``ultralytics.YOLO`` makes, or the network in it.
        classes: names, in the order of ``Scene.labels``; none: all that the model has names for.
        labels: the model's label of each class, where they are not 0, 1, 2 and so on. The others are not emitted, as if
            the model did not know them: a cell then speaks for the best of those that are named.
        size: longer side of the image as the network sees it, pixels; a multiple of its largest stride.
        conf, iou, max_det, multi_label, agnostic, rect: as ``predict`` has them. Its validation takes a ``conf`` of
            0.001 and ``multi_label``.

    A head with two branches (YOLOv10, YOLO26) is judged by the one that it is set to: with ``net.end2end`` (which
    ``predict(nms=False)`` sets) by its one-to-one branch, without suppression, else by the other. Raises UserError for
    another model, or without Ultralytics.
    """
    _letterbox()
    inner = getattr(model, "model", None)
    net: Any = inner if hasattr(inner, "init_criterion") else model
    head: Any = net.model[-1] if hasattr(net, "init_criterion") else None
    if type(head).__name__ not in HEADS:
        found = type(model).__name__ if head is None else type(head).__name__
        raise UserError(f"{found} is no head of Ultralytics that detects alone, {' or '.join(HEADS)}: {PROTOCOL}")
    stride = max(int(net.stride.max()), 32)
    if size < stride or size % stride:
        raise UserError(f"size={size}: give a multiple of {stride} pixels")
    names = net.names.values() if isinstance(net.names, dict) else net.names
    decoding = Decoding(
        threshold=above(conf),
        before_nms=0 if _end2end(head) else 30_000,
        nms=None if _end2end(head) else iou,
        by_class=not agnostic,
        single=agnostic if _end2end(head) else not multi_label,
        top_k=max_det,
        least=None,
        cut="after",
    )
    named = tuple(classes or names)
    return YoloSource(
        net, named, labels_of(named, labels, head.nc, starts=(0,), owner="this YOLO"), decoding, size, rect
    )
