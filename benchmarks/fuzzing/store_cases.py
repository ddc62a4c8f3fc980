"""Weights and kept features: checkpoints of ours, weights of others, items of the feature store."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from fuzzing.data_cases import in_turn
from fuzzing.mutate import mutated_tree

KEY = f"{1:032x}-{2:032x}"
ITEM = f"items/{1:032x}/00/{2:032x}.safetensors"
HEADED = ("last.safetensors", "w.safetensors", ITEM)
"""Files with a JSON header behind its length."""


def mutated_header(rng: Random, name: str, content: bytes) -> bytes:
    """The JSON header damaged by structure, its length and (of an item) its checksum put right."""
    from boresight.features.cache_file import _HEX, _START, _digest

    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    if "boresight" in header.get("__metadata__", {}) and rng.randrange(3):
        about = mutated_tree(rng, json.loads(header["__metadata__"]["boresight"]))
        header["__metadata__"]["boresight"] = json.dumps(about)
    else:
        header = mutated_tree(rng, header)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    front = len(text).to_bytes(8, "little") + text
    at = 8 + len(_START)
    if name == ITEM and front[8:at] == _START:
        front = front[:at] + _digest(front, memoryview(data)).encode() + front[at + _HEX :]
    return front + data


def _model() -> Any:
    import torch

    torch.manual_seed(0)
    return torch.nn.Linear(3, 2)


def checkpoint() -> dict[str, bytes]:
    """Weights of one layer with all that goes with them."""
    import tempfile

    from boresight.run.checkpoint import Checkpoint, save_checkpoint

    settings = {"train": {"steps": 5}, "target": {"window": None}}
    made = Checkpoint(dict(_model().state_dict()), "point", settings, ("a", "b"), 0.5, 5, {"f1": 0.5}, {"clip": "x"})
    with tempfile.TemporaryDirectory() as place:
        save_checkpoint(Path(place) / "last.safetensors", made)
        return {"last.safetensors": (Path(place) / "last.safetensors").read_bytes()}


def read_checkpoint(folder: Path) -> None:
    """Read it and put the weights into a layer."""
    from boresight.run.checkpoint import load_checkpoint, load_weights

    file = folder / "last.safetensors"
    found = load_checkpoint(file)
    load_weights(_model(), found, path=file, detector="point")


def weights() -> dict[str, bytes]:
    """The same weights in every form that others use."""
    import numpy as np
    import torch
    from safetensors.torch import save

    state = dict(_model().state_dict())
    found = {"w.safetensors": save(state)}
    for name, value, new in (("w.pt", {"state_dict": state}, True), ("old.pt", state, False)):
        out = io.BytesIO()
        torch.save(value, out, _use_new_zipfile_serialization=new)
        found[name] = out.getvalue()
    out = io.BytesIO()
    np.savez_compressed(out, **{k: v.numpy() for k, v in state.items()})
    return found | {"w.npz": out.getvalue()}


def read_weight_files(folder: Path) -> None:
    """Every file, and whether it fits."""
    from boresight.features.rgb import read_weights

    in_turn(tuple(_reading(read_weights, str(file)) for file in sorted(folder.iterdir())))


def _reading(read: Callable[[str], object], file: str) -> Callable[[], object]:
    return lambda: read(file)


def _features() -> dict[str, Any]:
    import torch

    values = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    return {"map": values, "vector": values[0, 0].double(), "extents": torch.tensor([[3.0, 4.0]])}


def item() -> dict[str, bytes]:
    """One item of a store, in eight bits."""
    from boresight.features.cache_file import pack
    from boresight.features.cache_storage import as_stored

    kept, notes = as_stored(KEY, _features(), "int8")
    parts = pack(f"{KEY.rpartition('-')[0]}-{2:032x}", kept, notes)
    return {ITEM: b"".join(bytes(part) for part in parts)}


def read_item(folder: Path) -> None:
    """As the store does: damage is found and told; tensors that are given can be used."""
    import torch

    from boresight.features.cache_disk import read_file
    from boresight.features.cache_file import DamagedError, unpack
    from boresight.features.cache_storage import restored

    try:
        packed = unpack(KEY, read_file(folder / ITEM, touch=False))
        for value in restored(packed.tensors, packed.notes).values():
            assert isinstance(value, torch.Tensor)
            value.sum()
    except (
        DamagedError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
    ):  # what FeatureCache counts as damage
        return


def store() -> dict[str, bytes]:
    """A whole store with two items and its books."""
    import tempfile

    from boresight.features.cache import FeatureCache
    from boresight.features.feature_store import get

    with tempfile.TemporaryDirectory() as place:
        kept = FeatureCache(Path(place), storage="fp16")
        for i in range(2):
            get(kept, f"{1:032x}-{i:032x}", _features)
        kept.close()
        recipe = next(p for p in (Path(place) / "items").iterdir() if p.is_dir())
        (recipe / "recipe.json").write_text(json.dumps({"encoder": "timm:resnet18", "levels": [3, 4]}))
        files = (p for p in sorted(Path(place).rglob("*")) if p.is_file())
        return {p.relative_to(place).as_posix(): p.read_bytes() for p in files}


def read_store(folder: Path) -> None:
    """Look at it, verify it, and ask it for both items: a wrong number never comes back."""
    import logging

    import torch

    from boresight.features.cache import FeatureCache
    from boresight.features.cache_audit import info, verify
    from boresight.features.feature_store import get

    logging.getLogger("boresight.features").setLevel(logging.ERROR)
    before = set(folder.rglob("*"))
    try:
        info(folder)
        verify(folder)
        kept = FeatureCache(folder, storage="fp16")
        for i in range(2):
            found = get(kept, f"{1:032x}-{i:032x}", _features)
            assert all(torch.equal(found[name], value.to(found[name].dtype)) for name, value in _features().items())
        kept.close()
    finally:
        for file in set(folder.rglob("*")) - before:  # what a session leaves: the next input would read it
            if file.is_file():
                file.unlink()
