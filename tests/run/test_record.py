from __future__ import annotations

import errno
import json
import os
import resource
from contextlib import contextmanager

import pyarrow.parquet as pq
import pytest

from boresight.core.errors import UserError
from boresight.run import record
from boresight.run.record import (
    RunFolder,
    coco_results,
    environment,
    read_json,
    read_parquet,
    write_atomic,
    write_json,
    write_parquet,
    write_text,
    write_yaml,
)


@contextmanager
def disk_of(size: int):
    """No file can grow beyond ``size`` bytes: what a full disk does, done by the system."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def full(path):
    path.write_text("a piece")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# --- single files ----------------------------------------------------------------------------------------------------


def test_a_file_is_replaced_whole(tmp_path):
    file = tmp_path / "deep" / "er" / "a.txt"
    write_text(file, "old")
    write_text(file, "new, é")
    assert file.read_bytes() == "new, é".encode()
    assert os.listdir(file.parent) == ["a.txt"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "a.txt"
    write_text(file, "old")
    with pytest.raises(UserError, match=r"a\.txt: cannot be written \(No space left on device\)"):
        write_atomic(file, full)
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_failed_rename_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    file = tmp_path / "a.txt"
    write_text(file, "old")

    def broken(source, target):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(record.os, "replace", broken)
    with pytest.raises(UserError, match="Input/output error"):
        write_text(file, "new")
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_bug_in_a_writer_stays_a_bug(tmp_path):
    file = tmp_path / "a.txt"
    write_text(file, "old")

    def buggy(path):
        path.write_text("a piece")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_atomic(file, buggy)
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_folder_that_cannot_be_made_is_the_users_mistake(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        write_text(tmp_path / "file" / "a.txt", "new")
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize("kind", ["text", "json", "yaml", "parquet"])
def test_every_writer_survives_a_full_disk(tmp_path, kind):
    file = tmp_path / "a"
    long = [str(i) for i in range(20_000)]
    write = {
        "text": lambda: write_text(file, " ".join(long)),
        "json": lambda: write_json(file, {"a": long}),
        "yaml": lambda: write_yaml(file, {"a": long}),
        "parquet": lambda: write_parquet(file, [{"a": x} for x in long]),
    }[kind]
    file.write_text("old")
    with disk_of(5_000), pytest.raises(UserError, match="cannot be written"):
        write()
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]
    write()
    assert file.stat().st_size > 5_000


def test_json_has_a_version_and_no_nan(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, {"x": 1.5})
    assert json.loads(file.read_text()) == {"schema_version": 1, "x": 1.5}
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON"):
            write_json(file, {"x": bad})
    assert json.loads(file.read_text())["x"] == 1.5


# --- tables ----------------------------------------------------------------------------------------------------------


def test_rows_survive_parquet(tmp_path):
    rows = [{"a": 1, "b": 0.1, "c": "x", "d": None}, {"a": 2, "b": None, "c": None, "d": None}]
    file = tmp_path / "t.parquet"
    write_parquet(file, rows)
    assert read_parquet(file) == rows
    assert read_parquet(tmp_path / "none.parquet") == []


def test_a_column_that_comes_late_is_empty_before(tmp_path):
    file = tmp_path / "t.parquet"
    write_parquet(file, [{"step": 1}, {"step": 2, "val": 0.5}])
    assert read_parquet(file) == [{"step": 1, "val": None}, {"step": 2, "val": 0.5}]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1", b"not a table"])
def test_a_damaged_table_is_named(tmp_path, content):
    (tmp_path / "metrics.parquet").write_bytes(content)
    with pytest.raises(
        UserError, match=r"metrics\.parquet: cannot be read as a table in Parquet .*; restore it"
    ) as caught:
        read_parquet(tmp_path / "metrics.parquet")
    assert "\n" not in str(caught.value)


def test_a_table_that_fits_no_memory_is_refused_unread(tmp_path, monkeypatch):
    write_parquet(tmp_path / "a.parquet", [{"a": 1, "b": 2}] * 10)
    monkeypatch.setattr("boresight.run.record.MOST_VALUES", 19)
    with pytest.raises(UserError, match=r"a\.parquet: 10 rows of 2 columns are too many"):
        read_parquet(tmp_path / "a.parquet")


def test_the_folder_of_a_table_adds_no_column(tmp_path):
    write_parquet(tmp_path / "seed=1" / "a.parquet", [{"a": 1}])
    assert read_parquet(tmp_path / "seed=1" / "a.parquet") == [{"a": 1}]


def test_a_damaged_summary_is_named(tmp_path):
    (tmp_path / "done.json").write_text("[1]")
    with pytest.raises(UserError, match=r"done\.json: is a JSON list, not an object"):
        read_json(tmp_path / "done.json")


def test_columns_with_types_stand_even_without_rows(tmp_path):
    file = tmp_path / "t.parquet"
    columns = {"image": "string", "score": "float64", "object": "int64"}
    write_parquet(file, [], columns)
    schema = pq.read_schema(file)
    assert {n: str(schema.field(n).type) for n in schema.names} == {
        "image": "string",
        "score": "double",
        "object": "int64",
    }
    write_parquet(file, [{"score": 1, "image": "a"}], columns)
    assert read_parquet(file) == [{"image": "a", "score": 1.0, "object": None}]


def test_coco_boxes_are_centred_on_the_point():
    row = {"image": "a.png", "image_id": 7, "category_id": 1, "x": 10.5, "y": 4.0, "score": 0.25}
    (result,) = coco_results([row])
    place = {"bbox": [9.0, 2.5, 3.0, 3.0], "score": 0.25, "point": [10.5, 4.0]}
    assert result == {"image_id": 7, "file_name": "a.png", "category_id": 1, **place}


def test_the_environment_is_plain_json():
    found = environment()
    assert json.loads(json.dumps(found)) == found
    assert set(found["packages"]) >= {"boresight", "torch", "accelerate"}
    assert found["packages"]["torch"]


# --- the folder ------------------------------------------------------------------------------------------------------


def test_fresh_folders_never_share_a_name(tmp_path):
    names = [RunFolder.fresh(tmp_path / "runs", "a").root.name for _ in range(3)]
    assert names == ["a", "a-2", "a-3"]


def test_a_base_that_is_a_file_is_the_users_mistake(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        RunFolder.fresh(tmp_path / "runs", "a")


def test_a_missing_run_lists_its_neighbours(tmp_path):
    for name in ("b", "a"):
        write_text(tmp_path / name / "config.yaml", "")
    with pytest.raises(UserError, match=r"no run here.*runs there: a, b$"):
        RunFolder.existing(tmp_path / "c")
    assert RunFolder.existing(tmp_path / "a").root == tmp_path / "a"
    with pytest.raises(UserError, match="`boresight train` makes one"):
        RunFolder.existing(tmp_path / "nowhere" / "c")


def state_in(run: RunFolder, step: int, **more) -> None:
    run.save_state(step, lambda p: (p / "weights").write_text(str(step)) and None, **more)


def test_states_replace_each_other(tmp_path):
    run = RunFolder(tmp_path)
    for step in (2, 10):
        state_in(run, step)
    assert [p.name for p in run.states()] == ["state-10"]
    assert (run.states()[0] / "weights").read_text() == "10"
    state_in(run, 11, keep=2)
    assert [p.name for p in run.states()] == ["state-10", "state-11"]


def test_a_state_can_be_saved_again(tmp_path):
    """A run that was continued from an older state comes by here once more."""
    run = RunFolder(tmp_path)
    state_in(run, 2)
    run.save_state(2, lambda p: (p / "weights").write_text("again") and None)
    assert (run.states()[0] / "weights").read_text() == "again"


def test_leftovers_of_a_kill_are_no_states(tmp_path, leftovers):
    run = RunFolder(tmp_path)
    state_in(run, 2)
    for name in ("state-4.partial", "state-x", "state-", "state-4.partial.partial"):
        (run.checkpoints / name).mkdir()
    assert [p.name for p in run.states()] == ["state-2"]
    (run.checkpoints / "state-4.partial" / "old piece").write_text("")
    state_in(run, 4)
    assert [p.name for p in run.states()] == ["state-4"]
    assert os.listdir(run.checkpoints / "state-4") == ["weights"]


def fail_with(error: Exception):
    def save(partial):
        (partial / "weights").write_text("a piece")
        raise error

    return save


def test_a_failed_state_leaves_the_one_before(tmp_path, leftovers):
    from safetensors import SafetensorError

    run = RunFolder(tmp_path)
    state_in(run, 2)
    errors = [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos\nand a stack"),
        SafetensorError("I/O error: No space left on device"),
    ]
    for error in errors:
        with pytest.raises(UserError, match="state-4: the training state cannot be saved") as caught:
            run.save_state(4, fail_with(error))
        assert "\n" not in str(caught.value)
        assert [p.name for p in run.states()] == ["state-2"]
        assert leftovers(tmp_path) == []


def test_only_the_first_process_touches_the_folder(tmp_path):
    run = RunFolder(tmp_path)
    called = []
    run.save_state(2, called.append, main=False)
    assert called == [run.checkpoints / "state-2.partial"]
    assert not run.checkpoints.exists()


def test_a_folder_can_be_discarded(tmp_path):
    run = RunFolder.fresh(tmp_path, "a")
    write_text(run.config, "x: 1")
    run.discard()
    assert not run.root.exists()
    run.discard()
