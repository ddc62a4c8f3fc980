"""What the pages name is there: verbs and options of the command line, keys of the settings, names of modules."""

from __future__ import annotations

import importlib
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from boresight.run.parse import flatten
from boresight.run.systems import SETTINGS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    str(page.relative_to(ROOT))
    for page in [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
)
CODE = re.compile(r"^```.*?^```$|`[^`\n]+(?:\n[^`\n]+)?`", re.MULTILINE | re.DOTALL)
MISSPELT = {"train.lernig_rate"}
"""On purpose, as an example of what is told."""
OTHER_WORDS = {"--config", "--print_config", "--help"}
KEYS = {key: system for system, kind in SETTINGS.items() for key in flatten(kind())}
GROUPS = {key.partition(".")[0] for key in KEYS if "." in key}
FILES = {"json", "yaml", "yml", "md", "html", "py", "parquet", "txt", "csv", "png", "safetensors", "onnx", "toml"}


def code_of(text: str) -> list[str]:
    """Code of a page: fences, and what stands between backticks."""
    return [found[0].strip("`") for found in CODE.finditer(text)]


def commands_in(code: str) -> list[list[str]]:
    """The words of every `boresight` command, without what follows a pipe or a comment."""
    found = []
    for line in code.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|;|\|(?![a-z])", line):
            words = part.partition(" #")[0].strip().removeprefix("$ ")
            words = re.sub(r"^torchrun .*-m boresight ", "boresight ", words)
            if words.startswith("boresight ") and re.match(r"boresight [a-z]", words):
                try:
                    found.append(shlex.split(words)[1:])
                except ValueError:  # an apostrophe of prose
                    found.append(words.split()[1:])
    return found


@cache
def _parsers(reference) -> dict:
    from boresight.cli import build_parser

    return reference.verbs(build_parser())


def wrong_in(words: list[str], parsers: dict) -> list[str]:
    """What a command names that is not there."""
    verb = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in parsers), None)
    if verb is None:
        bare = re.split(r"[|/]", words[1])[0] if len(words) > 1 else ""
        verb = f"{words[0]} {bare}"
        if verb not in parsers:
            return [f"no verb `{' '.join(words[:2])}`"]
    options = {o for action in parsers[verb]._actions for o in action.option_strings} | OTHER_WORDS
    named = [re.match(r"\[?(--[\w.-]+)", word) for word in words]
    flags = [match[1].rstrip(".") for match in named if match]
    takes_keys = verb in ("train", "evaluate")
    return [
        f"`boresight {verb}` has no `{flag}`"
        for flag in flags
        if flag not in options and not (takes_keys and (flag[2:] in KEYS or flag in ("--key.sub", "--group.key")))
    ]


def wrong_keys(code: str) -> list[str]:
    """Keys of settings, `group.key` or `--group.key`, that no system has."""
    names = re.findall(r"--([a-z_]+\.[a-z_0-9]+)\b", code)
    if re.fullmatch(r"[a-z_]+\.[a-z_0-9]+(?:[ =:].*)?", code):
        names.append(re.split(r"[ =:]", code)[0])
    return [
        f"no key `{name}`"
        for name in names
        if name.partition(".")[0] in GROUPS and name not in {*KEYS, *MISSPELT} and name.rpartition(".")[2] not in FILES
    ]


def missing_name(path: str) -> bool:
    """Whether ``boresight.a.b`` is neither a module nor something in one."""
    parts = path.split(".")
    for n in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        for name in parts[n:]:
            if name in getattr(found, "__dataclass_fields__", {}):
                return False
            if not hasattr(found, name):
                return True
            found = getattr(found, name)
        return False
    return True


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_keys_of_a_page_exist(page, reference):
    text = (ROOT / page).read_text("utf-8")
    parsers = _parsers(reference)
    wrong = [line for code in code_of(text) for words in commands_in(code) for line in wrong_in(words, parsers)]
    wrong += [line for code in code_of(text) for line in wrong_keys(code)]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES)
def test_python_names_of_a_page_exist(page):
    text = (ROOT / page).read_text("utf-8")
    names = sorted(
        set(re.findall(r"(?<![\w/.-])boresight(?:\.[A-Za-z_]\w*){2,}", text))
    )  # boresight.NAME: of an ONNX file
    assert [name for name in names if missing_name(name)] == []


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("boresight train point --train.steps 5 --config a.yaml", []),
        ("boresight train point --train.step 5", ["`boresight train` has no `--train.step`"]),
        ("boresight data chek DIR", ["no verb `data chek`"]),
        ("boresight cache fill|info DIR", []),
        ("boresight diagnose RUN [--prove] [--fail-on error]", []),
        ("boresight diagnose RUN --proof", ["`boresight diagnose` has no `--proof`"]),
        ("torchrun --nproc_per_node 2 -m boresight train text --clip.siz 3", ["`boresight train` has no `--clip.siz`"]),
    ],
)
def test_a_stale_command_is_told(reference, command, wrong):
    (words,) = commands_in(command)
    assert wrong_in(words, _parsers(reference)) == wrong


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("target.sigma", []),
        ("target.sigmoid", ["no key `target.sigmoid`"]),
        ("--head.levl p1", ["no key `head.levl`"]),
        ("data.yaml", []),
        ("decode.nms 0.5", []),
    ],
)
def test_a_stale_key_is_told(code, wrong):
    assert wrong_keys(code) == wrong


def test_a_stale_name_is_told():
    assert missing_name("boresight.core.grid.pixel_to_hexagon")
    assert missing_name("boresight.core.hexagon")
    assert not missing_name("boresight.core.types.Scene.boxes")
