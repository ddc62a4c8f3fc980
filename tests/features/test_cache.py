"""The feature store on disk: never stale, never wrong, bounded, once."""

from __future__ import annotations

import errno
import json
import logging
import multiprocessing
import os
import pickle
import random
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from boresight.core.errors import UserError
from boresight.features import cache_disk
from boresight.features.cache import FeatureCache
from boresight.features.cache_disk import item_file, read_file, relative_file
from boresight.features.cache_file import pack, unpack
from boresight.features.feature_store import get

FORK = multiprocessing.get_context("fork")


def key(i: int, recipe: int = 0) -> str:
    return f"{recipe:032x}-{i * 2654435761 % 2**64:032x}"


def item(i: int, size: int = 500) -> dict[str, Tensor]:
    """What the item of ``key(i)`` must be: everything in it follows from i."""
    return {"a": torch.arange(size, dtype=torch.float32) * (i + 1), "n": torch.tensor([i])}


def is_right(found: dict[str, Tensor], i: int) -> bool:
    want = item(i, len(found["a"]))
    return all(torch.equal(found[name], value) for name, value in want.items())


def never(keys: list[str]) -> list[dict[str, Tensor]]:
    raise AssertionError(f"{len(keys)} items are computed that must be there")


def filled(folder: Path, count: int, **more) -> FeatureCache:
    store = FeatureCache(folder, **more)
    for i in range(count):
        get(store, key(i), lambda i=i: item(i))
    return store


# --- what is written is what is read ---------------------------------------------------------------------------------


def test_items_outlive_the_object_and_are_computed_once(tmp_path):
    filled(tmp_path, 3)
    store = FeatureCache(tmp_path)
    found = store.get_many([key(2), key(0)], never)
    assert is_right(found[0], 2)
    assert is_right(found[1], 0)
    assert (store.counters.hits, store.counters.misses) == (2, 0)
    assert store.counters.bytes_read > 4000


@pytest.mark.parametrize("storage", ["fp32", "fp16", "bf16", "int8"])
@pytest.mark.parametrize("half", [False, True])
def test_a_fresh_item_equals_the_kept_one_bit_for_bit(tmp_path, storage, half):
    made = {"m": torch.randn(4, 5, 6) * 3, "v": torch.randn(7), "extents": torch.tensor([[0.1, 1e6]])}
    store = FeatureCache(tmp_path, storage=storage, half=half)
    fresh, kept = (get(store, key(0), lambda: made) for _ in range(2))
    assert store.counters.hits == 1
    assert list(kept) == list(fresh) or set(kept) == set(fresh)
    for name, value in fresh.items():
        assert kept[name].dtype == value.dtype
        assert torch.equal(kept[name], value)
    assert torch.equal(kept["extents"], made["extents"])
    tolerance = {"fp32": 0, "fp16": 5e-3, "bf16": 5e-2, "int8": 5e-2}[storage]
    assert float((kept["m"].float() - made["m"]).abs().max()) <= tolerance


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused_loudly(tmp_path, bad):
    store = FeatureCache(tmp_path)
    with pytest.raises(ValueError, match="are not finite"):
        get(store, key(0), lambda: {"a": torch.tensor([1.0, bad])})
    assert key(0) not in store


@pytest.mark.parametrize(
    "bad", ["", "../x", "k", "AB" * 8 + "-" + "0" * 32, f"{0:032x}-{0:031x}", f"{0:015x}-{0:032x}"]
)
def test_what_is_no_key_is_refused(tmp_path, bad):
    with pytest.raises(ValueError, match="a key is"):
        get(FeatureCache(tmp_path), bad, lambda: item(0))


def test_the_caller_s_folder_may_be_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert FeatureCache("~/features").folder == tmp_path / "features"


# --- never wrong -----------------------------------------------------------------------------------------------------


def write_for_ever(folder: Path, seed: int) -> None:
    """Write items one after the other, in place of those that are there, until killed."""
    store, order = FeatureCache(folder), random.Random(seed)
    while True:
        i = order.randrange(40)
        item_file(folder, key(i)).unlink(missing_ok=True)
        get(store, key(i), lambda i=i: item(i, 20_000))


