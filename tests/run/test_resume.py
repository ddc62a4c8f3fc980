"""A run that is stopped anywhere continues to the digits of one that was not."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time

import pytest
import torch

from boresight.cli import main
from boresight.core.errors import Failure, Stopped
from boresight.run import processes, signals
from boresight.run import train as train_module
from boresight.run.checkpoint import load_checkpoint
from boresight.run.parse import nested
from boresight.run.point import POINT
from boresight.run.record import RunFolder, read_parquet, write_yaml
from boresight.run.train import train


def digits(run: RunFolder) -> list[dict]:
    """Everything in the metrics but times."""
    return [
        {k: v for k, v in row.items() if not k.startswith(("time_", "feature_"))} for row in read_parquet(run.metrics)
    ]


def assert_same(run: RunFolder, whole: RunFolder) -> None:
    """The same rows and, bit for bit, the same weights, and nothing that cannot be read."""
    assert digits(run) == digits(whole)
    assert read_parquet(run.targets) == read_parquet(whole.targets)
    for name in ("last.safetensors", "best.safetensors"):
        mine, theirs = (load_checkpoint(r.checkpoints / name) for r in (run, whole))
        assert (mine.step, mine.threshold, mine.figures) == (theirs.step, theirs.threshold, theirs.figures)
        assert all(torch.equal(mine.weights[k], v) for k, v in theirs.weights.items())
    mine, theirs = (json.loads(r.done.read_text()) for r in (run, whole))
    own = {"run": "", "seconds": 0, "cpu_seconds": 0}
    assert mine | own == theirs | own
    assert [p.name for p in run.states()] == [p.name for p in whole.states()]


def resumed(run: RunFolder) -> int:
    return main(["train", "point", "--resume", str(run.root), "--quiet"])


# --- kill -9 ---------------------------------------------------------------------------------------------------------

DRIVER = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from boresight.run import record
from boresight.run.config import PointSettings
from boresight.run.parse import read_yaml, settings_from
from boresight.run.point import POINT
from boresight.run.train import Trainer, train

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def at_call(owner, name, number):
    real, calls = getattr(owner, name), [0]
    def counted(*args, **more):
        calls[0] += 1
        if calls[0] == number:
            die()
        return real(*args, **more)
    setattr(owner, name, counted)

for root, where, number in zip(sys.argv[1::3], sys.argv[2::3], map(int, sys.argv[3::3])):
    child = os.fork()
    if not child:
        at_call({"replace": record.os, "_step": Trainer, "fsync": record.os}[where], where, number)
        settings = settings_from(PointSettings, read_yaml("settings.yaml"), origin="settings.yaml")
        train(POINT, settings, Path(root), quiet=True)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (root, status)
"""

# Files are named in this order: 1 config, 2 environment; after step 2: 3 metrics, 4 targets, 5 state; after step 3:
# 6 last, 7 best, 8 metrics, 9 targets, 10 state; after step 4: 11 metrics, 12 targets, 13 state; after step 6: ...
MOMENTS = [
    ("replace", 2),  # nothing but the settings
    ("_step", 2),  # before the first state
    ("replace", 5),  # the tables of step 2 are there, its state is not
    ("_step", 3),  # just after a state
    ("replace", 7),  # the last weights are newer than the best and the state
    ("fsync", 31),  # somewhere in the middle of a file
    ("replace", 13),  # a state is whole and has no name
    ("_step", 6),  # between states
]


@pytest.fixture(scope="module")
def killed(tiny, tmp_path_factory) -> dict[tuple[str, int], RunFolder]:
    """A run for every moment, killed there. They are forks of one process: torch is imported once."""
    folder = tmp_path_factory.mktemp("killed")
    write_yaml(folder / "settings.yaml", nested(tiny()))
    runs = {moment: RunFolder(folder / "-".join(map(str, moment))) for moment in MOMENTS}
    words = [str(word) for (where, number), run in runs.items() for word in (run.root, where, number)]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return runs


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda m: f"{m[0]}-{m[1]}")
def test_a_killed_run_continues_to_the_same_digits(moment, killed, trained):
    run = killed[moment]
    assert not run.done.exists()
    for state in run.states():  # what has the name of a state is whole
        assert {"model.safetensors", "optimizer.bin", "scheduler.bin", "random_states_0.pkl"} <= set(os.listdir(state))
    steps = {p.name for p in run.states()}
    read_parquet(run.metrics)
    assert resumed(run) == 0
    assert_same(run, trained)
    assert steps != {"state-6"}


