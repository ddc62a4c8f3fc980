"""Gaussian targets against a loop that draws one object at a time, as CenterNet's does: `python benchmarks/targets.py`.

Interleaved rounds in one process on one thread; medians of CPU time and ratios. Both draw the same labels (truncated at
2.146 sigma around the real-valued place, merged by maximum), and the maps are checked to be equal.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time

import torch
from torch import Tensor

from boresight.core.types import Points
from boresight.targets.gaussian import gaussian_kernel, point_targets
from boresight.targets.schedule import TRUNCATION


def loop(frames: list[Points], rows: int, columns: int, stride: float, sigma: float) -> Tensor:
    """One object at a time: a window, its Gaussian, the maximum with what is there."""
    maps = torch.zeros(len(frames), 1, rows, columns)
    reach = int(TRUNCATION * sigma + 0.5) + 1
    for heat, points in zip(maps, frames, strict=True):
        for x, y in points.xy:
            u, v = float(x / stride - 0.5), float(y / stride - 0.5)
            cx, cy = min(math.floor(u + 0.5), columns - 1), min(math.floor(v + 0.5), rows - 1)
            left, right = max(0, cx - reach), min(columns, cx + reach + 1)
            top, bottom = max(0, cy - reach), min(rows, cy + reach + 1)
            dx = torch.arange(left, right) - u
            dy = torch.arange(top, bottom) - v
            square = dx[None] ** 2 + dy[:, None] ** 2
            value = torch.exp(-square / (2 * sigma**2)) * (square <= (TRUNCATION * sigma) ** 2)
            value[cy - top, cx - left] = 1.0
            window = heat[0, top:bottom, left:right]
            torch.maximum(window, value, out=window)
    return maps


def main(rounds: int, batch: int) -> None:
    torch.set_num_threads(1)
    rows, columns, stride, sigma = 120, 160, 4.0, 1.0
    generator = torch.Generator().manual_seed(0)
    size = torch.tensor([columns * stride, rows * stride])
    print(f"batch {batch}, {columns}x{rows} cells, {rounds} rounds, 1 thread, CPU ms")
    for low, high in ((1, 5), (100, 1000)):
        counts = torch.randint(low, high + 1, (batch,), generator=generator).tolist()
        frames = [Points.of(torch.rand(n, 2, generator=generator) * size) for n in counts]
        kernel, reach = gaussian_kernel(sigma), int(TRUNCATION * sigma + 0.5) + 1
        times: dict[str, list[float]] = {"loop": [], "ours": []}
        for _ in range(rounds + 1):
            began = time.process_time()
            plain = loop(frames, rows, columns, stride, sigma)
            middle = time.process_time()
            ours = point_targets(
                frames, classes=1, rows=rows, columns=columns, stride=stride, kernel=kernel, reach=reach
            )
            times["loop"].append(middle - began)
            times["ours"].append(time.process_time() - middle)
        assert (plain - ours.score).abs().max() < 1e-5, "the two disagree"
        a, b = (statistics.median(v[1:]) * 1e3 for v in times.values())
        print(
            f"{low}-{high} points a frame: loop {a:.1f} ms, ours {b:.1f} ms (score, owner and positives), {a / b:.1f} x"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=16)
    main(**vars(parser.parse_args()))
