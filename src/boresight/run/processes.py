"""Several processes, one run: started by ``torchrun``, they share the frames and agree on everything else."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast, broadcast_object_list, gather_object

from boresight.core.errors import Failure
from boresight.core.types import Detections
from boresight.detectors.detector import Detector
from boresight.run.detect import detect
from boresight.run.recipe import Frames
from boresight.run.record import RunFolder


def joined() -> PartialState:
    """Join the processes that ``torchrun`` started, if it did.

    Raises Failure when they do not find each other: each would train alone and think that it is the only one. Without a
    GPU accelerate does just that, unless it is told that the CPU is meant.
    """
    wanted = int(os.environ.get("WORLD_SIZE", "1"))
    device = torch.accelerator.current_accelerator(check_available=True)
    state = PartialState(cpu=wanted > 1 and (device is None or device.type == "mps"))
    if state.num_processes != wanted:
        raise Failure(
            f"{wanted} processes were started, but {state.num_processes} found each other; start them with torchrun"
        )
    return state


def fresh_run(base: str | Path, name: str) -> RunFolder:
    """A new run folder (:meth:`RunFolder.fresh`): the first process makes it, all get the same."""
    root = [str(RunFolder.fresh(base, name).root) if joined().is_main_process else ""]
    return RunFolder(broadcast_object_list(root)[0])


def anyone(accelerator: Accelerator, asked: bool) -> bool:
    """Whether any process was asked to stop: all must end after the same step, or some would wait for ever."""
    if accelerator.num_processes == 1:
        return asked
    return bool(accelerator.reduce(torch.tensor(float(asked), device=accelerator.device), "sum") > 0)


def share_buffers(accelerator: Accelerator, module: torch.nn.Module) -> None:
    """Give every process the first one's buffers: statistics of normalisation are each process's own."""
    if accelerator.num_processes > 1:
        for buffer in module.buffers():
            buffer.copy_(broadcast(buffer))


def detect_together(detector: Detector, frames: Frames, accelerator: Accelerator) -> list[Detections]:
    """Detect on all frames; the processes share them and all get all results."""
    rank, world = accelerator.process_index, accelerator.num_processes
    mine = detect(detector, frames, range(rank, len(frames), world))
    if world == 1:
        return mine
    by_rank: dict[int, list[Detections]] = dict(gather_object([(rank, mine)]))
    return [by_rank[i % world][i // world] for i in range(len(frames))]
