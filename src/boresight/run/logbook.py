"""The tables of a run while it trains: ``metrics.parquet``, a row a step, and ``targets.parquet``, a row an epoch and
class.

Numbers wait on the device until they are asked for, because every reading waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from boresight.core.errors import Failure
from boresight.core.types import DenseTargets
from boresight.run.record import RunFolder, write_parquet
from boresight.run.tables import read_metrics, read_targets
from boresight.run.watch import Watch

FLUSH_EVERY = 20
"""Steps between readings of losses from the device: each reading waits for it."""

COUNTS = ("positives", "objects", "positive_mass")
"""Columns of the metrics that are added up over the parts of a batch; the others are averaged."""


class LoopState:
    """What the loop itself must remember beside weights and optimiser; saved with them.

    Attributes:
        step: optimiser steps done.
        seconds: time spent on them, over all continuations.
        cpu_seconds: processor time of the first process, from making the detector on, over all continuations.
        best, best_step: the best judgement and when it was; -inf and -1 before the first.
        tally: ``[3, classes]`` long, of the epoch so far: positives, objects, objects with none.
    """

    def __init__(self, classes: int) -> None:
        self.step = 0
        self.seconds = 0.0
        self.cpu_seconds = 0.0
        self.best = -math.inf
        self.best_step = -1
        self.tally = torch.zeros(3, classes, dtype=torch.long)

    def state_dict(self) -> dict[str, Any]:
        """Everything, by name."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` gave. Raises TypeError or ValueError for anything else."""
        own = vars(self)
        for name, value in own.items():
            if type(state[name]) is not type(value) and not (name == "best" and isinstance(state[name], (int, float))):
                raise TypeError(f"`{name}` is a {type(state[name]).__name__}")
        if state["tally"].shape != self.tally.shape or state["tally"].dtype != self.tally.dtype:
            raise ValueError(f"`tally` is {list(state['tally'].shape)}, not {list(self.tally.shape)}")
        own.update({name: state[name] for name in own})


