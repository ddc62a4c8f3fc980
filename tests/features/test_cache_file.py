"""One item as bytes."""

import json

import pytest
import torch
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.features.cache_file import DamagedError, pack, unpack

KEY = "ab" * 16 + "-" + "cd" * 16
EVERY = {
    "f64": torch.randn(3, dtype=torch.float64),
    "f32": torch.randn(2, 3, 4),
    "f16": torch.randn(5).half(),
    "bf16": torch.randn(5).bfloat16(),
    "i64": torch.tensor([2**40, -1]),
    "i32": torch.tensor([7], dtype=torch.int32),
    "i16": torch.tensor([7, 8, 9], dtype=torch.int16),
    "i8": torch.tensor([-7], dtype=torch.int8),
    "u8": torch.tensor([255], dtype=torch.uint8),
    "bool": torch.tensor([True, False, True]),
    "none": torch.zeros(0, 4),
    "one": torch.tensor(3.5),
}


def packed(tensors=None, notes=None, key=KEY) -> torch.Tensor:
    data = b"".join(bytes(p) for p in pack(key, EVERY if tensors is None else tensors, notes or {}))
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def test_every_type_and_shape_comes_back():
    found = unpack(KEY, packed(notes={"storage": "fp32"}))
    assert set(found.tensors) == set(EVERY)
    for name, value in EVERY.items():
        assert found.tensors[name].dtype == value.dtype
        assert found.tensors[name].shape == value.shape
        assert torch.equal(found.tensors[name], value)
    assert found.notes == {"storage": "fp32"}


def test_the_safetensors_library_reads_it(tmp_path):
    from safetensors import safe_open
    from safetensors.torch import load_file

    file = tmp_path / "x.safetensors"
    file.write_bytes(bytes(packed(notes={"storage": "fp32"}).numpy()))
    found = load_file(file)
    assert all(torch.equal(found[name], value) for name, value in EVERY.items())
    with safe_open(str(file), framework="pt") as held:
        assert held.metadata()["key"] == KEY


def test_an_item_without_tensors_is_an_item():
    assert unpack(KEY, packed({})).tensors == {}


def test_a_name_of_the_format_and_a_type_without_one_are_refused():
    with pytest.raises(ValueError, match="__metadata__"):
        pack(KEY, {"__metadata__": torch.zeros(1)}, {})
    with pytest.raises(ValueError, match="complex64"):
        pack(KEY, {"x": torch.zeros(1, dtype=torch.complex64)}, {})


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_change_goes_unnoticed(data):
    """Bytes changed, taken out or added anywhere: damaged, and never another error or another tensor."""
    whole = bytes(packed().numpy())
    at = data.draw(st.integers(0, len(whole) - 1))
    kind = data.draw(st.sampled_from(["set", "cut", "drop", "add"]))
    more = data.draw(st.binary(min_size=1, max_size=4))
    changed = {
        "set": whole[:at] + more + whole[at + len(more) :],
        "cut": whole[:at],
        "drop": whole[:at] + whole[at + 1 :],
        "add": whole[:at] + more + whole[at:],
    }[kind]
    if changed == whole:
        return
    with pytest.raises(DamagedError):
        unpack(KEY, torch.frombuffer(bytearray(changed), dtype=torch.uint8) if changed else torch.zeros(0).byte())


def resealed(header: dict | bytes, data: bytes = b"") -> torch.Tensor:
    """A file with a right checksum over whatever header."""
    front = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    front = len(front).to_bytes(8, "little") + front
    at = 8 + len('{"__metadata__":{"xxh3_128":"')
    seed = xxhash.xxh3_64_intdigest(front[:at] + b"0" * 32 + front[at + 32 :])
    digest = xxhash.xxh3_128_hexdigest(data, seed=seed).encode()
    return torch.frombuffer(bytearray(front[:at] + digest + front[at + 32 :] + data), dtype=torch.uint8)


META = {"xxh3_128": "0" * 32, "key": KEY, "format": "boresight-features-1"}


def test_the_resealed_file_is_one():
    header = {"__metadata__": META, "x": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}
    assert unpack(KEY, resealed(header, b"ab")).tensors["x"].tolist() == [97, 98]


@pytest.mark.parametrize(
    "about",
    [
        {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
        {"dtype": "U8", "shape": [2], "data_offsets": [0, 1]},
        {"dtype": "U8", "shape": [-1], "data_offsets": [0, 2]},
        {"dtype": "U8", "shape": [2], "data_offsets": [-2, 0]},
        {"dtype": "Q8", "shape": [2], "data_offsets": [0, 2]},
        {"dtype": "U8", "shape": [2]},
        {"dtype": "U8", "shape": "ab", "data_offsets": [0, 2]},
        "x",
    ],
)
def test_a_description_that_does_not_fit_is_damage(about):
    with pytest.raises(DamagedError):
        unpack(KEY, resealed({"__metadata__": META, "x": about}, b"ab"))


@pytest.mark.parametrize(
    "header",
    [
        {"__metadata__": META | {"format": "boresight-features-0"}},
        {"__metadata__": META | {"key": "other"}},
        {"__metadata__": {"xxh3_128": "0" * 32, "key": KEY}},
        json.dumps({"__metadata__": META}, separators=(",", ":")).encode()[:-2] + b",",
        json.dumps({"__metadata__": META}, separators=(",", ":")).encode()[:-1] + b',"x":[1]}',
    ],
)
def test_a_header_that_is_none_is_damage(header):
    with pytest.raises(DamagedError):
        unpack(KEY, resealed(header))
