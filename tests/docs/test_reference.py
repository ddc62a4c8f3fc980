"""The reference names everything public, and everything public says what it is."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from boresight.run.parse import flatten
from boresight.run.systems import SETTINGS

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "boresight"


def public_without_words(tree: ast.Module) -> Iterator[str]:
    """Public classes, functions and methods of a module without a docstring."""
    scopes: list[tuple[str, ast.Module | ast.ClassDef]] = [("", tree)]
    while scopes:
        prefix, scope = scopes.pop()
        for node in scope.body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            if not ast.get_docstring(node):
                yield f"{prefix}{node.name}"
            if isinstance(node, ast.ClassDef):
                scopes.append((f"{prefix}{node.name}.", node))


def test_every_public_name_of_the_reference_has_a_docstring(reference):
    found = [
        f"{file.relative_to(PACKAGE)}: {name}"
        for folder in reference.FOLDERS
        for file in sorted((PACKAGE / folder).glob("*.py"))
        if not file.stem.startswith("_")
        for name in public_without_words(ast.parse(file.read_text("utf-8")))
    ]
    assert found == []


def test_a_name_without_a_docstring_is_told():
    source = 'class A:\n    "A."\n    def b(self): ...\n    def _c(self): ...\ndef d():\n    "D."\n    def e(): ...\n'
    assert list(public_without_words(ast.parse(source))) == ["A.b"]


def test_every_folder_of_the_package_has_a_page(reference):
    folders = {file.parent.name for file in PACKAGE.glob("*/__init__.py")}
    assert set(reference.FOLDERS) == folders


def test_the_page_of_a_folder_names_its_public_modules(reference):
    page = reference.folder_page("core")
    assert page.startswith("# boresight.core { #boresight.core }\n\nWhat everything else stands on")
    assert "\n::: boresight.core.grid\n" in page
    assert "__init__" not in page


def test_every_verb_and_option_has_its_line(reference):
    page = reference.command_line_page()
    for words, parser in reference.verbs(reference.build_parser()).items():
        part = page.split(f"## boresight {words}\n", 1)[1].split("\n## ", 1)[0]
        for action in parser._actions:
            for option in action.option_strings:
                assert option in ("-h", "--help", "--json", "--quiet") or f"`{option}`" in part


@pytest.mark.parametrize("system", SETTINGS)
def test_every_key_has_its_line(reference, system):
    page = reference.settings_page()
    missing = [key for key in flatten(SETTINGS[system]()) if "." in key and f"| `{key}` | " not in page]
    assert missing == []


def test_a_key_without_a_line_in_its_docstring_is_told(reference):
    @dataclasses.dataclass(frozen=True)
    class Group:
        """Which.

        Attributes:
            a: one thing,
                over two lines.
        """

        a: int = 1
        b: int = 2

    with pytest.raises(KeyError, match="Group: no line in its docstring for b"):
        reference.meanings(Group)


def test_keys_of_a_group_that_extends_another_have_the_lines_of_both(reference):
    meaning = reference.meanings(SETTINGS["text"]().train.__class__)
    assert meaning["steps"] == "optimiser steps."
    assert meaning["seed"] == "of weights, order and views."
