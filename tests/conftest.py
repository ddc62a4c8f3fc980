"""What all tests share: the folder of real data, one thread, the same drawn examples in every run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# One thread, because sums in several threads differ in their last digits. The variable reaches the processes that tests
# start, and torch when it is imported later than this file.
os.environ["OMP_NUM_THREADS"] = "1"

# A red test is then a change in the code, never the luck of the draw; and no example is timed.
settings.register_profile("boresight", deadline=None, derandomize=True, database=None)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile("boresight")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Hold torch to one thread, even if something imported it before the variable above was set."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets: BORESIGHT_DATA, else ``../shared/data`` beside the repository."""
    folder = Path(os.environ.get("BORESIGHT_DATA") or ROOT.parent / "shared" / "data").expanduser().resolve()
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not a folder (set BORESIGHT_DATA)")
    return folder
