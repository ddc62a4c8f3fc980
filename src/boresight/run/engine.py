"""Opens accelerate for a run: devices, processes, precision and trackers, checked before anything is made."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType, ProjectConfiguration

from boresight.core.errors import UserError, did_you_mean
from boresight.run.config import TrainSettings
from boresight.run.processes import joined


def open_accelerator(settings: TrainSettings, root: Path) -> Accelerator:
    """The accelerator of the run at ``root``; sets the number of CPU threads on the way.

    Raises:
        UserError: a tracker is not there, or the batch cannot be shared out evenly.
        Failure: the processes that were started do not find each other.
    """
    check_trackers(settings.trackers)
    keep_freed_memory()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != settings.precision:
        AcceleratorState._reset_state()  # an earlier run in this process, in a notebook say, had another one
    accelerator = Accelerator(
        cpu=joined().device.type == "cpu",
        mixed_precision=settings.precision,
        gradient_accumulation_steps=settings.accumulate,
        log_with=list(settings.trackers) or None,
        project_config=ProjectConfiguration(project_dir=str(root), logging_dir=str(root / "trackers")),
        step_scheduler_with_optimizer=False,
    )
    parts = accelerator.num_processes * settings.accumulate
    if settings.batch % parts:
        raise UserError(
            f"`train.batch` = {settings.batch}: must be a multiple of processes x train.accumulate = {parts}"
        )
    return accelerator


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Of glibc's ``mallopt``, see malloc.h."""


def keep_freed_memory() -> bool:
    """Let the process keep memory that it frees, up to 1 GiB a block, instead of handing it back to the kernel.

    A training step frees and asks for the same large blocks again and again, and every time the kernel clears each page
    of them: a tenth of the CPU time of a step (``benchmarks/memory.py``). True where the C library is glibc.
    """
    try:
        library = ctypes.CDLL("libc.so.6")
        return bool(library.mallopt(_MMAP_THRESHOLD, 2**30)) and bool(library.mallopt(_TRIM_THRESHOLD, 2**31 - 1))
    except (OSError, AttributeError):  # another C library: nothing is lost but time
        return False


def check_trackers(names: Sequence[str]) -> None:
    """UserError for a tracker that is not known or not installed: nothing would be tracked."""
    known, here = [str(t) for t in LoggerType.list()], sorted(str(t) for t in get_available_trackers())
    for name in names:
        if name not in known:
            raise UserError(
                f"`train.trackers` = {name}: not known{did_you_mean(name, known) or '; known: ' + ', '.join(known)}"
            )
        if name not in (*here, "all"):
            raise UserError(f"`train.trackers` = {name}: not installed; install it, or leave it out")