def test_no_wrong_item_after_200_writers_were_killed(tmp_path):
    """kill -9 at a random moment, 200 times: every item is right, or not there."""
    moments, seen = random.Random(0), 0
    reader = FeatureCache(tmp_path)
    for round_ in range(200):
        writer = FORK.Process(target=write_for_ever, args=(tmp_path, round_))
        writer.start()
        time.sleep(moments.uniform(0.0, 0.02))
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        for i in moments.sample(range(40), 6):
            if item_file(tmp_path, key(i)).is_file():
                assert is_right(reader.get_many([key(i)], never)[0], i)
                seen += 1
    assert seen > 50  # they did write
    assert reader.counters.damaged == 0
    for i in range(40):  # nothing that the dead left stands in the way
        assert is_right(get(reader, key(i), lambda i=i: item(i, 20_000)), i)


def test_200_flipped_bytes_are_all_found(tmp_path, caplog):
    """A byte at a random place of a file is changed: never a wrong item, each reported once and computed again."""
    places = random.Random(1)
    store = filled(tmp_path, 10)
    for round_ in range(200):
        i = places.randrange(10)
        file = item_file(tmp_path, key(i))
        data = bytearray(file.read_bytes())
        at = places.choice([places.randrange(len(data)), places.randrange(min(300, len(data)))])  # headers as well
        data[at] ^= 1 << places.randrange(8)
        file.write_bytes(data)
        before = store.counters.misses
        found = get(store, key(i), lambda i=i: item(i))
        assert is_right(found, i)
        assert store.counters.misses == before + 1, f"round {round_}: byte {at} was changed and nobody saw it"
        assert is_right(store.get_many([key(i)], never)[0], i)
    assert store.counters.damaged == 200
    said = [r.getMessage() for r in caplog.records if "damaged" in r.getMessage()]
    assert len(said) == 10  # once an item
    assert "computed again" in said[0]
    assert ".safetensors" in said[0]


@pytest.mark.parametrize("size", [0, 1, 8, 60, 61, 200])
def test_a_file_that_was_cut_off_is_computed_again(tmp_path, size, caplog):
    store = filled(tmp_path, 1)
    file = item_file(tmp_path, key(0))
    file.write_bytes(file.read_bytes()[:size])
    assert is_right(get(store, key(0), lambda: item(0)), 0)
    assert store.counters.damaged == 1


def test_a_file_under_the_name_of_another_is_found_out(tmp_path, caplog):
    store = filled(tmp_path, 2)
    item_file(tmp_path, key(1)).write_bytes(item_file(tmp_path, key(0)).read_bytes())
    assert is_right(get(store, key(1), lambda: item(1)), 1)
    assert "another key" in caplog.text


def test_a_file_of_another_program_is_found_out(tmp_path, caplog):
    from safetensors.torch import save_file

    store = filled(tmp_path, 1)
    save_file(item(7), item_file(tmp_path, key(0)))
    assert is_right(get(store, key(0), lambda: item(0)), 0)


def test_a_tensor_that_was_read_does_not_change_with_its_file(tmp_path):
    store = filled(tmp_path, 1)
    found = store.get_many([key(0)], never)[0]
    file = item_file(tmp_path, key(0))
    file.write_bytes(b"\0" * file.stat().st_size)
    assert is_right(found, 0)


