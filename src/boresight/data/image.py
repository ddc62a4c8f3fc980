"""Image and mask files to arrays and tensors, raw values in, raw values out; and what a bad file is called.

What a file stores is what the detector sees: no scaling, no gamma, no colour profile. Transparency is dropped (not
blended), and an EXIF or TIFF orientation is *not* applied, since labels are given in stored pixels. Of a file with
several pages the first is read. Reading into arrays (:func:`read_pixels`) does without torch, but for 16-bit colour.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from boresight.core.errors import UserError
from boresight.core.files import disguised

if TYPE_CHECKING:
    from torch import Tensor

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm", ".ppm", ".webp")

Severity = Literal["error", "warning", "info"]

_ONE_CHANNEL = ("1", "L", "F")
_TIFF_ORIENTATION = 274
# The transposition that undoes each TIFF orientation (6 is stored rotated by 270 degrees, 8 by 90).
_UNDO = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
# What Pillow and torchvision are known to raise on damaged files.
_DECODING = (
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, AttributeError),
    *(RuntimeError, MemoryError, AssertionError, struct.error, zlib.error),
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a data set.

    Attributes:
        kind: a short name, such as ``mask_size`` (:mod:`boresight.data.check` lists them).
        severity: an ``error`` stops training, a ``warning`` should be looked at, ``info`` is worth knowing.
        file, detail, remedy: where it is, what it is, what to do; together they make the one line of :meth:`line`.
        split, name: the split and the frame concerned, empty where it concerns none.
    """

    kind: str
    severity: Severity
    file: str
    detail: str
    remedy: str
    split: str = ""
    name: str = ""

    def line(self) -> str:
        """Return the problem as one line."""
        return f"{self.file}: {self.detail}: {self.remedy}"


