"""Some of many images, whole: for what needs the boxes themselves where there are too many to keep."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from boresight.data.box_tables import Images
from boresight.evaluate.pairs import Floats

MOST = 200_000
"""Boxes that are kept, some 15 MB."""


@dataclass
class DrawnImages:
    """All images while they are few; once their boxes are too many, every image has the same chance to stay.

    Each image draws a number from 0 to 1 as it comes, and those below a bound stay; the bound is halved while too many
    boxes are here. In what parts images come makes no difference.

    Args:
        most: truths and detections that are kept.
        seed: of the draw.
    """

    most: int = MOST
    seed: int = 0
    _rng: np.random.Generator = field(init=False)
    _bound: float = field(default=1.0, init=False)
    _kept: list[tuple[Floats, Images]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def add(self, part: Images) -> None:
        """Take in some images."""
        self._keep(self._rng.random(len(part.image_ids)), part)
        while sum(len(images.truth_box) + len(images.found_box) for _, images in self._kept) > self.most:
            self._bound /= 2
            kept, self._kept = self._kept, []
            for numbers, images in kept:
                self._keep(numbers, images)

    def _keep(self, numbers: Floats, part: Images) -> None:
        stays = numbers < self._bound
        if stays.any():
            self._kept.append((numbers[stays], part if stays.all() else part.take(stays)))

    def images(self) -> Images:
        """Those that stayed."""
        return Images.joined([images for _, images in self._kept])
