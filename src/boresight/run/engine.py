"""Opens accelerate for a run: devices, processes, precision and trackers, checked before anything is made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
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
    if settings.threads:
        torch.set_num_threads(settings.threads)
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
