"""AP under image weights: each recall against its definition, and work in pieces equal to all at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.diagnose.attribution import REPAIRS
from boresight.diagnose.tide import error_kinds
from boresight.diagnose.tide_gain import repaired_ap
from boresight.evaluate import average_precision
from boresight.evaluate.average_precision import RECALLS, class_steps, mean_ap, recall_places, steps_of
from boresight.evaluate.bootstrap import image_draws, image_weights, whole
from boresight.evaluate.box_match import match_boxes
from boresight.evaluate.box_set import BoxSet
from boresight.evaluate.column import Column


def made(seed: int, images: int = 12, classes: int = 3) -> BoxSet:
    """Objects and detections on a coarse grid: many hits, doubles, ties of score and of overlap."""
    rng = np.random.default_rng(seed)

    def boxes(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        corner = rng.integers(0, 6, (count, 2)) * 5.0
        return np.hstack((corner, corner + 10)), rng.integers(images, size=count), rng.integers(classes, size=count)

    scores = rng.integers(0, 8, 20 * images) / 8
    crowd = rng.random(8 * images) < 0.1
    return BoxSet.of_arrays(np.arange(images) + 1, boxes(8 * images), boxes(20 * images), scores, crowd=crowd)


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(0, 80))
@settings(max_examples=300)
def test_a_recall_is_reached_at_the_first_place_where_hits_over_truths_are_at_least_that(steps, more):
    tp = np.cumsum(np.array(steps, np.int64))
    truths = int(tp[-1]) + more if len(tp) else more
    got = recall_places(tp[None], np.array([float(truths)]))[0]
    recall = tp / truths if truths else np.zeros(len(tp))
    assert got.tolist() == np.searchsorted(recall, RECALLS).tolist()


@pytest.mark.parametrize("at_once", [1, 7, 64])
def test_replicates_in_pieces_are_those_of_all_at_once(monkeypatch, at_once):
    boxes = made(0)
    weights = image_draws(boxes.images, 25)
    steps, errors = class_steps(boxes, 0.5, 3), error_kinds(boxes)
    want = mean_ap(steps, weights), repaired_ap(boxes, errors, 3, REPAIRS, weights)
    monkeypatch.setattr(average_precision, "AT_ONCE", at_once)
    np.testing.assert_array_equal(mean_ap(steps, weights), want[0])
    np.testing.assert_array_equal(repaired_ap(boxes, errors, 3, REPAIRS, weights), want[1])


def test_other_scores_rank_as_a_set_that_has_them():
    boxes = made(1)
    scores = np.random.default_rng(2).integers(0, 4, len(boxes.scores)) / 4
    told = boxes.rescored(scores)
    match = match_boxes(told, 0.5)
    weights = image_draws(boxes.images, 10)
    want = mean_ap(steps_of(told, match.hit, match.false, 3), weights)
    np.testing.assert_array_equal(mean_ap(steps_of(boxes, match.hit, match.false, 3, scores), weights), want)
    assert not np.array_equal(mean_ap(steps_of(boxes, match.hit, match.false, 3), weights), want)


def test_a_class_without_truth_or_without_detections():
    ones = np.ones((1, 2))
    box, at = np.array([[0.0, 0, 10, 10]]), np.array([1])
    none = np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0, np.int64)
    for truth, found, scores, ap in (
        ((box, at, [0]), none, [], 0.0),
        (none, (box, at, [0]), [0.5], np.nan),
        ((box, at, [0]), (box, at, [1]), [0.5], 0.0),
        ((box, at, [1]), (box, at, [1]), [0.5], 1.0),
    ):
        boxes = BoxSet.of_arrays([1, 2], truth, found, scores)
        np.testing.assert_allclose(mean_ap(class_steps(boxes, 0.5, 2), ones), [ap], atol=1e-12)


def test_draws_are_ones_and_the_rows_of_the_weights():
    draws = image_draws(30, 20, seed=3)
    assert draws.dtype == np.uint8
    np.testing.assert_array_equal(draws[0], 1)
    np.testing.assert_array_equal(draws[1:], image_weights(30, 20, seed=3))
    assert image_draws(0, 5).shape == (6, 0)


def test_weights_are_whole_numbers_in_as_few_bytes_as_hold_them():
    assert whole(np.array([[0.0, 255.0]])).dtype == np.uint8
    assert whole(np.array([[0.0, 256.0]])).tolist() == [[0, 256]]
    for bad in (0.5, np.nan, np.inf):
        with pytest.raises(ValueError, match="whole numbers"):
            whole(np.array([[1.0, bad]]))


def test_a_column_is_its_parts_in_order_and_empty_once_taken():
    column = Column()
    assert column.whole().tolist() == []
    for part in ([1, 2], [], [3]):
        column.add(np.array(part, np.int8))
    assert (column.whole().tolist(), column.whole().dtype) == ([1, 2, 3], np.int8)
    column.add(np.array([4], np.int8))
    assert column.take().tolist() == [1, 2, 3, 4]
    assert column.whole().tolist() == []
