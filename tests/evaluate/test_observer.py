from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import maximum_filter

from boresight.core.psf import gaussian_psf
from boresight.evaluate.observer import _NoiseMaxima, ideal_observer, matched_filter

SNR = (3.0, 4.0, 5.0, 6.0, 7.0)


def test_the_filter_shows_a_clean_target_at_its_snr() -> None:
    psf = gaussian_psf((20.5, 12.5), 1.2, 30, 40)
    response = matched_filter(6.5 * psf / np.linalg.norm(psf), 1.2)
    assert response.shape == (30, 40)
    assert np.unravel_index(response.argmax(), response.shape) == (12, 20)
    assert response.max() == pytest.approx(6.5, abs=1e-5)


def test_filtered_white_noise_keeps_unit_variance() -> None:
    noise = np.random.default_rng(0).standard_normal((600, 600))
    assert matched_filter(noise, 1.0)[5:-5, 5:-5].std() == pytest.approx(1.0, abs=0.015)


def test_the_filter_is_linear_and_leaves_its_input() -> None:
    image = np.random.default_rng(1).standard_normal((17, 23)).astype(np.float32)
    before = image.copy()
    np.testing.assert_allclose(matched_filter(-2 * image), -2 * matched_filter(image), atol=1e-6)
    np.testing.assert_array_equal(image, before)


def test_the_filter_wants_two_dimensions() -> None:
    with pytest.raises(ValueError, match=r"\[1, 4, 4\]"):
        matched_filter(np.zeros((1, 4, 4)))


def test_rate_of_noise_maxima_agrees_with_counting_them() -> None:
    rng = np.random.default_rng(2)
    law = _NoiseMaxima(1.0, 20_000, rng)
    filtered = matched_filter(rng.standard_normal((1500, 1500)), 1.0)
    inner = filtered[10:-10, 10:-10]
    peaks = inner[inner == maximum_filter(filtered, 3)[10:-10, 10:-10]]
    for threshold, spread in ((2.0, 0.03), (3.0, 0.06), (3.8, 0.20)):  # about 4 standard errors of the count
        assert law.rate(threshold) == pytest.approx((peaks > threshold).sum() / inner.size, rel=spread)


@pytest.mark.parametrize("rate", [1e-2, 3e-6, 3e-8])
def test_threshold_inverts_the_rate(rate: float) -> None:
    law = _NoiseMaxima(1.3, 5000, np.random.default_rng(0))
    assert law.rate(law.threshold(rate)) == pytest.approx(rate, rel=2e-3)


def test_published_line() -> None:
    pd = ideal_observer(SNR, (1.0, 0.1), trials=8000)
    known = np.array([[0.08, 0.38, 0.74, 0.93, 0.998], [0.03, 0.18, 0.52, np.nan, 0.98]])
    # The table's 0.81 at SNR 6 and 0.1 a frame is left out: it fits neither its neighbours (with a threshold of 4.94
    # they ask for Phi(6 - 4.94) = 0.85) nor frames that are counted (next test).
    assert np.nanmax(np.abs(pd - known)) <= 0.04


@pytest.mark.parametrize("sigma", [1.0, 0.5])  # 0.5: the place within the pixel matters most
def test_whole_frames_give_the_same_line(sigma: float) -> None:
    """Frames with targets, filtered and thresholded as a detector would: nothing of the simulation is shared."""
    rng = np.random.default_rng(3)
    pd = ideal_observer((6.0,), (0.1,), sigma=sigma, trials=8000)[0, 0]
    threshold = _NoiseMaxima(sigma, 20_000, rng).threshold(0.1 / (480 * 640))
    found = []
    for _ in range(6):
        frame = rng.standard_normal((480, 640))
        places = [(x + rng.random(), y + rng.random()) for x in range(20, 620, 24) for y in range(20, 460, 24)]
        for x, y in places:
            left, top = int(x) - 8, int(y) - 8
            psf = gaussian_psf((x - left, y - top), sigma, 17, 17)
            frame[top : top + 17, left : left + 17] += 6.0 * psf / np.linalg.norm(psf)
        response = matched_filter(frame, sigma)
        rows, columns = np.nonzero((response > threshold) & (response == maximum_filter(response, 3)))
        at = np.stack((columns + 0.5, rows + 0.5), -1)
        found += [np.hypot(*(at - place).T).min() <= 3.0 for place in places]
    assert len(found) > 2500
    assert np.mean(found) == pytest.approx(pd, abs=0.025)  # 3 standard errors of both together


def test_pd_rises_with_snr_and_with_false_alarms() -> None:
    pd = ideal_observer((0.0, 2.0, 4.0, 6.0, 12.0), (0.01, 0.1, 1.0, 10.0), trials=1000, sigma=1.4, seed=5)
    assert pd.shape == (4, 5)
    assert (np.diff(pd, axis=0) >= 0).all()
    assert (np.diff(pd, axis=1) >= 0).all()
    assert pd[:, 0].max() < 0.01  # no signal: only chance
    assert pd[:, -1].min() == 1.0


def test_pure_function_of_its_arguments_and_empty_in_empty_out() -> None:
    first, again = (ideal_observer((5.0,), (1.0,), trials=300, seed=9) for _ in range(2))
    assert first == again
    assert ideal_observer((), (1.0,), trials=10).shape == (1, 0)
    assert ideal_observer((5.0,), (), trials=10).shape == (0, 1)


def test_a_smaller_frame_allows_a_lower_threshold() -> None:
    small = ideal_observer((5.0,), (1.0,), shape=(64, 64), trials=2000)
    assert small > ideal_observer((5.0,), (1.0,), trials=2000) + 0.1


@pytest.mark.parametrize("rate", [0.0, -1.0, 3e5])
def test_impossible_rates_are_named(rate: float) -> None:
    with pytest.raises(ValueError, match="maxima a pixel"):
        ideal_observer((5.0,), (rate,), trials=10)


def test_no_trials_is_an_error() -> None:
    with pytest.raises(ValueError, match="trials"):
        ideal_observer((5.0,), (1.0,), trials=0)
