"""What a model that is not ours sees of a scene: its raw pixels, and the truth that it would be trained on."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from boresight.core.emission import Emission, Supervision
from boresight.core.types import Scene
from boresight.targets.candidates import Objects


def rgb(scene: Scene) -> Tensor:
    """The image, ``[3, H, W]`` float32 in 0..255.

    Raises ValueError for another number of channels, values outside 0..255, and fractions that end at 1.
    """
    if scene.image.shape[0] != 3 or 0 in scene.image.shape:
        raise ValueError(f"{scene.name}: a detector of RGB images, got an image {list(scene.image.shape)}")
    image = scene.image.float()
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= 255):  # as NaN would have it
        raise ValueError(f"{scene.name}: pixels must lie in 0..255, got {low:g}..{high:g}")
    if high <= 1 and bool((image != image.round()).any()):
        raise ValueError(f"{scene.name}: pixels lie in 0..1; Scene.image holds raw values, 0..255")
    return image


def rgb_bytes(scene: Scene) -> Tensor:
    """The image, ``[3, H, W]`` uint8 on the CPU, for models that read pictures of 8 bits. Raises as :func:`rgb`."""
    return rgb(scene).round().to("cpu", torch.uint8)


def objects_only(scene: Scene) -> Scene:
    """The scene to a detector that knows the one class "object": every label is 0. Without truth it stays as it is."""
    if scene.labels is None:
        return scene
    whole = None if scene.exhaustive is None else scene.exhaustive.bool().all().reshape(1)
    return replace(scene, labels=torch.zeros_like(scene.labels), exhaustive=whole)


def counted(scene: Scene, classes: int) -> tuple[Objects, Tensor]:
    """The objects that count, and their rows ``[M]`` in ``Scene.boxes``, on the CPU.

    Crowd regions are left out, as the models' own training leaves them out. Raises ValueError naming the scene: without
    box truth, for labels outside ``0..classes - 1``, and for a box without area or outside the image.
    """
    objects = Objects.of([scene], classes)
    assert scene.boxes is not None
    ignore = torch.zeros(len(scene.boxes), dtype=torch.bool) if scene.ignore is None else scene.ignore.cpu().bool()
    return objects, (~ignore).nonzero()[:, 0]


def same_image(emission: Emission, scene: Scene) -> None:
    """Raises ValueError unless the emission is of an image of the scene's size."""
    if emission.size != scene.size:
        raise ValueError(f"{scene.name} is {scene.size} px (height, width), the emission is of {emission.size}")


def trained(matched: Tensor, rows: Tensor, *, by_prediction: bool) -> Supervision:
    """Cells that stand for an object in box and score alike, on the CPU.

    Args:
        matched: ``[N]`` long, the object of each cell among those that count, negative for none.
        rows: ``[M]`` long, their rows in ``Scene.boxes``.
        by_prediction: whether the assigner looked at predictions.
    """
    matched = matched.cpu()
    cell = (matched >= 0).nonzero()[:, 0]
    return Supervision(cell, rows[matched[cell]], torch.ones_like(cell, dtype=torch.bool), by_prediction)
