"""A feature store seen from outside, by library and command line."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from boresight.cli import main
from boresight.core.errors import UserError
from boresight.features.cache import FeatureCache
from boresight.features.cache_audit import clear, info, named_recipe, prune, verify
from boresight.features.cache_disk import item_file
from boresight.features.feature_store import get

ONE, TWO = "a" * 32, "b" * 32


def key(i: int, recipe: str = ONE) -> str:
    return f"{recipe}-{i:032x}"


@pytest.fixture
def store(tmp_path) -> Path:
    """Three items of one encoder and two, of eight bits, of another."""
    first = FeatureCache(tmp_path)
    first.describe(ONE, {"encoder": "squeezenet", "weights": "0123456789abcdef"})
    for i in range(3):
        get(first, key(i), lambda: {"a": torch.ones(2, 3, 4)})
    get(first, key(0), lambda: {})
    first.close()
    second = FeatureCache(tmp_path, storage="int8")
    for i in range(2):
        get(second, key(i, TWO), lambda: {"a": torch.randn(2, 30, 40)})
    second.close()
    return tmp_path


def test_info_tells_items_bytes_hits_and_encoders(store):
    found = info(store)
    assert found.items == 5
    assert found.bytes == sum(p.stat().st_size for p in store.rglob("*.safetensors"))
    assert (found.counters.hits, found.counters.misses) == (1, 5)
    assert found.counters.hit_rate == pytest.approx(1 / 6)
    one, two = found.recipes
    assert (one.recipe, one.items, one.storage, one.error) == (ONE, 3, "fp32", None)
    assert one.about["encoder"] == "squeezenet"
    assert (two.items, two.storage, two.about) == (2, "int8", {})
    relative, largest = two.error["a"]
    assert 0 < relative < 0.01
    assert 0 < largest < 0.05
    json.dumps(found.to_dict(), allow_nan=False)


def test_verify_lists_damage_and_takes_it_away(store):
    assert verify(store) == (5, [])
    file = item_file(store, key(1))
    file.write_bytes(file.read_bytes()[:-3] + b"xxx")
    count, (damage,) = verify(store)
    assert (count, damage.file, damage.removed) == (5, str(file), False)
    assert "checksum" in damage.reason
    assert file.is_file()
    assert verify(store, take_away=True)[1][0].removed
    assert not file.is_file()
    assert verify(store) == (4, [])


def test_prune_takes_the_oldest_first_and_what_is_old(store):
    for i in range(3):
        os.utime(item_file(store, key(i)), (1000 + i, 1000 + i))
    assert prune(store, older_than_days=1).items == 3
    assert info(store).items == 2
    first, second = (item_file(store, key(i, f"{TWO}.int8")) for i in range(2))
    os.utime(second, (1000, 1000))
    assert prune(store, limit_mb=1.5 * first.stat().st_size / 1e6).items == 1
    assert first.is_file()


def test_prune_can_be_of_one_recipe_and_leaves_what_is_held(store):
    with FeatureCache(store).hold([key(0)]):
        assert prune(store, limit_mb=0, recipe="aaa").items == 2
    assert sorted(r.items for r in info(store).recipes) == [1, 2]


def test_prune_tidies_up_after_the_dead(store):
    old, new = store / "items" / ONE / ".dead.tmp", store / "items" / ONE / ".living.tmp"
    for file in (old, new):
        file.write_text("x")
    os.utime(old, (time.time() - 7200,) * 2)
    assert info(store).unfinished == 2
    done = prune(store)
    assert (done.unfinished, done.sessions) == (1, 2)
    assert not old.exists()
    assert new.exists()
    assert [f.name for f in (store / "stats").glob("*.json")] == ["total.json"]
    assert info(store).counters.misses == 5  # nothing was forgotten


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("read_seconds", 10**400),
        ("hits", 10**400),
        ("hits", True),
        ("hits", -5),
        ("read_seconds", float("nan")),
        ("read_seconds", float("inf")),
        ("hits", "7"),
        ("sessions", 7),
    ],
    ids=["long seconds", "long count", "true", "below zero", "nan", "infinite", "text", "sessions"],
)
def test_a_tally_that_was_tampered_with_loses_that_number_alone(store, field, value):
    was = info(store).counters
    for name in ("total", "strange"):
        (store / "stats" / f"{name}.json").write_text(json.dumps({"misses": 3, field: value}))
    assert info(store).counters == replace(was, misses=was.misses + 6)
    prune(store)
    assert info(store).counters == replace(was, misses=was.misses + 6)


def test_clear_takes_all_or_one_recipe(store):
    assert clear(store, recipe="b").items == 2
    assert [r.recipe for r in info(store).recipes] == [ONE]
    assert clear(store).items == 3
    assert info(store).items == 0
    assert info(store).counters.misses == 5


def test_a_recipe_named_in_full_is_that_one_though_another_begins_so(store):
    other = store / "items" / f"{ONE}.fp16" / "ab"
    other.mkdir(parents=True)
    assert named_recipe(store, ONE) == ONE
    with pytest.raises(UserError, match="2 recipes begin so"):
        named_recipe(store, ONE[:-1])


@pytest.mark.parametrize("work", [info, verify, prune, clear])
def test_a_folder_that_is_no_store_is_left_alone(tmp_path, work):
    (tmp_path / "items" / "x" / "yy").mkdir(parents=True)
    photo = tmp_path / "items" / "x" / "yy" / "photo.safetensors"
    photo.write_text("mine")
    with pytest.raises(UserError, match="not a feature store"):
        work(tmp_path)
    assert photo.read_text() == "mine"


@pytest.mark.parametrize(("start", "words"), [("c", "no recipe begins so"), ("", "2 recipes begin so")])
def test_a_recipe_must_be_named_well_enough(store, start, words):
    with pytest.raises(UserError, match=words):
        clear(store, recipe=start)
    assert info(store).items == 5


# --- the command line ---


def test_the_verbs_speak_json_and_plain(store, capsys):
    assert main(["cache", "info", str(store), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["items"] == 5
    assert main(["cache", "info", str(store)]) == 0
    said = capsys.readouterr().out
    assert "squeezenet (weights 0123456789ab): 3 items" in said
    assert "8 bits, relative error" in said
    assert main(["cache", "verify", str(store)]) == 0
    assert "5 items, 0 damaged" in capsys.readouterr().out
    assert main(["cache", "prune", str(store), "--limit-mb", "0", "--recipe", "b"]) == 0
    assert "2 items" in capsys.readouterr().out


def test_damage_that_stays_is_a_failure(store, capsys):
    item_file(store, key(0)).write_bytes(b"x")
    assert main(["cache", "verify", str(store)]) == 1
    assert "1 damaged" in capsys.readouterr().out
    assert main(["cache", "verify", str(store), "--remove", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["damaged"][0]["removed"] is True


def test_clear_asks_before_two_encoders_go(store, capsys):
    assert main(["cache", "clear", str(store)]) == 2
    assert "items of 2 encoders would go" in capsys.readouterr().err
    assert info(store).items == 5
    assert main(["cache", "clear", str(store), "--yes"]) == 0
    assert info(store).items == 0


@pytest.mark.parametrize(
    "words", [["info", "nowhere"], ["prune", "nowhere"], ["clear", "nowhere"], ["prune", ".", "--limit-mb", "-1"]]
)
def test_mistakes_are_one_line(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["cache", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1
