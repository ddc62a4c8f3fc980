"""Local peaks, their place and their order."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.core.grid import cell_centres, unravel_cell
from boresight.core.types import DenseOutput
from boresight.decode.peaks import decode_points, local_peaks, parabola_shift


def output(logits, stride=4.0, shift=(0.0, 0.0)):
    """An output whose cells all emit their centre, moved by ``shift`` pixels."""
    logits = torch.as_tensor(logits, dtype=torch.float32)
    logits = logits[(None,) * (4 - logits.ndim)]
    b, c, h, w = logits.shape
    xy = cell_centres(h, w, stride) + torch.tensor(shift)
    boxes = torch.cat((xy, xy), -1).expand(b, c, h, w, 4)
    return DenseOutput(logits, boxes, stride)


ONE = [[-5, -5, -5], [-5, 2, -5], [-5, -5, -6]]
TWO = [[3, -5, -5, -5], [-5, -5, -5, 1], [-5, -5, -5, 0]]


# ---------------------------------------------------------------- by hand


def test_one_peak_by_hand():
    found = decode_points(output(ONE), min_score=0.5)[0]
    assert found.xy.tolist() == [[6.0, 6.0]]
    assert found.scores.tolist() == pytest.approx([1 / (1 + math.exp(-2))])
    assert found.cell.tolist() == [4]
    assert found.labels.tolist() == [0]


def test_a_shoulder_is_no_peak_and_the_best_comes_first():
    found = decode_points(output(TWO), min_score=0.4)[0]
    assert found.cell.tolist() == [0, 7]
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


def test_offset_takes_the_place_that_the_cell_emits():
    moved = output(ONE, shift=(1.5, -0.25))
    assert decode_points(moved, min_score=0.5)[0].xy.tolist() == [[7.5, 5.75]]
    assert decode_points(moved, min_score=0.5, refine="none")[0].xy.tolist() == [[6.0, 6.0]]


@pytest.mark.parametrize(
    "plateau",
    [[[0, 0], [0, 1]], [[0, 0], [1, 0]], [[0, 0], [1, 1]], [[0, 1], [1, 0]], [[0, 0], [0, 1], [1, 0], [1, 1]]],
)
@pytest.mark.parametrize("at", [(0, 0), (1, 1), (3, 3), (0, 3)])
def test_equal_neighbours_are_one_peak(plateau, at):
    logits = torch.full((5, 5), -8.0)
    for dy, dx in plateau:
        logits[at[0] + dy, at[1] + dx] = 2.0
    assert len(decode_points(output(logits), min_score=0.5)[0]) == 1


def test_a_flat_map_gives_one_peak_at_most():
    assert len(decode_points(output(torch.zeros(6, 7)))[0]) == 1


def test_a_larger_window_suppresses_more():
    logits = torch.full((1, 6), -8.0)
    logits[0, 1], logits[0, 3] = 2.0, 1.0
    assert len(decode_points(output(logits), min_score=0.5)[0]) == 2
    assert len(decode_points(output(logits), min_score=0.5, window=5)[0]) == 1
    assert len(decode_points(output(logits), min_score=0.5, window=1)[0]) == 2


@pytest.mark.parametrize("window", [0, 2, 4, -1])
def test_an_even_window_has_no_centre(window):
    with pytest.raises(ValueError, match="odd number of cells"):
        local_peaks(torch.zeros(1, 1, 4, 4), window)


def test_top_k_keeps_the_best():
    logits = torch.full((7, 7), -8.0)
    logits[::2, ::2] = torch.arange(16.0).view(4, 4) / 10
    found = decode_points(output(logits), top_k=5)[0]
    assert found.scores.tolist() == pytest.approx(torch.tensor([1.5, 1.4, 1.3, 1.2, 1.1]).sigmoid().tolist())
    assert len(decode_points(output(logits), top_k=1000)[0]) == 16


@pytest.mark.parametrize("refine", ["offset", "none"])
def test_classes_have_their_own_peaks_and_cells_name_them(refine):
    logits = torch.full((2, 3, 4, 5), -8.0)
    spots = [(0, 2, 1, 4), (0, 0, 1, 4), (1, 1, 3, 0)]
    for n, spot in enumerate(spots):
        logits[spot] = 3.0 - n
    found = decode_points(output(logits), min_score=0.5, refine=refine)
    assert [len(f) for f in found] == [2, 1]
    for spot, (image, k) in zip(spots, [(0, 0), (0, 1), (1, 0)], strict=True):
        level, label, row, column = unravel_cell(found[image].cell[[k]], [(3, 4, 5)])
        assert (level, label, row, column) == (0, *spot[1:])
        assert int(found[image].labels[k]) == spot[1]
        assert found[image].xy[k].tolist() == [spot[3] * 4 + 2, spot[2] * 4 + 2]


def test_an_empty_batch_and_a_single_cell():
    assert decode_points(output(torch.zeros(0, 1, 3, 3))) == []
    single = decode_points(output([[1.0]]), refine="parabola")[0]
    assert single.xy.tolist() == [[2.0, 2.0]]


# ---------------------------------------------------------------- the parabola


def test_the_parabola_by_hand():
    """Log-scores -2, 0.., -1 around a peak: (low - high) / (2 (low - 2 middle + high)) = -1 / -6."""
    logits = torch.tensor([math.exp(-3), math.exp(-1), math.exp(-2)], dtype=torch.float64).logit()
    shift = parabola_shift(logits.view(1, 1, 1, 3))[0, 0, 0, 1]
    assert shift.tolist() == pytest.approx([(-3 + 2) / (2 * (-3 + 2 - 2)), 0.0])


def test_a_peak_at_the_border_is_not_pushed_out():
    """The missing neighbour is unknown; standing in for it by a copy would say half a cell outwards, always."""
    logits = torch.tensor([[3.0, 0.0, -2.0], [1.0, -1.0, -3.0], [-1.0, -2.0, -4.0]])
    assert parabola_shift(logits[None, None])[0, 0, 0, 0].tolist() == [0.0, 0.0]
    below = parabola_shift(logits[None, None])[0, 0, 1, 0].tolist()
    assert below[0] == 0.0


def test_no_peak_no_shift_and_never_beyond_half_a_cell():
    shift = parabola_shift(torch.randn(2, 2, 9, 9, generator=torch.Generator().manual_seed(1)) * 4)
    assert shift.abs().max() <= 0.5
    assert parabola_shift(torch.zeros(1, 1, 5, 5)).abs().max() == 0
    hollow = torch.tensor([[0.0, -3.0, 1.0]])
    assert parabola_shift(hollow[None, None])[0, 0, 0, 1].tolist() == [0.0, 0.0]


def test_a_neighbour_of_no_score_gives_no_shift():
    """What the detector writes into padding."""
    logits = torch.tensor([[-torch.inf, 2.0, 1.0, -torch.inf]])
    shift = parabola_shift(logits[None, None])[0, 0, 0]
    assert shift[1:3].tolist() == [[0.0, 0.0], [0.0, 0.0]]


# ---------------------------------------------------------------- properties

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 8), st.integers(1, 8))
REFINE = st.sampled_from(["offset", "parabola", "none"])


def random_output(shape, seed):
    random = torch.Generator().manual_seed(seed)
    logits = (4 * torch.randn(shape, generator=random)).round() / 2  # coarse steps, so that ties happen
    return output(logits, shift=(0.7, -0.4))


def same(one, two):
    return all(torch.equal(getattr(one, n), getattr(two, n)) for n in ("boxes", "scores", "labels", "cell"))


@settings(max_examples=40)
@given(SHAPES, st.integers(0, 99), REFINE)
def test_a_batch_is_its_images_one_by_one(shape, seed, refine):
    out = random_output(shape, seed)
    together = decode_points(out, refine=refine, top_k=7)
    for i, found in enumerate(together):
        alone = DenseOutput(out.logits[i : i + 1], out.boxes[i : i + 1], out.stride)
        assert same(found, decode_points(alone, refine=refine, top_k=7)[0])


@settings(max_examples=40)
@given(SHAPES, st.integers(0, 99), REFINE)
def test_what_is_found_is_what_the_named_cell_said(shape, seed, refine):
    out = random_output(shape, seed)
    before = out.logits.clone()
    for i, found in enumerate(decode_points(out, refine=refine)):
        assert torch.equal(out.logits[i].flatten()[found.cell].sigmoid(), found.scores)
        assert (found.scores[:-1] >= found.scores[1:]).all()
        assert len(found.cell.unique()) == len(found)
        _, label, row, column = unravel_cell(found.cell, [shape[1:]])
        assert torch.equal(label, found.labels)
        centre = (torch.stack((column, row), -1) + 0.5) * 4
        assert (found.xy - centre).abs().max() <= 2.0
        if refine == "offset":
            assert torch.equal(found.boxes, out.boxes[i].flatten(0, 2)[found.cell])
    assert torch.equal(out.logits, before)


@settings(max_examples=40)
@given(SHAPES, st.integers(0, 99), st.sampled_from([1, 3, 5]))
def test_peaks_against_a_plain_loop(shape, seed, window):
    """A peak is at least its neighbours, more than those before it; every connected maximum keeps one peak."""
    logits = random_output(shape, seed).logits
    peaks, reach = local_peaks(logits, window), window // 2
    b, c, h, w = shape
    for at in torch.cartesian_prod(*(torch.arange(n) for n in shape)).tolist() if b * c * h * w > 1 else [[0] * 4]:
        row, column = at[2:]
        want = True
        for j in range(max(0, row - reach), min(h, row + reach + 1)):
            for i in range(max(0, column - reach), min(w, column + reach + 1)):
                rival, own = float(logits[at[0], at[1], j, i]), float(logits[tuple(at)])
                want &= rival <= own if (j, i) >= (row, column) else rival < own
        assert bool(peaks[tuple(at)]) == want


@given(SHAPES, st.integers(0, 99), st.floats(0, 1))
def test_min_score_only_drops(shape, seed, minimum):
    out = random_output(shape, seed)
    for every, some in zip(decode_points(out), decode_points(out, min_score=minimum), strict=True):
        assert same(every.select(every.scores >= minimum), some)
