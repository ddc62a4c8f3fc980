"""TIFF files too large to be held in memory, read window by window (rasterio, extra ``geo``). Does without torch.

PNG, JPEG and the other forms can only be decoded whole, which :mod:`boresight.data.image` does up to its limit.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from boresight.core.errors import UserError
from boresight.core.files import disguised
from boresight.data.image import IMAGE_SUFFIXES, DataError, Problem

LARGE = 2**26
"""Pixels above which a TIFF is read by windows: as colours it would take 200 MB, and 800 MB while it is decoded."""
CACHE = 2**27
"""Bytes of decoded blocks that GDAL keeps; its own default is a share of the machine."""
SQUARE = 1024
"""Side in pixels of the parts in which a whole image is passed through."""
SUFFIXES = (".tif", ".tiff")


class Raster:
    """An image file as an array ``[3, H, W]`` uint8 of which only what is asked for is read.

    ``raster[:, top:bottom, left:right]`` gives the pixels as stored, beyond the border nothing. Gray is repeated, a
    palette looked up, further channels (alpha, infrared) left out. An orientation is not applied.

    Raises ``DataError`` for a file that cannot be read and for one of more than 8 bits a channel.
    """

    channels = 3
    kinds: frozenset[str] = frozenset({"uint8"})
    wanted = "8 bits"

    def __init__(self, path: Path) -> None:
        self.path = path
        with opened(path) as file:
            stored = set(file.dtypes)
            if not stored <= self.kinds:
                held = f"has channels of {', '.join(sorted(stored))}, not of {self.wanted}"
                raise DataError(Problem("deep_image", "error", str(path), held, f"save it with {self.wanted}"))
            self.shape = (self.channels, int(file.height), int(file.width))
            self._palette = _palette(file) if file.count == 1 else None
            self._bands = [1, 2, 3] if file.count >= 3 else [1]

    def __getitem__(self, place: tuple[slice, slice, slice]) -> np.ndarray:
        _, rows, columns = place
        (top, bottom, _), (left, right, _) = rows.indices(self.shape[1]), columns.indices(self.shape[2])
        if top >= bottom or left >= right:
            return self._as_seen(np.zeros((1, max(bottom - top, 0), max(right - left, 0)), np.uint8))
        return self._as_seen(self._read(window=((top, bottom), (left, right))))

    def reduced(self, side: int) -> tuple[np.ndarray, float]:
        """The whole image ``[C, h, w]`` with no side longer than ``side``, and pixels of it for one of the file."""
        height, width = self.shape[1:]
        share = min(1.0, side / max(height, width))
        shape = (max(1, round(height * share)), max(1, round(width * share)))
        return self._as_seen(self._read(out_shape=(len(self._bands), *shape))), share

    def squares(self) -> Iterator[np.ndarray]:
        """The whole image in parts ``[C, h, w]`` of at most :data:`SQUARE` pixels a side, each pixel once."""
        _, height, width = self.shape
        for top in range(0, height, SQUARE):
            for left in range(0, width, SQUARE):
                yield self[:, top : top + SQUARE, left : left + SQUARE]

    def _read(self, **how: Any) -> np.ndarray:
        with opened(self.path) as file:
            values = file.read(self._bands, **how)
        if self._palette is not None:
            return np.ascontiguousarray(self._palette[values[0]].transpose(2, 0, 1))
        return np.asarray(values)

    def _as_seen(self, values: np.ndarray) -> np.ndarray:
        """Channels as stored, one or three, in the form that is promised."""
        return np.repeat(values, 3 // len(values), axis=0)


class GrayRaster(Raster):
    """An image file as a frame ``[1, H, W]`` float32 of which only what is asked for is read.

    Values are as stored (8 and 16 bits, or floats), the mean of three channels. Otherwise as :class:`Raster`.

    Raises ``DataError`` as well for values that are not finite.
    """

    channels = 1
    kinds = frozenset({"uint8", "uint16", "int16", "float32"})
    wanted = "8 or 16 bits or float32"

    def _as_seen(self, values: np.ndarray) -> np.ndarray:
        if not np.isfinite(values).all():
            held = "holds values that are not finite (NaN or infinity)"
            raise DataError(Problem("corrupt_image", "error", str(self.path), held, "replace those pixels"))
        return gray(values)


def gray(pixels: np.ndarray) -> np.ndarray:
    """``[C, H, W]`` of any type to ``[1, H, W]`` float32, the mean of the channels: see ``data.image.to_gray``."""
    if len(pixels) == 1:
        return np.require(pixels, np.float32, ["C", "W"])
    mean: np.ndarray = pixels.mean(axis=0, keepdims=True, dtype=np.float32)
    return mean


def is_large(path: Path) -> bool:
    """Whether a file is a TIFF of more than :data:`LARGE` pixels, which is read by windows."""
    return path.suffix.lower() in SUFFIXES and _pixels(path) > LARGE


def open_large(path: Path) -> Raster | None:
    """The image by windows where it is a TIFF of more than :data:`LARGE` pixels; None for every other file.

    Raises ``UserError`` for such a TIFF where rasterio is missing.
    """
    return Raster(path) if is_large(path) else None


def _pixels(path: Path) -> int:
    """How many pixels a TIFF claims to have, told from its tags; 0 for what is none."""
    tags = tiff_tags(path)
    return int(tags.get(_WIDTH, 0)) * int(tags.get(_HEIGHT, 0))


_WIDTH, _HEIGHT = 256, 257


def tiff_tags(path: Path) -> dict[int, Any]:
    """The tags of the first page of a TIFF, read without its pixels, whatever its size; empty for what is none."""
    from PIL.TiffImagePlugin import TiffImageFile

    try:
        with path.open("rb") as stream, TiffImageFile(stream) as image:  # not `Image.open`, which refuses large ones
            return dict(image.tag_v2)
    except Exception:  # Pillow raises whatever its reader runs into; whoever reads the pixels says what is wrong
        return {}


def _palette(file: Any) -> np.ndarray | None:
    """``[256, 3]`` uint8 where the values of a file number colours."""
    from rasterio.enums import ColorInterp

    if file.colorinterp[0] != ColorInterp.palette:
        return None
    colours = np.zeros((256, 3), np.uint8)
    for value, colour in file.colormap(1).items():
        colours[value] = colour[:3]
    return colours


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A TIFF, opened by rasterio: as TIFF alone, without the files beside it, in bounded memory.

    GDAL would otherwise go by the content, and follow a file that is a list of other files and addresses.

    Raises ``UserError`` where rasterio is missing, ``DataError`` for whatever rasterio raises in the meantime.
    """
    try:
        import rasterio
        import rasterio.errors
    except ImportError as error:
        what = "is georeferenced, or too large to be read whole"
        raise UserError(f"{path}: {what}: install rasterio: pip install 'boresight[geo]'") from error
    if target := disguised(path, IMAGE_SUFFIXES):
        detail = f"is a link to {target}, which is not named as an image"
        raise DataError(Problem("corrupt_image", "error", str(path), detail, "put the image itself there"))
    limits = {"GDAL_CACHEMAX": CACHE, "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO"}
    try:
        with warnings.catch_warnings(), rasterio.Env(**limits):
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # most images are nowhere
            with rasterio.open(path, driver="GTiff") as file:
                yield file
    except UserError:
        raise
    except Exception as error:  # GDAL's errors are classes of their own, which rasterio does not publish
        detail = f"cannot be read ({' '.join(str(error).split()) or type(error).__name__})"
        raise DataError(
            Problem("corrupt_image", "error", str(path), detail, "copy it again from its source or remove it")
        ) from error
