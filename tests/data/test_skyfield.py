from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.core.errors import UserError
from boresight.core.psf import gaussian_psf
from boresight.data.sky_background import mean_background, power_law_field
from boresight.data.sky_sensor import expose
from boresight.data.sky_target import Optics, flux_of, local_noise, place_targets
from boresight.data.skyfield import PRESETS, Sky, Skyfield, preset

SMALL = {"height": 96, "width": 128}


def small(name: str = "white", **changes: Any) -> Sky:
    return preset(name, **{**SMALL, **changes})


# A frame is a pure function of (sky, seed, index)


@pytest.mark.parametrize("name", PRESETS)
def test_same_seed_and_index_give_the_same_bytes(name: str) -> None:
    one, two = (Skyfield(small(name), count=5, seed=3) for _ in range(2))
    a = [one[i] for i in range(5)]
    b = {i: two[i] for i in (4, 1, 3, 0, 2)}  # the order of asking does not matter
    for i in range(5):
        assert torch.equal(a[i].image, b[i].image)
        assert a[i].points is not None
        assert b[i].points is not None
        assert torch.equal(a[i].points.xy, b[i].points.xy)
    assert not torch.equal(a[0].image, a[1].image)
    assert not torch.equal(a[0].image, Skyfield(small(name), count=1, seed=4)[0].image)


def test_first_shifts_the_sequence() -> None:
    all_frames, tail = Skyfield(small(), count=6, seed=2), Skyfield(small(), count=2, seed=2, first=4)
    assert tail.names == all_frames.names[4:] == ["sky_2_000004", "sky_2_000005"]
    assert [s.image_id for s in tail] == [5, 6]
    assert torch.equal(tail[1].image, all_frames[5].image)


def test_length_iteration_and_index_errors() -> None:
    field = Skyfield(small(), count=3)
    assert len(field) == 3
    assert [s.name for s in field] == field.names
    for wrong in (3, -1):
        with pytest.raises(IndexError):
            field[wrong]


def test_another_snr_keeps_places_and_hot_pixels() -> None:
    sky = {"empty_share": 0.0, "hot_share": (0.01, 0.01), "hot_level": 30_000.0, "background": (2000.0, 2000.0)}
    dim, bright = (Skyfield(small("white", **sky, snr=pair), count=1)[0] for pair in ((3.0, 4.0), (8.0, 12.0)))
    assert dim.points is not None
    assert bright.points is not None
    assert torch.equal(dim.points.xy, bright.points.xy)
    assert (dim.points.snr < 5).all()  # type: ignore[operator]
    assert (bright.points.snr > 5).all()  # type: ignore[operator]
    hot = dim.image > 5000
    assert 60 < hot.sum() < 160
    torch.testing.assert_close(dim.image[hot], bright.image[hot], rtol=0.1, atol=800.0)


# Shapes and truth


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("size", [(480, 640), (97, 131), (33, 64)])
def test_every_preset_gives_a_finite_frame(name: str, size: tuple[int, int]) -> None:
    sky = preset(name, height=size[0], width=size[1], cloud_share=1.0, horizon_share=1.0, targets=(1, 2))
    scene = Skyfield(sky, count=1, seed=1)[0]
    assert scene.size == size
    assert scene.image.shape == (1, *size)
    assert scene.image.dtype == torch.float32
    assert torch.equal(scene.image, scene.image.round())
    assert 0 <= scene.image.min() < scene.image.max() <= 2**sky.bits - 1
    assert scene.level == pytest.approx(float(scene.image.mean()))
    assert scene.spread == pytest.approx(float(scene.image.std(correction=0)))


def test_counts_and_share_of_empty_frames() -> None:
    sky = small(height=64, width=64, targets=(2, 4), empty_share=0.35, min_separation=4.0)
    counts = np.array([len(s.points) for s in Skyfield(sky, count=1000) if s.points is not None])
    assert len(counts) == 1000
    assert set(counts) == {0, 2, 3, 4}
    assert (counts == 0).mean() == pytest.approx(0.35, abs=0.045)  # 3 standard errors
    assert (counts == 3).sum() / (counts > 0).sum() == pytest.approx(1 / 3, abs=0.055)


