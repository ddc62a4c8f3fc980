"""The site builds without a warning, opens without a network, and leaves no page out."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def write(folder: Path, **pages: str) -> Path:
    for name, text in pages.items():
        file = folder / (name.replace("__", "/") + ".md")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write(tmp_path / "repo", CHANGELOG="# Changes\n", CONTRIBUTING="[the log](docs/LOG.md)\n")
    return tmp_path / "repo"


def test_the_site_builds_without_a_warning_and_asks_nothing_of_the_network(site, tmp_path):
    for module in ("zensical", "mkdocstrings_handlers"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"no {module} here: pip install -e .[docs]")
    assert site.build(tmp_path) == []
    home = (tmp_path / "site" / "index.html").read_text("utf-8")
    assert "assets/iframe-worker.js" in home
    assert (tmp_path / "site" / "assets" / "iframe-worker.js").is_file()
    core = (tmp_path / "site" / "reference" / "core.html").read_text("utf-8")
    assert 'id="boresight.core.types.Scene"' in core
    assert ":class:`" not in core


def test_links_that_leave_the_pages_lead_to_copies(site, repository, tmp_path):
    write(
        repository / "docs",
        LOG="[changes](../CHANGELOG.md#top) and [a](studies/a.md)",
        studies__a="[s](../../experiments/s.yaml), [log](../LOG.md), [out](https://a.org/x.md), [here](#there)",
    )
    (repository / "experiments").mkdir()
    (repository / "experiments" / "s.yaml").write_text("a: 1\n")
    pages = tmp_path / "pages"
    site.gather(repository / "docs", pages)
    assert (pages / "LOG.md").read_text() == "[changes](repository/CHANGELOG.md#top) and [a](studies/a.md)"
    assert (pages / "studies" / "a.md").read_text() == (
        "[s](../repository/experiments/s.yaml), [log](../LOG.md), [out](https://a.org/x.md), [here](#there)"
    )
    assert (pages / "repository" / "experiments" / "s.yaml").read_text() == "a: 1\n"
    assert (pages / "repository" / "CONTRIBUTING.md").read_text() == "[the log](../LOG.md)\n"


def test_a_link_to_nothing_stays_for_the_build_to_find(site, repository, tmp_path):
    write(repository / "docs", a="[b](../nowhere.md)")
    site.gather(repository / "docs", tmp_path / "pages")
    assert (tmp_path / "pages" / "a.md").read_text() == "[b](../nowhere.md)"


def test_a_notebook_becomes_a_page_with_its_code(site, repository, tmp_path):
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "words"]},
        {"cell_type": "code", "source": ["print(1)"], "outputs": []},
    ]
    (repository / "docs").mkdir()
    (repository / "docs" / "n.ipynb").write_text(json.dumps({"cells": cells}))
    site.gather(repository / "docs", tmp_path / "pages")
    page = (tmp_path / "pages" / "n.md").read_text()
    assert page == "# Title\nwords\n\nThe notebook: [n.ipynb](n.ipynb)\n\n```python\nprint(1)\n```\n"
    assert (tmp_path / "pages" / "n.ipynb").is_file()


def test_missing_unlisted_and_twice_listed_pages_are_told(site, tmp_path):
    write(tmp_path, a="", sub__b="")
    assert site.complaints([{"A": "a.md"}, {"More": [{"B": "sub/b.md"}]}], tmp_path) == []
    assert site.complaints([{"A": "a.md"}, {"C": "c.md"}, "a.md"], tmp_path) == [
        "mkdocs.yml: nav: c.md: no such page",
        "docs/sub/b.md: not in the nav of mkdocs.yml",
        "mkdocs.yml: nav: a.md: named twice",
    ]


@pytest.mark.parametrize(
    ("page", "wrong"),
    [
        ('<script src="https://cdn.org/x.js"></script>', True),
        ('<link rel="stylesheet" href="//fonts.org/css">', True),
        ('<img alt="" src=http://a.org/b.png>', True),
        ('<script src="assets/x.js"></script> <a href="https://a.org">a link may</a>', False),
    ],
)
def test_what_a_page_would_load_from_elsewhere_is_told(site, tmp_path, page, wrong):
    (tmp_path / "a.html").write_text(page)
    assert bool(site.asked_elsewhere(tmp_path)) == wrong
