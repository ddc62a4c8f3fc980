"""Writes the reference: a page for each folder of the package, every verb and option, every key of the settings.

All of it comes from docstrings, from the argument parser and from the settings' dataclasses; nothing is kept by hand.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import json
import re
from pathlib import Path
from typing import Any

import boresight
from boresight.cli import build_parser
from boresight.run.parse import flatten
from boresight.run.systems import SETTINGS

PACKAGE = Path(boresight.__file__).parent
FOLDERS = (
    "core",
    "data",
    "features",
    "heads",
    "targets",
    "losses",
    "decode",
    "evaluate",
    "diagnose",
    "detectors",
    "run",
    "report",
)
SYSTEMS = {
    "point": "dim points",
    "text": "boxes for text queries",
    "localise": "localisation alone",
    "refine": "tighter boxes",
}


def write_reference(folder: Path) -> None:
    """Write every page of the reference into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FOLDERS:
        (folder / f"{name}.md").write_text(folder_page(name), "utf-8")
    (folder / "command_line.md").write_text(command_line_page(), "utf-8")
    (folder / "settings.md").write_text(settings_page(), "utf-8")


def folder_page(name: str) -> str:
    """The modules of a folder with their docstrings, for mkdocstrings; names with an underscore are left out."""
    first = ast.get_docstring(ast.parse((PACKAGE / name / "__init__.py").read_text("utf-8"))) or ""
    modules = sorted(file.stem for file in (PACKAGE / name).glob("*.py") if not file.stem.startswith("_"))
    return f"# boresight.{name} {{ #boresight.{name} }}\n\n{first}\n\n" + "\n".join(
        f"::: boresight.{name}.{module}\n" for module in modules
    )


def verbs(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> dict[str, argparse.ArgumentParser]:
    """The parser of every verb by its words, ``"data check"`` say."""
    inner = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not inner:
        return {" ".join(words): parser}
    found: dict[str, argparse.ArgumentParser] = {}
    for name, sub in inner[0].choices.items():
        found |= verbs(sub, (*words, name))
    return found


def command_line_page() -> str:
    """Every verb with its options, as the parser knows them."""
    parts = [
        "# Command line",
        "`--json` ends any verb with one JSON object on the last line of stdout; `--quiet` shows no progress, which "
        "else goes to stderr. Exit status: 0 success, 2 a mistake in what was given (one line names it and the "
        "remedy), 1 a failure, 130 stopped by Ctrl-C. `train` and `evaluate` also take every key of the "
        "[settings](settings.md) as `--group.key VALUE`.",
    ]
    for words, parser in verbs(build_parser()).items():
        text = (parser.description or parser.format_help().partition("\n\n")[2].partition("\n")[0]).strip()
        rows = [row for action in parser._actions if (row := _option(action))]
        parts += [f"## boresight {words}", _sentence(text), "| argument | |\n|---|---|\n" + "\n".join(rows)]
        if parser.epilog:
            parts.append(_sentence(parser.epilog))
    return "\n\n".join(parts) + "\n"


def _sentence(text: str) -> str:
    return _cell(text[:1].upper() + text[1:]).rstrip(".") + "."


def _option(action: argparse.Action) -> str:
    if action.dest in ("help", "json", "quiet"):
        return ""
    name = ", ".join(action.option_strings) or (action.metavar or action.dest)
    values = ""
    if action.option_strings and action.nargs != 0:
        choices = "\\|".join(map(str, action.choices or ()))
        values = f" {choices or action.metavar or action.dest.upper()}{' ...' if action.nargs == '+' else ''}"
    elif action.choices:
        values = f": {', '.join(map(str, action.choices))}"
    text = (action.help or "").replace("%(default)s", str(action.default))
    required = "required; " if action.option_strings and action.required else ""
    return f"| `{name}`{values} | {required}{_cell(text)} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def settings_page() -> str:
    """Every key of every system with its default and what its docstring says of it."""
    parts = [
        "# Settings",
        "Every key can be given on the command line (`--train.steps 500`) or in a file (`--config mine.yaml`); later "
        "ones override earlier ones. `boresight train point --print_config` prints all of them as a file. A key that "
        "nothing reads is an error that names its neighbour. `--recipe baseline` of `text`, `localise` and `refine` "
        "sets the reference rule, over which single keys can be given.",
    ]
    told: set[tuple[str, str, str]] = set()
    for system, kind in SETTINGS.items():
        parts.append(f"## {system}: {SYSTEMS[system]}")
        for group in dataclasses.fields(kind):
            default = group.default_factory
            if not dataclasses.is_dataclass(default):
                continue
            rows = key_rows(group.name, default)
            parts.append(f"### {system}: {group.name}")
            if (group.name, default.__name__, "\n".join(rows)) in told:
                parts.append(f"As of `{_first_with(default, group.name)}`.")
                continue
            told.add((group.name, default.__name__, "\n".join(rows)))
            parts += [_summary(default), "| key | default | |\n|---|---|---|\n" + "\n".join(rows)]
    return "\n\n".join(parts) + "\n"


def _first_with(default: Any, group: str) -> str:
    return next(
        s for s, k in SETTINGS.items() for f in dataclasses.fields(k) if (f.name, f.default_factory) == (group, default)
    )


def _summary(kind: Any) -> str:
    first = (inspect.getdoc(kind) or "").partition("\n")[0]
    return first if not first.startswith("See ") else ""


def key_rows(group: str, kind: Any) -> list[str]:
    """A row of the table for each key of a settings group: name, default, what it does."""
    meaning = meanings(kind)
    return [
        f"| `{key}` | `{json.dumps(value)}` | {_cell(meaning[key.partition('.')[2]])} |"
        for key, value in flatten(kind(), f"{group}.").items()
    ]


def meanings(kind: Any) -> dict[str, str]:
    """What the docstrings of a settings dataclass, and of those that it extends, say of each key.

    Raises KeyError where a key has no line.
    """
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        section = (inspect.getdoc(base) or "").partition("Attributes:\n")[2]
        for entry in re.split(r"\n(?=    \w)", "\n" + section)[1:]:
            name, _, text = entry.strip().partition(": ")
            found[name] = " ".join(text.split())
    missing = [f.name for f in dataclasses.fields(kind) if f.name not in found]
    if missing:
        raise KeyError(f"{kind.__name__}: no line in its docstring for {', '.join(missing)}")
    return found


if __name__ == "__main__":
    command = argparse.ArgumentParser(description="Write the pages of the reference.")
    command.add_argument("folder", type=Path)
    write_reference(command.parse_args().folder)
