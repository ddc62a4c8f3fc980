"""Runs jobs in processes of their own, a few at a time, and shows one bar for all."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from boresight.core.errors import Failure
from boresight.run.progress import Progress
from boresight.run.record import RunFolder, read_json

_STEP = re.compile(r" (\d+)/(\d+) · ")


class _Crew:
    """The processes under way: what they have done, and how to end them."""

    def __init__(self, bar: Progress, threads: int) -> None:
        self.bar, self.threads = bar, threads
        self.lock = threading.Lock()
        self.processes: list[subprocess.Popen[str]] = []
        self.stopping = False

    def run(self, root: Path) -> str | None:
        """Train and judge one run; None, or why it failed."""
        command = [sys.executable, "-m", "boresight.run.job", str(root)]
        environment = os.environ | {"OMP_NUM_THREADS": str(self.threads)}
        with self.lock:  # a process is either started before `stop` and ended by it, or not started
            if self.stopping:
                return "stopped"
            process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
            self.processes.append(process)
        done, last = 0, ""
        assert process.stderr is not None
        with process.stderr, open(root / "log.txt", "a", encoding="utf-8") as log:
            for line in process.stderr:
                log.write(line)
                last = line.strip() or last
                if match := _STEP.search(line):
                    with self.lock:
                        self.bar.advance(
                            int(match[1]) - done, 0, f"{root.parent.name}/{root.name} {line.split(' · ', 2)[1]}"
                        )
                    done = int(match[1])
        return None if process.wait() == 0 else last

    def stop(self) -> None:
        """Ask every process to save its state and end."""
        with self.lock:
            self.stopping = True
            for process in self.processes:
                process.terminate()


def judged(run: RunFolder) -> bool:
    """Whether the run's last judgement is of its last weights on all of its own test frames."""
    if not run.evaluation.is_file():
        return False
    about = read_json(run.evaluation)
    as_it_is = about.get("data") is None and about.get("changed") is None
    return as_it_is and [about.get(k, "") for k in ("split", "checkpoint", "limit")] == ["test", "last", None]


def run_jobs(roots: list[Path], *, jobs: int, threads: int, label: str, total: int, quiet: bool = False) -> None:
    """Train and judge the runs at ``roots``, those that are finished left as they are.

    Args:
        roots: run folders with a ``config.yaml``.
        jobs: processes at a time.
        threads: CPU threads of each.
        label: for the bar.
        total: steps of all of them together.
        quiet: no bar.

    Raises:
        Failure: a run failed; names it and its last line. The others are ended with their states saved.
    """
    waiting = [root for root in roots if not judged(RunFolder(root))]
    with Progress(total, label=label, unit="step", quiet=quiet) as bar:
        crew = _Crew(bar, threads)
        with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
            futures = {pool.submit(crew.run, root): root for root in waiting}
            try:
                for future in as_completed(futures):
                    root = futures[future]
                    if reason := future.result():
                        crew.stop()
                        raise Failure(
                            f"{root}: {reason}; the log is {root / 'log.txt'}; run the same command to continue"
                        )
            except KeyboardInterrupt:
                crew.stop()
                raise
