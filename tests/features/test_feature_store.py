"""What every store promises, and the one in memory."""

import pytest
import torch

from boresight.core.errors import UserError
from boresight.features.cache import FeatureCache
from boresight.features.feature_store import Counters, MemoryStore, get


def key(i: int) -> str:
    return f"{0:032x}-{i:032x}"


def item(value, size=250):
    return {"a": torch.full((size,), float(value)), "n": torch.tensor([value])}


def memory(tmp_path):
    return MemoryStore(1)


def disk(tmp_path):
    return FeatureCache(tmp_path / "store")


every_store = pytest.mark.parametrize("make", [memory, disk])


@every_store
def test_missing_items_are_computed_in_batches_each_once_and_in_order(tmp_path, make):
    store, asked = make(tmp_path), []

    def compute(keys):
        asked.append(list(keys))
        return [item(int(k[-4:], 16)) for k in keys]

    get(store, key(3), lambda: item(3))
    found = store.get_many([key(i) for i in (5, 3, 1, 5, 2)], compute, batch=2)
    assert [int(f["n"]) for f in found] == [5, 3, 1, 5, 2]
    assert asked == [[key(5), key(1)], [key(2)]]
    assert (store.counters.hits, store.counters.misses) == (1, 4)
    assert store.counters.hit_rate == 0.2
    again = store.get_many([key(1), key(5)], compute, batch=2)
    assert [int(f["n"]) for f in again] == [1, 5]
    assert len(asked) == 2
    assert key(5) in store
    assert key(9) not in store


@every_store
def test_nothing_asked_is_nothing_found(tmp_path, make):
    assert make(tmp_path).get_many([], lambda keys: []) == []


@every_store
def test_another_number_of_items_than_keys_is_refused(tmp_path, make):
    with pytest.raises(ValueError, match="2 items were to be computed, 1 came back"):
        make(tmp_path).get_many([key(0), key(1)], lambda keys: [item(0)], batch=2)


@every_store
def test_what_fails_is_not_kept_and_can_be_asked_again(tmp_path, make):
    store = make(tmp_path)

    def broken(keys):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        store.get_many([key(0)], broken)
    assert int(get(store, key(0), lambda: item(7))["n"]) == 7


def test_counters_add_up_and_take_off():
    one, two = Counters(hits=3, misses=1, bytes_read=10), Counters(hits=1, misses=1, bytes_read=4)
    assert one.since(two) == Counters(hits=2, misses=0, bytes_read=6)
    assert one.plus(two) == Counters(hits=4, misses=2, bytes_read=14)
    assert one.copy() is not one
    assert Counters().hit_rate is None


def test_memory_gives_up_the_least_recently_used():
    store = MemoryStore(2 * (1000 + 8) / 1e6)  # two items
    x, y, z, large = (key(i) for i in range(4))
    for k in (x, y, x, z):
        get(store, k, lambda: item(1))
    assert [k in store for k in (x, y, z)] == [True, False, True]
    assert store.held == 2 * 1008
    assert (store.counters.hits, store.counters.misses, store.counters.evicted) == (1, 3, 1)
    get(store, large, lambda: item(1, 1000))
    assert large not in store
    with pytest.raises(UserError, match="megabytes=-1"):
        MemoryStore(-1)


def test_half_keeps_what_does_not_fit_and_whole_numbers():
    store = MemoryStore(1, half=True)
    large = {"a": torch.tensor([1e5, 1.0]), "b": torch.tensor([1 / 3]), "n": torch.tensor([70000])}
    for _ in range(2):
        found = get(store, key(0), lambda: large)
        assert torch.equal(found["a"], large["a"])
        assert torch.equal(found["n"], large["n"])
        assert found["b"].dtype == torch.float32
        assert torch.equal(found["b"], large["b"].half().float())
