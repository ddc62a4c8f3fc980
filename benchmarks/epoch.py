"""An epoch of text-query training with frozen features from the store, against one that computes them every time.

    python benchmarks/epoch.py

With the small CLIP that comes with the package, and with open_clip's ViT-B-32 and ViT-B-16 as large as they are
published (their weights are drawn at random, which takes the same time, and written to a file that is loaded as any
checkpoint). Both ways have the same weights, scenes and views; after a first epoch (which fills the store) epochs
alternate, on one thread. Passes of the frozen encoder are counted, losses are checked to be equal; medians of CPU time
and their ratio.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from rounds import Row, Timed, row, shown

from boresight.core.types import Scene
from boresight.detectors.text_query import TextQuery
from boresight.run.config_text import BoxDataSettings, ClipSettings, TextSettings
from boresight.run.engine import keep_freed_memory
from boresight.run.order import Views
from boresight.run.text import TEXT, text_detector


@dataclass
class Way:
    """A detector, and what its epochs cost."""

    detector: TextQuery
    seconds: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    passes: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def epoch(self, batches: list[list[Scene]]) -> None:
        """Forward, assignment, loss and backward over all batches; weights stay, so that rounds can be compared."""
        clip = self.detector.maps.features.clip
        before, began, clock, total = clip.calls, time.process_time(), time.perf_counter(), 0.0
        for scenes in batches:
            output = self.detector(scenes)
            loss = torch.stack(list(self.detector.loss(output, self.detector.assign(output, scenes)).values())).sum()
            loss.backward()
            total += float(loss.detach())
        self.seconds.append(time.process_time() - began)
        self.wall.append(time.perf_counter() - clock)
        self.passes.append(clip.calls - before)
        self.losses.append(total)


@contextmanager
def published_size(architecture: str) -> Iterator[ClipSettings]:
    """Settings of a frozen encoder of a published architecture, with weights drawn at random."""
    import open_clip

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.pt"
        torch.manual_seed(0)
        model = open_clip.create_model(architecture)
        torch.save(model.state_dict(), file)
        side = model.visual.image_size[0]
        del model
        yield ClipSettings(name=architecture, weights=str(file), activation="gelu", size=side, window=side)


def rows(rounds: int = 5, frames: int = 48, batch: int = 8) -> list[Row]:
    """A line for each encoder."""
    torch.set_num_threads(1)
    keep_freed_memory()
    told = [line(ClipSettings(), rounds, frames, batch)]
    for architecture in ("ViT-B-32", "ViT-B-16"):
        with published_size(architecture) as clip:
            told.append(line(clip, rounds, frames, batch))
    return told


def line(clip: ClipSettings, rounds: int, frames: int, batch: int) -> Row:
    """An epoch with and without the store."""
    settings = TextSettings(data=BoxDataSettings(frames=frames, val_frames=1, test_frames=1), clip=clip)
    splits = TEXT.frames(settings, None)
    ways: dict[str, Way] = {}
    for name, megabytes in (("computed every time", 1), ("from the store", settings.clip.store_mb)):
        torch.manual_seed(0)
        own = replace(settings, clip=replace(settings.clip, store_mb=megabytes))
        detector = text_detector(own, splits.classes).to(memory_format=torch.channels_last).train()
        detector.prepare(splits.train)
        ways[name] = Way(detector)
    epochs = []
    for round_ in range(rounds + 1):
        views = Views(splits.train, splits.order, TEXT.view(settings), round_)
        scenes = [views[i] for i in range(frames)]
        epochs.append([scenes[i : i + batch] for i in range(0, frames, batch)])
    for batches in epochs:
        for way in ways.values():
            way.epoch(batches)
    slow, fast = ways.values()
    worst = max(abs(a - b) / abs(a) for a, b in zip(slow.losses, fast.losses, strict=True))
    assert worst < 1e-4, f"the two ways differ by {worst} of the loss"
    fewest = [way.passes[-1] for way in ways.values()]
    times = {
        n: Timed(None, way.seconds[1:], way.wall[1:]) for n, way in zip(("peer", "ours"), ways.values(), strict=True)
    }
    told = f"losses within {worst:.0e}; {fewest[0]} and {fewest[1]} passes of the encoder an epoch"
    return row(f"an epoch on cached features, {frames} scenes, {clip.name}", "without the store", times, ">= 5", told)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    shown(rows(**vars(parser.parse_args())))
