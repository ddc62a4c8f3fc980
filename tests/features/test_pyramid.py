"""Encoders: sizes, parameters, timm."""

from __future__ import annotations

import math
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.core.errors import UserError
from boresight.features.pyramid import SmallPyramid, TimmPyramid


def covers(features, size, levels):
    assert sorted(features) == list(levels)
    for k, f in features.items():
        assert f.shape[-2:] == (math.ceil(size[0] / 2**k), math.ceil(size[1] / 2**k)), k
        assert f.isfinite().all()


@settings(max_examples=12)
@given(st.integers(1, 50), st.integers(1, 50), st.sampled_from([1, 2]))
def test_levels_cover_images_of_any_size(height, width, finest):
    torch.manual_seed(0)
    pyramid = SmallPyramid((4, 4, 4, 4), 4, finest=finest).eval()
    with torch.no_grad():
        covers(pyramid(torch.randn(1, 1, height, width)), (height, width), range(finest, 5))


def test_the_built_in_encoder_is_small():
    """About 0.1 M parameters; head included it must stay under 0.15 M (the contract test counts that)."""
    count = sum(p.numel() for p in SmallPyramid(finest=2).parameters())
    assert 80_000 < count <= 125_000


def test_the_fold_throws_nothing_away():
    """One bright pixel changes the finest level wherever in its 2 x 2 block it lies."""
    torch.manual_seed(0)
    pyramid = SmallPyramid().eval()
    with torch.no_grad():
        dark = pyramid(torch.zeros(1, 1, 32, 32))[1]
        for y, x in [(16, 16), (16, 17), (17, 16), (17, 17)]:
            image = torch.zeros(1, 1, 32, 32)
            image[..., y, x] = 5.0
            assert (pyramid(image)[1] - dark)[0, :, 8, 8].abs().max() > 1e-3


def test_coarse_levels_reach_the_fine_ones():
    """A pixel far outside the reach of the fine stages is felt at stride 2 through the top-down path."""
    torch.manual_seed(0)
    pyramid = SmallPyramid().eval()
    image = torch.zeros(1, 1, 64, 64, requires_grad=True)
    pyramid(image)[1][0, :, 0, 0].sum().backward()
    assert image.grad[0, 0, 40:, 40:].any()


def test_a_gradient_reaches_every_parameter():
    pyramid = SmallPyramid(finest=2)
    sum(f.sum() for f in pyramid(torch.randn(2, 1, 32, 32)).values()).backward()
    assert not [n for n, p in pyramid.named_parameters() if p.grad is None]


def test_the_image_is_not_written_to():
    image = torch.randn(1, 1, 31, 33)
    before = image.clone()
    SmallPyramid()(image)
    assert torch.equal(image, before)


@pytest.mark.filterwarnings("default")  # timm's own deprecations are not ours to fix
def test_timm_backbones(tmp_path):
    """One test, because timm takes seconds to import: shapes, weights from a file, what cannot be built."""
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    torch.manual_seed(0)
    pyramid = TimmPyramid("resnet18", channels=8, finest=2).eval()
    image = torch.randn(1, 1, 49, 66)
    with torch.no_grad():
        covers(pyramid(image), (49, 66), (2, 3, 4))
    assert pyramid.channels == {2: 8, 3: 8, 4: 8}

    sum(f.sum() for f in pyramid.train()(image).values()).backward()  # no stage is carried that nothing reads
    assert not [n for n, p in pyramid.named_parameters() if p.grad is None]

    donor = timm.create_model("resnet18", in_chans=1)
    save_file({k: v.contiguous() for k, v in donor.state_dict().items()}, tmp_path / "weights.safetensors")
    loaded = TimmPyramid("resnet18", weights=str(tmp_path / "weights.safetensors"), channels=8, finest=2).eval()
    with torch.no_grad():
        have = loaded.body(image)
        want = donor.eval().forward_intermediates(image, indices=[1, 2, 3], intermediates_only=True)
    assert len(have) == 3
    for a, b in zip(have, want, strict=True):
        assert torch.allclose(a, b, atol=1e-5)

    prefixed = {f"backbone.{k}": v.contiguous() for k, v in donor.state_dict().items()}
    lacking = {k: v.contiguous() for k, v in donor.state_dict().items() if k != "layer2.0.bn1.bias"}
    for state, told in (
        (prefixed, r"first `conv1.weight`"),
        (lacking, r"1 of \d+ weights are missing, first `layer2"),
    ):
        save_file(state, tmp_path / "other.safetensors")
        with pytest.raises(UserError, match=rf"encoder.weights=.*other.safetensors: .*{told}"):
            TimmPyramid("resnet18", inputs=1, weights=str(tmp_path / "other.safetensors"), finest=2)

    with pytest.raises(UserError, match=r"encoder\.name=resnet81: timm cannot build it"):
        TimmPyramid("resnet81")
    with pytest.raises(UserError, match=r"strides .* none of 2\^6\.\.2\^7"):
        TimmPyramid("resnet18", finest=6, coarsest=7)
    with pytest.raises(UserError, match=r"encoder.weights=.*absent.safetensors: no such file"):
        TimmPyramid("resnet18", weights=str(tmp_path / "absent.safetensors"))
    for name in ("broken.safetensors", "broken.pth"):
        (tmp_path / name).write_bytes(b"not weights at all")
        with pytest.raises(UserError, match=f"encoder.weights=.*{name}: "):
            TimmPyramid("resnet18", weights=str(tmp_path / name))


def test_weights_for_timm_run_no_code(tmp_path, monkeypatch):
    """Whatever timm's own reader does by default: it is not asked before the file is known to hold tensors alone."""
    timm = pytest.importorskip("timm")
    torch.save({"conv1.weight": Trap(tmp_path / "sprung")}, tmp_path / "w.pth")
    asked, create = [], timm.create_model

    def recorded(*args, **more):
        asked.append(more.get("pretrained", False))
        return create(*args, **more)

    monkeypatch.setattr(timm, "create_model", recorded)
    with pytest.raises(UserError, match=r"encoder\.weights=.*w\.pth: holds more than tensors"):
        TimmPyramid("resnet18", weights=str(tmp_path / "w.pth"))
    assert asked == [False]
    assert not (tmp_path / "sprung").exists()


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder) -> None:
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_a_frozen_timm_backbone_stays_as_it_is_in_training():
    pytest.importorskip("timm")
    one = TimmPyramid("resnet10t", channels=8, finest=3, coarsest=4, inputs=3, frozen=True).train()
    before = {k: v.clone() for k, v in one.body.state_dict().items()}
    assert any("running_mean" in k for k in before)
    sum(level.sum() for level in one(torch.randn(2, 3, 64, 64)).values()).backward()
    assert all(torch.equal(v, before[k]) for k, v in one.body.state_dict().items())
    assert not any(p.requires_grad for p in one.body.parameters())
    assert one.top_down.training
    assert any(p.grad is not None for p in one.top_down.parameters())
    moving = TimmPyramid("resnet10t", channels=8, finest=3, coarsest=4, inputs=3).train()
    held = moving.body.state_dict()["bn1.running_mean"].clone()
    moving(torch.randn(2, 3, 64, 64))
    assert not torch.equal(moving.body.state_dict()["bn1.running_mean"], held)
