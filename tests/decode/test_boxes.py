from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import batched_nms

from boresight.core.grid import cell_centres, unravel_cell
from boresight.core.types import DenseOutput
from boresight.decode.boxes import BoxDecoder, beyond, loudest


def output(score, side=8.0, stride=8.0):
    """A box of ``side`` px around every cell's centre."""
    score = torch.as_tensor(score, dtype=torch.float32)
    b, c, rows, columns = score.shape
    centre = cell_centres(rows, columns, stride)
    boxes = torch.cat((centre - side / 2, centre + side / 2), -1).expand(b, c, rows, columns, 4)
    return DenseOutput(torch.zeros_like(score), boxes, stride), score


def test_every_detection_keeps_its_cell():
    score = torch.zeros(2, 3, 4, 5)
    score[0, 1, 2, 3], score[0, 2, 0, 0], score[1, 0, 3, 4] = 0.9, 0.8, 0.7
    given, score = output(score)
    first, second = BoxDecoder(0.1)(given, score, [(32, 40)] * 2)
    assert first.scores.tolist() == pytest.approx([0.9, 0.8])
    assert first.labels.tolist() == [1, 2]
    _, label, row, column = unravel_cell(first.cell, [(3, 4, 5)])
    assert (label.tolist(), row.tolist(), column.tolist()) == ([1, 2], [2, 0], [3, 0])
    assert first.boxes[0].tolist() == [24.0, 16.0, 32.0, 24.0]
    assert second.labels.tolist() == [0]


def test_doubles_of_one_class_go_and_those_of_two_stay():
    score = torch.zeros(1, 2, 1, 2)
    score[0, 0, 0] = torch.tensor([0.9, 0.8])
    score[0, 1, 0, 1] = 0.7
    given, score = output(score, side=64.0)  # neighbours overlap by 56 / 72
    (found,) = BoxDecoder(0.1, nms=0.5)(given, score, [(64, 64)])
    assert found.labels.tolist() == [0, 1]
    assert len(BoxDecoder(0.1, nms=0.9)(given, score, [(64, 64)])[0]) == 3


def test_the_padding_says_nothing_and_boxes_end_at_the_image():
    given, score = output(torch.full((1, 1, 2, 3), 0.5), side=12.0)
    assert beyond(given, [(9, 16)])[0, 0].tolist() == [[False, False, True], [False, False, True]]
    (found,) = BoxDecoder(0.1, nms=1.0)(given, score, [(9, 16)])
    assert len(found) == 4
    assert found.boxes[:, 2].max() <= 16
    assert found.boxes[:, 3].max() <= 9
    (found,) = BoxDecoder(0.1, nms=1.0)(given, score, [(8, 8)])
    assert len(found) == 1


def test_threshold_and_top_k():
    score = torch.tensor([0.1, 0.3, 0.2, 0.4]).reshape(1, 1, 1, 4)
    given, score = output(score)
    (found,) = BoxDecoder(0.3)(given, score, [(8, 32)])
    assert found.scores.tolist() == pytest.approx([0.4, 0.3])  # the threshold itself is kept
    assert len(BoxDecoder(0.0, top_k=3)(given, score, [(8, 32)])[0]) == 3


def test_only_cells_like_those_trained_may_speak():
    given, score = output(torch.full((1, 1, 1, 4), 0.5))
    boxes = given.boxes.clone()
    boxes[0, 0, 0, 1] += torch.tensor([13.0, 0.0, 13.0, 0.0])  # centred 13 px from its cell
    given = DenseOutput(given.logits, boxes, 8.0)
    assert len(BoxDecoder(0.1, nms=1.0, trained_reach=1.5)(given, score, [(8, 64)])[0]) == 3
    assert len(BoxDecoder(0.1, nms=1.0, trained_reach=2.0)(given, score, [(8, 64)])[0]) == 4


def test_nothing_above_the_threshold_is_no_detection():
    given, score = output(torch.zeros(1, 2, 3, 3))
    (found,) = BoxDecoder(0.1)(given, score, [(24, 24)])
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)


def test_limits_for_each_class_leave_a_faint_channel_its_place():
    """The second channel lies below every score of the first: of all together it gets nothing, of its own the best."""
    score = torch.stack((torch.linspace(0.5, 0.9, 12), torch.linspace(0.1, 0.2, 12))).view(1, 2, 3, 4)
    given, score = output(score)
    together = BoxDecoder(0.0, top_k=4, before_nms=6)(given, score, [(24, 32)])[0]
    assert together.labels.tolist() == [0] * 4
    apart = BoxDecoder(0.0, top_k=2, before_nms=6, per_class=True)(given, score, [(24, 32)])[0]
    assert apart.labels.tolist() == [0, 0, 1, 1]
    assert apart.cell.tolist() == [11, 10, 23, 22]
    assert apart.scores.tolist() == pytest.approx(score[0].flatten(1)[:, [11, 10]].flatten().tolist())


# --- the best, and suppression that stops early ---


@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.25, 0.5, 0.75, -1.0, float("nan")]), min_size=1, max_size=60),
    st.integers(1, 70),
)
def test_the_loudest_are_those_of_a_stable_sort(values, k):
    table = torch.tensor(values)
    best, place = loudest(table, k)
    order = torch.where(table.isnan(), torch.inf, table).argsort(descending=True, stable=True)[:k]
    wanted = table[order]
    assert torch.equal(best.nan_to_num(9.0), wanted.nan_to_num(9.0))
    assert len(set(place.tolist())) == len(place) == min(k, len(table))
    if k < len(table):
        assert place.tolist() == order.tolist()  # of equal ones the earlier


@pytest.mark.parametrize("spread", [4.0, 300.0])
@pytest.mark.parametrize("classes", [1, 3])
def test_suppression_that_stops_early_keeps_the_same(spread, classes):
    """Boxes in one heap leave fewer than are wanted among the best, spread ones leave enough."""
    random = torch.Generator().manual_seed(0)
    corner = spread * torch.rand(900, 2, generator=random)
    boxes = torch.cat((corner, corner + 10 + torch.rand(900, 2, generator=random)), -1)
    scores = torch.rand(900, generator=random).sort(descending=True).values
    labels = torch.randint(0, classes, (900,), generator=random)
    decoder = BoxDecoder(top_k=50)
    kept = decoder._kept(boxes, scores, labels)
    assert torch.equal(kept, batched_nms(boxes, scores, labels, decoder.nms)[:50])
    assert (len(kept) == 50) is (spread > 100)
