"""Text, JSON and YAML of others: read, or refused in one line and in bounded time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from boresight.core.errors import UserError
from boresight.core.files import disguised, read_json, read_json_object, read_text, read_yaml


def written(folder: Path, content: str | bytes, name: str = "file") -> Path:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def refused(read, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        read()
    line = str(caught.value)
    assert "\n" not in line
    assert all(word in line for word in words), line


# --- text ------------------------------------------------------------------------------------------------------------


def test_text_is_read_without_its_mark_and_with_one_kind_of_line_end(tmp_path):
    assert read_text(written(tmp_path, b"\xef\xbb\xbfa\r\nb\rc\n"), "text") == "a\nb\nc\n"


def test_what_is_no_file_is_refused_unread(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    refused(lambda: read_text(tmp_path / "pipe", "a list"), "pipe: cannot be read (it is no regular file): give a list")
    refused(lambda: read_text(tmp_path, "a list"), "no regular file")
    refused(lambda: read_text(tmp_path / "none", "a list"), "none: cannot be read")
    refused(lambda: read_text(tmp_path / "a\0b", "a list"), "cannot be read")


def test_a_file_that_is_too_large_is_refused_unread(tmp_path):
    file = tmp_path / "large"
    with file.open("wb") as out:
        out.truncate(2**40)  # sparse: takes no room
    refused(lambda: read_text(file, "labels"), "large: has 1099511627776 bytes", "give labels in parts")


def test_a_link_to_another_kind_of_file_is_refused(tmp_path):
    secret = written(tmp_path, "key", "id_rsa")
    (tmp_path / "labels.txt").symlink_to(secret)
    assert disguised(tmp_path / "labels.txt") == secret
    refused(lambda: read_text(tmp_path / "labels.txt", "labels"), "labels.txt: is a link to", "id_rsa")


def test_an_honest_link_is_followed(tmp_path):
    (tmp_path / "a.txt").symlink_to(written(tmp_path, "1", "b.txt"))
    stored = written(tmp_path, "2", "0123456789abcdef0123456789abcdef")
    (tmp_path / "c.txt").symlink_to(stored)
    assert (read_text(tmp_path / "a.txt", "x"), read_text(tmp_path / "c.txt", "x")) == ("1", "2")
    (tmp_path / "d.jpg").symlink_to(tmp_path / "e.jpeg")
    assert disguised(tmp_path / "d.jpg", (".jpg", ".jpeg")) is None


# --- JSON ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' twice"),
        ("[" * 100_000 + "]" * 100_000, "not JSON"),
        ("1" * 10_000, "not JSON"),
        ("{", "not JSON"),
        (b"\xff", "UTF-8"),
    ],
)
def test_json_that_cannot_be_used(tmp_path, content, words):
    refused(lambda: read_json(written(tmp_path, content), "results"), words, "give results")


def test_json_that_is_no_object(tmp_path):
    refused(lambda: read_json_object(written(tmp_path, "[]"), "a header"), "is a JSON list, not an object")
    assert read_json_object(written(tmp_path, '{"a": [1e400]}'), "a header") == {"a": [float("inf")]}


# --- YAML ------------------------------------------------------------------------------------------------------------

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 12))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (LAUGHS, "more than 1048576 values"),
        (MERGES, "more than 1048576 values"),
        ("a: &a [*a]", "a part contains itself"),
        ("[" * 5000, "nested too deeply"),
        ("a: " + "1:" * 200_000 + "1", "characters, more than 65536"),
        ("a: 0x" + "f" * 6000, "a whole number has 6002 digits, more than 100"),
        ("a: 2020-13-45", "a value cannot be read"),
        ("a: !!int ''", "a value cannot be read"),
        ("a: !!python/object/apply:os.system ['true']", "line 1, column 4 is not valid YAML"),
        ("a: [1", "is not valid YAML"),
        ("a: 1\n--- \nb: 2\n", "is not valid YAML"),
    ],
)
def test_yaml_that_cannot_be_used(tmp_path, content, words):
    refused(lambda: read_yaml(written(tmp_path, content), "settings"), words)


def test_yaml_keeps_its_references(tmp_path):
    text = "base: &base {a: 1, b: [2]}\nmine: {<<: *base, a: 3}\n"
    assert read_yaml(written(tmp_path, text), "settings") == {"base": {"a": 1, "b": [2]}, "mine": {"a": 3, "b": [2]}}
    assert read_yaml(written(tmp_path, ""), "settings") is None
