import pytest
import torch

from boresight.features.clip_load import load_clip
from boresight.features.frozen_backbones import ClipEncoder, SqueezeEncoder, TimmEncoder
from boresight.features.pyramid import TimmPyramid
from boresight.features.rgb import SqueezePyramid


@pytest.mark.parametrize("kind", ["squeezenet", "timm", "clip"])
def test_autocast_around_it_changes_nothing(kind, tmp_path):
    from safetensors.torch import save_file

    save_file(
        {f"features.{k}": v for k, v in SqueezePyramid(None, 8).features.state_dict().items()},
        tmp_path / "s.safetensors",
    )
    e = {
        "squeezenet": lambda: SqueezeEncoder(str(tmp_path / "s.safetensors")),
        "timm": lambda: TimmEncoder("resnet18", random=True),
        "clip": lambda: ClipEncoder(load_clip("boresight-aerial")),
    }[kind]()
    im = [torch.randint(0, 256, (3, 48, 64), dtype=torch.uint8)]
    (a,) = e.encode(im)
    with torch.autocast("cpu", torch.bfloat16):
        (b,) = e.encode(im)
    assert all(torch.equal(x, y) for x, y in zip(a.levels, b.levels, strict=True))


def test_levels_are_what_they_say():
    with torch.no_grad():
        found = TimmPyramid("dla34", channels=8, finest=2, coarsest=4).eval()(torch.zeros(1, 1, 64, 64))
    assert {k: tuple(v.shape[2:]) for k, v in found.items()} == {2: (16, 16), 3: (8, 8), 4: (4, 4)}
    assert TimmEncoder("dla34", levels=(3, 4), random=True).encode([torch.zeros(3, 64, 64)])[0].levels[0].shape[1:] == (
        8,
        8,
    )
