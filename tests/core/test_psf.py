from __future__ import annotations

import math

import numpy as np
import pytest

from boresight.core.psf import gaussian_psf, gaussian_share


def test_the_middle_pixel_holds_the_error_function() -> None:
    # one sigma of half a pixel either side: the share within one sigma is erf(1 / sqrt 2)
    assert gaussian_share(0.5, 0.5, 1)[0] == pytest.approx(math.erf(1 / math.sqrt(2)), abs=1e-12)


def test_a_point_on_an_edge_is_shared_equally() -> None:
    psf = gaussian_psf((4.0, 2.0), 0.9, 4, 8)
    assert psf.shape == (4, 8)
    np.testing.assert_allclose(psf, psf[:, ::-1], atol=1e-15)
    np.testing.assert_allclose(psf, psf[::-1], atol=1e-15)


def test_sum_centroid_and_batch() -> None:
    places = np.array([[12.3, 11.8], [12.9, 12.1]])
    psf = gaussian_psf(places, 1.1, 25, 25)
    np.testing.assert_allclose(psf.sum((1, 2)), 1, atol=1e-12)
    centres = np.arange(25) + 0.5
    np.testing.assert_allclose((psf.sum(1) @ centres), places[:, 0], atol=1e-9)
    np.testing.assert_allclose((psf.sum(2) @ centres), places[:, 1], atol=1e-9)
    np.testing.assert_array_equal(psf[1], gaussian_psf(places[1], 1.1, 25, 25))


def test_point_sampling_is_eight_per_cent_too_high() -> None:
    integrated = gaussian_psf((0.5, 0.5), 1.0, 1, 1)[0, 0]
    assert 1 / (2 * math.pi) / integrated == pytest.approx(1.085, abs=0.005)


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan])
def test_sigma_must_be_positive(sigma: float) -> None:
    with pytest.raises(ValueError, match="sigma"):
        gaussian_share(0.5, sigma, 3)
