"""CPU time of bfloat16 training steps of the text-query detector, freed memory kept or handed back to the kernel.

    python benchmarks/memory.py

Every round starts one process of each kind, on one thread; medians of the time a step and their ratio. Both kinds have
the same weights and see the same scenes; their losses are checked to be equal.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time


def steps(kept: bool, count: int, batch: int, side: int) -> dict[str, float]:
    """User and system seconds of a step after one for warming up, and the last loss."""
    import torch

    from boresight.core.types import Scene
    from boresight.run.config_text import ImageEncoderSettings, TextSettings
    from boresight.run.engine import keep_freed_memory
    from boresight.run.text import text_detector

    torch.set_num_threads(1)
    if kept and not keep_freed_memory():
        raise SystemExit("this needs glibc")
    torch.manual_seed(0)
    settings = TextSettings(encoder=ImageEncoderSettings("squeezenet"))
    detector = text_detector(settings, ("ship",)).to(memory_format=torch.channels_last)
    box, label = torch.tensor([[20.0, 30.0, 60.0, 50.0]]), torch.tensor([0])
    images = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8)
    scenes = [Scene(image, f"{i}", boxes=box, labels=label) for i, image in enumerate(images)]
    for step in range(count + 1):
        if step == 1:
            began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_stime
        with torch.autocast("cpu", torch.bfloat16):
            output = detector(scenes)
        loss = torch.stack(list(detector.loss(output, detector.assign(output, scenes)).values())).sum()
        loss.backward()
    system = resource.getrusage(resource.RUSAGE_SELF).ru_stime - before
    return {"cpu": (time.process_time() - began) / count, "system": system / count, "loss": float(loss.detach())}


def main(rounds: int, count: int, batch: int, side: int) -> None:
    rows: dict[str, list[dict[str, float]]] = {"handed back": [], "kept": []}
    for _ in range(rounds):
        for name, own in rows.items():
            words = [sys.executable, __file__, "--one", name, "--count", str(count)]
            words += ["--batch", str(batch), "--side", str(side)]
            own.append(json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout))
    losses = {row["loss"] for own in rows.values() for row in own}
    assert len(losses) == 1, f"the losses differ: {losses}"
    median = {name: {k: statistics.median(r[k] for r in own) for k in own[0]} for name, own in rows.items()}
    print(f"{batch} scenes of {side} px, {rounds} rounds of {count} steps, 1 thread, CPU ms a step")
    for name, own in median.items():
        ratio = own["cpu"] / median["handed back"]["cpu"]
        print(f"{name:<12} {own['cpu'] * 1e3:7.0f} ms, {own['system'] * 1e3:5.0f} of it in the kernel   x{ratio:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--side", type=int, default=320)
    parser.add_argument("--one", choices=["kept", "handed back"], help=argparse.SUPPRESS)
    args = vars(parser.parse_args())
    one = args.pop("one")
    if one:
        del args["rounds"]
        print(json.dumps(steps(one == "kept", **args)))
    else:
        main(**args)