def test_a_run_killed_from_outside(tiny, trained, arguments, tmp_path):
    """At a random moment: whichever it is, the run continues."""
    command = [sys.executable, "-m", "boresight", "train", "point", "--runs", str(tmp_path), "--name", "a"]
    process = subprocess.Popen([*command, *arguments()], stderr=subprocess.DEVNULL)
    run = RunFolder(tmp_path / "a")
    try:
        while not run.config.exists() and process.poll() is None:
            time.sleep(0.002)
        time.sleep(random.random() * 0.3)
    finally:
        process.kill()
        process.wait()
    assert resumed(run) == 0
    assert_same(run, trained)


# --- Ctrl-C ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def interrupt_at(monkeypatch):
    """``interrupt_at(3)``: Ctrl-C in the middle of step 3."""

    def set_up(number: int, signals=(signal.SIGINT,)) -> None:
        real, calls = train_module.Trainer._step, []

        def step(self, batches):
            calls.append(1)
            if len(calls) == number:
                for each in signals:
                    signal.raise_signal(each)
            return real(self, batches)

        monkeypatch.setattr(train_module.Trainer, "_step", step)

    return set_up


@pytest.mark.parametrize("step", [1, 3, 5])
def test_ctrl_c_says_how_to_continue(step, interrupt_at, monkeypatch, arguments, trained, tmp_path, capsys):
    interrupt_at(step)
    assert main(["train", "point", "--runs", str(tmp_path), "--name", "a", "--quiet", *arguments()]) == 130
    run = RunFolder(tmp_path / "a")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"boresight: stopped after step {step}; continue with: boresight train point --resume {run.root}\n"
    assert [p.name for p in run.states()] == [f"state-{step}"]
    assert [r["step"] for r in read_parquet(run.metrics)] == list(range(1, step + 1))
    monkeypatch.undo()
    assert main(["train", "point", "--resume", str(run.root), "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["steps"] == 6
    assert_same(run, trained)


def test_a_polite_end_is_as_good(interrupt_at, monkeypatch, tiny, trained, tmp_path):
    interrupt_at(2, (signal.SIGTERM, signal.SIGTERM))
    run = RunFolder(tmp_path)
    with pytest.raises(Stopped):
        train(POINT, tiny(), run.root, quiet=True)
    monkeypatch.undo()
    train(POINT, tiny(), run.root, quiet=True)
    assert_same(run, trained)


def test_ctrl_c_in_the_last_step_finishes(interrupt_at, tiny, trained, tmp_path):
    interrupt_at(6)
    train(POINT, tiny(), tmp_path, quiet=True)
    assert_same(RunFolder(tmp_path), trained)


def test_a_second_ctrl_c_stops_at_once_and_the_run_continues(
    interrupt_at, monkeypatch, arguments, trained, tmp_path, capsys
):
    interrupt_at(4, (signal.SIGINT, signal.SIGINT))
    monkeypatch.setattr(signals, "ONE_REQUEST", -1.0)
    assert main(["train", "point", "--runs", str(tmp_path), "--name", "a", "--quiet", *arguments()]) == 130
    assert capsys.readouterr().err == "boresight: stopped\n"
    run = RunFolder(tmp_path / "a")
    assert [p.name for p in run.states()] == ["state-3"]
    monkeypatch.undo()
    assert resumed(run) == 0
    assert_same(run, trained)


# --- a full disk -----------------------------------------------------------------------------------------------------


def test_a_full_disk_is_one_line_and_the_run_continues(arguments, trained, leftovers, tmp_path, capsys):
    """No file may grow beyond 30 kB: weights and tables fit, the optimiser's state does not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    try:
        status = main(["train", "point", "--runs", str(tmp_path), "--name", "a", "--quiet", *arguments()])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert status == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "state-2: the training state cannot be saved" in line
    run = RunFolder(tmp_path / "a")
    assert run.states() == []
    assert leftovers(run.root) == []
    assert resumed(run) == 0
    assert_same(run, trained)


def test_the_state_model_weights_on_a_full_disk(arguments, tmp_path, capsys):
    """8 kB: not even the weights of the state, which another library writes and complains about in its own way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        status = main(["train", "point", "--runs", str(tmp_path), "--name", "a", "--quiet", *arguments()])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert status == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_resumed_run_adds_up_its_time(interrupt_at, monkeypatch, tiny, tmp_path):
    interrupt_at(2)
    with pytest.raises(Stopped):
        train(POINT, tiny(), tmp_path, quiet=True)
    monkeypatch.undo()
    state = torch.load(next((tmp_path / "checkpoints").glob("state-2/part-0.pt")), weights_only=True)
    state |= {"seconds": 1000.0, "cpu_seconds": 3000.0}
    torch.save(state, tmp_path / "checkpoints" / "state-2" / "part-0.pt")
    done = train(POINT, tiny(), tmp_path, quiet=True)
    assert 1000 < done["seconds"] < 2000
    assert 3000 < done["cpu_seconds"] < 4000


# --- --resume --------------------------------------------------------------------------------------------------------


def test_resume_takes_no_other_settings(copied, capsys):
    assert main(["train", "point", "--resume", str(copied.root), "--train.steps", "9"]) == 2
    assert "drop `--train.steps`" in capsys.readouterr().err


def test_resume_without_a_run(trained, capsys):
    assert main(["train", "point", "--resume", str(trained.root.parent / "nothing")]) == 2
    assert f"no run here (config.yaml is missing); runs there: {trained.root.name}" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "train: {stpes: 4}", "train: [", "train: {steps: 0}"])
