"""What assignment and loss take of a training step on cached features: `python benchmarks/share.py [--rounds 12]`.

The default `text` detector on made aerial scenes, batch 8, its frozen features in the store. A step is forward pass,
assignment, loss, backward pass and optimiser; assignment and the forward part of the loss are timed within it. One
process, one thread; medians of CPU time.
"""

from __future__ import annotations

import argparse
import time

import torch
from rounds import Row, Timed, row, shown

from boresight.run.config_text import BoxDataSettings, TextSettings
from boresight.run.engine import keep_freed_memory
from boresight.run.optimise import optimiser_and_rate
from boresight.run.order import Views
from boresight.run.text import TEXT, text_detector

FRAMES, BATCH = 32, 8


def rows(rounds: int = 12) -> list[Row]:
    """By task-aligned assignment, the default, and by the radius rule of the reference."""
    torch.set_num_threads(1)
    keep_freed_memory()
    return [measured(name, rounds) for name in ("boresight", "baseline")]


def measured(recipe: str, rounds: int) -> Row:
    """One recipe."""
    from boresight.run.parse import settings_from

    values = {"recipe": recipe, "data": {"frames": FRAMES, "val_frames": 1, "test_frames": 1}}
    settings = settings_from(TextSettings, values, origin="benchmarks/share.py")
    assert isinstance(settings.data, BoxDataSettings)
    splits = TEXT.frames(settings, None)
    torch.manual_seed(0)
    detector = text_detector(settings, splits.classes).to(memory_format=torch.channels_last).train()
    detector.prepare(splits.train)
    detector.progress = 0.5
    optimiser, _ = optimiser_and_rate(detector, settings.train)
    views = Views(splits.train, splits.order, TEXT.view(settings), 0)
    scenes = [views[i] for i in range(FRAMES)]
    whole, part, objects = [], [], 0
    for number in range(rounds + FRAMES // BATCH):  # the first pass over the scenes fills the store
        first = number * BATCH % FRAMES
        batch = scenes[first : first + BATCH]
        began = time.process_time()
        output = detector(batch)
        middle = time.process_time()
        targets = detector.assign(output, batch)
        loss = torch.stack(list(detector.loss(output, targets).values())).sum()
        after = time.process_time()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        if number >= FRAMES // BATCH:
            whole.append(time.process_time() - began)
            part.append(after - middle)
            objects = len(targets.objects)
    times = {"peer": Timed(None, whole, whole), "ours": Timed(None, part, part)}
    told = f"{objects} objects in the last batch, loss {float(loss.detach()):.3f}"
    return row(f"assignment + loss of a `text` step, {recipe}", "the whole step", times, "<= 0.15", told, share=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    shown(rows(**vars(parser.parse_args())))