def test_truth_lies_inside_apart_and_sub_pixel() -> None:
    sky = small("default", targets=(5, 5), empty_share=0.0, min_separation=20.0, border=9.0)
    for scene in Skyfield(sky, count=20):
        points = scene.points
        assert points is not None
        assert points.mask is None
        assert (points.xy >= 9).all()
        assert (points.xy <= torch.tensor([128 - 9, 96 - 9])).all()
        assert torch.pdist(points.xy).min() >= 20
        assert (points.xy % 0.5 != 0).any()
        assert points.snr is not None
        assert ((points.snr >= 3) & (points.snr <= 12)).all()


def test_dim_targets_are_kept_as_dont_care() -> None:
    sky = small(snr=(1.0, 5.0), empty_share=0.0)
    points = [s.points for s in Skyfield(sky, count=60) if s.points is not None]
    snr = torch.cat([p.snr for p in points if p.snr is not None])
    ignore = torch.cat([p.ignore for p in points])
    assert torch.equal(ignore, snr < 3)
    assert 0 < int(ignore.sum()) < len(ignore)
    assert sum(map(len, points)) == len(snr) >= 60


# Optics


@pytest.mark.parametrize(("psf", "lost"), [("gaussian", 1e-5), ("moffat", 4e-3), ("airy", 0.06)])
@pytest.mark.parametrize(("ellipticity", "blur"), [(0.0, 0.0), (0.3, 0.0), (0.0, 2.0), (0.2, 1.5)])
def test_shares_sum_to_one_and_centre_on_the_truth(psf: str, lost: float, ellipticity: float, blur: float) -> None:
    optics = Optics(psf, 1.0, ellipticity=ellipticity, direction=0.7, blur=blur, blur_direction=2.1)
    (rows, columns), share = optics.image(60.3, 55.8, (120, 120))
    assert 1 - lost < share.sum() <= 1 + 1e-4
    assert share.min() >= 0
    x = share.sum(0) @ (np.arange(columns.start, columns.stop) + 0.5) / share.sum()
    y = share.sum(1) @ (np.arange(rows.start, rows.stop) + 0.5) / share.sum()
    assert (x, y) == pytest.approx((60.3, 55.8), abs=1e-5 if psf == "gaussian" else 0.05)


def test_quadrature_agrees_with_the_exact_integral() -> None:
    window, exact = Optics("gaussian", 1.0).image(20.2, 21.7, (40, 40))
    _, almost_round = Optics("gaussian", 1.0, ellipticity=1e-9).image(20.2, 21.7, (40, 40))
    assert almost_round.shape[0] >= exact.shape[0]
    assert np.abs(np.sort(almost_round.ravel())[-9:] - np.sort(exact.ravel())[-9:]).max() < 1e-6
    assert window == (slice(16, 27), slice(15, 26))


@pytest.mark.parametrize("psf", ["gaussian", "moffat", "airy"])
def test_sigma_means_the_same_fwhm_in_every_model(psf: str) -> None:
    density = Optics(psf, 1.3)._density
    assert density(np.array([(1.3 * 2.354820 / 2) ** 2])) / density(np.array([0.0])) == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("psf", ["gaussian", "moffat", "airy"])
def test_the_density_integrates_to_one(psf: str) -> None:
    r = np.linspace(0, 40, 400_001)
    flux = 2 * np.pi * np.trapezoid(Optics(psf, 1.0)._density(r**2) * r, r)
    assert flux == pytest.approx(1.0, abs=0.02 if psf == "airy" else 1e-3)  # 1.5 % of an Airy pattern lies farther out


def test_the_frame_cuts_the_light_at_its_edge() -> None:
    (rows, columns), share = Optics("gaussian", 1.0).image(0.0, 10.0, (20, 30))
    assert columns.start == 0
    assert share.shape == (rows.stop - rows.start, columns.stop)
    assert share.sum() == pytest.approx(0.5, abs=1e-5)


