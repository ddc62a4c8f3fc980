"""The training loop. It knows the contract, and names no detector and no loss.

A run is a function of its settings: order and views of the frames follow from the seed and the step alone, and a state
is saved whole or not at all. So a run that was stopped anywhere, by Ctrl-C or by kill -9, continues to the digits of a
run that was not (on CPU with the same number of threads; GPUs add in an order of their own).
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType, ProjectConfiguration, set_seed
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from boresight.core.errors import Failure, Stopped, UserError, did_you_mean
from boresight.core.types import DenseTargets, Scene
from boresight.detectors.detector import Detector
from boresight.run.checkpoint import Checkpoint, save_checkpoint
from boresight.run.order import Positions, Views
from boresight.run.parse import flatten, nested
from boresight.run.processes import anyone, detect_together, joined, share_buffers
from boresight.run.progress import Progress
from boresight.run.recipe import Judgement, Recipe, Splits
from boresight.run.record import RunFolder, environment, read_parquet, write_json, write_parquet, write_yaml

FLUSH_EVERY = 20
"""Steps between readings of losses from the device: each reading waits for it."""

COUNTS = ("positives", "objects", "positive_mass")
"""Columns of the metrics that are added up over the parts of a batch; the others are averaged."""

ONE_REQUEST = 1.0
"""Seconds within which signals are one request: a Ctrl-C comes from the terminal and again from a launcher."""


class LoopState:
    """What the loop itself must remember beside weights and optimiser; saved with them."""

    def __init__(self, classes: int) -> None:
        self.step = 0
        self.seconds = 0.0
        self.best = -math.inf
        self.best_step = -1
        self.tally = torch.zeros(3, classes, dtype=torch.long)  # positives, objects, objects with none: this epoch

    def state_dict(self) -> dict[str, Any]:
        """For accelerate."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """For accelerate."""
        vars(self).update(state)


class Trainer:
    """One run, from its settings to its folder.

    Args:
        recipe: the system.
        settings: an instance of ``recipe.settings``.
        run: where everything goes; when it holds a state, the run continues from it.
        quiet: no progress.
    """

    def __init__(self, recipe: Recipe, settings: Any, run: RunFolder, *, quiet: bool = False) -> None:
        self.recipe, self.settings, self.run = recipe, settings, run
        self.t = settings.train
        check_trackers(self.t.trackers)
        if self.t.threads:
            torch.set_num_threads(self.t.threads)
        self.accelerator = Accelerator(
            cpu=joined().device.type == "cpu",
            mixed_precision=self.t.precision,
            gradient_accumulation_steps=self.t.accumulate,
            log_with=list(self.t.trackers) or None,
            project_config=ProjectConfiguration(project_dir=str(run.root), logging_dir=str(run.root / "trackers")),
            step_scheduler_with_optimizer=False,
        )
        self.main = self.accelerator.is_main_process
        self.quiet = quiet or not self.main
        parts = self.accelerator.num_processes * self.t.accumulate
        if self.t.batch % parts:
            raise UserError(
                f"`train.batch` = {self.t.batch}: must be a multiple of processes x train.accumulate = {parts}"
            )
        self._describe()
        self.splits: Splits = recipe.frames(settings)
        set_seed(self.t.seed)
        # channels-last: a training step of the built-in encoder takes 0.65 of the time on a CPU (benchmarks/step.py)
        detector = recipe.build(settings, len(self.splits.classes)).to(memory_format=torch.channels_last)
        decay = self.t.ema
        self.ema = AveragedModel(detector, multi_avg_fn=_ema(decay)) if decay else None
        groups = parameter_groups(detector, self.t.weight_decay)
        optimiser = torch.optim.AdamW(groups, lr=self.t.learning_rate)
        rate = torch.optim.lr_scheduler.LambdaLR(optimiser, self._rate)
        self.model, self.optimiser, self.rate = self.accelerator.prepare(detector, optimiser, rate)
        self.detector: Detector = self.accelerator.unwrap_model(self.model)
        if self.ema is not None:
            self.ema.to(self.accelerator.device)
        self.state = LoopState(len(self.splits.classes))
        for part in (self.state, self.ema):
            if part is not None:
                self.accelerator.register_for_checkpointing(part)
        self.rows: list[dict[str, Any]] = []
        self.target_rows: list[dict[str, Any]] = []
        self.pending: list[dict[str, Any]] = []
        self.judgement: Judgement | None = None

    def _rate(self, step: int) -> float:
        """Linear warm-up, then half a cosine down to ``final``; a function of the step alone."""
        if step < self.t.warmup:
            return (step + 1) / self.t.warmup
        share = (step - self.t.warmup) / max(1, self.t.steps - self.t.warmup)
        return self.t.final + (1 - self.t.final) * (1 + math.cos(math.pi * min(1.0, share))) / 2

    def fit(self) -> dict[str, Any]:
        """Train to the last step and return the summary of ``done.json``.

        Raises:
            Stopped: Ctrl-C or SIGTERM; the state is saved.
            Failure: a loss is not finite.
            UserError: the disk is full, or the data is not usable.
        """
        self._open()
        self.began = time.monotonic() - self.state.seconds
        loader = self._loader()
        bar = Progress(self.t.steps, done=self.state.step, label=self.run.root.name, quiet=self.quiet)
        with stop_requests() as stop, bar as self.bar:
            batches = iter(loader)
            while self.state.step < self.t.steps:
                self._step(batches)
                self._after_step(anyone(self.accelerator, stop()))
            if self.state.step == self.t.steps and self.judgement is None:
                self._judge()
        return self._close(time.monotonic() - self.began)

    def _describe(self) -> None:
        """Write what is known from the start, at the start: from here on a run that is killed can be continued."""
        if self.main and not self.run.config.exists():
            write_yaml(self.run.config, nested(self.settings))
        if self.main and not self.run.environment.exists():
            write_json(self.run.environment, {"seed": self.t.seed, **environment()})

    def _open(self) -> None:
        """Continue from the last state where there is one."""
        if self.t.trackers:
            self.accelerator.init_trackers("boresight", {k: str(v) for k, v in flatten(self.settings).items()})
        states = self.run.states()
        if states:
            self.accelerator.load_state(str(states[-1]))
            if not self.main:
                self.state.tally.zero_()  # the state holds the sum over all processes
        self.rows = [row for row in read_parquet(self.run.metrics) if row["step"] <= self.state.step]
        epoch = self._epoch(self.state.step)
        self.target_rows = [row for row in read_parquet(self.run.targets) if row["epoch"] < epoch]

    def _loader(self) -> DataLoader:
        views = Views(self.splits.train, self.splits.order, self.recipe.view(self.settings), self.t.seed)
        positions = Positions(
            self.state.step,
            self.t.steps,
            self.t.batch,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
            parts=self.t.accumulate,
        )
        # the loader's own generator: making an iterator must not move the global one, or resuming would
        order = torch.Generator().manual_seed(self.t.seed)
        return DataLoader(
            views,
            batch_sampler=positions,
            collate_fn=list,
            num_workers=self.t.workers,
            generator=order,
        )

    def _epoch(self, step: int) -> int:
        return step * self.t.batch // len(self.splits.order)

    def _step(self, batches: Iterator[list[Scene]]) -> None:
        """One optimiser step; its numbers wait on the device until they are asked for."""
        self.model.train()
        self.detector.progress = self.state.step / self.t.steps
        row: dict[str, Any] = {"step": self.state.step + 1, "epoch": self._epoch(self.state.step)}
        row |= {"progress": self.detector.progress, "learning_rate": self.rate.get_last_lr()[0]}
        clock = dict.fromkeys(("data", "forward", "backward"), 0.0)
        parts = []
        for _ in range(self.t.accumulate):
            with self.accelerator.accumulate(self.model):
                start = time.perf_counter()
                scenes = [s.to(self.accelerator.device) for s in next(batches)]
                loaded = time.perf_counter()
                terms, targets = self._forward(scenes)
                forward = time.perf_counter()
                self.accelerator.backward(torch.stack(list(terms.values())).sum())
                if self.accelerator.sync_gradients:  # the whole gradient is clipped, not the part of one pass
                    norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.t.clip or math.inf)
                self.optimiser.step()
                self.optimiser.zero_grad()
                for name, seconds in zip(
                    clock, (loaded - start, forward - loaded, time.perf_counter() - forward), strict=True
                ):
                    clock[name] += seconds
            parts.append({f"loss_{k}": v.detach() for k, v in terms.items()} | _target_numbers(targets))
            self._count(targets)
        self.rate.step()
        if self.ema is not None:
            self.ema.update_parameters(self.detector)
        row |= {name: _joined(name, torch.stack([p[name] for p in parts])) for name in parts[0]}
        row |= {"gradient_norm": norm} | {f"time_{k}": v for k, v in clock.items()}
        self.pending.append(row)
        self.state.step += 1

    def _forward(self, scenes: list[Scene]) -> tuple[dict[str, Tensor], DenseTargets]:
        """Loss terms of this process's scenes, divided by the objects of all processes."""
        output = self.model(scenes)
        targets = self.detector.assign(output, scenes)
        if self.accelerator.num_processes > 1:
            total = self.accelerator.reduce(targets.normaliser.clone(), "sum")
            targets = _with_normaliser(targets, total.clamp(min=1) / self.accelerator.num_processes)
        return self.detector.loss(output, targets), targets

    def _count(self, targets: DenseTargets) -> None:
        """Add up the epoch's positives and objects, class by class, on the device."""
        self.state.tally = self.state.tally.to(targets.positive.device)
        has = targets.positives_per_object() > 0
        classes = self.state.tally.shape[1]
        self.state.tally[0] += targets.positive.sum((0, 2, 3))
        self.state.tally[1] += torch.bincount(targets.labels, targets.counted, classes).long()
        self.state.tally[2] += torch.bincount(targets.labels, targets.counted & ~has, classes).long()

    def _after_step(self, stopping: bool) -> None:
        """Whatever is due: the epoch's row, reading the numbers, judging, saving."""
        step, last = self.state.step, self.state.step == self.t.steps
        if self._epoch(step) != self._epoch(step - 1) or last:
            self._close_epoch(self._epoch(step - 1))
        judging = last or (self.t.validate_every and step % self.t.validate_every == 0)
        saving = judging or last or stopping or step % self.t.checkpoint_every == 0
        if saving or step % FLUSH_EVERY == 0:
            self._flush()
        if judging:
            self._judge()
        if saving:
            self._save()
        self.bar.step(self.t.batch, self._note() if step % FLUSH_EVERY == 0 or saving else "")
        if stopping and not last:
            raise Stopped(
                f"stopped after step {step}; continue with: boresight train {self.recipe.name} --resume {self.run.root}"
            )

    def _flush(self) -> None:
        """Read the pending numbers from the device; a number that is not finite ends the run."""
        rows = self._read()
        for row in rows:
            terms = {k: v for k, v in row.items() if k.startswith("loss_")}
            row["loss"] = sum(terms.values())
            bad = [k for k, v in terms.items() if not math.isfinite(v)]
            if bad:
                raise Failure(
                    f"step {row['step']}: {bad[0]} is {row[bad[0]]} (gradient norm {row['gradient_norm']:.3g}); "
                    "lower train.learning_rate, set train.clip, or train with train.precision=no; "
                    f"the last whole state is in {self.run.checkpoints}"
                )
            self.accelerator.log(row, step=row["step"]) if self.t.trackers else None
        self.rows += rows

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

    def _close_epoch(self, epoch: int) -> None:
        tally = self.accelerator.reduce(self.state.tally.to(self.accelerator.device), "sum")
        for label, (positives, objects, without) in enumerate(tally.T.tolist()):
            self.target_rows.append(
                {
                    "epoch": epoch,
                    "class": self.splits.classes[label],
                    "positives": positives,
                    "objects": objects,
                    "positives_per_object": positives / objects if objects else None,
                    "objects_with_none": without,
                }
            )
        self.state.tally.zero_()

    def judged(self) -> Detector:
        """The weights that are judged and kept: the average where there is one."""
        return self.ema.module if self.ema is not None else self.detector  # type: ignore[return-value]

    def _judge(self) -> None:
        """Detect on the validation frames, choose the threshold, keep the weights."""
        detector = self.judged()
        detector.progress = self.state.step / self.t.steps
        share_buffers(self.accelerator, detector)
        frames = self.splits.val
        found = detect_together(detector, frames, self.accelerator)
        truth = [_without_image(frames[i]) for i in range(len(frames))]
        self.judgement = self.recipe.judge(self.settings, truth, found)
        if self.rows:
            self.rows[-1] |= {f"val_{k}": v for k, v in self.judgement.figures.items()}
            self.rows[-1]["val_threshold"] = self.judgement.threshold
        better = self.judgement.score > self.state.best
        if better:
            self.state.best, self.state.best_step = self.judgement.score, self.state.step
        if not self.main:
            return
        checkpoint = Checkpoint(
            weights=detector.state_dict(),
            detector=self.recipe.name,
            settings=nested(self.settings),
            classes=self.splits.classes,
            threshold=self.judgement.threshold,
            step=self.state.step,
            figures=self.judgement.figures,
        )
        save_checkpoint(self.run.checkpoints / "last.safetensors", checkpoint)
        if better:
            save_checkpoint(self.run.checkpoints / "best.safetensors", checkpoint)

    def _save(self) -> None:
        """Tables first, then the state: a state never stands without the rows that lead to it."""
        self.state.seconds = time.monotonic() - self.began
        tally = self.accelerator.reduce(self.state.tally.to(self.accelerator.device), "sum")
        self.state.tally = tally if self.main else torch.zeros_like(tally)
        if self.main:
            write_parquet(self.run.metrics, self.rows)
            write_parquet(self.run.targets, self.target_rows)
        self.run.save_state(self.state.step, self._fill, main=self.main)
        self.accelerator.wait_for_everyone()

    def _fill(self, folder: Path) -> None:
        """Every process writes its part: after the first has made the folder, and before that one names it."""
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(folder))
        self.accelerator.wait_for_everyone()

    def _note(self) -> str:
        recent = self.rows[-FLUSH_EVERY:]
        note = f"loss {sum(r['loss'] for r in recent) / max(1, len(recent)):.4f}"
        if self.judgement is not None:
            note += f" · {self.judgement.name} {self.judgement.score:.3f}"
        return note

    def _close(self, seconds: float) -> dict[str, Any]:
        assert self.judgement is not None
        summary = {
            "run": str(self.run.root),
            "detector": self.recipe.name,
            "steps": self.state.step,
            "parameters": sum(p.numel() for p in self.detector.parameters()),
            "threshold": self.judgement.threshold,
            "validation": self.judgement.figures,
            "best": {"step": self.state.best_step, self.judgement.name: self.state.best},
            "seconds": round(seconds, 1),
        }
        if self.main:
            write_json(self.run.done, summary)
        if self.t.trackers:
            self.accelerator.end_training()
        self.accelerator.free_memory()
        return summary


