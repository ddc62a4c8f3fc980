"""Seconds until something is said: `python benchmarks/start.py [--rounds 9]`.

`import boresight` and `boresight --help` in processes of their own, beside a bare `python -c pass` in the same rounds.
CPU time of the process (user and system) and wall time; that torch stays out is checked in each.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

from rounds import Row, shown

WAYS = {
    "nothing": "pass",
    "import boresight": "import boresight",
    "boresight --help": (
        "import contextlib, io\nfrom boresight.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit): main(['--help'])"
    ),
}
CHECK = "\nimport sys; assert 'torch' not in sys.modules, 'torch was imported'"


def spent(code: str) -> tuple[float, float]:
    """CPU and wall seconds of one process."""
    before, began = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-c", code + CHECK], check=True)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return cpu, time.perf_counter() - began


def rows(rounds: int = 9) -> list[Row]:
    """Seconds of each; the ratio is that of CPU seconds to one second."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    for number in range(rounds + 1):
        for name, code in WAYS.items():
            one = spent(code)
            if number:
                taken[name].append(one)
    middle = {name: [statistics.median(v) for v in zip(*values, strict=True)] for name, values in taken.items()}
    bare = middle.pop("nothing")
    return [
        Row(
            name,
            "an empty python, CPU s",
            1e3 * bare[0],
            1e3 * cpu,
            cpu,
            target,
            "no torch",
            (1e3 * bare[1], 1e3 * wall),
        )
        for (name, (cpu, wall)), target in zip(middle.items(), ("<= 0.3", "<= 0.5"), strict=True)
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    shown(rows(**vars(parser.parse_args())))