def test_centroid_of_a_bright_target_is_the_truth() -> None:
    sky = small(snr=(400.0, 500.0), targets=(1, 1), empty_share=0.0, read_noise=0.0, border=12.0)
    for scene in Skyfield(sky, count=8, seed=1):
        assert scene.points is not None
        x, y = scene.points.xy[0].tolist()
        row, column = int(y), int(x)
        stamp = scene.image[0, row - 5 : row + 6, column - 5 : column + 6].double() - 4200.0  # background + bias
        index = torch.arange(-5.0, 6.0, dtype=torch.float64)
        centroid = (stamp.sum(0) @ (index + column) / stamp.sum(), stamp.sum(1) @ (index + row) / stamp.sum())
        assert centroid == pytest.approx((x - 0.5, y - 0.5), abs=0.06)  # photon noise: 11 px at 63 e- of 140,000 e-


def test_centroid_without_noise_is_exact_to_a_hundredth() -> None:
    window, share = Optics("gaussian", 1.1).image(31.37, 18.81, (40, 60))
    frame = np.zeros((40, 60))
    frame[window] += 5000 * share
    assert frame.sum(0) @ np.arange(60) / frame.sum() == pytest.approx(31.37 - 0.5, abs=0.01)
    assert frame.sum(1) @ np.arange(40) / frame.sum() == pytest.approx(18.81 - 0.5, abs=0.01)


# Photometry: many noise draws


def test_measured_noise_of_the_white_preset_is_the_predicted() -> None:
    sky = preset("white", empty_share=1.0, gain=2.0)
    predicted = math.sqrt(4000 + 5**2 + 2**2 / 12) / 2
    images = [s.image for s in Skyfield(sky, count=2)]
    for image in images:
        assert float(image.std()) == pytest.approx(predicted, rel=0.005)  # 4 standard errors
        assert float(image.mean()) == pytest.approx(4000 / 2 + 200, abs=0.25)
    neighbour = torch.corrcoef(torch.stack((images[0][0, :, :-1].ravel(), images[0][0, :, 1:].ravel())))[0, 1]
    assert abs(float(neighbour)) < 0.01


def test_white_noise_is_what_local_noise_says() -> None:
    sky = preset("white")
    flat = np.full((50, 50), 4000.0, dtype=np.float32)
    assert local_noise(20.0, 20.0, flat, sky) == pytest.approx(math.sqrt(4000 + 25 + 1 / 12))
    assert local_noise(0.1, 49.9, flat, sky) == pytest.approx(math.sqrt(4000 + 25 + 1 / 12))


def test_local_noise_adds_every_stated_variance() -> None:
    background = np.full((40, 40), 900.0)
    background[:, ::2] += 200.0  # within 11 columns around an even one: 6 at 1100 or 5, by hand below
    sky = preset(
        "default", read_noise=3.0, dark=50.0, exposure=2.0, gain=6.0, row_noise=4.0, column_noise=5.0, prnu=0.01
    )
    level = 900 + 200 * 5 / 11  # columns 15..25 hold the even ones 16, 18, 20, 22, 24
    clutter = 200**2 * (5 / 11) * (6 / 11)
    expected = level + 100 + 9 + 36 / 12 + 16 + 25 + (0.01 * level) ** 2 + clutter
    assert local_noise(20.4, 20.6, background, sky) ** 2 == pytest.approx(expected)


def test_flux_and_snr_agree_with_the_frames() -> None:
    """Background-subtracted light is the true flux, and the matched filter at the true place answers the true SNR."""
    sky = small(snr=(3.0, 12.0), empty_share=0.0, border=10.0, gain=0.5, bits=16)
    sum_ratio, answers, stated = [], [], []
    for scene in Skyfield(sky, count=400, seed=7):
        points = scene.points
        assert points is not None
        assert points.snr is not None
        assert points.flux is not None
        electrons = (scene.image[0].double().numpy() - sky.bias) * sky.gain - 4000.0
        for (x, y), snr, flux in zip(points.xy.tolist(), points.snr.tolist(), points.flux.tolist(), strict=True):
            left, top = int(x) - 6, int(y) - 6
            stamp = electrons[top : top + 13, left : left + 13]
            psf = gaussian_psf((x - left, y - top), 1.0, 13, 13)
            sum_ratio.append((stamp[3:10, 3:10].sum() - flux * psf[3:10, 3:10].sum()) / 63.5 / 7)
            answers.append((stamp * psf).sum() / np.linalg.norm(psf) / math.sqrt(4025))
            stated.append(snr)
    n = len(stated)
    assert n > 1000
    assert abs(np.mean(sum_ratio)) < 4 / math.sqrt(n)
    difference = np.array(answers) - np.array(stated)
    assert abs(difference.mean()) < 4 / math.sqrt(n)
    assert difference.std() == pytest.approx(1.0, abs=0.1)
    assert np.polyfit(stated, answers, 1)[0] == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("name", ["default", "hard"])
