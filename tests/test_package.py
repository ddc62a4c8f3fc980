"""What holds for the project as a whole: light to import, one version everywhere, nothing of a developer's machine."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import boresight

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "boresight"

# The lookbehind keeps "docs/home/page" out: an absolute path starts where no other word ends.
MACHINE_PATH = re.compile(r"(?<![\w.~*-])(?:/(?:home|Users)/\w+|/root/\w+|[A-Z]:\\+Users\\+\w+)")
INDEX_ADDRESS = re.compile(r"(?:https?|file)://\S*/simple\b|--(?:extra-)?index-url[ =]\S|--find-links[ =]\S")
PIN = re.compile(r"[a-z0-9][a-z0-9-]*==[0-9][\w.]*(?: ; [^@#]+)?")


def modules_loaded_by(code: str, *arguments: str) -> set[str]:
    """Top-level names that are not of the standard library and that ``code`` brings into a fresh interpreter."""
    probe = f"""
import json, sys
before = set(sys.modules)
sys.argv[0] = "boresight"
try:
{"".join(f"    {line}{chr(10)}" for line in code.splitlines())}
except SystemExit as stop:
    assert not stop.code, stop.code
loaded = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print("\\n" + json.dumps(sorted(loaded - set(sys.stdlib_module_names))))
"""
    done = subprocess.run(
        [sys.executable, "-c", probe, *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def project_files() -> list[Path]:
    """Every file of the project that git tracks or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        cwd=ROOT,
        check=False,
    )
    if listed.returncode:
        pytest.skip(f"not a git checkout, so the project's files are not known: {listed.stderr.decode().strip()}")
    files = (ROOT / name.decode() for name in listed.stdout.split(b"\0") if name)
    return [file for file in files if file.is_file()]


# --- light to import -------------------------------------------------------------------------------------------------


def test_import_boresight_loads_nothing_else():
    assert modules_loaded_by("import boresight") == {"boresight"}


def test_the_probe_sees_what_is_loaded():
    assert {"boresight", "torch", "numpy"} <= modules_loaded_by("import boresight.core.types")


@pytest.mark.parametrize(
    "code",
    [
        "from boresight.cli import main\nsys.exit(main())",
        "import runpy\nrunpy.run_module('boresight.cli', run_name='__main__')",
        "import runpy\nrunpy.run_module('boresight', run_name='__main__')",
    ],
    ids=["boresight", "python -m boresight.cli", "python -m boresight"],
)
def test_help_does_not_import_torch(code):
    loaded = modules_loaded_by(code, "--help")
    heavy = {"torch", "torchvision", "numpy", "scipy", "matplotlib", "pyarrow", "pandas", "timm", "accelerate"}
    assert loaded & heavy == set()


def test_the_command_is_the_one_that_was_probed():
    (command,) = metadata.entry_points(group="console_scripts", name="boresight")
    assert command.value == "boresight.cli:main"


# --- one version -----------------------------------------------------------------------------------------------------


def test_the_version_is_the_same_everywhere():
    assert metadata.version("boresight") == boresight.__version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["version"] == boresight.__version__
    newest = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == boresight.__version__


def test_its_types_are_shipped():
    assert (Path(boresight.__file__).parent / "py.typed").is_file()  # without it a type checker skips the package


def test_constraints_hold_exact_versions_and_no_addresses():
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#") and not PIN.fullmatch(line)] == []


def test_constraints_pin_every_dependency_to_a_version_that_is_allowed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(text for extra in project["optional-dependencies"].values() for text in extra),
    ]
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    for requirement in map(Requirement, wanted):
        versions = [
            next(iter(pin.specifier)).version for pin in pins if pin.name == canonicalize_name(requirement.name)
        ]
        assert versions, f"{requirement.name} has no line in constraints.txt"
        assert all(requirement.specifier.contains(version) for version in versions), f"{requirement} against {versions}"


# --- words -----------------------------------------------------------------------------------------------------------


def test_every_public_module_says_what_it_is():
    public = [file for file in PACKAGE.rglob("*.py") if file.stem == "__init__" or not file.stem.startswith("_")]
    assert PACKAGE / "core" / "grid.py" in public
    assert [str(f.relative_to(ROOT)) for f in public if not ast.get_docstring(ast.parse(f.read_text("utf-8")))] == []


def test_no_file_names_a_machine_or_a_package_index():
    here = re.compile(r"(?<![\w.~*-])" + re.escape(str(ROOT)) + r"(?![\w-])")
    found = []
    for file in project_files():
        content = file.read_bytes()
        if b"\0" in content:
            continue
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
            if MACHINE_PATH.search(line) or INDEX_ADDRESS.search(line) or here.search(line):
                found.append(f"{file.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    assert found == []


# The planted lines are put together here so that this file itself stays clean.
@pytest.mark.parametrize(
    "line",
    ["data: /" + "home/ada/frames", "C:" + "\\Users\\ada", "'/" + "Users/ada/x'", "(/" + "root/runs)", "/" + "home/a"],
)
def test_a_planted_path_is_caught(line):
    assert MACHINE_PATH.search(line)


@pytest.mark.parametrize(
    "line", ["docs/home/page.md", "see ~/home", "/usr/bin/env bash", "x /home/ y", "https://a.org/root/b"]
)
def test_an_innocent_path_is_not(line):
    assert not MACHINE_PATH.search(line)


@pytest.mark.parametrize(
    "line",
    [
        "https:" + "//mirror.local/simple",
        "--index-" + "url=https://a",
        "--extra-index-" + "url x",
        "file:" + "///a/simple/",
    ],
)
def test_a_planted_index_is_caught(line):
    assert INDEX_ADDRESS.search(line)


@pytest.mark.parametrize(
    "line", ["uv pip compile --no-emit-index-url --no-header", "https://pypi.org/project/boresight"]
)
def test_an_innocent_address_is_not(line):
    assert not INDEX_ADDRESS.search(line)


@pytest.mark.parametrize("line", ["torch==2.15.0", "numpy==2.4.6 ; python_full_version < '3.12'"])
def test_a_pin_is_a_pin(line):
    assert PIN.fullmatch(line)


@pytest.mark.parametrize(
    "line",
    ["torch>=2", "torch", "torch @ https:" + "//a/b.whl", "-e .", "torch==2.1 --hash=sha256:0", "torch==2.*", ""],
)
def test_what_is_not_a_pin_is_caught(line):
    assert not PIN.fullmatch(line)
