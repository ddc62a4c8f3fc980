"""Processes that are killed while they write, and processes that fill one store together."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest
import torch

from boresight.features.cache import FeatureCache
from boresight.features.cache_disk import read_file
from boresight.features.cache_file import unpack

RECIPE = "0123456789abcdef"
ITEMS = 2000


def key(i: int) -> str:
    return f"{RECIPE}-{i:032x}"


def item(i: int) -> dict[str, torch.Tensor]:
    return {"level0": torch.full((4, 16 + i % 5, 16), float(i)), "n": torch.tensor(i)}


def items(keys: list[str]) -> list[dict[str, torch.Tensor]]:
    return [item(int(k[-8:], 16)) for k in keys]


@pytest.fixture
def child():
    """``child(work)`` runs ``work`` in a process of its own, and gives its number; none outlives the test."""
    started: list[int] = []
    yield lambda work: forked(work, started)
    for process in started:
        try:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
        except (ProcessLookupError, ChildProcessError):  # it has ended, and was waited for
            continue


def forked(work, started: list[int]) -> int:
    process = os.fork()
    started.append(process)
    if process == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return process


def right(found, i: int) -> bool:
    return torch.equal(found["n"], torch.tensor(i)) and torch.equal(found["level0"], item(i)["level0"])


def test_killed_at_any_instant_an_item_is_whole_or_absent(child, tmp_path):
    """Two writers at a time over the same keys, under a limit; what is there is read while they go on."""
    drawn, root = random.Random(0), tmp_path / "s"
    FeatureCache(root).close()

    def write(seed):
        store, own = FeatureCache(root, limit_mb=2), random.Random(seed)
        while True:
            store.get_many([key(own.randrange(ITEMS))], items)

    seen = set()
    running = [child(lambda: write(1)), child(lambda: write(2))]
    for n in range(60):
        time.sleep(drawn.uniform(0.002, 0.02))
        victim = running.pop(0)
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
        seed = n + 3
        running.append(child(lambda seed=seed: write(seed)))
        if n % 10 == 9:
            for file in root.rglob("*.safetensors"):
                i = int(file.stem, 16)
                try:
                    found = unpack(key(i), read_file(file)).tensors
                except FileNotFoundError:  # evicted just now
                    continue
                assert right(found, i)
                seen.add(i)
    for victim in running:
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
    assert len(seen) > 20
    store = FeatureCache(root)
    for i in range(0, ITEMS, 7):
        assert right(store.get_many([key(i)], items)[0], i)
    assert store.counters.damaged == 0
    assert store.counters.hits > 0


def test_two_processes_compute_each_item_once(child, tmp_path):
    root, log = tmp_path / "s", tmp_path / "computed"
    count, workers = 300, 4

    def fill(seed):
        store = FeatureCache(root)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        def compute(keys):
            os.write(out, "".join(f"{k}\n" for k in keys).encode())
            time.sleep(0.001)
            return items(keys)

        keys = [key(i) for i in range(count)]
        random.Random(seed).shuffle(keys)
        for start in range(0, count, 50):
            part = keys[start : start + 50]
            for k, found in zip(part, store.get_many(part, compute, batch=4), strict=True):
                assert right(found, int(k[-8:], 16))

    running = [child(lambda seed=seed: fill(seed)) for seed in range(workers)]
    assert [os.waitpid(p, 0)[1] for p in running] == [0] * workers
    assert sorted(log.read_text().split()) == [key(i) for i in range(count)]


def test_who_waits_for_a_process_that_is_killed_computes_it(child, tmp_path):
    root, started = tmp_path / "s", tmp_path / "started"
    FeatureCache(root).close()

    def hang(keys):
        started.touch()
        time.sleep(600)

    stuck = child(lambda: FeatureCache(root).get_many([key(1)], hang))
    while not started.exists():
        time.sleep(0.001)

    def kill():
        time.sleep(0.2)
        os.kill(stuck, signal.SIGKILL)

    killer = child(kill)
    store = FeatureCache(root)
    assert right(store.get_many([key(1), key(2)], items)[0], 1)
    os.waitpid(stuck, 0)
    os.waitpid(killer, 0)
    assert store.counters.misses == 2


def test_patience_ends(child, tmp_path, caplog):
    root, started = tmp_path / "s", tmp_path / "started"
    FeatureCache(root).close()

    def hang(keys):
        started.touch()
        time.sleep(600)

    stuck = child(lambda: FeatureCache(root).get_many([key(1)], hang))
    while not started.exists():
        time.sleep(0.001)
    store = FeatureCache(root, patience=0.1)
    assert right(store.get_many([key(1)], items)[0], 1)
    assert "computing as well" in caplog.text
    os.kill(stuck, signal.SIGKILL)
    os.waitpid(stuck, 0)
