"""Builds the site of the documentation, every warning being an error: `python docs/make_site.py` (or `make docs`).

The pages of docs/ and the files of the repository that they link to are gathered in build/docs/pages, the reference and
the notebooks are written beside them, and zensical makes build/docs/site of it, which opens from a disk without a
network. Another folder may be given in place of build/docs.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import yaml
from make_reference import write_reference

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
REPOSITORY = "repository"
KEPT = {".md", ".png", ".svg", ".css", ".js", ".py", ".ipynb"}
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)(?=[)#])")
ELSEWHERE = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*(?:src|href)=["']?(?:https?:)?//[^"'\s>]+""")


def gather(docs: Path, pages: Path) -> None:
    """Copy what is read into ``pages``, made anew; what pages link to outside of ``docs`` is copied to repository/."""
    if pages.exists():
        shutil.rmtree(pages)
    for file in sorted(docs.rglob("*")):
        if file.suffix in KEPT and ".ipynb_checkpoints" not in file.parts:
            _copy(file, pages / file.relative_to(docs), docs, pages)
    for name in ("CHANGELOG.md", "CONTRIBUTING.md"):
        _copy(docs.parent / name, pages / REPOSITORY / name, docs, pages)


def _copy(file: Path, to: Path, docs: Path, pages: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".ipynb":
        page = notebook_page(json.loads(file.read_text("utf-8")), file.name)
        to.with_suffix(".md").write_text(page, "utf-8")
    if file.suffix != ".md":
        shutil.copyfile(file, to)
        return

    def led(found: re.Match[str]) -> str:
        target = (file.parent / found[1]).resolve()
        if not target.exists():
            return found[1]  # the build tells of it
        if target.is_relative_to(docs):
            copy = pages / target.relative_to(docs)
        elif target.is_relative_to(docs.parent):
            copy = pages / REPOSITORY / target.relative_to(docs.parent)
            if not copy.exists() and target.is_file():
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.touch()  # pages link to each other in circles
                _copy(target, copy, docs, pages)
        else:
            return found[1]
        return Path(*[".."] * len(to.parent.relative_to(pages).parts), copy.relative_to(pages)).as_posix()

    to.write_text(LINK.sub(led, file.read_text("utf-8")), "utf-8")


def notebook_page(notebook: dict[str, Any], name: str) -> str:
    """The cells of a notebook as Markdown, its code in fences, with a link to the file."""
    cells = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        cells.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    title, *rest = cells
    return "\n\n".join([title, f"The notebook: [{name}]({name})", *rest]) + "\n"


def listed(nav: list[Any]) -> list[str]:
    """The pages of a navigation, in its order."""
    pages = []
    for entry in nav:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            pages += [value] if isinstance(value, str) else listed(value)
    return pages


def complaints(nav: list[Any], pages: Path) -> list[str]:
    """Pages that the navigation names and that are not there, pages that it does not name, and those named twice."""
    named = listed(nav)
    there = {page.relative_to(pages).as_posix() for page in pages.rglob("*.md")}
    return [
        *(f"mkdocs.yml: nav: {page}: no such page" for page in named if page not in there),
        *(f"docs/{page}: not in the nav of mkdocs.yml" for page in sorted(there - set(named))),
        *(f"mkdocs.yml: nav: {page}: named twice" for page in sorted({p for p in named if named.count(p) > 1})),
    ]


def asked_elsewhere(site: Path) -> list[str]:
    """What a page of the site would load from another place: nothing may be."""
    return [
        f"{page.relative_to(site)}: {found[0]}"
        for page in sorted(site.rglob("*.html"))
        for found in ELSEWHERE.finditer(page.read_text("utf-8"))
    ]


def configuration(text: str, root: Path) -> dict[str, Any]:
    """mkdocs.yml for another folder than ``root``: what it names of the repository by absolute paths."""
    config: dict[str, Any] = yaml.safe_load(text)
    (plugin,) = (p["mkdocstrings"] for p in config["plugins"] if isinstance(p, dict) and "mkdocstrings" in p)
    handler = plugin["handlers"]["python"]
    handler["paths"] = [str(root / path) for path in handler["paths"]]
    handler["options"]["extensions"] = [str(root / path) for path in handler["options"]["extensions"]]
    return config


def build(folder: Path) -> list[str]:
    """Build ``folder``/site and return what is wrong with it, a line each."""
    pages = folder / "pages"
    gather(DOCS, pages)
    write_reference(pages / "reference")
    config = configuration((ROOT / "mkdocs.yml").read_text("utf-8"), ROOT)
    if wrong := complaints(config["nav"], pages):
        return wrong
    (folder / "mkdocs.yml").write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")
    command = [str(Path(sysconfig.get_path("scripts")) / "zensical"), "build", "--clean", "--strict"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    told = f"{done.stdout}\n{done.stderr}"
    if done.returncode or "No issues found" not in told or "griffe:" in told:
        lines = [line for line in told.splitlines() if line.strip() and not line.startswith("  ")]
        return [*lines, f"zensical ended with {done.returncode}"]
    return asked_elsewhere(folder / "site")


def main() -> int:
    """Build, tell what is wrong, and return the exit status."""
    parser = argparse.ArgumentParser(description="Build the site of the documentation.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "build" / "docs", help="(default: %(default)s)")
    folder = parser.parse_args().folder
    wrong = build(folder.resolve())
    for line in wrong:
        print(line, file=sys.stderr)
    if not wrong:
        print(f"{folder}/site/index.html: {len(list(folder.rglob('site/**/*.html')))} pages")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
