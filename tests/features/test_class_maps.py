"""Class maps: min-max, calibrated, presence, what may be asked."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from boresight.features.class_maps import calibrated, min_max, presence, similarity
from boresight.features.dense import DenseFeatures


def features(b=2, d=4, h=3, w=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    unit = torch.nn.functional.normalize
    return DenseFeatures(
        unit(torch.randn(b, d, h, w, generator=g), dim=1),
        torch.zeros(b, 0, h, w),
        unit(torch.randn(b, d, generator=g), dim=1),
    )


def test_min_max_by_hand():
    maps = torch.tensor([[[[1.0, 2.0], [3.0, 5.0]], [[-1.0, 0.0], [0.0, 1.0]]]])
    assert min_max(maps).tolist() == [[[[0.0, 0.25], [0.5, 1.0]], [[0.0, 0.5], [0.5, 1.0]]]]


@pytest.mark.parametrize("value", [0.0, 0.25, -3.0])
def test_a_constant_map_is_all_zeros(value):
    maps = torch.full((1, 2, 3, 3), value)
    assert min_max(maps).eq(0).all()
    noisy = maps * (1 + 1e-7 * torch.randn(maps.shape, generator=torch.Generator().manual_seed(0)))
    assert min_max(noisy).eq(0).all()  # what rounding leaves is not stretched to a map


@given(st.integers(0, 1000), st.floats(0.01, 100), st.floats(-10, 10))
def test_min_max_does_not_see_scale_and_offset(seed, scale, offset):
    maps = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(seed)).double()
    assert torch.allclose(min_max(maps), min_max(scale * maps + offset), atol=1e-9)
    assert min_max(maps).amax((-2, -1)).eq(1).all()  # the trap: every class peaks at one


def test_calibrated_by_hand_and_without_the_other_queries():
    maps = torch.tensor([[[[0.2, 0.3]], [[0.1, 0.2]]]])
    found = calibrated(maps, 10.0, 0.2)
    assert found[0, 0, 0, 0] == 0.5
    assert found[0, 0, 0, 1] == pytest.approx(1 / (1 + 2.718281828**-1))
    assert torch.equal(calibrated(maps[:, 1:], 10.0, 0.2), found[:, 1:])


def test_segearth_takes_off_a_share_of_the_image():
    f, text = features(), torch.eye(4)[:2]
    plain, less = (similarity(f, text, method=m) for m in ("naclip", "segearth"))
    assert torch.allclose(less, plain - 0.3 * presence(f.pooled, text)[:, :, None, None])


def test_surgery_with_one_query_in_the_list_form_is_not_silently_zero():
    f, text = features(), torch.eye(4)
    with pytest.raises(ValueError, match="empty prompt"):
        similarity(f, text[:1], method="surgery")
    with pytest.raises(ValueError, match="empty prompt"):
        similarity(f, text, method="surgery", redundancy="empty")
    repeated = similarity(f, text[[0, 0]], method="surgery")  # two equal queries share everything
    assert repeated.abs().max() < 1e-6
    assert min_max(repeated).isfinite().all()


def test_texts_of_another_space_are_refused():
    with pytest.raises(ValueError, match=r"text must be \[C, 4\], got \[2, 5\]"):
        similarity(features(), torch.zeros(2, 5), method="naclip")


def test_presence_is_the_cosine_of_the_image():
    f, text = features(), torch.eye(4)
    assert torch.equal(presence(f.pooled, text), f.pooled)
