"""Training views of a frame: crops, flips, rotations, brightness, noise and pasted targets, points carried along.

Geometry goes through torchvision's v2 functions. Points travel as boxes of size zero: a box mirrors as ``W - x``, the
continuous convention of this project, where a key point would mirror as ``W - 1 - x``, one pixel off. Every random
choice comes from the generator that is passed in, so that a view is a function of (seed, epoch, index).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from boresight.core.types import Points, Scene


def _as_boxes(points: Points, size: tuple[int, int]) -> tv_tensors.BoundingBoxes:
    # clamping_mode=None: a point that leaves the view must be seen to leave it, not be moved onto its border
    boxes = torch.cat((points.xy, points.xy), dim=-1)
    return tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size, clamping_mode=None)


def _moved(scene: Scene, image: Tensor, boxes: tv_tensors.BoundingBoxes | None) -> Scene:
    """The scene with a new image, its points moved with it, and those outside dropped."""
    image = image.as_subclass(torch.Tensor)
    if scene.points is None or boxes is None:
        return replace(scene, image=image)
    xy = boxes.as_subclass(torch.Tensor)[:, :2]
    height, width = image.shape[-2:]
    # both borders belong to the view: a half-open one would lose, when mirrored, the points on its left and top border
    inside = (xy >= 0).all(-1) & (xy[:, 0] <= width) & (xy[:, 1] <= height)
    return replace(scene, image=image, points=replace(scene.points, xy=xy, mask=None).select(inside))


def flipped(scene: Scene, *, horizontal: bool = False, vertical: bool = False) -> Scene:
    """Mirror a scene left-right and/or top-bottom."""
    image: Tensor = tv_tensors.Image(scene.image)
    boxes = None if scene.points is None else _as_boxes(scene.points, scene.size)
    for wanted, flip in ((horizontal, v2.functional.horizontal_flip), (vertical, v2.functional.vertical_flip)):
        if wanted:
            image, boxes = flip(image), None if boxes is None else flip(boxes)
    return _moved(scene, image, boxes)


def transposed(scene: Scene) -> Scene:
    """Swap rows and columns; with flips this gives every rotation by a right angle, without interpolation."""
    height, width = scene.size
    image = scene.image.transpose(-1, -2).contiguous()
    if scene.points is None:
        return _moved(scene, image, None)
    turned = replace(scene.points, xy=scene.points.xy.flip(-1))
    return _moved(scene, image, _as_boxes(turned, (width, height)))


def resized_crop(scene: Scene, top: int, left: int, height: int, width: int, size: tuple[int, int]) -> Scene:
    """The window of ``height x width`` pixels at ``(top, left)``, resized to ``size``; it may reach over the border.

    What lies over the border is filled with the frame's level.
    """
    image = tv_tensors.Image(scene.image - scene.level)  # v2 pads crops with zeros
    out = v2.functional.crop(image, top, left, height, width)
    boxes = (
        None
        if scene.points is None
        else v2.functional.crop(_as_boxes(scene.points, scene.size), top, left, height, width)
    )
    if (height, width) != size:
        out = v2.functional.resize(out, list(size), antialias=True)
        boxes = None if boxes is None else v2.functional.resize(boxes, list(size))
    return _moved(scene, out.as_subclass(torch.Tensor) + scene.level, boxes)


def brightened(scene: Scene, gain: float, shift: float, noise: float, rng: np.random.Generator) -> Scene:
    """Contrast times ``gain``, level moved by ``shift`` spreads, Gaussian noise of ``noise`` spreads added."""
    image = (scene.image - scene.level) * gain + scene.level + shift * scene.spread
    if noise > 0:
        image = image + torch.from_numpy(rng.standard_normal(image.shape, dtype=np.float32)) * (noise * scene.spread)
    return replace(scene, image=image)


def pasted(scene: Scene, donor: Scene, xy: tuple[float, float], *, reach: int = 6, strength: float = 1.0) -> Scene:
    """Add the donor's first target at about ``xy``: its excess over its own surroundings, faded out at the edge.

    The target keeps its sub-pixel phase (it moves by whole pixels). Nothing happens when the donor has no target, or
    when the target's patch or its new place does not lie wholly inside the frames, or would touch another target.
    """
    if scene.points is None or donor.points is None or not len(donor.points):
        return scene
    source = donor.points.xy[0]
    cx, cy = (int(v) for v in source)
    tx, ty = (int(v) for v in xy)
    place = source + torch.tensor([tx - cx, ty - cy], dtype=source.dtype)
    crowded = len(scene.points) and bool(((scene.points.xy - place).abs().amax(-1) < 2 * reach).any())
    alone = (donor.points.xy[1:] - source).abs().amax(-1) if len(donor.points) > 1 else torch.full((1,), torch.inf)
    if (
        crowded
        or bool((alone < 2 * reach).any())
        or not (_holds(donor, cx, cy, reach) and _holds(scene, tx, ty, reach))
    ):
        return scene
    patch = donor.image[:, cy - reach : cy + reach + 1, cx - reach : cx + reach + 1]
    ring = torch.ones(patch.shape[-2:], dtype=torch.bool)
    ring[1:-1, 1:-1] = False
    fade = torch.hann_window(2 * reach + 3, periodic=False)[1:-1]
    fade = (2 * torch.outer(fade, fade)).clamp(max=1)
    excess = patch - patch[:, ring].median()
    # noise must not come along: a rectified one would be a pedestal of light that tells pasted targets from real ones
    excess = torch.where(excess > 2 * patch[:, ring].std(), excess, 0.0) / donor.spread * scene.spread * fade * strength
    image = scene.image.clone()
    image[:, ty - reach : ty + reach + 1, tx - reach : tx + reach + 1] += excess
    more = Points.of(place[None], labels=donor.points.labels[:1], ignore=donor.points.ignore[:1])
    old = scene.points
    joined = Points(*(torch.cat((getattr(old, n), getattr(more, n))) for n in ("xy", "labels", "ignore")))
    return replace(scene, image=image, points=joined)


def _holds(scene: Scene, x: int, y: int, reach: int) -> bool:
    height, width = scene.size
    return reach <= x < width - reach and reach <= y < height - reach


@dataclass(frozen=True)
class PointAugment:
    """A random training view.

    Attributes:
        crop: side of the square view, pixels; 0 keeps the whole frame.
        positive_share: share of crops (of frames with targets) that are placed to hold a target.
        scale: the view shows a window of ``crop * s`` pixels, ``log s`` uniform between the logs of these two.
        flip: mirror and transpose at random (all eight orientations).
        gain, shift, noise: largest relative change of contrast, of level (in spreads), and noise (in spreads).
        paste: chance to add a target taken from another frame. For training only.
    """

    crop: int = 128
    positive_share: float = 0.75
    scale: tuple[float, float] = (1.0, 1.0)
    flip: bool = True
    gain: float = 0.0
    shift: float = 0.0
    noise: float = 0.0
    paste: float = 0.0

    def __call__(self, scene: Scene, rng: np.random.Generator, donor: Scene | None = None) -> Scene:
        """A view of ``scene``; ``donor`` lends a target to paste."""
        if self.paste and donor is not None and rng.random() < self.paste:
            height, width = scene.size
            place = (float(rng.uniform(0, width)), float(rng.uniform(0, height)))
            scene = pasted(scene, donor, place, strength=float(rng.uniform(0.6, 1.2)))
        if self.crop:
            scene = self._cropped(scene, rng)
        if self.flip:
            scene = flipped(scene, horizontal=rng.random() < 0.5, vertical=rng.random() < 0.5)
            scene = transposed(scene) if rng.random() < 0.5 and (self.crop or scene.size[0] == scene.size[1]) else scene
        if self.gain or self.shift or self.noise:
            gain, shift = float(np.exp(rng.uniform(-self.gain, self.gain))), float(rng.uniform(-self.shift, self.shift))
            scene = brightened(scene, gain, shift, float(rng.uniform(0, self.noise)), rng)
        return scene

    def _cropped(self, scene: Scene, rng: np.random.Generator) -> Scene:
        """A window at random or, for ``positive_share`` of the views, around a target at random within it."""
        side = round(self.crop * float(np.exp(rng.uniform(*np.log(self.scale)))))
        height, width = scene.size
        low_y, low_x = min(0, (height - side) // 2), min(0, (width - side) // 2)
        top, left = (int(rng.integers(low, max(low, n - side) + 1)) for low, n in ((low_y, height), (low_x, width)))
        points = scene.points
        if points is not None and len(points) and rng.random() < self.positive_share:
            x, y = (float(v) for v in points.xy[int(rng.integers(len(points)))])
            margin = min(4, side // 4)
            left = int(np.clip(int(x) - rng.integers(margin, side - margin), low_x, max(low_x, width - side)))
            top = int(np.clip(int(y) - rng.integers(margin, side - margin), low_y, max(low_y, height - side)))
        return resized_crop(scene, top, left, side, side, (self.crop, self.crop))
