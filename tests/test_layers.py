"""Imports run downhill: the floors of the house, read from the source of every module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"

FLOORS = (
    {"core"},
    {"data", "features", "heads", "targets", "losses", "decode", "evaluate"},
    {"diagnose", "detectors"},
    {"run"},
    {"report"},
    {"cli_data", "cli_cache", "cli_diagnose", "cli_export", "cli_predict"},
    {"cli"},
    {"__main__"},  # python -m boresight: a door to the command line
)
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
LOOP = {f"boresight.run.{part}" for part in ("train", "engine", "logbook", "optimise", "signals")}
LOFT = len(FLOORS)  # boresight/__init__.py itself: above all, so that nothing is forbidden to it here
NAMELESS = {"util", "utils", "misc", "helper", "helpers", "common"}


def imported(source: str, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Yield ``(line, full dotted name)`` of everything that ``source`` imports, wherever in the text and however."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = [*start, *([node.module] if node.module else [])]
            for alias in node.names:
                yield node.lineno, ".".join([*base, alias.name])
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and node.args and isinstance(node.args[0], ast.Constant):
                yield node.lineno, str(node.args[0].value)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "boresight":
            yield node.lineno, f"boresight.{node.attr}"


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """Return one line for every import in ``source``, the text of ``module``, that does not run downhill."""
    _, room, *_ = (*module.split("."), "", "")
    if room and room not in FLOOR:
        return [f"{module}: the room `{room}` stands on no floor"]
    found = []
    for line, name in imported(source, module, is_package):
        root, other, *rest = (*name.split("."), "")
        if root != "boresight" or other not in FLOOR:
            continue
        if other != room and FLOOR[other] >= FLOOR.get(room, LOFT):
            found.append(f"{module}:{line} imports {name}, which is not below `{room}`")
        elif module in LOOP and (other in ("losses", "heads") or (other == "detectors" and rest[0] != "detector")):
            found.append(f"{module}:{line} imports {name}: the loop knows the contract only")
    return found


def modules() -> list[tuple[str, Path]]:
    """Every module of the package as ``(dotted name, file)``."""
    files = sorted((SOURCE / "boresight").rglob("*.py"))
    names = [file.relative_to(SOURCE).with_suffix("").parts for file in files]
    return [(".".join(n[:-1] if n[-1] == "__init__" else n), file) for n, file in zip(names, files, strict=True)]


def test_imports_run_downhill():
    found = [
        line
        for module, file in modules()
        for line in violations(file.read_text("utf-8"), module, is_package=file.name == "__init__.py")
    ]
    assert found == []


def test_every_function_has_a_room_with_a_name():
    assert [module for module, _ in modules() if NAMELESS & set(module.split("."))] == []


def test_the_walk_sees_the_house():
    """The tests above would pass on an empty list."""
    names = {module for module, _ in modules()}
    assert {"boresight", "boresight.core", "boresight.core.types", "boresight.core.grid"} <= names
    assert names >= LOOP
    assert set(FLOORS[1]) <= {name.split(".")[1] for name in names if "." in name}


# --- the test of the test --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "source"),
    [
        # from above
        ("boresight.core.types", "from boresight.data import points"),
        ("boresight.core.types", "import boresight.cli"),
        ("boresight.heads.point", "from boresight.detectors.detector import Detector"),
        ("boresight.evaluate.points", "import boresight.run.record as record"),
        ("boresight.run.train", "from boresight.report.html import page"),
        ("boresight.report.html", "from boresight.cli import main"),
        ("boresight.report.html", "from boresight import cli"),
        ("boresight.cli", "from boresight import __main__"),
        # from the same floor
        ("boresight.targets.gaussian", "from boresight.losses.regression import l1"),
        ("boresight.decode.peaks", "import boresight.evaluate"),
        ("boresight.diagnose.health", "from boresight.detectors import detector"),
        ("boresight.detectors.foreign", "from boresight.diagnose.verdict import Verdict"),
        # relative
        ("boresight.targets.gaussian", "from ..losses import regression"),
        ("boresight.targets.gaussian", "from .. import losses"),
        ("boresight.core.types", "from ..data.points import read"),
        # wherever it stands
        ("boresight.losses.focal", "def f():\n    from boresight.heads import point\n"),
        ("boresight.core.grid", "if TYPE_CHECKING:\n    from boresight.run.config import Config\n"),
        ("boresight.core.grid", "try:\n    import boresight.features.cache\nexcept ImportError:\n    raise\n"),
        ("boresight.data.coco", "class A:\n    def f(self):\n        import os, boresight.detectors.text_query\n"),
        # in disguise
        ("boresight.core.grid", "importlib.import_module('boresight.data.coco')"),
        ("boresight.core.grid", "import_module('boresight.run')"),
        ("boresight.core.grid", "__import__('boresight.run')"),
        ("boresight.core.grid", "import boresight\n\nboresight.run.train.fit()\n"),
        ("boresight.core.grid", "from boresight.run import *"),
        # the loop
        ("boresight.run.train", "from boresight.detectors.gaussian_point import build"),
        ("boresight.run.train", "from boresight.detectors import gaussian_point"),
        ("boresight.run.train", "from boresight.detectors import detector, gaussian_point"),
        ("boresight.run.train", "from ..detectors import *"),
        ("boresight.run.train", "import boresight.detectors"),
        ("boresight.run.train", "from boresight.detectors.detectors_of_others import X"),
        ("boresight.run.train", "def f():\n    from boresight.losses.classification import focal\n"),
        ("boresight.run.train", "from boresight.heads import point"),
        ("boresight.run.logbook", "from boresight.detectors.gaussian_point import GaussianPoint"),
        ("boresight.run.optimise", "from boresight.losses import focal"),
        # a room that the design does not know
        ("boresight.tools.shell", ""),
    ],
)
def test_a_planted_violation_is_caught(module, source):
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize("module", ["boresight.targets", "boresight.core"])
def test_in_a_package_one_dot_is_the_package_itself(module):
    assert violations("from .losses import x", module, is_package=True) == []
    assert len(violations("from ..losses import x", module, is_package=True)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "boresight.core.types",
            "from boresight.core import grid\nfrom .errors import UserError\nfrom . import grid\n",
        ),
        ("boresight.core.types", "import torch\nfrom data import heads\nimport losses.run\nimport boresight_cli\n"),
        ("boresight.losses.focal", "from boresight.core.types import DenseOutput\nfrom .reduce import mean\n"),
        ("boresight.detectors.point", "from boresight.losses import focal\nfrom ..heads.point import PointHead\n"),
        ("boresight.diagnose.health", "from boresight.evaluate.match import match\nfrom boresight.core import grid\n"),
        (
            "boresight.run.train",
            "from boresight.detectors.detector import Detector\nfrom boresight.run import record\n",
        ),
        ("boresight.run.train", "from boresight.detectors import detector\nfrom boresight.data import points\n"),
        (
            "boresight.run.recipes",
            "from boresight.detectors import gaussian_point\nfrom boresight.losses import focal\n",
        ),
        ("boresight.report.html", "from boresight.run.record import read\nfrom boresight.report import figures\n"),
        ("boresight.cli", "def f():\n    from boresight.report import html\n    from boresight import __version__\n"),
        ("boresight.__main__", "from boresight.cli import main"),
        ("boresight", "from boresight.core.types import Points\n"),
        ("boresight.core.grid", "text = 'from boresight.run import train'  # import boresight.cli\n"),
    ],
)
def test_what_is_allowed_is_not_reported(module, source):
    assert violations(source, module) == []
