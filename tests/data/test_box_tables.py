"""Truth and detections as Parquet tables: what comes in, part by part, and what is refused in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from boresight.core.errors import UserError
from boresight.data.box_tables import BoxTables, Images, write_table

CATEGORIES = [{"id": 7, "name": "ship"}, {"id": 3, "name": "car"}]


def truth(**changes: Any) -> dict[str, Any]:
    """Images 1 (two objects), 4 (none) and 9 (one crowd)."""
    null = [False, False, True, False]
    columns = {"image_id": [1, 1, 4, 9], "category_id": np.ma.array([7, 3, 0, 3], mask=null)}
    boxes = {"x": [1.0, 2, 0, 0], "y": [1.0, 2, 0, 0], "width": [4.0, 5, 0, 9], "height": [3.0, 6, 0, 9]}
    columns |= {name: np.ma.array(values, mask=null) for name, values in boxes.items()}
    return columns | {"iscrowd": np.ma.array([0, 0, 0, 1], mask=null)} | changes


def found(**changes: Any) -> dict[str, Any]:
    columns = {"image_id": [1, 4, 4, 9], "category_id": [7, 7, 3, 3], "score": [0.5, 0.25, 0.75, 1.0]}
    return columns | {"x": [1.0] * 4, "y": [2.0] * 4, "width": [3.0] * 4, "height": [4.0] * 4} | changes


def written(folder: Path, a: dict[str, Any], d: dict[str, Any], categories: Any = CATEGORIES) -> tuple[Path, Path]:
    for name, columns in (("a", a), ("d", d)):
        columns = {k: v if isinstance(v, np.ndarray) else np.array(v) for k, v in columns.items()}
        write_table(folder / f"{name}.parquet", columns, categories if name == "a" else None)
    return folder / "a.parquet", folder / "d.parquet"


def joined(parts: list[Images]) -> dict[str, list[Any]]:
    """Everything, with image ids in the place of places."""
    told: dict[str, list[Any]] = {"images": [], "truth": [], "found": []}
    for part in parts:
        ids = part.image_ids
        told["images"] += ids.tolist()
        columns = (ids[part.truth_image], part.truth_label, part.truth_box, part.crowd)
        told["truth"] += list(zip(*(c.tolist() for c in columns), strict=True))
        columns = (ids[part.found_image], part.found_label, part.found_box, part.score)
        told["found"] += list(zip(*(c.tolist() for c in columns), strict=True))
    return told


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
def test_parts_of_any_size_hold_the_same(tmp_path: Path, rows: int) -> None:
    tables = BoxTables(*written(tmp_path, truth(), found()))
    assert tables.classes == ("car", "ship")
    parts = list(tables.images(rows))
    assert joined(parts) == {
        "images": [1, 4, 9],
        "truth": [(1, 1, [1, 1, 5, 4], False), (1, 0, [2, 2, 7, 8], False), (9, 0, [0, 0, 9, 9], True)],
        "found": [
            (1, 1, [1, 2, 4, 6], 0.5),
            (4, 1, [1, 2, 4, 6], 0.25),
            (4, 0, [1, 2, 4, 6], 0.75),
            (9, 0, [1, 2, 4, 6], 1.0),
        ],
    }
    assert len(parts) > (rows < 3)


def test_many_rows_in_parts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ids = [np.sort(rng.integers(0, 50, n)) for n in (300, 2000)]
    ids[1] = ids[1][np.isin(ids[1], ids[0])]
    columns = [{k: rng.random(len(i)) for k in ("x", "y", "width", "height", "score")} for i in ids]
    both = [{"image_id": i, "category_id": np.full(len(i), 3)} | c for i, c in zip(ids, columns, strict=True)]
    tables = BoxTables(*written(tmp_path, *both))
    whole = joined(list(tables.images(10_000)))
    assert joined(list(tables.images(7))) == whole
    assert [len(whole[k]) for k in ("images", "truth", "found")] == [len(np.unique(ids[0])), 300, len(ids[1])]


def test_without_a_list_every_category_of_an_object_is_a_class(tmp_path: Path) -> None:
    tables = BoxTables(*written(tmp_path, truth(), found(), categories=None))
    assert (tables.classes, tables.category_ids.tolist()) == (("3", "7"), [3, 7])


def test_crowds_and_types_are_optional(tmp_path: Path) -> None:
    plain = truth()
    del plain["iscrowd"]
    plain["image_id"] = np.array(plain["image_id"], np.int32)
    narrow = found(score=np.array([0.5, 0.25, 0.75, 1], np.float32), width=np.array([3, 3, 3, 3], np.int16))
    told = joined(list(BoxTables(*written(tmp_path, plain, narrow)).images()))
    assert [crowd for *_, crowd in told["truth"]] == [False] * 3
    assert [score for *_, score in told["found"]] == [0.5, 0.25, 0.75, 1]


def test_no_detections_at_all(tmp_path: Path) -> None:
    none = {k: np.zeros(0, np.int64 if k.endswith("id") else float) for k in found()}
    told = joined(list(BoxTables(*written(tmp_path, truth(), none)).images()))
    assert (told["images"], told["found"]) == ([1, 4, 9], [])


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "not sorted": (
        truth(image_id=[1, 4, 1, 9]),
        found(),
        r"a\.parquet: row 2: image_id 1 comes after a larger one: sort",
    ),
    "detections not sorted": (truth(), found(image_id=[9, 4, 4, 1]), r"d\.parquet: row 1: image_id 4 comes after"),
    "unlisted": (truth(), found(image_id=[1, 4, 5, 9]), r"d\.parquet: row 2: image_id 5 is not listed"),
    "unlisted first": (truth(), found(image_id=[0, 4, 4, 9]), r"d\.parquet: row 0: image_id 0 is not listed"),
    "unlisted last": (truth(), found(image_id=[1, 4, 4, 10]), r"d\.parquet: row 3: image_id 10 is not listed"),
    "category": (truth(), found(category_id=[7, 7, 4, 3]), r"d\.parquet: row 2: category_id 4 is no category"),
    "score": (truth(), found(score=[0.5, np.nan, 1, 1]), r"d\.parquet: row 1: score is missing or not finite"),
    "box": (truth(), found(x=[0.0, 0, np.inf, 0]), r"d\.parquet: row 2: x is missing or not finite"),
    "side": (truth(), found(width=[1.0, 1, 1, -1]), r"d\.parquet: row 3: a side is below zero"),
    "beyond": (truth(), found(x=[1e308] * 4, width=[1e308] * 4), r"d\.parquet: row 0: the box reaches beyond"),
    "crowd": (truth(iscrowd=[0, 2, 0, 0]), found(), r"a\.parquet: row 1: iscrowd is 2: say 0 or 1"),
    "no box": (truth(x=[1.0, np.nan, 0, 0]), found(), r"a\.parquet: row 1: x is missing"),
    "large": (truth(image_id=[1, 1, 4, 2**63 - 1]), found(), r"a\.parquet: row 3: image_id .* is too large"),
    "words": (truth(), found(score=["a"] * 4), r"d\.parquet: column `score` holds string, not numbers"),
    "float ids": (truth(image_id=[1.0, 1, 4, 9]), found(), r"a\.parquet: column `image_id` holds double, not whole"),
    "no id": (truth(), found(image_id=np.ma.array([1, 4, 4, 9], mask=[0, 0, 1, 0])), r"d\.parquet: row 2: image_id is"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_fault_is_named_by_file_and_row(tmp_path: Path, fault: str) -> None:
    a, d, words = REFUSED[fault]
    for rows in (1, 100):
        with pytest.raises(UserError, match=words) as caught:
            list(BoxTables(*written(tmp_path, a, d)).images(rows))
        assert "\n" not in str(caught.value)


def test_files_that_are_no_such_tables(tmp_path: Path) -> None:
    a, d = written(tmp_path, truth(), found())
    with pytest.raises(UserError, match=r"none\.parquet: no such file"):
        BoxTables(tmp_path / "none.parquet", d)
    with pytest.raises(UserError, match=r"a\.parquet: has no column score"):
        BoxTables(a, a)
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(UserError, match=r"text\.parquet: cannot be read as a table in Parquet"):
        BoxTables(a, tmp_path / "text.parquet")
    pq.write_table(pa.table([pa.array([1])] * 8, [*found(), "score"]), tmp_path / "twice.parquet")
    with pytest.raises(UserError, match=r"twice\.parquet: has the column `score` twice"):
        BoxTables(a, tmp_path / "twice.parquet")


@pytest.mark.parametrize(
    "listed",
    [b"[", b"{}", b"[]", b'[{"id": "a"}]', b'[{"id": 1}, {"id": 1}]', b'[{"id": 1e400}]', b"[1]", b"[" * 9999],
)
def test_categories_that_cannot_be_used(tmp_path: Path, listed: bytes) -> None:
    a, d = written(tmp_path, truth(), found())
    pq.write_table(pq.read_table(a).replace_schema_metadata({"categories": listed}), a)
    with pytest.raises(UserError, match=r"a\.parquet: `categories` of its metadata cannot be used"):
        BoxTables(a, d)