# --- a disk that cannot be written to --------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_full_disk_costs_time_and_nothing_else(tmp_path, monkeypatch, caplog, error):
    store = filled(tmp_path, 3)
    real = os.writev
    wrote = []

    def full(descriptor, parts):
        if wrote:
            raise OSError(error, os.strerror(error))
        wrote.append(real(descriptor, [bytes(parts[0])[:10]]))  # some of it was written before
        return wrote[0]

    monkeypatch.setattr(cache_disk.os, "writev", full)
    for i in range(8):
        assert is_right(get(store, key(i), lambda i=i: item(i)), i)
    assert store.counters.hits == 3
    assert store.counters.unwritten == 5
    assert caplog.text.count("features cannot be kept") == 1
    assert not list(tmp_path.rglob("*.tmp"))
    monkeypatch.setattr(cache_disk.os, "writev", real)
    get(store, key(3), lambda: item(3))
    assert key(3) not in store  # it is left alone for a while
    store._pause.seconds = 0.0
    store._pause.begin()
    get(store, key(3), lambda: item(3))
    assert is_right(FeatureCache(tmp_path).get_many([key(3)], never)[0], 3)


def test_a_folder_that_may_not_be_written_to_is_read(tmp_path, monkeypatch):
    filled(tmp_path, 2)
    monkeypatch.setattr(cache_disk, "_can_write", lambda folder: False)
    before = sorted(p for p in tmp_path.rglob("*"))
    store = FeatureCache(tmp_path)
    assert is_right(store.get_many([key(1)], never)[0], 1)
    assert is_right(get(store, key(5), lambda: item(5)), 5)
    with store.hold([key(1)]):
        store.describe("0" * 32, {"encoder": "x"})
        store.close()
    assert store.counters.unwritten == 1
    left = {p for p in tmp_path.rglob("*")} - set(before)
    assert {p.name for p in left} <= {"locks", *(p.name for p in left if p.parent.name == "locks")}


def test_a_tmpfs_that_is_too_small(tmp_path):
    """The real thing, where this process may mount one."""
    import subprocess

    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("this process may not mount a file system")
    try:
        store = FeatureCache(place / "store")
        for _ in range(2):
            for i in range(30):
                assert is_right(get(store, key(i), lambda i=i: item(i, 5000)), i)
        assert store.counters.unwritten > 10
        assert store.counters.hits > 5
        store.close()
    finally:
        subprocess.run(["umount", str(place)], check=True)


# --- folders ---------------------------------------------------------------------------------------------------------


def test_a_folder_with_other_things_is_not_taken_for_a_store(tmp_path):
    (tmp_path / "photo.jpg").write_text("x")
    with pytest.raises(UserError, match=r"no feature store, but holds `photo\.jpg`"):
        FeatureCache(tmp_path)


def test_a_store_of_another_version_is_refused(tmp_path):
    filled(tmp_path, 1)
    (tmp_path / "format.json").write_text('{"format": "boresight-features-9"}')
    with pytest.raises(UserError, match="boresight-features-9"):
        FeatureCache(tmp_path)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"storage": "fp8"}, "store.storage=fp8"),
        ({"limit_mb": -1}, "must not be negative"),
        ({"remote": "nope://x"}, "nope"),
    ],
)
def test_settings_are_checked(tmp_path, more, words):
    with pytest.raises(UserError, match=words):
        FeatureCache(tmp_path / "s", **more)


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot be made"):
        FeatureCache(tmp_path / "file" / "store")


# --- once ------------------------------------------------------------------------------------------------------------


def fill_shuffled(folder: Path, log: Path, seed: int, count: int, batch: int) -> None:
    """Ask for all items in an order of one's own; note every one that is computed."""
    store, order = FeatureCache(folder), list(range(count))
    random.Random(seed).shuffle(order)
    number = {key(i): i for i in range(count)}

    def compute(keys: list[str]) -> list[dict[str, Tensor]]:
        time.sleep(0.002)
        with log.open("a") as out:
            out.write("".join(f"{number[k]}\n" for k in keys))
        return [item(number[k]) for k in keys]

    for start in range(0, count, 4):
        part = order[start : start + 4]
        found = store.get_many([key(i) for i in part], compute, batch=batch)
        assert all(is_right(f, i) for f, i in zip(found, part, strict=True))
    store.close()


