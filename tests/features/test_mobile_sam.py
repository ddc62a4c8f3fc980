"""MobileSAM: checkpoints of random weights under its published names, and its features against another program's."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from boresight.core.errors import UserError
from boresight.features.encoders import load_encoder
from boresight.features.mobile_sam import MobileSamNet, in_timm_form, load_mobile_sam

SIDE = 128


def noise(module: torch.nn.Module) -> None:
    """Weights and statistics of a network that was trained, as far as a test needs it: none is 0 or 1."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if not value.is_floating_point():
                continue
            drawn = torch.randn(value.shape, generator=random)
            if value.ndim > 1:
                value.copy_(drawn * (2 / value[0].numel()) ** 0.5)
            else:
                value.copy_(drawn * 0.1 + (0 if name.endswith(("bias", "running_mean")) else 1))


def published_name(name: str) -> str:
    """timm's name of a weight as MobileSAM's files have it, written down apart from the code under test."""
    if name.startswith("neck."):
        return f"image_encoder.{name}"
    name = name.replace("patch_embed.conv1.", "patch_embed.seq.0.").replace("patch_embed.conv2.", "patch_embed.seq.2.")
    for stage in (1, 2, 3):
        name = name.replace(f"stages.{stage}.downsample.", f"layers.{stage - 1}.downsample.")
    return f"image_encoder.{name}".replace("stages.", "layers.").replace(".conv.", ".c.")


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    net = MobileSamNet()
    noise(net)
    state = {published_name(k): v.clone() for k, v in net.state_dict().items()}
    state |= {f"image_encoder.{k}": torch.zeros(3) for k in ("head.weight", "head.bias", "norm_head.weight")}
    return state | {"mask_decoder.iou_token.weight": torch.zeros(1, 256)}


@pytest.fixture
def file(published, tmp_path) -> str:
    torch.save(published, tmp_path / "mobile_sam.pt")
    return str(tmp_path / "mobile_sam.pt")


def images(*sizes: tuple[int, int]) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (3, *size), generator=random, dtype=torch.uint8) for size in sizes]


def test_a_checkpoint_becomes_an_encoder(file):
    encoder = load_mobile_sam(file, side=SIDE)
    one, two, low = encoder.encode(images((SIDE, SIDE), (SIDE, SIDE), (50, 100)))
    assert (encoder.channels, encoder.strides) == ((256,), (16.0,))
    assert one.levels[0].shape == (256, 8, 8)
    assert float((one.levels[0] - two.levels[0]).abs().max()) > 1e-2
    assert low.levels[0].shape == (256, 4, 8)
    assert_close(low.extents, torch.tensor([[50.0, 100.0]]))
    assert load_mobile_sam(file, side=SIDE).identity() == encoder.identity()
    assert load_mobile_sam(file, side=SIDE).fingerprint == encoder.fingerprint
    assert load_mobile_sam(file, side=2 * SIDE).fingerprint != encoder.fingerprint
    assert load_mobile_sam(file, side=SIDE, precision="bf16").fingerprint != encoder.fingerprint


def test_an_image_does_not_depend_on_its_neighbours(file):
    """To 1e-4 of values around 1: sums of another batch are added in another order."""
    several = images((SIDE, 90), (SIDE, 90))
    alone = load_mobile_sam(file, side=SIDE).encode(several)
    for a, b in zip(load_mobile_sam(file, side=SIDE, batch=2).encode(several), alone, strict=True):
        assert_close(a.levels[0], b.levels[0], atol=1e-4, rtol=1e-4)


def test_it_is_found_by_name_and_reads_a_square_of_1024(file):
    encoder = load_encoder("mobile-sam", file)
    assert encoder.about["side"] == 1024
    with pytest.raises(UserError, match=r"would be random; give features\.weights=mobile_sam\.pt"):
        load_encoder("mobile-sam")


def test_the_encoder_alone_is_a_checkpoint_as_well(published, tmp_path, file):
    prefix = "image_encoder."
    torch.save({k.removeprefix(prefix): v for k, v in published.items() if k.startswith(prefix)}, tmp_path / "e.pt")
    whole, alone = (load_mobile_sam(str(f), side=SIDE) for f in (file, tmp_path / "e.pt"))
    assert whole.fingerprint == alone.fingerprint


def test_the_random_numbers_of_a_run_stay_where_they_are(file):
    torch.manual_seed(3)
    want = torch.rand(1)
    torch.manual_seed(3)
    load_mobile_sam(file, side=SIDE)
    assert torch.equal(torch.rand(1), want)


PEER = f"""
import sys, torch
sys.path.insert(0, sys.argv[1])
from test_mobile_sam import noise
from ultralytics.models.sam.modules.tiny_encoder import TinyViT
peer = TinyViT(img_size={SIDE}, embed_dims=(64, 128, 160, 320), depths=(2, 2, 6, 2), num_heads=(2, 4, 5, 10),
               window_sizes=(7, 7, 14, 7), drop_path_rate=0.0)
noise(peer)
square = torch.randn(2, 3, {SIDE}, {SIDE}, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    found = peer.eval()(square)
torch.save((peer.state_dict(), square, found), sys.argv[2])
"""


@pytest.mark.skipif(importlib.util.find_spec("ultralytics") is None, reason="no peer here: pip install ultralytics")
def test_the_features_are_those_of_the_published_encoder(tmp_path):
    """To 5e-5 of values around 1, against the copy of MobileSAM's own code that Ultralytics ships.

    It runs in a process of its own, because importing it changes how PIL opens files.
    """
    settings = os.environ | {"YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true", "YOLO_CONFIG_DIR": str(tmp_path)}
    file = tmp_path / "peer.pt"
    subprocess.run([sys.executable, "-c", PEER, str(Path(__file__).parent), str(file)], env=settings, check=True)
    state, square, want = torch.load(file, weights_only=True)
    net = MobileSamNet().eval()
    held = in_timm_form({f"image_encoder.{k}": v for k, v in state.items()})
    assert set(held) == set(net.state_dict())
    net.load_state_dict(held)
    with torch.no_grad():
        have = net(square)
    assert float((want[0] - want[1]).abs().max()) > 1e-2
    assert_close(have, want, atol=5e-5, rtol=5e-5)


NECK = "image_encoder.neck.0.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop(NECK), r"1 weights are missing, first `neck\.0\.weight`"),
        (lambda s: s.update({NECK: s[NECK][:8]}), r"`neck\.0\.weight` has shape \[8, 320, 1, 1\], MobileSAM has"),
        (lambda s: s.update({"image_encoder.layers.4.blocks.0.x": s[NECK]}), r"has `stages\.4\.blocks\.0\.x`"),
        (lambda s: s.update({"epoch": 3}), "no state dict found"),
    ],
)
def test_what_is_no_mobile_sam_is_refused(published, tmp_path, change, words):
    state = dict(published)
    change(state)
    torch.save(state, tmp_path / "odd.pt")
    with pytest.raises(UserError, match=words) as error:
        load_mobile_sam(str(tmp_path / "odd.pt"))
    assert f"features.weights={tmp_path / 'odd.pt'}" in str(error.value)
    assert "\n" not in str(error.value)
