"""TIFF files read by windows: the pixels of a whole reading, nothing but TIFF, and one line for what is damaged."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boresight.core.errors import UserError
from boresight.data import raster
from boresight.data.image import read_pixels, stored_pixels
from boresight.data.raster import GrayRaster, Raster, gray, open_large, opened, tiff_tags
from boresight.data.rgb_image import rgb_pixels

NOISE = np.random.default_rng(0).integers(0, 255, (70, 90, 4), dtype=np.uint8)


def written(path: Path, mode: str = "RGB", **more: object) -> Path:
    Image.fromarray(NOISE[..., :3]).convert(mode).save(path, **more)
    return path


def tiled(path: Path, bands: int = 3, kind: str = "uint8", **more: object) -> Path:
    import rasterio

    about: dict[str, object] = {"transform": rasterio.Affine(2, 0, 5, 0, -2, 9)}  # somewhere, or rasterio warns
    about |= {"driver": "GTiff", "width": 90, "height": 70, "count": bands, "dtype": kind}
    with rasterio.open(path, "w", tiled=True, blockxsize=32, blockysize=16, **about, **more) as out:
        out.write(NOISE.transpose(2, 0, 1)[:bands].astype(kind))
    return path


@pytest.fixture(autouse=True)
def _needs_rasterio() -> None:
    pytest.importorskip("rasterio", reason="the extra `geo` is not installed")


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA"])
@pytest.mark.parametrize("compression", ["raw", "tiff_deflate", "tiff_lzw"])
def test_windows_hold_the_pixels_of_a_whole_reading(tmp_path: Path, mode: str, compression: str) -> None:
    file = written(tmp_path / "a.tif", mode, compression=compression)
    whole, parts = rgb_pixels(file), Raster(file)
    assert parts.shape == whole.shape == (3, 70, 90)
    for place in ((0, 70, 0, 90), (5, 21, 60, 90), (50, 200, 80, 300), (69, 70, 0, 1)):
        top, bottom, left, right = place
        assert np.array_equal(parts[:, top:bottom, left:right], whole[:, top:bottom, left:right])
    assert parts[:, 70:80, 0:5].shape == whole[:, 70:80, 0:5].shape


def test_a_tiled_file_of_many_bands_gives_its_first_three(tmp_path: Path) -> None:
    parts = Raster(tiled(tmp_path / "a.tif", bands=4))
    assert np.array_equal(parts[:, 10:40, 20:80], NOISE.transpose(2, 0, 1)[:3, 10:40, 20:80])


def test_the_whole_can_be_seen_small(tmp_path: Path) -> None:
    parts = Raster(tiled(tmp_path / "a.tif"))
    small, share = parts.reduced(45)
    assert (small.shape, share) == ((3, 35, 45), 0.5)
    same, share = parts.reduced(1000)
    assert share == 1.0
    assert np.array_equal(same, parts[:, :, :])


def test_only_large_tiffs_are_read_by_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tiled(tmp_path / "a.tif")
    assert open_large(file) is None
    assert open_large(written(tmp_path / "a.png")) is None
    (tmp_path / "text.tif").write_text("no image")
    assert open_large(tmp_path / "text.tif") is None
    assert open_large(tmp_path / "none.tif") is None
    monkeypatch.setattr(raster, "LARGE", 70 * 90 - 1)
    assert isinstance(open_large(file), Raster)
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(UserError, match=r"a\.tif: .*too large to be read whole: install rasterio"):
        open_large(file)


def test_tags_of_a_file_that_no_reader_opens_whole(tmp_path: Path) -> None:
    """Pillow refuses to open an image of twice its limit; its tags are read all the same."""
    import rasterio

    about = {"driver": "GTiff", "width": 40_000, "height": 30_000, "count": 1, "dtype": "uint8", "sparse_ok": True}
    about["transform"] = rasterio.Affine(2, 0, 5, 0, -2, 9)
    with rasterio.open(tmp_path / "a.tif", "w", tiled=True, **about):
        pass
    assert (tiff_tags(tmp_path / "a.tif")[256], tiff_tags(tmp_path / "a.tif")[257]) == (40_000, 30_000)
    found = open_large(tmp_path / "a.tif")
    assert found is not None
    assert not found[:, 29_000:29_010, 39_990:50_000].any()


def test_more_than_8_bits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.tif: has channels of uint16, not of 8 bits"):
        Raster(tiled(tmp_path / "a.tif", kind="uint16"))


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("bands", [1, 3])
def test_a_frame_is_the_mean_of_what_is_stored(tmp_path: Path, kind: str, bands: int) -> None:
    parts = GrayRaster(tiled(tmp_path / "a.tif", bands=bands, kind=kind))
    whole = NOISE.transpose(2, 0, 1)[:bands].astype(np.float32).mean(axis=0, keepdims=True)
    assert parts.shape == whole.shape == (1, 70, 90)
    for place in (np.s_[:, :, :], np.s_[:, 50:200, 80:300], np.s_[:, 70:80, 0:5]):
        assert parts[place].dtype == np.float32
        assert np.array_equal(parts[place], whole[place])
    assert parts.reduced(45)[0].shape == (1, 35, 45)


@pytest.mark.parametrize("mode", ["L", "P", "RGB"])
def test_a_frame_by_windows_is_that_of_a_whole_reading(tmp_path: Path, mode: str) -> None:
    file = written(tmp_path / "a.tif", mode)
    assert np.array_equal(GrayRaster(file)[:, :, :], read_pixels(file).mean(axis=0, keepdims=True))
    assert np.array_equal(GrayRaster(file)[:, :, :], gray(stored_pixels(file)))


def test_squares_hold_every_pixel_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raster, "SQUARE", 32)
    parts = Raster(tiled(tmp_path / "a.tif"))
    squares = list(parts.squares())
    assert [p.shape[1:] for p in squares[:4]] == [(32, 32), (32, 32), (32, 26), (32, 32)]
    assert len(squares) == 9
    assert np.array_equal(np.concatenate(squares[:3], axis=2), parts[:, :32, :])
    assert sum(int(p.sum()) for p in squares) == int(parts[:, :, :].sum())


def test_what_is_no_number_is_refused_where_it_lies(tmp_path: Path) -> None:
    import rasterio

    file = tiled(tmp_path / "a.tif", bands=1, kind="float32")
    with rasterio.open(file, "r+") as out:
        out.write(np.full((1, 1, 1), np.nan, np.float32), window=((60, 61), (80, 81)))
    parts = GrayRaster(file)
    assert np.isfinite(parts[:, :60, :]).all()
    with pytest.raises(UserError, match=r"a\.tif: holds values that are not finite"):
        parts[:, 50:, :]
    with pytest.raises(UserError, match=r"has channels of float64, not of 8 or 16 bits or float32"):
        GrayRaster(tiled(tmp_path / "b.tif", kind="float64"))


VRT = """<VRTDataset rasterXSize="4" rasterYSize="4"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>
<SourceFilename>{file}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"""


def test_a_list_of_other_files_is_no_tiff(tmp_path: Path) -> None:
    """GDAL alone would follow it, to files and to addresses."""
    import rasterio

    (tmp_path / "a.tif").write_text(VRT.format(file=tiled(tmp_path / "secret.tif")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(tmp_path / "a.tif") as followed:
            assert followed.read(1).shape == (4, 4)
    with pytest.raises(UserError, match=r"a\.tif: cannot be read"), opened(tmp_path / "a.tif"):
        pass


@pytest.mark.parametrize("cut", [0, 8, 200, 3000])
def test_a_damaged_file_is_one_line(tmp_path: Path, cut: int) -> None:
    file = tiled(tmp_path / "a.tif")
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"a\.tif: cannot be read") as caught:
        Raster(file)[:, :, :]
    assert "\n" not in str(caught.value)