def test_stated_snr_follows_from_flux_noise_and_psf(name: str) -> None:
    share = Optics("moffat", 1.1).image(30.2, 30.9, (60, 60))[1]
    noise = local_noise(30.2, 30.9, mean_background(np.random.default_rng(1), small(name)), small(name))
    flux = flux_of(7.0, share, noise)
    assert flux * math.sqrt((share**2).sum()) / noise == pytest.approx(7.0)


# The scene and the camera


@pytest.mark.parametrize("exponent", [1.5, 3.0])
def test_clutter_has_the_stated_spectrum(exponent: float) -> None:
    field = power_law_field(np.random.default_rng(0), 256, 256, exponent)
    assert field.mean() == pytest.approx(0, abs=1e-4)
    assert field.std() == pytest.approx(1, abs=1e-4)
    power = np.abs(np.fft.fft2(field)) ** 2
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256))
    band = (frequency > 0.03) & (frequency < 0.4)
    slope = np.polyfit(np.log(frequency[band]), np.log(power[band]), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.06)


def test_gradient_reaches_the_stated_peak_to_peak() -> None:
    sky = small(gradient=(0.2, 0.2))
    light = mean_background(np.random.default_rng(4), sky)
    assert np.ptp(light) / 4000 == pytest.approx(0.2, rel=0.01)
    assert light.mean() == pytest.approx(4000, rel=1e-3)


def test_quantum_efficiency_and_exposure_scale_the_light() -> None:
    one, half = (
        mean_background(np.random.default_rng(0), small(quantum_efficiency=q, exposure=3.0)) for q in (1.0, 0.5)
    )
    np.testing.assert_allclose(one, 12000)
    np.testing.assert_allclose(half, 6000)


def test_saturation_clips_at_the_depth() -> None:
    dull = Skyfield(small(bits=8, gain=2.0, empty_share=1.0), count=1)[0].image  # 4000 / 2 e-, far above 255
    assert (dull == 255).all()
    bright = small(bits=12, gain=1.0, snr=(600.0, 700.0), targets=(1, 1), empty_share=0.0, background=(500.0, 500.0))
    assert Skyfield(bright, count=1)[0].image.max() == 4095


def test_dark_pixels_do_not_go_below_zero() -> None:
    sky = small(background=(1.0, 1.0), read_noise=20.0, bias=5.0, empty_share=1.0)
    image = Skyfield(sky, count=1)[0].image
    assert image.min() == 0
    assert (image == 0).float().mean() > 0.2


def test_prnu_rows_columns_hot_and_dead_pixels() -> None:
    flat = np.full((400, 500), 10_000.0, dtype=np.float32)
    plain = {"height": 400, "width": 500, "read_noise": 0.0, "bits": 16, "bias": 0.0}
    shot = 10_000.0

    def frame(**changes: Any) -> np.ndarray:
        return expose(np.random.default_rng(0), flat, preset("white", **{**plain, **changes})).astype(np.float64)

    assert frame(prnu=0.02).var() == pytest.approx(shot + 200**2, rel=0.02)
    assert frame(row_noise=50.0).mean(1).std() == pytest.approx(50, rel=0.15)
    assert frame(column_noise=50.0).mean(0).std() == pytest.approx(50, rel=0.15)
    assert frame(dark=3000.0, exposure=2.0).mean() == pytest.approx(16_000, rel=1e-3)
    assert (frame(dead_share=0.01) < 1000).mean() == pytest.approx(0.01, rel=0.1)
    hot = frame(hot_share=(0.01, 0.01), hot_level=20_000.0) - 10_000.0
    assert hot.mean() == pytest.approx(200, rel=0.1)
    assert (hot > 1000).mean() == pytest.approx(0.01 * math.exp(-0.05), rel=0.1)
    assert (flat == 10_000).all()  # the light is not written to


