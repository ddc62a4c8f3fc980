"""The point head: what a fresh one answers, what its modes and switches do."""

from __future__ import annotations

import math

import pytest
import torch

from boresight.core.grid import cell_centres
from boresight.heads.point import OUTSIDE_LOGIT, DeformableConv, PointHead, prior_bias

CHANNELS = {2: 8, 3: 8, 4: 8}
MODES = ["single", "fused", "coarse_to_fine"]
each_mode = pytest.mark.parametrize("mode", MODES)


def features(rows=16, columns=24, batch=2, seed=0):
    """Levels 2 to 4; sizes are those of the finest, halved and rounded up."""
    random = torch.Generator().manual_seed(seed)
    sizes = {k: (math.ceil(rows / 2 ** (k - 2)), math.ceil(columns / 2 ** (k - 2))) for k in CHANNELS}
    return {k: torch.randn(batch, c, *sizes[k], generator=random) for k, c in CHANNELS.items()}


def head(mode="single", **more):
    torch.manual_seed(0)
    return PointHead(CHANNELS, mode=mode, **more)


@pytest.mark.parametrize(("prior", "bias"), [(0.5, 0.0), (0.01, -math.log(99)), (0.25, -math.log(3))])
def test_prior_bias_by_hand(prior, bias):
    assert prior_bias(prior) == pytest.approx(bias)


@each_mode
@pytest.mark.parametrize("prior", [0.001, 0.01, 0.1])
def test_a_fresh_head_answers_its_prior(mode, prior):
    out = head(mode, prior=prior, proposals=1000)(features())  # so many proposals that the windows cover everything
    assert float(out.logits.detach().sigmoid().mean()) == pytest.approx(prior, rel=0.15)
    for coarse in out.coarser:
        assert float(coarse.logits.detach().sigmoid().mean()) == pytest.approx(prior, rel=0.15)


@each_mode
@pytest.mark.parametrize("size", [(16, 24), (13, 9), (1, 1)])
def test_shapes_and_strides(mode, size):
    out = head(mode, classes=3, auxiliary=(3, 4))(features(*size))
    assert out.logits.shape == (2, 3, *size)
    assert out.boxes.shape == (2, 3, *size, 4)
    assert out.stride == 4.0
    assert [c.stride for c in out.coarser] == [8.0, 16.0]
    assert [c.logits.shape[-2:] for c in out.coarser] == [
        (math.ceil(size[0] / f), math.ceil(size[1] / f)) for f in (2, 4)
    ]


@each_mode
def test_the_coarser_levels_are_those_asked_for_and_the_helper(mode):
    assert [c.stride for c in head(mode)(features()).coarser] == ([] if mode == "single" else [16.0])
    assert [c.stride for c in head(mode, auxiliary=(3,))(features()).coarser] == (
        [8.0] if mode == "single" else [8.0, 16.0]
    )


def test_places_are_points_near_their_cell_and_classes_share_them():
    out = head(classes=5)(features())
    assert out.boxes.stride(1) == 0  # a view, no copy
    assert torch.equal(out.boxes[..., :2], out.boxes[..., 2:])
    centre = cell_centres(16, 24, 4.0)
    assert (out.boxes[:, 0, ..., :2] - centre).abs().mean() < 1.0
    with torch.no_grad():
        detector = head()
        detector.place.weight.zero_()
        detector.place.bias.copy_(torch.tensor([0.5, -0.25]))  # cells: 2 px right, 1 px up
        moved = detector(features()).boxes[0, 0, ..., :2] - centre
    assert torch.allclose(moved, torch.tensor([2.0, -1.0]).expand_as(moved), atol=1e-5)


def test_fused_is_the_sum_of_the_two_logits():
    fused = head("fused").eval()
    with torch.no_grad():
        out = fused(features())
        branch = fused.branch["2"](features()[2])
        fine = fused.score["2"](branch)
    up = torch.nn.functional.interpolate(out.coarser[0].logits, size=(16, 24), mode="bilinear", align_corners=False)
    assert torch.allclose(out.logits, fine + up, atol=1e-6)


