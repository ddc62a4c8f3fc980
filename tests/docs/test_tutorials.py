"""What the pages show is what their commands print. docs/make_tutorials.py runs whole pages; here, what is quick."""

from __future__ import annotations

from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


def page(folder: Path, text: str) -> Path:
    path = folder / "page.md"
    path.write_text(text, "utf-8")
    return path


def test_every_page_that_shows_something_is_listed(tutorials):
    shows = {str(p.relative_to(DOCS)) for p in DOCS.rglob("*.md") if "```console\n" in p.read_text("utf-8")}
    assert shows <= set(tutorials.PAGES)


@pytest.mark.parametrize(
    "name", ["index.md", "how-to-read-a-diagnosis.md", "frozen-features.md", "tutorials/refine.md"]
)
def test_a_page_shows_what_its_commands_print(tutorials, name):
    assert tutorials.check(DOCS / name, quick=True) == ""


def test_a_page_that_shows_something_else_is_told_and_can_be_written(tutorials, tmp_path):
    path = page(
        tmp_path,
        "# A\n\n```console\n$ echo one\ntwo\n$ echo three\nthree\n```\n\n```python\nprint(1)\n```\n\n```text\n2\n```\n",
    )
    told = tutorials.check(path)
    assert "-two\n+one" in told
    assert "-2\n+1" in told
    assert tutorials.check(path, write=True) == told
    assert tutorials.check(path) == ""
    assert "$ echo one\none\n$ echo three\nthree\n```" in path.read_text("utf-8")


def test_a_command_that_fails_is_told(tutorials, tmp_path):
    with pytest.raises(tutorials.Differs, match=r"(?s)\$ ls nowhere\nended with 2:.*nowhere"):
        tutorials.check(page(tmp_path, "```console\n$ ls nowhere\n```\n"))


def test_python_that_fails_is_told(tutorials, tmp_path):
    with pytest.raises(tutorials.Differs, match=r"(?s)ended with 1:.*ZeroDivisionError"):
        tutorials.check(page(tmp_path, "```python\n1 / 0\n```\n"))


def test_python_that_prints_without_a_place_for_it_is_told(tutorials, tmp_path):
    with pytest.raises(tutorials.Differs, match="no text block stands behind it"):
        tutorials.check(page(tmp_path, "```python\nprint(1)\n```\n\nwords\n"))


def test_blocks_of_python_follow_each_other_and_see_the_files_of_commands(tutorials, tmp_path):
    console = "```console\n$ echo 4 > n\n```\n"
    python = "```python\nn = int(open('n').read())\n```\n```python\nprint(n + 1)\n```\n```text\n5\n```\n"
    assert tutorials.check(page(tmp_path, console + python)) == ""


def test_quick_stops_before_a_training(tutorials, tmp_path):
    text = "```console\n$ echo 1\n1\n```\n```console\n$ boresight train point --no\nsomething else\n```\n"
    assert tutorials.check(page(tmp_path, text), quick=True) == ""


@pytest.mark.parametrize(
    ("shown", "printed", "alike"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a\nb\n", "a\nc\n", False),
        ("a\n", "a\nb\n", False),
        ("...\nb\n", "x\ny\nb\n", True),
        ("a\n...\n", "a\n", True),
        ("a\n...\n", "b\n", False),
        ("done in 3.2 s\n", "done in 14 s\n", True),
        ("F1 0.912\n", "F1 0.913\n", False),
        ("out/a.json\n", "/work/place/out/a.json\n", True),
        ("", "", True),
        ("", "a\n", False),
    ],
)
def test_what_may_differ(tutorials, shown, printed, alike):
    assert tutorials.same(shown, printed, Path("/work/place")) is alike


def test_a_command_may_go_on_over_lines(tutorials):
    (step,) = tutorials.commands("$ echo a \\\n    b\na b\n")
    assert step == tutorials.Step("echo a \\\n    b", "a b\n")