def test_streaks_are_sharp_lines() -> None:
    sky = preset("white", height=200, width=200, cosmic_rate=40.0, cosmic_level=5000.0, read_noise=0.0)
    image = expose(np.random.default_rng(1), np.full((200, 200), 100.0, dtype=np.float32), sky) - sky.bias
    hit = image > 400
    assert 40 < hit.sum() < 40 * 30
    assert np.median(image[~hit]) == pytest.approx(100, abs=2)


def test_clouds_and_skyline_brighten_a_part() -> None:
    clouds = mean_background(np.random.default_rng(3), small(cloud_share=1.0, cloud_contrast=(0.2, 0.2)))
    assert (clouds > 4001).mean() == pytest.approx(0.4, abs=0.3)
    assert clouds.max() <= 4800.1
    assert clouds.min() == pytest.approx(4000)
    land = mean_background(np.random.default_rng(3), small(horizon_share=1.0, horizon_contrast=(0.25, 0.25)))
    assert land[0].max() == pytest.approx(4000)
    assert land[-1].min() == pytest.approx(5000)
    assert (np.diff(land, axis=0) >= -0.01).all()  # one edge, sky above ground
    both = small(horizon_share=1.0, horizon_contrast=(0.25, 0.25), cloud_share=1.0, cloud_contrast=(0.2, 0.2))
    hidden = mean_background(np.random.default_rng(3), both)
    assert hidden.max() == pytest.approx(5000)  # no cloud in front of the ground
    assert (hidden < 5000).any(axis=0).all()


# What the user can get wrong


def test_presets_and_changes() -> None:
    assert PRESETS == ("white", "easy", "default", "hard")
    assert preset("default") == Sky()
    assert preset("hard", height=64).height == 64
    with pytest.raises(UserError, match="did you mean `white`"):
        preset("whte")
    with pytest.raises(UserError, match="did you mean `read_noise`"):
        preset("easy", read_nose=3.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"snr": (5.0, 3.0)},
        {"targets": (-1, 2)},
        {"empty_share": 1.5},
        {"sigma": (0.0, 1.0)},
        {"gain": 0.0},
        {"bits": 17},
        {"height": 8},
        {"psf": "gausian"},
        {"border": 240.0},
        {"ellipticity": (0.0, 1.0)},
        {"hot_share": (0.1, 2.0)},
        {"read_noise": -1.0},
        {"dead_share": 2.0},
    ],
)
def test_impossible_values_are_named(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"sky.{next(iter(changes))}"):
        Sky(**changes)


def test_targets_that_do_not_fit_are_an_error_not_dropped() -> None:
    sky = small(targets=(5, 5), min_separation=200.0, empty_share=0.0)
    with pytest.raises(UserError, match="min_separation"):
        Skyfield(sky, count=1)[0]


@pytest.mark.parametrize("name", ["count", "seed", "first"])
def test_negative_arguments_are_named(name: str) -> None:
    with pytest.raises(UserError, match=name):
        Skyfield(small(), **{"count": 1, name: -1})


@settings(max_examples=30, deadline=None)
@given(count=st.integers(0, 6), border=st.floats(0, 20), apart=st.floats(0, 15), seed=st.integers(0, 2**32))
def test_places_keep_border_and_distance(count: int, border: float, apart: float, seed: int) -> None:
    sky = Sky(height=150, width=200, border=border, min_separation=apart)
    xy = place_targets(np.random.default_rng(seed), count, sky)
    assert xy.shape == (count, 2)
    assert ((xy >= border) & (xy <= np.array([200, 150]) - border)).all()
    for i in range(count):
        for j in range(i):
            assert math.dist(xy[i], xy[j]) >= apart
