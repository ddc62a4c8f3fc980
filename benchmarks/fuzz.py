"""Damaged inputs for every reader of files: each must give a value or one line that says what is wrong, in time.

    python benchmarks/fuzz.py [--inputs 1000] [--reader all] [--seed 0] [--seconds 20] [--keep FOLDER]
    python benchmarks/fuzz.py --inputs 100000 --reader coco

Every reader runs in a process of its own, with a limit on memory, so that a crash is counted like any other finding.
The inputs follow from the seed. Printed for each reader: inputs, how many were refused, CPU seconds, and findings,
which are told apart by their kind and place; `--keep` stores the first input of each, ready to be laid out and read
with `--again FOLDER/reader-n`. Exit status 1 where there is any finding.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import faulthandler
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from fuzzing.readers import READERS, Hang, Reader, lay_out, outcome, tried, valid

ROOM = 4 * 2**30
"""Bytes that a reader may take beyond what the process holds before the first input."""


def place(error: BaseException) -> str:
    """Kind and place of an error: the last line of our own code, and what was raised."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "boresight" in f.filename]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} at {where}: {' '.join(str(error).split())[:100]}"


def limit_memory() -> None:
    held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (held + ROOM, resource.RLIM_INFINITY))


def one(reader: Reader, inputs: int, seed: int, seconds: float, keep: Path | None) -> dict[str, Any]:
    """Run one reader in this process."""
    warnings.simplefilter("ignore")
    shared = "/dev/shm" if Path("/dev/shm").is_dir() else None
    findings: dict[str, int] = {}
    refused = 0
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{reader.name}-", dir=shared) as name:
        folder = Path(name)
        lay_out(folder, valid(reader))
        if (first := outcome(reader, folder, 60)) != "value":
            raise SystemExit(f"{reader.name}: the valid input is {first}")
        limit_memory()
        began = time.process_time()
        for i in range(inputs):
            faulthandler.dump_traceback_later(60 * seconds, exit=True)  # a hang outside of Python
            damaged = reader.damaged(random.Random(f"{seed}-{reader.name}-{i}"), valid(reader))
            try:
                refused += tried(reader, damaged, folder, seconds) == "refused"
            except (Exception, Hang) as error:
                what = place(error)
                findings[what] = findings.get(what, 0) + 1
                if keep is not None and findings[what] == 1:
                    lay_out(keep / f"{reader.name}-{i}", valid(reader) | damaged)
                    (keep / f"{reader.name}-{i}.txt").write_text("".join(traceback.format_exception(error)))
                shutil.rmtree(folder)
                lay_out(folder, valid(reader))
        faulthandler.cancel_dump_traceback_later()
        took = time.process_time() - began
    return {"reader": reader.name, "inputs": inputs, "refused": refused, "seconds": took, "findings": findings}


def apart(reader: Reader, args: argparse.Namespace) -> dict[str, Any]:
    """Run one reader in a process of its own; a crash is a finding."""
    words = [sys.executable, __file__, "--one", reader.name, "--inputs", str(args.inputs), "--seed", str(args.seed)]
    words += ["--seconds", str(args.seconds), *(["--keep", str(args.keep)] if args.keep else [])]
    began = time.monotonic()
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    last = " | ".join(done.stderr.splitlines()[-40:])
    crash = {f"the process ended with {done.returncode}: {last[-3000:]}": 1}
    return {
        "reader": reader.name,
        "inputs": args.inputs,
        "refused": 0,
        "seconds": time.monotonic() - began,
        "findings": crash,
    }


def again(folder: Path) -> None:
    """Read a kept input, and let its error be seen."""
    reader = next(r for r in READERS if folder.name.startswith(f"{r.name}-"))
    with tempfile.TemporaryDirectory() as place_:
        shutil.copytree(folder, place_, dirs_exist_ok=True)
        print(outcome(reader, Path(place_), 60))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--reader", default="all", choices=["all", *(r.name for r in READERS)])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20.0, help="that one input may take")
    parser.add_argument("--keep", type=Path, help="where the first input of each finding goes")
    parser.add_argument("--again", type=Path, help="read a kept input again")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.again:
        again(args.again)
        return 0
    if args.one:
        reader = next(r for r in READERS if r.name == args.one)
        print(json.dumps(one(reader, args.inputs, args.seed, args.seconds, args.keep)))
        return 0
    print(f"{'reader':<12}{'inputs':>9}{'refused':>9}{'CPU s':>9}  findings", flush=True)
    total = 0
    for reader in READERS if args.reader == "all" else [r for r in READERS if r.name == args.reader]:
        told = apart(reader, args)
        total += len(told["findings"])
        counts = f"{told['inputs']:>9}{told['refused']:>9}{told['seconds']:>9.1f}"
        print(f"{reader.name:<12}{counts}  {len(told['findings'])}", flush=True)
        for what, count in told["findings"].items():
            print(f"    {count} x {what}", flush=True)
    return int(total > 0)


if __name__ == "__main__":
    raise SystemExit(main())