def _ema(decay: float) -> Any:
    """Exponential average that starts short: decay ``min(decay, (1 + t) / (10 + t))`` at update ``t``."""

    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        weight = 1 - min(decay, (1 + float(count)) / (10 + float(count)))
        torch._foreach_lerp_(averaged, current, weight)

    return update


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weights decay; biases and norm scales (one-dimensional) do not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _joined(name: str, parts: Tensor) -> Tensor:
    """A column's value for a step from those of its forward passes."""
    return parts.sum() if name in COUNTS else parts.mean()


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


def _with_normaliser(targets: DenseTargets, normaliser: Tensor) -> DenseTargets:
    coarser = tuple(_with_normaliser(t, normaliser) for t in targets.coarser)
    return replace(targets, normaliser=normaliser, coarser=coarser)


def _target_numbers(targets: DenseTargets) -> dict[str, Tensor]:
    positives = targets.positive.sum().float()
    return {
        "positives": positives,
        "objects": targets.counted.sum().float(),
        "positive_rate": positives / targets.positive.numel(),
        "positive_mass": targets.score.sum(),
    }


def _without_image(scene: Scene) -> Scene:
    """The scene with an image that has its size and takes no memory."""
    return replace(scene, image=scene.image.new_zeros(()).expand(scene.image.shape))


@contextmanager
def stop_requests() -> Iterator[Any]:
    """Turn the first Ctrl-C or SIGTERM into a polite request; a second Ctrl-C stops at once."""
    asked: list[float] = []

    def ask(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if asked and number == signal.SIGINT and now - asked[0] > ONE_REQUEST:
            raise KeyboardInterrupt
        asked.append(now)

    try:
        old = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: the caller decides
        old = {}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def train(recipe: Recipe, settings: Any, root: Path, *, quiet: bool = False) -> dict[str, Any]:
    """Train (or continue) the run at ``root`` and return its summary; a run that is finished is left as it is."""
    run = RunFolder(root)
    if run.done.is_file() and (run.checkpoints / "last.safetensors").is_file():
        done = json.loads(run.done.read_text(encoding="utf-8"))
        if done["steps"] == settings.train.steps:
            return {k: v for k, v in done.items() if k != "schema_version"} | {"run": str(root)}
    return Trainer(recipe, settings, run, quiet=quiet).fit()
