"""Kills a training run with SIGKILL at random moments, resumes it, and compares it with one that was not stopped.

    python experiments/kill_resume.py --kills 5 --seed 0

Prints one line a kill and a verdict; exits with 1 unless weights, threshold and every number of every step are the same
to the last digit (times of a step aside).
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from boresight.run.checkpoint import load_checkpoint
from boresight.run.record import read_parquet

SETTINGS = {
    "data.preset": "easy",
    "data.height": 128,
    "data.width": 160,
    "data.frames": 32,
    "data.val_frames": 8,
    "data.test_frames": 8,
    "augment.crop": 64,
    "train.batch": 8,
    "train.threads": 1,
    "train.validate_every": 20,
    "train.checkpoint_every": 10,
}


def boresight(*words: str) -> subprocess.Popen[bytes]:
    """Start the command line in a process of its own."""
    return subprocess.Popen([sys.executable, "-m", "boresight", *words, "--quiet"], stderr=subprocess.PIPE)


def run_to_end(*words: str) -> None:
    """Run to the end. Raises when it fails."""
    process = boresight(*words)
    error = process.communicate()[1].decode()
    if process.returncode:
        raise RuntimeError(f"boresight {' '.join(words)} failed: {error}")


def step_of(run: Path) -> int:
    """The step of the newest whole state of a run; 0 when there is none."""
    return max((int(p.name[6:]) for p in (run / "checkpoints").glob("state-*[0-9]")), default=0)


def kill_after(process: subprocess.Popen[bytes], run: Path, step: int, pause: float) -> None:
    """Let a run get past ``step`` and go on for ``pause`` seconds, wherever that leads, then kill it."""
    while not (run / "config.yaml").exists() or step_of(run) < step:
        if process.poll() is not None:
            raise RuntimeError(f"the run ended before step {step}: {process.communicate()[1].decode()}")
        time.sleep(0.005)
    time.sleep(pause)
    process.send_signal(signal.SIGKILL)
    process.wait()


def same(a: Path, b: Path) -> bool:
    """Whether two runs have the same weights, threshold and numbers."""
    one, two = (load_checkpoint(p / "checkpoints" / "last.safetensors") for p in (a, b))
    weights = all(torch.equal(one.weights[k], two.weights[k]) for k in one.weights)
    rows = [
        [
            {k: v for k, v in row.items() if not k.startswith(("time_", "feature_"))}
            for row in read_parquet(p / "metrics.parquet")
        ]
        for p in (a, b)
    ]
    tables = read_parquet(a / "targets.parquet") == read_parquet(b / "targets.parquet")
    print(f"weights equal: {weights}; thresholds {one.threshold}, {two.threshold}; rows {len(rows[0])}, {len(rows[1])}")
    return weights and one.threshold == two.threshold and rows[0] == rows[1] and tables


def main(kills: int, seed: int, steps: int) -> int:
    """Train once through and once with kills."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        settings = [f"--{k}={v}" for k, v in (SETTINGS | {"train.steps": steps}).items()] + ["--runs", folder]
        run_to_end("train", "point", "--name", "whole", *settings)
        whole, cut = Path(folder) / "whole", Path(folder) / "cut"
        words: tuple[str, ...] = ("train", "point", "--name", "cut", *settings)
        for number in range(1, kills + 1):
            step = chance.randrange(number - 1, number) * steps // (kills + 1)
            pause = chance.uniform(0.0, 2.0)
            kill_after(boresight(*words), cut, step, pause)
            print(f"kill {number}, {pause:.2f} s after step {step}: state of step {step_of(cut)} left", flush=True)
            words = ("train", "point", "--resume", str(cut))
        run_to_end(*words)
        equal = same(whole, cut)
        print("the same to the last digit" if equal else "DIFFERENT")
        return 0 if equal else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=240)
    raise SystemExit(main(**vars(parser.parse_args())))