@pytest.mark.parametrize("batch", [1, 4])
def test_two_processes_compute_every_item_once(tmp_path, batch):
    log, count = tmp_path / "computed.txt", 120
    store = tmp_path / "store"
    workers = [FORK.Process(target=fill_shuffled, args=(store, log, seed, count, batch)) for seed in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [w.exitcode for w in workers] == [0, 0]
    assert sorted(int(line) for line in log.read_text().split()) == list(range(count))
    one = FeatureCache(tmp_path / "one")
    for i in range(count):
        get(one, key(i), lambda i=i: item(i))
        assert item_file(store, key(i)).read_bytes() == item_file(one.folder, key(i)).read_bytes()


def test_threads_compute_every_item_once(tmp_path):
    store, computed, guard = FeatureCache(tmp_path), [], threading.Lock()

    def compute(keys):
        time.sleep(0.001)
        with guard:
            computed.extend(keys)
        return [item(int(number[k])) for k in keys]

    number = {key(i): i for i in range(40)}
    errors = []

    def work(seed):
        order = list(range(40))
        random.Random(seed).shuffle(order)
        for i in order:
            if not is_right(store.get_many([key(i)], compute)[0], i):
                errors.append(i)

    threads = [threading.Thread(target=work, args=(s,)) for s in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors
    assert len(computed) == 40
    assert store.counters.hits + store.counters.misses == 160


def hold_a_claim(folder: Path, ready, release) -> None:
    store = FeatureCache(folder)

    def slow(keys):
        ready.set()
        release.wait(20)
        return [item(0) for _ in keys]

    store.get_many([key(0)], slow)


def test_a_dead_owner_s_claim_is_free(tmp_path):
    ready, release = FORK.Event(), FORK.Event()
    other = FORK.Process(target=hold_a_claim, args=(tmp_path, ready, release))
    other.start()
    assert ready.wait(20)
    os.kill(other.pid, signal.SIGKILL)
    other.join()
    assert is_right(get(FeatureCache(tmp_path), key(0), lambda: item(0)), 0)


def test_who_waits_too_long_computes_as_well(tmp_path, caplog):
    ready, release = FORK.Event(), FORK.Event()
    other = FORK.Process(target=hold_a_claim, args=(tmp_path, ready, release))
    other.start()
    assert ready.wait(20)
    store = FeatureCache(tmp_path, patience=0.2)
    assert is_right(get(store, key(0), lambda: item(0)), 0)
    assert store.counters.misses == 1
    assert "waited" in caplog.text
    release.set()
    other.join()
    assert other.exitcode == 0


def test_who_waits_gets_what_the_other_computed(tmp_path):
    ready, release = FORK.Event(), FORK.Event()
    other = FORK.Process(target=hold_a_claim, args=(tmp_path, ready, release))
    other.start()
    assert ready.wait(20)
    threading.Timer(0.3, release.set).start()
    store = FeatureCache(tmp_path)
    found = store.get_many([key(1), key(0)], lambda keys: [item(1) for k in keys if k == key(1)] or never(keys))
    other.join()
    assert is_right(found[0], 1)
    assert is_right(found[1], 0)


def test_without_locks_nothing_is_wrong(tmp_path, monkeypatch):
    store = FeatureCache(tmp_path)
    store._claims.useless = "no locks here"
    assert is_right(get(store, key(0), lambda: item(0)), 0)
    assert is_right(store.get_many([key(0)], never)[0], 0)


# --- bounded ---------------------------------------------------------------------------------------------------------


def size_of(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*.safetensors"))


ITEM_MB = 2240 / 1e6  # of item(i), with its header


def test_the_least_recently_used_goes_first(tmp_path):
    store = FeatureCache(tmp_path, limit_mb=3.5 * ITEM_MB)
    for i in (0, 1, 2):
        get(store, key(i), lambda i=i: item(i))
    store.get_many([key(0)], never)
    get(store, key(3), lambda: item(3))
    assert [key(i) in store for i in range(4)] == [True, False, True, True]
    assert store.counters.evicted == 1
    assert size_of(tmp_path) <= 3.5 * ITEM_MB * 1e6


def test_the_limit_holds_after_every_write(tmp_path):
    store = FeatureCache(tmp_path, limit_mb=10 * ITEM_MB)
    for i in range(60):
        assert is_right(get(store, key(i), lambda i=i: item(i, 300 + 13 * i % 400)), i)
        assert size_of(tmp_path) <= 10 * ITEM_MB * 1e6


def test_an_item_larger_than_the_limit_is_computed_every_time(tmp_path, caplog):
    store = FeatureCache(tmp_path, limit_mb=ITEM_MB / 2)
    for _ in range(2):
        assert is_right(get(store, key(0), lambda: item(0)), 0)
    assert store.counters.unwritten == 2
    assert caplog.text.count("raise the limit") == 1


def test_items_that_are_held_stay(tmp_path, caplog):
    store = FeatureCache(tmp_path, limit_mb=2.5 * ITEM_MB)
    for i in (0, 1):
        get(store, key(i), lambda i=i: item(i))
    with store.hold([key(0), key(1)]):
        assert is_right(get(store, key(2), lambda: item(2)), 2)
        assert [key(i) in store for i in range(3)] == [True, True, False]
        assert store.counters.unwritten == 1
    get(store, key(2), lambda: item(2))
    assert key(2) in store
    assert key(0) not in store


def hold_items(folder: Path, ready, release) -> None:
    with FeatureCache(folder).hold([key(0)]):
        ready.set()
        release.wait(20)


@pytest.mark.parametrize("dies", [False, True])
def test_what_another_process_holds_stays_as_long_as_it_lives(tmp_path, dies):
    store = FeatureCache(tmp_path, limit_mb=2.5 * ITEM_MB)
    for i in (0, 1):
        get(store, key(i), lambda i=i: item(i))
    ready, release = FORK.Event(), FORK.Event()
    other = FORK.Process(target=hold_items, args=(tmp_path, ready, release))
    other.start()
    assert ready.wait(20)
    if dies:
        os.kill(other.pid, signal.SIGKILL)
        other.join()
    get(store, key(2), lambda: item(2))
    assert (key(0) in store) is not dies
    assert (key(1) in store) is dies
    if not dies:  # a dead one would never take note
        release.set()
        other.join()


def read_all(folder: Path, rounds: int) -> None:
    store = FeatureCache(folder)
    for _ in range(rounds):
        for i in range(30):
            assert is_right(get(store, key(i), lambda i=i: item(i)), i)
    assert store.counters.damaged == 0


def test_readers_never_see_half_an_item_while_others_evict(tmp_path):
    readers = [FORK.Process(target=read_all, args=(tmp_path, 15)) for _ in range(2)]
    for r in readers:
        r.start()
    store = FeatureCache(tmp_path, limit_mb=10 * ITEM_MB)
    while any(r.is_alive() for r in readers):
        for i in range(30, 60):
            get(store, key(i), lambda i=i: item(i))
    for r in readers:
        r.join()
    assert [r.exitcode for r in readers] == [0, 0]
    assert store.counters.evicted > 0


# --- other processes, other places -----------------------------------------------------------------------------------


def test_a_store_can_be_sent_to_another_process(tmp_path):
    store = filled(tmp_path, 2, limit_mb=5, storage="fp16")
    other = pickle.loads(pickle.dumps(store))
    assert other.storage == "fp16"
    assert other.session != store.session
    assert is_right(other.get_many([key(1)], never)[0], 1)
    assert other.counters.hits == 1


def use_inherited(store: FeatureCache) -> None:
    assert is_right(store.get_many([key(1)], never)[0], 1)
    assert store.counters.hits == 1  # its own
    store.close()


def test_a_forked_process_has_counters_of_its_own(tmp_path):
    store = filled(tmp_path, 2)
    store.get_many([key(0)], never)
    child = FORK.Process(target=use_inherited, args=(store,))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert store.counters.hits == 1
    assert len(list((tmp_path / "stats").glob("*.json"))) == 1  # the child's; ours are written at the end
    store.close()
    assert len(list((tmp_path / "stats").glob("*.json"))) == 2


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_second_level_is_read_and_kept_here(tmp_path, kind):
    import fsspec

    filled(tmp_path / "shared", 3)
    address = f"memory://store-{tmp_path.name}" if kind == "memory" else f"file://{tmp_path / 'shared'}"
    if kind == "memory":
        system, base = fsspec.core.url_to_fs(address)
        for i in range(3):
            system.pipe_file(f"{base}/{relative_file(key(i))}", item_file(tmp_path / "shared", key(i)).read_bytes())
    store = FeatureCache(tmp_path / "here", remote=address)
    assert is_right(store.get_many([key(2)], never)[0], 2)
    assert (store.counters.hits, store.counters.fetched, store.counters.misses) == (1, 1, 0)
    assert is_right(FeatureCache(tmp_path / "here").get_many([key(2)], never)[0], 2)  # no second level needed now
    assert is_right(get(store, key(9), lambda: item(9)), 9)  # not there either
    assert store.counters.misses == 1


def test_a_damaged_item_of_the_second_level_is_computed(tmp_path, caplog):
    filled(tmp_path / "shared", 1)
    file = item_file(tmp_path / "shared", key(0))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    store = FeatureCache(tmp_path / "here", remote=f"file://{tmp_path / 'shared'}")
    assert is_right(get(store, key(0), lambda: item(0)), 0)
    assert store.counters.damaged == 1
    assert file.is_file()  # it is not ours to remove


def test_a_second_level_that_cannot_be_reached_costs_a_word(tmp_path, caplog):
    store = FeatureCache(tmp_path / "here", remote="memory://x")

    class Down:
        def cat_file(self, path):
            raise OSError("connection refused")

    store.remote._opened = (Down(), "x")
    for i in range(3):
        assert is_right(get(store, key(i), lambda i=i: item(i)), i)
    assert caplog.text.count("connection refused") == 1


def test_the_counters_of_a_session_are_kept(tmp_path):
    store = filled(tmp_path, 3)
    store.get_many([key(0)], never)
    store.close()
    (file,) = (tmp_path / "stats").glob("*.json")
    told = json.loads(file.read_text())
    assert (told["hits"], told["misses"]) == (1, 3)


def test_a_recipe_is_described_once(tmp_path):
    store = FeatureCache(tmp_path)
    store.describe("a" * 32, {"encoder": "one"})
    store.describe("a" * 32, {"encoder": "two"})
    assert json.loads((tmp_path / "items" / ("a" * 32) / "recipe.json").read_text()) == {"encoder": "one"}


def test_a_read_is_noted_and_a_file_is_read_whole(tmp_path):
    filled(tmp_path, 1)
    file = item_file(tmp_path, key(0))
    os.utime(file, (1, 1))
    assert bytes(read_file(file).numpy()) == file.read_bytes()
    assert file.stat().st_mtime > 1000


def test_warnings_are_of_this_package_s_logger():
    assert logging.getLogger("boresight.features").name == cache_disk.log.name


def test_an_item_whose_parts_do_not_fit_is_computed_again(tmp_path):
    """Bytes with a right checksum may still be an item that nobody wrote."""
    made = {"m": torch.arange(24.0).reshape(2, 3, 4)}
    store = FeatureCache(tmp_path, storage="int8")
    get(store, key(0), lambda: made)
    file = item_file(tmp_path, f"{key(0).rpartition('-')[0]}.int8-{key(0).rpartition('-')[2]}")
    packed = unpack(file_key(file), read_file(file))
    tensors = packed.tensors | {"m.low": torch.zeros(5, 1, 1)}
    file.write_bytes(b"".join(bytes(part) for part in pack(file_key(file), tensors, packed.notes)))
    found = get(FeatureCache(tmp_path, storage="int8"), key(0), lambda: made)
    assert torch.allclose(found["m"], made["m"], atol=0.05)


def file_key(file: Path) -> str:
    """The key of the item that lies there."""
    return f"{file.parents[1].name}-{file.stem}"
