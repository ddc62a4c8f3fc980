"""The selection ladder on paper, the assignment against a full solver, the curve against drawing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.special import comb
from torchvision.ops import batched_nms

from boresight.core.types import DenseOutput, Scene
from boresight.evaluate.dense_image import DenseImage, Objects
from boresight.evaluate.selection import RUNGS, AtRandom, ByScore, Selection, assigned, climb, kept
from boresight.evaluate.subsample import CELL_COUNTS, best_of_drawn, none_drawn

# One row of six cells of 10 px. Class 0 has objects at cells 1 and 4, class 1 at cell 2 (centres 15, 45, 25).
FIRST, SECOND, OTHER = (10, 0, 20, 10), (40, 0, 50, 10), (20, 0, 30, 10)


def shifted(box, by):
    return (box[0] + by, box[1], box[2] + by, box[3])


def small_case() -> tuple[DenseImage, Scene]:
    boxes = torch.zeros(2, 1, 6, 4)
    far = (50, 0, 60, 10)
    # IoU with a box of 10 shifted by 1, 2, 3, 5: 9/11, 8/12, 7/13, 5/15.
    boxes[0, 0] = torch.tensor([shifted(FIRST, 5), shifted(FIRST, 2), FIRST, far, SECOND, shifted(SECOND, 3)])
    boxes[1, 0] = torch.tensor([OTHER, shifted(OTHER, 1), shifted(OTHER, 3), far, far, shifted(OTHER, 5)])
    score = torch.tensor([[[0.9, 0.5, 0.1, 0.8, 0.2, 0.7]], [[0.05, 0.3, 0.04, 0.85, 0.02, 0.01]]])
    truth = Scene(
        torch.zeros(1, 10, 60),
        "row",
        boxes=torch.tensor([FIRST, SECOND, OTHER], dtype=torch.float32),
        labels=torch.tensor([0, 0, 1]),
    )
    return DenseImage(boxes, score, 10, (10, 60)), truth


def test_every_rung_by_hand():
    image, truth = small_case()
    objects = Objects.of(truth, image)
    assert objects.centre_cell.tolist() == [1, 4, 2]
    got = climb(objects, image.field(), ByScore(image.score.flatten(1)), Selection(top_k=2, nms=0.5))
    ladder = dict(zip(RUNGS, got.T.tolist(), strict=True))
    # All classes, best three: class 0 cells 0 (.9) and 3 (.8), class 1 cell 3 (.85): one fits, by 1/3.
    assert ladder["predicted_class"] == pytest.approx([1 / 3, 0, 0])
    # Class 0, best two: cells 0 and 3. Class 1, the best: cell 3.
    assert ladder["gt_class"] == pytest.approx([1 / 3, 0, 0])
    # Best four of class 0: cells 0, 3, 5, 2. Cell 1 goes because of 0 and cell 4 because of 5, both by 7/13; cell 2
    # stays, 5/15 with 0. Best two of class 1: cells 3 and 1.
    assert ladder["top_k"] == pytest.approx([1, 7 / 13, 9 / 11])
    assert ladder["gt_centre"] == pytest.approx([8 / 12, 1, 7 / 13])
    assert ladder["one_to_one"] == pytest.approx([1, 1, 1])
    assert ladder["oracle"] == pytest.approx([1, 1, 1])


def test_no_objects_no_rows():
    image, truth = small_case()
    none = Scene(truth.image, "none", boxes=torch.zeros(0, 4), labels=torch.zeros(0).long())
    objects = Objects.of(none, image)
    assert climb(objects, image.field(), ByScore(image.score.flatten(1)), Selection()).shape == (0, 6)


def test_one_to_one_does_not_give_a_box_to_two_objects():
    overlap = torch.tensor([[0.9, 0.2, 0.0], [0.8, 0.1, 0.0]])
    # 0.9 + 0.1 against 0.2 + 0.8: the same; any other pairing is worse.
    assert assigned(overlap).sum() == pytest.approx(1.0)
    assert assigned(torch.tensor([[0.9], [0.8]])).tolist() == pytest.approx([0.9, 0])
    assert assigned(torch.zeros(2, 0)).tolist() == [0, 0]
    assert assigned(torch.zeros(0, 3)).tolist() == []


@given(st.integers(1, 5), st.integers(1, 12), st.integers(0, 10_000))
def test_looking_at_the_best_cells_alone_loses_nothing(m: int, n: int, seed: int):
    overlap = torch.tensor(np.random.default_rng(seed).integers(0, 5, (m, n)) / 4)
    row, column = linear_sum_assignment(overlap.numpy(), maximize=True)
    assert assigned(overlap).sum() == pytest.approx(overlap.numpy()[row, column].sum())


def test_suppression_keeps_the_order_and_knows_classes():
    boxes = torch.tensor([FIRST, shifted(FIRST, 1), SECOND, FIRST], dtype=torch.float32)
    assert kept(boxes, torch.tensor([0, 0, 0, 1]), 0.5, 9).tolist() == [0, 2, 3]
    assert kept(boxes, torch.tensor([0, 0, 0, 1]), 0.5, 2).tolist() == [0, 2]
    assert kept(boxes[:0], torch.zeros(0).long(), 0.5, 2).tolist() == []


def test_suppression_looks_as_far_as_it_must():
    generator = torch.Generator().manual_seed(0)
    corner = torch.randint(0, 12, (700, 2), generator=generator).float()
    boxes, labels = torch.cat((corner, corner + 10), 1), torch.randint(2, (700,), generator=generator)
    whole = batched_nms(boxes, torch.arange(700, 0, -1).float(), labels, 0.5)
    assert len(whole) > 8
    for count in (1, 3, len(whole) - 1, len(whole) + 5):
        assert kept(boxes, labels, 0.5, count).tolist() == whole[:count].tolist()


def test_the_orders():
    score = ByScore(torch.tensor([[0.1, 0.9, 0.3], [0.5, 0.2, 0.8]]))
    label, cell = score.overall(4)
    assert (label.tolist(), cell.tolist()) == ([0, 1, 1, 0], [1, 2, 0, 2])
    assert score.within(1, 9).tolist() == [2, 0, 1]
    blind = AtRandom(3, 50, torch.Generator().manual_seed(0))
    label, cell = blind.overall(4000)
    assert label.bincount().tolist() == pytest.approx([1333, 1333, 1333], abs=120)
    assert len(cell.unique()) == 50
    assert int(blind.within(2, 4000).max()) == 49


# --- the raw output --------------------------------------------------------------------------------------------------


def test_padding_is_cut_off():
    output = DenseOutput(torch.zeros(2, 3, 4, 5), torch.zeros(2, 1, 4, 5, 4).expand(-1, 3, -1, -1, -1), 8.0)
    image = DenseImage.of(output, 1, torch.rand(2, 3, 4, 5), (25, 24))
    assert image.grid == (4, 3)
    assert image.field().shape == (3, 12, 4)


def test_boxes_are_cut_to_the_image_and_a_shared_field_stays_shared():
    boxes = torch.tensor([[-5.0, 2, 30, 8], [8, 8, 3, 9]]).reshape(1, 1, 2, 4).expand(4, -1, -1, -1)
    image = DenseImage(boxes, torch.zeros(4, 1, 2), 8, (10, 16)).cpu()
    field = image.field()
    assert field[2].tolist() == [[0, 2, 16, 8], [8, 8, 8, 9]]  # the second is turned inside out: empty
    assert field.stride(0) == 0


def test_the_wrong_shape_is_refused():
    score, boxes = torch.zeros(2, 3, 3), torch.zeros(2, 3, 3, 4)
    with pytest.raises(ValueError, match=r"boxes must have shape \[2, 3, 3, 4\], got \[2, 3, 4, 4\]"):
        DenseImage(torch.zeros(2, 3, 4, 4), score, 8, (24, 24))
    with pytest.raises(ValueError, match=r"presence must have shape \[2\]"):
        DenseImage(boxes, score, 8, (24, 24), presence=torch.zeros(3))
    with pytest.raises(ValueError, match="boxes holds values that are not finite"):
        DenseImage(boxes / 0, score, 8, (24, 24))
    image = DenseImage(boxes, score, 8, (24, 24))
    with pytest.raises(ValueError, match="`s` has a box without area"):
        Objects.of(Scene(torch.zeros(1, 24, 24), "s", boxes=torch.zeros(1, 4), labels=torch.tensor([0])), image)
    with pytest.raises(ValueError, match=r"`s` has labels 2\.\.2, the output 2 channels"):
        Objects.of(Scene(torch.zeros(1, 24, 24), "s", boxes=torch.ones(1, 4), labels=torch.tensor([2])), image)


def test_cells_inside_an_object_or_its_centre_cell():
    image = DenseImage(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3), 10, (20, 30))
    boxes = torch.tensor([[0.0, 0, 21, 9], [6, 12, 9, 14]])
    ignore = Scene(torch.zeros(1, 20, 30), "s", boxes=boxes, labels=torch.zeros(2).long())
    objects = Objects.of(ignore, image)
    assert objects.inside.tolist() == [[True, True, False, False, False, False], [False] * 3 + [True, False, False]]
    assert objects.centre_cell.tolist() == [1, 3]


# --- the oracle against the number of cells --------------------------------------------------------------------------


def test_the_curve_equals_every_possible_draw():
    overlap = torch.tensor([[0.1, 0.7, 0.3, 0.0, 0.6]])
    curve = best_of_drawn(overlap)[0]
    four = [max(overlap[0, list(c)].tolist()) for c in itertools.combinations(range(5), 4)]
    assert curve[0] == pytest.approx([0.34, 0.4])
    assert curve[1] == pytest.approx([np.mean(four), np.mean(np.array(four) >= 0.5)])
    assert np.isnan(curve[2:]).all()


def test_all_cells_are_the_oracle_itself():
    overlap = torch.rand(3, 784, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    curve = best_of_drawn(overlap)
    assert curve[:, CELL_COUNTS.index(784), 0] == pytest.approx(overlap.amax(1).numpy())
    assert (np.diff(curve[:, :6, 0], axis=1) > 0).all()


@given(st.integers(1, 30), st.data())
def test_the_chance_is_a_ratio_of_binomials(cells: int, data: st.DataObject):
    drawn = data.draw(st.integers(1, cells))
    expected = [comb(cells - i, drawn, exact=True) / comb(cells, drawn, exact=True) for i in range(cells + 1)]
    assert none_drawn(cells, drawn) == pytest.approx(expected)
