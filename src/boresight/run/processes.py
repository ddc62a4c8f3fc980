"""Several processes, one run: started by ``torchrun``, they share the frames and agree on everything else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast, broadcast_object_list, gather_object

from boresight.core.errors import Failure
from boresight.core.types import Detections
from boresight.detectors.detector import Detector
from boresight.run.detect import detect
from boresight.run.rank import rank_of
from boresight.run.recipe import Frames
from boresight.run.record import RunFolder

T = TypeVar("T")


def joined() -> PartialState:
    """Join the processes that ``torchrun`` started, if it did.

    Raises Failure when they do not find each other: each would train alone and think that it is the only one. Without a
    GPU accelerate does just that, unless it is told that the CPU is meant.
    """
    wanted = rank_of()[1]
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


def shared(count: int, work: Callable[[range], list[T]]) -> list[T]:
    """What ``work`` makes of the numbers from 0 up to ``count``, in their order.

    Each of the processes that ``torchrun`` started does a part without gaps, and all get everything. One alone does it
    all.
    """
    rank, world = rank_of()
    if world == 1:
        return work(range(count))
    joined()
    mine = work(range(count * rank // world, count * (rank + 1) // world))
    by_rank: dict[int, list[T]] = dict(gather_object([(rank, mine)]))
    return [one for _, part in sorted(by_rank.items()) for one in part]


def detect_together(
    detector: Detector, frames: Frames, count: int | None = None, *, quiet: bool = True
) -> list[Detections]:
    """Detect on all frames, or the first ``count``; processes share them and all get all results."""
    whole = len(frames) if count is None else count
    return shared(whole, lambda indices: detect(detector, frames, indices, quiet=quiet))