@pytest.mark.parametrize(("proposals", "window", "cells"), [(1, 0, 16), (1, 1, 144), (2, 0, 32)])
def test_coarse_to_fine_answers_in_windows_alone(proposals, window, cells):
    """One coarse cell of stride 16 covers 4 x 4 fine ones; a reach of 1 makes it 12 x 12 (away from the border)."""
    asked = head("coarse_to_fine", proposals=proposals, window=window).eval()
    single = head("single").eval()
    single.load_state_dict(asked.state_dict(), strict=False)
    levels = features(32, 32, batch=1)
    with torch.no_grad():
        asked.score["4"].weight.zero_()
        asked.score["4"].weight[0, 0] = 1.0
        asked.branch["4"] = torch.nn.Identity()
        levels[4].zero_()
        levels[4][0, 0, 2, 3], levels[4][0, 0, 5, 5] = 2.0, 1.0
        out, plain = asked(levels), single(levels)
    inside = out.logits[0, 0] != OUTSIDE_LOGIT
    assert int(inside.sum()) == cells
    assert bool(inside[8:12, 12:16].all())
    assert torch.equal(out.logits[0, 0][inside], plain.logits[0, 0][inside])
    assert OUTSIDE_LOGIT < -10


def test_coarse_to_fine_has_windows_for_every_class():
    asked = head("coarse_to_fine", classes=2, proposals=1, window=0)
    assert ((asked(features()).logits != OUTSIDE_LOGIT).flatten(2).sum(-1) == 16).all()


@each_mode
def test_a_gradient_reaches_every_parameter(mode):
    asked = head(mode, classes=2, auxiliary=(3, 4), attention="both", deformable=True, proposals=4)
    out = asked(features())
    loss = out.logits.sum() + out.boxes.square().mean() + sum(c.logits.sum() for c in out.coarser)
    loss.backward()
    without = [n for n, p in asked.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not without
    silent = [n for n, p in asked.named_parameters() if not p.grad.any()]
    assert not silent


@pytest.mark.parametrize("attention", ["none", "channel", "spatial", "both"])
@pytest.mark.parametrize("deformable", [False, True])
def test_switches_build_and_run(attention, deformable):
    asked = head(attention=attention, deformable=deformable)
    kinds = {type(m).__name__ for m in asked.modules()}
    assert ("ChannelAttention" in kinds) == (attention in ("channel", "both"))
    assert ("SpatialAttention" in kinds) == (attention in ("spatial", "both"))
    assert ("DeformableConv" in kinds) == deformable
    assert asked(features()).logits.isfinite().all()


def test_a_fresh_deformable_convolution_is_a_plain_one():
    torch.manual_seed(0)
    layer, x = DeformableConv(6), torch.randn(2, 6, 7, 9)
    with torch.no_grad():
        plain = torch.nn.functional.conv2d(x, layer.conv.weight, layer.conv.bias, padding=1)
        assert torch.allclose(layer(x), torch.nn.functional.silu(plain), atol=1e-5)
        layer.steer.bias[1] = 1.0  # the first tap looks one pixel to the right
        assert not torch.allclose(layer(x), torch.nn.functional.silu(plain), atol=1e-3)


def test_a_deformable_layer_stays_in_float32_under_autocast():
    """Its offsets are places; and CPUs have no kernel of it for bfloat16."""
    layer, x = DeformableConv(6), torch.randn(2, 6, 7, 9)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x.bfloat16())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, layer(x.bfloat16().float()))


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"level": 1}, r"has levels \[2, 3, 4\], the head asks for \[1\]"),
        ({"auxiliary": (5,)}, r"asks for \[5\]"),
        ({"mode": "fused", "coarse": 6}, r"asks for \[6\]"),
        ({"level": 3, "auxiliary": (2,)}, r"must be coarser than level 3, got \[2\]"),
        ({"level": 4, "mode": "fused", "coarse": 4}, r"must be coarser than level 4, got \[4\]"),
    ],
)
def test_levels_that_do_not_fit_raise(more, line):
    with pytest.raises(ValueError, match=line):
        PointHead(CHANNELS, **more)


@each_mode
def test_features_are_not_written_to(mode):
    given = features()
    before = {k: v.clone() for k, v in given.items()}
    head(mode, attention="both")(given)
    assert all(torch.equal(given[k], before[k]) for k in given)
