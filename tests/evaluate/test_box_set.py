"""Truth and detections from whole columns: the door of everything that reads files."""

from __future__ import annotations

import numpy as np
import pytest

from boresight.evaluate.box_set import BoxSet

A, B, C = (0, 0, 10, 10), (20, 20, 30, 30), (5, 5, 5, 9)


def test_rows_are_put_image_after_image_and_keep_their_order():
    boxes = BoxSet.of_arrays(
        [9, 4, 6],
        ([A, B, C, A], [2, 0, 2, 0], [0, 1, 2, 3]),
        ([C, B, A], [1, 0, 1], [5, 6, 7]),
        [0.1, 0.9, 0.9],
        crowd=[True, False, False, True],
        open=[False, False, True],
    )
    assert boxes.images == 3
    assert boxes.truth_box.tolist() == [list(map(float, b)) for b in (B, A, A, C)]
    assert boxes.truth_image.tolist() == [0, 0, 2, 2]
    assert boxes.truth_object.tolist() == [0, 1, 0, 1]
    assert boxes.truth_label.tolist() == [1, 3, 0, 2]
    assert boxes.crowd.tolist() == [False, True, True, False]
    assert boxes.found_box.tolist() == [list(map(float, b)) for b in (B, C, A)]
    assert boxes.found_label.tolist() == [6, 5, 7]
    assert boxes.scores.tolist() == [0.9, 0.1, 0.9]
    assert boxes.open.tolist() == [False, False, True]
    assert boxes.cell.tolist() == [-1, -1, -1]
    assert boxes.rank.tolist() == [1, 2, 0]  # of equal scores that of image 4 comes first


def test_nothing_is_a_set_too():
    none: tuple[list, list, list] = ([], [], [])
    for ids in ([], [3]):
        boxes = BoxSet.of_arrays(ids, none, none, [])
        assert (boxes.images, boxes.truth_box.shape, boxes.found_box.shape) == (len(ids), (0, 4), (0, 4))
    assert BoxSet.of_arrays([3], ([A], [0], [0]), none, []).crowd.tolist() == [False]


@pytest.mark.parametrize(
    ("truth", "found", "more", "message"),
    [
        (([A], [0, 0], [0]), ([A], [0], [0]), {}, "truth: 1 boxes, 2 images and 1 labels: one of each a row"),
        (([A], [0], [0]), ([A], [0], []), {}, "found: 1 boxes, 1 images and 0 labels: one of each a row"),
        (([A], [0], [0]), ([A], [2], [0]), {}, r"found lies in images 2\.\.2, but there are 2"),
        (([A], [-1], [0]), ([A], [0], [0]), {}, r"truth lies in images -1\.\.-1, but there are 2"),
        (
            ([A], [0], [0]),
            ([(0, 5, 9, 1)], [0], [0]),
            {},
            r"found_box 0 is turned inside out: \[0\.0, 5\.0, 9\.0, 1\.0\]",
        ),
        (([A], [0], [0]), ([A], [0], [0]), {"crowd": [True, False]}, r"crowd must have shape \[1\], got \[2\]"),
        (
            ([(0, 0, np.nan, 1)], [0], [0]),
            ([A], [0], [0]),
            {},
            r"truth_box holds values that are not finite: row 0 is ",
        ),
        (([A], [0], [0]), ([(0, 0, 1, np.inf)], [0], [0]), {}, "found_box holds values that are not finite: row 0 is "),
    ],
)
def test_what_does_not_fit_is_refused(truth, found, more, message):
    with pytest.raises(ValueError, match=message):
        BoxSet.of_arrays([1, 2], truth, found, [0.5], **more)


def test_a_score_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="scores holds values that are not finite: row 1 is nan"):
        BoxSet.of_arrays([1], ([A], [0], [0]), ([A, B], [0, 0], [0, 0]), [0.5, np.nan])
    with pytest.raises(ValueError, match=r"scores must have shape \[2\], got \[1\]"):
        BoxSet.of_arrays([1], ([A], [0], [0]), ([A, B], [0, 0], [0, 0]), [0.5])
