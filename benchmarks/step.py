"""Time of a training step of the point detector, by memory format and precision: `python benchmarks/step.py`.

Interleaved rounds in one process on one thread; medians of CPU time and ratios to the first row. Each variant has the
same weights and sees the same crops; the losses are checked to agree.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from boresight.core.types import Points, Scene
from boresight.run.config import HeadSettings, PointSettings
from boresight.run.point import point_detector

VARIANTS = {
    "float32, contiguous": (torch.contiguous_format, False),
    "float32, channels last": (torch.channels_last, False),
    "bfloat16, contiguous": (torch.contiguous_format, True),
    "bfloat16, channels last": (torch.channels_last, True),
}


def main(rounds: int, batch: int, crop: int, level: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    scenes = [Scene(torch.randn(1, crop, crop), f"{i}", points=Points.of([[40.3, 50.2]])) for i in range(batch)]
    settings = PointSettings(head=HeadSettings(level=level))  # type: ignore[arg-type]
    first = point_detector(settings, 1)
    detectors = {}
    for name, (memory, half) in VARIANTS.items():
        detectors[name] = point_detector(settings, 1).to(memory_format=memory), half
        detectors[name][0].load_state_dict(first.state_dict())
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    losses: dict[str, float] = {}
    for _ in range(rounds + 1):
        for name, (detector, half) in detectors.items():
            began = time.process_time()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                output = detector(scenes)
            loss = torch.stack(list(detector.loss(output, detector.assign(output, scenes)).values())).sum()
            loss.backward()
            seconds[name].append(time.process_time() - began)
            losses.setdefault(name, float(loss.detach()))
    reference = losses["float32, contiguous"]
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    print(f"{batch} crops of {crop} px, {level}, {rounds} rounds, 1 thread, CPU ms a step")
    for name, median in medians.items():
        gap = abs(losses[name] - reference) / reference
        assert gap < (0.02 if "bfloat16" in name else 1e-4), f"{name}: loss {losses[name]} against {reference}"
        ratio = median / medians["float32, contiguous"]
        print(f"{name:<26} {median * 1e3:8.0f} ms   x{ratio:.2f}   loss differs by {gap:.1e}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--level", default="p1")
    main(**vars(parser.parse_args()))
