"""The training loop. It knows the contract, and names no detector and no loss.

A run is a function of its settings: order and views of the frames follow from the seed and the step alone, and a state
is saved whole or not at all. So a run that was stopped anywhere, by Ctrl-C or by kill -9, continues to the digits of a
run that was not (on CPU with the same number of threads; GPUs add in an order of their own).
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from torch import Tensor
from torch.utils.data import DataLoader

from boresight.core.errors import Failure, Stopped
from boresight.core.types import DenseTargets, Scene
from boresight.detectors.detector import Detector
from boresight.features.feature_store import Counters
from boresight.run.begin import begin_from
from boresight.run.checkpoint import Checkpoint, save_checkpoint
from boresight.run.engine import open_accelerator
from boresight.run.logbook import FLUSH_EVERY, Logbook, LoopState, target_numbers
from boresight.run.optimise import MovingAverage, optimiser_and_rate
from boresight.run.order import Positions, Views
from boresight.run.parse import flatten, nested
from boresight.run.plan import plan_of
from boresight.run.processes import anyone, detect_together, share_buffers
from boresight.run.progress import Progress
from boresight.run.recipe import Judgement, Recipe, Splits
from boresight.run.record import RunFolder, environment, read_json, write_json, write_yaml
from boresight.run.signals import stop_requests
from boresight.run.state import load_state, save_parts
from boresight.run.watch import Watch


class Trainer:
    """One run, from its settings to its folder.

    Args:
        recipe: the system.
        settings: an instance of ``recipe.settings``.
        run: where everything goes; when it holds a state, the run continues from it.
        quiet: no progress.
    """

    def __init__(self, recipe: Recipe, settings: Any, run: RunFolder, *, quiet: bool = False) -> None:
        self.cpu_began = time.process_time()
        self.recipe, self.settings, self.run, self.t = recipe, settings, run, settings.train
        self.accelerator = open_accelerator(self.t, run.root)
        self.main = self.accelerator.is_main_process
        self.quiet = quiet or not self.main
        self._describe()
        self.splits: Splits = recipe.frames(settings, None)
        self._build()
        for remark in self.detector.remarks:
            self._say(remark)
        self.state = LoopState(len(self.splits.classes))
        self.parts = tuple(part for part in (self.state, self.ema) if part is not None)
        self.watch = Watch(run, plan_of(settings, recipe.monitor), self._say) if self.main else None
        self.log = Logbook(run, self.accelerator, self.state, self.splits.classes, self.watch)
        self.judgement: Judgement | None = None
        self.frozen = self.detector.frozen

    def _say(self, words: str) -> None:
        if not self.quiet:
            print(f"{self.run.root.name}: {words}", file=sys.stderr, flush=True)

    def _build(self) -> None:
        """The detector, from the seed, and what trains it."""
        set_seed(self.t.seed)
        # channels-last: a training step of the built-in encoder takes 0.65 of the time on a CPU (benchmarks/step.py)
        detector = self.recipe.build(self.settings, self.splits.classes).to(memory_format=torch.channels_last)
        if not self.run.states():  # else what was prepared comes with the state
            if type(detector).prepare is not Detector.prepare:
                self._say("looking at training images before the first step")
            detector.prepare(self.splits.train)
            if self.t.init:
                begun = begin_from(self.t.init, self.recipe, self.settings, detector, self.splits.classes)
                self._say(begun.words())
                if self.main:
                    write_json(self.run.environment, read_json(self.run.environment) | {"init": begun.to_dict()})
        self.ema = MovingAverage(detector, self.t.ema) if self.t.ema else None
        optimiser, rate = optimiser_and_rate(detector, self.t)
        self.model, self.optimiser, self.rate = self.accelerator.prepare(detector, optimiser, rate)
        self.detector: Detector = self.accelerator.unwrap_model(self.model)
        if self.ema is not None:
            self.ema.to(self.accelerator.device)

    def fit(self) -> dict[str, Any]:
        """Train to the last step and return the summary of ``done.json``.

        Raises:
            Stopped: Ctrl-C or SIGTERM; the state is saved.
            Failure: a loss is not finite.
            UserError: the disk is full, or the data is not usable.
        """
        self._open()
        self.began = time.monotonic() - self.state.seconds
        self.cpu_began -= self.state.cpu_seconds
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
            load_state(self.accelerator, states[-1], self.parts)
        self.log.resume(self._epoch(self.state.step))

    def _loader(self) -> DataLoader:
        views = Views(self.splits.train, self.splits.order, self.recipe.view(self.settings), self.t.seed)
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        batch, parts = self.t.batch, self.t.accumulate
        positions = Positions(self.state.step, self.t.steps, batch, rank=rank, world=world, parts=parts)
        # the loader's own generator: making an iterator must not move the global one, or resuming would
        order = torch.Generator().manual_seed(self.t.seed)
        return DataLoader(views, batch_sampler=positions, collate_fn=list, num_workers=self.t.workers, generator=order)

    def _epoch(self, step: int) -> int:
        return step * self.t.batch // len(self.splits.order)

    def _step(self, batches: Iterator[list[Scene]]) -> None:
        """One optimiser step; its numbers wait on the device until they are asked for."""
        self.model.train()
        self.detector.progress = self.state.step / self.t.steps
        row: dict[str, Any] = {"step": self.state.step + 1, "epoch": self._epoch(self.state.step)}
        row |= {"progress": self.detector.progress, "learning_rate": self.rate.get_last_lr()[0]}
        clock = dict.fromkeys(("data", "forward", "backward"), 0.0)
        stored = self._stored()
        parts, norms = zip(*(self._pass(batches, clock) for _ in range(self.t.accumulate)), strict=True)
        self.rate.step()
        if self.ema is not None:
            self.ema.update_parameters(self.detector)
        after = {"gradient_norm": norms[-1]} | {f"time_{k}": v for k, v in clock.items()}
        self.log.add(row, parts, after | self._found(stored))
        self.state.step += 1

    def _stored(self) -> Counters | None:
        """What the feature store has done so far."""
        return None if self.detector.store is None else self.detector.store.counters.copy()

    def _found(self, before: Counters | None) -> dict[str, Any]:
        """Columns of what the feature store did since ``before``: this process's items, bytes and seconds."""
        if before is None or self.detector.store is None:
            return {}
        done = self.detector.store.counters.since(before)
        seconds = done.read_seconds + done.compute_seconds + done.write_seconds
        told = {"hits": done.hits, "misses": done.misses, "bytes": done.bytes_read + done.bytes_written}
        return {f"feature_{k}": v for k, v in told.items()} | {"time_feature": seconds}

    def _pass(self, batches: Iterator[list[Scene]], clock: dict[str, float]) -> tuple[dict[str, Tensor], Tensor | None]:
        """One forward and backward pass: its numbers, and the gradient's norm when it is the step's last."""
        norm = None
        with self.accelerator.accumulate(self.model):
            ticks = [time.perf_counter()]
            scenes = next(batches)
            ticks.append(time.perf_counter())
            terms, targets = self._forward(scenes)
            ticks.append(time.perf_counter())
            self.accelerator.backward(torch.stack(list(terms.values())).sum())
            if self.accelerator.sync_gradients:  # the whole gradient is clipped, not the part of one pass
                norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.t.clip or math.inf)
            self.optimiser.step()
            self.optimiser.zero_grad()
            ticks.append(time.perf_counter())
        for name, start, end in zip(clock, ticks[:-1], ticks[1:], strict=True):
            clock[name] += end - start
        self.log.count(targets)
        return {f"loss_{k}": v.detach() for k, v in terms.items()} | target_numbers(targets), norm

    def _forward(self, scenes: list[Scene]) -> tuple[dict[str, Tensor], DenseTargets]:
        """Loss terms of this process's scenes, divided by the objects of all processes."""
        output = self.model([s.to(self.accelerator.device) for s in scenes])
        targets = self.detector.assign(output, scenes)
        if self.accelerator.num_processes > 1:
            total = self.accelerator.reduce(targets.normaliser.clone(), "sum")
            targets = _with_normaliser(targets, total.clamp(min=1) / self.accelerator.num_processes)
        return self.detector.loss(output, targets), targets

    def _after_step(self, stopping: bool) -> None:
        """Whatever is due: the epoch's row, reading the numbers, judging, saving."""
        step, last = self.state.step, self.state.step == self.t.steps
        if self._epoch(step) != self._epoch(step - 1) or last:
            self.log.close_epoch(self._epoch(step - 1))
        judging = last or (self.t.validate_every and step % self.t.validate_every == 0)
        saving = judging or last or stopping or step % self.t.checkpoint_every == 0
        if saving or step % FLUSH_EVERY == 0:
            self.log.flush()
        if judging:
            self._judge()
        if saving:
            self._save()
        self.bar.step(self.t.batch, self._note() if step % FLUSH_EVERY == 0 or saving else "")
        if stopping and not last:
            raise Stopped(
                f"stopped after step {step}; continue with: boresight train {self.recipe.name} --resume {self.run.root}"
            )

    def judged(self) -> Detector:
        """The weights that are judged and kept: the average where there is one."""
        return self.ema.module if self.ema is not None else self.detector  # type: ignore[return-value]

    def _judge(self) -> None:
        """Detect on the validation frames, choose the threshold, keep the weights."""
        detector = self.judged()
        detector.progress = self.state.step / self.t.steps
        share_buffers(self.accelerator, detector)
        frames = self.splits.val
        found = detect_together(detector, frames)
        truth = [_without_image(frames[i]) for i in range(len(frames))]
        self.judgement = self.recipe.judge(self.settings, self.splits.classes, truth, found)
        figures = {f"val_{k}": v for k, v in self.judgement.figures.items()}
        self.log.amend(figures | {"val_threshold": self.judgement.threshold})
        better = self.judgement.score > self.state.best
        if better:
            self.state.best, self.state.best_step = self.judgement.score, self.state.step
        if self.main:
            self._keep(detector, self.judgement, ("last", "best") if better else ("last",))

    def _keep(self, detector: Detector, judgement: Judgement, names: tuple[str, ...]) -> None:
        """Write the judged weights, with all that is needed to use them, under each of the names."""
        checkpoint = Checkpoint(
            weights=detector.state_dict(),
            detector=self.recipe.name,
            settings=nested(self.settings),
            classes=self.splits.classes,
            threshold=judgement.threshold,
            step=self.state.step,
            figures=judgement.figures,
            frozen=self.frozen,
        )
        for name in names:
            save_checkpoint(self.run.checkpoints / f"{name}.safetensors", checkpoint)

    def _save(self) -> None:
        """Tables first, then the state: a state never stands without the rows that lead to it."""
        self.state.seconds = time.monotonic() - self.began
        self.state.cpu_seconds = time.process_time() - self.cpu_began
        self.log.write()
        self.run.save_state(self.state.step, self._fill, main=self.main)
        self.accelerator.wait_for_everyone()

    def _fill(self, folder: Path) -> None:
        """Every process writes its part: after the first has made the folder, and before that one names it."""
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(folder))
        if self.main:
            save_parts(folder, self.parts)
        self.accelerator.wait_for_everyone()

    def _note(self) -> str:
        note = f"loss {self.log.recent_loss():.4f}"
        if self.judgement is not None:
            note += f" · {self.judgement.name} {self.judgement.score:.3f}"
        return note

    def _close(self, seconds: float) -> dict[str, Any]:
        assert self.judgement is not None
        now = self.detector.frozen
        if self.watch is not None:
            self.watch.close(self.frozen, now)
        if now != self.frozen:
            raise Failure(f"frozen weights have moved: {self.frozen} before the training, {now} after it")
        summary = {
            "run": str(self.run.root),
            "detector": self.recipe.name,
            "steps": self.state.step,
            "parameters": sum(p.numel() for p in self.detector.parameters()),
            "threshold": self.judgement.threshold,
            "validation": self.judgement.figures,
            "best": {"step": self.state.best_step, self.judgement.name: self.state.best},
            "seconds": round(seconds, 1),
            "cpu_seconds": round(time.process_time() - self.cpu_began, 1),
            "frozen": {"before": self.frozen, "after": now},
            "remarks": list(self.detector.remarks),
        }
        if (store := self.detector.store) is not None:
            store.close()
            counted = vars(store.counters) | {"hit_rate": store.counters.hit_rate}
            summary["features"] = {k: round(v, 3) if isinstance(v, float) else v for k, v in counted.items()}
        if self.main:
            write_json(self.run.done, summary)
        if self.t.trackers:
            self.accelerator.end_training()
        self.accelerator.free_memory()
        return summary


def _with_normaliser(targets: DenseTargets, normaliser: Tensor) -> DenseTargets:
    coarser = tuple(_with_normaliser(t, normaliser) for t in targets.coarser)
    return replace(targets, normaliser=normaliser, coarser=coarser)


def _without_image(scene: Scene) -> Scene:
    """The scene with an image that has its size and takes no memory."""
    return replace(scene, image=scene.image.new_zeros(()).expand(scene.image.shape))


def train(recipe: Recipe, settings: Any, root: Path, *, quiet: bool = False) -> dict[str, Any]:
    """Train (or continue) the run at ``root`` and return its summary; a run that is finished is left as it is."""
    run = RunFolder(root)
    if run.done.is_file() and (run.checkpoints / "last.safetensors").is_file():
        done = read_json(run.done)
        if done.get("steps") == settings.train.steps:
            return {k: v for k, v in done.items() if k != "schema_version"} | {"run": str(root)}
    return Trainer(recipe, settings, run, quiet=quiet).fit()
