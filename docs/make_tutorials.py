"""Runs what the pages show, and tells where a page says something else: `python docs/make_tutorials.py [PAGE ...]`.

Of a page are run, in its order and in an empty folder of its own:

- console blocks: lines that begin with `$ ` are commands (a line that ends with a backslash goes on), those after them
  what the command printed on stdout; `...` alone stands for lines left out;
- python blocks, each after those before it; a text block right behind holds what it printed.

Figures that are times, and paths, may differ. `--write` puts what was printed into the pages; `--quick` stops before
the first training of a page. One CPU thread: the digits of a training depend on it, and the last ones on the processor.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

DOCS = Path(__file__).resolve().parent
PAGES = (
    "index.md",
    "tutorials/point.md",
    "tutorials/text.md",
    "tutorials/localise.md",
    "tutorials/refine.md",
    "how-to-read-a-diagnosis.md",
    "bring-your-own-detector.md",
    "frozen-features.md",
)
FENCE = re.compile(r"^```(console|python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TIME = re.compile(r"\b\d+(?:\.\d+)?(?= (?:s|ms|seconds|img/s)\b)")
LONG = re.compile(r"\$ boresight (?:train|quickstart|compare)\b")
MARK = "\x1e"


class Differs(Exception):
    """A page shows something else than what was printed, or a command of it fails."""


@dataclass(frozen=True)
class Block:
    """A block of a page that is run: its kind, its text, and where the text stands in the page."""

    kind: str
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Step:
    """A command or a piece of Python, and what the page says that it prints (None: it says nothing)."""

    run: str
    shown: str | None


def blocks(page: str) -> list[Block]:
    """The blocks of a page in their order."""
    return [Block(found[1], found[2], found.start(2), found.end(2)) for found in FENCE.finditer(page)]


def commands(text: str) -> list[Step]:
    """The commands of a console block, each with what it printed."""
    steps: list[Step] = []
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith("$ "):
            command = [line[2:]]
            while command[-1].endswith("\\"):
                command.append(next(lines))
            steps.append(Step("\n".join(command), ""))
        elif steps:
            steps[-1] = replace(steps[-1], shown=f"{steps[-1].shown}{line}\n")
        else:
            raise Differs(f"a console block begins with `{line}`, which is no command")
    return steps


def comparable(text: str, folder: Path) -> list[str]:
    """The lines of what was printed, without what may differ."""
    text = text.replace(f"{folder}{os.sep}", "").replace(str(folder), ".")
    return [TIME.sub("N", line.rstrip()) for line in text.strip("\n").splitlines()]


def same(shown: str, printed: str, folder: Path) -> bool:
    """Whether the page shows what was printed; `...` alone stands for any lines."""
    rest = comparable(printed, folder)
    parts: list[list[str]] = [[]]
    for line in comparable(shown, folder):
        if line == "...":
            parts.append([])
        else:
            parts[-1].append(line)
    pattern = r"(?:.*\n)*".join("".join(re.escape(line) + r"\n" for line in part) for part in parts)
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in rest)) is not None


def environment() -> dict[str, str]:
    """Of the commands: one thread, no colour, this interpreter's programs first, nothing of the caller's data."""
    scripts = sysconfig.get_path("scripts")
    kept = {k: v for k, v in os.environ.items() if k not in ("BORESIGHT_DATA", "FORCE_COLOR")}
    return kept | {
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "NO_COLOR": "1",
        "COLUMNS": "110",
        "LC_ALL": "C.UTF-8",
    }


def printed_by(command: list[str], folder: Path, what: str) -> str:
    """What a process prints on stdout; Differs where it fails."""
    done = subprocess.run(
        command, cwd=folder, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Differs(f"{what}\nended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def run_command(command: str, folder: Path) -> str:
    """What a line of a console block prints."""
    return printed_by(["bash", "-euo", "pipefail", "-c", command], folder, f"$ {command}")


def run_python(before: list[str], source: str, folder: Path) -> str:
    """What a block of Python prints after the blocks before it."""
    whole = "".join(f"{code}\n" for code in before) + f"print({MARK!r})\n{source}"
    return printed_by([sys.executable, "-c", whole], folder, source).split(f"{MARK}\n", 1)[1]


def walk(page: str, folder: Path, *, quick: bool) -> Iterator[tuple[Block, str]]:
    """Run a page and yield every block that shows something with the text that it should have."""
    ran: list[str] = []
    told: str | None = None
    for block in blocks(page):
        if block.kind == "console":
            lines = []
            for step in commands(block.text):
                if quick and LONG.match(f"$ {step.run}"):
                    return
                printed = run_command(step.run, folder)
                assert step.shown is not None
                kept = step.shown if same(step.shown, printed, folder) else _clean(printed, folder)
                lines.append(f"$ {step.run}\n{kept}")
            yield block, "".join(lines)
        elif block.kind == "python":
            told = run_python(ran, block.text, folder)
            ran.append(block.text)
            if told and not _shows(page, block):
                raise Differs(f"{block.text}\nprints, and no text block stands behind it:\n{told}")
        elif told is not None:
            yield block, block.text if same(block.text, told, folder) else _clean(told, folder)
            told = None


def _clean(printed: str, folder: Path) -> str:
    text = printed.replace(f"{folder}{os.sep}", "").replace(str(folder), ".").strip("\n")
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def _shows(page: str, block: Block) -> bool:
    return page[block.end :].removeprefix("```").lstrip("\n").startswith("```text\n")


def check(path: Path, *, write: bool = False, quick: bool = False) -> str:
    """Run a page. Returns the difference to what was printed, empty where there is none; writes it if ``write``."""
    page = path.read_text("utf-8")
    with tempfile.TemporaryDirectory() as place:
        found = list(walk(page, Path(place).resolve(), quick=quick))
    new = page
    for block, text in reversed(found):
        new = new[: block.start] + text + new[block.end :]
    if new == page:
        return ""
    if write:
        path.write_text(new, "utf-8")
    name = path.name
    return "\n".join(difflib.unified_diff(page.splitlines(), new.splitlines(), name, f"{name}, run", lineterm="", n=1))


def main(arguments: list[str] | None = None) -> int:
    """Run the pages and return the exit status: 1 where one of them shows something else."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pages", nargs="*", default=PAGES, help="below docs/ (default: all that have something to run)")
    parser.add_argument("--write", action="store_true", help="put what was printed into the pages")
    parser.add_argument("--quick", action="store_true", help="stop before the first training of a page")
    args = parser.parse_args(arguments)
    status = 0
    for name in args.pages:
        try:
            difference = check(DOCS / name, write=args.write, quick=args.quick)
        except Differs as error:
            difference = str(error)
        print(f"{name}: {'as shown' if not difference else 'written' if args.write else 'differs'}", flush=True)
        if difference:
            print(difference, flush=True)
            status = 0 if args.write and not difference.startswith("$") else 1
    return status


if __name__ == "__main__":
    raise SystemExit(main())
