from __future__ import annotations

import platform
import resource
import subprocess
import sys

import pytest

from boresight.core.errors import UserError
from boresight.run import engine
from boresight.run.config import TrainSettings
from boresight.run.engine import check_trackers, open_accelerator


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_kept():
    """In a fresh process each: 160 MB of large blocks, freed, stay resident with it and leave without it."""
    program = """
import sys
from boresight.run.engine import keep_freed_memory
assert sys.argv[1] == "plain" or keep_freed_memory()
import torch
def resident(): return int(open("/proc/self/statm").read().split()[1])
def blocks(): return [torch.ones(10_000_000) for _ in range(4)]
blocks()
held = blocks()
before = resident()
del held
print(before - resident())
"""
    plain, kept = (
        int(subprocess.run([sys.executable, "-c", program, w], check=True, capture_output=True, text=True).stdout)
        for w in ("plain", "kept")
    )
    if plain * resource.getpagesize() < 100e6:
        pytest.skip(f"this system keeps freed pages by itself (only {plain} pages came back)")
    assert kept < plain / 10, (kept, plain)


def test_without_glibc_nothing_happens(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(engine.ctypes, "CDLL", missing)
    assert engine.keep_freed_memory() is False


def test_a_batch_must_be_a_multiple_of_the_passes(tmp_path):
    with pytest.raises(UserError, match=r"`train\.batch` = 6.*multiple.*= 4"):
        open_accelerator(TrainSettings(batch=6, accumulate=4), tmp_path)
    assert open_accelerator(TrainSettings(batch=8, accumulate=4), tmp_path).gradient_accumulation_steps == 4


def test_trackers_that_are_not_there():
    check_trackers(())
    with pytest.raises(UserError, match=r"`train\.trackers` = wandbb: not known: did you mean `wandb`"):
        check_trackers(["wandbb"])


def test_a_tracker_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(engine, "get_available_trackers", list)
    with pytest.raises(UserError, match=r"`train\.trackers` = wandb: not installed"):
        check_trackers(["wandb"])


def test_runs_of_one_process_may_differ_in_precision(tmp_path):
    seen = [
        open_accelerator(TrainSettings(precision=p, batch=4), tmp_path).mixed_precision for p in ("no", "bf16", "no")
    ]
    assert seen == ["no", "bf16", "no"]
