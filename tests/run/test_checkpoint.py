from __future__ import annotations

import json
import os
import resource
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from boresight.core.errors import UserError
from boresight.run.checkpoint import FORMAT, Checkpoint, load_checkpoint, load_weights, save_checkpoint


def model(width: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width))


def checkpoint(**changes) -> Checkpoint:
    plain = Checkpoint(
        weights=dict(model().state_dict()),
        detector="point",
        settings={"train": {"steps": 5, "trackers": []}, "target": {"window": None}},
        classes=("plane", "ship"),
        threshold=0.1 + 0.2,
        step=5,
        figures={"f1": 0.5, "rmse": None},
    )
    return replace(plain, **changes)


def one_line(caught) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_there_and_back(tmp_path):
    file = tmp_path / "a.safetensors"
    first = checkpoint()
    save_checkpoint(file, first)
    second = load_checkpoint(file)
    assert replace(second, weights={}) == replace(first, weights={})
    assert second.weights.keys() == first.weights.keys()
    assert all(
        torch.equal(second.weights[k], v) and second.weights[k].dtype == v.dtype for k, v in first.weights.items()
    )
    fresh = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3))
    load_weights(fresh, second, path=file, detector="point")
    assert all(torch.equal(v, first.weights[k]) for k, v in fresh.state_dict().items())


def test_weights_in_any_memory_order(tmp_path):
    """A training step may hold its weights channels-last."""
    file = tmp_path / "a.safetensors"
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    save_checkpoint(file, checkpoint(weights={"w": weight, "half": torch.ones(2, dtype=torch.bfloat16)}))
    loaded = load_checkpoint(file).weights
    assert torch.equal(loaded["w"], weight)
    assert loaded["half"].dtype == torch.bfloat16


def test_others_can_read_the_weights(tmp_path):
    file = tmp_path / "a.safetensors"
    save_checkpoint(file, checkpoint())
    assert load_file(file).keys() == model().state_dict().keys()


def test_the_file_has_the_mode_of_any_file(tmp_path):
    """safetensors' own writer makes files that their owner alone can read."""
    file = tmp_path / "a.safetensors"
    (tmp_path / "plain").write_text("")
    save_checkpoint(file, checkpoint())
    assert file.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path):
    file = tmp_path / "a.safetensors"
    save_checkpoint(file, checkpoint())
    big = checkpoint(weights={"w": torch.zeros(10_000)}, step=6)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, hard))
    try:
        with pytest.raises(UserError, match=r"a\.safetensors: cannot be written") as caught:
            save_checkpoint(file, big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    one_line(caught)
    assert load_checkpoint(file).step == 5
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_a_checkpoint_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"last\.safetensors: no such checkpoint.*--resume"):
        load_checkpoint(tmp_path / "last.safetensors")


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_piece_of_a_file(tmp_path, keep):
    file = tmp_path / "a.safetensors"
    save_checkpoint(file, checkpoint())
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"a\.safetensors: damaged or not a safetensors file") as caught:
        load_checkpoint(file)
    one_line(caught)


def test_a_file_of_another_kind(tmp_path):
    file = tmp_path / "a.safetensors"
    torch.save({"w": torch.zeros(3)}, file)
    with pytest.raises(UserError, match="damaged or not a safetensors file") as caught:
        load_checkpoint(file)
    one_line(caught)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"format": "boresight-weights-2"}])
def test_a_safetensors_file_of_another_program(tmp_path, metadata):
    file = tmp_path / "a.safetensors"
    save_file({"w": torch.zeros(3)}, file, metadata=metadata)
    with pytest.raises(UserError, match="not a checkpoint of this program"):
        load_checkpoint(file)


@pytest.mark.parametrize("about", [None, "{", "[]", '{"classes": ["a"], "later": 1}'])
def test_a_header_that_makes_no_sense(tmp_path, about):
    file = tmp_path / "a.safetensors"
    save_file({"w": torch.zeros(3)}, file, metadata={"format": FORMAT} | ({"boresight": about} if about else {}))
    with pytest.raises(UserError, match=r"a\.safetensors: its header cannot be understood") as caught:
        load_checkpoint(file)
    one_line(caught)


def misfit(tmp_path, given: Checkpoint, into: nn.Module, detector: str = "point") -> str:
    before = {k: v.clone() for k, v in into.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_weights(into, given, path=tmp_path / "a", detector=detector)
    assert all(torch.equal(v, before[k]) for k, v in into.state_dict().items())
    assert one_line(caught).startswith(f"{tmp_path / 'a'}: ")
    return str(caught.value)


def test_another_detector(tmp_path):
    message = misfit(tmp_path, checkpoint(), model(), detector="text")
    assert "a checkpoint of detector `point`, not of `text`" in message


def test_a_missing_weight(tmp_path):
    weights = dict(model().state_dict())
    weights["0.weights"] = weights.pop("0.weight")
    message = misfit(tmp_path, checkpoint(weights=weights), model())
    assert "weight `0.weight` is missing: did you mean `0.weights`?" in message


def test_a_weight_of_another_shape(tmp_path):
    message = misfit(tmp_path, checkpoint(), model(4))
    assert "weight `0.weight` has shape [3, 1, 3, 3], the settings ask for [4, 1, 3, 3]" in message


def test_a_weight_too_many(tmp_path):
    weights = dict(model().state_dict()) | {"2.weight": torch.zeros(1)}
    assert "weight `2.weight` has no place" in misfit(tmp_path, checkpoint(weights=weights), model())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("detector", 3),
        ("settings", []),
        ("classes", [1]),
        ("classes", 1),
        ("threshold", "0.5"),
        ("threshold", float("nan")),
        ("threshold", 10**400),
        ("step", 0.5),
        ("figures", []),
        ("frozen", None),
        ("more", 1),
    ],
)
def test_a_header_of_other_kinds_is_refused(tmp_path, name, value):
    about = {"detector": "point", "settings": {}, "classes": ["a"], "threshold": 0.5, "step": 1, "figures": {}}
    text = json.dumps(about | {name: value})
    save_file({"w": torch.zeros(1)}, tmp_path / "a.safetensors", metadata={"format": FORMAT, "boresight": text})
    with pytest.raises(UserError, match=r"a\.safetensors: its header cannot be understood") as caught:
        load_checkpoint(tmp_path / "a.safetensors")
    one_line(caught)
