"""Whatever a file holds, its reader gives a value or one line, in time; `benchmarks/fuzz.py` tries 100,000 inputs."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from fuzzing.guided import Spent, made_of, seeds
from fuzzing.readers import READERS, Hang, Reader, lay_out, outcome, tried, valid

from boresight.core.errors import UserError


@pytest.fixture(autouse=True)
def _quiet():
    """Decoders warn of damage in many words; what counts is what they do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("reader", READERS, ids=lambda r: r.name)
@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(rng=st.randoms(use_true_random=False))
def test_a_damaged_input_is_read_or_refused(
    reader: Reader, rng: Random, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"fuzz-{reader.name}"
    if not folder.exists():
        lay_out(folder, valid(reader))
        assert outcome(reader, folder, 60) == "value"  # as it is, it can be read
    assert tried(reader, reader.damaged(rng, valid(reader)), folder) in ("value", "refused")


@pytest.mark.parametrize("fault", [KeyError("x"), RecursionError(), MemoryError(), AssertionError("x")])
def test_any_other_error_is_seen(fault: Exception, tmp_path: Path) -> None:
    def read(folder: Path) -> None:
        raise fault

    with pytest.raises(type(fault)):
        outcome(Reader("bad", dict, read), tmp_path, 5)


def test_a_hang_is_seen(tmp_path: Path) -> None:
    def read(folder: Path) -> None:
        while True:
            pass

    with pytest.raises(Hang):
        outcome(Reader("slow", dict, read), tmp_path, 0.05)


def test_a_line_that_would_not_print_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(folder: Path) -> None:
        raise UserError("two\nlines")

    assert outcome(Reader("loud", dict, read), tmp_path, 5) == "refused"
    monkeypatch.setattr(UserError, "__str__", lambda self: "two\nlines")
    with pytest.raises(AssertionError, match="no printable line"):
        outcome(Reader("loud", dict, read), tmp_path, 5)


POINTS = next(r for r in READERS if r.name == "points")


def test_bytes_stand_for_one_file_or_for_choices() -> None:
    files = valid(POINTS)
    name, content = "points.csv", files["points.csv"]
    assert bytes([1]) + content in seeds(POINTS)
    assert made_of(POINTS, bytes([1]) + content) == {name: content}
    assert made_of(POINTS, b"\x01abc") == {name: b"abc"}
    assert made_of(POINTS, b"") == {}
    chosen = [made_of(POINTS, b"\0" + Random(i).randbytes(64)) for i in range(100)]
    assert chosen == [made_of(POINTS, b"\0" + Random(i).randbytes(64)) for i in range(100)]
    assert {n for c in chosen for n in c} == set(files) - set(POINTS.fixed)
    assert len({tuple(c.items()) for c in chosen}) > 80


def test_choices_outlast_their_bytes() -> None:
    spent = Spent(b"\x96\xff\x01\x05")  # 255 is beyond what is asked for: the next byte decides
    assert [spent.randrange(200), spent.randrange(3, 5), spent.randrange(10)] == [150, 4, 5]
    assert [spent.randrange(10), spent.random(), spent.choice("abc")] == [0, 0.0, "a"]
