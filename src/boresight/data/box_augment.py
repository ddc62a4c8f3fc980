"""Training views of an image with boxes: a window, a zoom and one of eight orientations, then colour.

Geometry is one affine map. torchvision's v2 functions move the pixels and the boxes along it, and the view carries the
map itself (:class:`~boresight.core.types.View`), so that frozen features of the whole image can be read through it.
Every random choice comes from the generator that is passed in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as v2

from boresight.core.errors import UserError
from boresight.core.types import Scene, View


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a view is cut from its scene, and how it is turned.

    Attributes:
        left, top, width, height: the window in whole pixels; it may reach over the border.
        size: ``(height, width)`` to which the window is resized.
        mirror_x, mirror_y: then mirrored left-right, top-bottom.
        transpose: then rows and columns are swapped. The three together are the eight orientations.
    """

    left: int
    top: int
    width: int
    height: int
    size: tuple[int, int]
    mirror_x: bool = False
    mirror_y: bool = False
    transpose: bool = False

    def to_scene(self) -> NDArray[np.float64]:
        """``[3, 3]``: pixel frame of the view to pixel frame of the scene, exact."""
        high, wide = self.size
        matrix = np.eye(3)
        if self.transpose:
            matrix = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        if self.mirror_y:
            matrix = np.array([[1.0, 0.0, 0.0], [0.0, -1.0, high], [0.0, 0.0, 1.0]]) @ matrix
        if self.mirror_x:
            matrix = np.array([[-1.0, 0.0, wide], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]) @ matrix
        x, y = self.width / wide, self.height / high
        return np.array([[x, 0.0, self.left], [0.0, y, self.top], [0.0, 0.0, 1.0]]) @ matrix


def viewed(scene: Scene, place: Placement, min_visible: float = 0.0) -> Scene:
    """The part of a scene that ``place`` shows, as ``[C, height, width]`` of the same type, with its ``view``.

    Beyond the border lies the mean colour of the image. Boxes are clipped to the view; one of which less than
    ``min_visible`` of its area is left becomes ``ignore`` (what is left may not be recognised, and is not background
    either), one of which nothing is left is dropped. A view of a view is one of the first source. Raises ``ValueError``
    for a scene with points, which are not moved here.
    """
    if scene.points is not None:
        raise ValueError(f"`{scene.name}` has points, which a view of boxes would leave behind")
    old = scene.view
    to_scene = place.to_scene()
    if old is not None:
        to_scene = np.vstack((old.to_source.double().cpu().numpy(), [0.0, 0.0, 1.0])) @ to_scene
    view = View(scene if old is None else old.source, torch.from_numpy(to_scene[:2]).float())
    image = _cut(scene.image, place)
    if scene.boxes is None:
        return replace(scene, image=image, view=view)
    moved = _moved(scene.boxes, scene.size, place)
    limit = torch.tensor([image.shape[-1], image.shape[-2]] * 2, dtype=moved.dtype)
    clipped = torch.minimum(moved.clamp(min=0), limit)
    left, whole = _area(clipped), _area(moved)
    keep = left > 0
    ignore = torch.zeros_like(keep) if scene.ignore is None else scene.ignore
    # as a product, because a box without area has no share; 1e-4 is what float32 may lose of a box that is whole
    ignore = (ignore | (left < (min_visible - 1e-4) * whole))[keep]
    assert scene.labels is not None
    return replace(scene, image=image, boxes=clipped[keep], labels=scene.labels[keep], ignore=ignore, view=view)


def recoloured(scene: Scene, gain: float, shift: float, channels: tuple[float, ...]) -> Scene:
    """Contrast about the mean times ``gain``, plus ``shift`` grey values, each channel times its factor; in 0..255."""
    image = scene.image.float()
    level = image.mean()
    factors = torch.tensor(channels, dtype=torch.float32)[:, None, None]
    image = (((image - level) * gain + level + shift) * factors).clamp(0, 255)
    return replace(scene, image=image if scene.image.is_floating_point() else image.round().to(scene.image.dtype))


def _cut(image: Tensor, place: Placement) -> Tensor:
    """The pixels of a view."""
    high, wide = image.shape[-2:]
    over = (
        max(0, -place.left),
        max(0, -place.top),
        max(0, place.left + place.width - wide),
        max(0, place.top + place.height - high),
    )
    if any(over):
        fill = image.double().mean(dim=(1, 2)).tolist()
        image = v2.pad(image, list(over), fill=fill if image.is_floating_point() else [round(v) for v in fill])
    image = v2.crop(image, place.top + over[1], place.left + over[0], place.height, place.width)
    if (place.height, place.width) != place.size:
        image = v2.resize(image, list(place.size), antialias=True)
    image = v2.horizontal_flip(image) if place.mirror_x else image
    image = v2.vertical_flip(image) if place.mirror_y else image
    return (image.transpose(-1, -2) if place.transpose else image).contiguous()


