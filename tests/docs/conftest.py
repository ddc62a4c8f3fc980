"""The programs of docs/, which are no package, as modules."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


def _program(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _loaded(*names: str) -> Iterator[ModuleType]:
    kept = dict(sys.modules)
    try:
        yield [_program(name) for name in names][-1]
    finally:
        for name in names:
            sys.modules.pop(name, None)
            if name in kept:
                sys.modules[name] = kept[name]


@pytest.fixture(scope="session")
def reference() -> Iterator[ModuleType]:
    """docs/make_reference.py."""
    yield from _loaded("make_reference")


@pytest.fixture(scope="session")
def site() -> Iterator[ModuleType]:
    """docs/make_site.py."""
    yield from _loaded("make_reference", "make_site")


@pytest.fixture(scope="session")
def tutorials() -> Iterator[ModuleType]:
    """docs/make_tutorials.py."""
    yield from _loaded("make_tutorials")
