"""Training steps on a GPU: `python benchmarks/gpu.py`, where there is one.

Every system with its default settings, at its own batch size or at ``--batch``: interleaved rounds of the loop's own
step, in float32 and bfloat16, batches drawn beforehand. Medians of wall time between two synchronisations, images a
second, peak memory, how often the step waits for the card and where, and the bytes that its operations read and write
against what a plain copy moves on the same card in the same run. Losses of float32 and bfloat16 are checked to agree.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from boresight.run.recipes import RECIPES
from boresight.run.record import RunFolder
from boresight.run.train import Trainer

VIEWS = {"aten.view", "aten._unsafe_view", "aten.t", "aten.transpose", "aten.permute", "aten.expand", "aten.slice"}
VIEWS |= {"aten.select", "aten.unsqueeze", "aten.squeeze", "aten.detach", "aten.alias", "aten.as_strided", "aten.split"}
VIEWS |= {"aten.unbind", "aten.reshape", "aten._reshape_alias", "aten.view_as", "aten.empty", "aten.empty_like"}


class Bytes(TorchDispatchMode):
    """Adds up what operations read and write: every tensor that goes in or comes out once, views excepted."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if str(func.overloadpacket) not in VIEWS:
            tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor) and t.is_cuda]
            self.total += sum(t.numel() * t.element_size() for t in tensors)
        return out


class Way:
    """A trainer that is driven by hand, and what its steps cost."""

    def __init__(self, recipe: Any, settings: Any, folder: Path) -> None:
        self.trainer = Trainer(recipe, settings, RunFolder(folder), quiet=True)
        loader = iter(self.trainer._loader())
        self.batches = [next(loader) for _ in range(8)]
        self.milliseconds: list[float] = []
        self.peak = 0  # bytes

    def step(self) -> None:
        """One step of the loop, on the next of the batches."""
        state = self.trainer.state
        self.trainer._step(iter([self.batches[state.step % len(self.batches)]]))

    def timed(self, steps: int) -> None:
        """Add the milliseconds of a step, in the mean of ``steps``."""
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(steps):
            self.step()
        torch.cuda.synchronize()
        self.milliseconds.append((time.perf_counter() - began) * 1e3 / steps)

    def waits(self) -> Counter[str]:
        """Where a step waits for the card: the innermost line of ours, and how often."""
        found: Counter[str] = Counter()

        def note(message: Any, *_: Any, **__: Any) -> None:
            if "called a synchroniz" in str(message):
                ours = [
                    f for f in traceback.extract_stack() if "boresight" in f.filename and "benchmarks" not in f.filename
                ]
                found[f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "elsewhere"] += 1

        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = note
            torch.cuda.set_sync_debug_mode("warn")
            self.step()
        torch.cuda.set_sync_debug_mode("default")
        return found

    def moved(self) -> int:
        """Bytes that the operations of a step read and write."""
        with Bytes() as counted:
            self.step()
        return counted.total


def copied() -> float:
    """Bytes a second that a plain copy on the card moves: read plus written, the median of ten."""
    source = torch.randn(2**28, device="cuda")
    target, seconds = torch.empty_like(source), []
    for _ in range(13):
        torch.cuda.synchronize()
        began = time.perf_counter()
        target.copy_(source)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return 2 * source.nbytes / statistics.median(seconds[3:])


def measured(
    name: str, batch: int | None, rounds: int, steps: int, root: Path, bandwidth: float
) -> list[dict[str, Any]]:
    """The rows of a system."""
    recipe, ways = next(r for r in RECIPES if r.name == name), {}
    for precision in ("no", "bf16"):
        settings = recipe.settings()
        train = replace(settings.train, precision=precision, batch=batch or settings.train.batch)
        ways[precision] = Way(recipe, replace(settings, train=train), root / f"{name}-{precision}")
        torch.cuda.reset_peak_memory_stats()
        for _ in range(8):  # kernels are chosen and frozen features are computed, once
            ways[precision].step()
        ways[precision].peak = torch.cuda.max_memory_allocated()
    for _ in range(rounds):
        for way in ways.values():
            way.timed(steps)
    rows = []
    losses = {}
    for precision, way in ways.items():
        median = statistics.median(way.milliseconds)
        waits, moved = way.waits(), way.moved()
        size = len(way.batches[0])
        way.trainer.log.flush()
        losses[precision] = [row["loss"] for row in way.trainer.log.rows]
        rows.append(
            {
                "system": name,
                "precision": {"no": "float32"}.get(precision, precision),
                "batch": size,
                "ms": median,
                "images_per_second": size / median * 1e3,
                "peak_mib": way.peak / 2**20,
                "waits": sum(waits.values()),
                "where": dict(waits.most_common(12)),
                "gb_per_step": moved / 1e9,
                "share_of_bandwidth": moved / (median / 1e3) / bandwidth,
            }
        )
    one, two = (sum(v[:8]) / 8 for v in losses.values())
    assert abs(one - two) < 0.1 * abs(one), f"{name}: loss {one} in float32, {two} in bfloat16"
    return rows


def main(systems: list[str], batch: int | None, rounds: int, steps: int, out: Path | None) -> None:
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks/gpu.py needs a GPU")
    bandwidth, rows = copied(), []
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; a copy moves {bandwidth / 1e12:.2f} TB/s")
    with tempfile.TemporaryDirectory() as root:
        for name in systems:
            for row in measured(name, batch, rounds, steps, Path(root), bandwidth):
                rows.append(row)
                print(
                    f"{row['system']:<9} {row['precision']:<8} batch {row['batch']:>4}  {row['ms']:8.2f} ms"
                    f"  {row['images_per_second']:8.0f} images/s  {row['peak_mib']:7.0f} MiB  waits {row['waits']:>3}"
                    f"  {row['gb_per_step']:6.2f} GB a step, {row['share_of_bandwidth']:.0%} of the copy"
                )
                print(f"          waits at {row['where']}")
    if out is not None:
        out.write_text(json.dumps({"card": torch.cuda.get_device_name(), "copy": bandwidth, "rows": rows}, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", nargs="+", default=["point", "text", "localise", "refine"])
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--out", type=Path)
    main(**vars(parser.parse_args()))
