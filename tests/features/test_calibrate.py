"""Calibration: known truth is found again, rare and unknown cells, maps that say nothing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.core.errors import UserError
from boresight.features.calibrate import Calibration, fit_calibration


def drawn(a, b, seed=0, images=6, centre=None, spread=0.05):
    """Maps and masks that follow ``sigmoid(a (S - b))`` exactly, in distribution."""
    g = torch.Generator().manual_seed(seed)
    maps = [(b if centre is None else centre) + spread * torch.randn(3, 40, 40, generator=g) for _ in range(images)]
    masks = [torch.rand(m.shape, generator=g) < torch.sigmoid(a * (m - b)) for m in maps]
    return maps, masks


@settings(max_examples=10)
@given(st.floats(10, 80), st.floats(-0.2, 0.4), st.integers(0, 50))
def test_true_numbers_are_found_again(a, b, seed):
    fit = fit_calibration(*drawn(a, b, seed), balanced=False)
    assert fit.a == pytest.approx(a, rel=0.15)
    assert fit.b == pytest.approx(b, abs=0.01)


def test_rare_objects_balanced_and_not():
    maps, masks = drawn(60.0, 0.3, centre=0.22)
    share = torch.stack(masks).float().mean().item()
    assert share < 0.1
    honest, balanced = (fit_calibration(maps, masks, balanced=flag) for flag in (False, True))
    assert torch.cat([honest.map(m) for m in maps]).mean().item() == pytest.approx(share, rel=0.02)
    assert balanced.b < honest.b  # one half lies lower when objects count as much as the ground
    inside = torch.cat([balanced.map(m)[k] for m, k in zip(maps, masks, strict=True)])
    outside = torch.cat([balanced.map(m)[~k] for m, k in zip(maps, masks, strict=True)])
    assert inside.mean() + outside.mean() == pytest.approx(1.0, abs=0.02)


def test_cases_that_a_threshold_separates_stay_finite():
    maps = [torch.tensor([[[0.1, 0.2], [0.3, 0.4]]])]
    fit = fit_calibration(maps, [maps[0] > 0.25])
    assert 0.2 < fit.b < 0.3
    assert 0 < fit.a < 1e4
    assert ((fit.map(maps[0]) > 0.5) == (maps[0] > 0.25)).all()


def test_a_map_that_points_away_or_nowhere_is_not_turned_over():
    maps, masks = drawn(40.0, 0.2)
    away = fit_calibration([-m for m in maps], masks)
    assert (away.a, away.b) == (0.0, 0.0)
    assert away.map(maps[0]).eq(0.5).all()
    flat = fit_calibration([torch.full_like(m, 0.2) for m in maps], masks)
    assert flat.map(maps[0]).eq(0.5).all()


def test_unknown_cells_do_not_count():
    maps, masks = drawn(40.0, 0.2)
    known = [torch.tensor([True, True, False]) for _ in maps]
    hidden = [k.clone() for k in masks]
    for k in hidden:
        k[2] &= torch.rand(k[2].shape, generator=torch.Generator().manual_seed(1)) < 0.5  # half is not labelled
    without = fit_calibration([m[:2] for m in maps], [k[:2] for k in masks])
    found = fit_calibration(maps, hidden, known=known)
    wrong = fit_calibration(maps, hidden)
    # labelled cells of class 2 still count as objects, none of its cells counts as ground
    assert found.b <= without.b + 0.002
    assert wrong.b > found.b


def test_presence_is_fitted_on_whole_images():
    maps, masks = drawn(40.0, 0.2)
    g = torch.Generator().manual_seed(2)
    present = torch.rand(6, 3, generator=g) < 0.5
    cosine = torch.where(present, 0.3, 0.2) + 0.02 * torch.randn(6, 3, generator=g)
    fit = fit_calibration(maps, masks, cosine, present)
    assert fit.presence(cosine)[present].mean() > 0.8 > 0.2 > fit.presence(cosine)[~present].mean()
    assert 0.2 < fit.presence_b < 0.3
    # every class in every image: nothing is known of absence
    assert fit_calibration(maps, masks, cosine).presence_a == 0.0


def test_a_class_that_was_not_there_can_be_asked():
    calibration = fit_calibration(*drawn(40.0, 0.2))
    seen, unseen = torch.rand(1, 3, 4, 4), torch.rand(1, 9, 4, 4)
    both = calibration.map(torch.cat((seen, unseen), dim=1))
    assert torch.equal(both[:, 3:], calibration.map(unseen))


def test_without_presence_one_half_everywhere():
    assert Calibration(10.0, 0.2).presence(torch.randn(2, 3)).eq(0.5).all()


def test_objects_smaller_than_cells_are_explained():
    maps, masks = drawn(40.0, 0.2)
    with pytest.raises(UserError, match=r"0 of 28800 cells lie inside an object.*clip.size"):
        fit_calibration(maps, [torch.zeros_like(k) for k in masks])
    with pytest.raises(ValueError, match="same shapes"):
        fit_calibration(maps, masks[:-1])
    with pytest.raises(ValueError, match="same shapes"):
        fit_calibration(maps, [k[:, 1:] for k in masks])
