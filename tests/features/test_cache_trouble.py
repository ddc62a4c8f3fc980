"""The feature store in trouble: odd disks, many processes, values and files that should not be."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from boresight.features import cache_disk
from boresight.features.cache import FeatureCache
from boresight.features.cache_audit import info, prune, verify
from boresight.features.cache_locks import session_name
from boresight.features.cache_remembered import Remembered
from boresight.features.feature_store import get

RECIPE = "0123456789abcdef"


def key(i: int) -> str:
    return f"{RECIPE}-{i:032x}"


def item(i: int, side: int = 8) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(i)
    return {"level0": torch.randn(4, side, side, generator=g), "extents": torch.tensor([[96.0, 128.0]])}


def items(keys: list[str]) -> list[dict[str, torch.Tensor]]:
    return [item(int(k[-8:], 16)) for k in keys]


def never(keys):
    raise AssertionError(f"computed {keys}")


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a)


def files(root):
    return sorted(root.rglob("*.safetensors"))


def child(work) -> int:
    """Run ``work`` in a process of its own; its number."""
    process = os.fork()
    if process == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return process


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.WARNING, "boresight.features")
    return lambda: [r.getMessage() for r in caplog.records]


# --- disks -----------------------------------------------------------------------------------------------------------


def test_a_read_that_fails_is_a_miss(tmp_path, said, monkeypatch):
    store = FeatureCache(tmp_path / "s")
    get(store, key(1), lambda: item(1))

    def broken(*args):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as m:
        m.setattr(cache_disk.os, "readv", broken)
        assert same(get(store, key(1), lambda: item(1)), item(1))
    assert "Input/output error" in said()[0]


@contextmanager
def nobody():
    """root may write anywhere: be somebody else for a while."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def read_only():
    """A store with items 0 and 1, to which nobody may write."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        root = Path(place) / "s"
        store = FeatureCache(root)
        store.get_many([key(0), key(1)], items)
        store.close()
        for path in (root, *root.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        yield root
        for path in (root, *root.rglob("*")):
            path.chmod(0o755)


def test_a_folder_that_may_not_be_written_to_is_read(read_only, said):
    before = sorted(read_only.rglob("*"))
    with nobody():
        store = FeatureCache(read_only, limit_mb=1)
        store.describe(RECIPE, {"encoder": "x"})
        with store.hold([key(0)]):
            for _ in range(2):
                for k, found in zip([key(0), key(5)], store.get_many([key(0), key(5)], items), strict=True):
                    assert same(found, item(int(k[-8:], 16)))
        store.close()
    assert (store.counters.hits, store.counters.misses, store.counters.unwritten) == (2, 2, 2)
    assert sorted(read_only.rglob("*")) == before
    assert len(said()) == 1
    assert "may not be written to" in said()[0]


def test_damage_in_a_folder_that_may_not_be_written_to_is_said_once(read_only, said):
    file = files(read_only)[0]
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with nobody():
        store = FeatureCache(read_only)
        for _ in range(3):
            assert same(store.get_many([key(0)], items)[0], item(0))
    assert store.counters.damaged >= 3
    assert sum("damaged" in words for words in said()) == 1


def test_a_disk_without_locks_is_said_once_and_nothing_is_wrong(tmp_path, said, monkeypatch):
    def none(*args, **more):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("filelock._unix.fcntl.flock", none)
    store = FeatureCache(tmp_path / "s", limit_mb=1)
    for i in range(3):
        assert same(store.get_many([key(i)], items)[0], item(i))
    store.get_many([key(i) for i in range(3)], never)
    assert sum("No locks available" in words for words in said()) >= 1
    assert len(said()) == len(set(said()))


def test_a_store_that_was_deleted_is_not_made_again_by_its_end(tmp_path):
    store = FeatureCache(tmp_path / "s")
    store.get_many([key(0)], items)
    shutil.rmtree(tmp_path / "s")
    store.close()
    assert not (tmp_path / "s").exists()


def test_a_recipe_is_described_again_after_it_was_cleared(tmp_path):
    store = FeatureCache(tmp_path / "s", storage="fp16")
    store.describe(RECIPE, {"encoder": "tiny", "layers": [1, 2]})
    file = tmp_path / "s" / "items" / f"{RECIPE}.fp16" / "recipe.json"
    assert json.loads(file.read_text()) == {"encoder": "tiny", "layers": [1, 2]}
    shutil.rmtree(tmp_path / "s" / "items")
    store.get_many([key(0)], items)
    assert json.loads(file.read_text())["encoder"] == "tiny"


def test_what_is_read_does_not_depend_on_how_another_keeps_it(tmp_path):
    get(FeatureCache(tmp_path / "s", storage="int8"), key(1), lambda: item(1))
    store = FeatureCache(tmp_path / "s")
    assert same(get(store, key(1), lambda: item(1)), item(1))
    assert store.counters.misses == 1
    assert len(files(tmp_path)) == 2


def test_more_keys_are_missing_than_a_process_may_have_open_files(tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    store = FeatureCache(tmp_path / "s")
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        store.get_many([key(i) for i in range(300)], lambda keys: [{"n": torch.tensor(1)} for _ in keys], batch=4)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(files(tmp_path)) == 300


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        torch.tensor([[[3e38, 0.0], [0.0, -3e38]]]),  # a range that float32 does not have
        torch.zeros(2, 0, 3),
        torch.tensor([[[1e300]]], dtype=torch.float64),
        torch.full((2, 2, 2), 7.25),
    ],
)
def test_what_eight_bits_cannot_hold_stays_as_it_is(tmp_path, value):
    store = FeatureCache(tmp_path / "s", storage="int8")
    for found in (get(store, key(0), lambda: {"a": value}), store.get_many([key(0)], never)[0]):
        assert found["a"].dtype == value.dtype
        assert torch.equal(found["a"], value)


def test_half_precision_goes_into_eight_bits_too(tmp_path):
    store = FeatureCache(tmp_path / "s", storage="int8")
    value = item(1, 64)["level0"].half()
    found = get(store, key(0), lambda: {"a": value})["a"]
    assert found.dtype == torch.float16
    assert (found - value).abs().max() < 0.03
    assert files(tmp_path)[0].stat().st_size < 0.7 * value.nbytes


def test_no_name_is_lost(tmp_path):
    store = FeatureCache(tmp_path / "s", storage="int8")
    assert set(get(store, key(0), lambda: {"a": torch.rand(2, 3, 3), "x.low": torch.ones(1)})) == {"a", "x.low"}
    with pytest.raises(ValueError, match=r"in the way: \['a', 'a\.low'\]"):
        get(store, key(1), lambda: {"a": torch.rand(2, 3, 3), "a.low": torch.ones(1)})


# --- many at once ----------------------------------------------------------------------------------------------------


def test_processes_that_evict_at_once_keep_all_they_compute(tmp_path):
    told, root = tmp_path / "told", tmp_path / "s"
    one = get(FeatureCache(tmp_path / "one"), key(0), lambda: item(0)) and files(tmp_path / "one")[0].stat().st_size

    def fill(which):
        store = FeatureCache(root, limit_mb=40 * one / 1e6)
        for i in range(150):
            assert same(store.get_many([key(1000 * which + i)], items)[0], item(1000 * which + i))
        out = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(out, f"{store.counters.unwritten}\n".encode())

    running = [child(lambda w=w: fill(w)) for w in range(4)]
    assert [os.waitpid(p, 0)[1] for p in running] == [0] * 4
    assert told.read_text().split() == ["0"] * 4
    assert sum(f.stat().st_size for f in files(root)) <= 1.1 * 40 * one


def test_threads_together_keep_the_limit(tmp_path, monkeypatch):
    one = get(FeatureCache(tmp_path / "one"), key(0), lambda: item(0)) and files(tmp_path / "one")[0].stat().st_size
    limit, most, guard = 20 * one, [0], threading.RLock()
    store, real = FeatureCache(tmp_path / "s", limit_mb=20 * one / 1e6), cache_disk.write_file

    def watched(*args, **more):
        real(*args, **more)
        with guard:
            there = 0
            for file in files(tmp_path / "s"):
                try:
                    there += file.stat().st_size
                except FileNotFoundError:  # evicted just now
                    continue
            most[0] = max(most[0], there)

    monkeypatch.setattr("boresight.features.cache.write_file", watched)
    work = [
        threading.Thread(target=lambda o=o: [store.get_many([key(1000 * o + i)], items) for i in range(60)])
        for o in range(4)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert 0 < most[0] <= limit
    assert store.counters.unwritten == 0


def test_what_a_parent_holds_is_still_held_when_its_child_lets_go(tmp_path):
    root = tmp_path / "s"
    store = FeatureCache(root)
    store.get_many([key(0), key(1)], items)

    held = store.hold([key(0)])

    def hold():
        held.__exit__(None, None, None)  # the child leaves the block that its parent is still in
        with store.hold([key(1)]):
            store.get_many([key(0), key(1)], never)
        assert (store.counters.hits, store.counters.misses) == (2, 0)

    with held:
        assert os.waitpid(child(hold), 0)[1] == 0
        assert prune(root, limit_mb=0).items == 1
        store.get_many([key(0)], never)
    assert prune(root, limit_mb=0).items == 1


# --- seen from outside -----------------------------------------------------------------------------------------------


def test_looking_is_no_use(tmp_path):
    """Or a look at the store would change what goes first."""
    FeatureCache(tmp_path / "s").get_many([key(i) for i in range(3)], items)
    for file in files(tmp_path):
        os.utime(file, (1000, 1000))
    info(tmp_path / "s")
    verify(tmp_path / "s")
    assert {file.stat().st_mtime for file in files(tmp_path)} == {1000}


def test_a_session_that_goes_on_is_not_counted_twice(tmp_path):
    store = FeatureCache(tmp_path / "s")
    store.get_many([key(0)], items)
    for _ in range(2):
        store.close()
        for file in (tmp_path / "s" / "stats").iterdir():
            os.utime(file, (1000, 1000))
        prune(tmp_path / "s")
        store.get_many([key(0)], never)
    store.close()
    done = info(tmp_path / "s").counters
    assert (done.hits, done.misses) == (2, 1)


def test_what_a_dead_process_left_half_written_goes_at_once(tmp_path):
    FeatureCache(tmp_path / "s").get_many([key(0)], items)
    place = files(tmp_path)[0].parent
    process = child(lambda: None)
    os.waitpid(process, 0)
    host = session_name().rsplit("-", 2)[0]
    dead, living = place / f".a.{host}-{process}-00.1.tmp", place / f".a.{host}-{os.getpid()}-00.1.tmp"
    dead.touch()
    living.touch()
    assert prune(tmp_path / "s").unfinished == 1
    assert (dead.exists(), living.exists()) == (False, True)


# --- remembered hashes -----------------------------------------------------------------------------------------------


@pytest.fixture
def photo(tmp_path):
    file = tmp_path / "photo.bin"
    file.write_bytes(b"abc")
    os.utime(file, (1e9, 1e9))
    return file


def read(path):
    return torch.tensor(list(path.read_bytes()), dtype=torch.uint8)


def test_a_change_whose_time_was_set_back_is_seen(tmp_path, photo):
    (tmp_path / "s").mkdir()
    first, _ = Remembered(tmp_path / "s", "one").key(photo, read)
    time.sleep(0.02)  # more than a tick of the clock of files
    with photo.open("r+b") as out:
        out.write(b"x")
    os.utime(photo, (1e9, 1e9))
    second, image = Remembered(tmp_path / "s", "two").key(photo, read)
    assert image is not None
    assert second != first


def test_a_torn_line_spoils_none_after_it(tmp_path, photo):
    (tmp_path / "s" / "remembered").mkdir(parents=True)
    (tmp_path / "s" / "remembered" / "one.txt").write_text("torn li")
    Remembered(tmp_path / "s", "one").key(photo, read)
    assert Remembered(tmp_path / "s", "two").key(photo, never)[1] is None


def test_hashes_that_cannot_be_kept_cost_a_word(tmp_path, photo, said):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "remembered").write_text("no folder")
    one = Remembered(tmp_path / "s", "one")
    other = tmp_path / "other.bin"
    other.write_bytes(b"other")
    os.utime(other, (1e9, 1e9))
    assert one.key(photo, read)[0] != one.key(other, read)[0]
    assert len(said()) == 1
    assert "cannot be kept" in said()[0]
