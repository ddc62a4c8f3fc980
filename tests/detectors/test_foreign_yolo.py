"""The adapter of Ultralytics, whose cases stand in ``yolo_cases.py``."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).with_name("yolo_cases.py")


@pytest.mark.skipif(importlib.util.find_spec("ultralytics") is None, reason="no Ultralytics: pip install ultralytics")
def test_the_cases_hold(tmp_path):
    """In a process of their own, because importing Ultralytics changes how PIL opens files and torch saves them."""
    command = [sys.executable, "-m", "pytest", str(CASES), "-p", "no:cacheprovider", "--tb=short"]
    quiet = {"YOLO_CONFIG_DIR": str(tmp_path), "YOLO_OFFLINE": "true"}
    done = subprocess.run(command, cwd=CASES.parents[2], env={**os.environ, **quiet}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 20, done.stdout
