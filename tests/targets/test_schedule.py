"""Schedules of the soft label."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from boresight.core.types import Points
from boresight.targets import schedule
from boresight.targets.gaussian import gaussian_kernel, point_targets
from boresight.targets.schedule import Label

PROGRESS = st.floats(0, 1)


@pytest.mark.parametrize(
    ("progress", "window", "sigma"),
    [(0, 5, 1.2), (0.29, 5, 1.2), (0.3, 4, 1.0), (0.5, 4, 1.0), (0.69, 4, 1.0), (0.7, 3, 0.8), (1, 3, 0.8)],
)
def test_the_table_of_steps(progress, window, sigma):
    label = schedule.steps()(progress)
    assert (label.sigma, label.window, label.weight) == (sigma, window, 1.0)
    assert schedule.WINDOW_SIGMA[window] == sigma


def test_reversed_steps():
    reverse = schedule.steps((0.8, 1.0, 1.2))
    assert [reverse(p).window for p in (0.1, 0.5, 0.9)] == [3, 4, 5]


def test_steps_need_one_sigma_more_than_breaks():
    with pytest.raises(ValueError, match="2 sigmas need 1 breaks, got 2"):
        schedule.steps((1.0, 0.8))


@given(st.floats(0.2, 4))
def test_the_window_is_what_the_truncated_gaussian_fills(sigma):
    assert Label(sigma).window == math.floor(2 * 2.1459660262893474 * sigma)


@pytest.mark.parametrize(
    ("progress", "line", "wave"), [(0, 1.2, 1.2), (0.25, 1.1, 1 + 0.2 * math.sqrt(0.5)), (0.5, 1, 1), (1, 0.8, 0.8)]
)
def test_linear_and_cosine_by_hand(progress, line, wave):
    assert schedule.linear()(progress).sigma == pytest.approx(line)
    assert schedule.cosine()(progress).sigma == pytest.approx(wave)


@given(PROGRESS, PROGRESS)
def test_annealing_only_ever_sharpens(a, b):
    for planned in (schedule.steps(), schedule.linear(), schedule.cosine()):
        early, late = planned(min(a, b)).sigma, planned(max(a, b)).sigma
        assert 0.8 - 1e-12 <= late <= early + 1e-12 <= 1.2 + 2e-12


@given(PROGRESS)
def test_fixed_never_changes(progress):
    assert schedule.fixed(0.9)(progress) == Label(0.9)


@given(PROGRESS)
def test_constant_mass_holds_sigma_squared_times_weight(progress):
    for planned in (schedule.steps(), schedule.linear(), schedule.with_weight_ramp(schedule.fixed(1.2))):
        label = schedule.with_constant_mass(planned, 1.1)(progress)
        assert label.sigma == planned(progress).sigma
        assert label.weight * label.sigma**2 == pytest.approx(1.1**2)


def mass(sigma, peak):
    """What the label of one target sums to, averaged over the places in its cell that it may have."""
    phase = (torch.arange(32) + 0.5) / 32
    y, x = torch.meshgrid(phase, phase, indexing="ij")
    frames = [Points.of(5 + one[None]) for one in torch.stack((x, y), -1).reshape(-1, 2)]
    kernel = gaussian_kernel(sigma, peak)
    return (
        float(point_targets(frames, classes=1, rows=11, columns=11, stride=1, kernel=kernel, reach=4).score.sum())
        / 1024
    )


def test_the_mass_of_physical_labels_is_constant_to_one_per_cent():
    """Averaged over places it is 0.9 of 2 pi sigma^2: a tenth lies beyond the truncation. A single place differs."""
    held = schedule.with_constant_mass(schedule.steps())
    masses = [mass(held(p).sigma, "physical") * held(p).weight for p in (0.1, 0.5, 0.9)]
    assert masses == pytest.approx([0.9 * 2 * math.pi] * 3, rel=0.01)
    assert mass(1.2, "physical") / mass(0.8, "physical") > 2  # what there is to hold


def test_the_mass_of_unit_labels_is_constant_to_three_per_cent():
    """Raising the nearest cell to 1 adds up to a tenth of a cell, which the weight then shrinks or grows."""
    held = schedule.with_constant_mass(schedule.steps())
    masses = [mass(held(p).sigma, "unit") * held(p).weight for p in (0.1, 0.5, 0.9)]
    assert max(masses) / min(masses) < 1.03
    assert max(masses) / min(masses) > 1.01  # if this fails the label changed: say so where it is documented


def test_the_weight_ramp_is_straight_and_capped():
    ramp = schedule.with_weight_ramp(schedule.fixed(1.0), 1.0, 9.0, cap=5.0)
    assert [ramp(p).weight for p in (0, 0.25, 0.5, 0.75, 1)] == pytest.approx([1, 3, 5, 5, 5])


@given(PROGRESS, st.floats(0.1, 20), st.floats(0.1, 20), st.floats(0.1, 20))
def test_no_weight_exceeds_the_cap(progress, first, last, cap):
    planned = schedule.with_weight_ramp(schedule.with_constant_mass(schedule.linear()), first, last, cap=cap)
    assert planned(progress).weight <= cap
    assert planned(progress).sigma == schedule.linear()(progress).sigma
