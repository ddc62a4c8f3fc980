"""Image files whose hash is remembered."""

import os
import time

import pytest
import torch

from boresight.features.cache_remembered import Remembered, join_remembered
from boresight.features.image_hash import image_key


@pytest.fixture
def photo(tmp_path):
    file = tmp_path / "photo.bin"
    file.write_bytes(b"\x07" * 12)
    os.utime(file, (time.time() - 60,) * 2)
    return file


def read(file):
    return torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.uint8).view(3, 2, 2)


def never(file):
    raise AssertionError(f"{file} is read again")


def test_a_file_is_read_once_also_by_another_session(tmp_path, photo):
    one = Remembered(tmp_path, "one")
    key, image = one.key(photo, read)
    assert key == image_key(read(photo))
    assert torch.equal(image, read(photo))
    assert one.key(photo, never) == (key, None)
    assert Remembered(tmp_path, "two").key(photo, never) == (key, None)
    assert one.read == 1


def test_two_names_of_one_image_have_one_key(tmp_path, photo):
    other = tmp_path / "copy.bin"
    other.write_bytes(photo.read_bytes())
    one = Remembered(tmp_path, "one")
    assert one.key(photo, read)[0] == one.key(other, read)[0]
    assert one.read == 2


@pytest.mark.parametrize("change", ["bytes", "size", "time", "inode"])
def test_a_file_that_changed_is_read_again(tmp_path, photo, change):
    Remembered(tmp_path, "one").key(photo, read)
    before = photo.stat()
    if change == "inode":
        content = photo.read_bytes()
        photo.rename(tmp_path / "old.bin")
        photo.write_bytes(content)
        os.utime(photo, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        photo.write_bytes({"bytes": b"\x08" * 12, "size": b"\x07" * 12, "time": b"\x07" * 12}[change])
        os.utime(photo, (time.time() - 30,) * 2)
    two = Remembered(tmp_path, "two")
    assert two.key(photo, read)[0] == image_key(read(photo))
    assert two.read == 1


def test_another_reader_s_hashes_are_not_used(tmp_path, photo):
    Remembered(tmp_path, "one", reader="rgb-0").key(photo, read)
    two = Remembered(tmp_path, "two")
    two.key(photo, read)
    assert two.read == 1


def test_a_file_that_was_changed_just_now_is_not_remembered(tmp_path, photo):
    """Within one tick of the clock it could change again and look the same."""
    os.utime(photo)
    one = Remembered(tmp_path, "one")
    one.key(photo, read)
    one.key(photo, read)
    assert one.read == 2


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b[:5] + b"x" + b[6:], lambda b: b[:25] + b"x" + b[26:]])
def test_a_line_that_is_torn_or_changed_was_never_written(tmp_path, photo, damage):
    Remembered(tmp_path, "one").key(photo, read)
    (file,) = (tmp_path / "remembered").iterdir()
    whole = file.read_bytes()
    assert damage(whole) != whole
    file.write_bytes(damage(whole) + b"more\xff\n")
    two = Remembered(tmp_path, "two")
    assert two.key(photo, read)[0] == image_key(read(photo))
    assert two.read == 1


def test_old_sessions_are_joined_and_nothing_is_forgotten(tmp_path, photo):
    key, _ = Remembered(tmp_path, "one").key(photo, read)
    other = tmp_path / "other.bin"
    other.write_bytes(b"\x09" * 12)
    os.utime(other, (time.time() - 60,) * 2)
    Remembered(tmp_path, "two").key(other, read)
    assert join_remembered(tmp_path, "s") == 0  # both are of today
    for file in (tmp_path / "remembered").iterdir():
        os.utime(file, (1000, 1000))
    assert join_remembered(tmp_path, "s") == 2
    assert len(list((tmp_path / "remembered").iterdir())) == 1
    three = Remembered(tmp_path, "three")
    assert three.key(photo, never) == (key, None)
    assert three.key(other, never)[1] is None
