"""Gaussian targets against a loop that draws one object at a time, as CenterNet's does: `python benchmarks/targets.py`.

Interleaved rounds of five calls in one process, on one thread that keeps freed memory as a training does. Both draw the
same labels (truncated at 2.146 sigma around the real-valued place, merged by maximum), and the maps are checked to be
equal; ours also says which cells are positive, whose place each cell learns, and what is ignored.
"""

from __future__ import annotations

import argparse
import math

import torch
from rounds import Row, interleaved, row, shown
from torch import Tensor

from boresight.core.types import Points
from boresight.run.engine import keep_freed_memory
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


def rows(rounds: int = 7, batch: int = 16) -> list[Row]:
    """Few points a frame, and many."""
    torch.set_num_threads(1)
    keep_freed_memory()
    height, width, stride, sigma = 120, 160, 4.0, 1.0
    generator = torch.Generator().manual_seed(0)
    size = torch.tensor([width * stride, height * stride])
    made = []
    for low, high, target in ((1, 5, ">= 3"), (100, 1000, ">= 40")):
        counts = torch.randint(low, high + 1, (batch,), generator=generator).tolist()
        frames = [Points.of(torch.rand(n, 2, generator=generator) * size) for n in counts]
        kernel, reach = gaussian_kernel(sigma), int(TRUNCATION * sigma + 0.5) + 1

        def ours(frames=frames, kernel=kernel, reach=reach):
            return point_targets(
                frames, classes=1, rows=height, columns=width, stride=stride, kernel=kernel, reach=reach
            )

        def peer(frames=frames):
            return loop(frames, height, width, stride, sigma)

        times = interleaved({"peer": peer, "ours": ours}, rounds, repeats=5)
        apart = float((times["peer"].answer - times["ours"].answer.score).abs().max())
        assert apart < 1e-5, f"the two differ by {apart}"
        work = f"Gaussian targets, batch {batch}, {width}x{height}, {low}-{high} points"
        made.append(row(work, "CenterNet's loop", times, target, f"maps within {apart:.0e}"))
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=16)
    shown(rows(**vars(parser.parse_args())))
