"""Every comparison with a peer on a CPU, in one table: `python benchmarks/all.py [NAME ...] [--rounds N]`.

    pip install -e ".[bench]" -c constraints.txt
    python benchmarks/all.py

Each work in a process of its own, on one thread: interleaved rounds, medians, ratios, answers checked to be equal, CPU
time beside wall time. Absolute times mean nothing on a busy machine; a ratio is that of the same round. `store.py`,
`peers.py` and `gpu.py` have tables of their own. tidecv is no dependency: see `errors.py`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from rounds import HEAD, MARKDOWN_HEAD, Row

WORKS = ("assign", "assign_peers", "ap", "targets", "decode", "errors", "epoch", "share", "start")


def alone(name: str, rounds: int | None) -> None:
    """One work in this process; its rows as JSON on the last line."""
    sys.path.insert(0, str(Path(__file__).parent))
    made: list[Row] = importlib.import_module(name).rows(**({} if rounds is None else {"rounds": rounds}))
    print(json.dumps([asdict(one) for one in made]))


def in_process(name: str, rounds: int | None) -> list[Row]:
    """The rows of one work, made in a process of its own."""
    one_thread = {
        key: "1" for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
    }
    command = [sys.executable, __file__, "--alone", name, *([] if rounds is None else ["--rounds", str(rounds)])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | one_thread)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    return [Row(**values | {"wall": tuple(values["wall"])}) for values in json.loads(done.stdout.splitlines()[-1])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("works", nargs="*", metavar="NAME", help=f"of {', '.join(WORKS)}; default: all")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--out", type=Path, help="the rows as JSON")
    parser.add_argument("--markdown", type=Path, help="the rows as a table in Markdown")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        return alone(args.alone, args.rounds)
    if strange := [name for name in args.works if name not in WORKS]:
        parser.error(f"no work `{strange[0]}`; there are {', '.join(WORKS)}")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, python {platform.python_version()}")
    print(HEAD)
    made = []
    for name in args.works or WORKS:
        for one in in_process(name, args.rounds):
            print(one.line(), flush=True)
            made.append(one)
    missed = sum(one.reached is False for one in made)
    print(f"{len(made)} comparisons, {sum(one.reached is True for one in made)} targets reached, {missed} missed")
    if args.out:
        args.out.write_text(json.dumps([asdict(one) for one in made], indent=1) + "\n")
    if args.markdown:
        args.markdown.write_text("\n".join([MARKDOWN_HEAD, *(one.cells() for one in made)]) + "\n")


if __name__ == "__main__":
    main()
