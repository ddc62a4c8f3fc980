"""An epoch of training with frozen features from the store, against one that computes them every time.

    python benchmarks/epoch.py

`text` with the small CLIP that comes with the package, and with open_clip's ViT-B-32 and ViT-B-16; `refine` with HQ-SAM
(ViT-B, images brought to 1024 pixels). The large ones are as large as they are published; their weights are drawn at
random, which takes the same time, and written to files that are loaded as any checkpoint. Both ways have the same
weights, scenes and views; after a first epoch (which fills the store) epochs alternate, on one thread. Passes of the
frozen encoder are counted, losses are checked to be equal; medians of CPU time and their ratio.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rounds import Row, Timed, row, shown

from boresight.core.types import Scene
from boresight.detectors.detector import Detector
from boresight.run.config_refine import FeatureSettings, RefineDataSettings, RefineSettings
from boresight.run.config_text import BoxDataSettings, ClipSettings, TextSettings
from boresight.run.engine import keep_freed_memory
from boresight.run.order import Views
from boresight.run.recipe import Recipe
from boresight.run.refine import REFINE
from boresight.run.text import TEXT


@dataclass
class Way:
    """A detector, and what its epochs cost."""

    detector: Detector
    seconds: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    passes: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def epoch(self, batches: list[list[Scene]]) -> None:
        """Forward, assignment, loss and backward over all batches; weights stay, so that rounds can be compared."""
        store = self.detector.store
        assert store is not None
        before, began, clock, total = store.counters.misses, time.process_time(), time.perf_counter(), 0.0
        for scenes in batches:
            output = self.detector(scenes)
            loss = torch.stack(list(self.detector.loss(output, self.detector.assign(output, scenes)).values())).sum()
            loss.backward()
            total += float(loss.detach())
        self.seconds.append(time.process_time() - began)
        self.wall.append(time.perf_counter() - clock)
        self.passes.append(store.counters.misses - before)
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


@contextmanager
def published_sam() -> Iterator[FeatureSettings]:
    """Settings of HQ-SAM, ViT-B, with weights drawn at random."""
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        transformers.SamHQModel(transformers.SamHQConfig()).save_pretrained(f"{folder}/HQ-SAM")
        yield FeatureSettings(name=f"sam:{folder}/HQ-SAM")


def rows(rounds: int = 5, frames: int = 48, batch: int = 8, sam_frames: int = 4) -> list[Row]:
    """A line for each encoder."""
    torch.set_num_threads(1)
    keep_freed_memory()
    text = TextSettings(data=BoxDataSettings(frames=frames, val_frames=1, test_frames=1))
    told = [line(TEXT, text, "clip", rounds, batch)]
    for architecture in ("ViT-B-32", "ViT-B-16"):
        with published_size(architecture) as clip:
            told.append(line(TEXT, replace(text, clip=clip), "clip", rounds, batch))
    with published_sam() as features:
        data = RefineDataSettings(frames=sam_frames, val_frames=1, test_frames=1)
        refine = RefineSettings(data=data, features=features)
        told.append(line(REFINE, refine, "features", rounds, batch))
    return told


def line(recipe: Recipe, settings: Any, part: str, rounds: int, batch: int) -> Row:
    """Alternate an epoch with and without the store of the encoder that ``part`` of the settings describes."""
    splits, encoder, frames = recipe.frames(settings, None), getattr(settings, part), settings.data.frames
    ways = []
    for megabytes in (1, encoder.store_mb):
        torch.manual_seed(0)
        own = replace(settings, **{part: replace(encoder, store_mb=megabytes)})
        detector = recipe.build(own, splits.classes).to(memory_format=torch.channels_last).train()
        detector.prepare(splits.train)
        ways.append(Way(detector))
    epochs = []
    for round_ in range(rounds + 1):
        views = Views(splits.train, splits.order, recipe.view(settings), round_)
        scenes = [views[i] for i in range(frames)]
        epochs.append([scenes[i : i + batch] for i in range(0, frames, batch)])
    for batches in epochs:
        for way in ways:
            way.epoch(batches)
    slow, fast = ways
    worst = max(abs(a - b) / abs(a) for a, b in zip(slow.losses, fast.losses, strict=True))
    assert worst < 1e-4, f"the two ways differ by {worst} of the loss"
    times = {n: Timed(None, way.seconds[1:], way.wall[1:]) for n, way in (("peer", slow), ("ours", fast))}
    encoded = (slow.passes[-1], fast.passes[-1])
    assert encoded == (frames, 0), f"{encoded} images were encoded: a store of 1 MB keeps some; give more --frames"
    told = f"losses within {worst:.0e}; {encoded[0]} and {encoded[1]} images encoded an epoch"
    work = f"an epoch of {settings.detector}, cached, {frames} scenes, {Path(encoder.name).name}"
    return row(work, "without the store", times, ">= 5", told)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--sam-frames", type=int, default=4, help="a pass of HQ-SAM takes many seconds on a CPU")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    shown(rows(**vars(parser.parse_args())))
