"""timm backbones as frozen encoders: a checkpoint that is not whole is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from boresight.core.errors import UserError
from boresight.features.encoders import load_encoder
from boresight.features.frozen_backbones import TimmEncoder
from boresight.features.timm_frozen import load_timm


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with checkpoints of small models, their classifiers included, none of whose values is a default."""
    import timm

    root = tmp_path_factory.mktemp("timm")
    for name in ("resnet18", "convnext_atto"):
        state = timm.create_model(name).state_dict()
        random = torch.Generator().manual_seed(0)
        drawn = {k: torch.rand(v.shape, generator=random) * 0.1 + 0.01 for k, v in state.items() if v.ndim}
        save_file(state | drawn, root / f"{name}.safetensors")
    return root


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
@pytest.mark.parametrize("levels", [(3, 4), (2,)])
def test_a_whole_checkpoint_is_taken(folder, name, levels):
    file = str(folder / f"{name}.safetensors")
    one, two = (load_encoder(f"timm:{name}", file, levels=levels) for _ in range(2))
    assert one.fingerprint == two.fingerprint
    have = {tuple(v.shape): v for v in load_file(file).values()}
    first = next(one.module.parameters())
    assert torch.equal(first, have[tuple(first.shape)])


@pytest.mark.parametrize("lost", ["layer2.0.conv1.weight", "bn1.weight", "layer3.1.bn2.running_mean"])
def test_what_a_file_lacks_is_not_left_random(folder, tmp_path, lost):
    state = load_file(folder / "resnet18.safetensors")
    del state[lost]
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(UserError, match=rf"1 of \d+ weights are missing, first `{lost}`; they would be") as error:
        load_timm("resnet18", str(tmp_path / "part.safetensors"))
    assert str(tmp_path / "part.safetensors") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_classifier_may_be_missing(folder, tmp_path):
    state = {k: v for k, v in load_file(folder / "resnet18.safetensors").items() if not k.startswith("fc.")}
    save_file(state, tmp_path / "headless.safetensors")
    headless = load_timm("resnet18", str(tmp_path / "headless.safetensors"))
    assert headless.fingerprint == load_timm("resnet18", str(folder / "resnet18.safetensors")).fingerprint


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"something.else": torch.zeros(2)}, "weights are missing"),
        ({"conv1.weight": torch.zeros(2, 3, 7, 7)}, "timm cannot build it"),
    ],
)
def test_another_model_s_file_is_refused(tmp_path, content, words):
    save_file(content, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=words) as error:
        load_timm("resnet18", str(tmp_path / "other.safetensors"))
    assert "\n" not in str(error.value)


def test_a_model_for_one_size_is_refused_at_the_door(tmp_path):
    import timm

    save_file(timm.create_model("vit_tiny_patch16_224").state_dict(), tmp_path / "vit.safetensors")
    with pytest.raises(UserError, match="takes images of 224x224 pixels only"):
        load_timm("vit_tiny_patch16_224", str(tmp_path / "vit.safetensors"), (4,))


def test_loading_leaves_torch_and_the_random_numbers_as_they_were(folder):
    usual = nn.Module.load_state_dict
    torch.manual_seed(3)
    want = torch.rand(1)
    torch.manual_seed(3)
    load_timm("resnet18", str(folder / "resnet18.safetensors"))
    assert torch.equal(torch.rand(1), want)
    with pytest.raises(UserError):
        load_timm("resnet18", "nowhere.safetensors")
    assert nn.Module.load_state_dict is usual


def test_its_own_normalisation_is_used():
    """Of a model that was not trained with ImageNet's."""
    encoder = TimmEncoder("resnetv2_50x1_bit", levels=(2,), random=True)
    assert encoder.mean == encoder.std == (0.5, 0.5, 0.5)
    assert encoder.about["mean"] == [0.5, 0.5, 0.5]
