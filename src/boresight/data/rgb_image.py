"""Image files as detectors of boxes see them: three channels of 8 bits, on the scale 0..255.

The rule for turned photos: boxes refer to the *stored* pixels, as in COCO, so an EXIF orientation is not applied. Some
tools draw labels on the turned picture; :func:`orientation_of` lets the audit point such files out.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from boresight.data.image import DataError, Problem, stored_pixels

if TYPE_CHECKING:
    from torch import Tensor

_DEEP = ("I", "F")  # Pillow's modes of one channel with more than 8 bits: I, I;16, I;16B, F
_EXIF_ORIENTATION = 274


def read_rgb(path: str | Path) -> Tensor:
    """Read an image file: ``[3, H, W]`` uint8, values as stored; gray is repeated, 1-bit becomes 0 and 255.

    Raises :class:`~boresight.data.image.DataError` as :func:`~boresight.data.image.read_image` does, and (kind
    ``deep_image``) for more than 8 bits a channel: which part of that range is the picture, only its owner knows.
    """
    import torch

    return torch.from_numpy(rgb_pixels(path))


def rgb_pixels(path: str | Path) -> np.ndarray:
    """:func:`read_rgb` as an array, without torch."""
    values = stored_pixels(path)  # complains of whatever is no image, so that opening it below cannot fail
    mode = _header(Path(path))[0]
    if mode.startswith(_DEEP) or values.max() > 255:
        detail = f"has more than 8 bits a channel (values {values.min():g} to {values.max():g})"
        raise DataError(Problem("deep_image", "error", str(path), detail, "save it with 8 bits, scaled as you see fit"))
    eight = values.astype(np.uint8, copy=False)
    if mode == "1":
        eight = eight * np.uint8(255)
    return np.require(eight, requirements="W") if len(eight) == 3 else np.repeat(eight, 3, axis=0)


def orientation_of(path: str | Path) -> int:
    """Return the EXIF orientation of a file that can be read: 1 is upright, 2 to 8 are turned or mirrored."""
    return _header(Path(path))[1]


def _header(path: Path) -> tuple[str, int]:
    with path.open("rb") as stream, Image.open(stream) as image:
        return image.mode, int(image.getexif().get(_EXIF_ORIENTATION, 1))
