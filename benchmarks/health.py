"""What watching a training costs: `python benchmarks/health.py`.

Interleaved rounds in one process on one thread: the steps of the training loop between two readings of its numbers
(`FLUSH_EVERY`), then one look of the watch at all that was read. Medians of CPU time; the last column is the look's
share of the steps between two looks, for trainings that are already so many steps long. First the cheapest step that we
have, then the default one.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path

import torch

from boresight.core.types import Points, Scene
from boresight.run.config import AugmentSettings, EncoderSettings, PointSettings, TrainSettings
from boresight.run.logbook import FLUSH_EVERY, target_numbers
from boresight.run.optimise import optimiser_and_rate
from boresight.run.plan import plan_of
from boresight.run.point import point_detector
from boresight.run.record import RunFolder
from boresight.run.watch import RARELY, Watch

TINY = PointSettings(
    augment=AugmentSettings(crop=32),
    encoder=EncoderSettings(widths=(4, 4, 4, 4), channels=4),
    train=TrainSettings(batch=2),
)
SETTINGS = {"2 crops of 32 px, 4 channels": TINY, "16 crops of 128 px (default)": PointSettings()}


def row(step: int, draw: random.Random) -> dict[str, float]:
    """A row of the table as a healthy training writes it."""
    terms = {f"loss_{k}": draw.uniform(0.1, 2.0) for k in ("cls", "offset", "auxiliary")}
    known = {
        "step": step,
        "epoch": step // 50,
        "progress": step / 1e5,
        "learning_rate": 1e-3,
        "loss": sum(terms.values()),
    }
    times = {f"time_{k}": draw.uniform(0.01, 0.1) for k in ("data", "forward", "backward")}
    counts = {"positives": 20.0, "objects": 20.0, "positive_rate": 1e-4, "positive_mass": 80.0}
    return known | terms | counts | {"gradient_norm": draw.uniform(1.0, 9.0)} | times


class Loop:
    """A training step, and the numbers that it leaves."""

    def __init__(self, settings: PointSettings) -> None:
        torch.manual_seed(0)
        crop, self.settings = settings.augment.crop, settings
        points = Points.of([[crop / 3, crop / 2]])
        self.scenes = [Scene(torch.randn(1, crop, crop), f"{i}", points=points) for i in range(settings.train.batch)]
        self.detector = point_detector(settings, 1).to(memory_format=torch.channels_last)
        self.optimiser, self.rate = optimiser_and_rate(self.detector, settings.train)

    def step(self) -> None:
        output = self.detector(self.scenes)
        targets = self.detector.assign(output, self.scenes)
        torch.stack(list(self.detector.loss(output, targets).values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(self.detector.parameters(), 5.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.rate.step()
        target_numbers(targets)


def main(rounds: int, lengths: list[int]) -> None:
    torch.set_num_threads(1)
    draw = random.Random(0)
    print(f"{FLUSH_EVERY} steps, then a look; {rounds} rounds, 1 thread, CPU ms")
    for name, settings in SETTINGS.items():
        loop = Loop(settings)
        plan = plan_of(settings, "f1")
        for length in lengths:
            with tempfile.TemporaryDirectory() as folder:
                watch = Watch(RunFolder(Path(folder)), plan, lambda line: None)
                watch.resume([row(i + 1, draw) for i in range(length)], [])
                steps, judging = [], []
                for r in range(rounds + 1):
                    began = time.process_time()
                    for _ in range(FLUSH_EVERY):
                        loop.step()
                    between = time.process_time()
                    watch.due = 0
                    watch.steps([row(length + r * FLUSH_EVERY + i + 1, draw) for i in range(FLUSH_EVERY)])
                    steps.append(between - began)
                    judging.append(time.process_time() - between)
            taken, watched = (statistics.median(values[1:]) * 1e3 for values in (steps, judging))
            between_looks = taken * max(1.0, length / RARELY / FLUSH_EVERY)
            told = f"{taken:8.1f} + {watched:5.2f}   {watched / between_looks:6.2%}"
            print(f"{name:<30} {length:>7} steps before   {told}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--lengths", type=int, nargs="+", default=[100, 10_000, 100_000])
    main(**vars(parser.parse_args()))