class DataError(UserError):
    """A file, frame or list that cannot be used; ``problem`` says why."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(" ".join(problem.line().split()))

    def __reduce__(self) -> tuple[type[DataError], tuple[Problem]]:
        # An exception is pickled with its message alone, which would lose the problem on the way out of a worker.
        return DataError, (self.problem,)


def read_image(path: str | Path) -> Tensor:
    """Read an image file: ``[C, H, W]`` float32, values as stored (0..255, 0..65535, any float; 1-bit gives 0 and 1).

    ``C`` is 1 for grayscale and 3 for everything in colour; an alpha channel is dropped and a palette looked up.
    Integers are exact up to 2**24. Raises :class:`DataError` (kind ``missing_image`` or ``corrupt_image``) for a file
    that is missing, empty, truncated, corrupt, no image, absurdly large, or holds values which are not finite.
    """
    import torch

    return torch.from_numpy(read_pixels(path))


def read_pixels(path: str | Path) -> np.ndarray:
    """:func:`read_image` as an array."""
    return np.require(stored_pixels(path), np.float32, ["C", "W"])


def stored_pixels(path: str | Path) -> np.ndarray:
    """:func:`read_pixels` in the type of the file: bool, an integer or a float; a quarter of the memory for 8 bits.

    The array may be read-only.
    """
    file = Path(path)
    _check_bytes(file)
    try:
        pixels = _decode(file)
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        remedy = "save it as a TIFF of RGB, which `predict` reads by windows, or cut it into tiles"
        raise _bad(file, str(error), remedy) from error
    except Image.UnidentifiedImageError as error:
        raise _bad(file, "is not an image", "replace it or remove it from the data set") from error
    except _DECODING as error:
        raise _bad(file, f"cannot be decoded ({error})", "copy it again from its source or remove it") from error
    if not np.isfinite(pixels).all():
        raise _bad(file, "holds values that are not finite (NaN or infinity)", "replace those pixels")
    channels_first = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    return np.ascontiguousarray(channels_first)


def read_mask(path: str | Path) -> Tensor:
    """Read a binary mask: ``[H, W]`` bool, True where the value is above half of the largest value in the file.

    That reads 0/1, 0/255 and coloured masks alike (of several channels the largest counts); a mask of zeros is empty.
    A mask that numbers its objects is none: objects of low number would be lost. Raises as :func:`read_image` does.
    """
    strongest = read_image(path).amax(dim=0)
    return strongest > strongest.max() / 2


def to_gray(image: Tensor) -> Tensor:
    """Average the channels: ``[C, H, W]`` to ``[1, H, W]``, on the scale of the input.

    A plain mean and not a luminance formula: infrared frames are saved as RGB with (nearly) equal channels, which it
    leaves as they are.
    """
    return image if image.shape[0] == 1 else image.mean(dim=0, keepdim=True)


def _bad(file: Path, detail: str, remedy: str, kind: str = "corrupt_image") -> DataError:
    return DataError(Problem(kind, "error", str(file), " ".join(detail.split()), remedy))


def _check_bytes(file: Path) -> None:
    """Raise unless there is a file with something in it that may be read."""
    try:
        if not file.is_file():
            what = "is a folder" if file.is_dir() else "no such image file"
            raise _bad(file, what, "put the file there or take its name off the list", kind="missing_image")
        if file.stat().st_size == 0:
            raise _bad(file, "is empty (0 bytes)", "copy it again from its source or remove it")
        if target := disguised(file, IMAGE_SUFFIXES):
            raise _bad(file, f"is a link to {target}, which is not named as an image", "put the image itself there")
    except (OSError, ValueError) as error:
        raise _bad(file, f"cannot be opened ({error})", "allow reading it or correct its name") from error


def _decode(file: Path) -> np.ndarray:
    """Return ``[H, W]`` or ``[H, W, 3]`` as stored, or raise whatever the decoder raises."""
    with warnings.catch_warnings():
        # A warning about odd metadata is not the caller's concern; that about size is kept for `read_image`.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        # As a stream: given a name, Pillow maps uncompressed TIFF files into memory and garbles those that are turned.
        with file.open("rb") as stream, Image.open(stream) as image:
            if _is_deep_colour(image):
                return _deep_colour(file, str(image.format))
            orientation = image.tag_v2.get(_TIFF_ORIENTATION, 1) if hasattr(image, "tag_v2") else 1
            image.load()
            # Pillow turns TIFF files while it loads them, and only those.
            stored = image.transpose(_UNDO[orientation]) if orientation in _UNDO else image
            return _samples(stored)


def _samples(image: Image.Image) -> np.ndarray:
    """Return the colour samples of a loaded image, ``[H, W]`` or ``[H, W, 3]`` as stored, without alpha."""
    if image.mode in (*_ONE_CHANNEL, "RGB") or image.mode.startswith("I"):
        return np.asarray(image)
    if image.mode == "LA":
        return np.asarray(image)[..., 0]
    # By way of RGBA, because Pillow warns about transparent palettes that go straight to RGB.
    colour = image.convert("RGBA") if image.mode in ("P", "PA") else image
    return np.asarray(colour.convert("RGB"))


def _is_deep_colour(image: Image.Image) -> bool:
    """Tell whether the file has several channels of 16 bits, which Pillow would cut to 8 without a word."""
    if image.mode in _ONE_CHANNEL or image.mode.startswith("I"):
        return False
    settings = [tile[3] for tile in getattr(image, "tile", [])]
    parts = [str(part) for args in settings for part in (args if isinstance(args, tuple) else (args,))]
    deep_ppm = image.format == "PPM" and any(part.isdigit() and int(part) > 255 for part in parts)
    return deep_ppm or any(";16" in part for part in parts)


def _deep_colour(file: Path, kind: str) -> np.ndarray:
    """Decode 16-bit colour: PNG by torchvision, ``[H, W]`` or ``[H, W, 3]`` float32; other formats are refused."""
    if kind != "PNG":
        raise _bad(file, f"has 16-bit colour, which is not read from {kind} files", "save it as 16-bit PNG")
    import torch  # slow to import, and rarely needed
    from torchvision.io import ImageReadMode, decode_image

    data = torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.uint8)
    values = decode_image(data, mode=ImageReadMode.UNCHANGED).to(torch.float32)
    colour = values[: 1 if len(values) == 2 else 3]
    return colour[0].numpy() if len(colour) == 1 else colour.permute(1, 2, 0).numpy()
