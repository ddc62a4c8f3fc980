"""The literature's map protocols: every case is a map that can be drawn on paper."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from boresight.core.errors import UserError
from boresight.core.types import Detections, Points
from boresight.evaluate.stamps import basic_irstd, compatibility, dnanet_legacy, draw_stamps, spire

FALSE_BLOBS = [(20.5, 20.5), (60.5, 20.5), (100.5, 20.5), (20.5, 100.5), (60.5, 100.5)]


def mask_with_square(size: tuple[int, int], row: int, column: int) -> np.ndarray:
    """A 3x3 target whose centre pixel is ``(row, column)``."""
    mask = np.zeros(size, np.int32)
    mask[row - 1 : row + 2, column - 1 : column + 2] = 1
    return mask


def test_a_stamp_surrounds_the_pixel_that_holds_the_point():
    drawn = draw_stamps(np.array([[2.0, 1.99]]), (5, 6), 3)
    want = np.zeros((5, 6), bool)
    want[0:3, 1:4] = True  # pixel row 1, column 2
    assert np.array_equal(drawn, want)


def test_stamps_are_clipped_and_the_far_border_belongs_to_the_last_pixel():
    assert draw_stamps(np.array([[6.0, 5.0]]), (5, 6), 3).sum() == 4
    assert draw_stamps(np.array([[0.0, 0.0]]), (5, 6), 3)[:2, :2].all()
    assert draw_stamps(np.array([[2.5, 2.5]]), (5, 6), 1).sum() == 1
    assert draw_stamps(np.zeros((0, 2)), (5, 6), 3).sum() == 0


@pytest.mark.parametrize("stamp", [0, -1, 2, 4])
def test_a_stamp_without_centre_is_the_users_mistake(stamp: int):
    with pytest.raises(UserError, match=f"stamp must be an odd number of pixels such as 3, got {stamp}"):
        draw_stamps(np.zeros((0, 2)), (5, 6), stamp)


@pytest.mark.parametrize(("size", "fa_e6"), [((213, 320), 660.2), ((256, 256), 686.6)])
def test_legacy_says_zero_where_five_blobs_an_image_are_false(size: tuple[int, int], fa_e6: float):
    # One 3x3 hit an image, and five 3x3 false alarms of 9 px: 45 false pixels an image. The legacy code looks for the
    # matched *area* 9, finds it in all six blobs, and calls all six matched.
    masks = [mask_with_square(size, 150, 150)] * 4
    positions = [np.array([(150.5, 150.5), *FALSE_BLOBS])] * 4
    fixed, legacy = basic_irstd(masks, positions, 3), dnanet_legacy(masks, positions, 3)
    assert (fixed.pd, legacy.pd) == (1.0, 1.0)
    assert fixed.false_pixels == 4 * 45
    assert fixed.fa == pytest.approx(fa_e6 * 1e-6, rel=1e-3)
    assert legacy.fa == 0.0


def test_legacy_counts_them_where_the_image_has_no_hit_or_another_area():
    size = (64, 64)
    masks = [mask_with_square(size, 40, 40), np.zeros(size, np.int32)]
    # Image 0: the hit's stamp is 9 px, the false one at the corner is clipped to 4 px. Image 1: a false one of 9 px.
    positions = [np.array([(40.5, 40.5), (0.5, 0.5)]), np.array([(20.5, 20.5)])]
    legacy = dnanet_legacy(masks, positions, 3)
    assert legacy.false_pixels == 4 + 9
    assert legacy == dataclasses.replace(basic_irstd(masks, positions, 3), protocol="dnanet_legacy")


def test_centroid_distance_is_strict():
    mask = [mask_with_square((32, 32), 10, 10)]
    assert basic_irstd(mask, [np.array([(12.5, 12.5)])], 1).detected == 1  # |(2, 2)| = 2.83
    assert basic_irstd(mask, [np.array([(13.5, 10.5)])], 1).detected == 0  # exactly 3


def test_the_first_match_in_raster_order_is_taken_not_the_nearest():
    # A single pixel 2 rows above the target comes first; the one on the target is left over as a false pixel, and the
    # second target, 2 rows below, takes that one.
    mask = np.zeros((20, 20), np.int32)
    mask[10, 10] = 1
    positions = np.array([(10.5, 10.5), (10.5, 8.5)])
    alone = basic_irstd([mask], [positions], 1)
    assert (alone.detected, alone.false_pixels) == (1, 1)
    mask[12, 10] = 2
    both = basic_irstd([mask], [positions], 1)
    assert (both.targets, both.detected, both.false_pixels) == (2, 2, 0)


def test_raster_order_is_that_of_the_first_pixel():
    # The upright bar (3 px, rows 0 to 2) starts one row above the single pixel to its left, so it comes first although
    # its centroid is in the same row, farther right, and given last.
    mask = np.zeros((12, 12), np.int32)
    mask[1, 4] = 1
    positions = np.array([(2.5, 1.5), (6.5, 2.5), (6.5, 1.5), (6.5, 0.5)])
    report = basic_irstd([mask], [positions], 1)
    assert (report.detected, report.false_pixels) == (1, 1)


def test_components_are_eight_connected_in_both_maps():
    mask = np.zeros((20, 20), np.int32)
    mask[5, 5] = 1
    mask[6, 6] = 2  # touches by a corner: one component, whatever the ids say
    report = basic_irstd([mask], [np.array([(5.5, 5.5), (6.5, 6.5), (15.5, 15.5), (16.5, 16.5)])], 1)
    assert (report.targets, report.detected, report.false_pixels) == (1, 1, 2)


def test_touching_stamps_merge():
    # Two stamps 3 px apart make one blob of 18 px whose centroid lies 1.5 px off both: one hit, no false pixel.
    report = basic_irstd([mask_with_square((32, 32), 10, 10)], [np.array([(10.5, 10.5), (13.5, 10.5)])], 3)
    assert (report.detected, report.false_pixels) == (1, 0)


def test_fa_grows_with_the_stamp():
    empty = [np.zeros((50, 40), np.int32)]
    for stamp in (1, 3, 5):
        report = basic_irstd(empty, [np.array([(20.5, 20.5)])], stamp)
        assert report.fa == stamp**2 / 2000
        assert report.pd is None
        assert report.to_dict()["stamp"] == stamp


def test_unequal_lengths_are_named():
    with pytest.raises(ValueError, match="1 masks and 0 images"):
        basic_irstd([np.zeros((5, 5))], [], 3)


def test_spire_is_f1_at_five_pixels():
    truth = [Points.of([(10, 10), (40, 40)])]
    found = [Detections.at(torch.tensor([[13.0, 14.0], [44.0, 44.0]]), torch.tensor([0.9, 0.8]))]
    report = spire(truth, found)  # 5.0 away hits, 5.66 does not
    assert (report.tp, report.fp, report.fn, report.f1) == (1, 1, 1, 0.5)


def test_compatibility_declares_stamp_and_threshold():
    mask = torch.from_numpy(mask_with_square((64, 64), 40, 40))
    truth = [Points.of([(40.5, 40.5)], mask=mask)]
    found = [Detections.at(torch.tensor([[40.5, 40.5], [10.5, 10.5], [20.5, 50.5]]), torch.tensor([0.9, 0.6, 0.1]))]
    got = compatibility(truth, found, threshold=0.5)
    assert (got["stamp"], got["threshold"], got["reason"]) == (3, 0.5, None)
    assert got["basic_irstd"]["pd"] == 1.0
    assert got["basic_irstd"]["fa_e6"] == pytest.approx(9 / 4096 * 1e6)
    assert got["dnanet_legacy"]["fa"] == 0.0
    assert got["spire_5px"]["f1"] == pytest.approx(2 / 3)
    json.dumps(got, allow_nan=False)


def test_without_masks_the_reason_is_given():
    truth = [Points.of([]), Points.of([], mask=torch.zeros(8, 8, dtype=torch.int32))]
    got = compatibility(truth, [Detections.at(torch.zeros(0, 2), torch.zeros(0))] * 2, threshold=0.5)
    assert got["basic_irstd"] is None
    assert got["dnanet_legacy"] is None
    assert got["reason"] == "1 of 2 images have no truth mask, which Pd and Fa need"
    assert got["spire_5px"]["f1"] is None
