"""Decoding: what is stored comes out, exactly; what cannot be decoded says so in one line."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from boresight.core.errors import UserError
from boresight.data.image import DataError, read_image, read_mask, to_gray


def ramp(height: int, width: int, top: int, kind: type) -> np.ndarray:
    return np.linspace(0, top, height * width).round().astype(kind).reshape(height, width)


def png16(values: np.ndarray) -> bytes:
    """A 16-bit PNG of 2 to 4 channels, which Pillow cannot write. ``values`` is [H, W, C]."""
    height, width, channels = values.shape

    def chunk(tag: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))

    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (31, 2)])
def test_16_bit_comes_back_exactly(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    values = ramp(*size, 65535, np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    image = read_image(tmp_path / f"a.{suffix}")
    assert image.dtype == torch.float32
    assert image.shape == (1, *size)
    assert torch.equal(image[0], torch.from_numpy(values.astype(np.float32)))


def test_big_endian_16_bit_and_32_bit_and_float(tmp_path: Path) -> None:
    (tmp_path / "a.pgm").write_bytes(b"P5\n2 1\n65535\n" + struct.pack(">HH", 258, 65535))
    assert read_image(tmp_path / "a.pgm").tolist() == [[[258.0, 65535.0]]]
    Image.fromarray(np.array([[0, 70_000]], np.int32)).save(tmp_path / "b.tif")
    assert read_image(tmp_path / "b.tif").tolist() == [[[0.0, 70_000.0]]]
    Image.fromarray(np.array([[-1.5, 1e9]], np.float32)).save(tmp_path / "c.tif")
    assert read_image(tmp_path / "c.tif").tolist() == [[[-1.5, 1e9]]]


def test_every_8_bit_mode_gives_its_colour_samples(tmp_path: Path) -> None:
    gray = ramp(3, 5, 255, np.uint8)
    colour = np.stack((gray, gray[::-1], gray[:, ::-1]), axis=-1)
    alpha = np.zeros((3, 5, 1), np.uint8)
    cases = {"l": gray, "rgb": colour, "rgba": np.concatenate((colour, alpha), axis=-1)}
    cases["la"] = np.concatenate((gray[..., None], alpha), axis=-1)
    for name, values in cases.items():
        Image.fromarray(values).save(tmp_path / f"{name}.png")
        expected = torch.from_numpy(gray)[None] if name in ("l", "la") else torch.from_numpy(colour).permute(2, 0, 1)
        assert torch.equal(read_image(tmp_path / f"{name}.png"), expected.float()), name


def test_palette_is_looked_up_and_one_bit_is_0_and_1(tmp_path: Path) -> None:
    indexed = Image.new("P", (2, 1))
    indexed.putpalette([9, 8, 7, 200, 100, 50])
    indexed.putpixel((1, 0), 1)
    indexed.save(tmp_path / "p.png", transparency=b"\x00\xff")
    assert read_image(tmp_path / "p.png")[:, 0].tolist() == [[9, 200], [8, 100], [7, 50]]
    Image.fromarray(np.array([[True, False, True]])).save(tmp_path / "b.png")
    assert read_image(tmp_path / "b.png").tolist() == [[[1, 0, 1]]]


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_16_bit_colour_is_not_cut_to_8_bits(tmp_path: Path, channels: int) -> None:
    values = np.stack([ramp(3, 4, 65535 - 7 * c, np.uint16) for c in range(channels)], axis=-1)
    (tmp_path / "a.png").write_bytes(png16(values))
    kept = values[..., : 1 if channels == 2 else 3].astype(np.float32)
    assert torch.equal(read_image(tmp_path / "a.png"), torch.from_numpy(kept).permute(2, 0, 1))


def test_16_bit_colour_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(b"P6\n1 1\n65535\n" + bytes(6))
    with pytest.raises(UserError, match=r"a\.ppm: has 16-bit colour.*save it as 16-bit PNG"):
        read_image(tmp_path / "a.ppm")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["tif", "lzw.tif", "png", "jpg"])
def test_orientation_is_not_applied(tmp_path: Path, suffix: str, orientation: int) -> None:
    values = np.kron(np.array([[10, 60, 110], [160, 210, 250]], np.uint8), np.ones((8, 8), np.uint8))
    exif = Image.Exif()
    exif[274] = orientation
    packing = {"compression": "tiff_lzw"} if suffix == "lzw.tif" else {}
    Image.fromarray(values).save(tmp_path / f"a.{suffix}", exif=exif, **packing)
    with Image.open(tmp_path / f"a.{suffix}") as stored:
        assert stored.getexif().get(274) == orientation
    image = read_image(tmp_path / f"a.{suffix}")
    assert image.shape == (1, 16, 24)
    assert (image[0] - torch.from_numpy(values).float()).abs().max() <= (3 if suffix == "jpg" else 0)


def test_masks_of_every_kind_read_alike(tmp_path: Path) -> None:
    mask = np.zeros((4, 5), np.uint8)
    mask[1, 2] = mask[3, 4] = 1
    Image.fromarray(mask).save(tmp_path / "one.png")
    Image.fromarray(mask * 255).save(tmp_path / "full.png")
    Image.fromarray(mask * np.uint16(40_000)).save(tmp_path / "deep.png")
    Image.fromarray(mask.astype(bool)).save(tmp_path / "bit.png")
    Image.fromarray(np.stack((mask * 200, mask * 0, mask * 0), axis=-1)).save(tmp_path / "red.png")
    for name in ("one", "full", "deep", "bit", "red"):
        read = read_mask(tmp_path / f"{name}.png")
        assert read.dtype == torch.bool
        assert torch.equal(read, torch.from_numpy(mask == 1)), name
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(tmp_path / "empty.png")
    assert not read_mask(tmp_path / "empty.png").any()


def test_gray_is_the_mean_and_leaves_equal_channels_as_they_are() -> None:
    assert to_gray(torch.tensor([[[0.0]], [[30.0]], [[90.0]]])).tolist() == [[[40.0]]]
    values = torch.arange(65536.0).reshape(1, 256, 256)
    assert torch.equal(to_gray(values.expand(3, -1, -1)), values)
    assert torch.equal(to_gray(values), values)


def spoil(path: Path, how: str) -> str:
    """Write a bad file and return what the message must say."""
    good = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40), dtype=np.uint8)).save(good, "png")
    data = good.getvalue()
    if how == "missing":
        return "no such image file"
    if how == "folder":
        path.mkdir()
        return "is a folder"
    contents = {"empty": b"", "truncated": data[: len(data) // 2], "text": b"not an image", "header": data[:20]}
    contents["corrupt"] = data[:60] + bytes(50) + data[110:]
    path.write_bytes(contents[how])
    return {"empty": "is empty", "text": "is not an image"}.get(how, "")


@pytest.mark.parametrize("how", ["missing", "folder", "empty", "truncated", "text", "header", "corrupt"])
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_a_bad_file_is_one_line_that_names_it(tmp_path: Path, how: str, read: object) -> None:
    path = tmp_path / "bad.png"
    says = spoil(path, how)
    with pytest.raises(DataError) as caught:
        read(path)  # type: ignore[operator]
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert says in message
    assert "\n" not in message
    assert caught.value.problem.kind == ("missing_image" if how in ("missing", "folder") else "corrupt_image")
    assert caught.value.problem.remedy in message


@pytest.mark.parametrize("limit", [60, 20])
def test_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """A hundred pixels are over the limit where Pillow warns (60), and over twice the limit where it raises (20)."""
    Image.fromarray(np.zeros((10, 10), np.uint8)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(UserError, match=r"a\.png: .*decompression bomb.*cut it into tiles"):
        read_image(tmp_path / "a.png")


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, np.nan]], np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match="not finite"):
        read_image(tmp_path / "a.tif")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(UserError, match=r"a\.png: cannot be decoded"):
        read_image(tmp_path / "a.png")


def test_the_problem_survives_the_way_out_of_a_worker(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_image(tmp_path / "a.png")
    assert pickle.loads(pickle.dumps(caught.value)).problem == caught.value.problem


def attempt(path: Path) -> tuple[str, torch.Tensor | None]:
    try:
        return "", read_image(path)
    except UserError as error:
        return str(error), None


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["png", "tiff", "jpeg", "bmp", "ppm", "webp"]),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=6),
)
def test_damaged_bytes_give_an_image_or_a_user_error(tmp_path: Path, kind: str, flips: list[tuple[float, int]]) -> None:
    buffer = io.BytesIO()
    Image.fromarray(ramp(9, 11, 255, np.uint8)).convert("RGB").save(buffer, kind)
    data = bytearray(buffer.getvalue())
    for where, change in flips:
        data[int(where * len(data))] ^= change
    path = tmp_path / "a.img"
    path.write_bytes(bytes(data))
    message, image = attempt(path)
    if image is None:
        assert message.startswith(str(path))
        assert "\n" not in message
    else:
        assert image.dtype == torch.float32
        assert image.isfinite().all()


def test_pixels_are_read_without_torch(tmp_path):
    """On a machine that only runs an exported detector torch may be missing."""
    Image.fromarray(np.full((3, 4), 7, dtype=np.uint8)).save(tmp_path / "a.png")
    program = (
        "import sys\n"
        "from boresight.data.image_files import image_files\n"
        "from boresight.data.image import read_pixels\n"
        "from boresight.data.rgb_image import rgb_pixels\n"
        f"[(name, path)] = image_files({str(tmp_path)!r})\n"
        "assert name == 'a.png' and read_pixels(path).shape == (1, 3, 4)\n"
        "assert rgb_pixels(path).tolist() == [[[7] * 4] * 3] * 3\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