def _moved(boxes: Tensor, size: tuple[int, int], place: Placement) -> Tensor:
    """Boxes ``[N, 4]`` carried along, not clipped."""
    # clamping_mode=None: how much of a box is left can be told only while it may reach out of the view
    out = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size, clamping_mode=None)
    out = v2.crop(out, place.top, place.left, place.height, place.width)
    if (place.height, place.width) != place.size:
        out = v2.resize(out, list(place.size))
    out = v2.horizontal_flip(out) if place.mirror_x else out
    out = v2.vertical_flip(out) if place.mirror_y else out
    plain = out.as_subclass(Tensor)
    return plain[:, [1, 0, 3, 2]] if place.transpose else plain


def _area(boxes: Tensor) -> Tensor:
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    return sides[:, 0] * sides[:, 1]


@dataclass(frozen=True)
class BoxAugment:
    """A random training view.

    Attributes:
        crop: side of the square view, pixels; 0 keeps the whole image at its size (``scale`` is not used then).
        whole: images of which no side is longer than so many pixels are kept whole as well.
        positive_share: share of the crops (of images with boxes that count) that are placed to hold one.
        scale: the view shows a window of ``crop * s`` pixels, ``log s`` uniform between the logs of these two.
        flip: mirror and transpose at random: all eight orientations (the four that keep the shape of an image that is
            not square and not cropped).
        gain: contrast times ``exp(u)``, ``u`` uniform in ``-gain..gain``.
        shift: largest change of level, in grey values of 0..255.
        colour: each channel times ``exp(u)``, ``u`` uniform in ``-colour..colour``.
        min_visible: a cut object of which a smaller share of its box is left is unknown, not background.

    Raises ``UserError`` for values that make no sense.
    """

    crop: int = 0
    positive_share: float = 0.75
    scale: tuple[float, float] = (1.0, 1.0)
    flip: bool = True
    gain: float = 0.0
    shift: float = 0.0
    colour: float = 0.0
    min_visible: float = 0.25
    whole: int = 0

    def __post_init__(self) -> None:
        low, high = self.scale
        for name, fine, wanted in (
            ("crop", self.crop >= 0, "0 or more pixels"),
            ("whole", self.whole >= 0, "0 or more pixels"),
            ("positive_share", 0 <= self.positive_share <= 1, "a share from 0 to 1"),
            ("scale", 0 < low <= high, "a smallest and a largest factor, both above 0"),
            ("gain", self.gain >= 0, "0 or more"),
            ("shift", self.shift >= 0, "0 or more grey values"),
            ("colour", self.colour >= 0, "0 or more"),
            ("min_visible", 0 <= self.min_visible <= 1, "a share from 0 to 1"),
        ):
            if not fine:
                raise UserError(f"augment.{name}: {getattr(self, name)} must be {wanted}")

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Scene:
        """A view of ``scene``, with an image of the same type."""
        scene = viewed(scene, self.placement(scene, rng), self.min_visible)
        if self.gain or self.shift or self.colour:
            gain, shift = float(np.exp(rng.uniform(-self.gain, self.gain))), float(rng.uniform(-self.shift, self.shift))
            channels = np.exp(rng.uniform(-self.colour, self.colour, size=len(scene.image)))
            scene = recoloured(scene, gain, shift, tuple(channels.tolist()))
        return scene

    def placement(self, scene: Scene, rng: np.random.Generator) -> Placement:
        """Choose a window and an orientation."""
        height, width = scene.size
        if self.crop and max(height, width) > self.whole:
            side = max(1, round(self.crop * float(np.exp(rng.uniform(*np.log(self.scale))))))
            left, top = self._corner(scene, side, rng)
            place = Placement(left, top, side, side, (self.crop, self.crop))
        else:
            place = Placement(0, 0, width, height, (height, width))
        if not self.flip:
            return place
        mirror_x, mirror_y, transpose = (bool(v) for v in rng.random(3) < 0.5)
        square = place.size[0] == place.size[1]
        return replace(place, mirror_x=mirror_x, mirror_y=mirror_y, transpose=transpose and square)

    def _corner(self, scene: Scene, side: int, rng: np.random.Generator) -> tuple[int, int]:
        """Left and top of a window: anywhere or, for ``positive_share`` of the views, so that it holds a box."""
        height, width = scene.size
        # a window wider than the image is centred on it, within half a pixel
        lows = [min(0, (n - side) // 2) for n in (width, height)]
        highs = [max(low, n - side) for low, n in zip(lows, (width, height), strict=True)]
        box = self._wanted(scene, rng)
        if box is None:
            left, top = (int(rng.integers(low, high + 1)) for low, high in zip(lows, highs, strict=True))
            return left, top
        corner = []
        for low, high, near, far in zip(lows, highs, box[:2], box[2:], strict=True):
            # windows that hold the whole box, or, where none can, those that lie inside of it
            first, last = sorted((int(np.ceil(far - side)), int(np.floor(near))))
            corner.append(int(np.clip(rng.integers(first, last + 1), low, high)))
        return corner[0], corner[1]

    def _wanted(self, scene: Scene, rng: np.random.Generator) -> list[float] | None:
        """The box that the window must hold, if it must hold one."""
        if scene.boxes is None:
            return None
        boxes = scene.boxes if scene.ignore is None else scene.boxes[~scene.ignore]
        if not len(boxes) or rng.random() >= self.positive_share:
            return None
        chosen: list[float] = boxes[int(rng.integers(len(boxes)))].tolist()
        return chosen
