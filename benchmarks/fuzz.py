"""Damaged inputs for every reader of files: each must give a value or one line that says what is wrong, in time.

    python benchmarks/fuzz.py [--inputs 1000] [--reader all] [--seed 0] [--seconds 20] [--keep FOLDER]
    python benchmarks/fuzz.py --inputs 100000 --reader coco
    python benchmarks/fuzz.py --inputs 100000 --reader coco --guided    # needs atheris

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
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from fuzzing.guided import guided, watch
from fuzzing.readers import READERS, Files, Hang, Reader, lay_out, outcome, tried, valid

ROOM = 4 * 2**30
"""Bytes that a reader may take beyond what the process holds before the first input; guided, twice as many."""


def place(error: BaseException) -> str:
    """Kind and place of an error: the last line of our own code, and what was raised."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "boresight" in f.filename]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} at {where}: {' '.join(str(error).split())[:100]}"


def limit_memory(room: int) -> None:
    held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (held + room, resource.RLIM_INFINITY))


class Trial:
    """Inputs of one reader, each put over the valid files of a folder and read; what came of them is counted."""

    def __init__(self, reader: Reader, folder: Path, seconds: float, keep: Path | None, room: int) -> None:
        self.reader, self.folder, self.seconds, self.keep = reader, folder, seconds, keep
        self.findings: dict[str, int] = {}
        self.inputs = self.refused = 0
        lay_out(folder, valid(reader))
        if (first := outcome(reader, folder, 60)) != "value":
            raise SystemExit(f"{reader.name}: the valid input is {first}")
        limit_memory(room)
        self.began = time.process_time()

    def __call__(self, number: int, damaged: Files) -> None:
        """Read one input."""
        faulthandler.dump_traceback_later(60 * self.seconds, exit=True)  # a hang outside of Python
        self.inputs += 1
        try:
            self.refused += tried(self.reader, damaged, self.folder, self.seconds) == "refused"
        except (Exception, Hang) as error:
            what = place(error)
            self.findings[what] = self.findings.get(what, 0) + 1
            if self.keep is not None and self.findings[what] == 1:
                at = self.keep / f"{self.reader.name}-{number}"
                lay_out(at, valid(self.reader) | damaged)
                at.with_suffix(".txt").write_text("".join(traceback.format_exception(error)))
            shutil.rmtree(self.folder)
            lay_out(self.folder, valid(self.reader))

    def told(self) -> str:
        """One line of JSON."""
        faulthandler.cancel_dump_traceback_later()
        about = {"reader": self.reader.name, "inputs": self.inputs, "refused": self.refused}
        return json.dumps(about | {"seconds": time.process_time() - self.began, "findings": self.findings})


def one(reader: Reader, folder: Path, args: argparse.Namespace) -> None:
    """Run one reader in this process and print what came of it."""
    warnings.simplefilter("ignore")
    if args.guided:
        watch()
    # under atheris, and only there, every table that is read leaves 30 KiB behind
    trial = Trial(reader, folder / "read", args.seconds, args.keep, 2 * ROOM if args.guided else ROOM)
    if args.guided:
        guided(reader, trial, args.inputs, args.seed, folder / "corpus", lambda: print(trial.told(), flush=True))
    for i in range(args.inputs):
        trial(i, reader.damaged(random.Random(f"{args.seed}-{reader.name}-{i}"), valid(reader)))
    print(trial.told())


def apart(reader: Reader, args: argparse.Namespace) -> dict[str, Any]:
    """Run one reader in a process of its own; a crash is a finding."""
    words = [sys.executable, __file__, "--reader", reader.name, "--inputs", str(args.inputs), "--seed", str(args.seed)]
    words += ["--seconds", str(args.seconds), *(["--keep", str(args.keep)] if args.keep else [])]
    words += ["--guided"] if args.guided else []
    began = time.monotonic()
    shared = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{reader.name}-", dir=shared) as folder:
        done = subprocess.run([*words, "--one", folder], capture_output=True, text=True, check=False)
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
    parser.add_argument("--guided", action="store_true", help="by atheris: inputs that reach new lines are damaged on")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.again:
        again(args.again)
        return 0
    if args.one:
        one(next(r for r in READERS if r.name == args.reader), args.one, args)
        return 0
    if args.guided and find_spec("atheris") is None:
        parser.error("--guided needs atheris: pip install -e '.[fuzz]'")
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