def test_resume_with_a_spoilt_configuration(copied, capsys, text):
    copied.config.write_text(text)
    assert main(["train", "point", "--resume", str(copied.root)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(copied.config) in line


# --- several processes -----------------------------------------------------------------------------------------------


RANK = """
import os, signal, sys
import torch
from dataclasses import replace
from boresight.run import recipes
torch.set_num_threads(1)

def plain(module):
    for name, child in module.named_children():
        if isinstance(child, torch.nn.BatchNorm2d):
            setattr(module, name, torch.nn.GroupNorm(1, child.num_features))
        else:
            plain(child)
    return module

point = recipes.POINT
recipes.RECIPES = (replace(point, build=lambda settings, classes: plain(point.build(settings, classes))),)
from boresight.cli import main
from boresight.run.train import Trainer
real, calls = Trainer._step, []

def step(self, batches):
    calls.append(1)
    if len(calls) == 3 and os.environ["RANK"] == "1":
        signal.raise_signal(signal.SIGINT)  # Ctrl-C reaches one of them alone
    return real(self, batches)

Trainer._step = step
assert main(sys.argv[2:]) == 130
assert len(calls) == 3
raise SystemExit(main(["train", "point", "--resume", sys.argv[1], "--json", "--quiet"]))
"""


def test_two_processes_train_what_one_does(unbatched, arguments, tmp_path, monkeypatch):
    """Started by torchrun on the CPU, without statistics of a batch: one folder, one line of JSON, the same digits.

    In the third step one process is asked to stop: both do, and continue.
    """
    (tmp_path / "rank.py").write_text(RANK)
    keys = arguments({"train.batch": 4, "train.steps": 4})
    verb = ["train", "point", "--runs", str(tmp_path), "--json", "--quiet", *keys, "--name"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launch, str(tmp_path / "rank.py"), str(tmp_path / "two"), *verb, "two"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["run"] == str(tmp_path / "two")
    assert not (tmp_path / "two-2").exists()

    from boresight.run import recipes

    monkeypatch.setattr(recipes, "RECIPES", (unbatched,))
    assert main([*verb, "one"]) == 0
    one, two = (RunFolder(tmp_path / name) for name in ("one", "two"))
    assert len(digits(one)) == 4
    assert min(row["loss_offset"] for row in digits(one)) > 0
    for name in (
        "loss",
        "loss_cls",
        "loss_offset",
        "loss_auxiliary",
        "gradient_norm",
        "objects",
        "positives",
        "positive_rate",
        "positive_mass",
    ):
        columns = [[row[name] for row in digits(run)] for run in (two, one)]
        assert columns[0] == pytest.approx(columns[1], rel=1e-5), name
    assert read_parquet(two.targets) == read_parquet(one.targets)


def test_fresh_folders_are_chosen_once(tmp_path, monkeypatch):
    made = processes.fresh_run(tmp_path, "a")
    assert made.root == tmp_path / "a"
    assert made.root.is_dir()


def test_processes_that_do_not_find_each_other(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(Failure, match="3 processes were started, but 1 found each other"):
        processes.joined()