class Logbook:
    """The rows of a run, of all its processes together.

    With several processes all of them call every method, in the same order; the first one writes.

    Args:
        run: where the tables lie.
        accelerator: joins the numbers of the processes, and hands every row to the trackers that it has.
        state: whose tally is kept.
        classes: names, in the order of the labels.
        watch: is shown every row as it is read; None: nobody is.

    Attributes:
        rows: of the metrics, plain numbers, those that were read from the device.
        target_rows: of the targets, of the epochs that are closed.
    """

    def __init__(
        self,
        run: RunFolder,
        accelerator: Accelerator,
        state: LoopState,
        classes: Sequence[str],
        watch: Watch | None = None,
    ) -> None:
        self.run, self.accelerator, self.state, self.classes, self.watch = run, accelerator, state, classes, watch
        self.rows: list[dict[str, Any]] = []
        self.target_rows: list[dict[str, Any]] = []
        self.pending: list[dict[str, Any]] = []

    def resume(self, epoch: int) -> None:
        """Take up the rows that lead to the state, which stands in ``epoch``; later ones will be made again."""
        if not self.accelerator.is_main_process:
            self.state.tally.zero_()  # the state holds the sum over all processes
        self.rows = [row for row in read_metrics(self.run.metrics) if row.get("step", 0) <= self.state.step]
        self.target_rows = [row for row in read_targets(self.run.targets) if row.get("epoch", 0) < epoch]
        if self.watch is not None:
            self.watch.resume(self.rows, self.target_rows)

    def add(self, known: dict[str, Any], parts: Sequence[dict[str, Tensor]], after: dict[str, Any]) -> None:
        """A step's row, pending: what was known before it, the numbers of its forward passes, what came after."""
        joined = {name: _joined(name, torch.stack([part[name] for part in parts])) for name in parts[0]}
        self.pending.append(known | joined | after)

    def count(self, targets: DenseTargets) -> None:
        """Add up the epoch's positives and objects, class by class, on the device."""
        tally = self.state.tally = self.state.tally.to(targets.positive.device)
        each = targets.positives_per_object()  # by object: a refiner's targets have one channel for all classes
        tally[0].index_add_(0, targets.labels, each)  # bincount would wait for the device
        tally[1].index_add_(0, targets.labels, targets.counted.long())
        tally[2].index_add_(0, targets.labels, (targets.counted & (each == 0)).long())

    def close_epoch(self, epoch: int) -> None:
        """Turn the tally into the epoch's rows and start it anew."""
        before = len(self.target_rows)
        for name, (positives, objects, without) in zip(self.classes, self._total().T.tolist(), strict=True):
            self.target_rows.append(
                {
                    "epoch": epoch,
                    "class": name,
                    "positives": positives,
                    "objects": objects,
                    "positives_per_object": positives / objects if objects else None,
                    "objects_with_none": without,
                }
            )
        self.state.tally.zero_()
        if self.watch is not None:
            self.watch.epoch(self.target_rows[before:])

    def flush(self) -> None:
        """Read the pending numbers from the device.

        Raises:
            Failure: a loss is not finite; names the step and the term. Its rows are not kept.
        """
        rows = self._read()
        for row in rows:
            row["loss"] = sum(v for k, v in row.items() if k.startswith("loss_"))
        if self.watch is not None:  # also of the row that ends the run
            self.watch.steps(rows)
        for row in rows:
            bad = [k for k, v in row.items() if k.startswith("loss_") and not math.isfinite(v)]
            if bad:
                raise Failure(
                    f"step {row['step']}: {bad[0]} is {row[bad[0]]} (gradient norm {row['gradient_norm']:.3g}); "
                    "lower train.learning_rate, set train.clip, or train with train.precision=no; "
                    f"the last whole state is in {self.run.checkpoints}"
                )
            self.accelerator.log(row, step=row["step"])
        self.rows += rows

    def amend(self, numbers: dict[str, Any]) -> None:
        """Add columns to the last row that was read (none is: nothing)."""
        if self.rows:
            self.rows[-1] |= numbers
            if self.watch is not None:
                self.watch.judged(self.rows[-1])

    def recent_loss(self) -> float:
        """Mean loss of the last rows that were read; 0 when there is none."""
        recent = self.rows[-FLUSH_EVERY:]
        return float(sum(row["loss"] for row in recent) / max(1, len(recent)))

    def write(self) -> None:
        """Write both tables, and gather the tally of all processes in the first one, whose state is saved."""
        tally = self._total()
        main = self.accelerator.is_main_process
        self.state.tally = tally if main else torch.zeros_like(tally)
        if main:
            write_parquet(self.run.metrics, self.rows)
            write_parquet(self.run.targets, self.target_rows)

    def _total(self) -> Tensor:
        total: Tensor = self.accelerator.reduce(self.state.tally.to(self.accelerator.device), "sum")
        return total

    def _read(self) -> list[dict[str, Any]]:
        """The pending rows with plain numbers, of the whole batch of all processes."""
        rows = list(self.pending)
        self.pending.clear()
        if not rows:
            return rows
        names = [k for k, v in rows[0].items() if isinstance(v, Tensor)]
        table = self.accelerator.reduce(torch.stack([torch.stack([row[k] for k in names]) for row in rows]), "sum")
        world = torch.tensor([1 if k in COUNTS else self.accelerator.num_processes for k in names], device=table.device)
        return [row | dict(zip(names, v, strict=True)) for row, v in zip(rows, (table / world).tolist(), strict=True)]


def target_numbers(targets: DenseTargets) -> dict[str, Tensor]:
    """Columns of the metrics that say what was asked of the detector, on the device: scalars of the finest level."""
    positives = targets.positive.sum().float()
    return {
        "positives": positives,
        "objects": targets.counted.sum().float(),
        "positive_rate": positives / targets.positive.numel(),
        "positive_mass": targets.score.sum(),
    }


def _joined(name: str, parts: Tensor) -> Tensor:
    """A column's value for a step from those of its forward passes."""
    return parts.sum() if name in COUNTS else parts.mean()
